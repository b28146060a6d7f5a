"""Cells from tables of measurements: what is read, what is drawn, and what is refused."""

import json

import numpy as np
import pytest

from repast_dist.analog import DeviceSpec, InvSpec, VmmSpec, program_vmm
from repast_dist.analog.arrays.held import hold
from repast_dist.analog.arrays.programming import pair_conductances
from repast_dist.analog.cells.base import CELLS
from repast_dist.analog.cells.measured import read_measured
from repast_dist.analog.cells.table import Table
from repast_dist.analog.cells.use import CellUse
from repast_dist.analog.tables import make_tables
from repast_dist.ground.errors import SettingsError
from repast_dist.ground.rng import generator
from repast_dist.ground.spec import load, to_dict
from repast_dist.settings import load_settings

STATISTICS = """\
# Eight cells of a notebook
target_microsiemens,mean_microsiemens,sigma_microsiemens,read_sigma_microsiemens,time_s
2,2.34,0.20,0.02,1
10,10.10,0.50,0.05,1
40,39.00,0.90,0.40,1
2,2.54,0.30,0.02,100
10,9.70,0.40,0.05,100
40,38.00,1.80,0.40,100
"""
DRAWS = 200_000


def cell_of(tmp_path, text=STATISTICS, **more):
    path = tmp_path / "measured.csv"
    path.write_text(text)
    return CELLS.load({"model": "table", "table": str(path), **more})


def drawn(cell, siemens, age_s=1.0, draws=DRAWS):
    """Return what many cells hold of one target, in microsiemens."""
    target = np.full(draws, (siemens - cell.g_off_siemens) / cell.span_siemens)
    held = cell.program(target, generator(1, "written"))
    held = cell.relaxed(held, target, CellUse(age_s=age_s), generator(1, "aged"))
    return (cell.g_off_siemens + held * cell.span_siemens) * 1e6


@pytest.mark.parametrize(
    ("target", "age_s", "mean", "sigma"),
    [
        (2.0, 1.0, 2.34, 0.20),
        (10.0, 0.1, 10.10, 0.50),
        (25.0, 1.0, (10.10 + 39.00) / 2, 0.70),
        (10.0, 100.0, 9.70, 0.40),
        (40.0, 100.0, 38.00, 1.80),
        # Half way on a logarithmic scale.
        (40.0, 10.0, 38.50, 1.35),
        (25.0, 10.0, (9.90 + 38.50) / 2, (0.45 + 1.35) / 2),
        # After the last measurement, nothing changes any more.
        (40.0, 1e9, 38.00, 1.80),
    ],
)
def test_drawn_cells_have_the_mean_and_spread_that_were_measured(
    tmp_path, target, age_s, mean, sigma
):
    held = drawn(cell_of(tmp_path), target * 1e-6, age_s)
    assert held.mean() == pytest.approx(mean, abs=5 * sigma / DRAWS**0.5)
    assert held.std() == pytest.approx(sigma, rel=0.01)


def test_the_range_is_that_of_the_targets_and_can_be_narrowed(tmp_path):
    cell = cell_of(tmp_path)
    assert (cell.g_off_siemens, cell.g_on_siemens) == pytest.approx((2e-6, 40e-6))
    narrow = cell_of(tmp_path, g_on_siemens=20e-6)
    assert drawn(narrow, 20e-6).mean() == pytest.approx(10.10 + 28.90 / 3, abs=0.01)
    with pytest.raises(ValueError, match="targets from 2e-06 to 4e-05 S"):
        cell_of(tmp_path, g_on_siemens=41e-6)


def test_a_cell_keeps_its_deviation_and_gets_more_of_its_own(tmp_path):
    """Spread at 40 uS doubles: the variance that is added is independent of what was there."""
    cell = cell_of(tmp_path)
    new, old = drawn(cell, 40e-6), drawn(cell, 40e-6, 100.0)
    assert np.cov(new, old)[0, 1] == pytest.approx(0.90**2, rel=0.02)
    # It shrinks at 10 uS: each cell comes closer to the mean.
    new, old = drawn(cell, 10e-6), drawn(cell, 10e-6, 100.0)
    np.testing.assert_allclose(old - 9.70, 0.8 * (new - 10.10), atol=1e-9)


def test_levels_that_lie_between_targets_become_the_nearest_of_them(tmp_path):
    cell = cell_of(tmp_path, levels_only=True)
    assert drawn(cell, 24e-6).mean() == pytest.approx(10.10, abs=0.01)
    assert drawn(cell, 26e-6).mean() == pytest.approx(39.00, abs=0.02)


