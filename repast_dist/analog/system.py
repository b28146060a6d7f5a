"""Programming a block for solving: formed, or as the rows that it is the product of.

Residual products run on bit-sliced multipliers; see `repast_dist.analog.product`.
"""

import dataclasses
import itertools

import numpy as np

from repast_dist.analog.arrays.fused import fused_error, program_fused
from repast_dist.analog.arrays.held import regularising_shift
from repast_dist.analog.arrays.inv import (
    Inverse,
    coupling_values,
    forming_ops,
    piece_edges,
    program_diagonal,
    program_inv,
)
from repast_dist.analog.deflation import Deflation, find_deflation
from repast_dist.analog.fixed_point import exponent_of
from repast_dist.analog.prices import PriceList, by_number
from repast_dist.analog.product import Product
from repast_dist.analog.schemes.base import SCHEMES, Scheme
from repast_dist.analog.solution import SolveCounts
from repast_dist.analog.solver import BlockSolver, product_cells
from repast_dist.analog.specs import InvSpec, VmmSpec
from repast_dist.ground.errors import DataError, IndefiniteError

_ASYMMETRY = 1e-9
_SMALLEST = 2.0**-900


@dataclasses.dataclass(frozen=True)
class Rows:
    """A block that is not formed: ``rows rows' / N + damping I``.

    Attributes
    ----------
    rows : ndarray
        (n, N) float64: activations or errors, one sample per column.
    damping : float
        Positive.
    """

    rows: np.ndarray
    damping: float

    def formed(self) -> np.ndarray:
        """Return the block, (n, n) float64."""
        product = self.rows @ self.rows.T / self.rows.shape[1]
        return product + self.damping * np.eye(len(self.rows))


def prepare(
    operator: np.ndarray | Rows,
    vmm: VmmSpec,
    inv: InvSpec,
    scheme: Scheme,
    seed: int = 0,
    *address: int | str,
    prices: PriceList = by_number,
    start: np.ndarray | None = None,
) -> BlockSolver:
    """Program a symmetric positive definite block for solving.

    Parameters
    ----------
    operator : ndarray or Rows
        (n, n) float64, damping included; or the rows that it is the product of, for arrays that
        hold these and their transpose instead (fused).
    vmm, inv : VmmSpec, InvSpec
        The arrays of residual products, and the inverting ones.
    scheme : Scheme
        How to solve.
    seed, *address
        Address of the programming errors, for example ``(step, "A", block)``.
    prices : callable
        Rows of a block -> what the operations of a solve cost, for a scheme that chooses by it.
    start : ndarray, optional
        What the search for dominant directions saw of the block when it was written last, for a
        scheme that goes on with it: `BlockSolver.seen`.

    Raises
    ------
    DataError
        A formed block is empty, not square, not finite or not symmetric. Rows are empty or not
        finite, their damping is not positive, the arrays are too small for them, or the scheme
        cannot be fused.
    IndefiniteError
        The diagonal of a formed block is not positive, or a half of it is singular.
    """
    if isinstance(operator, Rows):
        if not scheme.fusible:
            valid = [name for name in SCHEMES.names() if SCHEMES.get(name).fusible]
            raise DataError(
                f"inversion.method={scheme.name} needs the formed block; valid when fused: "
                f"{', '.join(valid)}"
            )
        block = _of_rows(operator, scheme, vmm, seed, *address)
    else:
        block = _of_matrix(operator, scheme, vmm, seed, *address)

    def programmed(chosen: Scheme) -> BlockSolver:
        return _program(block, vmm, chosen.arrays(inv), chosen, start, seed, *address)

    return scheme.prepare(programmed, inv, prices, block.size, seed, *address)


