"""Analog inversion: a programmed matrix in the feedback of a row of amplifiers.

With open-loop gain a0 the outputs v settle at ``(P - k N + diag(load) / a0) v = i`` (Sun et al.,
PNAS 2019): P and N are the conductances of the positive and the negative cells, the inverters in
front of the negative ones give ``-k v`` with ``k = 1 / (1 + 2 / a0)``, and the load of an amplifier
is all conductance at its input. So one settling solves one system to the precision of cells and
converters, about 8 bits. A matrix larger than an array is inverted by recursive 2x2 blocks
(BlockAMC): both Schur complements are programmed, and one application costs two inversions of the
first block, one of the second, and two multiplications.

A matrix can be held more precisely than one cell does, by more arrays on the same amplifiers:
*copies* average their errors; *slices* hold, scaled up, what the ones before them are read back
to have left out (Song et al., Science 2024). The currents of all add up, so it stays one settling;
how long that takes, the loop says (`repast_dist.analog.arrays.dynamics`).
"""

import abc
import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any, Protocol, Self

import numpy as np

from repast_dist.analog.arrays.circuit import CellNoise, Circuit, Reading, noise_key
from repast_dist.analog.arrays.converters import InvConverters
from repast_dist.analog.arrays.curve import CurvedCircuit
from repast_dist.analog.arrays.dynamics import Loop
from repast_dist.analog.arrays.held import Held, hold, input_load, whole_cell
from repast_dist.analog.arrays.programming import offset_voltages
from repast_dist.analog.product import LOSSLESS, Product
from repast_dist.analog.specs import InvSpec
from repast_dist.ground.errors import DataError, IndefiniteError
from repast_dist.ground.numbers import ceil_div

_COUPLING_BITS = 32


class Inverse(Protocol):
    """A programmed array, or several, that applies an approximate inverse."""

    @property
    def inv_ops(self) -> int:
        """Settlings per right-hand side."""

    @property
    def beside(self) -> int:
        """Those of them that take place beside another."""

    @property
    def vmm_ops(self) -> int:
        """Analog products per right-hand side."""

    @property
    def cells(self) -> int:
        """Cells programmed, both of every pair."""

    @property
    def settling_cycles(self) -> float:
        """Time of all settlings of a right-hand side, in multiples of 1 / gain-bandwidth; of those
        beside each other, the longest.
        """

    @property
    def stable(self) -> bool:
        """Whether every loop of amplifiers comes to rest."""

    @property
    def tests(self) -> int:
        """Settlings that found out how strongly inputs may be driven."""

    @property
    def test_cycles(self) -> float:
        """Time of these, in multiples of 1 / gain-bandwidth."""

    def driven_as(self, other: Any) -> "Inverse":
        """Return the arrays with the drive of others of the same kind, their younger selves."""

    def read(self, right: np.ndarray) -> Reading:
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
    circuit: Circuit

    @property
    def inv_ops(self) -> int:
        """Settlings per right-hand side."""
        return 1

    @property
    def beside(self) -> int:
        """None takes place beside another."""
        return 0

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

    @property
    def settling_cycles(self) -> float:
        """Time of the settling, in multiples of 1 / gain-bandwidth."""
        return self.circuit.read_cycles

    @property
    def stable(self) -> bool:
        """Whether the amplifiers come to rest."""
        return self.circuit.rate > 0

    @property
    def tests(self) -> int:
        """Settlings that found out how strongly inputs may be driven."""
        return 0 if self.circuit.drive is None else self.spec.device.opamp.drive_tests

    @property
    def test_cycles(self) -> float:
        """Time of these, in multiples of 1 / gain-bandwidth."""
        return self.tests * self.circuit.read_cycles if self.tests else 0.0

    def driven_as(self, other: Any) -> Self:
        """Return the arrays with the drive of others of the same kind, their younger selves."""
        if other.circuit.drive is None or self.circuit.drive is None:
            return self
        circuit = dataclasses.replace(self.circuit, drive=other.circuit.drive)
        return dataclasses.replace(self, circuit=circuit)

    def read(self, right: np.ndarray) -> Reading:
        """Solve for many right-hand sides, each scaled to the converters' range on its own.

        Parameters
        ----------
        right : ndarray
            (n, r) float64.

        Returns
        -------
        Reading
            Answers of (n, r) float64, rounded to the ADC's bits of each column's largest entry,
            or, where outputs have a limit, of the power of two above it.
        """
        return self.circuit.read(right, self.spec)

    def solve(self, right: np.ndarray) -> np.ndarray:
        """Return the answers alone, (n, r)."""
        return self.read(right).outputs


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
    def beside(self) -> int:
        """None: each needs what the one before it found."""
        return 0

    @property
    def vmm_ops(self) -> int:
        """Analog products per right-hand side, the two couplings included."""
        return 2 * self.first.vmm_ops + self.second.vmm_ops + 2

    @property
    def cells(self) -> int:
        """Cells programmed for inversion, without those of the couplings."""
        return self.first.cells + self.second.cells

    @property
    def settling_cycles(self) -> float:
        """Time of all settlings of a right-hand side, in multiples of 1 / gain-bandwidth."""
        return 2.0 * self.first.settling_cycles + self.second.settling_cycles

    @property
    def stable(self) -> bool:
        """Whether the amplifiers of all arrays come to rest."""
        return self.first.stable and self.second.stable

    @property
    def tests(self) -> int:
        """Settlings that found out how strongly inputs may be driven, of all pieces."""
        return self.first.tests + self.second.tests

    @property
    def test_cycles(self) -> float:
        """Time of these, in multiples of 1 / gain-bandwidth."""
        return self.first.test_cycles + self.second.test_cycles

    def driven_as(self, other: Any) -> "BlockInv":
        """Return the arrays with the drive of others of the same kind, their younger selves."""
        first, second = self.first.driven_as(other.first), self.second.driven_as(other.second)
        return dataclasses.replace(self, first=first, second=second)

    def read(self, right: np.ndarray) -> Reading:
        """Solve for many right-hand sides, (n, r)."""
        top, bottom = right[: self.split], right[self.split :]
        partial = self.first.read(top)
        lower = self.second.read(bottom - self.lower.multiply(partial.outputs))
        upper = self.first.read(top - self.upper.multiply(lower.outputs))
        beyond = partial.saturated | lower.saturated | upper.saturated
        return Reading(np.vstack([upper.outputs, lower.outputs]), beyond)

    def solve(self, right: np.ndarray) -> np.ndarray:
        """Return the answers alone, (n, r)."""
        return self.read(right).outputs


