"""What cells hold after programming, and the published devices."""

import numpy as np
import pytest

from repast_dist.analog import DeviceSpec, Reram, VmmSpec, program_vmm
from repast_dist.analog.arrays.programming import pair_conductances
from repast_dist.analog.cells.gaussian import profile_rms
from repast_dist.ground.errors import SettingsError
from repast_dist.ground.spec import load
from repast_dist.settings import load_settings


def _held(level, cell, count=200_000):
    digits = np.full(count, level)
    return pair_conductances(digits, cell, 5, "cells")[0]


def test_the_programming_error_follows_its_profile():
    profile = (1.0, 0.0, -0.8)
    cell = Reram(bits=3, programming_sigma=0.02, programming_profile=profile, clip=False)
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
