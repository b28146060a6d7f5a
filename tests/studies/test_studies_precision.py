"""The precision study: real factors, every method on every point, answers that can be resumed."""

import io

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from repast_dist.analog import SCHEMES
from repast_dist.api.solving import solve
from repast_dist.ground.errors import SettingsError
from repast_dist.settings import load_settings
from repast_dist.studies import resume_study, run_study
from repast_dist.studies.factors import capture_factors
from repast_dist.studies.precision.points import few_bit_rows
from repast_dist.studies.precision.prices import front_rows, level_rows
from repast_dist.studies.precision.tables import divergence_rows, frontier_rows
from repast_dist.training.sampling import micro_batch_samples

TINY = [
    "study=precision",
    "model=digits_cnn",
    "dataset=digits",
    "farm.backend=inprocess",
    "study.steps=3",
    "study.solve=[cells,targets,sizes]",
    "study.prices=[targets,sizes]",
    "study.grids.cells.axes={soi.block_size: [16,200], device.inv_cell.bits: [8],"
    " device.inv_cell.programming_sigma: [0.0,0.01], optimizer.damping: [0.1,0.00001]}",
    "study.grids.targets.axes={inversion.target_bits: [8,16], inversion.product_bits: [32]}",
    "study.grids.sizes={axes: {soi.block_size: [24,48]}, methods: [single,fcg]}",
    "soi.block_size=48",
    "study.columns=4",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("precision")
    return run_study(load_settings([*TINY, f"run_root={root}"]), Console(file=io.StringIO()))


def points(folder):
    return pq.read_table(folder / "tables" / "points.parquet").to_pylist()


def test_every_method_is_tried_on_every_damped_block_and_cell(folder):
    rows = points(folder)
    assert len(rows) == 2 * 2 * 2 * 7 + 2 * 7 + 2 * 2
    rows = [row for row in rows if row["grid"] == "cells"]
    # The widest factor is 73; a larger block is the whole of it.
    assert {row["block_size"] for row in rows} == {16, 73}
    assert (folder / "report.html").stat().st_size > 100_000


def test_what_converged_has_reached_the_target_and_conjugate_gradients_always_do(folder):
    rows = [row for row in points(folder) if row["grid"] == "cells"]
    assert all(row["residual"] <= 2.0**-16 for row in rows if row["converged"])
    assert all(row["converged"] for row in rows if row["method"] in ("fcg", "fcg, 2 slices"))
    assert all(row["inv_ops"] == 0 for row in rows if row["method"] == "cg")
    assert not any(row["converged"] for row in rows if row["method"] == "single")


def test_a_study_gone_on_with_keeps_its_points(folder):
    before = points(folder)
    stamps = {path: path.stat().st_mtime_ns for path in (folder / "points").iterdir()}
    removed = next(iter(stamps))
    removed.unlink()
    assert resume_study(folder, {}, Console(file=io.StringIO())) == folder
    assert points(folder) == before
    changed = [path for path, stamp in stamps.items() if path.stat().st_mtime_ns != stamp]
    assert changed == [removed]


def test_captured_factors_are_moments_of_what_flows_through_the_network():
    """After one step A of the first dense layer is the second moment of pixels and ones."""
    settings = load_settings(["model=digits_mlp", "dataset=digits"])
    factors = capture_factors(
        settings.model, settings.dataset, settings.optimizer, settings.train, 1, 0
    )
    data = settings.dataset.load()
    chosen = np.concatenate(
        [
            micro_batch_samples(0, len(data.train_inputs), settings.train, 0, number)
            for number in range(settings.train.batch_size // settings.train.micro_batch_size)
        ]
    )
    pixels = data.train_inputs[chosen].reshape(len(chosen), -1).astype(np.float64)
    rows = np.hstack([pixels, np.ones((len(chosen), 1))])
    first = next(f for f in factors if f.kind == "A")
    np.testing.assert_allclose(first.matrix, rows.T @ rows / len(rows), rtol=1e-9, atol=1e-12)
    assert first.gradient.shape[0] == 65


def test_the_frontier_ends_at_the_first_damping_that_fails():
    def row(damping, converged):
        common = {"block_size": 8, "cell_bits": 8, "noise": 0.0, "method": "fcg", "condition": 2.0}
        outcome = {"residual": 1e-5 if converged else 3.0, "bits": 16.6, "rounds": 4.0}
        return common | outcome | {"damping": damping, "converged": converged}

    rows = [row(1e-3, True), row(0.1, True), row(1e-2, False), row(1.0, True)]
    assert frontier_rows(rows)[0]["smallest_damping"] == 0.1
    shown = divergence_rows(rows)[0]
    assert (shown["damping 0.1"], shown["damping 0.01"]) == ("17 in 4", "no")


def test_three_bit_cells_reach_24_bits_in_about_as_many_rounds_as_hp_inv():
    settings = load_settings(TINY)
    rows = {row["method"]: row for row in few_bit_rows(settings.study, settings)}
    ours = rows["fcg"]
    assert ours["converged"] == "10 of 10"
    assert ours["rounds"] < 1.2 * rows["HP-INV, published"]["rounds"]
    assert rows["fcg, 2 slices"]["rounds"] < 0.7 * rows["HP-INV, published"]["rounds"]


def test_a_point_costs_what_a_solve_of_the_same_block_costs(folder):
    """Beside `repast_dist.solve`, which has a way of its own to the same block."""
    settings = load_settings(TINY)
    factors = capture_factors(
        settings.model, settings.dataset, settings.optimizer, settings.train, 3, settings.seed
    )
    widest = max(factors, key=lambda factor: len(factor.matrix))
    start = (len(widest.matrix) - 48) // 2
    inside = slice(start, start + 48)
    right = widest.gradient[inside]
    right = right[:, right.any(axis=0)][:, :4]
    added = widest.damping(settings.optimizer)
    scheme = SCHEMES.load({"method": "cg", "max_iterations": 200})
    solved = solve(widest.matrix[inside, inside], right, settings.hardware, scheme, damping=added)
    row = next(
        row
        for row in points(folder)
        if (row["grid"], row["method"], row["inversion.target_bits"]) == ("targets", "cg", 16)
    )
    # The search for directions begins with other vectors.
    assert row["bits"] == pytest.approx(solved.bits.min(), abs=0.2)
    assert row["program_j"] == pytest.approx(solved.program_cost.energy_j)
    assert row["solve_s"] == pytest.approx(solved.solve_cost.time_s)
    assert row["energy_j"] == pytest.approx(solved.energy_j)


def priced(folder, method):
    rows = pq.read_table(folder / "tables" / "prices_of_points.parquet").to_pylist()
    return next(row for row in rows if row["method"] == method)


def test_cholesky_costs_more_than_its_multiplications_on_lanes_that_never_wait(folder):
    """Its whole price is compared with a count by hand in `test_planning_hand_prices`."""
    costs = load_settings(TINY).hardware.costs
    row = priced(folder, "Cholesky, digital units")
    operations = 48**3 / 6 + 48**2 * 4
    assert 1 < row["energy_j"] / (operations * costs.parts["digital"].energy_j) < 1.5
    assert 1 < row["time_s"] / (operations / 16 * costs.clock_s) < 2
    # A mantissa of 24 bits; the block's condition takes a few.
    assert 16 < row["bits"] < 25


def test_the_gpu_takes_its_published_time_at_the_power_of_its_board(folder):
    row = priced(folder, "GV100, Cholesky inverse")
    assert row["time_s"] == pytest.approx(0.632e-3)
    assert row["energy_j"] == pytest.approx(300 * 0.632e-3)
    times = load_settings(TINY).study.gpu
    assert times.seconds("LU inverse", 1000) == pytest.approx(7.645e-3)
    assert 3.112e-3 < times.seconds("LU inverse", 700) < 7.645e-3


@pytest.mark.parametrize("study", ["precision", "headline"])
def test_a_baseline_that_is_no_gpu_is_refused_before_anything_is_computed(study, tmp_path):
    settings = load_settings([f"study={study}", "baseline=pipelayer", f"run_root={tmp_path}"])
    with pytest.raises(SettingsError, match=f"^baseline: study={study} compares with a GPU"):
        run_study(settings, Console(file=io.StringIO()))
    assert not list(tmp_path.iterdir())


def test_blocks_of_every_width_stand_beside_digital_machines_if_they_converge(folder):
    rows = pq.read_table(folder / "tables" / "prices_of_sizes.parquet").to_pylist()
    methods = {row["method"] for row in rows}
    assert methods == {
        "fcg", "Cholesky, digital units", "GV100, Cholesky inverse", "GV100, LU inverse",
    }  # fmt: skip
    widths = {row["block_size"]: row for row in rows if row["method"] == "Cholesky, digital units"}
    # Between the square and the cube of the width.
    assert 4 < widths[48]["energy_j"] / widths[24]["energy_j"] < 8


def test_the_front_holds_what_no_other_point_beats():
    rows = [
        {"method": name, "bits": bits, "energy_j": energy, "time_s": 1.0}
        for name, bits, energy in (("a", 8, 1.0), ("b", 7, 2.0), ("c", 16, 2.0), ("d", 16, 3.0))
    ]
    assert [row["method"] for row in front_rows(rows, "energy_j")] == ["a", "c"]
    levels = {row["method"]: row for row in level_rows(rows, "energy_j", "time_s")}
    assert (levels["c"]["energy, 12 bits"], levels["a"]["energy, 12 bits"]) == (2.0, None)


def test_a_grid_that_would_change_the_factors_is_refused(tmp_path):
    settings = load_settings(
        [*TINY, "study.grids.targets.axes={train.batch_size: [16]}", f"run_root={tmp_path}"]
    )
    with pytest.raises(SettingsError, match=r"train\.batch_size decides the factors"):
        run_study(settings, Console(file=io.StringIO()))


def test_a_wrong_variant_is_refused_by_its_name_before_anything_is_trained(tmp_path):
    settings = load_settings(
        ["study=precision", "study.variants.fcg={inversion.slices: 2}", f"run_root={tmp_path}"]
    )
    with pytest.raises(SettingsError, match=r"^study\.variants\.fcg: inversion\.slices: "):
        run_study(settings, Console(file=io.StringIO()))
    assert not list(tmp_path.iterdir())
