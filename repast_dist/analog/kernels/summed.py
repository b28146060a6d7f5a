"""Row tiles of noisy cells that digits of one bit drive: sums of the rows that are driven.

Most bits of inputs are zero: of those of activations a seventh is one, of those of errors less.
Each pass lists the rows that it drives, and only these are added, a few columns at a time, in
vector registers, where the sums also become codes. Nothing but lists and sums of codes goes through
memory, and passes that drive no row take no time.
"""

import math

import numba
import numpy as np

from repast_dist.analog.kernels.base import (
    EXACT_FLOAT32,
    LARGEST_STEPS,
    Conversions,
    Design,
    Drawn,
)
from repast_dist.analog.kernels.conversion import add_weighted, bins_of_codes
from repast_dist.analog.kernels.draws import BLOCK, Law, Stream, block_room, draw_block, largest_in
from repast_dist.analog.kernels.memory import aligned, reused
from repast_dist.analog.kernels.row_sums import (
    LANES,
    MOST_VECTORS,
    PLACES,
    add_codes,
    list_rows,
    write_sums,
)
from repast_dist.analog.kernels.together import Together
from repast_dist.analog.kernels.vectors import wide
from repast_dist.ground.numbers import ceil_div

_PART_BYTES, _LEAST_VECTORS = 5 * 2**13, 3
"""Of the columns that are summed at a time, so that the first cache has about all rows of them, and
a row of them, so that no sum waits for itself.
"""

_SAMPLES = 32
"""Whose rows are listed at a time."""


def sums_are_exact(shape: tuple[int, ...], design: Design) -> bool:
    """Return whether `Summed` computes what multipliers of a shape (B, K, slices, M) do."""
    rows = min(design.rows, shape[1])
    digits = design.top == 1 and not design.bends
    return digits and rows * LARGEST_STEPS < EXACT_FLOAT32 and math.prod(shape) > 0


class Summed(Together):
    """Tiles whose rows are summed.

    Parameters
    ----------
    shape, design, step
        See `Together`.
    held : ndarray, optional
        What they hold, (tiles, parts of a row, rows, lanes) float32 in steps; None: it is still to
        be written.
    """

    def __init__(
        self, shape: tuple[int, ...], design: Design, step: float, held: np.ndarray | None = None
    ) -> None:
        count, rows, slices, columns = shape
        height = min(design.rows, rows)
        vectors = ceil_div(slices * columns, LANES)
        fit = _PART_BYTES // (4 * LANES * height)
        parts = ceil_div(vectors, min(max(fit, _LEAST_VECTORS), MOST_VECTORS))
        lanes = ceil_div(vectors, parts) * LANES
        sizes = count * ceil_div(rows, height), parts, height, lanes
        if held is None:
            held = aligned(4 * math.prod(sizes)).view(np.float32).reshape(sizes)
        super().__init__(shape, design, step, held, parts * lanes)

    @classmethod
    def of_levels(cls, levels: np.ndarray, design: Design) -> "Summed":
        """Return what multipliers hold; see `Held`."""
        tiles = cls(levels.shape, design, design.step_of(levels))
        cells = np.ascontiguousarray(levels).reshape(*levels.shape[:2], -1)
        _write_levels(cells, np.float32(1.0 / tiles._step), tiles.per, tiles._held)
        return tiles

    @classmethod
    def of_drawn(cls, drawn: Drawn, design: Design) -> "Summed":
        """Return what multipliers hold, written where it is drawn."""

        def write(step: float) -> tuple[np.ndarray, list[float]]:
            tiles = cls(drawn.shape, design, step)
            return tiles._held, tiles._draw(drawn)

        held, step = drawn.written_once(cls.__name__, design.rows, write)
        return cls(drawn.shape, design, step, held)

    def _draw(self, drawn: Drawn) -> list[float]:
        """Write what is drawn, and return the largest magnitude of every stream before rounding, in
        levels.
        """
        parts, how = len(drawn.streams), (drawn.slices, drawn.bits, drawn.law.numbers)
        held = self._held.reshape(parts, -1, *self._held.shape[1:])
        integers = drawn.integers.reshape(parts, -1, *drawn.integers.shape[1:])
        return [
            _write_drawn(part, *how, stream, 1.0 / self._step, self.per, tiles)
            for part, stream, tiles in zip(integers, drawn.streams, held, strict=True)
        ]

    def columns(self, start: int, stop: int) -> "Summed":
        """Return the same for some columns of weights."""
        part = Summed((*self.shape[:-1], stop - start), self.design, self._step)
        _copy_columns(self._held, *self.shape[2:], start, stop, part._held)
        return part

    def _add_plain(self, integers: np.ndarray, result: np.ndarray, how: Conversions) -> int:
        """Do what `add_products` does, without noise and with exact converters."""
        if self.total_dtype(how.ranges) is np.float64:
            return self._add_apart(integers, result, how)
        scales = self._scales(how.ranges)
        bounds = np.minimum(scales.limits, np.float32(how.least))
        return int(
            _add_tiles(
                self._held,
                integers,
                result,
                self.per,
                scales.to_code,
                scales.limits,
                bounds,
                scales.back,
                self._pass_weights(),
                how.rows_of_call(len(result) * result.shape[1]),
                how.counted,
                how.counts,
                how.least,
                int(self.design.codes),
            )
        )

    def _currents(self, tiles: range, rows: range, integers: np.ndarray) -> np.ndarray:
        """Return currents in steps, (tiles, rows, passes, width) float32, valid until the next
        call.
        """
        shape = len(tiles), len(rows), self.design.passes, self._width
        currents = reused("currents", shape, np.float32)
        held = self._held[tiles.start : tiles.stop]
        _write_currents(held, integers, self.per, tiles.start, rows.start, currents)
        return currents


