"""Solving with more bits than an inverting array has.

``single``  one analog step, about 8 bits.
``taylor``  RePAST: A = A_H + A_L, the array holds A_H; every A_H^-1 is bit-sliced over DAC and ADC,
            and the series x = sum_k (-A_H^-1 A_L)^k A_H^-1 b restores what the split left out.
``refine``  iterative refinement, x += INV(b - A x) (HP-INV, Nature Electronics 2025).
``fcg``     flexible conjugate gradients with the array as the preconditioner, dominant directions
            taken out of it.
``cg``      conjugate gradients without any array, to compare with.
``auto``    the cheapest that converges, found by trying; see `repast_dist.analog.choice`.

Residual products run on bit-sliced multipliers; see `repast_dist.analog.fixed_point`. What is
reported as residual is computed in float64 from the matrix that was asked for, never from the
hardware's own idea of it.
"""

import dataclasses
from functools import cached_property

import numpy as np

from repast_dist.analog.arrays.fused import fused_error, program_fused
from repast_dist.analog.arrays.inv import Inverse, error_norm, program_inv
from repast_dist.analog.choice import cheapest
from repast_dist.analog.deflation import Deflation, find_deflation
from repast_dist.analog.fixed_point import Product, exponent_of, rounded
from repast_dist.analog.schemes import SCHEMES, Run
from repast_dist.analog.solution import Solution, SolveCounts
from repast_dist.analog.specs import InversionSpec, InvSpec, VmmSpec
from repast_dist.ground.errors import DataError

__all__ = [
    "BlockSolver",
    "Solution",
    "SolveCounts",
    "prepare",
    "prepare_fused",
]

_REGULARISATION = {"single": 0.0, "taylor": 0.0, "refine": 1.15, "fcg": 1.15}
_ASYMMETRY = 1e-9
_SMALLEST = 2.0**-900


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
        What regularisation adds to the diagonal of the matrix that the array stores.
    inv, inversion, method
        Settings, and the scheme that is used.
    program_counts : SolveCounts
        What the preparation took.
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
    inversion: InversionSpec
    method: str
    program_counts: SolveCounts

    @property
    def size(self) -> int:
        """Rows of the block."""
        return len(self.scaling)

    @cached_property
    def halves(self) -> tuple[np.ndarray, np.ndarray]:
        """What a cell's bits hold of S, and the rest of it."""
        whole = self.product.factors[0]
        high = rounded(whole + self.shift * np.eye(self.size), self.inv.device.inv_cell.bits + 1)
        return high, whole - high

    def multiply(self, vectors: np.ndarray) -> np.ndarray:
        """Multiply with the matrix that was asked for, over its power of two, in float64."""
        result = vectors
        for factor in self.matrix:
            result = factor @ result
        return result + self.damping * vectors if self.damping else result

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
        if right.ndim != 2 or len(right) != self.size:
            raise DataError(f"right-hand sides must be ({self.size}, r), got {right.shape}")
        if not np.isfinite(right).all():
            raise DataError("right-hand sides must be finite, got NaN or infinity")
        run = Run(self, right)
        SCHEMES[self.method](run)
        return run.solution()


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
    if inversion.method == "auto":

        def prepared(method: str) -> BlockSolver:
            chosen = dataclasses.replace(inversion, method=method)  # type: ignore[arg-type]
            return prepare(matrix, vmm, inv, chosen, seed, *address)

        return cheapest(prepared, len(matrix), seed, *address)
    n, method = len(matrix), inversion.method
    exponent = exponent_of(matrix)
    matrix = np.ldexp(matrix, -exponent)
    if np.diag(matrix).min() < _SMALLEST:
        raise DataError("inversion takes a matrix whose diagonal spans fewer orders of magnitude")
    inv = dataclasses.replace(inv, slices=inversion.array_slices, copies=inversion.array_copies)
    scaling = _scaling(np.diag(matrix), inversion)
    scaled = scaling[:, None] * matrix * scaling
    product = Product.of(scaled, inversion.product_bits)
    deflation, counts = None, SolveCounts(digital_ops=2 * n * n)
    if method == "fcg" and inversion.deflation:
        deflation, found = find_deflation(scaled, product, inversion.deflation, seed, *address)
        counts += found
    held, inner = scaled, np.ones(n)
    if deflation is not None:
        held = deflation.remainder(scaled)
        inner = deflation.scaling(held, scaled)
        held = inner[:, None] * held * inner
    shift, array = 0.0, None
    if method != "cg":
        shift = _regularisation(inversion) * error_norm(held, inv, seed, *address)
        array = program_inv(held + shift * np.eye(n), inv, seed, *address)
        counts += SolveCounts(program_cells=array.cells)
    if method != "single":
        counts += SolveCounts(program_cells=_product_cells(product, vmm))
    return BlockSolver(
        matrix=(matrix,),
        damping=0.0,
        exponent=exponent,
        scaling=scaling,
        product=product,
        array=array,
        deflation=deflation,
        inner_scaling=inner,
        shift=shift,
        inv=inv,
        inversion=inversion,
        method=method,
        program_counts=counts,
    )


