"""Sums of rows that digits of one bit drive, and their codes, in vector registers.

Compilers keep no array in registers over a loop, so these loops are written for them. All addresses
are whole numbers; vectors have `LANES` float32.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

LANES = 8
MOST_VECTORS = 10
"""That are summed at a time: of 16 registers, a few are needed for more."""

_BIT, _BYTE, _SHORT, _WORD, _LONG = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_WORDS, _SHORTS = (ir.VectorType(kind, LANES) for kind in (_WORD, _SHORT))
_VECTOR_BYTES = 4 * LANES


def _places() -> np.ndarray:
    """Return where the ones of every byte are, (256, 8) uint16, each followed by anything."""
    ones = [[bit for bit in range(LANES) if byte >> bit & 1] for byte in range(2**LANES)]
    return np.array([found + [0] * (LANES - len(found)) for found in ones], np.uint16)


PLACES = _places()
"""Of the ones in every byte, see `list_rows`."""


def _load(build: Any, address: Any, offset: int, kind: Any, align: int) -> Any:
    place = build.add(address, _LONG(offset))
    return build.load(build.inttoptr(place, kind.as_pointer()), align=align)


def _store(build: Any, value: Any, address: Any, offset: int, align: int) -> None:
    place = build.add(address, _LONG(offset))
    build.store(value, build.inttoptr(place, value.type.as_pointer()), align=align)


def _called(build: Any, name: str, value: Any) -> Any:
    kind = ir.FunctionType(value.type, [value.type])
    function = build.module.globals.get(name) or ir.Function(build.module, kind, name)
    return build.call(function, [value])


def _repeated(build: Any, value: Any, kind: Any) -> Any:
    first = build.insert_element(ir.Constant(kind, ir.Undefined), value, _WORD(0))
    return build.shuffle_vector(first, first, ir.Constant(_WORDS, [0] * LANES))


@intrinsic
def list_rows(
    typing_context: Any, magnitudes: Any, groups: Any, number: Any, places: Any, order: Any
) -> Any:
    """Write the numbers of the rows that have a one in some place, and return how many there are.

    Parameters
    ----------
    magnitudes : int
        Address of int32, whole vectors.
    groups : int
        How many vectors, one at least.
    number : int
        Of the place, below 32.
    places : int
        Address of `PLACES`.
    order : int
        Address of uint16 numbers, written; one more vector than there are is overwritten.
    """

    def generate(context: Any, build: Any, signature: Any, given: Any) -> Any:
        magnitudes, groups, number, places, order = given
        up = _repeated(build, build.sub(_WORD(31), build.trunc(number, _WORD)), _WORDS)
        before = build.block
        body, after = build.append_basic_block("list"), build.append_basic_block("listed")
        build.branch(body)
        build.position_at_end(body)
        group, count, rows = build.phi(_LONG), build.phi(_LONG), build.phi(_SHORTS)
        place = build.add(magnitudes, build.mul(group, _LONG(_VECTOR_BYTES)))
        raised = build.shl(_load(build, place, 0, _WORDS, 4), up)
        driven = build.icmp_signed("<", raised, ir.Constant(_WORDS, [0] * LANES))
        byte = build.bitcast(driven, _BYTE)
        entry = build.add(places, build.mul(build.zext(byte, _LONG), _LONG(2 * LANES)))
        listed = build.add(_load(build, entry, 0, _SHORTS, 2), rows)
        _store(build, listed, build.add(order, build.mul(count, _LONG(2))), 0, 2)
        more = build.add(count, build.zext(_called(build, "llvm.ctpop.i8", byte), _LONG))
        following = build.add(group, _LONG(1))
        group.add_incoming(_LONG(0), before)
        group.add_incoming(following, body)
        count.add_incoming(_LONG(0), before)
        count.add_incoming(more, body)
        rows.add_incoming(ir.Constant(_SHORTS, [0] * LANES), before)
        rows.add_incoming(build.add(rows, ir.Constant(_SHORTS, [LANES] * LANES)), body)
        build.cbranch(build.icmp_signed("<", following, groups), body, after)
        build.position_at_end(after)
        return more

    return types.intp(*[types.intp] * 5), generate


def _sums(build: Any, held: Any, order: Any, ends: tuple[Any, Any], count: int) -> list[Any]:
    """Return sums of rows of so many vectors: of the first ones less those behind."""
    sums = [ir.Constant(_FLOATS, [0.0] * LANES)] * count
    for start, stop, add in ((_LONG(0), ends[0], build.fadd), (*ends, build.fsub)):
        before = build.block
        body, after = build.append_basic_block("sum"), build.append_basic_block("summed")
        build.cbranch(build.icmp_signed("<", start, stop), body, after)
        build.position_at_end(body)
        number, running = build.phi(_LONG), [build.phi(_FLOATS) for _ in sums]
        place = build.add(order, build.mul(number, _LONG(2)))
        row = build.zext(_load(build, place, 0, _SHORT, 2), _LONG)
        row = build.add(held, build.mul(row, _LONG(_VECTOR_BYTES * count)))
        more = [
            add(total, _load(build, row, _VECTOR_BYTES * v, _FLOATS, _VECTOR_BYTES))
            for v, total in enumerate(running)
        ]
        following = build.add(number, _LONG(1))
        number.add_incoming(start, before)
        number.add_incoming(following, body)
        for total, first, then in zip(running, sums, more, strict=True):
            total.add_incoming(first, before)
            total.add_incoming(then, body)
        build.cbranch(build.icmp_signed("<", following, stop), body, after)
        build.position_at_end(after)
        found = [build.phi(_FLOATS) for _ in sums]
        for total, first, then in zip(found, sums, more, strict=True):
            total.add_incoming(first, before)
            total.add_incoming(then, body)
        sums = found
    return sums


def _for_each_width(build: Any, vectors: Any, written: Callable[[int], Any]) -> Any:
    """Write code for every number of vectors, of which one is chosen; return what it returns."""
    start = build.block
    end = build.append_basic_block("end")
    never = build.append_basic_block("never")
    with build.goto_block(never):
        build.unreachable()
    choice = build.switch(vectors, never)
    found = []
    for count in range(1, MOST_VECTORS + 1):
        block = build.append_basic_block(f"vectors{count}")
        choice.add_case(_LONG(count), block)
        build.position_at_end(block)
        found.append((written(count), build.block))
        build.branch(end)
    assert start.is_terminated
    build.position_at_end(end)
    result = build.phi(found[0][0].type)
    for value, block in found:
        result.add_incoming(value, block)
    return result


@intrinsic
def write_sums(
    typing_context: Any,
    held: Any,
    vectors: Any,
    order: Any,
    positive: Any,
    every: Any,
    out: Any,
) -> Any:
    """Write the sum of some rows.

    Parameters
    ----------
    held : int
        Address of rows of whole vectors, float32.
    vectors : int
        Of a row, from 1 to `MOST_VECTORS`.
    order : int
        Address of uint16 numbers of rows.
    positive, every : int
        How many are added, and how many there are: the others are subtracted.
    out : int
        Address of a row.
    """

    def generate(context: Any, build: Any, signature: Any, given: Any) -> Any:
        held, vectors, order, positive, every, out = given

        def written(count: int) -> Any:
            for v, total in enumerate(_sums(build, held, order, (positive, every), count)):
                _store(build, total, out, _VECTOR_BYTES * v, 4)
            return _LONG(0)

        _for_each_width(build, vectors, written)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 6), generate


@intrinsic
def add_codes(
    typing_context: Any,
    held: Any,
    vectors: Any,
    order: Any,
    positive: Any,
    every: Any,
    to_code: Any,
    bounds: Any,
    weight: Any,
    total: Any,
    codes: Any,
) -> Any:
    """Add the codes of the sum of some rows to a total, times a weight, and return 0; if some are
    beyond bounds, write the codes instead and return 1.

    Parameters
    ----------
    held, vectors, order, positive, every
        See `write_sums`.
    to_code, bounds : int
        Addresses of a row: what turns sums into codes, and the largest code that is added.
    weight : float32
        Of the codes.
    total, codes : int
        Addresses of a row.
    """

    def generate(context: Any, build: Any, signature: Any, given: Any) -> Any:
        held, vectors, order, positive, every, to_code, bounds, weight, total, codes = given
        weights = _repeated(build, weight, _FLOATS)

        def written(count: int) -> Any:
            found, beyond = [], ir.Constant(_WORDS, [0] * LANES)
            for v, value in enumerate(_sums(build, held, order, (positive, every), count)):
                at = _VECTOR_BYTES * v
                scaled = build.fmul(value, _load(build, to_code, at, _FLOATS, 4))
                code = _called(build, f"llvm.rint.v{LANES}f32", scaled)
                size = _called(build, f"llvm.fabs.v{LANES}f32", code)
                more = build.fcmp_ordered(">", size, _load(build, bounds, at, _FLOATS, 4))
                beyond = build.or_(beyond, build.sext(more, _WORDS))
                found.append(code)
            negative = build.icmp_signed("<", beyond, ir.Constant(_WORDS, [0] * LANES))
            some = build.icmp_unsigned("!=", build.bitcast(negative, _BYTE), _BYTE(0))
            with build.if_else(some, likely=False) as (apart, together):
                with apart:
                    for v, code in enumerate(found):
                        _store(build, code, codes, _VECTOR_BYTES * v, 4)
                with together:
                    for v, code in enumerate(found):
                        at = _VECTOR_BYTES * v
                        # Whole numbers: contracted or not, the sum is exact.
                        more = build.fmul(code, weights, flags=("contract",))
                        before = _load(build, total, at, _FLOATS, 4)
                        more = build.fadd(before, more, flags=("contract",))
                        _store(build, more, total, at, 4)
            return build.zext(some, _LONG)

        return _for_each_width(build, vectors, written)

    arguments = *[types.intp] * 7, types.float32, types.intp, types.intp
    return types.intp(*arguments), generate
