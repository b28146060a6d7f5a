"""A cell model and an inversion scheme of a user's own, each in one file outside of the package."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from repast_dist.analog import SCHEMES, prepare
from repast_dist.analog.schemes.base import added, as_counts
from repast_dist.cli import main
from repast_dist.farm.checkpoint import latest_checkpoint
from repast_dist.ground.plugins import activate, read_plugins
from repast_dist.planning.blocks import SoiBlock
from repast_dist.planning.solves import block_shapes
from repast_dist.settings import load_settings

PLUGINS = Path(__file__).parents[1] / "plugins"

TINY = ("model=digits_mlp", "dataset=digits", "farm.backend=inprocess", "farm.chips=2",
        "train.max_steps=2")  # fmt: skip


OWN_CELL = f"plugins=[{PLUGINS / 'my_cell.py'}]"


@pytest.fixture
def own_scheme():
    path = str(PLUGINS / "my_scheme.py")
    activate(read_plugins([path]))
    return f"plugins=[{path}]"


def run(root, *overrides):
    """Run the command; return the run directory."""
    assert main([f"run_root={root}", *overrides]) == 0
    (report,) = root.rglob("report.html")
    return report.parent


def trained(root, *overrides):
    """Return the weights that training ended with."""
    checkpoint, _ = latest_checkpoint(run(root, *TINY, *overrides) / "checkpoints")
    return {n: a for n, a in checkpoint.arrays.items() if n.startswith("weights/")}


@pytest.mark.slow
def test_a_cell_model_of_ones_own_acts_in_a_training_run(tmp_path):
    """Without its error it is the ideal cell, bit by bit; with it, weights are others."""
    own = (OWN_CELL, "device=ideal", "device.cell.model=multiplied")
    ideal = trained(tmp_path / "ideal", "device=ideal")
    still = trained(tmp_path / "still", *own, "device.cell.log_sigma=0")
    spread = trained(tmp_path / "spread", *own, "device.cell.log_sigma=0.1")
    for name, weights in ideal.items():
        np.testing.assert_array_equal(still[name], weights)
    assert any((spread[name] != weights).any() for name, weights in ideal.items())


def test_a_chip_with_more_noise_has_more_of_the_own_error(tmp_path):
    own = (
        OWN_CELL,
        "device=ideal",
        "device.cell.model=multiplied",
        "device.inv_cell.model=multiplied",
    )
    even = trained(tmp_path / "even", *own)
    noisy = trained(tmp_path / "noisy", *own, "farm.chip_overrides={1:{programming_sigma:0.05}}")
    assert any((noisy[name] != weights).any() for name, weights in even.items())


def test_a_wrong_setting_of_an_own_cell_is_named_with_what_is_valid(capsys):
    status = main([OWN_CELL, "device.cell.model=multiplied", "device.cell.log_sigma=-1", "--cfg"])
    assert status == 2
    assert "device.cell" in capsys.readouterr().err


def test_an_own_scheme_solves_and_is_priced_as_it_counts(own_scheme):
    scheme = SCHEMES.load({"method": "damped_richardson", "target_bits": 20})
    hardware = load_settings(["chip=repast"]).hardware
    random = np.random.default_rng(2)
    rows = random.normal(size=(60, 90))
    matrix = rows @ rows.T / 90 + 0.1 * np.eye(60)
    right = random.normal(size=(60, 5))
    right[:, 3] = 0.0
    vmm, inv = hardware.residual_spec, hardware.inv_spec
    solver = prepare(matrix, vmm, inv, scheme, 1, "own")
    solution = solver.solve(right)
    assert solution.converged.all()
    np.testing.assert_allclose(solution.x, np.linalg.solve(matrix, right), atol=1e-4)
    block = SoiBlock(0, 0, "layer", "A", 0, 60)
    shapes = block_shapes(np.array([block.size]), np.array([1]), np.array([90]), hardware, scheme)
    each = [
        scheme.solve_counts(shapes, np.array([n]), inv, settling_s=solver.settling_s)
        for n in solution.iterations.tolist()
    ]
    priced = as_counts(added(*each))
    assert dataclasses.replace(solution.counts, settling_s=0) == dataclasses.replace(
        priced, settling_s=0
    )
    assert solution.counts.settling_s == pytest.approx(priced.settling_s)
    assert solver.program_counts == as_counts(scheme.program_counts(shapes, vmm.device.cell, inv))
    assert solution.counts.inv_ops == solution.iterations.sum() > 5


def test_an_own_scheme_trains(tmp_path, own_scheme):
    directory = run(tmp_path / "run", *TINY, own_scheme, "inversion.method=damped_richardson")
    files = sorted((directory / "solves").rglob("*.parquet"))
    solves = pq.ParquetDataset(files).read().to_pylist()
    assert solves
    assert {row["method"] for row in solves} == {"damped_richardson"}
    assert all(row["converged"] for row in solves)


def test_an_own_scheme_is_planned(tmp_path, own_scheme):
    """Four times the rounds take between three and four times as long: some work is done once."""

    def seconds(rounds):
        chosen = ("study=plan", "workload=vgg16", "inversion.method=damped_richardson")
        number = f"soi.assumed_iterations={rounds}"
        plan = run(tmp_path / str(rounds), own_scheme, *chosen, number)
        figures = json.loads((plan / "answer.json").read_text())["figures"]
        return {item["name"]: item["value"] for item in figures}["SOI work of the busiest chips"]

    assert 3.0 < seconds(32) / seconds(8) <= 4.0
