"""Cells that are stuck or worn out: which, when, and what the other cell of a pair makes up for."""

import dataclasses
import itertools

import numpy as np
import pytest
import scipy

from repast_dist.analog import DeviceSpec, InvSpec, Reram, VmmSpec, program_inv, program_vmm
from repast_dist.analog.arrays.programming import pair_conductances
from repast_dist.analog.cells.use import NEW, CellUse
from repast_dist.ground.errors import SettingsError
from repast_dist.ground.rng import When, generator, place
from repast_dist.ground.spec import load

STUCK = Reram(bits=4, stuck_on_rate=0.1, stuck_off_rate=0.15)


def _pairs(digits, cell, *address, use=NEW):
    return pair_conductances(digits, cell, 3, *(address or ("a",)), use=use)


def _stuck(shape):
    """Which cells of either side are stuck: they do not take an inner level."""
    sevens = np.full(shape, 7)
    return _pairs(sevens, STUCK)[0] != 7 / 15, _pairs(-sevens, STUCK)[1] != 7 / 15


def test_a_time_in_an_address_draws_as_its_number_does_and_is_no_place():
    address = ("soi", When(3), 7)
    assert generator(1, *address).random() == generator(1, "soi", 3, 7).random()
    assert place(address) == place(("soi", When(4), 7)) == ("soi", 7)


def test_the_same_cells_are_stuck_in_every_step_and_other_ones_elsewhere():
    zeros = np.zeros((200, 200), int)
    first, later, elsewhere = (
        _pairs(zeros, STUCK, "weights", When(step), layer)[0] == 1.0
        for step, layer in ((0, "a"), (9, "a"), (9, "b"))
    )
    np.testing.assert_array_equal(first, later)
    assert first.mean() == pytest.approx(0.1, abs=0.006)
    assert (first & elsewhere).mean() == pytest.approx(0.01, abs=0.003)


def test_the_other_cell_makes_up_for_a_stuck_one_as_well_as_any_level_could():
    """Against all 16 levels of the cell that can still be programmed."""
    digits = np.arange(-15, 16).repeat(100).reshape(-1, 31)
    mapped = dataclasses.replace(STUCK, write_verify=True, mapped_around=True)
    stuck_p, stuck_n = _stuck(digits.shape)
    mapped = dataclasses.replace(STUCK, write_verify=True, mapped_around=True)
    p, n = _pairs(digits, mapped)
    levels = np.arange(16) / 15.0
    for spot in itertools.product(*map(range, digits.shape)):
        on = p[spot] if stuck_p[spot] else levels[:, None]
        against = n[spot] if stuck_n[spot] else levels
        error = abs(p[spot] - n[spot] - digits[spot] / 15.0)
        best = np.abs(on - against - digits[spot] / 15.0).min()
        assert error == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize(("rates", "left"), [((0.01, 0.0), 0.24), ((0.0, 0.01), 1.0)])
def test_mapping_around_removes_most_of_what_cells_stuck_on_do(rates, left):
    """A cell stuck on that holds the digit is made up for, one beside it leaves the digit instead
    of a whole range; a cell stuck off has nobody to make up for it.
    """
    digits = generator(1, "d").integers(-15, 16, (600, 600))
    cell = Reram(bits=4, stuck_on_rate=rates[0], stuck_off_rate=rates[1])
    squares = []
    for one in (cell, dataclasses.replace(cell, write_verify=True, mapped_around=True)):
        p, n = _pairs(digits, one)
        squares.append(np.mean((p - n - digits / 15.0) ** 2))
    d = np.abs(np.arange(-15, 16)) / 15.0
    before = rates[0] * np.mean(1.0 + (1.0 - d) ** 2) + rates[1] * np.mean(d**2)
    after = rates[0] * np.mean(d**2) + rates[1] * np.mean(d**2)
    assert squares[0] == pytest.approx(before, rel=0.05)
    assert squares[1] == pytest.approx(after, rel=0.07)
    assert after / before == pytest.approx(left, abs=0.03)


