"""The iterations that make many bits of few, over all right-hand sides at once.

Every scheme works on a `Run`: the answer so far and what the hardware did for it.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from repast_dist.analog.fixed_point import rounded_columns
from repast_dist.analog.solution import Solution, SolveCounts

if TYPE_CHECKING:
    from repast_dist.analog.inversion import BlockSolver

_GROWTH_LIMIT = 1e3
_STALL_ROUNDS = {"taylor": 4, "refine": 12, "fcg": 80, "cg": 400}
"""Rounds without a smaller residual after which a column is given up; conjugate gradients only
promise smaller errors, not smaller residuals, from round to round.
"""

_SAFETY = 1.0 - 2.0**-5
"""Of the target: the residual that the hardware goes by has the error of its products."""

_REFRESH_ROUNDS = 16
_DRIFT = 2.0**-6
"""Of the target: accumulated rounding that can be neglected."""

_GRADIENT_OPS = 10
"""Digital operations per element and round of conjugate gradients with one direction kept: four
inner products or norms, three updates, scaling and conversion.
"""


class Run:
    """One solve in progress, column by column."""

    def __init__(self, solver: "BlockSolver", right: np.ndarray) -> None:
        self.solver = solver
        # Each column over a power of two of its own, so that no size of it matters.
        self.exponents = np.frexp(np.max(np.abs(right), axis=0, initial=0.0))[1]
        self.right = np.ldexp(right, -self.exponents)
        self.b = solver.scaling[:, None] * self.right
        self.norm = np.linalg.norm(self.right, axis=0)
        self.x = np.zeros_like(self.b)
        self.iterations = np.zeros(right.shape[1], np.int64)
        self.inv_ops = self.vmm_ops = self.digital_ops = 0

    def invert(self, vectors: np.ndarray) -> np.ndarray:
        """Apply what approximates the inverse: the array, and deflation around it."""
        solver, array = self.solver, self.solver.array
        if array is None:
            return vectors
        self.inv_ops += vectors.shape[1] * array.inv_ops
        self.vmm_ops += vectors.shape[1] * array.vmm_ops
        deflation = solver.deflation
        if deflation is None:
            return array.solve(vectors)
        self.digital_ops += (4 * deflation.rank + 2) * vectors.size
        weights, rest = deflation.split(vectors)
        inner = solver.inner_scaling[:, None]
        return deflation.join(weights, inner * array.solve(inner * rest))

    def product(self, vectors: np.ndarray) -> np.ndarray:
        """Multiply with the scaled matrix on the multipliers."""
        self.vmm_ops += vectors.shape[1]
        self.digital_ops += vectors.size
        return self.solver.product.multiply(vectors)

    def product_with(self, matrix: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        """Multiply with another matrix the multipliers hold."""
        self.vmm_ops += vectors.shape[1]
        self.digital_ops += vectors.size
        return np.asarray(matrix @ rounded_columns(vectors, self.solver.product.bits))

    def residual(self, columns: np.ndarray) -> np.ndarray:
        """Return ``b - A x`` of some columns, from the multipliers."""
        return self.b[:, columns] - self.product(self.x[:, columns])

    def relative(self, residual: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return the relative residual in unscaled terms, as the digital unit would see it."""
        unscaled = residual / self.solver.scaling[:, None]
        with np.errstate(over="ignore", invalid="ignore"):
            relative = np.linalg.norm(unscaled, axis=0) / self.norm[columns]
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
        counts = SolveCounts(self.inv_ops, self.vmm_ops, self.digital_ops + 2 * x.size)
        converged = residual <= self.solver.inversion.tolerance
        return Solution(x, self.iterations, residual, converged, counts, self.solver.method)


class _Watch:
    """Decides round by round which columns go on."""

    def __init__(self, run: Run) -> None:
        self._tolerance = run.solver.inversion.tolerance * _SAFETY
        self._patience = _STALL_ROUNDS[run.solver.method]
        self._best = np.full(run.norm.shape, np.inf)
        self._stalled = np.zeros(run.norm.shape, np.int64)

    def keep(self, relative: np.ndarray, active: np.ndarray) -> np.ndarray:
        """Return a mask of the active columns that are neither converged, diverged nor stalled."""
        better = relative < 0.99 * self._best[active]
        self._best[active] = np.minimum(self._best[active], relative)
        self._stalled[active] = np.where(better, 0, self._stalled[active] + 1)
        keep = (relative > self._tolerance) & (relative < _GROWTH_LIMIT)
        return np.asarray(keep & (self._stalled[active] < self._patience))


