"""The row tiles of multipliers of one shape: what drives them, their currents, and their sums."""

import dataclasses
from collections.abc import Iterator

import numba
import numpy as np

from repast_dist.analog.arrays.curve import answered_digits
from repast_dist.analog.kernels.base import EXACT_FLOAT32, LARGEST_STEPS, Tile, step_of
from repast_dist.analog.kernels.chosen import current
from repast_dist.analog.kernels.conversion import convert_and_add, pass_energies
from repast_dist.analog.kernels.float32 import FloatTile
from repast_dist.analog.kernels.memory import reused
from repast_dist.analog.specs import VmmSpec
from repast_dist.ground.numbers import ceil_div

_CHUNK_ELEMENTS = 250_000
"""Currents that are worked on at a time: they stay in the cache of a core."""


@dataclasses.dataclass(frozen=True)
class Conversions:
    """How the currents of a product are converted; see `convert_and_add`.

    Attributes
    ----------
    ranges : ndarray
        (slices,) float32 ADC full scales in levels.
    keys : ndarray
        (row tiles,) uint64, streams of noise.
    errors : ndarray
        (row tiles, 4, slices, M) float32 answers of the converters, or (row tiles, 0, 0, 0).
    counted : ndarray
        (B, N) bool, whether the codes of a row are counted; (B, 0) counts none.
    counts : ndarray
        (slices, bins + 1) int64, added to.
    """

    ranges: np.ndarray
    keys: np.ndarray
    errors: np.ndarray
    counted: np.ndarray
    counts: np.ndarray


