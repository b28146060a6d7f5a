"""The matrix unit of x86-64 processors (AMX) for compiled functions: tile registers and vectors.

A tile register holds 16 rows of 64 bytes. See Intel 64 and IA-32 Architectures Software
Developer's Manual, volume 1, chapter 18, for the instructions, and the Linux kernel's
``Documentation/arch/x86/xstate.rst`` for how a process is given the registers.
"""

import ctypes
import functools
import platform
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import config, types
from numba.extending import intrinsic

SIDE = 16
"""Rows of a tile register, and numbers of 32 bits in a row."""

DEEP = 64
"""Bytes of a row: numbers of 8 bits that are multiplied and added at a time."""

_ARCH_PRCTL, _REQUEST, _TILE_DATA = 158, 0x1023, 18

_BYTE, _WORD, _LONG = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_BYTES = _BYTE.as_pointer()
_FLOAT, _DOUBLE = ir.FloatType(), ir.DoubleType()
_INTS, _FLOATS = ir.VectorType(_WORD, SIDE), ir.VectorType(_FLOAT, SIDE)
_DOUBLES = ir.VectorType(_DOUBLE, SIDE)
_ROW = 4 * SIDE
_TILE = SIDE * _ROW
"""Bytes of a row of currents, and of a tile of them."""


@functools.cache
def has_matrix_unit() -> bool:
    """Return whether this process may multiply tiles of 8-bit numbers, and ask for it."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return False
    if config.CPU_NAME is not None:
        # Code is compiled for another processor than this one.
        return False
    found = binding.get_host_cpu_features()
    needed = ("amx-tile", "amx-int8", "avx512f", "avx512bw", "avx512dq", "avx512vl")
    if not all(found.get(name, False) for name in needed):
        return False
    return not ctypes.CDLL(None).syscall(_ARCH_PRCTL, _REQUEST, _TILE_DATA)


def _whole_tiles() -> np.ndarray:
    configuration = np.zeros(64, np.uint8)
    configuration[0] = 1
    configuration[16:32].view(np.uint16)[:] = DEEP
    configuration[48:56] = SIDE
    return configuration


WHOLE_TILES = _whole_tiles()
"""(64,) uint8, the configuration in which all registers have 16 rows of 64 bytes."""


def _called(build: Any, name: str, *arguments: Any, returns: Any = None) -> Any:
    """Call an instruction that LLVM has by name."""
    kind = ir.FunctionType(returns or ir.VoidType(), [value.type for value in arguments])
    function = build.module.globals.get(name) or ir.Function(build.module, kind, name)
    return build.call(function, arguments)


def _pointer(build: Any, address: Any, kind: Any = _BYTE) -> Any:
    return build.inttoptr(address, kind.as_pointer())


@intrinsic
def configure(typing_context: Any, address: Any) -> Any:
    """Set the shapes of this thread's tile registers to those at an address, see `WHOLE_TILES`."""

    def generate(context: Any, build: Any, signature: Any, given: Any) -> Any:
        _called(build, "llvm.x86.ldtilecfg", _pointer(build, given[0]))
        return context.get_dummy_value()

    return types.void(types.intp), generate


@intrinsic
def release(typing_context: Any) -> Any:
    """Leave the tile registers, so that nothing has to be saved for them."""

    def generate(context: Any, build: Any, signature: Any, given: Any) -> Any:
        _called(build, "llvm.x86.tilerelease")
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic(prefer_literal=True)
def clear(typing_context: Any, tile: Any) -> Any:
    """Set a tile register to zero."""

    def generate(context: Any, build: Any, signature: Any, given: Any) -> Any:
        _called(build, "llvm.x86.tilezero", _BYTE(tile.literal_value))
        return context.get_dummy_value()

    return types.void(tile), generate