def test_only_cells_that_are_read_after_writing_can_be_mapped_around():
    with pytest.raises(SettingsError, match=r"mapped_around=true.*write_verify=true"):
        load(DeviceSpec, {"cell": {"model": "reram", "mapped_around": True}}, "device")


def test_the_expected_error_covers_what_stuck_cells_leave():
    digits = generator(1, "d").integers(-15, 16, (600, 600))
    for cell in (STUCK, dataclasses.replace(STUCK, write_verify=True, mapped_around=True)):
        cell = dataclasses.replace(cell, stuck_on_rate=0.003, stuck_off_rate=0.002)
        p, n = _pairs(digits, cell)
        rms = np.sqrt(np.mean((p - n - digits / 15.0) ** 2))
        expected = cell.lasting_error(digits / 15.0, NEW)
        assert rms <= 1.05 * expected
        assert expected < 1.5 * rms


@pytest.mark.parametrize("writes", [3e4, 1e5, 4e5])
def test_as_many_cells_are_worn_out_as_the_lognormal_distribution_says(writes):
    cell = Reram(bits=4, endurance_sigma=0.8, worn_on_share=0.25)
    use = CellUse(writes=writes, endurance=1e5)
    digits = np.full((300, 300), 7)
    positive, negative = _pairs(digits, cell, use=use)
    share = scipy.stats.lognorm(s=0.8, scale=1e5).cdf(writes)
    assert np.mean(positive != 7 / 15) == pytest.approx(share, abs=0.006)
    assert np.mean(positive == 1.0) == pytest.approx(0.25 * share, abs=0.005)
    assert np.mean(positive == 0.0) == pytest.approx(0.75 * share, abs=0.005)
    # Of the other cell, that is at g_off, only those stuck on can be told.
    assert np.mean(negative == 1.0) == pytest.approx(0.25 * share, abs=0.005)


def test_a_cell_that_is_worn_out_stays_so():
    cell = Reram(bits=4, endurance_sigma=0.8)
    digits = np.full((100, 100), 7)
    worn = [
        _pairs(digits, cell, "w", When(step), use=CellUse(writes=writes, endurance=1e5))[0]
        != 7 / 15
        for step, writes in enumerate((2e4, 5e4, 1e5, 1e6))
    ]
    for before, after in itertools.pairwise(worn):
        assert (after | ~before).all()
        assert after.sum() > before.sum()


def test_new_cells_of_great_endurance_hold_what_cells_without_wear_do():
    weights = generator(2, "w").standard_normal((30, 5))
    cell = Reram(bits=4, programming_sigma=0.01)
    wearing = dataclasses.replace(cell, endurance_sigma=0.5)
    plain = program_vmm(weights, VmmSpec(device=DeviceSpec(cell=cell)), 1, "w").planes
    new = VmmSpec(device=DeviceSpec(cell=wearing), use=CellUse(writes=1000.0, endurance=1e9))
    np.testing.assert_array_equal(program_vmm(weights, new, 1, "w").planes, plain)
    used = DeviceSpec(cell=wearing, previous_writes=1e9)
    worn = VmmSpec(device=used, use=CellUse(writes=1000.0, endurance=1e9))
    changed = program_vmm(weights, worn, 1, "w").planes != plain
    assert np.any(changed)


def test_inverting_arrays_wear_out_alike():
    cell = Reram(bits=8, endurance_sigma=0.5, write_verify=True, mapped_around=True)
    inv = InvSpec(device=DeviceSpec(inv_cell=cell), use=CellUse(endurance=1e6))
    rows = generator(2, "w").standard_normal((20, 60))
    matrix = rows @ rows.T / 60 + 0.1 * np.eye(20)
    errors = [
        np.linalg.norm(program_inv(matrix, inv.written(writes), 1, "a").held - matrix)
        for writes in (1.0, 3e5, 1e6)
    ]
    assert errors[0] < errors[1] < errors[2]
