"""Products of several calls at once have the bits of one call after the other."""

import dataclasses

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
from repast_dist.analog.arrays.vmm import program_each
from repast_dist.analog.kernels.chosen import available, using
from repast_dist.ground.errors import DataError
from repast_dist.ground.rng import When

NOISY = Reram(bits=4, programming_sigma=0.01)
READ = Reram(bits=4, programming_sigma=0.01, read_sigma=0.01)
UNEVEN = AdcSpec(noise_lsb=0.3, offset_lsb=0.5, inl_lsb=0.2)
CASES = {
    "exact": VmmSpec(adc=AdcSpec(range="lossless")),
    "whole levels": VmmSpec(),
    "programmed": VmmSpec(device=DeviceSpec(cell=NOISY)),
    "several tiles": VmmSpec(device=DeviceSpec(cell=NOISY), rows=16),
    "read noise": VmmSpec(device=DeviceSpec(cell=READ), rows=16),
    "converters": VmmSpec(device=DeviceSpec(cell=READ), adc=UNEVEN),
    "wires": VmmSpec(device=DeviceSpec(cell=NOISY, wire=WireSpec(row_ohm=1.0, column_ohm=1.0))),
    "curved cells": VmmSpec(device=DeviceSpec(cell=NOISY, curve=CurveSpec(v0_volts=0.25))),
    "bent inputs": VmmSpec(dac=DacSpec(bits=2, offset_lsb=0.1, gain_error=0.01)),
    "full range": VmmSpec(device=DeviceSpec(cell=NOISY), adc=AdcSpec(range="full")),
}
CALLS = 5


def addresses(what):
    return [(what, When(3), "layer", number) for number in range(CALLS)]


def same(found, each):
    np.testing.assert_array_equal(found.values, np.stack([one.values for one in each]))
    for name in ("conversions", "clipped", "clipped_inputs"):
        assert getattr(found, name) == sum(getattr(one, name) for one in each)
    if each[0].needed is None:
        assert found.needed is None
    else:
        np.testing.assert_array_equal(found.needed, np.max([one.needed for one in each], axis=0))


@pytest.mark.parametrize("kernels", available())
@pytest.mark.parametrize("spec", CASES.values(), ids=CASES)
@pytest.mark.parametrize("stack", [(), (3,)], ids=["matrix", "stack"])
def test_several_calls_are_one_after_the_other(spec, kernels, stack):
    random = np.random.default_rng(4)
    sizes = 3.0 ** np.arange(CALLS).reshape(CALLS, *[1] * (2 + len(stack)))
    held = random.standard_normal((CALLS, *stack, 40, 12)) * sizes
    # More rows than set a range, and not all of one size.
    inputs = random.standard_normal((CALLS, *stack, 35, 40)) * sizes**2
    kept = np.full(spec.slices, 25.0, np.float32) if spec.adc.range == "calibrated" else None
    calls = addresses("gradient")
    with using(kernels):
        alone = [
            program_vmm(one, spec, 7, *address)
            for one, address in zip(held, addresses("activations"), strict=True)
        ]
        for one in alone:
            one.site = ("activations", "layer")
        together = program_each(held, spec, 7, addresses("activations"))
        assert together is not None
        together.site = ("activations", "layer")
        for ranges in (kept, None):
            each = zip(alone, inputs, calls, strict=True)
            products = [one.multiply(rows, *call, ranges=ranges) for one, rows, call in each]
            same(together.multiply_each(inputs, calls, ranges), products)
        if stack:
            return
        each = [
            alone[0].multiply(rows, *call, ranges=kept)
            for rows, call in zip(inputs, calls, strict=True)
        ]
        same(alone[0].multiply_each(inputs, calls, kept), each)
        part = [one.columns(2, 9).rows(20) for one in alone]
        some = zip(part, inputs[..., :20], calls, strict=True)
        products = [one.multiply(rows, *call, ranges=kept) for one, rows, call in some]
        same(together.columns(2, 9).rows(20).multiply_each(inputs[..., :20], calls, kept), products)