def _moving(name: str) -> Callable[..., Any]:
    """Return an intrinsic that moves a tile from or to an address, with so many bytes from one row
    to the next.
    """

    def typed(typing_context: Any, tile: Any, address: Any, stride: Any) -> Any:
        def generate(context: Any, build: Any, signature: Any, given: Any) -> Any:
            number, place = _BYTE(tile.literal_value), _pointer(build, given[1])
            _called(build, name, number, place, given[2])
            return context.get_dummy_value()

        return types.void(tile, types.intp, types.intp), generate

    return intrinsic(prefer_literal=True)(typed)


load = _moving("llvm.x86.tileloadd64")
store = _moving("llvm.x86.tilestored64")


def _multiplying(name: str) -> Callable[..., Any]:
    """Return an intrinsic that adds the product of two tiles of bytes to one of int32."""

    def typed(typing_context: Any, out: Any, left: Any, right: Any) -> Any:
        numbers = [_BYTE(tile.literal_value) for tile in (out, left, right)]

        def generate(context: Any, build: Any, signature: Any, given: Any) -> Any:
            _called(build, name, *numbers)
            return context.get_dummy_value()

        return types.void(out, left, right), generate

    return intrinsic(prefer_literal=True)(typed)


add_product = _multiplying("llvm.x86.tdpbssd")
add_product_right_unsigned = _multiplying("llvm.x86.tdpbsud")
add_product_left_unsigned = _multiplying("llvm.x86.tdpbusd")
add_product_unsigned = _multiplying("llvm.x86.tdpbuud")


def _at(build: Any, address: Any, offset: Any, kind: Any) -> Any:
    return build.load(_pointer(build, build.add(address, offset), kind), align=4)


def _current(build: Any, address: Any, parts: int) -> Any:
    """Return 16 currents as float32; those of two parts are rounded once."""
    whole = _at(build, address, _LONG(0), _INTS)
    if parts == 2:
        lower = _at(build, address, _LONG(_TILE), _INTS)
        whole = build.add(build.shl(whole, ir.Constant(_INTS, [8] * SIDE)), lower)
    return build.sitofp(whole, _FLOATS)


def _repeated(build: Any, value: Any, kind: Any) -> Any:
    first = build.insert_element(ir.Constant(kind, ir.Undefined), value, _WORD(0))
    return build.shuffle_vector(first, first, ir.Constant(_INTS, [0] * SIDE))


class _Loop:
    """A loop from 0 to a number above 0 that carries values."""

    def __init__(self, build: Any, count: Any, *carried: Any) -> None:
        self._build, self._count = build, count
        before = build.block
        self._body, self._after = (build.append_basic_block(name) for name in ("body", "after"))
        build.branch(self._body)
        build.position_at_end(self._body)
        self.number = build.phi(_LONG)
        self.number.add_incoming(_LONG(0), before)
        self.carried = [build.phi(value.type) for value in carried]
        for phi, value in zip(self.carried, carried, strict=True):
            phi.add_incoming(value, before)

    def end(self, *carried: Any) -> None:
        """Close the loop with what the next round gets."""
        build = self._build
        following = build.add(self.number, _LONG(1))
        self.number.add_incoming(following, build.block)
        for phi, value in zip(self.carried, carried, strict=True):
            phi.add_incoming(value, build.block)
        build.cbranch(build.icmp_signed("<", following, self._count), self._body, self._after)
        build.position_at_end(self._after)