@dataclasses.dataclass(frozen=True)
class _Block:
    """A block, scaled, before anything is programmed.

    Attributes
    ----------
    matrix, damping, exponent, scaling, product
        As in `BlockSolver`.
    scaled : ndarray
        (n, n) the scaled block, or (n, N) its rows.
    diagonal : ndarray or None
        (n,) damping of scaled rows; None for a formed block.
    """

    matrix: tuple[np.ndarray, ...]
    damping: float
    exponent: int
    scaling: np.ndarray
    product: Product
    scaled: np.ndarray
    diagonal: np.ndarray | None

    @property
    def size(self) -> int:
        """Rows of the block."""
        return len(self.scaling)


def _of_matrix(
    matrix: np.ndarray, scheme: Scheme, vmm: VmmSpec, seed: int, *address: int | str
) -> _Block:
    _check_matrix(matrix)
    exponent = exponent_of(matrix)
    matrix = np.ldexp(matrix, -exponent)
    if np.diag(matrix).min() < _SMALLEST:
        raise DataError("inversion takes a matrix whose diagonal spans fewer orders of magnitude")
    scaling = _scaling(np.diag(matrix), scheme)
    scaled = scaling[:, None] * matrix * scaling
    product = Product.of((scaled,), scheme.product_bits, vmm, seed, *address)
    return _Block((matrix,), 0.0, exponent, scaling, product, scaled, None)