@dataclasses.dataclass(frozen=True)
class DiagonalInv:
    """The diagonal pieces of a matrix too large for one array, all of which settle at once; what
    couples them is left out.

    Attributes
    ----------
    pieces : tuple of InvArray
        The arrays.
    edges : tuple of int
        First row of every piece, and the number of rows.
    """

    pieces: tuple[InvArray, ...]
    edges: tuple[int, ...]

    @property
    def inv_ops(self) -> int:
        """Settlings per right-hand side, one of every piece."""
        return len(self.pieces)

    @property
    def beside(self) -> int:
        """All but one take place beside another."""
        return len(self.pieces) - 1

    @property
    def vmm_ops(self) -> int:
        """Nothing is multiplied."""
        return 0

    @property
    def cells(self) -> int:
        """Cells programmed, both of every pair."""
        return sum(piece.cells for piece in self.pieces)

    @property
    def settling_cycles(self) -> float:
        """Time of the longest settling, in multiples of 1 / gain-bandwidth."""
        return max(piece.settling_cycles for piece in self.pieces)

    @property
    def stable(self) -> bool:
        """Whether the amplifiers of all pieces come to rest."""
        return all(piece.stable for piece in self.pieces)

    @property
    def tests(self) -> int:
        """Settlings that found out how strongly inputs may be driven, of all pieces."""
        return sum(piece.tests for piece in self.pieces)

    @property
    def test_cycles(self) -> float:
        """Time of these, all pieces at once, in multiples of 1 / gain-bandwidth."""
        return max(piece.test_cycles for piece in self.pieces)

    def driven_as(self, other: Any) -> "DiagonalInv":
        """Return the arrays with the drive of others of the same kind, their younger selves."""
        pairs = zip(self.pieces, other.pieces, strict=True)
        return dataclasses.replace(self, pieces=tuple(one.driven_as(old) for one, old in pairs))

    def read(self, right: np.ndarray) -> Reading:
        """Solve for the parts of many right-hand sides, (n, r), each scaled to the converters'
        range on its own.
        """
        readings = [
            piece.read(right[start:stop])
            for piece, (start, stop) in zip(
                self.pieces, itertools.pairwise(self.edges), strict=True
            )
        ]
        beyond = np.any([reading.saturated for reading in readings], axis=0)
        return Reading(np.vstack([reading.outputs for reading in readings]), beyond)