@intrinsic(prefer_literal=True)
def convert_rows(
    typing_context: Any,
    currents: Any,
    parts: Any,
    count: Any,
    passes: Any,
    to_code: Any,
    limits: Any,
    weights: Any,
    total: Any,
    stride: Any,
    double: Any,
) -> Any:
    """Write the weighted sums of the codes of some rows of 16 columns; return how many codes were
    out of range.

    Parameters
    ----------
    currents : int
        Address of tiles (passes, parts, 16, 16) int32; see `conversion.convert_and_add`.
    parts : int literal
        1 or 2.
    count, passes : int
        Rows and passes, one at least.
    to_code, limits : int
        Addresses of 16 float32 each: what turns steps into codes, and the largest code.
    weights : int
        Address of (passes,) float32.
    total : int
        Address of the sums, 16 of a row.
    stride : int
        Bytes from one row of sums to the next.
    double : int literal
        1: sums are float64; 0: float32.
    """
    which, wide = parts.literal_value, bool(double.literal_value)
    sums, number = (_DOUBLES, _DOUBLE) if wide else (_FLOATS, _FLOAT)

    def generate(context: Any, build: Any, signature: Any, given: Any) -> Any:
        place, _, rows, rounds, codes, most, weighs, out, apart, _ = given
        scale, top = (_at(build, address, _LONG(0), _FLOATS) for address in (codes, most))
        bottom = build.fneg(top)
        outer = _Loop(build, rows, ir.Constant(_INTS, [0] * SIDE))
        row = build.add(place, build.mul(outer.number, _LONG(_ROW)))
        inner = _Loop(build, rounds, ir.Constant(sums, [0.0] * SIDE), outer.carried[0])
        at = build.add(row, build.mul(inner.number, _LONG(which * _TILE)))
        scaled = build.fmul(_current(build, at, which), scale)
        code = _called(build, "llvm.rint.v16f32", scaled, returns=_FLOATS)
        kept = build.select(build.fcmp_ordered("<", code, top), code, top)
        kept = build.select(build.fcmp_ordered(">", kept, bottom), kept, bottom)
        beyond = build.zext(build.fcmp_unordered("!=", kept, code), _INTS)
        weight = _at(build, weighs, build.mul(inner.number, _LONG(4)), _FLOAT)
        if wide:
            weight, kept = build.fpext(weight, number), build.fpext(kept, sums)
        weighted = build.fmul(kept, _repeated(build, weight, sums))
        added = build.fadd(inner.carried[0], weighted)
        found = build.add(inner.carried[1], beyond)
        inner.end(added, found)
        where = build.add(out, build.mul(outer.number, apart))
        build.store(added, _pointer(build, where, sums), align=4)
        outer.end(found)
        return _called(build, "llvm.vector.reduce.add.v16i32", found, returns=_WORD)

    arguments = types.intp, parts, *[types.intp] * 7, double
    return types.int32(*arguments), generate


@intrinsic(prefer_literal=True)
def large_codes(
    typing_context: Any,
    currents: Any,
    parts: Any,
    passes: Any,
    to_code: Any,
    least: Any,
    top: Any,
    places: Any,
    out: Any,
) -> Any:
    """Write where the codes of one row of 16 columns are counted, of those above a magnitude, and
    return how many they are.

    Parameters
    ----------
    currents : int
        Address of a row of tiles (passes, parts, 16, 16) int32.
    parts, passes, to_code
        See `convert_rows`.
    least, top : int32
        Magnitudes up to `least` are left out; those above `top` count as one more.
    places : int
        Address of 16 int32, added to the magnitudes of the columns.
    out : int
        Address of room for ``16 * passes`` int32.
    """
    which = parts.literal_value

    def generate(context: Any, build: Any, signature: Any, given: Any) -> Any:
        place, _, rounds, codes, low, high, first, room = given
        scale = _at(build, codes, _LONG(0), _FLOATS)
        column = _at(build, first, _LONG(0), _INTS)
        bound = _repeated(build, low, _INTS)
        most = build.sitofp(_repeated(build, build.add(high, _WORD(1)), _INTS), _FLOATS)
        loop = _Loop(build, rounds, _LONG(0))
        at = build.add(place, build.mul(loop.number, _LONG(which * _TILE)))
        scaled = build.fmul(_current(build, at, which), scale)
        code = _called(build, "llvm.rint.v16f32", scaled, returns=_FLOATS)
        size = _called(build, "llvm.fabs.v16f32", code, returns=_FLOATS)
        size = build.select(build.fcmp_ordered("<", size, most), size, most)
        magnitude = build.fptosi(size, _INTS)
        chosen = build.icmp_signed(">", magnitude, bound)
        short = ir.IntType(16)
        bits = build.bitcast(chosen, short)
        # To write none of them would take as long as to write all.
        before = build.block
        some, then = build.append_basic_block("some"), build.append_basic_block("then")
        build.cbranch(build.icmp_unsigned("!=", bits, short(0)), some, then)
        build.position_at_end(some)
        to = _pointer(build, build.add(room, build.mul(loop.carried[0], _LONG(4))))
        where = build.add(magnitude, column)
        _called(build, "llvm.masked.compressstore.v16i32", where, to, chosen)
        found = build.zext(_called(build, "llvm.ctpop.i16", bits, returns=short), _LONG)
        more = build.add(loop.carried[0], found)
        build.branch(then)
        build.position_at_end(then)
        total = build.phi(_LONG)
        total.add_incoming(loop.carried[0], before)
        total.add_incoming(more, some)
        loop.end(total)
        return total

    arguments = types.intp, parts, types.intp, types.intp, types.int32, types.int32
    return types.intp(*arguments, types.intp, types.intp), generate


