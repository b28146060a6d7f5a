"""Cell models: what each holds, what is refused, and one that comes from outside."""

from typing import Literal

import numpy as np
import pytest

from repast_dist.analog import CELLS, Cell, DeviceSpec, VmmSpec, program_vmm
from repast_dist.ground.errors import SettingsError
from repast_dist.ground.rng import generator
from repast_dist.ground.spec import load, spec


@spec
class Leaky(Cell):
    """A cell of a user's own: every conductance loses a tenth of the range's share."""

    model: Literal["leaky"] = "leaky"

    @property
    def exact(self):
        """Whether levels are held: never."""
        return False

    @property
    def pair_error(self):
        """RMS error of a pair."""
        return 0.0

    def program(self, target, random):
        """Return nine tenths."""
        return 0.9 * target

    def with_programming_sigma(self, sigma):
        """Return the cell; it has no other error."""
        return self


@pytest.fixture
def leaky():
    CELLS.register(Leaky)


def test_a_cell_of_ones_own_is_found_by_name_and_used(leaky):
    device = load(DeviceSpec, {"cell": {"model": "leaky"}}, "device")
    weights = np.array([[1.0, -1.0]])
    array = program_vmm(weights, VmmSpec(device=device))
    held, exact = array.planes.astype(float).sum(axis=1), 0.9 * np.array([[22, -22]])
    # Each slice within half a step.
    np.testing.assert_allclose(held, exact, rtol=0, atol=2.0**-11)


def test_an_ideal_cell_has_no_noise_to_set():
    with pytest.raises(SettingsError, match=r"device.cell.programming_sigma: unknown setting"):
        load(DeviceSpec, {"cell": {"model": "ideal", "programming_sigma": 0.1}}, "device")
    cell = CELLS.load({"model": "ideal"})
    assert cell.with_programming_sigma(0.0) == cell
    with pytest.raises(SettingsError, match="no programming error"):
        cell.with_programming_sigma(0.1)


def test_the_fit_of_wan_2022_is_refused_beyond_its_range():
    with pytest.raises(SettingsError, match="fit is of 1 to 40 uS"):
        load(DeviceSpec, {"cell": {"model": "wan2022", "g_on_siemens": 80e-6}}, "device")


@pytest.mark.parametrize(
    "data",
    [
        {"model": "reram", "bits": 3, "programming_sigma": 0.02, "clip": False},
        {"model": "reram", "programming_sigma": 0.02},
        {"model": "ideal"},
    ],
)
def test_the_error_of_a_pair_is_what_programming_does_to_inner_levels(data):
    """A pair holds one level and g_off: the error is that of both, relative to the range."""
    cell = CELLS.load(data)
    target = np.full(200_000, 0.5)
    positive = cell.program(target, generator(1, "on"))
    negative = cell.program(0.0 * target, generator(1, "off"))
    error = np.std(positive - negative)
    # Clipped at g_off, an error is the positive half of a Gaussian: its mean square is halved, and
    # part of that is its mean.
    error = np.hypot(error, np.mean(negative))
    assert error == pytest.approx(cell.pair_error, rel=0.01)
