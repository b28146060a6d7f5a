"""A user's optimizers, in one file outside of the package."""

from typing import Literal

import numpy as np

from repast_dist.ground.spec import spec
from repast_dist.training.optimizers import OPTIMIZERS, Optimizer, SecondOrder, heavy_ball, zeros


@OPTIMIZERS.register
@spec
class SignDescent(Optimizer):
    """A step along the gradient's signs."""

    method: Literal["sign"] = "sign"

    def initial_state(self, weights):
        return {}

    def update(self, given):
        rate = self.learning_rate_at(given.step, given.total_steps)
        new = {n: (w - rate * np.sign(given.gradients[n])).astype(np.float32)
               for n, w in given.weights.items()}  # fmt: skip
        return new, {}


class _Solved(SecondOrder):
    """Descent along solved gradients; the plain gradient where there are none."""

    def initial_state(self, weights):
        return zeros(weights, ["momentum"])

    def update(self, given):
        return heavy_ball(self, 0.5, given, {**given.gradients, **given.directions})


@OPTIMIZERS.register
@spec
class OnlyRight(_Solved):
    """Solves with the moments of a layer's output gradients alone."""

    method: Literal["only_right"] = "only_right"

    @property
    def sides(self):
        return ("G",)

    def statistic(self, side, layer):
        return layer.error_moment()


@OPTIMIZERS.register
@spec
class FourthRoots(_Solved):
    """Fourth roots of L = sum G G' and R = sum G' G (Gupta et al. 2018), block by block."""

    method: Literal["fourth_roots"] = "fourth_roots"

    def statistic(self, side, layer):
        return layer.moment(side, layer.gradient.T if side == "A" else layer.gradient)

    def average_weights(self, update):
        return 1.0, 1.0

    def block_matrix(self, side, average, damping):
        values, vectors = np.linalg.eigh(average)
        return (vectors * (np.maximum(values, 0.0) + damping) ** 0.25) @ vectors.T
