"""Currents of one-bit digits: sums of the rows that are driven, without a multiplication.

Of three passes, a row is driven in one of seven ways, or in none. Rows that are driven in the same
way by inputs of the same sign are added up first, each row once; few additions then give the
currents of the three passes. That is half of what is added pass by pass, and a third of what a
matrix product multiplies where half of the bits are zero; inputs that are zero cost nothing.

Sums are kept in registers, 128 bytes of a row at a time. They are whole numbers that may go past
the end of their type on the way: what counts is that currents do not.
"""

import dataclasses
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from repast_dist.analog.kernels.memory import aligned, reused
from repast_dist.analog.kernels.tiles import Tile
from repast_dist.ground.numbers import ceil_div

_LANE_BYTES = 128
_AT_ONCE = 4
"""Rows that are added before a sum is stored; ways of being driven are padded to a multiple."""

_GROUP = 3
"""Passes that share their sums."""

_WAYS = 2**_GROUP - 1
_FITS_INT16 = 2.0**15


@dataclasses.dataclass(frozen=True)
class _Driven:
    """Rows in the order in which they are added.

    Attributes
    ----------
    passes : int
        Passes per input.
    order : ndarray
        (N, groups, places) uint16 numbers of rows; the one behind the last holds zeros.
    ways : ndarray
        (N, groups, chunks) uint8, which sum each chunk of rows belongs to.
    chunks : ndarray
        (N, groups) int64, how many there are.
    """

    passes: int
    order: np.ndarray
    ways: np.ndarray
    chunks: np.ndarray


