"""Products by other units of a processor: the same numbers, bit for bit."""

import dataclasses
import importlib.metadata
import math

import numba
import numpy as np
import pytest

from repast_dist.analog import (
    AdcSpec,
    DacSpec,
    DeviceSpec,
    Reram,
    VmmSpec,
    WireSpec,
    program_vmm,
)
from repast_dist.analog.arrays.planes import contents
from repast_dist.analog.arrays.tiles import hold
from repast_dist.analog.kernels import chosen, float32, onednn, tile_registers
from repast_dist.analog.kernels.amx import AmxTiles
from repast_dist.analog.kernels.base import (
    LARGEST_STEPS,
    Conversions,
    Design,
    DrawnColumns,
    Held,
    Kept,
    in_steps,
    step_of,
)
from repast_dist.analog.kernels.chosen import available, current, kernels, using
from repast_dist.analog.kernels.conversion import (
    largest_magnitudes,
    plain,
    round_to_integers,
)
from repast_dist.analog.kernels.driven import DrivenTile
from repast_dist.analog.kernels.float32 import FloatTile
from repast_dist.analog.kernels.int8 import Int8Tile
from repast_dist.analog.kernels.summed import Summed, sums_are_exact
from repast_dist.analog.kernels.tiles import Tiled
from repast_dist.analog.kernels.together import Together
from repast_dist.analog.kernels.vectors import wide
from repast_dist.ground.errors import SettingsError

NAMES = available()
needs_several = pytest.mark.skipif(len(NAMES) < 2, reason="this machine has one kind of kernels")
needs_amx = pytest.mark.skipif("amx" not in NAMES, reason="no matrix unit on this machine")
needs_int8 = pytest.mark.skipif("int8" not in NAMES, reason="no int8 kernels on this machine")


def spec(adc: AdcSpec | None = None, dac_bits: int = 1, rows: int = 256, **cell: float) -> VmmSpec:
    device = DeviceSpec(cell=Reram(**{"bits": 4, **cell}))  # type: ignore[arg-type]
    adc = adc or AdcSpec(bits=8, range="calibrated")
    return VmmSpec(device=device, adc=adc, dac=DacSpec(bits=dac_bits), rows=rows)


def with_dacs(ideal: VmmSpec, **errors: float) -> VmmSpec:
    return dataclasses.replace(ideal, dac=dataclasses.replace(ideal.dac, **errors))


CASES = {
    "whole levels": spec(AdcSpec(bits=8, range="full")),
    "calibrated": spec(),
    "programming errors": spec(programming_sigma=0.02),
    "unclipped errors": spec(programming_sigma=0.1, clip=False),
    "read noise": spec(programming_sigma=0.01, read_sigma=0.01),
    "read noise, whole levels": spec(read_sigma=0.01),
    "cells of eight bits": spec(bits=8),
    "noisy cells of eight bits": spec(bits=8, programming_sigma=0.01),
    "four bits a pass": spec(dac_bits=4, programming_sigma=0.01),
    "eight bits a pass": spec(dac_bits=8, programming_sigma=0.01),
    "lossless converters, noisy cells": spec(AdcSpec(range="lossless"), programming_sigma=0.01),
    "DACs of one bit": with_dacs(spec(), gain_error=0.01, noise_lsb=0.05),
    "DACs of two bits": with_dacs(
        spec(dac_bits=2), gain_error=0.01, offset_lsb=0.3, inl_lsb=0.2, noise_lsb=0.05
    ),
    "converters with errors": spec(
        AdcSpec(range="calibrated", offset_lsb=0.5, gain_error=0.01, inl_lsb=0.5, noise_lsb=0.3)
    ),
    "converters of twelve bits": spec(AdcSpec(bits=12, range="full"), programming_sigma=0.01),
    "more rows than sums are exact for": spec(rows=2048, dac_bits=4, programming_sigma=0.01),
}