@numba.njit(cache=True, nogil=True)
def _write_levels(cells: np.ndarray, per_level: np.float32, per: int, held: np.ndarray) -> None:
    """Write what all row tiles hold, see `Summed`, from (B, K, columns) float32 in levels."""
    wide()
    _, parts, height, lanes = held.shape
    count, rows, columns = cells.shape
    for which in range(count):
        for k in range(rows):
            part, inside = divmod(k, height)
            tile, row = held[which * per + part], cells[which, k]
            for p in range(parts):
                out, first = tile[p, inside], p * lanes
                width = max(min(lanes, columns - first), 0)
                for c in range(width):
                    out[c] = row[first + c] * per_level
                out[width:] = np.float32(0.0)


@numba.njit(cache=True, nogil=True)
def _write_drawn(
    integers: np.ndarray,
    slices: int,
    bits: int,
    law: Law,
    stream: Stream,
    per_level: float,
    per: int,
    held: np.ndarray,
) -> float:
    """Write what all row tiles of some multipliers hold that share a stream of draws.

    Parameters
    ----------
    integers : ndarray
        (B, K, M) float64 whole numbers.
    slices, bits, law, stream
        See `draw_block`.
    per_level : float
        Steps of a level.
    per : int
        Row tiles of a multiplier.
    held : ndarray
        See `Summed`, written.

    Returns
    -------
    float
        The largest magnitude before rounding, in levels.
    """
    wide()
    _, parts, height, lanes = held.shape
    rows, columns = integers.shape[1:]
    width, lines = slices * columns, integers.reshape(-1, columns)
    room, largest = block_room(), 0.0
    for start in range(0, lines.shape[0] * width, BLOCK):
        levels = draw_block(lines, slices, bits, law, stream, start, room)
        largest = max(largest, largest_in(levels))
        at = 0
        while at < levels.shape[0]:
            line, column = divmod(start + at, width)
            which, k = divmod(line, rows)
            part, inside = divmod(k, height)
            place, lane = divmod(column, lanes)
            some = min(lanes - lane, width - column, levels.shape[0] - at)
            out = held[which * per + part, place, inside, lane : lane + some]
            drawn = levels[at : at + some]
            for i in range(some):
                out[i] = np.rint(drawn[i] * per_level)
            at += some
    behind = width - (parts - 1) * lanes
    held[:, parts - 1, :, behind:] = np.float32(0.0)
    return largest


