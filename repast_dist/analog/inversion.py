"""Solving with more bits than an inverting array has.

``single``  one analog step, about 8 bits.
``taylor``  RePAST: A = A_H + A_L, the array holds A_H; every A_H^-1 is bit-sliced over DAC and ADC,
            and the series x = sum_k (-A_H^-1 A_L)^k A_H^-1 b restores what the split left out.
``refine``  iterative refinement, x += INV(b - A x) (HP-INV, Nature Electronics 2025).
``fcg``     flexible conjugate gradients with the array as the preconditioner.
``auto``    the cheapest of them that is expected to converge.

Residual products run on bit-sliced multipliers whose cells are written with verification, so that
every level is exact; they are simulated as the fixed-point product they compute. What is reported
as residual is computed in float64 from the matrix that was asked for, never from the hardware's
own idea of it.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from repast_dist.analog.inv import BlockInv, InvArray, cell_error, program_inv
from repast_dist.analog.specs import InversionSpec, InvSpec, VmmSpec
from repast_dist.errors import DataError

PRODUCT_BITS = 32
"""Fixed-point bits of the matrix and the vectors in residual products."""

_GROWTH_LIMIT = 1e3
_STALL_ROUNDS = 12


@dataclasses.dataclass(frozen=True)
class SolveCounts:
    """What a preparation or a solve made the hardware do.

    Attributes
    ----------
    inv_ops : int
        Settlings of inverting arrays, one per right-hand side.
    vmm_ops : int
        Matrix-vector products on the multipliers, at `PRODUCT_BITS`.
    digital_ops : int
        Scalar operations of the digital unit.
    program_cells : int
        Cells written.
    """

    inv_ops: int = 0
    vmm_ops: int = 0
    digital_ops: int = 0
    program_cells: int = 0

    def __add__(self, other: "SolveCounts") -> "SolveCounts":
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return SolveCounts(*(a + b for a, b in pairs))


@dataclasses.dataclass(frozen=True)
class Solution:
    """Answer and honest account of a solve with r right-hand sides.

    Attributes
    ----------
    x : ndarray
        (n, r) float64.
    iterations : ndarray
        (r,) int64, rounds of the outer scheme.
    residual : ndarray
        (r,) float64, ``|b - A x| / |b|`` in the 2-norm; 0 for a zero right-hand side.
    converged : ndarray
        (r,) bool, residual within the target.
    counts : SolveCounts
        What the hardware did.
    method : str
        The scheme that gave the answer.
    """

    x: np.ndarray
    iterations: np.ndarray
    residual: np.ndarray
    converged: np.ndarray
    counts: SolveCounts
    method: str


@dataclasses.dataclass(frozen=True)
class BlockSolver:
    """A programmed SOI block, ready to solve."""

    matrix: np.ndarray
    scaling: np.ndarray
    scaled: np.ndarray
    fixed: np.ndarray
    high: np.ndarray
    array: InvArray | BlockInv
    inversion: InversionSpec
    method: str
    program_counts: SolveCounts

    def solve(self, right: np.ndarray) -> Solution:
        """Solve ``A x = b`` for many right-hand sides.

        Parameters
        ----------
        right : ndarray
            (n, r) float64.

        Raises
        ------
        DataError
            The right-hand sides are not finite or of the wrong height.
        """
        n = len(self.matrix)
        if right.ndim != 2 or len(right) != n:
            raise DataError(f"right-hand sides must be ({n}, r), got {right.shape}")
        if not np.isfinite(right).all():
            raise DataError("right-hand sides must be finite, got NaN or infinity")
        run = _Run(self, right)
        _SCHEMES[self.method](run)
        return run.solution()


class _Run:
    """One solve in progress: the answer so far and what it cost, column by column."""

    def __init__(self, solver: BlockSolver, right: np.ndarray) -> None:
        self.solver = solver
        self.right = right
        self.b = solver.scaling[:, None] * right
        self.norm = np.linalg.norm(right, axis=0)
        self.x = np.zeros_like(self.b)
        self.iterations = np.zeros(right.shape[1], np.int64)
        self.inv_ops = self.vmm_ops = self.digital_ops = 0

    def invert(self, vectors: np.ndarray) -> np.ndarray:
        """Apply the inverting array."""
        self.inv_ops += vectors.shape[1] * self.solver.array.inv_ops
        self.vmm_ops += vectors.shape[1] * self.solver.array.vmm_ops
        return self.solver.array.solve(vectors)

    def product(self, vectors: np.ndarray, matrix: np.ndarray | None = None) -> np.ndarray:
        """Multiply on the fixed-point multipliers; by default with the scaled matrix."""
        self.vmm_ops += vectors.shape[1]
        self.digital_ops += vectors.size
        return (self.solver.fixed if matrix is None else matrix) @ _fixed_columns(vectors)

    def residual(self, columns: np.ndarray) -> np.ndarray:
        """Return ``b - A x`` of some columns, from the multipliers."""
        return self.b[:, columns] - self.product(self.x[:, columns])

    def relative(self, residual: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return the relative residual in unscaled terms, as the digital unit would see it."""
        unscaled = residual / self.solver.scaling[:, None]
        norm = np.where(self.norm[columns] > 0, self.norm[columns], 1.0)
        return np.linalg.norm(unscaled, axis=0) / norm

    def solution(self) -> Solution:
        x = self.solver.scaling[:, None] * self.x
        with np.errstate(over="ignore", invalid="ignore"):
            left = np.linalg.norm(self.right - self.solver.matrix @ x, axis=0)
            residual = np.where(self.norm > 0, left / np.where(self.norm > 0, self.norm, 1.0), left)
        residual = np.where(np.isfinite(residual), residual, np.inf)
        counts = SolveCounts(self.inv_ops, self.vmm_ops, self.digital_ops + 2 * x.size)
        # A hair of room: the hardware stops by its own fixed-point residual.
        converged = residual <= self.solver.inversion.tolerance * (1 + 2.0**-8)
        return Solution(x, self.iterations, residual, converged, counts, self.solver.method)


