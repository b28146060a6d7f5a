"""Adam (Kingma and Ba 2015, algorithm 1) with decoupled weight decay.

With a decay it is AdamW (Loshchilov and Hutter 2019), whose decay never enters the averages.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Gt

from repast_dist.ground.numbers import Fraction
from repast_dist.ground.spec import spec
from repast_dist.training.optimizers.base import OPTIMIZERS, Arrays, Optimizer, Update, zeros


@OPTIMIZERS.register
@spec
class Adam(Optimizer):
    """Adam with bias correction; with `weight_decay` it is AdamW.

    Attributes
    ----------
    beta1, beta2 : float
        Decays of the running averages of the gradient and of its square.
    epsilon : float
        Added to the root of the second average.
    """

    title: ClassVar[str] = "Adam"
    # First average (2), second (3), their corrections (2), root, epsilon, quotient, decay, step.
    update_operations: ClassVar[int] = 12

    method: Literal["adam"] = "adam"
    beta1: Fraction = 0.9
    beta2: Fraction = 0.999
    epsilon: Annotated[float, Gt(0)] = 1e-8

    def initial_state(self, weights: Mapping[str, np.ndarray]) -> Arrays:
        """Return averages of zeros."""
        return zeros(weights, ["first", "second"])

    def update(self, given: Update) -> tuple[Arrays, Arrays]:
        """Return the new weights and averages."""
        rate = self.learning_rate_at(given.step, given.total_steps)
        weights: Arrays = {}
        state: Arrays = {}
        for name, old in given.weights.items():
            gradient = given.gradients[name].astype(np.float64)
            old_first, old_second = (
                given.state[f"{kind}/{name}"].astype(np.float64) for kind in ("first", "second")
            )
            first = self.beta1 * old_first + (1 - self.beta1) * gradient
            second = self.beta2 * old_second + (1 - self.beta2) * gradient**2
            unbiased = first / (1 - self.beta1 ** (given.step + 1))
            spread = np.sqrt(second / (1 - self.beta2 ** (given.step + 1)))
            direction = unbiased / (spread + self.epsilon)
            direction += self.decay(old, name in given.biased)
            weights[name] = (old - rate * direction).astype(old.dtype)
            state[f"first/{name}"] = first.astype(old.dtype)
            state[f"second/{name}"] = second.astype(old.dtype)
        return weights, state
