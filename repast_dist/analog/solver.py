"""A programmed SOI block, and a solve with it in progress.

What is reported as residual is computed in float64 from the matrix that was asked for, never from
the hardware's own idea of it.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from repast_dist.analog.arrays.inv import Inverse
from repast_dist.analog.cells.base import Cell
from repast_dist.analog.deflation import Deflation
from repast_dist.analog.kernels.columns import norms
from repast_dist.analog.product import Product
from repast_dist.analog.solution import Answered, Solution, SolveCounts
from repast_dist.analog.specs import InvSpec
from repast_dist.ground.errors import DataError
from repast_dist.ground.numbers import ceil_div

SCALING_OPS, SCALING_MOVES = 2, 6
"""Digital operations per row of a right-hand side, and numbers that they move: it is scaled, and so
is the answer.
"""

UPDATE_MOVES, DOT_MOVES = 3, 2
"""Numbers per row that adding a multiple of one vector to another, and an inner product, move."""

RESIDUAL_MOVES, NORM_MOVES = UPDATE_MOVES, DOT_MOVES
"""Of taking a product from the right-hand side, and of the norm of what is left, scaled back."""


class Algorithm(Protocol):
    """What a programmed block asks of its scheme."""

    @property
    def uses_products(self) -> bool:
        """Whether the multipliers hold the block."""

    @property
    def name(self) -> str:
        """Name of the scheme."""

    @property
    def tolerance(self) -> float:
        """Largest relative residual of a converged solve."""

    def solve(self, run: "Run") -> None:
        """Improve ``run.x``."""

    def usable(self, solution: Solution) -> bool:
        """Return whether a solve may be used as it is."""


@dataclasses.dataclass(frozen=True)
class BlockSolver:
    """A programmed SOI block, ready to solve.

    Attributes
    ----------
    matrix : tuple of ndarray
        (n, n) what was asked for, over ``2 ** exponent``; or, fused, (n, N) rows and their
        transpose, to be multiplied.
    damping : float
        What is added to its diagonal; 0 where it is included.
    exponent : int
        The block is worked on over the power of two of this exponent, which keeps huge and tiny
        ones within the range of floating point.
    scaling : ndarray
        (n,) S = diag(scaling) A diag(scaling) is what the hardware works on.
    product : Product
        S on the multipliers.
    array : Inverse or None
        What approximates the inverse of S, or of what deflation leaves of it.
    deflation, inner_scaling : Deflation or None, ndarray
        The directions taken out, and (n,) the scaling of what is left.
    shift : float
        What was added to the diagonal of what the array holds: its regularisation.
    inv : InvSpec
        The inverting arrays, with the scheme's slices and copies.
    scheme : Algorithm
        How it is solved, a `repast_dist.analog.schemes.base.Scheme`.
    program_counts : SolveCounts
        What the preparation took.
    trials : tuple of Trial
        What was tried to choose the scheme.
    inverse : Product or None
        The inverse on the multipliers, or of what deflation leaves; it takes the array's place.
    after : callable or None
        Returns what products and array have become after some seconds; None: cells do not age.
    seen : ndarray or None
        (n, k) what the search for dominant directions goes on with when the block is written again;
        None: it begins anew.
    recycled : bool
        Whether the search for this one went on with what an earlier one saw.
    factor : ndarray or None
        (n, n) the Cholesky factor of S, below and on the diagonal, where the digital unit solves.
    """

    matrix: tuple[np.ndarray, ...]
    damping: float
    exponent: int
    scaling: np.ndarray
    product: Product
    array: Inverse | None
    deflation: Deflation | None
    inner_scaling: np.ndarray
    shift: float
    inv: InvSpec
    scheme: Algorithm
    program_counts: SolveCounts
    trials: tuple[Any, ...] = ()
    inverse: Product | None = None
    after: Callable[[float], tuple[Product, Inverse | None]] | None = dataclasses.field(
        default=None, compare=False
    )
    seen: np.ndarray | None = dataclasses.field(default=None, compare=False)
    recycled: bool = False
    factor: np.ndarray | None = dataclasses.field(default=None, compare=False)

    def aged(self, seconds: float) -> "BlockSolver":
        """Return the block as its cells hold it so many seconds after they were written."""
        if self.after is None or not seconds:
            return self
        product, array = self.after(seconds)
        inverse = None if self.inverse is None else self.inverse.aged(seconds)
        return dataclasses.replace(
            self, product=product, array=array if self.array else None, inverse=inverse
        )

    @property
    def size(self) -> int:
        """Rows of the block."""
        return len(self.scaling)

    def multiply(self, vectors: np.ndarray) -> np.ndarray:
        """Multiply with the matrix that was asked for, over its power of two, in float64."""
        result = vectors
        for factor in self.matrix:
            result = factor @ result
        return result + self.damping * vectors if self.damping else result

    def solve(self, right: np.ndarray, last: Answered | None = None) -> Solution:
        """Solve ``A x = b`` for many right-hand sides.

        Parameters
        ----------
        right : ndarray
            (n, r) float64.
        last : Answered, optional
            What the last solve for as many right-hand sides left to begin with.

        Raises
        ------
        DataError
            The right-hand sides are not finite or of the wrong height.
        """
        if right.ndim != 2 or len(right) != self.size:
            raise DataError(f"right-hand sides must be ({self.size}, r), got {right.shape}")
        if not np.isfinite(right).all():
            raise DataError("right-hand sides must be finite, got NaN or infinity")
        run = Run(self, right, last)
        if self.stable:
            self.scheme.solve(run)
        return run.solution()

    @property
    def stable(self) -> bool:
        """Whether the circuits come to rest; others are found out when they are programmed."""
        return self.array is None or self.array.stable

    @property
    def settling_s(self) -> float:
        """Time of the settlings that one application of the inverse takes, in seconds."""
        if self.array is None or not self.stable:
            return 0.0
        return self.inv.device.opamp.seconds(self.array.settling_cycles)

    @property
    def test_s(self) -> float:
        """Time of the settlings that found out how strongly inputs may be driven, in seconds."""
        return 0.0 if self.array is None else self.inv.device.opamp.seconds(self.array.test_cycles)


class Run:
    """One solve in progress, column by column.

    Parameters
    ----------
    solver : BlockSolver
        The programmed block.
    right : ndarray
        (n, r) float64 right-hand sides.
    last : Answered or None
        What a scheme may begin with.

    Attributes
    ----------
    b : ndarray
        (n, r) what is solved for: right-hand sides, scaled as the block is.
    x : ndarray
        (n, r) the answer so far; a scheme improves it.
    norm : ndarray
        (r,) norms of the right-hand sides; a column of zero needs no round.
    iterations : ndarray
        (r,) int64 rounds; a scheme counts them.
    digital_ops, moved, refreshes, spared_slices, spared_passes, factored_sides : int
        Digital operations, the numbers that they move, residual products that only the numbers
        ask for, slices of weights and passes of inputs that products leave out, and right-hand
        sides that the digital unit solves with a Cholesky factor.
    saturated : bool
        Whether an output went beyond the amplifiers' swing.
    last, answered : Answered or None
        What a scheme may begin with, and leaves to the next solve.
    """

    def __init__(
        self, solver: "BlockSolver", right: np.ndarray, last: Answered | None = None
    ) -> None:
        self.solver, self.last = solver, last
        self.answered: Answered | None = None
        # Each column over a power of two of its own, so that no size of it matters.
        self.exponents = np.frexp(np.max(np.abs(right), axis=0, initial=0.0))[1]
        self.right = np.ldexp(right, -self.exponents)
        self.b = solver.scaling[:, None] * self.right
        self.norm = np.linalg.norm(self.right, axis=0)
        self.x = np.zeros_like(self.b)
        self.iterations = np.zeros(right.shape[1], np.int64)
        self.saturated = False
        self.applied = self.inv_ops = self.beside = self.vmm_ops = self.spared_slices = 0
        self.digital_ops = self.moved = self.refreshes = self.factored_sides = 0
        self.spared_passes = 0

    def invert(self, vectors: np.ndarray) -> np.ndarray:
        """Apply what approximates the inverse: the array, or nothing, and deflation around it."""
        solver, deflation = self.solver, self.solver.deflation
        if solver.inverse is not None:
            return self._times_inverse(solver.inverse, vectors)
        if deflation is None:
            return self._read(vectors)
        self.digital_ops += deflation_ops(deflation.rank) * vectors.size
        self.moved += deflation_moves(deflation.rank) * vectors.size
        weights, rest = deflation.split(vectors)
        inner = solver.inner_scaling[:, None]
        return deflation.join(weights, inner * self._read(inner * rest))

    def _times_inverse(self, inverse: Product, vectors: np.ndarray) -> np.ndarray:
        deflation = self.solver.deflation
        answer = self.product_with(inverse, vectors, 0)
        if deflation is None:
            return answer
        self.digital_ops += joining_ops(deflation.rank) * vectors.size
        self.moved += joining_moves(deflation.rank) * vectors.size
        return deflation.join(deflation.weights(vectors), answer)

    def _read(self, vectors: np.ndarray) -> np.ndarray:
        array = self.solver.array
        if array is None:
            return vectors
        self.applied += vectors.shape[1]
        self.inv_ops += vectors.shape[1] * array.inv_ops
        self.beside += vectors.shape[1] * array.beside
        self.vmm_ops += vectors.shape[1] * array.vmm_ops
        reading = array.read(vectors)
        self.saturated |= bool(reading.saturated.any())
        return reading.outputs

    def product(self, vectors: np.ndarray, bits: np.ndarray | None = None) -> np.ndarray:
        """Multiply with the scaled matrix on the multipliers, with (r,) bits of each vector or with
        all of them.
        """
        self.vmm_ops += vectors.shape[1]
        self.digital_ops += vectors.size
        product = self.solver.product
        if bits is not None:
            spared = product.passes(np.full_like(bits, product.bits)) - product.passes(bits)
            self.spared_passes += int(spared.sum())
        return product.multiply(vectors, bits)

    def product_with(self, product: Product, vectors: np.ndarray, spared: int) -> np.ndarray:
        """Multiply with the inverse, or with a part of the matrix that leaves out so many slices of
        the weights.
        """
        self.vmm_ops += vectors.shape[1]
        self.spared_slices += spared * vectors.shape[1]
        self.digital_ops += vectors.size
        return product.multiply(vectors)

    def residual(self, columns: np.ndarray) -> np.ndarray:
        """Return ``b - A x`` of some columns, from the multipliers."""
        residual = self.b[:, columns] - self.product(self.x[:, columns])
        self.moved += RESIDUAL_MOVES * residual.size
        return residual

    def relative(self, residual: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return the relative residual in unscaled terms, as the digital unit would see it."""
        self.moved += NORM_MOVES * residual.size
        unscaled = norms(np.ascontiguousarray(residual), self.solver.scaling)
        with np.errstate(over="ignore", invalid="ignore"):
            relative = unscaled / self.norm[columns]
        return np.where(np.isfinite(relative), relative, np.inf)

    def solution(self) -> Solution:
        """Return the answer with the residual that float64 finds."""
        with np.errstate(over="ignore", invalid="ignore"):
            x = self.solver.scaling[:, None] * self.x
            left = np.linalg.norm(self.right - self.solver.multiply(x), axis=0)
            residual = left / np.where(self.norm > 0, self.norm, 1.0)
            kept = x.any(axis=0)
            x = np.ldexp(x, self.exponents - self.solver.exponent)
        # The answer itself may be beyond the range of floating point.
        usable = np.isfinite(residual) & np.isfinite(x).all(axis=0)
        usable &= ~kept | (np.max(np.abs(x), axis=0, initial=0.0) > np.finfo(float).tiny)
        residual = np.where(usable, residual, np.inf)
        counts = SolveCounts(
            self.inv_ops,
            self.beside,
            self.vmm_ops,
            self.digital_ops + SCALING_OPS * x.size,
            self.moved + SCALING_MOVES * x.size,
            spared_slices=self.spared_slices,
            spared_passes=self.spared_passes,
            factored_sides=self.factored_sides,
            settling_s=self.applied * self.solver.settling_s,
        )
        scheme = self.solver.scheme
        solution = Solution(
            x=x,
            iterations=self.iterations,
            residual=residual,
            converged=(residual <= scheme.tolerance) & (not self.saturated),
            counts=counts,
            method=scheme.name,
            refreshes=self.refreshes,
            stable=self.solver.stable,
            saturated=self.saturated,
            answered=self.answered,
        )
        return dataclasses.replace(solution, usable=scheme.usable(solution) and not self.saturated)


def deflation_ops[T: (int, np.ndarray)](rank: T) -> T:
    """Return the digital operations per row of deflation around one application of an array: an
    inner product and an update with every column of U and of S U, and two scalings.
    """
    return 4 * rank + 2


def joining_ops[T: (int, np.ndarray)](rank: T) -> T:
    """Return the digital operations per row of the directions' share of an answer: an inner product
    with every column of U and of S U, and an update with that of U.
    """
    return 3 * rank


def joining_moves[T: (int, np.ndarray)](rank: T) -> T:
    """Return the numbers per row that these move: the vector, the answer and what is made of it,
    with every column of U twice and of S U once.
    """
    return 3 * rank + 3


def deflation_moves[T: (int, np.ndarray)](rank: T) -> T:
    """Return the numbers per row that deflation around one application of an array moves: the
    vector, what is left of it, the answer and what is made of it, with every column of U and S U
    twice.
    """
    return 4 * rank + 6


def product_cells[T: (int, np.ndarray)](values: T, bits: int, cell: Cell) -> T:
    """Return the cells that hold so many values of residual products, both of every pair."""
    return 2 * values * ceil_div(bits - 1, cell.bits)