def prepare(
    matrix: np.ndarray,
    vmm: VmmSpec,
    inv: InvSpec,
    inversion: InversionSpec,
    seed: int = 0,
    *address: int | str,
) -> BlockSolver:
    """Program a symmetric positive definite matrix for solving.

    Parameters
    ----------
    matrix : ndarray
        (n, n) float64, damping included.
    vmm, inv : VmmSpec, InvSpec
        The arrays; of `vmm` only the cell's bits matter here (see the module).
    inversion : InversionSpec
        The scheme and its settings.
    seed, *address
        Address of the programming errors, for example ``(step, "A", block)``.

    Raises
    ------
    DataError
        The matrix is empty, not square, not finite, not symmetric, or its diagonal is not
        positive.
    """
    _check_matrix(matrix)
    n = len(matrix)
    scaling = 1.0 / np.sqrt(np.diag(matrix)) if inversion.equilibrate else np.ones(n)
    scaled = scaling[:, None] * matrix * scaling
    method = choose_method(scaled, inv, inversion)
    held = scaled
    if method in ("fcg", "refine") and inversion.array_regularisation:
        largest = float(np.max(np.abs(scaled)))
        shift = inversion.array_regularisation * np.sqrt(n) * cell_error(inv) * largest
        held = scaled + shift * np.eye(n)
    array = program_inv(held, inv, seed, *address)
    slices = -(-(PRODUCT_BITS - 1) // vmm.device.cell.bits)
    products = 0 if method == "single" else 2 * n * n * slices
    return BlockSolver(
        matrix=matrix,
        scaling=scaling,
        scaled=scaled,
        fixed=_fixed(scaled),
        high=_rounded(scaled, inv.device.inv_cell.bits + 1),
        array=array,
        inversion=inversion,
        method=method,
        program_counts=SolveCounts(program_cells=array.cells + products, digital_ops=2 * n * n),
    )


def choose_method(scaled: np.ndarray, inv: InvSpec, inversion: InversionSpec) -> str:
    """Return the scheme for a block; ``auto`` picks by the array's error over the smallest
    eigenvalue, which bounds the contraction of refinement.
    """
    if inversion.method != "auto":
        return inversion.method
    values = np.linalg.eigvalsh(scaled)
    error = cell_error(inv) * float(np.max(np.abs(scaled))) * np.sqrt(len(scaled)) * 2.0
    contraction = error / max(float(values[0]), np.finfo(float).tiny)
    if contraction < inversion.tolerance:
        return "single"
    return "refine" if contraction < 0.5 else "fcg"


def _single(run: _Run) -> None:
    run.x = run.invert(run.b)
    run.iterations[:] = 1


def _refine(run: _Run) -> None:
    _iterate(run, lambda residual: run.invert(residual))


def _taylor(run: _Run) -> None:
    """Sum the series; each term is one bit-sliced application of A_H^-1."""
    solver = run.solver
    low = solver.fixed - solver.high
    active = np.flatnonzero(run.norm > 0)
    if not active.size:
        return
    term = _sliced_inverse(run, run.b[:, active])
    run.x[:, active] = term
    previous = np.full(active.size, np.inf)
    for _ in range(solver.inversion.max_iterations):
        run.iterations[active] += 1
        relative = run.relative(run.residual(active), active)
        keep = (relative > solver.inversion.tolerance) & (relative < _GROWTH_LIMIT)
        keep &= np.isfinite(relative) & ~((relative >= previous) & (run.iterations[active] > 4))
        if not keep.any():
            return
        active, term, previous = active[keep], term[:, keep], relative[keep]
        term = -_sliced_inverse(run, run.product(term, low))
        run.x[:, active] += term


def _sliced_inverse(run: _Run, vectors: np.ndarray) -> np.ndarray:
    """Apply A_H^-1 with b and x cut into converter-sized slices, most significant first."""
    bits = min(_converter_bits(run.solver.array))
    slices = -(-(run.solver.inversion.target_bits + 2) // max(bits - 2, 1))
    x = run.invert(vectors)
    for _ in range(slices):
        x = x + run.invert(vectors - run.product(x, run.solver.high))
    return x


def _converter_bits(array: InvArray | BlockInv) -> tuple[int, int]:
    while isinstance(array, BlockInv):
        array = array.first
    return array.spec.dac_bits, array.spec.adc_bits


def _iterate(run: _Run, correction: Callable[[np.ndarray], np.ndarray]) -> None:
    """Add corrections of the residual until every column converges, diverges or stalls."""
    inversion = run.solver.inversion
    active = np.flatnonzero(run.norm > 0)
    best = np.full(run.norm.shape, np.inf)
    stalled = np.zeros(run.norm.shape, np.int64)
    for _ in range(inversion.max_iterations):
        if not active.size:
            return
        residual = run.residual(active)
        relative = run.relative(residual, active)
        better = relative < 0.99 * best[active]
        best[active] = np.minimum(best[active], relative)
        stalled[active] = np.where(better, 0, stalled[active] + 1)
        keep = (relative > inversion.tolerance) & (relative < _GROWTH_LIMIT)
        keep &= np.isfinite(relative) & (stalled[active] < _STALL_ROUNDS)
        active, residual = active[keep], residual[:, keep]
        if active.size:
            run.x[:, active] += correction(residual)
            run.iterations[active] += 1
            run.digital_ops += 2 * residual.size


def _fcg(run: _Run) -> None:
    """Flexible conjugate gradients (Notay 2000): the array changes from round to round by its
    rounding, so each direction is made conjugate to the one before explicitly.
    """
    inversion = run.solver.inversion
    active = np.flatnonzero(run.norm > 0)
    residual = run.b[:, active].copy()
    direction = np.zeros_like(residual)
    image = np.zeros_like(residual)
    curvature = np.ones(active.size)
    for _ in range(inversion.max_iterations):
        relative = run.relative(residual, active)
        keep = (relative > inversion.tolerance) & (relative < _GROWTH_LIMIT) & (curvature > 0)
        if not keep.all():
            active, residual, direction = active[keep], residual[:, keep], direction[:, keep]
            image, curvature = image[:, keep], curvature[keep]
        if not active.size:
            return
        guess = run.invert(residual)
        direction = guess - direction * (_dot(guess, image) / curvature)
        image = run.product(direction)
        curvature = _dot(direction, image)
        usable = np.where(curvature > 0, curvature, 1.0)
        step = np.where(curvature > 0, _dot(direction, residual) / usable, 0.0)
        run.x[:, active] += direction * step
        run.iterations[active] += 1
        if np.any(run.iterations[active] % 16 == 0):
            residual = run.residual(active)
        else:
            residual = residual - image * step
        run.digital_ops += 10 * residual.size


_SCHEMES: dict[str, Callable[[_Run], None]] = {
    "single": _single,
    "taylor": _taylor,
    "refine": _refine,
    "fcg": _fcg,
}


def _dot(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->j", left, right)


def _fixed(matrix: np.ndarray) -> np.ndarray:
    return _rounded(matrix, PRODUCT_BITS)


def _rounded(matrix: np.ndarray, bits: int) -> np.ndarray:
    """Round to `bits` bits of the largest entry, sign included."""
    step = float(np.max(np.abs(matrix))) / (2 ** (bits - 1) - 1)
    return np.rint(matrix / step) * step


def _fixed_columns(vectors: np.ndarray) -> np.ndarray:
    largest = np.max(np.abs(vectors), axis=0, initial=0.0)
    step = np.where(largest > 0, largest, 1.0) / (2 ** (PRODUCT_BITS - 1) - 1)
    return np.rint(vectors / step) * step


def _check_matrix(matrix: np.ndarray) -> None:
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise DataError(f"inversion takes a square matrix of at least 1x1, got {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise DataError("inversion takes finite numbers, got NaN or infinity")
    if np.abs(matrix - matrix.T).max() > 1e-9 * np.abs(matrix).max():
        raise DataError("inversion takes a symmetric matrix")
    if np.diag(matrix).min() <= 0:
        raise DataError(
            "inversion takes a positive definite matrix; its diagonal has an entry of "
            f"{np.diag(matrix).min():.3g} (is it damped?)"
        )
