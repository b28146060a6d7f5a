"""Muon (Jordan et al. 2024) follows the orthogonal factor of the averaged gradient of a matrix."""

import math
from typing import ClassVar, Literal

from repast_dist.ground.numbers import Fraction, PositiveInt
from repast_dist.ground.spec import spec
from repast_dist.training.optimizers.base import OPTIMIZERS
from repast_dist.training.optimizers.matrix_step import MatrixOptimizer
from repast_dist.training.optimizers.matrix_unit import Due, MatrixUnit, Shape
from repast_dist.training.optimizers.newton_schulz import PUBLISHED, orthogonal_factor

RateScale = Literal["original", "match_rms_adamw"]


@spec
class Orthogonalising(MatrixOptimizer):
    """A method that follows the orthogonal factor of an averaged matrix, with decoupled decay.

    One chip averages the gradient of a matrix, or what it was solved to, and orthogonalises it with
    products alone, whose operands are written in every round; as the authors recommend, the last
    matrix follows Adam.

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
    """

    momentum: Fraction = 0.95
    nesterov: bool = True
    iterations: PositiveInt = 5
    coefficients: tuple[float, float, float] = PUBLISHED
    rate_scale: RateScale = "original"

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

    def scale(self, rows: int, columns: int) -> float:
        """Return what the rate of a matrix is multiplied by."""
        return _scale(self.rate_scale, rows, columns)


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


def _scale(kind: RateScale, inputs: int, outputs: int) -> float:
    """Return what the rate of a matrix is multiplied by."""
    if kind == "original":
        return math.sqrt(max(1.0, outputs / inputs))
    return 0.2 * math.sqrt(max(outputs, inputs))
