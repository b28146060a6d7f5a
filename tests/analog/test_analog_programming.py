"""What cells hold after programming, and the published devices."""

import numpy as np
import pytest
import scipy

from repast_dist.analog import DeviceSpec, Reram, VmmSpec, program_vmm
from repast_dist.analog.arrays.planes import contents
from repast_dist.analog.arrays.programming import differential_levels, pair_conductances
from repast_dist.analog.cells.base import Cell
from repast_dist.analog.cells.gaussian import profile_rms
from repast_dist.analog.kernels.base import in_steps, step_of
from repast_dist.analog.kernels.draws import NormalDraws, cut_into_digits, gaussian_planes
from repast_dist.ground.errors import SettingsError
from repast_dist.ground.spec import load
from repast_dist.settings import load_settings


def _held(level, cell, count=200_000):
    digits = np.full(count, level)
    return pair_conductances(digits, cell, 5, "cells")[0]


def test_the_programming_error_follows_its_profile():
    profile = (1.0, 0.0, -0.8)
    # Far enough from no conductance at all.
    errors = {"programming_sigma": 0.02, "programming_profile": profile, "clip": False}
    cell = Reram(bits=3, g_off_siemens=20e-6, **errors)
    relative = np.linspace(0.0, 1.0, 10_001)
    shape = 1.0 - 0.8 * relative**2
    scale = 0.02 / np.sqrt(np.trapezoid(shape**2, relative))
    for level in (0, 3, 7):
        spread = scale * (1.0 - 0.8 * (level / 7) ** 2)
        assert np.std(_held(level, cell)) == pytest.approx(spread, rel=0.01)
        assert np.mean(_held(level, cell)) == pytest.approx(level / 7, abs=2e-4)


def test_a_profile_that_falls_below_zero_is_refused():
    with pytest.raises(SettingsError, match="positive"):
        load(Reram, {"programming_profile": [1.0, -2.0]}, "device.cell")


def test_clipping_keeps_conductances_in_their_range_and_only_it_does():
    clipped = _held(7, Reram(bits=3, programming_sigma=0.05))
    free = _held(7, Reram(bits=3, programming_sigma=0.05, clip=False))
    assert clipped.max() == 1.0
    assert np.mean(free > 1.0) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    "cell",
    [
        Reram(programming_sigma=0.1, clip=False),
        Reram(flicker_sigma=0.1),
        Reram(programming_sigma=0.1, clip=False, programming_profile=(1.0, -0.5)),
    ],
    ids=["errors", "noise", "profile"],
)
def test_no_error_takes_a_conductance_below_zero(cell):
    """As arrays hold it, and in what pairs hold, whichever way they are programmed."""
    digits = np.zeros((40, 2, 300), np.int16)
    both = np.array(pair_conductances(digits, cell, 3, "w"))
    siemens = cell.g_off_siemens + both * cell.span_siemens
    assert siemens.min() == pytest.approx(0.0, abs=1e-18)
    assert 0.4 < np.mean(siemens < 1e-12) < 0.5
    levels = differential_levels(digits, cell, 3, "w")
    np.testing.assert_allclose(levels, (both[0] - both[1]) * (cell.levels - 1), atol=1e-12)


@pytest.mark.parametrize("siemens", [1.0, 10.0, 20.0, 30.0, 39.0])
def test_cells_of_wan_2022_spread_as_crosssim_fitted_them(siemens):
    """Microsiemens; the cubic as CrossSim 3.2.0 has it."""
    cell = load_settings(["device=wan2022"]).device.cell
    relative = (siemens - 1.0) / 39.0
    sigma = np.polynomial.polynomial.polyval(relative, cell.profile)
    sigma *= cell.programming_sigma / profile_rms(cell.profile) * 39.0
    fitted = 1.536e-4 * siemens**3 - 1.167e-2 * siemens**2 + 2.374e-1 * siemens + 1.053
    assert sigma == pytest.approx(fitted, rel=2e-3)


def test_every_level_of_the_hp_inv_cells_can_be_told_apart():
    """Published: all tested cells were programmed to the right level."""
    cell = load_settings(["device=hp_inv_taox"]).device.inv_cell
    for level in range(8):
        wrong = np.mean(np.rint(_held(level, cell) * 7) != level)
        assert wrong < 0.004


@pytest.mark.parametrize(
    ("device", "low", "high"),
    # Inputs up to 1 leave one of their bits unused: they share a power of two.
    [("ideal", 0.0, 0.02), ("isaac", 0.0, 0.03), ("hp_inv_taox", 0.1, 0.5), ("wan2022", 0.2, 0.9)],
)
def test_worse_published_cells_multiply_worse(device, low, high):
    spec = VmmSpec(device=load_settings([f"device={device}"]).device)
    assert isinstance(spec.device, DeviceSpec)
    random = np.random.default_rng(0)
    weights, inputs = random.normal(size=(128, 64)), random.uniform(-1, 1, size=(64, 128))
    exact = inputs @ weights
    product = program_vmm(weights, spec, 1, "w").multiply(inputs).values
    assert low <= np.linalg.norm(product - exact) / np.linalg.norm(exact) < high


