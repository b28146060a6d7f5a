"""Variation that cells share, 1/f noise and temperature, against loops and analytic variances."""

import dataclasses

import numpy as np
import pytest

from repast_dist.analog import DeviceSpec, InvSpec, Reram, VmmSpec, program_vmm
from repast_dist.analog.arrays.held import hold
from repast_dist.analog.arrays.programming import pair_conductances
from repast_dist.analog.arrays.variation import shared_factors
from repast_dist.analog.cells.use import NEW, CellUse
from repast_dist.analog.kernels.base import step_of
from repast_dist.analog.specs import VariationSpec
from repast_dist.ground.rng import When, generator


def test_a_factor_is_one_plus_the_deviations_of_array_row_column_and_chip():
    """Cell by cell: each part by itself is constant along what shares it, and all of them add."""
    sizes = {"array_sigma": 0.01, "row_sigma": 0.02, "column_sigma": 0.03, "die_sigma": 0.04}
    shape, array, use = (25, 14), (10, 6), CellUse(chip=3)

    def factors(**given):
        return shared_factors(shape, array, VariationSpec(**given), use, 5, "w", "layer")

    parts = {name: factors(**{name: sigma}) - 1.0 for name, sigma in sizes.items()}
    whole = factors(**sizes)
    for k in range(25):
        for c in range(14):
            first_row, first_column = k // 10 * 10, c // 6 * 6
            assert parts["array_sigma"][k, c] == parts["array_sigma"][first_row, first_column]
            assert parts["row_sigma"][k, c] == parts["row_sigma"][k, first_column]
            assert parts["column_sigma"][k, c] == parts["column_sigma"][first_row, c]
            assert parts["die_sigma"][k, c] == parts["die_sigma"][0, 0]
            total = 1.0 + sum(part[k, c] for part in parts.values())
            assert whole[k, c] == pytest.approx(total, abs=1e-12)
    assert len(np.unique(parts["array_sigma"])) == 3 * 3
    assert len(np.unique(parts["row_sigma"])) == 25 * 3
    assert len(np.unique(parts["column_sigma"])) == 3 * 14


@pytest.mark.slow
def test_deviations_have_the_spread_that_is_set():
    array = 1, 1
    for name in ("array_sigma", "row_sigma", "column_sigma"):
        variation = VariationSpec(**{name: 0.02})
        found = shared_factors((300, 300), array, variation, NEW, 1, "a")
        assert np.std(found) == pytest.approx(0.02, rel=0.02)
    chips = [
        shared_factors((1, 1), array, VariationSpec(die_sigma=0.02), CellUse(chip=chip), 1, "a")
        for chip in range(2000)
    ]
    assert np.std(chips) == pytest.approx(0.02, rel=0.06)


def test_a_product_is_that_of_the_cells_with_their_factors():
    """By loops over rows, slices and both sides of a pair, in the physical order of columns."""
    cell = Reram(bits=4, g_off_siemens=5e-6)
    variation = VariationSpec(array_sigma=0.05, row_sigma=0.05, column_sigma=0.05, die_sigma=0.05)
    device = DeviceSpec(cell=cell, variation=variation)
    spec = VmmSpec(device=device, rows=8, columns=12)
    weights = generator(1, "w").standard_normal((20, 5))
    array = program_vmm(weights, spec, 3, "weights", When(2), "layer")
    again = program_vmm(weights, spec, 3, "weights", When(7), "layer")
    np.testing.assert_array_equal(array.planes, again.planes)
    factors = shared_factors((20, 20), (8, 12), device.variation, NEW, 3, "vmm", "weights", "layer")
    off = cell.g_off_siemens / cell.span_siemens
    half = step_of(array.planes) / 2
    assert half <= 2.0**-11
    for k in range(20):
        for m in range(5):
            magnitude, sign = abs(int(array.integers[k, m])), np.sign(array.integers[k, m])
            for number in range(2):
                digit = (magnitude >> (4 * number)) & 15
                column = (m * 2 + number) * 2
                held = [digit / 15 * (sign > 0), digit / 15 * (sign < 0)]
                on, against = ((held[side] + off) * factors[k, column + side] for side in range(2))
                # Within half a step of what cells hold.
                exact = (on - against) * 15
                assert array.planes[k, number, m] == pytest.approx(exact, abs=half)