def single(run: Run) -> None:
    """One analog step."""
    run.x = run.invert(run.b)
    run.iterations[:] = 1


def refine(run: Run) -> None:
    """Iterative refinement: add what the array makes of the residual."""
    watch = _Watch(run)
    active = np.flatnonzero(run.norm > 0)
    residual = run.b[:, active]
    for _ in range(run.solver.inversion.max_iterations):
        if not active.size:
            return
        run.x[:, active] += run.invert(residual)
        run.iterations[active] += 1
        residual = run.residual(active)
        run.digital_ops += 4 * residual.size
        keep = watch.keep(run.relative(residual, active), active)
        active, residual = active[keep], residual[:, keep]


def taylor(run: Run) -> None:
    """Sum the series; each term is one bit-sliced application of A_H^-1."""
    watch = _Watch(run)
    high, low = run.solver.halves
    active = np.flatnonzero(run.norm > 0)
    term = _sliced_inverse(run, high, run.b[:, active])
    for _ in range(run.solver.inversion.max_iterations):
        if not active.size:
            return
        run.x[:, active] += term
        run.iterations[active] += 1
        residual = run.residual(active)
        run.digital_ops += 4 * residual.size
        keep = watch.keep(run.relative(residual, active), active)
        active, term = active[keep], term[:, keep]
        if active.size:
            term = -_sliced_inverse(run, high, run.product_with(low, term))


def _sliced_inverse(run: Run, high: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Apply A_H^-1 with b and x cut into converter-sized slices, most significant first."""
    inv = run.solver.inv
    bits = min(inv.dac_bits, inv.adc_bits)
    slices = -(-(run.solver.inversion.target_bits + 2) // max(bits - 2, 1))
    x = run.invert(vectors)
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(slices):
            x = x + run.invert(np.nan_to_num(vectors - run.product_with(high, x)))
    return x


def conjugate_gradients(run: Run) -> None:
    """Flexible conjugate gradients (Notay, SIAM J. Sci. Comput. 2000).

    The array is not symmetric and changes from round to round by its rounding, so each direction
    is made conjugate to a few before it explicitly.
    """
    inversion, watch = run.solver.inversion, _Watch(run)
    # With nothing that approximates the inverse, one direction is all that exact arithmetic needs.
    window = 1 if run.solver.array is None else inversion.conjugate
    active = np.flatnonzero(run.norm > 0)
    residual = run.b[:, active]
    # The norm of what roundings add to the residual, for one unit of the answer: entries of S are
    # at most one, and those of a product have n independent roundings.
    product = run.solver.product
    unit = run.solver.size * 2.0 ** (1 - product.bits) / run.solver.scaling.min()
    drift = np.zeros(active.size)
    kept: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for count in range(1, inversion.max_iterations + 1):
        if not active.size:
            return
        direction = run.invert(residual)
        for old, image, curvature in kept:
            direction = direction - old * (_dot(direction, image) / curvature)
        image = run.product(direction)
        curvature = _dot(direction, image)
        usable = np.isfinite(curvature) & (curvature > 0)
        step = np.where(usable, _dot(direction, residual) / np.where(usable, curvature, 1.0), 0.0)
        run.x[:, active] += direction * step
        run.iterations[active] += 1
        run.digital_ops += (_GRADIENT_OPS + 2 * max(len(kept) - 1, 0)) * residual.size
        residual = residual - image * step
        relative = run.relative(residual, active)
        # What the recurrence says is checked where roundings of the products may have added up:
        # before it is believed, and from time to time.
        drift = drift + np.abs(step) * np.max(np.abs(direction), axis=0) * unit / run.norm[active]
        due = (relative <= inversion.tolerance * _SAFETY) | (count % _REFRESH_ROUNDS == 0)
        doubtful = due & (drift > _DRIFT * inversion.tolerance)
        if doubtful.any():
            residual[:, doubtful] = run.residual(active[doubtful])
            relative[doubtful] = run.relative(residual[:, doubtful], active[doubtful])
            drift[doubtful] = 0.0
        kept = [*kept, (direction, image, curvature)][-window:]
        keep = watch.keep(relative, active) & usable
        if not keep.all():
            active, residual, drift = active[keep], residual[:, keep], drift[keep]
            kept = [(old[:, keep], image[:, keep], c[keep]) for old, image, c in kept]


SCHEMES: dict[str, Callable[[Run], None]] = {
    "single": single,
    "taylor": taylor,
    "refine": refine,
    "fcg": conjugate_gradients,
    "cg": conjugate_gradients,
}


def _dot(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->j", left, right)