@numba.njit(cache=True, nogil=True)
def _copy_columns(
    held: np.ndarray, slices: int, columns: int, start: int, stop: int, part: np.ndarray
) -> None:
    """Write what row tiles hold in some columns of weights, of so many; both as in `Summed`."""
    width, lanes, others = stop - start, part.shape[3], held.shape[3]
    for place in range(part.shape[1] * lanes):
        number, m = divmod(place, width)
        here, lane = divmod(place, lanes)
        if number >= slices:
            part[:, here, :, lane] = np.float32(0.0)
            continue
        there, other = divmod(number * columns + start + m, others)
        part[:, here, :, lane] = held[:, there, :, other]


@numba.njit(cache=True, nogil=True)
def _list_driven(
    driven: np.ndarray, magnitudes: np.ndarray, order: np.ndarray, start: int, ends: np.ndarray
) -> int:
    """List the rows that every pass of an input drives.

    Parameters
    ----------
    driven : ndarray
        (rows,) int32.
    magnitudes : ndarray
        (2, rows in whole vectors) int32, scratch; zeros behind the rows.
    order : ndarray
        uint16, written.
    start : int
        Place of the first one in the order.
    ends : ndarray
        (passes, 2) int64, written: up to where rows are added and subtracted.

    Returns
    -------
    int
        How many are listed.
    """
    wide()
    added, taken = magnitudes[0], magnitudes[1]
    ones, others = np.int32(0), np.int32(0)
    for k in range(driven.shape[0]):
        up, down = max(driven[k], np.int32(0)), max(np.int32(-driven[k]), np.int32(0))
        added[k] = up
        taken[k] = down
        ones = np.int32(ones | up)
        others = np.int32(others | down)
    groups = (driven.shape[0] + LANES - 1) // LANES
    places, out, at = PLACES.ctypes.data, order.ctypes.data + 2 * start, 0
    for number in range(ends.shape[0]):
        if (ones >> number) & 1:
            at += list_rows(added.ctypes.data, groups, number, places, out + 2 * at)
        ends[number, 0] = at
        if (others >> number) & 1:
            at += list_rows(taken.ctypes.data, groups, number, places, out + 2 * at)
        ends[number, 1] = at
    return at


