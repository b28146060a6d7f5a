"""Stacks of multipliers compute what each of them would on its own."""

import numpy as np
import pytest

from repast_dist.analog import (
    AdcSpec,
    CurveSpec,
    DacSpec,
    DeviceSpec,
    Reram,
    VmmSpec,
    WireSpec,
    program_vmm,
)
from repast_dist.analog.arrays import converters
from repast_dist.analog.kernels.chosen import available, using
from repast_dist.ground.errors import DataError
from repast_dist.hardware import product_counts
from repast_dist.settings import load_settings

NOISY = Reram(bits=4, programming_sigma=0.01)
LOSSLESS = AdcSpec(range="lossless")


def _operands(count=3, rows=10, inner=20, columns=6):
    random = np.random.default_rng(5)
    sizes = 10.0 ** np.arange(count).reshape(count, 1, 1)
    weights = random.standard_normal((count, inner, columns)) * sizes
    return weights, random.standard_normal((count, rows, inner)) / sizes


@pytest.mark.parametrize("rows", [256, 8])
@pytest.mark.parametrize(
    "device", [
        DeviceSpec(cell=Reram(bits=4)),
        DeviceSpec(cell=Reram(bits=4), curve=CurveSpec(v0_volts=0.25)),
        DeviceSpec(cell=Reram(bits=4), wire=WireSpec(row_ohm=1.0, column_ohm=1.0)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("adc", [LOSSLESS, AdcSpec(range="full", bits=8)])
def test_a_stack_without_draws_is_its_multipliers_side_by_side(device, adc, rows):
    weights, inputs = _operands()
    spec = VmmSpec(device=device, adc=adc, rows=rows, dac=DacSpec(bits=2))
    product = program_vmm(weights, spec).multiply(inputs)
    alone = [program_vmm(w, spec).multiply(x) for w, x in zip(weights, inputs, strict=True)]
    np.testing.assert_array_equal(product.values, np.stack([one.values for one in alone]))
    assert product.conversions == sum(one.conversions for one in alone)
    assert product.clipped == sum(one.clipped for one in alone)


def test_every_multiplier_has_errors_of_its_own_and_of_the_size_that_is_set():
    weights = np.ones((40, 30, 8))
    stack = program_vmm(weights, VmmSpec(device=DeviceSpec(cell=NOISY)), 1, "x")
    # The upper digit of 127 is 7 of 15 levels, where one cell of a pair is at an end of its range.
    errors = (stack.planes[:, :, 1] - 7).reshape(40, -1) / 15
    assert np.sqrt(np.square(errors).mean()) == pytest.approx(NOISY.pair_error, rel=0.05)
    correlation = np.corrcoef(errors) - np.eye(40)
    assert np.abs(correlation).max() < 0.3


@pytest.mark.parametrize("spec", [
    VmmSpec(device=DeviceSpec(cell=NOISY)),
    VmmSpec(device=DeviceSpec(cell=NOISY), rows=8),
    VmmSpec(device=DeviceSpec(cell=Reram(bits=4, programming_sigma=0.01, read_sigma=0.01))),
    VmmSpec(adc=AdcSpec(noise_lsb=0.3, offset_lsb=0.5)),
], ids=["programmed", "several tiles", "read noise", "converters"])  # fmt: skip
def test_all_kernels_give_the_same_bits(spec):
    found = []
    # So large that tiles are worth a library's call.
    weights, inputs = _operands(3, 5, 256, 96)
    for name in available():
        with using(name):
            stack = program_vmm(weights, spec, 0, "x")
            first = stack.multiply(inputs, "call")
            found.append((first, stack.multiply(inputs, "call", ranges=first.needed)))
    for first, second in found[1:]:
        for one, other in ((found[0][0], first), (found[0][1], second)):
            np.testing.assert_array_equal(one.values, other.values)
            np.testing.assert_array_equal(one.needed, other.needed)


def test_noise_of_reads_differs_between_multipliers_rows_and_calls():
    cell = Reram(bits=4, read_sigma=0.02)
    spec = VmmSpec(device=DeviceSpec(cell=cell), adc=AdcSpec(range="full", bits=14))
    stack = program_vmm(np.ones((4, 16, 5)), spec, 0, "x")
    values = stack.multiply(np.ones((4, 3, 16)), "call").values
    assert len(np.unique(values.round(9))) > 50
    assert not np.array_equal(values, stack.multiply(np.ones((4, 3, 16)), "other").values)
    np.testing.assert_array_equal(values, stack.multiply(np.ones((4, 3, 16)), "call").values)


def test_kept_ranges_are_found_from_all_multipliers():
    weights, inputs = _operands(60, 8, 24, 10)
    stack = program_vmm(weights / 10.0 ** np.arange(60).reshape(60, 1, 1), VmmSpec(), 0, "x")
    of_call = stack.multiply(inputs, "call").needed
    kept = stack.multiply(inputs, "call", ranges=of_call)
    np.testing.assert_allclose(kept.needed, of_call, rtol=0.1)
    assert kept.clip_rate < 0.01


@pytest.mark.parametrize(
    "inputs", [np.zeros((2, 3, 5)), np.zeros((3, 5)), np.full((3, 3, 4), np.inf)]
)
def test_inputs_of_another_shape_or_without_end_are_refused(inputs):
    stack = program_vmm(np.ones((3, 4, 2)), VmmSpec())
    with pytest.raises(DataError, match="a multiplier takes"):
        stack.multiply(inputs)
    with pytest.raises(DataError, match="a multiplier takes"):
        program_vmm(np.full((2, 3, 4), np.nan), VmmSpec())


@pytest.mark.parametrize(("count", "rows"), [(3, 10), (3, 30), (40, 2), (1, 3)])
def test_as_many_codes_are_counted_for_the_next_range_as_are_priced(count, rows, monkeypatch):
    counted = []

    def needed_ranges(counts, *others):
        counted.append(int(counts.sum()))
        return converters.needed_ranges(counts, *others)

    monkeypatch.setattr("repast_dist.analog.arrays.vmm.needed_ranges", needed_ranges)
    hardware = load_settings(["chip=small"]).hardware
    geometry, spec = hardware.geometry, hardware.vmm_spec
    weights, inputs = _operands(count, rows, inner=200)
    stack = program_vmm(weights, spec)
    stack.multiply(inputs, ranges=np.full(spec.slices, 100.0, np.float32))
    priced = product_counts(geometry, rows, 200, 6, count, stacked=True)
    assert counted == [priced["counter_ops"]]
    assert min(count * rows, 32) * spec.passes * spec.slices * 2 * 6 == counted[0]