def test_samples_are_drawn_from_their_own_distribution(tmp_path):
    """Half of the cells hold 9 and half hold 11: no cell holds the mean."""
    random = np.random.default_rng(0)
    lines = ["target_microsiemens,sample_microsiemens"]
    both = random.choice((0.9, 1.1), 2000) + 0.005 * random.standard_normal(2000)
    for target in (1.0, 10.0):
        lines += [f"{target},{target * value:.6f}" for value in both]
    held = drawn(cell_of(tmp_path, "\n".join(lines)), 10e-6)
    assert held.mean() == pytest.approx(10.0 * both.mean(), abs=0.01)
    assert held.std() == pytest.approx(10.0 * both.std(), abs=0.01)
    assert np.mean(np.abs(held - 10.0) < 0.5) < 0.06
    # Nothing is drawn beyond the samples.
    assert 8.5 < held.min() < held.max() < 11.5


def test_samples_of_one_cell_are_reads_of_the_same_conductance(tmp_path):
    random = np.random.default_rng(0)
    lines = ["target_siemens,sample_siemens,cell"]
    for target in (1e-6, 20e-6):
        for cell in range(300):
            held = target + 0.5e-6 * random.standard_normal()
            reads = np.maximum(held + 0.1e-6 * random.standard_normal(20), 0)
            lines += [f"{target},{read},c{cell}" for read in reads]
    path = tmp_path / "samples.csv"
    path.write_text("\n".join(lines))
    _, high = read_measured(path).rows
    assert high.sigma_siemens == pytest.approx(0.5e-6, rel=0.1)
    assert high.read_sigma_siemens == pytest.approx(0.1e-6, rel=0.05)
    cell = CELLS.load({"model": "table", "table": str(path)})
    assert cell.read_spread == pytest.approx(0.1 / 19, rel=0.1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"measured\.csv: no line of column names"),
        ("# a\ntarget_siemens,sigma\n", r"line 2, column sigma: unknown; valid: columns target"),
        ("target_siemens,mean_siemens\n1e-6,1e-6\n", r"line 1: no column sigma_siemens"),
        ("target_siemens,sigma_siemens\n1e-6,x\n", r"line 2, column sigma_siemens: 'x' is no"),
        ("target_siemens,sigma_siemens\n\n1e-6,nan\n", r"line 3, column sigma_siemens: nan"),
        ("target_siemens,sigma_siemens\n" + "1" * 200_000, r"line 2: not readable"),
        ("target_siemens,sigma_siemens\n1e-6\n", r"line 2: 1 values for 2 columns"),
        ("target_siemens,sigma_siemens\n40,0.1\n", r"column target_siemens: 40 is 40 S; valid: 0"),
        ("target_siemens,sigma_siemens\n4e-6,-1e-7\n", r"column sigma_siemens: -1e-7"),
        ("target_siemens,sigma_siemens,time_s\n4e-6,1e-7,0\n", r"column time_s: 0 s; valid: above"),
        ("target_siemens,sigma_siemens\n4e-6,0\n4e-6,0\n", r"line 3: target 4e-06 S .* line 2"),
        ("target_siemens,sigma_siemens\n4e-6,0\n", r"1 targets; valid: 2 or more"),
        (
            "target_siemens,sigma_siemens,time_s\n1e-6,0,1\n2e-6,0,1\n1e-6,0,9\n",
            r"no line for target 2e-06 S at 9 s",
        ),
        ("target_siemens,sample_siemens\n1e-6,1e-6\n2e-6,2e-6\n", r"line 2: one cell only"),
        ("target_siemens,sample_siemens,sigma_siemens\n1,1,1\n", r"samples and statistics"),
        ("target_siemens,sigma_siemens,target_microsiemens\n", r"target is there twice"),
    ],
)
def test_a_faulty_file_is_refused_with_file_line_and_column(tmp_path, text, message):
    path = tmp_path / "measured.csv"
    path.write_text(text)
    data = {"cell": {"model": "table", "table": str(path)}}
    with pytest.raises(SettingsError, match=message) as caught:
        load(DeviceSpec, data, "device")
    # Both kinds of cells are the table's: what is wrong is said once.
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"device.cell: {path}")


@pytest.mark.parametrize("cell", [{}, {"model": "reram"}, {"model": "ideal"}])
def test_conductances_in_microsiemens_are_refused(cell):
    with pytest.raises(SettingsError, match=r"40.0: a cell of 0.025 ohm; .* 40e-6"):
        load(DeviceSpec, {"cell": {**cell, "g_on_siemens": 40.0}}, "device")