@numba.njit(cache=True, nogil=True)
def _add_tiles(
    held: np.ndarray,
    integers: np.ndarray,
    result: np.ndarray,
    per: int,
    to_code: np.ndarray,
    limits: np.ndarray,
    bounds: np.ndarray,
    back: np.ndarray,
    weights: np.ndarray,
    rows_of_call: int,
    counted: np.ndarray,
    counts: np.ndarray,
    least: int,
    top: int,
) -> int:
    """Convert the currents of all row tiles, without noise and errors, and add them to a result;
    return how many codes were beyond the range.

    Parameters
    ----------
    held : ndarray
        See `Summed`.
    integers, result : ndarray
        (B, N, K) int32 inputs, and (B, N, M) float64, added to.
    per : int
        Row tiles of a multiplier.
    to_code, limits : ndarray
        (width,) float32, what turns steps into codes, and the largest code.
    bounds : ndarray
        (width,) float32: larger codes are counted one by one.
    back : ndarray
        (slices,) float64, what turns codes into weighted levels.
    weights : ndarray
        (passes,) float32, what passes weigh.
    rows_of_call : int
        Rows of each call.
    counted, counts, least
        See `Conversions`.
    top : int
        The largest code.
    """
    tiles, parts, height, lanes = held.shape
    passes, slices, columns = weights.shape[0], back.shape[0], result.shape[2]
    counting = counted.shape[1] > 0
    bins = bins_of_codes(top, counts.shape[2] - 1) if counting else np.zeros(0, np.int64)
    magnitudes = np.zeros((2, height + LANES), np.int32)
    order = np.empty(_SAMPLES * passes * height + 2 * LANES, np.uint16)
    ends = np.empty((_SAMPLES, passes, 2), np.int64)
    first_listed = np.empty(_SAMPLES + 1, np.int64)
    total = np.empty((_SAMPLES, parts * lanes), np.float32)
    codes, vectors, beyond = np.empty(lanes, np.float32), lanes // LANES, 0
    for tile in range(tiles):
        which, part = divmod(tile, per)
        start = part * height
        stop = min(start + height, integers.shape[2])
        magnitudes[:] = 0
        for first in range(0, integers.shape[1], _SAMPLES):
            count = min(_SAMPLES, integers.shape[1] - first)
            at = 0
            for n in range(count):
                first_listed[n] = at
                driven = integers[which, first + n, start:stop]
                at += _list_driven(driven, magnitudes, order, at, ends[n])
            first_listed[count] = at
            total[:count] = np.float32(0.0)
            for p in range(parts):
                rows, left = held[tile, p].ctypes.data, p * lanes
                scale = to_code.ctypes.data + 4 * left
                for n in range(count):
                    if first_listed[n] == first_listed[n + 1]:
                        continue
                    some = counting and counted[which, first + n]
                    most = (bounds if some else limits).ctypes.data + 4 * left
                    out, begin = 4 * (n * parts * lanes + left), 0
                    for number in range(passes):
                        positive, every = ends[n, number, 0], ends[n, number, 1]
                        if every == begin:
                            continue
                        if add_codes(
                            rows,
                            vectors,
                            order.ctypes.data + 2 * (first_listed[n] + begin),
                            positive - begin,
                            every - begin,
                            scale,
                            most,
                            weights[number],
                            total.ctypes.data + out,
                            codes.ctypes.data,
                        ):
                            across = slice(left, left + lanes)
                            sums, ranges = total[n, across], limits[across]
                            beyond += _add_kept(codes, ranges, weights[number], sums)
                            if some:
                                row = which * integers.shape[1] + first + n
                                call = counts[row // rows_of_call]
                                _count_large(codes, least, left, columns, bins, call)
                        begin = every
            for n in range(count):
                if counting and counted[which, first + n]:
                    row = which * integers.shape[1] + first + n
                    # Large codes have been taken off.
                    counts[row // rows_of_call, :, 0] += passes * columns
                if first_listed[n] < first_listed[n + 1]:
                    for s in range(slices):
                        sums = total[n, s * columns : (s + 1) * columns]
                        add_weighted(back[s], sums, result[which, first + n])
    return beyond


@numba.njit(cache=True, nogil=True)
def _add_kept(codes: np.ndarray, limits: np.ndarray, weight: np.float32, total: np.ndarray) -> int:
    """Add codes within the range to a total, all (lanes,); return how many were beyond."""
    wide()
    beyond = np.int32(0)
    for c in range(codes.shape[0]):
        kept = min(max(codes[c], -limits[c]), limits[c])
        beyond = np.int32(beyond + np.int32(kept != codes[c]))
        total[c] += weight * kept
    return int(beyond)


@numba.njit(cache=True, nogil=True)
def _count_large(
    codes: np.ndarray, least: int, left: int, columns: int, bins: np.ndarray, counts: np.ndarray
) -> None:
    """Count the codes above the least, from some column of all on, in (slices, bins + 1), and take
    them off those of the first bin.
    """
    most = np.float32(bins.shape[0] - 1)
    for c in range(codes.shape[0]):
        size = abs(codes[c])
        if size > least:
            found = counts[(left + c) // columns]
            found[0] -= 1
            found[bins[np.int64(min(size, most))]] += 1


@numba.njit(cache=True, nogil=True)
def _write_currents(
    held: np.ndarray,
    integers: np.ndarray,
    per: int,
    first_tile: int,
    first_row: int,
    currents: np.ndarray,
) -> None:
    """Write the currents of some tiles, (tiles, rows, passes, width) float32 in steps."""
    tiles, parts, height, lanes = held.shape
    rows, passes = currents.shape[1:3]
    order = np.empty(passes * height + 2 * LANES, np.uint16)
    ends = np.empty((passes, 2), np.int64)
    magnitudes = np.zeros((2, height + LANES), np.int32)
    vectors = lanes // LANES
    for t in range(tiles):
        which, part = divmod(first_tile + t, per)
        start = part * height
        stop = min(start + height, integers.shape[2])
        magnitudes[:] = 0
        for n in range(rows):
            driven = integers[which, first_row + n, start:stop]
            _list_driven(driven, magnitudes, order, 0, ends)
            begin = 0
            for number in range(passes):
                positive, every = ends[number, 0], ends[number, 1]
                for p in range(parts):
                    write_sums(
                        held[t, p].ctypes.data,
                        vectors,
                        order.ctypes.data + 2 * begin,
                        positive - begin,
                        every - begin,
                        currents[t, n, number].ctypes.data + 4 * p * lanes,
                    )
                begin = every
