"""What the cells of inverting arrays hold of a matrix, and how far that is expected to be off."""

import dataclasses

import numpy as np

from repast_dist.analog.arrays.programming import (
    pair_conductances,
    quantize_symmetric,
    to_siemens,
)
from repast_dist.analog.arrays.variation import scaled, shared_factors
from repast_dist.analog.arrays.wires import transfer_matrix
from repast_dist.analog.cells.use import CellUse
from repast_dist.analog.specs import InvSpec, WireSpec
from repast_dist.ground.rng import generator

_POWER_ITERATIONS = 8
_LARGEST_ERROR = 4.5
_LARGEST_OF_MEDIAN = 8.0
"""Of an absolute error that is normal: 5.4 standard deviations, beyond any of a million cells."""
_SHIFT_ROUNDS, _CLOSE = 16, 1.05


@dataclasses.dataclass(frozen=True)
class Held:
    """A matrix on pairs of cells, in the matrix's units.

    Attributes
    ----------
    positive, negative : ndarray
        (n, m) float64, all conductance of either side of the pairs, that of cells at g_off
        included; slices and copies added up.
    """

    positive: np.ndarray
    negative: np.ndarray

    @property
    def matrix(self) -> np.ndarray:
        """What outputs are weighed with, (n, m)."""
        return self.positive - self.negative

    @property
    def load(self) -> np.ndarray:
        """Conductance of all cells of a row, (n,)."""
        load: np.ndarray = (self.positive + self.negative).sum(axis=1)
        return load

    def inverted(self, share: float) -> np.ndarray:
        """Return what outputs are weighed with where inverters give so much of them, (n, m)."""
        return self.positive - share * self.negative


def hold(matrix: np.ndarray, spec: InvSpec, seed: int, *address: int | str) -> Held:
    """Program a matrix, (n, m), with all slices and copies.

    The slices after the first hold what those before them are measured to have left out.
    """
    # Sign comes from the pair, so the magnitude has all the cell's levels.
    cell = spec.device.inv_cell
    bits = cell.bits + 1
    positive, negative = np.zeros(matrix.shape), np.zeros(matrix.shape)
    if not matrix.any():
        # Nothing sets a full scale: the array is left out of the circuit.
        return Held(positive, negative)
    for copy in range(spec.copies):
        left = matrix
        for number in range(spec.slices):
            if number and not left.any():
                break
            if number and cell.may_fail:
                left = _within_range(left)
            digits, scale = quantize_symmetric(left, bits)
            place = (*address, copy, number) if copy or number else address
            levels = _held_levels(digits.astype(np.int64), spec, seed, *place, use=spec.cell_use)
            positive += levels.positive * (scale / spec.copies)
            negative += levels.negative * (scale / spec.copies)
            if number + 1 < spec.slices:
                left = left - _read_back(levels, digits, spec, seed, *place) * scale
    return Held(positive, negative)


def _held_levels(
    digits: np.ndarray,
    spec: InvSpec,
    seed: int,
    *address: int | str,
    use: CellUse,
    later: bool = True,
) -> Held:
    """Return the conductances that currents see, in levels.

    With resistive wires, amplifiers drive the columns of a positive and a negative array and the
    rows end in their inputs, at virtual ground.
    """
    cell, wire = spec.device.inv_cell, spec.device.wire
    pair = held_pairs(digits, spec, seed, *address, use=use, later=later)
    top = cell.levels - 1
    if wire.ideal:
        off = cell.g_off_siemens / cell.span_siemens
        # As in `to_siemens`, no error takes a cell below zero.
        positive, negative = (np.maximum(held + off, 0.0) * top for held in pair)
    else:
        crossed = WireSpec(row_ohm=wire.column_ohm, column_ohm=wire.row_ohm)
        positive, negative = (
            transfer_matrix(to_siemens(held, cell).T, crossed).T * (top / cell.span_siemens)
            for held in pair
        )
    return Held(positive, negative)


