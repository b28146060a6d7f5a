"""The step of an optimizer that updates matrices in one way and everything else with Adam.

The bias of a layer is the last row of its weights; it is updated as everything else is.
"""

import abc
from collections.abc import Callable, Mapping
from typing import ClassVar, Literal

import numpy as np

from repast_dist.ground.spec import spec
from repast_dist.training.optimizers.adam import Adam
from repast_dist.training.optimizers.base import Arrays, Optimizer, Update
from repast_dist.training.optimizers.matrix_unit import Due, MatrixMethod, MatrixUnit, Shape


@spec
class MatrixOptimizer(Optimizer):
    """A method that updates matrices as wholes, each on one chip, and leaves biases, embeddings and
    normalisations to Adam. Kernels of convolutions are matrices of all inputs of a position by
    channels.

    Attributes
    ----------
    products : {"arrays", "digital"}
        Where products of matrices run: on multiplying arrays, into which operands are written each
        time, or in the digital unit.
    output_layer : {"others", "matrix"}
        Whether the last matrix of the network is left to Adam.
    others : Adam
        What updates everything else.
    """

    # Those of Adam, which updates what is no matrix.
    update_operations: ClassVar[int] = Adam.update_operations

    products: Literal["arrays", "digital"] = "arrays"
    output_layer: Literal["others", "matrix"] = "others"
    others: Adam = Adam(learning_rate=0.003)

    @property
    def matrices(self) -> MatrixMethod:
        """The optimizer itself."""
        return self

    @property
    @abc.abstractmethod
    def renews(self) -> bool:
        """Whether steps differ in what they renew."""

    @abc.abstractmethod
    def state_shapes(self, rows: int, columns: int) -> dict[str, Shape]:
        """Return name -> shape of what is kept of a matrix, as `MatrixMethod` says."""

    @abc.abstractmethod
    def direction[M](
        self, unit: MatrixUnit[M], gradient: M, state: dict[str, M], due: Due
    ) -> tuple[M, dict[str, M]]:
        """Return the direction of a matrix and the new state, as `MatrixMethod` says."""

    def scale(self, rows: int, columns: int) -> float:
        """Return what the direction of a matrix of so many inputs and outputs is multiplied by."""
        return 1.0

    def initial_state(self, weights: Mapping[str, np.ndarray]) -> Arrays:
        """Return nothing: Adam's averages begin with the first step."""
        return {}

    def update(self, given: Update) -> tuple[Arrays, Arrays]:
        """Return the new weights and Adam's averages."""
        return matrix_step(self, self.others, given, self.scale)


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
