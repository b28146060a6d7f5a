"""Small row tiles that are worked on together: to call what multiplies and what converts for each
would take longer than the work.
"""

from collections.abc import Iterator

import numba
import numpy as np

from repast_dist.analog.kernels.base import (
    EXACT_FLOAT32,
    LARGEST_STEPS,
    Conversions,
    Design,
    Held,
    step_of,
)
from repast_dist.analog.kernels.conversion import convert_and_add, pass_energies
from repast_dist.analog.kernels.memory import reused
from repast_dist.analog.kernels.tiles import read_spread
from repast_dist.analog.kernels.vectors import wide

_CHUNK_ELEMENTS = 250_000
"""Currents that are worked on at a time: they stay in the cache of a core."""


class Together(Held):
    """Tiles of linear cells that hold no whole levels, multiplied by the BLAS as a stack.

    Parameters
    ----------
    levels, design
        See `Held`.
    """

    def __init__(self, levels: np.ndarray, design: Design) -> None:
        super().__init__(levels, design)
        self._height = min(design.rows, self.shape[1])
        self._count = self.shape[0] * self.per
        self._step = step_of(levels)
        self._held = self._in_steps(levels)

    def _in_steps(self, levels: np.ndarray) -> np.ndarray:
        """Return what all tiles hold in steps, (tiles, rows, slices * M) with zeros below the last
        rows, float64 where sums might not be exact otherwise.
        """
        count, rows, slices, columns = self.shape
        held = levels * np.float32(1.0 / self._step)
        missing = self.per * self._height - rows
        if missing:
            zeros = np.zeros((count, missing, slices, columns), np.float32)
            held = np.concatenate([held, zeros], axis=1)
        held = held.reshape(self._count, self._height, slices * columns)
        top = self.design.top
        if self._height * top * LARGEST_STEPS >= EXACT_FLOAT32:
            bound = float(np.abs(held).sum(axis=1, dtype=np.float64).max(initial=0.0)) * top
            held = held if bound < EXACT_FLOAT32 else held.astype(np.float64)
        return held

    def add_products(self, integers: np.ndarray, result: np.ndarray, how: Conversions) -> int:
        """Convert the currents of all row tiles and add them, weighted, to the result."""
        design, clipped = self.design, 0
        total: np.ndarray = np.empty(result.shape[2], self.total_dtype(how.ranges))
        for tiles, rows in self._groups(result.shape[1]):
            clipped += _convert_tiles(
                self._currents(tiles, rows, integers),
                result,
                self.per,
                tiles.start,
                rows.start,
                total,
                design.passes,
                design.bits,
                self._step,
                how.ranges,
                design.codes,
                design.slice_weights,
                self._spread(tiles, rows, integers),
                design.noise_codes,
                how.keys,
                how.errors,
                how.counted,
                how.counts,
            )
        return clipped

    def currents(self, number: int, rows: range, integers: np.ndarray) -> np.ndarray:
        """Return the currents of one row tile in levels."""
        currents = self._currents(range(number, number + 1), rows, integers)[0, :, :, 0]
        currents *= np.float32(self._step)
        return currents

    def _groups(self, rows: int) -> Iterator[tuple[range, range]]:
        """Yield the tiles and the rows of inputs that are worked on at a time: several tiles with
        all rows, or one with some.
        """
        _, _, slices, columns = self.shape
        width = self.design.passes * (slices * columns + self._height)
        together = max(1, _CHUNK_ELEMENTS // max(width * rows, 1))
        at_once = max(1, min(rows, _CHUNK_ELEMENTS // width))
        # What a tile holds stays in the cache, too.
        for first in range(0, self._count, together):
            for start in range(0, rows, at_once):
                yield (
                    range(first, min(first + together, self._count)),
                    range(start, min(start + at_once, rows)),
                )

    def _currents(self, tiles: range, rows: range, integers: np.ndarray) -> np.ndarray:
        """Return currents in steps, (tiles, rows, passes, 1, slices, M) float32, valid until the
        next call.
        """
        _, _, slices, columns = self.shape
        shape = (len(tiles), len(rows), self.design.passes)
        planes = reused("planes", (*shape, self._height), self._held.dtype)
        _drive(integers, self.per, tiles.start, rows.start, self.design.bits, planes)
        planes = planes.reshape(len(tiles), -1, self._height)
        currents = reused("currents", (*shape, 1, slices, columns), np.float32)
        out = currents.reshape(len(tiles), -1, slices * columns)
        held = self._held[tiles.start : tiles.stop]
        if held.dtype == out.dtype:
            np.matmul(planes, held, out=out)
        else:
            out[:] = planes @ held
        return currents

    def _spread(self, tiles: range, rows: range, integers: np.ndarray) -> np.ndarray:
        """Return the standard deviation of read noise, (tiles, rows, passes) float32;
        (tiles, 0, 0) where neither cells nor converters are noisy.
        """
        design, shape = self.design, (len(tiles), len(rows), self.design.passes)
        if not design.read_sigma:
            return np.zeros(shape if design.noise_codes else (len(tiles), 0, 0), np.float32)
        energies = np.empty(shape, np.float32)
        for number, energy in zip(tiles, energies, strict=True):
            which, where = self.place(number)
            pass_energies(integers[which, rows.start : rows.stop, where], design.bits, energy)
        return read_spread(energies, design)


@numba.njit(cache=True, nogil=True)
def _drive(
    integers: np.ndarray, per: int, first_tile: int, first_row: int, bits: int, planes: np.ndarray
) -> None:
    """Write the signed digits of every pass: (B, N, K) int32 to (tiles, rows, passes, K of a tile)
    of a float dtype, with zeros below the last rows of a multiplier.
    """
    wide()
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
    step: float,
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
    """
    clipped = 0
    last = first_row + currents.shape[1]
    for t in range(currents.shape[0]):
        which, part = divmod(first_tile + t, per)
        clipped += convert_and_add(
            currents[t],
            result[which, first_row:last],
            0,
            total,
            passes,
            bits,
            0.0,
            step,
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
