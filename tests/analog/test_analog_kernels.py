"""Products by other units of a processor: the same numbers, bit for bit."""

import importlib.metadata
import math

import numpy as np
import pytest

from repast_dist.analog import AdcSpec, DacSpec, DeviceSpec, Reram, VmmSpec, WireSpec, program_vmm
from repast_dist.analog.kernels import chosen, onednn
from repast_dist.analog.kernels.base import LARGEST_STEPS, in_steps, step_of
from repast_dist.analog.kernels.chosen import available, current, kernels, using
from repast_dist.ground.errors import SettingsError

NAMES = available()
needs_int8 = pytest.mark.skipif("int8" not in NAMES, reason="no int8 kernels on this machine")


def spec(adc: AdcSpec | None = None, dac_bits: int = 1, rows: int = 256, **cell: float) -> VmmSpec:
    device = DeviceSpec(cell=Reram(**{"bits": 4, **cell}))  # type: ignore[arg-type]
    adc = adc or AdcSpec(bits=8, range="calibrated")
    return VmmSpec(device=device, adc=adc, dac=DacSpec(bits=dac_bits), rows=rows)


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
    "more rows than sums are exact for": spec(rows=2048, dac_bits=4, programming_sigma=0.01),
}


def operands(shape: tuple[int, int, int], seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    count, rows, columns = shape
    return random.normal(size=(count, rows)), random.normal(size=(rows, columns))


@needs_int8
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("shape", [(5, 300, 170), (33, 1030, 70), (90, 256, 256)])
def test_all_kernels_give_the_same_bits(name: str, shape: tuple[int, int, int]) -> None:
    inputs, weights = operands(shape)
    found = []
    for kernel in NAMES:
        with using(kernel):
            array = program_vmm(weights, CASES[name], 1, "w")
            array.calibrate(inputs)
            assert array.ranges is not None
            found.append((array.multiply(inputs).values, array.ranges))
    for values, ranges in found[1:]:
        np.testing.assert_array_equal(values, found[0][0])
        np.testing.assert_array_equal(ranges, found[0][1])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("top", [1, 3, 127])
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("shape", [(7, 256, 200), (61, 100, 400), (128, 31, 2048)])
def test_currents_are_the_exact_sums(
    name: str, top: int, whole: bool, shape: tuple[int, int, int]
) -> None:
    random = np.random.default_rng(4)
    count, rows, columns = shape
    levels = random.integers(-15, 16, size=(rows, columns)).astype(np.float32)
    # The ends of the range: of digits, and of what two 8-bit parts can hold.
    levels[0] = 15.0
    if not whole:
        levels = in_steps(levels + 0.05 * random.normal(size=levels.shape))
    digits = random.integers(-top, top + 1, size=(count, rows)).astype(np.int32)
    digits[:, 0] = top
    tile = kernels(name).tile(levels, whole, np.arange(top + 1))
    bits = int(math.log2(top + 1))
    planes = tile.plane_memory(count, 1)
    tile.planes(digits, bits, 1, planes)
    currents = np.empty((count, columns), np.float32)
    tile.product(planes[:, 0], currents)
    steps = np.rint(levels.astype(np.float64) / tile.step).astype(np.int64)
    np.testing.assert_array_equal(steps * tile.step, levels)
    exact = digits.astype(np.int64) @ steps
    np.testing.assert_array_equal(currents, exact.astype(np.float32))


@needs_int8
@pytest.mark.parametrize("whole", [True, False])
def test_the_largest_digits_and_parts_do_not_saturate(whole: bool) -> None:
    # 8-bit units that add pairs of products in 16 bits would.
    top, shape = 127, (256, 300)
    levels = np.full(shape, 127.0 if whole else float(LARGEST_STEPS), np.float32)
    levels[::2, ::3] = -levels[0, 0]
    tile = kernels("int8").tile(levels, whole, np.arange(top + 1))
    planes = tile.plane_memory(3, 1)
    planes[:] = np.array([127, -127, 1], planes.dtype)[:, None, None]
    currents = np.empty((3, 300), np.float32)
    tile.product(planes[:, 0], currents)
    exact = planes[:, 0].astype(np.int64) @ levels.astype(np.int64)
    np.testing.assert_array_equal(currents, exact.astype(np.float32))


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
    with pytest.raises(SettingsError, match=r"farm\.kernels=abacus.*valid: auto, float32, int8"):
        current()


def test_without_the_package_float32_computes_and_int8_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(onednn.importlib.metadata, "files", missing)
    kernels.cache_clear()
    try:
        assert available() == ("float32",)
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
        assert kernels("auto").name == "float32"
    finally:
        monkeypatch.undo()
        kernels.cache_clear()


def test_wires_leave_multiples_of_a_step() -> None:
    _, weights = operands((1, 40, 12))
    wired = VmmSpec(
        device=DeviceSpec(cell=Reram(bits=4), wire=WireSpec(row_ohm=5.0, column_ohm=5.0)), rows=40
    )
    held = program_vmm(weights, wired).planes
    assert held is not None
    steps = held / step_of(held)
    np.testing.assert_array_equal(steps, np.rint(steps))