def operands(shape: tuple[int, int, int], seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    count, rows, columns = shape
    return random.normal(size=(count, rows)), random.normal(size=(rows, columns))


@needs_several
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("shape", [(5, 300, 170), (33, 1030, 70), (90, 256, 256), (2, 3, 1)])
def test_all_kernels_give_the_same_bits(name: str, shape: tuple[int, int, int]) -> None:
    inputs, weights = operands(shape)
    found = []
    for kernel in NAMES:
        with using(kernel):
            array = program_vmm(weights, CASES[name], 1, "w")
            array.calibrate(inputs)
            assert array.ranges is not None
            kept = array.multiply(inputs)
            narrow = array.multiply(inputs, ranges=np.float32(0.2) * array.ranges)
            found.append((array.ranges, kept, narrow))
    for ranges, *products in found[1:]:
        np.testing.assert_array_equal(ranges, found[0][0])
        for product, other in zip(products, found[0][1:], strict=True):
            np.testing.assert_array_equal(product.values, other.values)
            assert product.clipped == other.clipped
            np.testing.assert_array_equal(product.needed, other.needed)


@needs_several
@pytest.mark.parametrize("name", CASES)
def test_all_kernels_give_the_same_bits_of_stacks(name: str) -> None:
    random = np.random.default_rng(5)
    inputs, weights = random.normal(size=(9, 20, 33)), random.normal(size=(9, 33, 21))
    found = []
    for kernel in NAMES:
        with using(kernel):
            found.append(program_vmm(weights, CASES[name], 1, "w").multiply(inputs))
    for product in found[1:]:
        np.testing.assert_array_equal(product.values, found[0].values)
        assert product.clipped == found[0].clipped
        np.testing.assert_array_equal(product.needed, found[0].needed)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rows", [256, 70, 6])
@pytest.mark.parametrize("sigma", [0.01, 1e-4])
@pytest.mark.parametrize("places", [1, 3])
def test_what_is_drawn_as_kernels_take_it_is_what_is_held(name, rows, sigma, places) -> None:
    # Small weights of exact cells need a smaller step than the largest level does.
    how = spec(rows=rows, programming_sigma=sigma)
    random = np.random.default_rng(8)
    whole = random.integers(-7, 8, size=(3, 150, 37)).astype(float)
    drawn = contents(whole, how, 1, [("here", n) for n in range(places)])
    inputs = np.ascontiguousarray(random.integers(-99, 100, size=(3, 5, 150)), np.int32)

    def currents(held: Held) -> list[np.ndarray]:
        return [held.currents(tile, range(5), inputs).copy() for tile in range(3 * held.per)]

    with using(name):
        for part in (drawn, DrawnColumns(drawn, 5, 30), DrawnColumns(drawn, 36, 37)):
            found = hold(part, how, 1, "here")
            expected = hold(Kept(part.planes, part.step), how, 1, "here")
            assert found.shape == expected.shape
            for some, others in zip(currents(found), currents(expected), strict=True):
                np.testing.assert_array_equal(some, others)


def design(top: int, whole: bool, rows: int = 4096) -> Design:
    bits = int(math.log2(top + 1))
    answers = np.arange(top + 1)
    return Design(rows, 7 // bits, bits, answers, whole, 127.0, np.ones(2), 0.0, 0.0)


def digits_of(integers: np.ndarray, how: Design) -> np.ndarray:
    """(N, K) to (N, passes, K) signed digits."""
    shifts = how.bits * np.arange(how.passes)[:, None]
    return np.sign(integers)[:, None] * (np.abs(integers)[:, None] >> shifts & how.top)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("top", [1, 3, 127])
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    "shape",
    [(7, 256, 100), (61, 100, 200), (128, 31, 1024), (17, 65, 64), (5, 3, 2), (3, 600, 90)],
)
def test_currents_are_the_exact_sums(
    name: str, top: int, whole: bool, shape: tuple[int, int, int]
) -> None:
    random = np.random.default_rng(4)
    count, rows, columns = shape
    levels = random.integers(-15, 16, size=(1, rows, 2, columns)).astype(np.float32)
    # The ends of the range: of digits, and of what two 8-bit parts can hold.
    levels[:, 0] = 15.0
    if not whole:
        levels = in_steps(levels + 0.05 * random.normal(size=levels.shape))
    how = design(top, whole)
    integers = random.integers(-127, 128, size=(1, count, rows)).astype(np.int32)
    integers[:, :, 0] = 127
    # Rows that nothing drives, a sample that nothing does, and one of a single sign.
    integers[:, :, 2], integers[:, 1] = 0, 0
    integers[:, 2] = np.abs(integers[:, 2])
    currents = kernels(name).hold(levels, how).currents(0, range(count), integers)
    steps = np.rint(levels[0].astype(np.float64) / step_of(levels)).astype(np.int64)
    np.testing.assert_array_equal(steps * step_of(levels), levels[0])
    exact = np.tensordot(digits_of(integers[0], how), steps, 1)
    np.testing.assert_array_equal(currents, exact.astype(np.float32) * np.float32(step_of(levels)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("top", [1, 127])
def test_the_largest_digits_and_parts_do_not_saturate(name: str, whole: bool, top: int) -> None:
    # 8-bit units that add pairs of products in 16 bits would.
    levels = np.full((1, 256, 2, 150), 127.0 if whole else float(LARGEST_STEPS), np.float32)
    levels[:, ::2, :, ::3] = -levels[0, 0, 0, 0]
    how = design(top, whole)
    integers = np.ones((1, 3, 256), np.int32) * np.array([127, -127, 1], np.int32)[:, None]
    currents = kernels(name).hold(levels, how).currents(0, range(3), integers)
    exact = np.tensordot(digits_of(integers[0], how), levels[0].astype(np.int64), 1)
    np.testing.assert_array_equal(currents, exact.astype(np.float32))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("top", "level"), [(1, 31), (3, 31), (15, 31), (1, 3)])
def test_two_passes_in_one_plane_are_told_apart(name: str, top: int, level: int) -> None:
    # All rows of one pass and most of the next, of cells at the top: the quotient of both is so
    # near to a half that it must not be rounded.
    random = np.random.default_rng(3)
    rows = 60 * 31 // (top * level)
    levels = np.full((1, rows, 1, 3), float(level), np.float32)
    how = design(top, True, rows)
    digits = np.full((200, how.passes, rows), top)
    digits[:, 1::2] = random.integers(0, top + 1, digits[:, 1::2].shape)
    digits[:100, 1::2] = np.where(random.random((100, 1, 1)) < random.random(rows), top, 0)
    integers = np.tensordot(digits, 2 ** (how.bits * np.arange(how.passes)), (1, 0))
    integers = np.ascontiguousarray(integers[None], np.int32)
    result = np.zeros((1, 200, 3))
    nothing = np.zeros((1, 0, 0, 0), np.float32), np.zeros((1, 0), np.bool_)
    ranges, keys = np.array([np.inf], np.float32), np.zeros((1, 1), np.uint64)
    counts = np.zeros((1, 1, 33), np.int64)
    one = dataclasses.replace(how, slice_weights=np.ones(1))
    tiles = kernels(name).hold(levels, one)
    tiles.add_products(integers, result, Conversions(ranges, keys, *nothing, counts))
    np.testing.assert_array_equal(result[0], integers[0] @ levels[0, :, 0].astype(np.float64))


@pytest.mark.parametrize("name", NAMES)
def test_arrays_of_zeros_answer_nothing_to_digits_that_are_off(name: str) -> None:
    bent = VmmSpec(adc=AdcSpec(range="full"), dac=DacSpec(bits=2, offset_lsb=0.3, inl_lsb=0.2))
    with using(name):
        product = program_vmm(np.zeros((20, 5)), bent).multiply(operands((3, 20, 1))[0])
    np.testing.assert_array_equal(product.values, np.zeros((3, 5)))


@pytest.mark.parametrize("shape", [(70, 300, 170), (40, 16, 72), (9, 128, 25), (3, 250, 1)])
@pytest.mark.parametrize("driven", [0.0, 0.1, 1.0])
def test_sums_of_rows_are_converted_and_counted_as_numpy_does(
    shape: tuple[int, int, int], driven: float
) -> None:
    random = np.random.default_rng(6)
    count, rows, columns = shape
    levels = in_steps(random.normal(scale=5.0, size=(2, rows, 2, columns)))
    how, step = dataclasses.replace(design(1, False, 128), step=step_of(levels)), step_of(levels)
    integers = random.integers(-127, 128, size=(2, count, rows)).astype(np.int32)
    integers[random.random(integers.shape) >= driven] = 0
    tiles = Summed.of_levels(levels, how)
    ranges = np.array([60.0, 25.0], np.float32)
    counted = random.random((2, count)) < 0.5
    result, counts = np.zeros((2, count, columns)), np.zeros((2, 2, 33), np.int64)
    none, keys = np.zeros((tiles.per, 0, 0, 0), np.float32), np.zeros((tiles.per, 2), np.uint64)
    least = 63
    conversions = Conversions(ranges, keys, none, counted, counts, least)
    clipped = tiles.add_products(integers, result, conversions)
    values, beyond, found = np.zeros(result.shape), 0, np.zeros(counts.shape, np.int64)
    for which in range(2):
        for first in range(0, rows, how.rows):
            part = slice(first, first + how.rows)
            steps = np.rint(levels[which, part] / step).astype(np.int64)
            sums = np.tensordot(digits_of(integers[which, :, part], how), steps, 1)
            worth = ranges.astype(np.float64) / 127.0
            to_code = np.float32(step) * (127.0 / ranges.astype(np.float64)).astype(np.float32)
            codes = np.rint(sums.astype(np.float32) * to_code[:, None]).astype(np.int64)
            beyond += int((np.abs(codes) > 127).sum())
            whole = np.einsum("npsm,p->nsm", codes.clip(-127, 127), 2 ** np.arange(7))
            values[which] += np.einsum("nsm,s->nm", whole, worth)
            sizes = np.minimum(np.abs(codes), 128)
            places = np.where(sizes > least, np.maximum(sizes * 32 - 1, 0) // 127, 0)
            places = np.where(sizes > 127, 32, places)
            for n in np.flatnonzero(counted[which]):
                for number, of_slice in enumerate(places[n].swapaxes(0, 1)):
                    found[which, number] += np.bincount(of_slice.ravel(), minlength=33)
    assert clipped == beyond
    assert beyond or driven < 1.0
    np.testing.assert_array_equal(counts, found)
    np.testing.assert_allclose(result, values, rtol=1e-12, atol=1e-9)


ONE_BIT = [
    name
    for name, case in CASES.items()
    if case.dac.bits == 1 and not (case.holds_levels or case.dac.gain_error)
]


@pytest.mark.parametrize("name", ONE_BIT)
@pytest.mark.parametrize("shape", [(40, 300, 70), (90, 16, 72), (5, 25, 9)])
def test_sums_of_rows_give_the_bits_of_matrix_products(
    name: str, shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, weights = operands(shape)
    # Half as activations are, none below zero, half as errors.
    inputs[::2] = np.maximum(inputs[::2], 0.0)
    inputs[1::2] *= np.random.default_rng(9).random(inputs[1::2].shape) < 0.1
    found = []
    with using("float32"):
        for summed in (True, False):
            if not summed:
                monkeypatch.setattr(float32, "sums_are_exact", lambda shape, design: False)
            array = program_vmm(weights, CASES[name], 1, "w")
            assert isinstance(array._held, Summed) == summed
            array.calibrate(inputs)
            assert array.ranges is not None
            narrow = array.multiply(inputs, ranges=np.float32(0.2) * array.ranges)
            some = array.columns(2, 8).multiply(inputs, ranges=array.ranges)
            found.append((array.ranges, array.multiply(inputs), narrow, some))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    for product, other in zip(found[0][1:], found[1][1:], strict=True):
        np.testing.assert_array_equal(product.values, other.values)
        assert product.clipped == other.clipped
        np.testing.assert_array_equal(product.needed, other.needed)


def test_rounding_to_steps_is_far_below_the_errors_of_cells() -> None:
    inputs, levels = operands((64, 256, 256))
    levels = np.clip(5.0 * levels, -15.0, 15.0)
    rounded = in_steps(levels)
    assert float(np.abs(rounded - levels).max()) <= step_of(levels) / 2
    error = np.linalg.norm(inputs @ (rounded - levels)) / np.linalg.norm(inputs @ levels)
    # Uniform errors of a step, 2^-11 of a level, against levels of about 5.
    assert error == pytest.approx(2.0**-11 / 12**0.5 / np.std(levels), rel=0.05)


@pytest.mark.parametrize("largest", [1e-3, 1.0, 15.0, 15.94, 300.0])
def test_steps_are_as_small_as_two_parts_allow(largest: float) -> None:
    step = step_of(np.array([-largest, 0.2 * largest]))
    assert math.log2(step).is_integer()
    assert largest / step <= LARGEST_STEPS < 2 * largest / step
    assert step_of(np.zeros(3)) == 1.0


@pytest.mark.parametrize("largest", [15.0, 8.0, 7.97, 7.968, 7.9, 0.3, 0.0])
def test_steps_are_the_same_where_the_most_is_known(largest: float) -> None:
    levels = np.zeros(20_000)
    levels[[5_000, 12_000]] = -largest, largest / 3
    assert step_of(levels, 15.0) == step_of(levels)


@pytest.mark.parametrize("cell", [{"programming_sigma": 0.3}, {"stuck_on_rate": 0.1}])
def test_no_cell_exceeds_what_is_said(cell: dict[str, float]) -> None:
    _, weights = operands((1, 64, 64))
    held = program_vmm(weights, spec(**cell), 1, "w").planes
    assert held is not None
    assert float(np.abs(held).max()) <= 15 * Reram(bits=4, **cell).highest == 15.0  # type: ignore[arg-type]


def test_kernels_are_those_of_the_block_and_otherwise_the_fastest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(chosen.VARIABLE, raising=False)
    assert current().name == NAMES[0]
    with using("float32"):
        assert current().name == "float32"
        with using("auto"):
            assert current().name == NAMES[0]
    monkeypatch.setenv(chosen.VARIABLE, "float32")
    assert current().name == "float32"
    monkeypatch.setenv(chosen.VARIABLE, "abacus")
    with pytest.raises(
        SettingsError, match=r"farm\.kernels=abacus.*valid: auto, amx, int8, float32"
    ):
        current()


def test_without_the_package_others_compute_and_int8_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(onednn.importlib.metadata, "files", missing)
    kernels.cache_clear()
    try:
        assert available() == tuple(name for name in NAMES if name != "int8")
        with pytest.raises(SettingsError, match=r"pip install 'repast-dist\[fast\]'"):
            kernels("int8")
    finally:
        monkeypatch.undo()
        kernels.cache_clear()


@needs_int8
def test_a_processor_without_8_bit_products_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn.OneDnn, "multiplies_int8", property(lambda self: False))
    kernels.cache_clear()
    try:
        with pytest.raises(SettingsError, match=r"farm\.kernels=int8: the processor has no"):
            kernels("int8")
        assert "int8" not in available()
    finally:
        monkeypatch.undo()
        kernels.cache_clear()


def test_a_processor_without_a_matrix_unit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chosen, "has_matrix_unit", lambda: False)
    kernels.cache_clear()
    try:
        with pytest.raises(SettingsError, match=r"farm\.kernels=amx: the processor has no matrix"):
            kernels("amx")
        assert kernels("auto").name in ("int8", "float32")
    finally:
        monkeypatch.undo()
        kernels.cache_clear()


def test_there_is_no_matrix_unit_where_code_is_compiled_for_another_processor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tile_registers.config, "CPU_NAME", "haswell")
    assert not tile_registers.has_matrix_unit.__wrapped__()


@needs_amx
def test_tiles_of_any_size_are_multiplied_by_the_matrix_unit() -> None:
    for shape in ((2, 3, 1), (5, 300, 170)):
        inputs, weights = operands(shape)
        with using("amx"):
            array = program_vmm(weights, CASES["programming errors"], 1, "w")
            assert np.isfinite(array.multiply(inputs).values).all()
            assert isinstance(array._held, AmxTiles)


def test_hot_loops_are_compiled_for_the_widest_vectors() -> None:
    @numba.njit
    def loop(values: np.ndarray) -> None:
        wide()
        for n in range(values.shape[0]):
            values[n] *= 3.0

    loop(np.empty(4, np.float32))
    assert all('"prefer-vector-width"="512"' in code for code in loop.inspect_llvm().values())


@needs_int8
def test_without_a_matrix_unit_the_rows_of_noisy_cells_are_summed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inputs, weights = operands((20, 256, 200))
    found = []
    for unit in (True, False):
        monkeypatch.setattr(onednn.OneDnn, "has_matrix_unit", unit)
        for name in ("programming errors", "calibrated"):
            with using("int8"):
                array = program_vmm(weights, CASES[name], 1, "w")
                found.append((type(array._held.tiles[0]), array.multiply(inputs).values))
    assert [kind for kind, _ in found] == [Int8Tile, Int8Tile, DrivenTile, Int8Tile]
    for (_, values), (_, others) in zip(found[:2], found[2:], strict=True):
        np.testing.assert_array_equal(values, others)


def test_wires_leave_multiples_of_a_step() -> None:
    _, weights = operands((1, 40, 12))
    wired = VmmSpec(
        device=DeviceSpec(cell=Reram(bits=4), wire=WireSpec(row_ohm=5.0, column_ohm=5.0)), rows=40
    )
    held = program_vmm(weights, wired).planes
    assert held is not None
    steps = held / step_of(held)
    np.testing.assert_array_equal(steps, np.rint(steps))


@pytest.mark.parametrize("shape", [(1, 70, 33), (3, 5, 64), (2, 0, 4), (1, 1, 1)])
@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_transposed_matrices_are_rounded_as_they_are(shape, dtype):
    turned = np.random.default_rng(8).normal(size=shape).swapaxes(1, 2)
    scales = 2.0 ** -np.arange(3.0, 3.0 + len(turned))
    for values in (turned, turned[:, ::2], turned.astype(np.float32), turned.copy()):
        found = plain(values)
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found, values)
        largest = np.abs(values).max(axis=(1, 2), initial=0.0)
        np.testing.assert_array_equal(largest_magnitudes(found), largest)
        whole = np.rint(values.astype(float) / scales[:, None, None])
        integers = np.empty(values.shape, dtype)
        beyond = round_to_integers(found, scales, 9.0, integers)
        np.testing.assert_array_equal(integers, np.clip(whole, -9.0, 9.0))
        assert beyond == np.count_nonzero(np.abs(whole) > 9.0)