# Draws ----------------------------------------------------------------------------------------


def test_draws_of_cells_are_standard_normal_and_independent_of_the_call_before():
    first, second = (NormalDraws(3, "cells").standard_normal(300_000) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    draws = NormalDraws(3, "cells")
    # More than a block, less than one, and single ones: rows of the stream are never drawn twice.
    parts = [draws.standard_normal(size) for size in ((3, 5000), 7, (), None)]
    drawn = np.concatenate([np.ravel(part) for part in parts])
    assert len(np.unique(drawn)) > 0.999 * len(drawn)
    for sample in (first, drawn):
        assert scipy.stats.kstest(sample, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 4 / len(first) ** 0.5
    other = NormalDraws(3, "others").standard_normal(300_000)
    assert abs(np.corrcoef(first, other)[0, 1]) < 4 / len(first) ** 0.5


def test_only_draws_of_a_shape_are_there():
    with pytest.raises(TypeError, match="float64"):
        NormalDraws(3, "cells").standard_normal(3, dtype=np.float32)


@pytest.mark.parametrize("profile", [(), (0.5,), (0.03279, 0.21452, -0.43716, 0.23363)])
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("shape", [(3, 2, 5), (70, 2, 60), (0, 2, 4)])
def test_compiled_levels_are_those_of_both_sides_programmed_as_arrays(profile, clip, shape):
    cell = Reram(programming_sigma=0.05, programming_profile=profile, clip=clip)
    digits = np.random.default_rng(1).integers(-15, 16, size=shape).astype(np.int16)
    found = cell.program_levels(digits, NormalDraws(1, "w"))
    as_arrays = Cell.program_levels(cell, digits, NormalDraws(1, "w"))
    np.testing.assert_array_equal(found, as_arrays)
    on, against = pair_conductances(digits, cell, 1, "w", later=False)
    levels = differential_levels(digits, cell, 1, "w")
    np.testing.assert_array_equal(levels, (on - against) * 15)


@pytest.mark.parametrize("profile", [(), (0.03279, 0.21452, -0.43716, 0.23363)])
@pytest.mark.parametrize("shape", [(3, 5), (211, 60), (1, 9000), (5000, 1)])
def test_what_is_written_in_one_pass_is_what_its_steps_make(profile, shape):
    cell = Reram(programming_sigma=0.05, programming_profile=profile)
    integers = np.random.default_rng(3).integers(-(2**15) + 1, 2**15, size=shape).astype(float)
    digits = np.empty((shape[0], 4, shape[1]), np.int16)
    cut_into_digits(integers, 4, digits)
    levels = Cell.program_levels(cell, digits, NormalDraws(1, "w"))
    planes = np.empty(digits.shape, np.float32)
    stream = NormalDraws(1, "w").stream(digits.size)
    largest = gaussian_planes(integers, 4, cell.law, stream, 2.0**-10, planes)
    np.testing.assert_array_equal(planes, in_steps(levels, 2.0**-10))
    assert largest == np.abs(levels).max()


def test_small_weights_of_many_multipliers_have_the_step_of_the_largest():
    spec = VmmSpec(device=DeviceSpec(cell=Reram(programming_sigma=1e-4)))
    integers = np.random.default_rng(4).integers(-3, 4, size=(2, 40, 6)).astype(float)
    places = [("first",), ("second",)]
    held = contents(integers, spec, 7, places)
    digits = np.zeros((2, 40, spec.slices, 6), np.int16)
    digits[:, :, 0] = integers
    levels = [
        differential_levels(part[None], spec.device.cell, 7, "vmm", *where)
        for part, where in zip(digits, places, strict=True)
    ]
    assert held.step == step_of(np.array(levels)) < step_of(np.array([15.0]))
    np.testing.assert_array_equal(held.planes, in_steps(np.concatenate(levels), held.step))


def test_digits_are_those_of_the_magnitude_in_base_two_to_the_bits():
    integers = np.random.default_rng(2).integers(-(2**15) + 1, 2**15, size=(9, 5)).astype(float)
    for bits, slices in ((4, 4), (5, 3), (8, 2)):
        digits = np.empty((9, slices, 5), np.int16)
        cut_into_digits(integers, bits, digits)
        assert np.abs(digits).max() < 2**bits
        weights = (2.0**bits) ** np.arange(slices)
        np.testing.assert_array_equal(np.einsum("ksm,s->km", digits, weights), integers)
