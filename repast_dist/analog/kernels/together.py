"""Small row tiles that are worked on together: to call what multiplies and what converts for each
would take longer than the work.
"""

import dataclasses
from collections.abc import Iterator

import numba
import numpy as np

from repast_dist.analog.kernels.base import (
    EXACT_FLOAT32,
    LARGEST_STEPS,
    Conversions,
    Design,
    Held,
)
from repast_dist.analog.kernels.conversion import (
    bins_of_codes,
    convert_and_add,
    count_codes,
    pass_energies,
)
from repast_dist.analog.kernels.memory import reused
from repast_dist.analog.kernels.tiles import read_spread
from repast_dist.analog.kernels.vectors import wide
from repast_dist.ground.numbers import ceil_div

_CHUNK_ELEMENTS = 250_000
"""Currents that are worked on at a time: they stay in the cache of a core."""

_LANES = 16
"""Columns are padded to a multiple, so that loops over few of them are whole vectors."""

_KEEP = {"contract", "nsz"}


@dataclasses.dataclass(frozen=True)
class _Scales:
    """How the columns of all slices are converted.

    Attributes
    ----------
    to_code, limits : ndarray
        (width,) float32, what turns steps into codes, and the largest code, or infinity.
    back : ndarray
        (slices,) float64, what turns codes into weighted levels.
    """

    to_code: np.ndarray
    limits: np.ndarray
    back: np.ndarray


class Together(Held):
    """Tiles of linear cells that hold no whole levels, multiplied by the BLAS as a stack.

    Parameters
    ----------
    shape, design
        See `Held`.
    step : float
        Of what they hold, in levels.
    held : ndarray
        (tiles, rows, width) in steps, float64 where sums might not be exact otherwise.
    width : int
        Columns of all slices, padded.
    """

    def __init__(
        self, shape: tuple[int, ...], design: Design, step: float, held: np.ndarray, width: int
    ) -> None:
        super().__init__(shape, design)
        self._height = min(design.rows, self.shape[1])
        self._count = self.shape[0] * self.per
        self._step, self._held, self._width = step, held, width

    @classmethod
    def of_levels(cls, levels: np.ndarray, design: Design) -> "Together":
        """Return what multipliers hold; see `Held`."""
        step = design.step_of(levels)
        held = _in_steps(levels, step, design)
        return cls(levels.shape, design, step, held, held.shape[2])

    def add_products(self, integers: np.ndarray, result: np.ndarray, how: Conversions) -> int:
        """Convert the currents of all row tiles and add them, weighted, to the result."""
        if self.design.noisy or how.errors.size:
            return self._add_apart(integers, result, how)
        return self._add_plain(integers, result, how)

    def _add_apart(self, integers: np.ndarray, result: np.ndarray, how: Conversions) -> int:
        """Do what `add_products` does, tile by tile."""
        design, clipped = self.design, 0
        total: np.ndarray = np.empty(result.shape[2], self.total_dtype(how.ranges))
        for tiles, rows in self._groups(result.shape[1]):
            clipped += _convert_tiles(
                self._cells(self._currents(tiles, rows, integers)),
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
                how.rows_of_call(len(result) * result.shape[1]),
                how.errors,
                how.counted,
                how.counts,
                how.least,
            )
        return clipped

    def _add_plain(self, integers: np.ndarray, result: np.ndarray, how: Conversions) -> int:
        """Do what `add_products` does, without noise and with exact converters."""
        scales = self._scales(how.ranges)
        total: np.ndarray = np.empty(self._width, self.total_dtype(how.ranges))
        beyond = np.zeros(self._width, np.int32)
        for tiles, rows in self._groups(result.shape[1]):
            _convert_plain(
                self._currents(tiles, rows, integers),
                result,
                self.per,
                tiles.start,
                rows.start,
                total,
                self._pass_weights(),
                scales.to_code,
                scales.limits,
                scales.back,
                beyond,
                how.rows_of_call(len(result) * result.shape[1]),
                how.counted,
                how.counts,
                how.least,
                int(self.design.codes),
            )
        return int(beyond.sum())

    def _scales(self, ranges: np.ndarray) -> _Scales:
        """Return how the columns of all slices are converted within (slices,) ranges."""
        design, (_, _, slices, columns) = self.design, self.shape
        ranges = ranges.astype(np.float64)
        lossless = np.isinf(ranges)
        per_level = np.where(lossless, 1.0, design.codes / ranges).astype(np.float32)
        to_code = np.zeros(self._width, np.float32)
        to_code[: slices * columns] = np.repeat(np.float32(self._step) * per_level, columns)
        limits = np.full(self._width, np.inf, np.float32)
        limits[: slices * columns] = np.repeat(np.where(lossless, np.inf, design.codes), columns)
        back = design.slice_weights * np.where(lossless, 1.0, ranges / design.codes)
        return _Scales(to_code, limits, back)

    def _pass_weights(self) -> np.ndarray:
        """Return what passes weigh, (passes,) float32."""
        design = self.design
        return (2.0 ** (design.bits * np.arange(design.passes))).astype(np.float32)

    def currents(self, number: int, rows: range, integers: np.ndarray) -> np.ndarray:
        """Return the currents of one row tile in levels."""
        currents = self._cells(self._currents(range(number, number + 1), rows, integers))[
            0, :, :, 0
        ]
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
        """Return currents in steps, (tiles, rows, passes, width) float32, valid until the next
        call.
        """
        shape = (len(tiles), len(rows), self.design.passes)
        planes = reused("planes", (*shape, self._height), self._held.dtype)
        _drive(integers, self.per, tiles.start, rows.start, self.design.bits, planes)
        planes = planes.reshape(len(tiles), -1, self._height)
        currents = reused("currents", (*shape, self._width), np.float32)
        out = currents.reshape(len(tiles), -1, self._width)
        held = self._held[tiles.start : tiles.stop]
        if held.dtype == out.dtype:
            np.matmul(planes, held, out=out)
        else:
            out[:] = planes @ held
        return currents

    def _cells(self, currents: np.ndarray) -> np.ndarray:
        """Return currents without the padding, (tiles, rows, passes, 1, slices, M)."""
        _, _, slices, columns = self.shape
        cells = np.ascontiguousarray(currents[..., : slices * columns])
        return cells.reshape(*currents.shape[:3], 1, slices, columns)

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