class RowTiles:
    """Multipliers of one shape, cut into tiles of the rows that are driven at a time.

    Small tiles are worked on together: one by one, calling what multiplies and what converts would
    take longer than the work.

    Parameters
    ----------
    planes : ndarray
        (B, K, slices, M) float32 in levels, whole multiples of a step.
    spec : VmmSpec
        How each of the B multipliers is built.

    Attributes
    ----------
    spec : VmmSpec
        As given.
    shape : tuple of int
        B, K, slices, M.
    per : int
        Tiles of one multiplier.
    """

    def __init__(self, planes: np.ndarray, spec: VmmSpec) -> None:
        self.spec, self.shape = spec, planes.shape
        self.per = ceil_div(planes.shape[1], spec.rows)
        self._height = min(spec.rows, planes.shape[1])
        self._count = planes.shape[0] * self.per
        whole = holds_levels(spec)
        answers = answered_digits(spec.device.curve, spec.dac.bits)
        kernels = current()

        def tile(number: int) -> Tile:
            which, part = divmod(number, self.per)
            held = planes[which, part * spec.rows : (part + 1) * spec.rows]
            return kernels.tile(held.reshape(len(held), -1), whole, answers)

        self._tiles = [tile(0)] if self._count else []
        # Whole levels leave room for two passes in one plane, which is faster still.
        self._held: np.ndarray | None = None
        if all(type(one) is FloatTile for one in self._tiles) and not (whole or spec.bends):
            self._held, step = self._together(planes, len(answers) - 1)
            self._steps, self._bases = np.full(self._count, step), np.zeros(self._count)
        else:
            self._tiles += [tile(number) for number in range(1, self._count)]
            self._steps = np.array([one.step for one in self._tiles])
            self._bases = np.array([one.base for one in self._tiles])

    def _together(self, planes: np.ndarray, top: int) -> tuple[np.ndarray, float]:
        """Return what all tiles hold in steps, (tiles, rows, slices * M) with zeros below the last
        rows, float64 where sums might not be exact otherwise; and the step.
        """
        count, rows, slices, columns = self.shape
        step = step_of(planes)
        held = planes * np.float32(1.0 / step)
        missing = self.per * self._height - rows
        if missing:
            zeros = np.zeros((count, missing, slices, columns), np.float32)
            held = np.concatenate([held, zeros], axis=1)
        held = held.reshape(self._count, self._height, slices * columns)
        if self._height * top * LARGEST_STEPS >= EXACT_FLOAT32:
            bound = float(np.abs(held).sum(axis=1, dtype=np.float64).max(initial=0.0)) * top
            held = held if bound < EXACT_FLOAT32 else held.astype(np.float64)
        return held, step

    def multiply(self, integers: np.ndarray, how: Conversions, result: np.ndarray) -> int:
        """Add products of integers to a result; return how many samples were beyond the range.

        Parameters
        ----------
        integers : ndarray
            (B, N, K) int32 without gaps.
        how : Conversions
            How currents are converted.
        result : ndarray
            (B, N, M) float64 without gaps, added to.
        """
        spec = self.spec
        codes = float(2 ** (spec.adc.bits - 1) - 1)
        fits = spec.adc.range != "lossless"
        fits &= codes * 2.0 ** (spec.passes * spec.dac.bits) < EXACT_FLOAT32
        total = np.empty(result.shape[2], np.float32 if fits else np.float64)
        weights, clipped = slice_weights(spec), 0
        for tiles, rows in self._groups(result.shape[1]):
            clipped += _convert_tiles(
                self._currents(tiles, rows, integers),
                result,
                self.per,
                tiles.start,
                rows.start,
                total,
                spec.passes,
                spec.dac.bits,
                self._bases,
                self._steps,
                how.ranges,
                codes,
                weights,
                self._spread(tiles, rows, integers),
                spec.adc.noise_lsb,
                how.keys,
                how.errors,
                how.counted,
                how.counts,
            )
        return clipped

    def peaks(self, number: int, rows: range, integers: np.ndarray) -> np.ndarray:
        """Return absolute currents of one tile in levels, (rows, passes, slices, M) float32, valid
        until the next call; some rows of (B, N, K) int32 without gaps drive it.
        """
        currents = self._currents(range(number, number + 1), rows, integers, packed=False)[0]
        np.abs(currents, out=currents)
        currents *= np.float32(self._steps[number])
        return currents

    def _groups(self, rows: int) -> Iterator[tuple[range, range]]:
        """Yield the tiles and the rows of inputs that are worked on at a time: several tiles with
        all rows, or one with some.
        """
        _, _, slices, columns = self.shape
        width = self.spec.passes * (slices * columns + self._height)
        together = max(1, _CHUNK_ELEMENTS // max(width * rows, 1))
        if self._bases.any():
            # Passes share planes in some tiles, in others not.
            together = 1
        at_once = max(1, min(rows, _CHUNK_ELEMENTS // width))
        # What a tile holds stays in the cache, too.
        for first in range(0, self._count, together):
            for start in range(0, rows, at_once):
                yield (
                    range(first, min(first + together, self._count)),
                    range(start, min(start + at_once, rows)),
                )

    def _driven(self, number: int, rows: range, integers: np.ndarray) -> np.ndarray:
        """Return what drives some rows of one tile, (rows, K of the tile)."""
        which, part = divmod(number, self.per)
        first = part * self.spec.rows
        driven: np.ndarray = integers[which, rows.start : rows.stop, first : first + self.spec.rows]
        return driven

    def _currents(
        self, tiles: range, rows: range, integers: np.ndarray, packed: bool = True
    ) -> np.ndarray:
        """Return currents in steps, (tiles, rows, planes, slices, M) float32, valid until the next
        call; `packed` lets passes share planes.
        """
        spec, (_, _, slices, columns) = self.spec, self.shape
        if self._held is not None:
            shape = (len(tiles), len(rows), spec.passes)
            planes = reused("planes", (*shape, self._height), self._held.dtype)
            _drive(integers, self.per, tiles.start, rows.start, spec.dac.bits, planes)
            planes = planes.reshape(len(tiles), -1, self._height)
            currents = reused("currents", (*shape, slices, columns), np.float32)
            out = currents.reshape(len(tiles), -1, slices * columns)
            held = self._held[tiles.start : tiles.stop]
            if held.dtype == out.dtype:
                np.matmul(planes, held, out=out)
            else:
                out[:] = planes @ held
            return currents
        for place, number in enumerate(tiles):
            tile = self._tiles[number]
            planes = tile.plane_memory(len(rows), spec.passes, packed)
            if not place:
                shape = (len(tiles), *planes.shape[:2])
                currents = reused("currents", (*shape, slices, columns), np.float32)
            tile.planes(self._driven(number, rows, integers), spec.dac.bits, spec.passes, planes)
            count = planes.shape[0] * planes.shape[1]
            tile.product(
                planes.reshape(count, tile.rows), currents[place].reshape(count, tile.columns)
            )
        return currents

    def _spread(self, tiles: range, rows: range, integers: np.ndarray) -> np.ndarray:
        """Return the standard deviation of read noise, (tiles, rows, passes) float32;
        (tiles, 0, 0) where neither cells nor converters are noisy.
        """
        spec, shape = self.spec, (len(tiles), len(rows), self.spec.passes)
        if not spec.device.cell.read_spread:
            return np.zeros(shape if spec.adc.noise_lsb else (len(tiles), 0, 0), np.float32)
        energies = np.empty(shape, np.float32)
        for number, energy in zip(tiles, energies, strict=True):
            driven = self._driven(number, rows, integers)
            if spec.bends:
                tile = self._tiles[number]
                planes = tile.plane_memory(len(rows), spec.passes, packed=False)
                tile.planes(driven, spec.dac.bits, spec.passes, planes)
                np.sum(np.square(planes), axis=2, out=energy)
            else:
                pass_energies(driven, spec.dac.bits, energy)
        # Both cells of a pair fluctuate, whatever they hold.
        sigma = spec.device.cell.read_spread * (spec.device.cell.levels - 1)
        return np.asarray(np.float32(sigma) * np.sqrt(np.float32(2.0) * energies))


def holds_levels(spec: VmmSpec) -> bool:
    """Whether planes are whole numbers."""
    device = spec.device
    return device.cell.exact and device.wire.ideal and device.variation.none


def slice_weights(spec: VmmSpec) -> np.ndarray:
    """Return what one level of every slice is worth, (slices,) float64."""
    return 2.0 ** (spec.device.cell.bits * np.arange(spec.slices))


@numba.njit(cache=True, nogil=True)
def _drive(
    integers: np.ndarray, per: int, first_tile: int, first_row: int, bits: int, planes: np.ndarray
) -> None:
    """Write the signed digits of every pass: (B, N, K) int32 to (tiles, rows, passes, K of a tile)
    of a float dtype, with zeros below the last rows of a multiplier.
    """
    mask = np.int32((1 << bits) - 1)
    for t in range(planes.shape[0]):
        which, part = divmod(first_tile + t, per)
        start = part * planes.shape[3]
        width = min(planes.shape[3], integers.shape[2] - start)
        for n in range(planes.shape[1]):
            driven = integers[which, first_row + n]
            for p in range(planes.shape[2]):
                low = np.int32(p * bits)
                plane = planes[t, n, p]
                for k in range(width):
                    value = driven[start + k]
                    digit = np.float32((np.int32(abs(value)) >> low) & mask)
                    plane[k] = -digit if value < 0 else digit
                plane[width:] = 0.0


@numba.njit(cache=True, nogil=True)
def _convert_tiles(
    currents: np.ndarray,
    result: np.ndarray,
    per: int,
    first_tile: int,
    first_row: int,
    total: np.ndarray,
    passes: int,
    bits: int,
    bases: np.ndarray,
    steps: np.ndarray,
    ranges: np.ndarray,
    codes: float,
    weights: np.ndarray,
    spread: np.ndarray,
    noise_codes: float,
    keys: np.ndarray,
    errors: np.ndarray,
    counted: np.ndarray,
    counts: np.ndarray,
) -> int:
    """Convert the currents of some tiles and add them to a result, see `convert_and_add`; return
    how many samples were beyond the range.

    Rows of the multipliers of a stack are numbered one multiplier after the other in the stream of
    noise.
    """
    clipped = 0
    last = first_row + currents.shape[1]
    for t in range(currents.shape[0]):
        which, part = divmod(first_tile + t, per)
        clipped += convert_and_add(
            currents[t],
            result[which, first_row:last],
            total,
            passes,
            bits,
            bases[first_tile + t],
            steps[first_tile + t],
            ranges,
            codes,
            weights,
            spread[t],
            noise_codes,
            keys[part],
            which * result.shape[1] + first_row,
            errors[part],
            counted[which, first_row:last],
            counts,
        )
    return clipped
