"""Shampoo (Gupta et al. 2018) puts the averaged gradient between two inverse fourth roots."""

from typing import Annotated, ClassVar, Literal

from annotated_types import Gt, Le

from repast_dist.ground.numbers import Fraction, NonNegative, PositiveInt
from repast_dist.ground.spec import spec
from repast_dist.training.optimizers.base import OPTIMIZERS
from repast_dist.training.optimizers.inverse_roots import inverse_fourth_root
from repast_dist.training.optimizers.matrix_step import MatrixOptimizer
from repast_dist.training.optimizers.matrix_unit import Due, MatrixUnit, Shape
from repast_dist.training.optimizers.rational_roots import rational_fourth_root

_LEAST_NORM = 1e-16
"""Added to the norm of a direction; as Meta's code does."""


@OPTIMIZERS.register
@spec
class Shampoo(MatrixOptimizer):
    """Shampoo follows ``L^(-1/4) G R^(-1/4)``, L and R the averages of G G' and G' G, as Meta's
    distributed_shampoo has it in float64.

    One chip averages the gradient G of a matrix, and L and R when factors are due
    (``soi.factor_interval``); it takes their roots when inversions are (``soi.interval``), by
    coupled Newton iterations or as sums of inverses with shifts, and multiplies by the roots in
    every step. Averages are divided by their weights. Everything else follows Adam, as with Muon.

    Attributes
    ----------
    momentum : float
        Decay of the average of the gradient.
    factor_decay : float
        Decay of the averages of L and R; 1: they are sums.
    epsilon : float
        Added to the diagonals of L and R.
    ridge : float
        Share of its Frobenius norm that is added to the diagonal of L and of R: with 0.01, the
        errors of default arrays leave roots of 32 to 128 rows that are off by 3 to 4 %; with less,
        the iteration diverges on them sooner or later.
    roots : {"newton", "inversions"}
        How roots are taken: by the coupled Newton iteration, of products alone, or as a sum of
        inverses, each found by the inversion scheme, or in the digital unit as all products are.
    rounds : int
        Rounds of the coupled Newton iteration.
    grafting : {"none", "sgd", "adam"}
        Whose step the direction is as long as: of none, of the averaged gradient itself, or of that
        over the root of its averaged square.
    grafting_decay : float
        Decay of the averaged square, which is divided by its weight.
    grafting_epsilon : float
        Added to its root.
    poles : int
        Inverses in the sum. Where the ridge is 0.03, 3 are off by less than 0.7 %.
    """

    title: ClassVar[str] = "Shampoo"

    method: Literal["shampoo"] = "shampoo"
    momentum: Fraction = 0.9
    factor_decay: Annotated[float, Gt(0), Le(1)] = 0.999
    epsilon: NonNegative = 1e-12
    ridge: NonNegative = 0.03
    roots: Literal["newton", "inversions"] = "newton"
    rounds: PositiveInt = 10
    poles: PositiveInt = 3
    grafting: Literal["none", "sgd", "adam"] = "none"
    grafting_decay: Fraction = 0.999
    grafting_epsilon: Annotated[float, Gt(0)] = 1e-8

    @property
    def renews(self) -> bool:
        """Whether steps differ: in some of them roots are taken."""
        return True

    def state_shapes(self, rows: int, columns: int) -> dict[str, Shape]:
        """Return the shapes of the averages, of what they weigh, and of the roots."""
        sides = {"left": rows, "right": columns}
        squares = {
            f"{name}{what}": (size, size) for name, size in sides.items() for what in ("", "_root")
        }
        grafted: dict[str, Shape] = {}
        if self.grafting == "adam":
            grafted = {"squares": (rows, columns), "squares_weight": (1, 1)}
        return {
            "momentum": (rows, columns),
            "taken": (1, 1),
            "weight": (1, 1),
            **squares,
            **grafted,
        }

    def direction[M](
        self, unit: MatrixUnit[M], gradient: M, state: dict[str, M], due: Due
    ) -> tuple[M, dict[str, M]]:
        """Return the averaged gradient between the roots, and the new state."""
        new = dict(state)
        if due.averages:
            self._average(unit, gradient, new)
        if due.inverses:
            weight = unit.norm(new["weight"]) if self.factor_decay < 1 else 1.0
            for side in ("left", "right"):
                new[f"{side}_root"] = self._root(unit, new[side], weight, side)
        fresh = 1.0 - self.momentum
        new["momentum"] = unit.combine((self.momentum, new["momentum"]), (fresh, gradient))
        new["taken"] = unit.shifted(self.momentum, new["taken"], fresh)
        unbiased = unit.combine((1.0 / unit.norm(new["taken"]), new["momentum"]))
        between = unit.product(unbiased, new["right_root"], "right root")
        # L is symmetric, and so is its root: (L G)' = G' L.
        across = unit.product(unit.transposed(between), new["left_root"], "left root")
        direction = unit.transposed(across)
        if self.grafting == "none":
            return direction, new
        length = unit.norm(self._grafted(unit, gradient, unbiased, new))
        return unit.combine((length / (unit.norm(direction) + _LEAST_NORM), direction)), new

    def _grafted[M](self, unit: MatrixUnit[M], gradient: M, average: M, new: dict[str, M]) -> M:
        """Return the step whose length the direction takes."""
        if self.grafting == "sgd":
            return average
        past, fresh = self.grafting_decay, 1.0 - self.grafting_decay
        new["squares"] = unit.averaged_squares(past, new["squares"], fresh, gradient)
        new["squares_weight"] = unit.shifted(past, new["squares_weight"], fresh)
        factor = 1.0 / unit.norm(new["squares_weight"])
        return unit.over_roots(average, new["squares"], factor, self.grafting_epsilon)

    def _average[M](self, unit: MatrixUnit[M], gradient: M, new: dict[str, M]) -> None:
        """Add the newest gradient to L and R, and to their weight."""
        past = self.factor_decay
        fresh = 1.0 - past if past < 1 else 1.0
        across = unit.transposed(gradient)
        moments = {
            "left": unit.product(gradient, across, "left"),
            "right": unit.product(across, gradient, "right"),
        }
        for side, moment in moments.items():
            # Rounding and noise of products on arrays are not symmetric.
            half = fresh / 2
            new[side] = unit.combine(
                (past, new[side]), (half, moment), (half, unit.transposed(moment))
            )
        new["weight"] = unit.shifted(past, new["weight"], fresh)

    def _root[M](self, unit: MatrixUnit[M], average: M, weight: float, side: str) -> M:
        """Return the inverse fourth root of L or R with what is added to its diagonal."""
        size = unit.norm(average) / weight
        added = self.epsilon + self.ridge * size
        damped, what = unit.shifted(1.0 / weight, average, added), f"root of {side}"
        if self.roots == "newton":
            return inverse_fourth_root(unit, damped, self.rounds, what)
        # No eigenvalue of an average of squares is negative or above its norm.
        return rational_fourth_root(unit, damped, added, added + size, self.poles, what)