def _of_rows(
    operator: Rows, scheme: Scheme, vmm: VmmSpec, seed: int, *address: int | str
) -> _Block:
    rows, damping = operator.rows, operator.damping
    if rows.ndim != 2 or not rows.size or not np.isfinite(rows).all():
        raise DataError(f"fused inversion takes a finite matrix (n, N), got shape {rows.shape}")
    if not (np.isfinite(damping) and damping > 0):
        raise DataError(f"fused inversion needs a positive damping, got {damping}")
    # Rows over one power of two are a block, and damping, over its square.
    half = max(exponent_of(rows), int(np.frexp(damping)[1]) // 2)
    part = np.ldexp(rows, -half) / np.sqrt(rows.shape[1])
    damping = float(np.ldexp(damping, -2 * half))
    scaling = _scaling(np.sum(part**2, axis=1) + damping, scheme)
    scaled, diagonal = scaling[:, None] * part, damping * scaling**2
    factors = (scaled.T, scaled)
    bits = scheme.product_bits
    product = Product.of(factors, bits, vmm, seed, *address, diagonal=diagonal)
    return _Block((part.T, part), damping, 2 * half, scaling, product, scaled, diagonal)


def _program(
    block: _Block,
    vmm: VmmSpec,
    inv: InvSpec,
    scheme: Scheme,
    start: np.ndarray | None,
    seed: int,
    *address: int | str,
) -> BlockSolver:
    counts = SolveCounts(digital_ops=2 * block.scaled.size, moved=2 * block.scaled.size)
    deflation, inner = None, np.ones(block.size)
    held = block.scaled
    seen = None
    if block.diagonal is None and scheme.most_directions:
        deflation, found, seen = find_deflation(
            held, block.product, scheme.most_directions, seed, *address,
            above=scheme.dominant_above, entries=_array_entries(block.size, scheme, inv),
            start=start if scheme.recycles else None,
        )  # fmt: skip
        counts += found
    if deflation is not None and scheme.uses_array:
        held, inner = _deflated(deflation, held)
    elif deflation is not None:
        inner = np.full(block.size, deflation.mean(held) ** -0.5)
    shift, array = 0.0, None
    if scheme.uses_array:
        shifts = _shifts(block, held, inv, scheme, seed, *address)
        shift, array = max(shifts), _program_array(block, held, shifts, inv, seed, *address)
        tested_s = inv.device.opamp.seconds(array.test_cycles)
        tests = array.tests
        beside = tests * array.beside // (array.beside + 1)
        counts += SolveCounts(
            program_cells=array.cells, inv_ops=tests, beside=beside, settling_s=tested_s
        )
    depth = 0 if block.diagonal is not None else scheme.depth(block.size, inv.size)
    values = block.product.values if scheme.uses_products or depth else 0
    if array is not None and depth:
        counts += SolveCounts(digital_ops=forming_ops(block.size, depth))
        values += coupling_values(block.size, depth)
    cells = product_cells(values, scheme.product_bits, vmm.device.cell)
    counts += SolveCounts(program_cells=cells)

    def after(seconds: float) -> tuple[Product, Inverse | None]:
        later = dataclasses.replace(block, product=block.product.aged(seconds))
        if array is None:
            return later.product, None
        # Nothing is written again, and so nothing else.
        aged: Inverse = _program_array(later, held, shifts, inv.older(seconds), seed, *address)
        return later.product, aged.driven_as(array)

    return BlockSolver(
        matrix=block.matrix,
        damping=block.damping,
        exponent=block.exponent,
        scaling=block.scaling,
        product=block.product,
        array=array,
        deflation=deflation,
        inner_scaling=inner,
        shift=shift,
        inv=inv,
        scheme=scheme,
        program_counts=counts,
        after=after if inv.device.inv_cell.ages or vmm.device.cell.ages else None,
        seen=seen if scheme.recycles else None,
        recycled=scheme.recycles and start is not None,
    )


def _array_entries(size: int, scheme: Scheme, inv: InvSpec) -> int:
    """Return how many entries of a formed block the arrays of a scheme are written from."""
    shape = np.array([scheme.depth(size, inv.size)]), np.array([scheme.pieces(size, inv.size)])
    return int(scheme.array_entries(np.array([size]), *shape)[0])


def _deflated(deflation: Deflation, scaled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what deflation leaves for the array, scaled again, and this scaling."""
    left = deflation.remainder(scaled)
    inner = deflation.scaling(left, scaled)
    return inner[:, None] * left * inner, inner


def _shifts(
    block: _Block, held: np.ndarray, inv: InvSpec, scheme: Scheme, seed: int, *address: int | str
) -> tuple[float, ...]:
    """Return the regularisation of the array, or of each of the pieces of the diagonal, by the
    error of its own array.
    """
    amount = scheme.regularisation
    if block.diagonal is not None:
        return (amount * fused_error(held, inv),)
    if block.size <= inv.size or scheme.depth(block.size, inv.size):
        return (regularising_shift(held, amount, inv, seed, *address),)
    edges = piece_edges(block.size, scheme.pieces(block.size, inv.size))
    return tuple(
        regularising_shift(
            held[start:stop, start:stop], amount, inv, seed, *address, "piece", number
        )
        for number, (start, stop) in enumerate(itertools.pairwise(edges))
    )


def _program_array(
    block: _Block,
    held: np.ndarray,
    shifts: tuple[float, ...],
    inv: InvSpec,
    seed: int,
    *address: int | str,
) -> Inverse:
    """Return the programmed array, or the pieces of the diagonal, of which each has a shift."""
    if block.diagonal is not None:
        return program_fused(held, block.diagonal + shifts[0], inv, seed, *address)
    if len(shifts) == 1:
        loaded = held + shifts[0] * np.eye(block.size)
        return program_inv(loaded, inv, seed, *address, product=block.product)
    edges = piece_edges(block.size, len(shifts))
    loaded = held + np.diag(np.repeat(shifts, np.diff(edges)))
    return program_diagonal(loaded, edges, inv, seed, *address)


def _scaling(diagonal: np.ndarray, scheme: Scheme) -> np.ndarray:
    if scheme.equilibrate:
        return np.asarray(1.0 / np.sqrt(diagonal))
    return np.ones(len(diagonal))


def _check_matrix(matrix: np.ndarray) -> None:
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise DataError(f"inversion takes a square matrix of at least 1x1, got {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise DataError("inversion takes finite numbers, got NaN or infinity")
    if np.abs(matrix - matrix.T).max() > _ASYMMETRY * np.abs(matrix).max():
        raise DataError("inversion takes a symmetric matrix")
    if np.diag(matrix).min() <= 0:
        raise IndefiniteError(
            "inversion takes a positive definite matrix; its diagonal has an entry of "
            f"{np.diag(matrix).min():.3g} (is it damped?)"
        )