def a_product(draw: np.random.Generator) -> tuple[np.ndarray, Design, np.ndarray, Conversions]:
    """Return what multipliers hold, how each is built, inputs and conversions, of odd sizes."""
    count, rows, slices, columns, samples, height = (
        int(draw.choice(sizes))
        for sizes in (
            [1, 2, 4], [1, 2, 5, 65, 130, 257], [1, 2, 3], [1, 7, 8, 21, 130], [0, 1, 31, 33, 70],
            [1, 3, 64, 256, 514],
        )
    )  # fmt: skip
    bits = int(draw.choice([1, 1, 2, 3]))
    passes = int(draw.choice([1, 2, 7, 31] if bits == 1 else [1, 2, 5]))
    whole, noisy, lossless = draw.random(3) < [0.3, 0.35, 0.1]
    shape = count, rows, slices, columns
    levels = draw.normal(scale=5.0, size=shape) * (draw.random(shape) < draw.choice([0.1, 1.0]))
    levels = np.rint(levels).astype(np.float32) if whole else in_steps(levels)
    codes, noise = float(draw.choice([1, 7, 127, 32767])), 0.2 * noisy
    answers, worth = np.arange(2**bits), draw.random(slices)
    how = Design(height, passes, bits, answers, bool(whole), codes, worth, noise / 2, noise)
    top = 2 ** min(passes * bits, 31) - 1
    integers = draw.integers(-top, top, size=(count, samples, rows), endpoint=True)
    integers[draw.random(integers.shape) >= draw.choice([0.0, 0.1, 1.0])] = 0
    tiles, calls = -(-rows // height), int(draw.choice([1, count]))
    ranges = (0.5 + draw.random(slices) * draw.choice([1, 30, 2000])).astype(np.float32)
    counted = draw.random((count, samples)) < 0.5
    errors = np.zeros((tiles, 0, 0, 0), np.float32)
    if lossless:
        ranges[:], counted = np.inf, counted[:, :0]
    elif draw.random() < 0.25:
        # Offsets, gains, and a bow and an S that are small beside a range.
        size = np.array([0.3, 0.01, 1e-3 / codes, 1e-3 / codes**2])[:, None, None]
        errors = size * draw.normal(size=(tiles, 4, slices, columns))
        errors[:, 1] += 1.0
    keys = draw.integers(0, 2**63, size=(tiles, calls)).astype(np.uint64)
    counts = np.zeros((calls, slices, 33), np.int64)
    kept = Conversions(ranges, keys, errors.astype(np.float32), counted, counts, int(codes) // 32)
    return levels, how, np.ascontiguousarray(integers, np.int32), kept


@pytest.mark.parametrize("number", range(40))
def test_all_ways_to_multiply_on_a_processor_give_the_same_bits(number: int) -> None:
    levels, how, integers, conversions = a_product(np.random.default_rng(number))
    held: list[Held] = [Tiled(levels, how, lambda blocks, _: FloatTile(blocks, how))]
    if how.top == 1:
        step = 1.0 if how.whole else step_of(levels)
        held.append(Tiled(levels, how, lambda blocks, _: DrivenTile(blocks, step)))
    if not how.whole:
        held.append(Together.of_levels(levels, how))
        if sums_are_exact(levels.shape, how):
            held.append(Summed.of_levels(levels, how))
    found = []
    for multipliers in held:
        result = np.zeros((*integers.shape[:2], levels.shape[3]))
        counts = np.zeros_like(conversions.counts)
        counted = dataclasses.replace(conversions, counts=counts)
        clipped = multipliers.add_products(integers, result, counted)
        found.append((result, counts, clipped))
    for result, counts, clipped in found[1:]:
        np.testing.assert_array_equal(result, found[0][0])
        np.testing.assert_array_equal(counts, found[0][1])
        assert clipped == found[0][2]
