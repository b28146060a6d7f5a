"""Analog inversion: a programmed matrix in the feedback of a row of amplifiers.

With open-loop gain a0 the outputs v settle at ``(G + diag(row sums of |G|) / a0) v = i`` (Sun et
al., PNAS 2019; the signs are those of the differential pairs), so one settling solves one system
to the precision of cells and converters, about 8 bits. A matrix larger than an array is inverted
by recursive 2x2 blocks (BlockAMC): both Schur complements are programmed, and one application
costs two inversions of the first block, one of the second, and two multiplications.

A matrix can be held more precisely than one cell does, by more arrays on the same amplifiers:
*copies* average their errors; *slices* hold, scaled up, what the ones before them are read back
to have left out (Song et al., Science 2024). The currents of all add up, so it stays one settling.
"""

import abc
import dataclasses
import hashlib
import warnings
from typing import Protocol

import numpy as np
from scipy.linalg import LinAlgWarning, lu_factor
from scipy.linalg.lapack import dgetrs, sgetrs

from repast_dist.analog.arrays.noise import fill_rows
from repast_dist.analog.arrays.programming import (
    offset_voltages,
    pair_conductances,
    quantize_symmetric,
    to_siemens,
)
from repast_dist.analog.arrays.wires import transfer_matrix
from repast_dist.analog.fixed_point import codes_of_columns
from repast_dist.analog.product import LOSSLESS, Product
from repast_dist.analog.specs import InvSpec, WireSpec
from repast_dist.ground.errors import DataError
from repast_dist.ground.numbers import ceil_div
from repast_dist.ground.rng import generator


class Inverse(Protocol):
    """A programmed array, or several, that applies an approximate inverse."""

    @property
    def inv_ops(self) -> int:
        """Settlings per right-hand side."""

    @property
    def vmm_ops(self) -> int:
        """Analog products per right-hand side."""

    @property
    def cells(self) -> int:
        """Cells programmed, both of every pair."""

    def solve(self, right: np.ndarray) -> np.ndarray:
        """Solve for many right-hand sides, (n, r)."""


@dataclasses.dataclass(frozen=True)
class OneLoop(abc.ABC):
    """Arrays in the feedback of one row of amplifiers: a solve is one settling.

    Attributes
    ----------
    spec : InvSpec
        How the arrays are built.
    circuit : Circuit
        What they settle to, finite gain included.
    """

    spec: InvSpec
    circuit: "Circuit"

    @property
    def inv_ops(self) -> int:
        """Settlings per right-hand side."""
        return 1

    @property
    def vmm_ops(self) -> int:
        """Analog products per right-hand side beside the settling."""
        return 0

    @property
    @abc.abstractmethod
    def entries(self) -> int:
        """Matrix entries held, each by one pair of cells per slice and copy."""

    @property
    def cells(self) -> int:
        """Cells programmed, both of every pair."""
        return 2 * self.entries * self.spec.slices * self.spec.copies

    def solve(self, right: np.ndarray) -> np.ndarray:
        """Solve for many right-hand sides, each scaled to the converters' range on its own.

        Parameters
        ----------
        right : ndarray
            (n, r) float64.

        Returns
        -------
        ndarray
            (n, r) float64, rounded to the ADC's bits of each column's largest entry.
        """
        return self.circuit.solve(right, self.spec)


@dataclasses.dataclass(frozen=True)
class InvArray(OneLoop):
    """One programmed inverting array, with the slices and copies on its amplifiers.

    Attributes
    ----------
    held : ndarray
        (n, n) float64, the matrix the cells hold.
    """

    held: np.ndarray

    @property
    def entries(self) -> int:
        """Entries of the matrix."""
        return self.held.size


@dataclasses.dataclass(frozen=True)
class BlockInv:
    """A matrix too large for one array, as two arrays of Schur blocks; see the module.

    Attributes
    ----------
    first, second : InvArray or BlockInv
        The first block, and the Schur complement of it.
    split : int
        Rows of the first block.
    upper, lower : Product
        The coupling of the blocks, (split, n - split), and its transpose.
    """

    first: "InvArray | BlockInv"
    second: "InvArray | BlockInv"
    split: int
    upper: Product
    lower: Product

    @property
    def inv_ops(self) -> int:
        """Settlings per right-hand side."""
        return 2 * self.first.inv_ops + self.second.inv_ops

    @property
    def vmm_ops(self) -> int:
        """Analog products per right-hand side, the two couplings included."""
        return 2 * self.first.vmm_ops + self.second.vmm_ops + 2

    @property
    def cells(self) -> int:
        """Cells programmed for inversion; the couplings are part of the residual's matrix."""
        return self.first.cells + self.second.cells

    def solve(self, right: np.ndarray) -> np.ndarray:
        """Solve for many right-hand sides, (n, r)."""
        top, bottom = right[: self.split], right[self.split :]
        partial = self.first.solve(top)
        lower = self.second.solve(bottom - self.lower.multiply(partial))
        upper = self.first.solve(top - self.upper.multiply(lower))
        return np.vstack([upper, lower])


