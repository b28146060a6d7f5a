"""A first-order optimizer of one's own: Lion (Chen et al. 2023)."""

from typing import Literal

import numpy as np

from repast_dist.ground.numbers import Fraction
from repast_dist.ground.spec import spec
from repast_dist.training.optimizers import OPTIMIZERS, Optimizer, zeros


@OPTIMIZERS.register
@spec
class Lion(Optimizer):
    """Steps along the sign of an interpolated momentum.

    Attributes
    ----------
    method : {"lion"}
        The optimizer's name.
    beta1, beta2 : float
        Interpolation of the step and of the momentum.
    """

    method: Literal["lion"] = "lion"
    beta1: Fraction = 0.9
    beta2: Fraction = 0.99

    def initial_state(self, weights):
        """Return zeroed momentum."""
        return zeros(weights, ["momentum"])

    def update(self, given):
        """Return the new weights and momentum."""
        rate = self.learning_rate_at(given.step, given.total_steps)
        weights, state = {}, {}
        for name, old in given.weights.items():
            gradient, momentum = given.gradients[name], given.state[f"momentum/{name}"]
            step = np.sign(self.beta1 * momentum + (1 - self.beta1) * gradient)
            weights[name] = (old - rate * step).astype(np.float32)
            kept = self.beta2 * momentum + (1 - self.beta2) * gradient
            state[f"momentum/{name}"] = kept.astype(np.float32)
        return weights, state