def prepare_fused(
    rows: np.ndarray,
    damping: float,
    vmm: VmmSpec,
    inv: InvSpec,
    inversion: InversionSpec,
    seed: int = 0,
    *address: int | str,
) -> BlockSolver:
    """Program ``rows rows' / N + damping I`` for solving without forming it.

    Parameters
    ----------
    rows : ndarray
        (n, N) float64: activations or errors, one sample per column.
    damping : float
        Positive.
    vmm, inv, inversion, seed, *address
        As for `prepare`. ``taylor``, which needs the matrix itself to split, and deflation do not
        apply; ``auto`` is ``fcg``.

    Raises
    ------
    DataError
        The rows are empty or not finite, the damping is not positive, the arrays are too small, or
        the method cannot be fused.
    """
    if rows.ndim != 2 or not rows.size or not np.isfinite(rows).all():
        raise DataError(f"fused inversion takes a finite matrix (n, N), got shape {rows.shape}")
    if not (np.isfinite(damping) and damping > 0):
        raise DataError(f"fused inversion needs a positive damping, got {damping}")
    if inversion.method == "taylor":
        raise DataError(
            "inversion.method=taylor splits the formed matrix; valid when fused: single, refine, "
            "fcg, cg, auto"
        )
    n, held = rows.shape
    method = "fcg" if inversion.method == "auto" else inversion.method
    inv = dataclasses.replace(inv, slices=inversion.array_slices, copies=inversion.array_copies)
    # Rows over one power of two are a block, and damping, over its square.
    half = max(exponent_of(rows), int(np.frexp(damping)[1]) // 2)
    part = np.ldexp(rows, -half) / np.sqrt(held)
    damping = float(np.ldexp(damping, -2 * half))
    scaling = _scaling(np.sum(part**2, axis=1) + damping, inversion)
    scaled = scaling[:, None] * part
    diagonal = damping * scaling**2
    bits = inversion.product_bits
    product = Product((rounded(scaled.T, bits), rounded(scaled, bits)), diagonal, bits)
    counts = SolveCounts(digital_ops=2 * n * held)
    shift, array = 0.0, None
    if method != "cg":
        amount = _regularisation(dataclasses.replace(inversion, method=method))
        shift = amount * fused_error(scaled, inv)
        array = program_fused(scaled, diagonal + shift, inv, seed, *address)
        counts += SolveCounts(program_cells=array.cells)
    if method != "single":
        counts += SolveCounts(program_cells=_product_cells(product, vmm))
    return BlockSolver(
        matrix=(part.T, part),
        damping=damping,
        exponent=2 * half,
        scaling=scaling,
        product=product,
        array=array,
        deflation=None,
        inner_scaling=np.ones(n),
        shift=shift,
        inv=inv,
        inversion=inversion,
        method=method,
        program_counts=counts,
    )


def _scaling(diagonal: np.ndarray, inversion: InversionSpec) -> np.ndarray:
    if inversion.equilibrate:
        return np.asarray(1.0 / np.sqrt(diagonal))
    return np.ones(len(diagonal))


def _regularisation(inversion: InversionSpec) -> float:
    if inversion.array_regularisation is not None:
        return inversion.array_regularisation
    return _REGULARISATION[inversion.method]


def _product_cells(product: Product, vmm: VmmSpec) -> int:
    return 2 * product.values * -(-(product.bits - 1) // vmm.device.cell.bits)


def _check_matrix(matrix: np.ndarray) -> None:
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise DataError(f"inversion takes a square matrix of at least 1x1, got {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise DataError("inversion takes finite numbers, got NaN or infinity")
    if np.abs(matrix - matrix.T).max() > _ASYMMETRY * np.abs(matrix).max():
        raise DataError("inversion takes a symmetric matrix")
    if np.diag(matrix).min() <= 0:
        raise DataError(
            "inversion takes a positive definite matrix; its diagonal has an entry of "
            f"{np.diag(matrix).min():.3g} (is it damped?)"
        )
