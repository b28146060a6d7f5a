"""Gradient descent with heavy-ball momentum."""

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np

from repast_dist.ground.numbers import Fraction
from repast_dist.ground.spec import spec
from repast_dist.training.optimizers.base import (
    OPTIMIZERS,
    Arrays,
    Optimizer,
    Update,
    heavy_ball,
    zeros,
)


@OPTIMIZERS.register
@spec
class Sgd(Optimizer):
    """Gradient descent with momentum.

    Attributes
    ----------
    momentum : float
        Heavy-ball momentum.
    """

    title: ClassVar[str] = "SGD"

    method: Literal["sgd"] = "sgd"
    momentum: Fraction = 0.9

    def initial_state(self, weights: Mapping[str, np.ndarray]) -> Arrays:
        """Return momentum of zeros."""
        return zeros(weights, ["momentum"])

    def update(self, given: Update) -> tuple[Arrays, Arrays]:
        """Return the new weights and momentum."""
        gradients = {n: given.gradients[n].astype(np.float64) for n in given.weights}
        return heavy_ball(self, self.momentum, given, gradients)
