"""FOOF (Benzing 2022, "Gradient descent on neurons") inverts the moment of the inputs alone."""

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np

from repast_dist.ground.numbers import Fraction
from repast_dist.ground.spec import spec
from repast_dist.training.kfac import average_decay
from repast_dist.training.optimizers.base import (
    OPTIMIZERS,
    Arrays,
    LayerStatistics,
    SecondOrder,
    Side,
    Update,
    heavy_ball,
    zeros,
)


@OPTIMIZERS.register
@spec
class Foof(SecondOrder):
    """FOOF follows ``(A + damping)^-1 dW``, A the moment of a layer's inputs.

    It forms and inverts no matrix of output gradients. Layers without a direction follow the
    plain gradient.

    Attributes
    ----------
    momentum : float
        Heavy-ball momentum.
    factor_decay : float
        Limit of the running average's decay; step k uses min(1 - 1/k, factor_decay).
    """

    title: ClassVar[str] = "FOOF"
    fusible: ClassVar[bool] = True

    method: Literal["foof"] = "foof"
    momentum: Fraction = 0.9
    factor_decay: Fraction = 0.95

    @property
    def sides(self) -> tuple[Side, ...]:
        """The side of the inputs."""
        return ("A",)

    def statistic(self, side: Side, layer: LayerStatistics) -> np.ndarray:
        """Return the moment of the inputs."""
        return layer.input_moment()

    def average_weights(self, update: int) -> tuple[float, float]:
        """Return the weights of the old average and of the new moment."""
        past = average_decay(update, self.factor_decay)
        return past, 1.0 - past

    def initial_state(self, weights: Mapping[str, np.ndarray]) -> Arrays:
        """Return momentum of zeros."""
        return zeros(weights, ["momentum"])

    def update(self, given: Update) -> tuple[Arrays, Arrays]:
        """Return the new weights and momentum."""
        found = {**given.gradients, **given.directions}
        directions = {name: found[name].astype(np.float64) for name in given.weights}
        return heavy_ball(self, self.momentum, given, directions)
