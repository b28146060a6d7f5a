"""``amx``: products and conversions in one pass, by the matrix unit of x86-64 processors.

Signed digits of a pass times whole levels are products of 8-bit numbers. What noisy cells hold,
whole steps of up to 16 bits, is an upper and a lower 8-bit part. Currents of 16 samples and 16
columns are converted and added up while they are in the first cache, so that nothing but inputs
and sums goes through memory.
"""

import math

import numba
import numpy as np

from repast_dist.analog.kernels import tile_registers as unit
from repast_dist.analog.kernels.base import (
    Conversions,
    Design,
    Drawn,
    DrawnColumns,
    Held,
    Kernels,
)
from repast_dist.analog.kernels.conversion import (
    add_weighted,
    bins_of_codes,
    convert_and_add,
    pass_energies,
)
from repast_dist.analog.kernels.draws import largest_of
from repast_dist.analog.kernels.float32 import any_tile, hold
from repast_dist.analog.kernels.memory import aligned, reused
from repast_dist.analog.kernels.tile_writing import copy_columns, write_drawn, write_levels
from repast_dist.analog.kernels.vectors import wide
from repast_dist.ground.numbers import ceil_div

SIDE, DEEP = unit.SIDE, unit.DEEP
_TOP, _UPPER = 127, 256
_TILE = 4 * SIDE * SIDE
_FITS_INT32 = 2**31
_PART_BYTES = 2**20
"""Currents that are worked on at a time where they are converted apart."""


class Amx(Kernels):
    """Products and conversions by the matrix unit."""

    name = "amx"

    def hold(self, levels: np.ndarray, design: Design) -> Held:
        """Return what multipliers hold, ready for products.

        Digits that do not fit or are answered by something else, and sums that would not be exact,
        are multiplied without the unit, with the same numbers.
        """
        if not _fits(levels.shape, design):
            return hold(levels, design, any_tile)
        plain = design.whole and largest_of(np.ascontiguousarray(levels).reshape(-1)) <= _TOP
        tiles = AmxTiles(levels.shape, design, None if plain else design.step_of(levels))
        tiles.write(levels)
        return tiles

    def draw(self, drawn: Drawn | DrawnColumns, design: Design) -> Held:
        """Return what multipliers hold, written where it is drawn, once for all columns."""
        if not _fits(drawn.shape, design):
            return super().draw(drawn, design)
        if isinstance(drawn, DrawnColumns):
            return _drawn_tiles(drawn.whole, design).columns(drawn.start, drawn.stop)
        return _drawn_tiles(drawn, design)


def _drawn_tiles(drawn: Drawn, design: Design) -> "AmxTiles":
    def write(step: float) -> tuple[np.ndarray, list[float]]:
        tiles = AmxTiles(drawn.shape, design, step)
        return tiles.held, tiles.draw(drawn)

    held, step = drawn.written_once(AmxTiles.__name__, design.rows, write)
    return AmxTiles(drawn.shape, design, step, held)


def _fits(shape: tuple[int, ...], design: Design) -> bool:
    """Return whether the unit multiplies what multipliers of a shape (B, K, slices, M) hold."""
    rows = min(design.rows, shape[1])
    exact = design.top <= _TOP and rows * design.top * _TOP * (_UPPER + 1) < _FITS_INT32
    return exact and not design.bends and math.prod(shape) > 0