class DrivenTile(Tile):
    """A tile whose rows are summed.

    Parameters
    ----------
    blocks : list of ndarray
        See `TileMaker`.
    step : float
        Of which all of them hold whole multiples.
    """

    def __init__(self, blocks: list[np.ndarray], step: float) -> None:
        self.rows, self.slices, _ = blocks[0].shape
        self.step = step
        steps = [np.rint(block.reshape(self.rows, -1) / np.float32(step)) for block in blocks]
        sums = [np.abs(part).sum(axis=0, dtype=np.float64).max(initial=0.0) for part in steps]
        self._kind = np.int16 if max(sums) < _FITS_INT16 else np.int32
        self._held = [self._lanes(part) for part in steps]

    def _lanes(self, steps: np.ndarray) -> np.ndarray:
        """Return (rows, columns) steps as (parts of a row, rows and one of zeros, lanes)."""
        rows, columns = steps.shape
        lanes = _LANE_BYTES // np.dtype(self._kind).itemsize
        shape = ceil_div(columns, lanes), rows + 1, lanes
        held = aligned(int(np.prod(shape)) * np.dtype(self._kind).itemsize).view(self._kind)
        held = held.reshape(shape)
        held[:, rows] = 0
        for part, first in zip(held, range(0, columns, lanes), strict=True):
            width = min(lanes, columns - first)
            part[:rows, :width] = steps[:, first : first + width]
            part[:, width:] = 0
        return held

    def drive(self, integers: np.ndarray, bits: int, passes: int, packed: bool = True) -> _Driven:
        """Return the rows in order."""
        samples, groups = len(integers), ceil_div(passes, _GROUP)
        places = self.rows + 2 * _WAYS * _AT_ONCE
        driven = _Driven(
            passes,
            reused("order", (samples, groups, places), np.uint16),
            reused("ways", (samples, groups, places // _AT_ONCE), np.uint8),
            reused("chunks", (samples, groups), np.int64),
        )
        _put_in_order(integers, passes, driven.order, driven.ways, driven.chunks)
        return driven

    def currents(self, driven: _Driven, block: int, columns: int) -> np.ndarray:
        """Return the currents of a block of columns."""
        samples, passes = len(driven.order), driven.passes
        currents = reused("currents", (samples, passes, 1, self.slices, columns), np.float32)
        held = self._held[block]
        sums = aligned(2 * _WAYS * _LANE_BYTES).reshape(2 * _WAYS, _LANE_BYTES)
        last = np.empty((_GROUP, held.shape[2]), np.float32)
        out = currents.reshape(samples * passes, self.slices * columns)
        _sum_driven(held, passes, driven.order, driven.ways, driven.chunks, sums, last, out)
        return currents


@numba.njit(cache=True, nogil=True)
def _put_in_order(
    integers: np.ndarray, passes: int, order: np.ndarray, ways: np.ndarray, chunks: np.ndarray
) -> None:
    """Sort the rows of every sample and group of passes by how they are driven."""
    samples, rows = integers.shape
    keys = np.empty(rows, np.uint8)
    counts = np.empty(2 * _WAYS + 2, np.int64)
    place = np.empty(2 * _WAYS + 2, np.int64)
    for n in range(samples):
        for group in range(order.shape[1]):
            low = np.int32(_GROUP * group)
            mask = np.int32((1 << min(passes - _GROUP * group, _GROUP)) - 1)
            for k in range(rows):
                value = integers[n, k]
                keys[k] = 2 * ((np.int32(abs(value)) >> low) & mask) + np.int32(value < 0)
            counts[:] = 0
            for k in range(rows):
                counts[keys[k]] += 1
            there, by = order[n, group], ways[n, group]
            first = 0
            for key in range(2, 2 * mask + 2):
                place[key] = first
                chunk = first // _AT_ONCE
                # Every sum is stored, even one of nothing.
                count = max((counts[key] + _AT_ONCE - 1) // _AT_ONCE, 1)
                by[chunk : chunk + count] = key - 2
                first += count * _AT_ONCE
                there[first - _AT_ONCE : first] = rows
            chunks[n, group] = first // _AT_ONCE
            # Rows that are not driven go behind the others.
            place[0] = first
            place[1] = first + counts[0]
            for k in range(rows):
                at = place[keys[k]]
                there[at] = k
                place[keys[k]] = at + 1


@numba.njit(cache=True, nogil=True)
def _sum_driven(
    held: np.ndarray,
    passes: int,
    order: np.ndarray,
    ways: np.ndarray,
    chunks: np.ndarray,
    sums: np.ndarray,
    last: np.ndarray,
    out: np.ndarray,
) -> None:
    """Write the currents of a block: (N * passes, columns) float32, in steps."""
    lanes = held.shape[2]
    for part in range(held.shape[0]):
        left = part * lanes
        whole = left + lanes <= out.shape[1]
        for n in range(order.shape[0]):
            for group in range(order.shape[1]):
                first = n * passes + _GROUP * group
                count = min(passes - _GROUP * group, _GROUP)
                to = out[first, left:] if whole else last[0]
                stride = out.shape[1] if whole else last.shape[1]
                rows, by, many = order[n, group], ways[n, group], chunks[n, group]
                if count == 3:
                    _sum_group(held[part], rows, by, many, sums, to, stride, 3)
                elif count == 2:
                    _sum_group(held[part], rows, by, many, sums, to, stride, 2)
                else:
                    _sum_group(held[part], rows, by, many, sums, to, stride, 1)
                if not whole:
                    for bit in range(count):
                        for m in range(out.shape[1] - left):
                            out[first + bit, left + m] = last[bit, m]


@intrinsic(prefer_literal=True)
def _sum_group(
    typing_context: Any,
    held: Any,
    order: Any,
    ways: Any,
    chunks: Any,
    sums: Any,
    out: Any,
    stride: Any,
    passes: Any,
) -> Any:
    """Write the currents of one sample in so many passes, for the lanes of one part of a row.

    Compilers keep no array in registers over a loop, so the loop is written for them: a running
    sum over all chunks of rows is stored where the sum up to the chunk's way of being driven
    belongs, and the last store of every way stays. A way's own sum is a difference.
    """
    arrays = held, order, ways, sums, out
    signature = types.void(held, order, ways, types.intp, sums, out, types.intp, passes)
    count = passes.literal_value
    size = ir.IntType(held.dtype.bitwidth)
    lanes = _LANE_BYTES * 8 // held.dtype.bitwidth
    row = ir.VectorType(size, lanes)
    floats = ir.VectorType(ir.FloatType(), lanes)
    word, byte = ir.IntType(64), ir.IntType(8)

    def generate(context: Any, build: Any, signature: Any, given: Any) -> Any:
        held, order, ways, sums, out = (
            build.bitcast(
                context.make_array(kind)(context, build, value=given[place]).data,
                byte.as_pointer(),
            )
            for kind, place in zip(arrays, (0, 1, 2, 4, 5), strict=True)
        )

        def number(value: int) -> Any:
            return ir.Constant(word, value)

        def load(base: Any, offset: Any, kind: Any, align: int) -> Any:
            place = build.bitcast(build.gep(base, [offset]), kind.as_pointer())
            return build.load(place, align=align)

        def store(value: Any, base: Any, offset: Any, align: int) -> None:
            place = build.bitcast(build.gep(base, [offset]), value.type.as_pointer())
            build.store(value, place, align=align)

        nothing = ir.Constant(row, [0] * lanes)
        before = build.block
        body, after = build.append_basic_block("sum"), build.append_basic_block("summed")
        build.branch(body)
        build.position_at_end(body)
        chunk, running = build.phi(word), build.phi(row)
        total = running
        for place in range(_AT_ONCE):
            at = build.add(build.mul(chunk, number(2 * _AT_ONCE)), number(2 * place))
            index = build.zext(load(order, at, ir.IntType(16), 2), word)
            offset = build.mul(index, number(_LANE_BYTES))
            total = build.add(total, load(held, offset, row, 64))
        way = build.zext(load(ways, chunk, byte, 1), word)
        store(total, sums, build.mul(way, number(_LANE_BYTES)), 64)
        following = build.add(chunk, number(1))
        chunk.add_incoming(number(0), before)
        chunk.add_incoming(following, body)
        running.add_incoming(nothing, before)
        running.add_incoming(total, body)
        build.cbranch(build.icmp_signed("<", following, given[3]), body, after)
        build.position_at_end(after)
        up_to = [nothing]
        for key in range(2 * (2**count - 1)):
            up_to.append(load(sums, number(key * _LANE_BYTES), row, 64))
        differences = {}
        for way in range(1, 2**count):
            # Those of positive inputs less those of negative ones.
            start, middle, end = up_to[2 * way - 2 : 2 * way + 1]
            differences[way] = build.sub(build.sub(build.add(middle, middle), start), end)
        for bit in range(count):
            current = nothing
            for way, difference in differences.items():
                if way >> bit & 1:
                    current = build.add(current, difference)
            offset = build.mul(given[6], number(4 * bit))
            store(build.sitofp(current, floats), out, offset, 4)
        return context.get_dummy_value()

    return signature, generate
