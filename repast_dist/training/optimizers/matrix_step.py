"""The step of an optimizer that updates matrices in one way and everything else with Adam.

The bias of a layer is the last row of its weights; it is updated as everything else is.
"""

from collections.abc import Callable

import numpy as np

from repast_dist.training.optimizers.adam import Adam
from repast_dist.training.optimizers.base import Arrays, Optimizer, Update


def matrix_step(
    optimizer: Optimizer,
    others: Adam,
    given: Update,
    scale: Callable[[int, int], float],
) -> tuple[Arrays, Arrays]:
    """Return the new weights, and the state of Adam.

    Weights that have a direction decay by ``1 - rate * weight_decay`` and then follow it.

    Parameters
    ----------
    optimizer : Optimizer
        The rate and the decay of matrices.
    others : Adam
        What updates everything else, at a rate of its own.
    given : Update
        Directions are those of matrices, whose row of a bias, if there is one, means nothing.
    scale : callable
        Inputs and outputs of a matrix -> factor of its direction.
    """
    rate = optimizer.learning_rate_at(given.step, given.total_steps)
    weights: Arrays = {}
    left: Arrays = {}
    gradients: Arrays = {}
    for name, old in given.weights.items():
        if name not in given.directions:
            left[name], gradients[name] = old, given.gradients[name]
            continue
        rows = len(old) - (name in given.biased)
        matrix = old[:rows].astype(np.float64)
        direction = scale(*matrix.shape) * given.directions[name][:rows]
        weights[name] = np.array(old)
        weights[name][:rows] = (1 - rate * optimizer.weight_decay) * matrix - rate * direction
        if rows < len(old):
            left[_bias(name)], gradients[_bias(name)] = old[rows:], given.gradients[name][rows:]
    new, state = others.update(
        Update(
            left,
            gradients,
            {},
            given.state or others.initial_state(left),
            given.step,
            given.total_steps,
            given.biased | {_bias(name) for name in given.biased},
        )
    )
    for name in given.directions:
        if name in given.biased:
            weights[name][-1:] = new.pop(_bias(name))
    ordered = {name: (weights | new)[name] for name in given.weights}
    return ordered, state


def _bias(name: str) -> str:
    return f"{name}/bias"
