"""Muon (Jordan et al. 2024) follows the orthogonal factor of the averaged gradient of a matrix."""

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np

from repast_dist.ground.numbers import Fraction, PositiveInt
from repast_dist.ground.spec import spec
from repast_dist.training.optimizers.adam import Adam
from repast_dist.training.optimizers.base import OPTIMIZERS, Arrays, Optimizer, Update
from repast_dist.training.optimizers.matrix_step import matrix_step
from repast_dist.training.optimizers.matrix_unit import Due, MatrixMethod, MatrixUnit, Shape
from repast_dist.training.optimizers.newton_schulz import PUBLISHED, orthogonal_factor

RateScale = Literal["original", "match_rms_adamw"]


@spec
class Orthogonalising(Optimizer):
    """A method that follows the orthogonal factor of an averaged matrix, with decoupled decay.

    One chip averages the gradient of a matrix, or what it was solved to, and orthogonalises it with
    products alone; biases, embeddings, normalisations and, as the authors recommend, the last
    matrix follow Adam. Kernels of convolutions are matrices of all inputs of a position by
    channels.

    Attributes
    ----------
    momentum : float
        Decay of the running average of the gradient.
    nesterov : bool
        Whether the average is mixed with the newest gradient once more.
    iterations : int
        Rounds of Newton-Schulz.
    coefficients : tuple of float
        a, b, c of these.
    rate_scale : {"original", "match_rms_adamw"}
        What the rate of a matrix is multiplied by: ``original`` sqrt(max(1, outputs / inputs)),
        ``match_rms_adamw`` 0.2 sqrt(max(outputs, inputs)) (Liu et al. 2025).
    products : {"arrays", "digital"}
        Where Newton-Schulz runs: on multiplying arrays, into which operands are written in every
        round, or in the digital unit.
    output_layer : {"others", "matrix"}
        Whether the last matrix of the network is left to Adam.
    others : Adam
        What updates everything else.
    """

    # Those of Adam, which updates what is no matrix.
    update_operations: ClassVar[int] = Adam.update_operations

    momentum: Fraction = 0.95
    nesterov: bool = True
    iterations: PositiveInt = 5
    coefficients: tuple[float, float, float] = PUBLISHED
    rate_scale: RateScale = "original"
    products: Literal["arrays", "digital"] = "arrays"
    output_layer: Literal["others", "matrix"] = "others"
    others: Adam = Adam(learning_rate=0.003)

    @property
    def matrices(self) -> MatrixMethod:
        """The optimizer itself."""
        return self

    @property
    def renews(self) -> bool:
        """Whether steps differ: they do not."""
        return False

    def state_shapes(self, rows: int, columns: int) -> dict[str, Shape]:
        """Return the shape of the averaged gradient."""
        return {"momentum": (rows, columns)}

    def direction[M](
        self, unit: MatrixUnit[M], gradient: M, state: dict[str, M], due: Due
    ) -> tuple[M, dict[str, M]]:
        """Return the orthogonal factor of the averaged gradient, and the average."""
        average, mixed = averaged(unit, gradient, state["momentum"], self.momentum, self.nesterov)
        return (
            orthogonal_factor(unit, mixed, self.iterations, self.coefficients),
            {"momentum": average},
        )

    def initial_state(self, weights: Mapping[str, np.ndarray]) -> Arrays:
        """Return nothing: Adam's averages begin with the first step."""
        return {}

    def update(self, given: Update) -> tuple[Arrays, Arrays]:
        """Return the new weights and Adam's averages."""
        return matrix_step(
            self, self.others, given, lambda rows, columns: scale(self.rate_scale, rows, columns)
        )


@OPTIMIZERS.register
@spec
class Muon(Orthogonalising):
    """Muon with decoupled weight decay, as `torch.optim.Muon` has it in float64.

    Attributes
    ----------
    method : {"muon"}
        The optimizer's name.
    """

    title: ClassVar[str] = "Muon"

    method: Literal["muon"] = "muon"


def averaged[M](
    unit: MatrixUnit[M], gradient: M, average: M, momentum: float, nesterov: bool
) -> tuple[M, M]:
    """Return the new running average of a gradient, and what is followed of it."""
    average = unit.combine((momentum, average), (1 - momentum, gradient))
    if not nesterov:
        return average, average
    return average, unit.combine((momentum, average), (1 - momentum, gradient))


def scale(kind: RateScale, inputs: int, outputs: int) -> float:
    """Return what the rate of a matrix is multiplied by."""
    if kind == "original":
        return math.sqrt(max(1.0, outputs / inputs))
    return 0.2 * math.sqrt(max(outputs, inputs))