def piece_edges(n: int, pieces: int) -> tuple[int, ...]:
    """Return the first row of each of so many nearly equal pieces of n rows, and n; wider pieces
    are the later ones.
    """
    return tuple(n * number // pieces for number in range(pieces + 1))


def program_diagonal(
    matrix: np.ndarray, edges: tuple[int, ...], spec: InvSpec, seed: int = 0, *address: int | str
) -> DiagonalInv:
    """Program the diagonal pieces of a symmetric positive definite matrix for inversion.

    Parameters
    ----------
    matrix : ndarray
        (n, n) float64.
    edges : tuple of int
        First row of every piece, at most ``spec.size`` apart, and n.
    spec : InvSpec
        How arrays are built.
    seed, *address
        Address of the programming errors.

    Raises
    ------
    numpy.linalg.LinAlgError
        What the cells of a piece hold is singular.
    """
    pieces = [
        _program_one(matrix[start:stop, start:stop], spec, seed, *address, "piece", number)
        for number, (start, stop) in enumerate(itertools.pairwise(edges))
    ]
    return DiagonalInv(tuple(pieces), edges)


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
    IndefiniteError
        A half of a matrix that is split is singular.
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
        raise IndefiniteError(
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


@functools.cache
def forming_ops(n: int, depth: int) -> int:
    """Return the digital operations of forming the Schur complements of a matrix of n rows that is
    halved `depth` times.

    Of halves of m and k rows, a Cholesky factor takes m^3 / 6 multiplications with their additions,
    a triangular solve for the coupling m^2 k / 2, and the symmetric product of the result with
    itself m k (k + 1) / 2 (Golub and Van Loan, Matrix Computations, sections 3.1 and 4.2).
    """
    if not depth:
        return 0
    m = ceil_div(n, 2)
    k = n - m
    here = m**3 // 6 + m * m * k // 2 + m * k * (k + 1) // 2
    return here + forming_ops(m, depth - 1) + forming_ops(k, depth - 1)


@functools.cache
def couplings(n: int, depth: int, *, part_of_block: bool = True) -> tuple[tuple[int, int], ...]:
    """Return rows and columns of the couplings that multipliers hold besides a block that is halved
    `depth` times: those of Schur complements, which are no part of the block, both ways.
    """
    if not depth:
        return ()
    m = ceil_div(n, 2)
    first = couplings(m, depth - 1, part_of_block=part_of_block)
    second = couplings(n - m, depth - 1, part_of_block=False)
    return (*(() if part_of_block else ((m, n - m), (n - m, m))), *first, *second)


@functools.cache
def coupling_values(n: int, depth: int) -> int:
    """Return the values of `couplings`."""
    return sum(rows * columns for rows, columns in couplings(n, depth))


def couplings_of(n: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Return `coupling_values` of several matrices."""
    return _of_each(coupling_values, n, depth)


def forming_ops_of(n: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Return `forming_ops` of several matrices."""
    return _of_each(forming_ops, n, depth)


def _of_each(of_one: Callable[[int, int], int], n: np.ndarray, depth: np.ndarray) -> np.ndarray:
    values = np.zeros(len(n), np.int64)
    for place in np.flatnonzero(depth).tolist():
        values[place] = of_one(int(n[place]), int(depth[place]))
    return values


def piece_values(n: np.ndarray, pieces: np.ndarray) -> np.ndarray:
    """Return the entries of so many nearly equal diagonal pieces of matrices of n rows."""
    width, wider = n // pieces, n % pieces
    values: np.ndarray = wider * (width + 1) ** 2 + (pieces - wider) * width**2
    return values


def _program_one(matrix: np.ndarray, spec: InvSpec, seed: int, *address: int | str) -> InvArray:
    """Program one array: n amplifiers, and n inverters of the same kind, which drive the negative
    array; an inverter's two conductances are those of whole cells.
    """
    n, droop = len(matrix), spec.device.opamp.droop
    held = hold(matrix, spec, seed, *address)
    at_input = input_load(matrix, spec)
    load = held.load + at_input
    load[~(load > 0)] = 1.0
    inverter_load = 2.0 + at_input / whole_cell(matrix)
    one = np.eye(n)
    amplifiers = [held.positive / load[:, None] + droop * one, held.negative / load[:, None]]
    inverters = [one / inverter_load, one / inverter_load + droop * one]
    offsets = [offset_voltages(n, spec.device.opamp, seed, *address, *what) for what in _ROWS]
    circuit = Circuit.of(
        Loop(
            np.block([amplifiers, inverters]),
            load,
            np.ones(2 * n),
            droop,
            spec.device.opamp.second_pole,
        ),
        np.concatenate(offsets),
        spec,
        CellNoise.of(matrix, spec, seed, *address),
        noise_key(spec, seed, *address),
        None if spec.device.curve.linear else _curved(held, at_input, inverter_load, offsets, spec),
        InvConverters.of(n, spec, seed, *address),
    )
    return InvArray(spec, circuit, held.matrix)


def _curved(
    held: Held, at_input: float, inverter_load: float, offsets: list[np.ndarray], spec: InvSpec
) -> CurvedCircuit | None:
    """Return the circuit with the curve of its cells."""
    one = np.ones(len(held.positive))
    return CurvedCircuit.of(
        held.positive,
        held.negative,
        0.0 * one,
        at_input * one,
        inverter_load * one,
        offsets,
        spec,
    )


_ROWS: tuple[tuple[str, ...], ...] = ((), ("inverters",))
"""Addresses of the offsets of the amplifiers, and of the inverters behind them."""