def held_pairs(
    digits: np.ndarray,
    spec: InvSpec,
    seed: int,
    *address: int | str,
    use: CellUse,
    later: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Return both cells' conductances relative to the range, what cells share included.

    Parameters are those of `pair_conductances`.
    """
    cell, variation, size = spec.device.inv_cell, spec.device.variation, digits.shape
    pair = pair_conductances(digits, cell, seed, "inv", *address, use=use, later=later)
    if variation.none:
        return pair
    positive, negative = (
        scaled(held, shared_factors(size, size, variation, use, seed, "inv", *address, side), cell)
        for side, held in zip(("positive", "negative"), pair, strict=True)
    )
    return positive, negative


def _read_back(
    levels: Held, digits: np.ndarray, spec: InvSpec, seed: int, *address: int | str
) -> np.ndarray:
    """Return what cells are measured to hold when the next slice is programmed: before they
    drift, and with the error of a mean of readings. Noise makes up for the steps of the converter.
    """
    cell = spec.device.inv_cell
    matrix = levels.matrix
    if cell.ages or cell.warms or cell.slow_spread:
        whole, use = digits.astype(np.int64), spec.cell_use
        matrix = _held_levels(whole, spec, seed, *address, use=use, later=False).matrix
    random = generator(seed, "read back", *address)
    error = spec.read_back_error * (cell.levels - 1)
    return matrix + error * random.standard_normal(matrix.shape)


def _within_range(errors: np.ndarray) -> np.ndarray:
    """Clip errors of stuck cells, so that they do not set the full scale of all others."""
    limit = _LARGEST_OF_MEDIAN * float(np.median(np.abs(errors)))
    return np.clip(errors, -limit, limit) if limit > 0 else errors


def input_load(matrix: np.ndarray, spec: InvSpec) -> float:
    """Return the conductance of an amplifier's input in the units of the matrix it serves."""
    return whole_cell(matrix) * spec.device.opamp.input_siemens / spec.device.inv_cell.span_siemens


def whole_cell(matrix: np.ndarray) -> float:
    """Return the conductance of a whole cell, from g_off to g_on, in the matrix's units."""
    return float(np.max(np.abs(matrix), initial=0.0)) or 1.0


def regularising_shift(
    matrix: np.ndarray, amount: float, spec: InvSpec, seed: int, *address: int | str
) -> float:
    """Return what to add to a matrix's diagonal: so many times the norm of the error that the
    cells then have. The shift itself raises their full scale, and with it every error.
    """
    shift = 0.0
    for _ in range(_SHIFT_ROUNDS if amount else 0):
        shifted = matrix + shift * np.eye(len(matrix))
        before, shift = shift, amount * error_norm(shifted, spec, seed, *address)
        if shift <= _CLOSE * before:
            break
    return shift


def error_norm(matrix: np.ndarray, spec: InvSpec, seed: int, *address: int | str) -> float:
    """Estimate the spectral norm of the symmetric part of the cells' error.

    Independent errors of RMS e have the norm ``2 sqrt(n) e``, and their symmetric part that over
    ``sqrt(2)``; so much for programming, reading and stuck cells. Deviations that cells share are
    found from the conductance of either side. Rounding is known before
    anything is programmed, and entries below half a level vanish together, so its norm is found
    by a few power iterations. Left out is the mean error of cells at either end of their range,
    where errors are cut off: it has the sign of the entry, and acts along the matrix's own
    dominant directions, where it does no harm.
    """
    cell = spec.device.inv_cell
    largest = float(np.max(np.abs(matrix)))
    digits, scale = quantize_symmetric(matrix, cell.bits + 1)
    rounding = _norm(digits * scale - matrix, generator(seed, "error", *address))
    independent = largest * np.sqrt(2.0 * len(matrix) / spec.copies)
    programming = np.hypot(independent * cell.pair_error, _shared_norm(matrix, spec))
    # Slices after the first make these smaller alike, but not what reading and stuck cells do.
    smaller = cell_error(spec) / cell_error(dataclasses.replace(spec, slices=1))
    lasting = independent * cell.lasting_error(matrix, spec.cell_use)
    return float(np.hypot(np.hypot(rounding, programming) * smaller, lasting))


def _shared_norm(matrix: np.ndarray, spec: InvSpec) -> float:
    """Estimate the spectral norm of the symmetric part of what the cells' shared deviations do,
    the matrix's own largest direction aside.

    They multiply all conductance of the positive and of the negative cells, each for itself: those
    of an array its norm, those of rows or columns about 0.7 of that (measured: they turn the
    largest direction of a side into others, and add to them). Those of a chip change no direction.
    """
    variation = spec.device.variation
    share = variation.array_sigma**2
    share += (variation.row_sigma**2 + variation.column_sigma**2) / 2.0
    if not share:
        return 0.0
    cell = spec.device.inv_cell
    off = whole_cell(matrix) * cell.g_off_siemens / cell.span_siemens
    dominant = np.ones(len(matrix))
    for _ in range(_POWER_ITERATIONS):
        dominant = matrix @ (dominant / (np.linalg.norm(dominant) or 1.0))
    dominant /= np.linalg.norm(dominant) or 1.0
    square = 0.0
    for side in (np.maximum(matrix, 0.0) + off, np.maximum(-matrix, 0.0) + off):
        through = np.outer(dominant, side @ dominant)
        own = dominant @ side @ dominant
        aside = side - through - through.T + own * np.outer(dominant, dominant)
        square += _norm(aside, generator(0, "shared")) ** 2
    return float(np.sqrt(share * square / spec.copies))


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
    of a full scale that is the largest error before it, about `_LARGEST_ERROR` times the RMS, and
    leaves what those before it are misread to hold. Copies share their rounding where one slice is
    all there is.
    """
    rounding = 1.0 / (spec.device.inv_cell.levels - 1) / np.sqrt(12.0)
    noise = spec.device.inv_cell.pair_error
    if spec.slices == 1:
        return float(np.hypot(rounding, noise / np.sqrt(spec.copies)))
    one = float(np.hypot(rounding, noise))
    scales = (_LARGEST_ERROR * one) ** np.arange(spec.slices)
    left = np.hypot(one * scales[-1], spec.read_back_error * np.linalg.norm(scales[:-1]))
    return float(left / np.sqrt(spec.copies))