class AmxTiles(Held):
    """Row tiles as the matrix unit takes them.

    Parameters
    ----------
    shape, design
        See `Held`.
    step : float or None
        Of what they will hold, in levels; None: they are whole levels of 8 bits.
    held : ndarray, optional
        What they hold, as `tile_writing` makes it; None: they are still to be written.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        design: Design,
        step: float | None,
        held: np.ndarray | None = None,
    ) -> None:
        super().__init__(shape, design)
        count, rows, slices, columns = shape
        self._height = min(design.rows, rows)
        self._step, self._parts = (1.0, 1) if step is None else (step, 2)
        self._blocks = ceil_div(slices * columns, SIDE)
        sizes = count * self.per, self._blocks, ceil_div(self._height, DEEP), self._parts, SIDE
        if held is None:
            held = aligned(math.prod(sizes) * DEEP).view(np.int8).reshape(*sizes, DEEP)
        self.held = held

    def write(self, levels: np.ndarray) -> None:
        """Write what multipliers hold, in levels."""
        cells = np.ascontiguousarray(levels).reshape(*self.shape[:2], -1)
        write_levels(cells, 1.0 / self._step, self.per, self._height, self.held)

    def draw(self, drawn: Drawn) -> list[float]:
        """Write what is drawn, and return the largest magnitude of every stream before rounding, in
        levels.
        """
        parts, how = len(drawn.streams), (drawn.slices, drawn.bits, drawn.law.numbers)
        held = self.held.reshape(parts, -1, *self.held.shape[1:])
        integers = drawn.integers.reshape(parts, -1, *drawn.integers.shape[1:])
        scale = 1.0 / self._step
        return [
            write_drawn(part, *how, stream, scale, self.per, self._height, tiles)
            for part, stream, tiles in zip(integers, drawn.streams, held, strict=True)
        ]

    def columns(self, start: int, stop: int) -> "AmxTiles":
        """Return the same for some columns of weights."""
        shape = *self.shape[:-1], stop - start
        part = AmxTiles(shape, self.design, None if self._parts == 1 else self._step)
        copy_columns(self.held, self.shape[2], self.shape[3], start, stop, part.held)
        return part

    def add_products(self, integers: np.ndarray, result: np.ndarray, how: Conversions) -> int:
        """Convert the currents of all row tiles and add them, weighted, to the result."""
        if self.design.noisy or how.errors.size:
            return self._add_apart(integers, result, how)
        design, (_, _, slices, columns) = self.design, self.shape
        width, ranges = self._blocks * SIDE, how.ranges.astype(np.float64)
        lossless = np.isinf(ranges)
        per_level = np.where(lossless, 1.0, design.codes / ranges).astype(np.float32)
        to_code, limits = np.zeros((2, width), np.float32)
        to_code[: slices * columns] = np.repeat(np.float32(self._step) * per_level, columns)
        limits[: slices * columns] = np.repeat(np.where(lossless, np.inf, design.codes), columns)
        double = self.total_dtype(how.ranges) is np.float64
        return int(
            _add_tiles(
                unit.WHOLE_TILES,
                self.held,
                integers,
                result,
                self.per,
                self._height,
                design.bits,
                self._digits(),
                reused("currents", (design.passes, self._parts, SIDE, SIDE), np.int32),
                to_code,
                limits,
                design.slice_weights * np.where(lossless, 1.0, ranges / design.codes),
                (2.0 ** (design.bits * np.arange(design.passes))).astype(np.float32),
                reused("total", (SIDE, width), np.float64 if double else np.float32),
                how.rows_of_call(len(integers) * integers.shape[1]),
                how.counted,
                how.counts,
                how.least,
                int(design.codes),
            )
        )

    def currents(self, number: int, rows: range, integers: np.ndarray) -> np.ndarray:
        """Return the currents of one row tile in levels."""
        currents = reused(
            "currents of all columns", (len(rows), self.design.passes, *self.shape[2:]), np.float32
        )
        self._write_currents(number, rows, integers, currents)
        currents *= np.float32(self._step)
        return currents

    def _digits(self) -> np.ndarray:
        """Return room for what drives a row tile, (passes, 16, rows) int8."""
        depth = self.held.shape[2] * DEEP
        return reused("planes", (self.design.passes, SIDE, depth), np.int8)

    def _write_currents(
        self, number: int, rows: range, integers: np.ndarray, currents: np.ndarray
    ) -> None:
        """Write the currents of one row tile, (rows, passes, slices, M) float32, in steps."""
        which, where = self.place(number)
        _write_currents(
            unit.WHOLE_TILES,
            self.held[number],
            integers[which, rows.start : rows.stop, where],
            self.design.bits,
            self._digits(),
            reused("tile of currents", (self.design.passes, self._parts, SIDE, SIDE), np.int32),
            currents.reshape(*currents.shape[:2], -1),
        )

    def _add_apart(self, integers: np.ndarray, result: np.ndarray, how: Conversions) -> int:
        """Do what `add_products` does where converters or cells are noisy or have errors: draws
        belong to all columns of a row.
        """
        design, (_, _, slices, columns) = self.design, self.shape
        at_once = max(_PART_BYTES // (4 * design.passes * slices * columns), 1)
        shape = min(at_once, max(result.shape[1], 1)), design.passes, 1, slices, columns
        return int(
            _add_tiles_apart(
                unit.WHOLE_TILES,
                self.held,
                integers,
                result,
                self.per,
                self._height,
                design.bits,
                self._digits(),
                reused("tile of currents", (design.passes, self._parts, SIDE, SIDE), np.int32),
                reused("currents", shape, np.float32),
                reused("total", (columns,), self.total_dtype(how.ranges)),
                self._step,
                how.ranges,
                design.codes,
                design.slice_weights,
                design.noisy,
                design.read_sigma,
                design.noise_codes,
                how.keys,
                how.rows_of_call(len(integers) * integers.shape[1]),
                how.errors,
                how.counted,
                how.counts,
                how.least,
            )
        )


@numba.njit(cache=True, nogil=True)
def _drive(
    integers: np.ndarray, rows: slice, columns: slice, bits: int, digits: np.ndarray
) -> None:
    """Write the signed digits of every pass of some rows of inputs, (passes, 16, depth) int8; what
    is behind them stays as it is.
    """
    wide()
    passes = digits.shape[0]
    mask = np.int32((1 << bits) - 1)
    part = integers[rows, columns]
    if bits == 1 and passes < 8 and part.shape[1]:
        apart = SIDE * digits.shape[2]
        for n in range(part.shape[0]):
            out = digits.ctypes.data + n * digits.shape[2]
            unit.drive_row(part[n].ctypes.data, part.shape[1], passes, out, apart)
        return
    for n in range(part.shape[0]):
        for p in range(passes):
            low, out = np.int32(p * bits), digits[p, n]
            for k in range(part.shape[1]):
                value = part[n, k]
                digit = np.int32((np.int32(abs(value)) >> low) & mask)
                out[k] = np.int8(np.int32(-digit) if value < 0 else digit)


@numba.njit(cache=True, nogil=True)
def _multiply(digits: int, held: int, currents: int, passes: int, depth: int, parts: int) -> None:
    """Multiply what drives 16 samples with 16 columns; all are addresses.

    Parameters
    ----------
    digits : int
        (passes, 16, 64 * depth) int8.
    held : int
        (depth, parts, 16, 64) int8.
    currents : int
        (passes, parts, 16, 16) int32, written.
    passes, depth, parts : int
        Sizes.
    """
    stride = depth * DEEP
    apart = SIDE * stride
    # Four sums at a time: one alone would wait for itself.
    at_once = 4 // parts
    for first in range(0, passes, at_once):
        left = digits + first * apart
        out = currents + first * parts * _TILE
        count = min(at_once, passes - first)
        unit.clear(0)
        unit.clear(1)
        unit.clear(2)
        unit.clear(3)
        for k in range(depth):
            right = held + k * parts * _TILE
            at = left + k * DEEP
            unit.load(6, right, DEEP)
            unit.load(4, at, stride)
            if parts == 2:
                unit.load(7, right + _TILE, DEEP)
                unit.add_product(0, 4, 6)
                unit.add_product(1, 4, 7)
                if count == 2:
                    unit.load(5, at + apart, stride)
                    unit.add_product(2, 5, 6)
                    unit.add_product(3, 5, 7)
            else:
                unit.add_product(0, 4, 6)
                if count > 1:
                    unit.load(5, at + apart, stride)
                    unit.add_product(1, 5, 6)
                if count > 2:
                    unit.load(4, at + 2 * apart, stride)
                    unit.add_product(2, 4, 6)
                if count > 3:
                    unit.load(5, at + 3 * apart, stride)
                    unit.add_product(3, 5, 6)
        unit.store(0, out, DEEP)
        if count * parts > 1:
            unit.store(1, out + _TILE, DEEP)
        if count * parts > 2:
            unit.store(2, out + 2 * _TILE, DEEP)
        if count * parts > 3:
            unit.store(3, out + 3 * _TILE, DEEP)


@numba.njit(cache=True, nogil=True)
def _add_tiles(
    configuration: np.ndarray,
    held: np.ndarray,
    integers: np.ndarray,
    result: np.ndarray,
    per: int,
    height: int,
    bits: int,
    digits: np.ndarray,
    currents: np.ndarray,
    to_code: np.ndarray,
    limits: np.ndarray,
    back: np.ndarray,
    weights: np.ndarray,
    total: np.ndarray,
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
    configuration : ndarray
        Of the tile registers.
    held : ndarray
        See `tile_writing`.
    integers, result : ndarray
        (B, N, K) int32 inputs, and (B, N, M) float64, added to.
    per, height : int
        Row tiles of a multiplier, and rows of a tile.
    bits : int
        Magnitude bits per pass.
    digits, currents, total : ndarray
        Scratch: (passes, 16, 64 * depth) int8, (passes, parts, 16, 16) int32, and (16, columns of
        all blocks) float32 or float64.
    to_code, limits : ndarray
        (columns of all blocks,) float32, what turns steps into codes, and the largest code.
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
    unit.configure(configuration.ctypes.data)
    _, blocks, depth, parts, _, _ = held.shape
    passes, slices, columns = digits.shape[0], back.shape[0], result.shape[2]
    counting = counted.shape[1] > 0
    # A code is counted where the first code of its slice is, and so many places further on.
    each, offsets = top + 2, np.zeros(blocks * SIDE, np.int32)
    for c in range(slices * columns):
        offsets[c] = c // columns * each
    large = np.empty(passes * SIDE, np.int32)
    above = np.zeros((counts.shape[0], slices, each), np.int64)
    every, of_call = above.reshape(-1), slices * each
    chosen, clipped = np.zeros(counts.shape[0], np.int64), 0
    driven, read, rounded = digits.ctypes.data, currents.ctypes.data, total.ctypes.data
    scales, ends, weighs = to_code.ctypes.data, limits.ctypes.data, weights.ctypes.data
    stride = total.strides[0]
    double = total.itemsize == 8
    for tile in range(held.shape[0]):
        which, part = divmod(tile, per)
        row_of_all = which * integers.shape[1]
        across = slice(part * height, min((part + 1) * height, integers.shape[2]))
        for first in range(0, integers.shape[1], SIDE):
            count = min(SIDE, integers.shape[1] - first)
            _drive(integers[which], slice(first, first + count), across, bits, digits)
            for block in range(blocks):
                left = block * SIDE
                right = held.ctypes.data + (tile * blocks + block) * depth * parts * _TILE
                _multiply(driven, right, read, passes, depth, parts)
                code, end = scales + 4 * left, ends + 4 * left
                out = rounded + total.itemsize * left
                if parts == 2:
                    if double:
                        clipped += unit.convert_rows(
                            read, 2, count, passes, code, end, weighs, out, stride, 1
                        )
                    else:
                        clipped += unit.convert_rows(
                            read, 2, count, passes, code, end, weighs, out, stride, 0
                        )
                elif double:
                    clipped += unit.convert_rows(
                        read, 1, count, passes, code, end, weighs, out, stride, 1
                    )
                else:
                    clipped += unit.convert_rows(
                        read, 1, count, passes, code, end, weighs, out, stride, 0
                    )
                if not counting:
                    continue
                for n in range(count):
                    if not counted[which, first + n]:
                        continue
                    row, column = read + n * DEEP, offsets.ctypes.data + 4 * left
                    room = large.ctypes.data
                    if parts == 2:
                        found = unit.large_codes(
                            row, 2, passes, code, np.int32(least), np.int32(top), column, room
                        )
                    else:
                        found = unit.large_codes(
                            row, 1, passes, code, np.int32(least), np.int32(top), column, room
                        )
                    base = (row_of_all + first + n) // rows_of_call * of_call
                    for i in range(found):
                        every[base + large[i]] += 1
            for n in range(count):
                row = result[which, first + n]
                for number in range(slices):
                    codes = total[n, number * columns : (number + 1) * columns]
                    add_weighted(back[number], codes, row)
            if counting:
                for n in range(count):
                    call = (row_of_all + first + n) // rows_of_call
                    chosen[call] += counted[which, first + n]
    unit.release()
    if counting:
        bins = bins_of_codes(top, counts.shape[2] - 1)
        for call in range(counts.shape[0]):
            for number in range(slices):
                codes_above = above[call, number]
                counts[call, number, 0] += chosen[call] * passes * columns - codes_above.sum()
                for size in range(least + 1, each):
                    counts[call, number, bins[size]] += codes_above[size]
    return clipped


@numba.njit(cache=True, nogil=True)
def _write_currents(
    configuration: np.ndarray,
    held: np.ndarray,
    integers: np.ndarray,
    bits: int,
    digits: np.ndarray,
    tile: np.ndarray,
    currents: np.ndarray,
) -> None:
    """Write the currents of one row tile in steps, (N, passes, columns) float32.

    Parameters
    ----------
    configuration : ndarray
        Of the tile registers.
    held : ndarray
        (blocks of columns, depth, parts, 16, 64) int8.
    integers : ndarray
        (N, rows) int32.
    bits : int
        Magnitude bits per pass.
    digits, tile : ndarray
        Scratch: (passes, 16, 64 * depth) int8 and (passes, parts, 16, 16) int32.
    currents : ndarray
        Written.
    """
    unit.configure(configuration.ctypes.data)
    blocks, depth, parts, _, _ = held.shape
    passes, columns = currents.shape[1:]
    for first in range(0, integers.shape[0], SIDE):
        count = min(SIDE, integers.shape[0] - first)
        rows = slice(first, first + count)
        _drive(integers, rows, slice(0, integers.shape[1]), bits, digits)
        for block in range(blocks):
            right = held.ctypes.data + block * depth * parts * _TILE
            _multiply(digits.ctypes.data, right, tile.ctypes.data, passes, depth, parts)
            left = block * SIDE
            width = min(SIDE, columns - left)
            for n in range(count):
                for p in range(passes):
                    out, upper, lower = (
                        currents[first + n, p],
                        tile[p, 0, n],
                        tile[p, parts - 1, n],
                    )
                    for c in range(width):
                        whole = lower[c]
                        if parts == 2:
                            whole = np.int32(whole + np.int32(upper[c] << np.int32(8)))
                        out[left + c] = np.float32(whole)
    unit.release()


@numba.njit(cache=True, nogil=True)
def _add_tiles_apart(
    configuration: np.ndarray,
    held: np.ndarray,
    integers: np.ndarray,
    result: np.ndarray,
    per: int,
    height: int,
    bits: int,
    digits: np.ndarray,
    tile_currents: np.ndarray,
    currents: np.ndarray,
    total: np.ndarray,
    step: float,
    ranges: np.ndarray,
    codes: float,
    slice_weights: np.ndarray,
    noisy: bool,
    read_sigma: float,
    noise_codes: float,
    keys: np.ndarray,
    rows_of_call: int,
    errors: np.ndarray,
    counted: np.ndarray,
    counts: np.ndarray,
    least: int,
) -> int:
    """Do what `_add_tiles` does with noise and errors, see `convert_and_add`."""
    clipped = 0
    at_once, passes, _, slices, columns = currents.shape
    spread = np.zeros((at_once if noisy else 0, passes if noisy else 0), np.float32)
    for tile in range(held.shape[0]):
        which, part = divmod(tile, per)
        start, stop = part * height, min((part + 1) * height, integers.shape[2])
        for first in range(0, integers.shape[1], at_once):
            last = min(first + at_once, integers.shape[1])
            driven, some = integers[which, first:last, start:stop], currents[: last - first]
            _write_currents(
                configuration,
                held[tile],
                driven,
                bits,
                digits,
                tile_currents,
                some.reshape(last - first, passes, slices * columns),
            )
            if noisy and read_sigma > 0.0:
                pass_energies(driven, bits, spread[: last - first])
                for n in range(last - first):
                    for p in range(passes):
                        energy = np.float32(2.0) * spread[n, p]
                        spread[n, p] = np.float32(read_sigma) * np.sqrt(energy)
            clipped += convert_and_add(
                some,
                result[which, first:last],
                0,
                total,
                passes,
                bits,
                0.0,
                step,
                ranges,
                codes,
                slice_weights,
                spread[: last - first],
                noise_codes,
                keys[part],
                which * integers.shape[1] + first,
                rows_of_call,
                errors[part],
                counted[which, first:last],
                counts,
                least,
            )
    return clipped
