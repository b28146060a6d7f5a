"""Products and solves from Python against numpy, and their prices against prices by hand."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import repast_dist as rd
from repast_dist.ground.errors import CapacityError, DataError, SettingsError
from repast_dist.hardware import Hardware

pytestmark = pytest.mark.usefixtures("own_folder")

RANDOM = np.random.default_rng(0)
MATRIX = RANDOM.normal(size=(300, 40))
INPUTS = RANDOM.normal(size=(16, 300))


@functools.cache
def default() -> Hardware:
    """Arrays of 256 x 256 cells, 128 pairs a row; 16-bit weights in 4-bit cells are 4 slices."""
    return rd.load_hardware()


@functools.cache
def ideal() -> Hardware:
    return rd.load_hardware("repast", "ideal", **{"chip.adc.range": "lossless"})


def definite(size: int, seed: int = 1) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(size, 2 * size))
    return np.asarray(rows @ rows.T / (2 * size) + 0.1 * np.eye(size))


def test_a_product_on_ideal_arrays_is_that_of_the_rounded_numbers() -> None:
    chip = ideal().chip
    assert chip.weight_bits == chip.input_bits

    top = 2 ** (chip.input_bits - 1) - 1
    step = np.abs(MATRIX).max() / top
    # Inputs share a power of two.
    power = 2.0 ** np.ceil(np.log2(np.abs(INPUTS).max() / top))
    expected = (np.rint(INPUTS / power) * power) @ (np.rint(MATRIX / step) * step)
    product = INPUTS @ rd.crossbar(MATRIX, ideal())
    assert product == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_one_vector_is_a_row_of_its_own() -> None:
    crossbar = rd.crossbar(MATRIX, default())
    assert (INPUTS[0] @ crossbar).shape == (40,)
    assert (crossbar.multiply(INPUTS[0]) == (INPUTS[:1] @ crossbar)[0]).all()


def test_the_seed_decides_the_programming_errors() -> None:
    one, same, other = (INPUTS @ rd.crossbar(MATRIX, default(), seed) for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).any()


@pytest.mark.parametrize("hardware", [default, ideal], ids=["reram", "ideal"])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (256, 3), (257, 300)])
def test_a_product_is_priced_by_the_conversions_it_makes(hardware, rows, columns) -> None:  # type: ignore[no-untyped-def]
    crossbar = rd.crossbar(RANDOM.normal(size=(rows, columns)), hardware())
    crossbar.multiply(RANDOM.normal(size=(5, rows)))
    assert crossbar.last is not None
    assert crossbar.cost(5).counts["adc_conversions"] == crossbar.last.conversions


def test_the_price_of_a_product_by_hand() -> None:
    """300 rows are two row tiles; 40 weights of 4 slices take two arrays side by side."""
    g = default().geometry
    assert (g.rows, g.slices, g.columns_per_weight) == (256, 4, 2)
    crossbar, vectors = rd.crossbar(MATRIX, default()), 16
    cost = crossbar.cost(vectors)
    driven = vectors * g.passes
    # An addition per result, a comparison and a shift per input; and a counter at every converter.
    digital, counters = vectors * (40 + 2 * 300), driven * 2 * 40 * 4
    expected = {
        "crossbar_reads": driven * 4,
        "cells_read": driven * 300 * 40 * 4 * 2,
        "dac_conversions": driven * 300 * 2,
        "adc_conversions": driven * 2 * 40 * 4,
        "digital_ops": digital + counters,
        "buffer_bytes": vectors * 340 * g.value_bytes,
    }
    assert {name: cost.counts[name] for name in expected} == expected
    unit = {name: part.energy_j for name, part in default().costs.parts.items()}
    by_hand = (
        expected["cells_read"] * unit["cell"]
        + expected["dac_conversions"] * unit["dac"]
        + expected["adc_conversions"] * (unit["adc"] + unit["sample_hold"] + unit["shift_add"])
        + expected["digital_ops"] * unit["digital"]
        + expected["buffer_bytes"]
        * (unit["buffer"] + unit["bus"] + unit["register"] + 0.5 * unit["router"])
    )
    assert cost.energy_j == pytest.approx(by_hand)
    adding_s = -(-digital // default().chip.digital_lanes) * default().costs.clock_s
    assert cost.time_s == pytest.approx(driven * default().costs.pass_s + adding_s)
    assert cost.static_j == pytest.approx(default().costs.static_w * cost.time_s)
    writing = crossbar.program_cost
    assert writing.counts["cell_writes"] == 300 * 40 * 4 * 2
    # Four arrays of one bank, written row by row.
    rounds = -(-4 // default().chip.written_arrays_per_bank)
    assert writing.time_s == pytest.approx(rounds * 256 * default().costs.row_pulse_s)


def test_costs_add_up() -> None:
    crossbar = rd.crossbar(MATRIX, default())
    both = crossbar.cost(3) + crossbar.program_cost
    assert both.counts["cell_writes"] == crossbar.program_cost.counts["cell_writes"]
    assert both.energy_j == crossbar.cost(3).energy_j + crossbar.program_cost.energy_j


def test_a_matrix_that_no_array_is_left_for_is_refused() -> None:
    one_bank = {"chip.tiles": 1, "chip.banks_per_tile": 1}
    with pytest.raises(CapacityError, match="takes 9 multiplying arrays and chip 'small' has 8"):
        rd.crossbar(np.ones((9 * 128, 1)), rd.load_hardware("small", **one_bank))


@pytest.mark.parametrize("inversion", ["fcg", "refine", {"method": "cg"}, {"target_bits": 12}])
def test_a_solve_agrees_with_numpy_to_the_bits_that_it_says(inversion) -> None:  # type: ignore[no-untyped-def]
    matrix, right = definite(48), RANDOM.normal(size=(48, 4))
    solved = rd.solve(matrix, right, default(), inversion, damping=0.05)
    damped = matrix + 0.05 * np.eye(48)
    assert solved.converged.all()
    left = np.linalg.norm(damped @ solved.x - right, axis=0) / np.linalg.norm(right, axis=0)
    assert solved.residual == pytest.approx(left, rel=1e-6)
    assert solved.bits == pytest.approx(-np.log2(left), abs=1e-5)
    exact = np.linalg.solve(damped, right)
    condition = np.linalg.cond(damped)
    off = np.linalg.norm(solved.x - exact, axis=0) / np.linalg.norm(exact, axis=0)
    assert (off <= condition * left).all()
    one = rd.solve(matrix, right[:, 0], default(), inversion, damping=0.05)
    assert one.x == pytest.approx(solved.x[:, 0], rel=1e-3, abs=1e-3)


def test_the_price_of_a_solve_by_hand() -> None:
    """`single` on one array: a settling per right-hand side, no product."""
    n, sides = 100, 7
    solved = rd.solve(definite(n), np.eye(n)[:, :sides], default(), "single")
    unit = {name: part.energy_j for name, part in default().costs.parts.items()}
    assert solved.counts.inv_ops == sides
    assert solved.counts.vmm_ops == 0
    assert sides * 50e-9 < solved.counts.settling_s < sides * 1e-6
    values = sides * n
    by_hand = (
        values * (unit["inv_dac"] + unit["inv_adc"] + unit["inv_gain"] + unit["sample_hold"])
        # n amplifiers, and an inverter behind each.
        + 2 * n * solved.counts.settling_s * unit["amplifier"]
        + sides * 2 * n * n * unit["cell"]
        + solved.counts.digital_ops * unit["digital"]
        # Right-hand sides and answers in and out of the array, and scaled: two read, one written.
        + sides * (2 + 6) * n * default().product_geometry(32).value_bytes
        * (unit["buffer"] + unit["bus"] + unit["register"] + 0.5 * unit["router"])
    )  # fmt: skip
    assert solved.solve_cost.energy_j == pytest.approx(by_hand)
    assert solved.solve_cost.counts["serial_inv_ops"] == sides
    assert solved.program_cost.counts["cell_writes"] == 2 * n * n
    assert solved.time_s == solved.program_cost.time_s + solved.solve_cost.time_s


def test_factors_precondition_a_gradient_as_k_fac_does(tmp_path: Path) -> None:
    a, g, gradient = definite(40), definite(12, 2), RANDOM.normal(size=(40, 12))
    # Martens and Grosse (2015), section 6.3.
    pi = np.sqrt((np.trace(a) / 40) / (np.trace(g) / 12))
    damped = a + pi * np.sqrt(0.01) * np.eye(40), g + np.sqrt(0.01) / pi * np.eye(12)
    exact = np.linalg.solve(damped[0], gradient) @ np.linalg.inv(damped[1])
    found = rd.solve((a, g), gradient, default(), damping=0.01)
    assert found.converged
    assert found.x == pytest.approx(exact, rel=1e-3, abs=1e-3)
    left = np.linalg.norm(damped[0] @ found.x @ damped[1] - gradient) / np.linalg.norm(gradient)
    assert found.residual == pytest.approx(left, rel=1e-6)
    assert found.energy_j == found.a.energy_j + found.g.energy_j
    np.savez(tmp_path / "layer.npz", A=a, G=g, gradient=gradient)
    again = rd.solve(tmp_path / "layer.npz", None, default(), damping=0.01)
    assert (again.x == found.x).all()
    np.save(tmp_path / "a.npy", a)
    one = rd.solve(str(tmp_path / "a.npy"), gradient, default())
    assert (one.x == rd.solve(a, gradient, default()).x).all()


NOT_SYMMETRIC = np.array([[2.0, 1.0], [0.0, 2.0]])


@pytest.mark.parametrize(
    ("matrix", "right", "message"),
    [
        (np.ones((2, 3)), np.ones(2), "takes a square matrix, got shape (2, 3)"),
        (np.eye(2), np.ones(3), "right-hand sides must be (2,) or (2, r), got (3,)"),
        (np.eye(2), None, "no right-hand sides"),
        (np.eye(2) * np.nan, np.ones(2), "matrix: holds NaN or infinity"),
        (np.eye(2), [np.inf, 1], "right-hand sides: holds NaN or infinity"),
        (NOT_SYMMETRIC, np.ones(2), "symmetric"),
        (np.array([[1.0, 2.0], [2.0, 1.0]]), np.ones(2), "its smallest eigenvalue is -1; valid"),
        ("missing.npz", np.ones(2), "missing.npz: cannot be read"),
        ((np.eye(2), np.eye(3)), np.ones((3, 2)), "the gradient must be (2, 3), got (3, 2)"),
        ([["x"]], np.ones(1), "matrix: no array of numbers"),
    ],
)
def test_what_cannot_be_solved_is_refused_with_the_reason(matrix, right, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DataError) as caught:
        rd.solve(matrix, right, default())
    assert message in str(caught.value)


def test_a_chip_without_inverting_arrays_solves_by_products_alone() -> None:
    none = rd.load_hardware("repast", **{"chip.inv.arrays_per_bank": 0})
    with pytest.raises(SettingsError, match=r"no inverting arrays; valid: .* inversion\.method=cg"):
        rd.solve(definite(8), np.ones(8), none)
    assert rd.solve(definite(8), np.ones(8), none, "cg").converged.all()


def test_what_is_no_real_matrix_no_hardware_or_no_number_of_vectors_is_refused() -> None:
    # Not cast: half of a complex product would be lost behind a warning.
    crossbar = rd.crossbar(MATRIX, default())
    turned = definite(8) * 1j
    for attempt in (
        lambda: rd.crossbar(MATRIX * 1j, default()),
        lambda: (INPUTS * 1j) @ crossbar,
        lambda: rd.solve(turned, np.ones(8), default()),
    ):
        with pytest.raises(DataError, match="holds complex numbers; valid: real ones"):
            attempt()
    for vectors in (-1, 1.5):
        with pytest.raises(DataError, match="valid: a whole number from 0"):
            crossbar.cost(vectors)  # type: ignore[arg-type]
    name: Any = "repast"
    for attempt in (
        lambda: rd.crossbar(MATRIX, name),
        lambda: rd.solve(definite(8), np.ones(8), name),
        lambda: rd.plan("lenet5", name),
    ):
        with pytest.raises(SettingsError, match="hardware: 'repast' is none; valid: what load_"):
            attempt()