def test_one_definition_serves_both_kinds_of_cells_unless_told_otherwise(tmp_path):
    path = cell_of(tmp_path).table
    both = load_settings(["device=table", f"device.cell.table={path}"]).device
    assert both.inv_cell == both.cell
    more = load_settings(["device=table", f"device.cell.table={path}", "device.inv_cell.bits=6"])
    assert more.device.inv_cell == CELLS.load({"model": "table", "table": path, "bits": 6})
    assert more.device.cell == both.cell
    other = load_settings(
        ["device=table", f"device.cell.table={path}", "device.inv_cell.model=ideal"]
    ).device.inv_cell
    assert other == CELLS.load({"model": "ideal"})
    assert DeviceSpec(cell=other).inv_cell == other
    assert DeviceSpec().inv_cell.bits == 8


def test_settings_keep_what_the_file_held(tmp_path):
    cell = cell_of(tmp_path)
    stored = json.loads(json.dumps(to_dict(DeviceSpec(cell=cell))))
    (tmp_path / "measured.csv").unlink()
    assert load(DeviceSpec, stored).cell == cell
    stored["cell"]["table"] = "elsewhere.csv"
    with pytest.raises(
        SettingsError, match=r"table=elsewhere\.csv: no such file; valid: .* cmo_hfox\.csv"
    ):
        load(DeviceSpec, stored)


def test_the_error_of_a_pair_and_of_its_age_are_those_of_drawn_pairs(tmp_path):
    """Of digits that are evenly spread, mean errors included: relative to the range."""
    cell = cell_of(tmp_path, bits=8)
    digits = np.arange(1, 256).repeat(1000)
    for age in (1.0, 100.0):
        use = CellUse(age_s=age)
        positive, negative = pair_conductances(digits, cell, 1, "pairs", use=use)
        error = np.hypot(positive - digits / 255, negative)
        noise = cell.lasting_error(np.ones((1, 1)), use) ** 2 - 2 * cell.read_spread**2
        expected = np.sqrt(cell.pair_error**2 + noise)
        # What is grown and what was there add up only where the mean stays.
        assert np.sqrt(np.mean(error**2)) == pytest.approx(expected, rel=0.01 if age == 1 else 0.2)


def test_arrays_of_both_kinds_hold_what_the_table_says(tmp_path):
    cell = cell_of(tmp_path, bits=6)
    device = DeviceSpec(cell=cell)
    weights = np.full((200, 200), 1.0)
    array = program_vmm(weights, VmmSpec(device=device, weight_bits=7))
    # The highest level holds 39.00 of 40 uS, and the cell beside it 2.34 of 2.
    expected = (39.00 - 2.34) / 38.0 * 63
    assert array.planes.mean() == pytest.approx(expected, abs=0.05)
    scaled = np.hypot(0.90, 0.20) / 38.0 * 63
    assert array.planes.std() == pytest.approx(scaled, rel=0.05)
    held = hold(weights + 200 * np.eye(200), InvSpec(device=device, size=200), 1)
    diagonal = np.diag(held.matrix) / 201
    assert diagonal.mean() == pytest.approx((39.00 - 2.34) / 38.0, abs=0.01)


def test_a_programming_error_that_is_asked_for_scales_the_table(tmp_path):
    cell = cell_of(tmp_path).with_programming_sigma(0.05)
    assert cell.programming_spread == pytest.approx(0.05)
    exact = cell_of(tmp_path, "target_siemens,sigma_siemens\n1e-6,0\n9e-6,0\n")
    assert exact.with_programming_sigma(0.0) == exact
    with pytest.raises(SettingsError, match="no spread to scale"):
        exact.with_programming_sigma(0.1)


def test_shipped_tables_are_what_their_fits_give(tmp_path, monkeypatch):
    for name, rows in (
        ("wan2022_aged.csv", make_tables.wan_rows()),
        ("cmo_hfox.csv", make_tables.cmo_rows()),
    ):
        held = read_measured(make_tables.FOLDER / name)
        expected = [tuple(row) for row in rows]
        stored = [
            (p.time_s, *(1e6 * s for s in (p.target_siemens, p.mean_siemens, p.sigma_siemens,
                                           p.read_sigma_siemens)))
            for p in held.rows
        ]  # fmt: skip
        np.testing.assert_allclose(stored, expected, rtol=1e-4, atol=1e-6)


def test_two_fits_of_the_same_figure_agree():
    """AIHWKit's fit of NeuRRAM's cells is shipped as a table; CrossSim's is model wan2022."""
    table, fit = (
        load_settings([f"device={name}"]).device.cell for name in ("wan2022_aged", "wan2022")
    )
    assert isinstance(table, Table)
    targets = np.linspace(0.05, 0.95, 10)
    shape = np.polynomial.polynomial.polyval(targets, fit.profile) * fit.span_siemens
    _, sigma = table._at(1.0, fit.g_off_siemens + targets * fit.span_siemens)
    np.testing.assert_allclose(sigma, shape, atol=0.45e-6)