def program_inv(
    matrix: np.ndarray,
    spec: InvSpec,
    seed: int = 0,
    *address: int | str,
    product: Product | None = None,
) -> InvArray | BlockInv:
    """Program a symmetric positive definite matrix for inversion.

    Parameters
    ----------
    matrix : ndarray
        (n, n) float64.
    spec : InvSpec
        How the array is built; above ``spec.size`` the matrix is split in two.
    seed, *address
        Address of the programming errors.
    product : Product, optional
        On arrays of the kind that multiplies with the couplings of a split matrix; None: arrays
        that lose nothing of 32 bits.

    Raises
    ------
    DataError
        The matrix is not square or not finite.
    numpy.linalg.LinAlgError
        What the cells hold is singular.
    """
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise DataError(f"an inverting array takes a square matrix, got {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise DataError("an inverting array takes finite numbers, got NaN or infinity")
    product = product or Product.of((), _COUPLING_BITS, LOSSLESS)
    return _program_halves(matrix, depth_of(len(matrix), spec.size), spec, product, seed, *address)


def _program_halves(
    matrix: np.ndarray,
    depth: int,
    spec: InvSpec,
    product: Product,
    seed: int,
    *address: int | str,
) -> InvArray | BlockInv:
    """Program a matrix that is halved so often: all its pieces, so that they run in step."""
    n = len(matrix)
    if not depth:
        return _program_one(matrix, spec, seed, *address)
    split = ceil_div(n, 2)
    a, b, d = matrix[:split, :split], matrix[:split, split:], matrix[split:, split:]
    try:
        schur = d - b.T @ np.linalg.solve(a, b)
    except np.linalg.LinAlgError:
        raise DataError(
            f"a matrix of {n} cannot be split over arrays of {spec.size}: a block of it is "
            "singular (is it damped?)"
        ) from None
    schur = (schur + schur.T) / 2
    if not np.isfinite(schur).all():
        raise DataError("an inverting array takes finite numbers, got NaN or infinity")
    first = _program_halves(a, depth - 1, spec, product, seed, *address, "first")
    second = _program_halves(schur, depth - 1, spec, product, seed, *address, "second")
    upper, lower = (
        product.holding(part, *address, name) for part, name in ((b, "upper"), (b.T, "lower"))
    )
    return BlockInv(first, second, split, upper, lower)


def depth_of(n: int, size: int) -> int:
    """Return how often a matrix of n rows is halved to fit an array of `size` rows."""
    depth = 0
    while size << depth < n:
        depth += 1
    return depth


def piece_values(n: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Return the entries of all pieces of matrices of n rows that are halved `depth` times."""
    pieces = 2**depth
    width, wider = n // pieces, n % pieces
    values: np.ndarray = wider * (width + 1) ** 2 + (pieces - wider) * width**2
    return values


def error_norm(matrix: np.ndarray, spec: InvSpec, seed: int, *address: int | str) -> float:
    """Estimate the spectral norm of the symmetric part of the cells' error.

    Independent errors of RMS e have the norm ``2 sqrt(n) e``, and their symmetric part that over
    ``sqrt(2)``; so much for programming, reading and stuck cells. Rounding is known before
    anything is programmed, and entries below half a level vanish together, so its norm is found
    by a few power iterations.
    """
    largest = float(np.max(np.abs(matrix)))
    digits, scale = quantize_symmetric(matrix, spec.device.inv_cell.bits + 1)
    rounding = _norm(digits * scale - matrix, generator(seed, "error", *address))
    independent = largest * np.sqrt(2.0 * len(matrix) / spec.copies)
    programming = independent * spec.device.inv_cell.pair_error
    # Slices after the first make these smaller alike, but not what reading and stuck cells do.
    smaller = cell_error(spec) / cell_error(dataclasses.replace(spec, slices=1))
    lasting = independent * spec.device.inv_cell.lasting_error(matrix)
    return float(np.hypot(np.hypot(rounding, programming) * smaller, lasting))


def _norm(matrix: np.ndarray, random: np.random.Generator) -> float:
    """Return the spectral norm of a symmetric matrix, a few percent too low at worst."""
    vectors = random.standard_normal((len(matrix), 2))
    norms = np.zeros(2)
    for _ in range(_POWER_ITERATIONS):
        lengths = np.linalg.norm(vectors, axis=0)
        vectors = matrix @ (vectors / np.where(lengths > 0, lengths, 1.0))
        norms = np.linalg.norm(vectors, axis=0)
    return float(norms.max())


def cell_error(spec: InvSpec) -> float:
    """Return the RMS error of a programmed entry relative to the largest one.

    Rounding to the cell's levels is uniform over one level. A further slice has the same errors
    of a full scale that is the largest error before it, about `_LARGEST_ERROR` times the RMS.
    Copies share their rounding where one slice is all there is.
    """
    rounding = 1.0 / (spec.device.inv_cell.levels - 1) / np.sqrt(12.0)
    noise = spec.device.inv_cell.pair_error
    if spec.slices == 1:
        return float(np.hypot(rounding, noise / np.sqrt(spec.copies)))
    one = float(np.hypot(rounding, noise))
    return one * (_LARGEST_ERROR * one) ** (spec.slices - 1) / float(np.sqrt(spec.copies))


_COUPLING_BITS = 32
_POWER_ITERATIONS = 8
_LARGEST_ERROR = 4.5
_LARGEST_OF_MEDIAN = 8.0
"""Of an absolute error that is normal: 5.4 standard deviations, beyond any of a million cells."""


def _program_one(matrix: np.ndarray, spec: InvSpec, seed: int, *address: int | str) -> InvArray:
    n = len(matrix)
    held, load = held_matrix(matrix, spec, seed, *address)
    load += input_load(matrix, spec)
    loaded = held.copy()
    if spec.device.opamp.gain is not None:
        loaded[np.diag_indices(n)] += load / spec.device.opamp.gain
    # An input that rests at its offset draws current through all that is connected to it.
    currents = load * offset_voltages(n, spec.device.opamp, seed, *address)
    noise = CellNoise.of(matrix, spec, seed, *address)
    return InvArray(spec, Circuit.of(loaded, currents, spec, noise), held)


def held_matrix(
    matrix: np.ndarray, spec: InvSpec, seed: int, *address: int | str
) -> tuple[np.ndarray, np.ndarray]:
    """Program a matrix, (n, m), and return what the amplifiers of its rows see.

    The slices after the first hold what those before them are read back to have left out.

    Returns
    -------
    held : ndarray
        (n, m): what outputs are weighed with.
    load : ndarray
        (n,): conductance of all cells of a row, in the matrix's units.
    """
    # Sign comes from the pair, so the magnitude has all the cell's levels.
    cell = spec.device.inv_cell
    bits = cell.bits + 1
    total, load = np.zeros(matrix.shape), np.zeros(len(matrix))
    if not matrix.any():
        # Nothing sets a full scale: the array is left out of the circuit.
        return total, load
    for copy in range(spec.copies):
        left = matrix
        for number in range(spec.slices):
            if number and not left.any():
                break
            if number and cell.may_fail:
                left = _within_range(left)
            digits, scale = quantize_symmetric(left, bits)
            place = (*address, copy, number) if copy or number else address
            levels, row_levels = _held_levels(digits.astype(np.int64), spec, seed, *place)
            total += levels * (scale / spec.copies)
            load += row_levels * (scale / spec.copies)
            if number + 1 < spec.slices:
                left = left - _read_back(levels, digits, spec, seed, *place) * scale
    return total, load


def _read_back(
    levels: np.ndarray, digits: np.ndarray, spec: InvSpec, seed: int, *address: int | str
) -> np.ndarray:
    """Return what cells hold when the next slice is programmed: before they drift."""
    if not spec.device.inv_cell.ages:
        return levels
    return _held_levels(digits.astype(np.int64), spec, seed, *address, aged=False)[0]


def _within_range(errors: np.ndarray) -> np.ndarray:
    """Clip errors of stuck cells, so that they do not set the full scale of all others."""
    limit = _LARGEST_OF_MEDIAN * float(np.median(np.abs(errors)))
    return np.clip(errors, -limit, limit) if limit > 0 else errors


@dataclasses.dataclass(frozen=True)
class Circuit:
    """What amplifiers and conductances settle to.

    Attributes
    ----------
    factors : tuple
        LU factors of the circuit's matrix over `scale`.
    scale : float
        Its largest entry.
    offset : ndarray
        (n,) what constant currents add to full-scale outputs.
    read_noise : ReadNoise or None
        Of its cells.
    """

    factors: tuple[np.ndarray, np.ndarray]
    scale: float
    offset: np.ndarray
    read_noise: "ReadNoise | None"

    @classmethod
    def of(
        cls,
        matrix: np.ndarray,
        currents: np.ndarray,
        spec: InvSpec,
        read_noise: "ReadNoise | None" = None,
    ) -> "Circuit":
        """Factorise the circuit's matrix; a singular one saturates later.

        Single precision is plenty where converters have few bits.
        """
        largest = float(np.max(np.abs(matrix), initial=0.0))
        scale = largest if largest > 0 else 1.0
        few = max(spec.dac_bits, spec.adc_bits) <= _FEW_BITS
        unit = (matrix / scale).astype(np.float32 if few else np.float64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LinAlgWarning)
            factors = lu_factor(unit, overwrite_a=True, check_finite=False)
        offset = np.zeros(len(matrix))
        if currents.any():
            offset = _settled(factors, currents / scale)
        return cls(factors, scale, offset, read_noise)

    def solve(self, right: np.ndarray, spec: InvSpec) -> np.ndarray:
        """Drive, settle and read for every right-hand side, (n, r)."""
        codes, step = codes_of_columns(right, spec.dac_bits)
        settled = _settled(self.factors, codes)
        if self.read_noise is not None:
            drawn = self.read_noise.currents(settled, codes) / self.scale
            settled += _settled(self.factors, drawn)
        if self.offset.any():
            settled += self.offset[:, None] * np.max(np.abs(settled), axis=0, initial=0.0)
        read, level = codes_of_columns(settled, spec.adc_bits)
        return np.asarray(read * (level * (step / self.scale)))


_FEW_BITS = 12


class ReadNoise(Protocol):
    """What fluctuating cells add to the currents."""

    def currents(self, outputs: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Return currents (n, r), in units of matrix times outputs.

        Parameters
        ----------
        outputs : ndarray
            (n, r) that drive the cells.
        codes : ndarray
            (n, r) inputs as converted; they address the draws, so that these depend neither on
            the order of the solves nor on which are done together. The same input draws the same.
        """


@dataclasses.dataclass(frozen=True)
class CellNoise:
    """Read noise of one array, to first order: independent in every cell and settling.

    Attributes
    ----------
    sigma : float
        Standard deviation of an entry of the matrix.
    key : uint64
        Of the draws.
    """

    sigma: float
    key: np.uint64

    @classmethod
    def of(
        cls, matrix: np.ndarray, spec: InvSpec, seed: int, *address: int | str
    ) -> "CellNoise | None":
        """Return the noise of the cells a matrix is programmed on, if they have any."""
        cell = spec.device.inv_cell
        if not cell.read_spread:
            return None
        # Both cells of a pair fluctuate, whatever they hold; copies average it.
        largest = float(np.max(np.abs(matrix), initial=0.0))
        sigma = cell.read_spread * largest * float(np.sqrt(2.0 / spec.copies))
        key = generator(seed, "read", "inv", *address).bit_generator.random_raw()
        return cls(sigma, np.uint64(key))

    def currents(self, outputs: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Return what the cells add to the currents of their rows, (n, r)."""
        return self.drawn(len(outputs), outputs, codes)

    def drawn(self, rows: int, outputs: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Return the same for an array of any number of rows, (rows, r)."""
        digests = [hashlib.blake2b(c.tobytes(), digest_size=8).digest() for c in codes.T]
        draws = np.empty((outputs.shape[1], rows), np.float32)
        fill_rows(self.key, np.frombuffer(b"".join(digests), np.int64), draws)
        return draws.T * (self.sigma * np.linalg.norm(outputs, axis=0))


def _settled(factors: tuple[np.ndarray, np.ndarray], currents: np.ndarray) -> np.ndarray:
    # A singular circuit saturates; the residual of the answer will tell.
    with np.errstate(all="ignore"):
        driven = currents.astype(factors[0].dtype)
        # What lu_solve calls in the end; settlings are many and small.
        solve = sgetrs if driven.dtype == np.float32 else dgetrs
        settled = solve(*factors, driven)[0].astype(np.float64)
        return settled if np.isfinite(settled).all() else np.nan_to_num(settled)


def _held_levels(
    digits: np.ndarray, spec: InvSpec, seed: int, *address: int | str, aged: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Return the matrix that currents see and the conductance of every row, in levels.

    With resistive wires, amplifiers drive the columns of a positive and a negative array and the
    rows end in their inputs, at virtual ground.
    """
    cell, wire = spec.device.inv_cell, spec.device.wire
    pair = pair_conductances(digits, cell, seed, "inv", *address, aged=aged)
    span = cell.span_siemens
    if wire.ideal:
        positive, negative = pair
        off = 2 * digits.shape[1] * cell.g_off_siemens / span
    else:
        crossed = WireSpec(row_ohm=wire.column_ohm, column_ohm=wire.row_ohm)
        positive, negative = (
            transfer_matrix(to_siemens(held, cell).T, crossed).T / span for held in pair
        )
        off = 0.0
    top = cell.levels - 1
    return (positive - negative) * top, ((positive + negative).sum(axis=1) + off) * top


def input_load(matrix: np.ndarray, spec: InvSpec) -> float:
    """Return the conductance of an amplifier's input in the units of the matrix it serves."""
    cell = spec.device.inv_cell
    largest = float(np.max(np.abs(matrix), initial=0.0)) or 1.0
    return largest * spec.device.opamp.input_siemens / cell.span_siemens