def _in_steps(levels: np.ndarray, step: float, design: Design) -> np.ndarray:
    """Return (B, K, slices, M) levels as tiles hold them in steps, see `Together`, with zeros below
    the last rows and behind the last columns.
    """
    count, rows, slices, columns = levels.shape
    height, width = min(design.rows, rows), ceil_div(slices * columns, _LANES) * _LANES
    per = ceil_div(rows, height)
    held = np.zeros((count, per * height, width), np.float32)
    cells = held[:, :rows, : slices * columns]
    np.multiply(levels.reshape(cells.shape), np.float32(1.0 / step), out=cells)
    held = held.reshape(count * per, height, width)
    if height * design.top * LARGEST_STEPS >= EXACT_FLOAT32:
        bound = float(np.abs(held).sum(axis=1, dtype=np.float64).max(initial=0.0)) * design.top
        held = held if bound < EXACT_FLOAT32 else held.astype(np.float64)
    return held


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
    rows_of_call: int,
    errors: np.ndarray,
    counted: np.ndarray,
    counts: np.ndarray,
    least: int,
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
            rows_of_call,
            errors[part],
            counted[which, first_row:last],
            counts,
            least,
        )
    return clipped


@numba.njit(cache=True, nogil=True, fastmath=_KEEP)
def _convert_plain(
    currents: np.ndarray,
    result: np.ndarray,
    per: int,
    first_tile: int,
    first_row: int,
    total: np.ndarray,
    pass_weights: np.ndarray,
    to_code: np.ndarray,
    limits: np.ndarray,
    back: np.ndarray,
    beyond: np.ndarray,
    rows_of_call: int,
    counted: np.ndarray,
    counts: np.ndarray,
    least: int,
    top: int,
) -> None:
    """Convert the currents of small tiles without noise and errors, and add them to a result.

    Parameters
    ----------
    currents : ndarray
        (tiles, N, passes, width) float32 in steps; columns slice by slice, padded to whole vectors.
    result : ndarray
        (B, N, M) float64, added to.
    per, first_tile, first_row : int
        Tiles of a multiplier, and the first tile and row of these.
    total : ndarray
        (width,) scratch.
    pass_weights, to_code : ndarray
        (passes,) and (width,) float32, what passes weigh and what turns steps into codes.
    limits : ndarray
        (width,) float32, the largest code, or infinity.
    back : ndarray
        (slices,) float64, what turns codes into weighted levels.
    beyond : ndarray
        (width,) int32, added to: codes that were cut off.
    rows_of_call : int
        Rows of each call.
    counted, counts, least
        See `Conversions`.
    top : int
        The largest code.
    """
    wide()
    slices, columns = back.shape[0], result.shape[2]
    lanes = currents.shape[3] // _LANES
    counting = counted.shape[1] > 0
    codes = np.empty(columns, np.int32)
    places = bins_of_codes(top, counts.shape[2] - 1) if counting else np.zeros(0, np.int64)
    for t in range(currents.shape[0]):
        which = (first_tile + t) // per
        for n in range(currents.shape[1]):
            total[:] = 0.0
            for p in range(currents.shape[2]):
                row, weight = currents[t, n, p], pass_weights[p]
                for lane in range(lanes):
                    for j in range(_LANES):
                        c = lane * _LANES + j
                        code = np.rint(row[c] * to_code[c])
                        kept = min(max(code, -limits[c]), limits[c])
                        beyond[c] += np.int32(kept != code)
                        total[c] += weight * kept
            sums = result[which, first_row + n]
            for s in range(slices):
                for m in range(columns):
                    sums[m] += back[s] * total[s * columns + m]
            if counting and counted[which, first_row + n]:
                call = (which * result.shape[1] + first_row + n) // rows_of_call
                for s in range(slices):
                    first = s * columns
                    for p in range(currents.shape[2]):
                        row = currents[t, n, p, first : first + columns]
                        count_codes(row, to_code[first], least, places, codes, counts[call, s])