def test_an_inverting_array_holds_its_matrix_with_the_factors_of_both_sides():
    cell = Reram(bits=8, g_off_siemens=5e-6)
    variation = VariationSpec(array_sigma=0.02, row_sigma=0.03)
    plain = InvSpec(device=DeviceSpec(inv_cell=cell))
    spec = InvSpec(device=DeviceSpec(inv_cell=cell, variation=variation))
    matrix = generator(1, "m").standard_normal((6, 6))
    without, held = hold(matrix, plain, 1, "a"), hold(matrix, spec, 1, "a")
    for side in ("positive", "negative"):
        factors = shared_factors((6, 6), (6, 6), variation, NEW, 1, "inv", "a", side)
        np.testing.assert_allclose(
            getattr(held, side), getattr(without, side) * factors, rtol=1e-12
        )


def test_slow_noise_has_the_variance_of_its_decades_and_stays_until_cells_are_written():
    cell = Reram(bits=4, flicker_sigma=0.004, flicker_slow_decades=3.0, flicker_fast_decades=5.0)
    digits = np.full((300, 300), 5)
    first, _ = pair_conductances(digits, cell, 1, "w", When(0))
    again, _ = pair_conductances(digits, cell, 1, "w", When(0))
    later, _ = pair_conductances(digits, cell, 1, "w", When(1))
    np.testing.assert_array_equal(first, again)
    # Power per decade of 1/f noise is the same in all decades: variances add.
    assert np.std(first - 5 / 15) == pytest.approx(0.004 * 3**0.5, rel=0.02)
    assert abs(np.corrcoef((first - 5 / 15).ravel(), (later - 5 / 15).ravel())[0, 1]) < 0.02
    assert cell.read_spread == pytest.approx(0.004 * 5**0.5)
    both = dataclasses.replace(cell, read_sigma=0.01)
    assert both.read_spread**2 == pytest.approx(0.01**2 + 5 * 0.004**2)


def test_slow_noise_comes_after_the_next_slice_has_been_written():
    """What a cell does later cannot be made up for: two slices are as far off as one."""
    quiet = Reram(bits=8, programming_sigma=0.01)
    noisy = dataclasses.replace(quiet, flicker_sigma=0.002)
    matrix = generator(1, "m").standard_normal((30, 30))
    errors = [
        np.std(hold(matrix, InvSpec(device=DeviceSpec(inv_cell=cell), slices=2), 1).matrix - matrix)
        for cell in (quiet, noisy)
    ]
    expected = np.sqrt(2.0) * 0.002 * 2.0 * np.abs(matrix).max()
    assert errors[1] == pytest.approx(np.hypot(errors[0], expected), rel=0.1)


@pytest.mark.parametrize("kelvin", [260.0, 300.0, 350.0])
def test_each_end_of_the_range_has_its_own_coefficient_of_temperature(kelvin):
    cell = Reram(
        bits=4,
        g_on_siemens=40e-6,
        g_off_siemens=2e-6,
        temperature_off_per_k=0.004,
        temperature_on_per_k=-0.001,
    )
    use = DeviceSpec(cell=cell, temperature_k=kelvin).used(NEW)
    held = cell.used(np.array([0.0, 0.5, 1.0]), use)
    siemens = cell.g_off_siemens + held * cell.span_siemens
    warmer = kelvin - 300.0
    changes = 1.0 + np.array([0.004, 0.0015, -0.001]) * warmer
    np.testing.assert_allclose(siemens, np.array([2e-6, 21e-6, 40e-6]) * changes, rtol=1e-12)
