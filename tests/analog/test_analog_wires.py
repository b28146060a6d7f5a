"""Wire resistance against an independent nodal solver, and against its own limits."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from repast_dist.analog import (
    AdcSpec,
    DeviceSpec,
    InvSpec,
    Reram,
    VmmSpec,
    WireSpec,
    program_inv,
    program_vmm,
)
from repast_dist.analog.arrays import wires
from repast_dist.analog.arrays.wires import transfer_matrix
from repast_dist.ground.errors import DataError

STORED = Path(__file__).parents[1] / "oracles" / "analog" / "badcrossbar.json"
"""Column currents by badcrossbar 1.1 (written by `tests/oracles/analog/store_badcrossbar.py`)."""


def _cells(rows, columns, seed=0):
    return np.random.default_rng(seed).uniform(1e-6, 1e-4, size=(rows, columns))


@pytest.mark.parametrize(
    ("rows", "columns", "row_ohm", "column_ohm"),
    [
        (20, 33, 10.0, 100.0),
        (33, 20, 100.0, 1.0),
        (64, 64, 1.0, 1.0),
        (12, 9, 0.0, 5.0),
        (12, 9, 5.0, 0.0),
        (1, 1, 2.0, 3.0),
        (1, 6, 2.0, 3.0),
        (6, 1, 2.0, 3.0),
    ],
)
def test_currents_agree_with_badcrossbar(rows, columns, row_ohm, column_ohm):
    badcrossbar = pytest.importorskip("badcrossbar")
    logging.getLogger("badcrossbar").setLevel(logging.ERROR)
    cells = _cells(rows, columns)
    volts = np.random.default_rng(1).uniform(-1, 1, size=(rows, 3))
    solved = badcrossbar.compute(
        volts, 1.0 / cells, r_i_word_line=row_ohm, r_i_bit_line=column_ohm
    ).currents.output
    ours = volts.T @ transfer_matrix(cells, WireSpec(row_ohm=row_ohm, column_ohm=column_ohm))
    np.testing.assert_allclose(ours, solved, rtol=0, atol=1e-9 * np.abs(solved).max())


@pytest.mark.parametrize("case", json.loads(STORED.read_text()), ids=lambda case: case["name"])
def test_currents_agree_with_stored_ones(case):
    wire = WireSpec(row_ohm=case["row_ohm"], column_ohm=case["column_ohm"])
    cells = _cells(case["rows"], case["columns"], case["seed"])
    volts = np.linspace(-1, 1, case["rows"])
    ours = volts @ transfer_matrix(cells, wire)
    np.testing.assert_allclose(ours, case["currents"], rtol=1e-9)


@pytest.mark.parametrize(
    ("rows", "columns", "ohm"), [(128, 128, 1.73), (61, 35, 1.73), (5, 3, 2e3), (64, 64, 40.0)]
)
def test_shooting_and_elimination_agree(rows, columns, ohm):
    """Two methods that share nothing but the array; a megohm is beyond what shooting can do."""
    cells = _cells(rows, columns) / 3
    shot = wires._shoot(cells, ohm, 2 * ohm)
    assert shot is not None
    np.testing.assert_allclose(shot, wires._eliminate(cells, 1 / ohm, 0.5 / ohm), rtol=1e-10)
    assert wires._shoot(cells, 1e6, 1e6) is None


def test_extreme_wires_do_not_overflow():
    cells = _cells(300, 40)
    tiny = transfer_matrix(cells, WireSpec(row_ohm=1e-9, column_ohm=1e-9))
    np.testing.assert_allclose(tiny, cells, rtol=1e-6)
    huge = transfer_matrix(cells, WireSpec(row_ohm=1e9, column_ohm=1e9))
    assert np.isfinite(huge).all()
    assert (huge >= 0).all()


def test_no_conductance_is_negative():
    with pytest.raises(DataError, match="negative"):
        transfer_matrix(np.array([[-1e-6]]), WireSpec(row_ohm=1.0))


def _vmm(wire, **adc):
    device = DeviceSpec(cell=Reram(bits=4), wire=wire)
    return VmmSpec(
        device=device, rows=32, columns=48, adc=AdcSpec(bits=16, percentile=100.0, **adc)
    )


def test_products_see_the_pair_of_columns_behind_their_wires():
    """Cells of a pair in adjacent columns, slices side by side, arrays of 24 pairs."""
    random = np.random.default_rng(2)
    w = random.integers(-127, 128, size=(50, 20)).astype(float)
    w[0, 0] = 127.0
    x = random.choice([-1.0, 0.0, 1.0], size=(6, 50))
    wire = WireSpec(row_ohm=20.0, column_ohm=10.0)
    spec = _vmm(wire)
    cell = spec.device.cell
    step = (cell.g_on_siemens - cell.g_off_siemens) / 15
    expected = np.zeros((6, 20))
    order = [(m, s, sign) for m in range(20) for s in (0, 1) for sign in (1, -1)]
    for first in (0, 32):
        for left in range(0, len(order), 48):
            columns = order[left : left + 48]
            digits = [
                np.maximum(sign * np.sign(w[first : first + 32, m]), 0)
                * ((np.abs(w[first : first + 32, m]).astype(int) >> (4 * s)) & 15)
                for m, s, sign in columns
            ]
            seen = transfer_matrix(cell.g_off_siemens + np.stack(digits, axis=1) * step, wire)
            currents = x[:, first : first + 32] @ seen / step
            for number, (m, s, sign) in enumerate(columns):
                expected[:, m] += sign * 16**s * currents[:, number]
    ours = program_vmm(w, spec).multiply(x).values
    np.testing.assert_allclose(ours, expected, atol=2e-3 * np.abs(expected).max())


def test_no_wires_are_the_limit_of_small_ones():
    random = np.random.default_rng(3)
    w, x = random.normal(size=(40, 10)), random.normal(size=(5, 40))
    small = program_vmm(w, _vmm(WireSpec(row_ohm=1e-6, column_ohm=1e-6))).multiply(x).values
    none = program_vmm(w, _vmm(WireSpec())).multiply(x).values
    np.testing.assert_allclose(small, none, atol=1e-3 * np.abs(none).max())


def test_inversion_solves_with_what_amplifiers_see_through_the_wires():
    n = 10
    random = np.random.default_rng(4)
    matrix = np.eye(n) + 0.2 * random.uniform(-1, 1, size=(n, n))
    cell = Reram(bits=8)
    wire = WireSpec(row_ohm=5.0, column_ohm=15.0)
    spec = InvSpec(device=DeviceSpec(inv_cell=cell, wire=wire), dac_bits=24, adc_bits=24)
    levels = np.rint(matrix / np.abs(matrix).max() * 255)
    step = (cell.g_on_siemens - cell.g_off_siemens) / 255
    seen = np.zeros((n, n))
    for sign in (1, -1):
        siemens = cell.g_off_siemens + np.maximum(sign * levels, 0) * step
        # Columns are driven from above, rows read on their left: the array turned by a transpose.
        crossed = WireSpec(row_ohm=15.0, column_ohm=5.0)
        seen += sign * transfer_matrix(siemens.T, crossed).T
    right = random.normal(size=(n, 2))
    expected = np.linalg.solve(seen / step * np.abs(matrix).max() / 255, right)
    np.testing.assert_allclose(program_inv(matrix, spec).solve(right), expected, rtol=1e-4)