@pytest.mark.parametrize("kernels", available())
def test_cells_that_need_another_step_are_multiplied_by_one_by_one(kernels):
    """A layer whose inputs are all zero leaves nothing but errors in the arrays."""
    random = np.random.default_rng(4)
    held, inputs = random.standard_normal((3, 30, 8)), random.standard_normal((3, 6, 30))
    held[1] = 0.0
    spec, where = CASES["programmed"], addresses("activations")[:3]
    ranges = np.full(spec.slices, 25.0, np.float32)
    with using(kernels):
        alone = [program_vmm(one, spec, 7, *place) for one, place in zip(held, where, strict=True)]
        together = program_each(held, spec, 7, where)
        assert together is not None
        assert alone[0].contents.step != alone[1].contents.step
        each = zip(alone, inputs, where, strict=True)
        products = [one.multiply(rows, *call, ranges=ranges) for one, rows, call in each]
        same(together.multiply_each(inputs, where, ranges), products)
        # Those that are driven are chosen before it is known in what steps they are held.
        some = together.columns(1, 7).rows(20).columns(1, 4).rows(10)
        part = [one.columns(1, 7).rows(20).columns(1, 4).rows(10) for one in alone]
        each = zip(part, inputs[..., :10], where, strict=True)
        products = [one.multiply(rows, *call, ranges=ranges) for one, rows, call in each]
        same(some.multiply_each(inputs[..., :10], where, ranges), products)


def test_noise_of_dacs_is_of_all_that_is_held_and_keeps_calls_apart():
    spec = dataclasses.replace(CASES["programmed"], dac=DacSpec(noise_lsb=0.01))
    assert program_each(np.ones((2, 4, 3)), spec, 0, addresses("x")[:2]) is None


def test_calls_need_as_many_addresses_and_inputs():
    together = program_each(np.ones((3, 4, 2)), VmmSpec(), 0, addresses("x")[:3])
    assert together is not None
    for inputs, calls in (((2, 5, 4), 2), ((3, 5, 4), 2), ((3, 5, 3), 3)):
        with pytest.raises(DataError, match="multiplier"):
            together.multiply_each(np.ones(inputs), addresses("call")[:calls])


@pytest.mark.parametrize("kernels", available())
@pytest.mark.parametrize("stack", [(), (3,)], ids=["matrix", "stack"])
@pytest.mark.parametrize("adc", [AdcSpec(range="full"), AdcSpec(range="lossless")])
def test_steps_that_inputs_keep_serve_several_calls(kernels, stack, adc):
    spec = VmmSpec(adc=adc, dac=DacSpec(range="calibrated", percentile=90.0))
    random = np.random.default_rng(4)
    sizes = 3.0 ** np.arange(3 * CALLS).reshape(CALLS, 3)[(..., *[None] * 2)]
    sizes = sizes if stack else sizes[:, 0]
    held = random.standard_normal((CALLS, *stack, 40, 12)) * sizes
    inputs = random.standard_normal((CALLS, *stack, 6, 40)) * sizes
    calls = addresses("gradient")
    with using(kernels):
        if not stack:
            one = program_vmm(held[0], spec, 7, "weights")
            one.calibrate(inputs[0])
            alone = [one] * CALLS
            together = one
        else:
            together = program_each(held, spec, 7, addresses("activations"))
            assert together is not None
            together.input_steps = 2.0 ** np.arange(-8, 3 * CALLS - 8)
            alone = [together.of_call(number) for number in range(CALLS)]
            for number, one in enumerate(alone):
                assert one.input_steps is not None
                np.testing.assert_array_equal(
                    one.input_steps, together.input_steps[3 * number : 3 * number + 3]
                )
        each = zip(alone, inputs, calls, strict=True)
        products = [one.multiply(rows, *call) for one, rows, call in each]
        same(together.multiply_each(inputs, calls), products)