@intrinsic
def drive_row(
    typing_context: Any, inputs: Any, count: Any, passes: Any, digits: Any, apart: Any
) -> Any:
    """Write the signed digits of one bit of a row of inputs.

    Parameters
    ----------
    inputs : int
        Address of int32 of 7 bits and a sign.
    count : int
        How many there are, one at least.
    passes : int
        Digits of each, 7 at most.
    digits : int
        Address of the digits of the first pass, int8: whole groups of 64 with zeros at the end.
    apart : int
        Bytes from one pass to the next.
    """
    many = ir.VectorType(_BYTE, DEEP)
    few = ir.VectorType(_BYTE, SIDE)
    lanes = ir.Constant(_INTS, list(range(SIDE)))

    def quarter(build: Any, inputs: Any, count: Any, first: Any) -> tuple[Any, Any]:
        """Return magnitudes and signs, 1 or -1, of 16 inputs; magnitudes of 0 behind the last."""
        left = build.trunc(build.sub(count, first), _WORD)
        there = build.icmp_signed("<", lanes, _repeated(build, left, _INTS))
        place = _pointer(build, build.add(inputs, build.mul(first, _LONG(4))))
        nothing = ir.Constant(_INTS, [0] * SIDE)
        values = _called(
            build, "llvm.masked.load.v16i32.p0", place, _WORD(4), there, nothing, returns=_INTS
        )
        negative = build.icmp_signed("<", values, nothing)
        size = build.select(negative, build.sub(nothing, values), values)
        ones = (ir.Constant(few, [number] * SIDE) for number in (-1, 1))
        return build.trunc(size, few), build.select(negative, *ones)

    def together(build: Any, parts: list[Any]) -> Any:
        while len(parts) > 1:
            size = 2 * parts[0].type.count
            order = ir.Constant(ir.VectorType(_WORD, size), list(range(size)))
            parts = [
                build.shuffle_vector(*parts[place : place + 2], order)
                for place in range(0, len(parts), 2)
            ]
        return parts[0]

    def generate(context: Any, build: Any, signature: Any, given: Any) -> Any:
        inputs, count, passes, digits, apart = given
        groups = build.sdiv(build.add(count, _LONG(DEEP - 1)), _LONG(DEEP))
        outer = _Loop(build, groups)
        first = build.mul(outer.number, _LONG(DEEP))
        quarters = [
            quarter(build, inputs, count, build.add(first, _LONG(place)))
            for place in range(0, DEEP, SIDE)
        ]
        sizes, signs = (together(build, list(parts)) for parts in zip(*quarters, strict=True))
        nothing = ir.Constant(many, [0] * DEEP)
        place = build.add(digits, first)
        inner = _Loop(build, passes, ir.Constant(many, [1] * DEEP))
        bit = inner.carried[0]
        driven = build.icmp_signed("!=", build.and_(sizes, bit), nothing)
        at = build.add(place, build.mul(inner.number, apart))
        build.store(build.select(driven, signs, nothing), _pointer(build, at, many), align=1)
        inner.end(build.add(bit, bit))
        outer.end()
        return context.get_dummy_value()

    return types.void(*[types.intp] * 5), generate
