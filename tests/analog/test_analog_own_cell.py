"""A cell model and an inversion scheme of a user's own, each in one file outside of the package."""

import json
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from repast_dist.analog import CELLS, SCHEMES, prepare
from repast_dist.analog.schemes.base import added, as_counts
from repast_dist.cli import main
from repast_dist.farm.checkpoint import latest_checkpoint
from repast_dist.ground.plugins import activate, read_plugins
from repast_dist.mapping.blocks import SoiBlock
from repast_dist.mapping.solves import block_shapes
from repast_dist.settings import load_settings

CELL = '''
"""Cells that hold a lognormal multiple of their target: the larger, the less certain."""

import dataclasses
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge

from repast_dist.analog.cells.base import CELLS, Cell
from repast_dist.ground.spec import spec


@CELLS.register
@spec
class Lognormal(Cell):
    """A cell whose conductance is off by a factor."""

    model: Literal["lognormal"] = "lognormal"
    log_sigma: Annotated[float, Ge(0)] = 0.0

    @property
    def exact(self):
        return not self.log_sigma

    @property
    def pair_error(self):
        # Levels are about evenly used: the mean square of a target is a third.
        return float(self.log_sigma / np.sqrt(3.0))

    def program(self, target, random):
        return target * np.exp(self.log_sigma * random.standard_normal(target.shape))

    def with_programming_sigma(self, sigma):
        return dataclasses.replace(self, log_sigma=sigma * np.sqrt(3.0))
'''

SCHEME = '''
"""Damped Richardson iteration, preconditioned with the array."""

from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Gt, Le

from repast_dist.analog.schemes.base import SCHEMES, ArrayScheme, IterativeScheme
from repast_dist.analog.schemes.watch import Watch
from repast_dist.ground.spec import spec

OPS = 5
"""Digital operations per element and round: step, update, difference, conversion and norm."""


@SCHEMES.register
@spec
class Richardson(ArrayScheme, IterativeScheme):
    """``x += step INV(b - A x)``."""

    method: Literal["richardson"] = "richardson"
    step: Annotated[float, Gt(0), Le(1)] = 0.8

    own_regularisation: ClassVar[float] = 1.15

    def solve(self, run):
        watch = Watch(run, self.tolerance, patience=12)
        active = np.flatnonzero(run.norm > 0)
        residual = run.b[:, active]
        for _ in range(self.max_iterations):
            if not active.size:
                return
            run.x[:, active] += self.step * run.invert(residual)
            run.iterations[active] += 1
            residual = run.residual(active)
            run.digital_ops += OPS * residual.size
            keep = watch.keep(run.relative(residual, active), active)
            active, residual = active[keep], residual[:, keep]

    def per_column(self, rounds, inv):
        return rounds, rounds, OPS * rounds
'''

TINY = ("model=digits_mlp", "dataset=digits", "farm.backend=inprocess", "farm.chips=2",
        "train.max_steps=2")  # fmt: skip


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    """Leave no part behind: others list what there is."""
    monkeypatch.setattr("repast_dist.ground.plugins._ACTIVE", {})
    for registry in (CELLS, SCHEMES):
        registry.names()
        monkeypatch.setattr(registry, "_members", dict(registry._members))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("repast_dist_plugin_"):
            del sys.modules[name]


@pytest.fixture
def own_cell(tmp_path):
    path = tmp_path / "lognormal.py"
    path.write_text(CELL)
    return f"plugins=[{path}]"


@pytest.fixture
def own_scheme(tmp_path):
    path = tmp_path / "richardson.py"
    path.write_text(SCHEME)
    activate(read_plugins([str(path)]))
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


def test_a_cell_model_of_ones_own_acts_in_a_training_run(tmp_path, own_cell):
    """Without its error it is the ideal cell, bit by bit; with it, weights are others."""
    own = (own_cell, "device=ideal", "device.cell.model=lognormal")
    ideal = trained(tmp_path / "ideal", "device=ideal")
    still = trained(tmp_path / "still", *own)
    spread = trained(tmp_path / "spread", *own, "device.cell.log_sigma=0.1")
    for name, weights in ideal.items():
        np.testing.assert_array_equal(still[name], weights)
    assert any((spread[name] != weights).any() for name, weights in ideal.items())


def test_a_chip_with_more_noise_has_more_of_the_own_error(tmp_path, own_cell):
    own = (
        own_cell,
        "device=ideal",
        "device.cell.model=lognormal",
        "device.inv_cell.model=lognormal",
    )
    even = trained(tmp_path / "even", *own)
    noisy = trained(tmp_path / "noisy", *own, "farm.chip_overrides={1:{programming_sigma:0.05}}")
    assert any((noisy[name] != weights).any() for name, weights in even.items())


def test_a_wrong_setting_of_an_own_cell_is_named_with_what_is_valid(own_cell, capsys):
    status = main([own_cell, "device.cell.model=lognormal", "device.cell.log_sigma=-1", "--cfg"])
    assert status == 2
    assert "device.cell" in capsys.readouterr().err


def test_an_own_scheme_solves_and_is_priced_as_it_counts(own_scheme):
    scheme = SCHEMES.load({"method": "richardson", "target_bits": 20})
    hardware = load_settings(["chip=repast"]).hardware
    random = np.random.default_rng(2)
    rows = random.normal(size=(60, 90))
    matrix = rows @ rows.T / 90 + 0.1 * np.eye(60)
    right = random.normal(size=(60, 5))
    right[:, 3] = 0.0
    vmm, inv = hardware.vmm_spec, hardware.inv_spec
    solver = prepare(matrix, vmm, inv, scheme, 1, "own")
    solution = solver.solve(right)
    assert solution.converged.all()
    np.testing.assert_allclose(solution.x, np.linalg.solve(matrix, right), atol=1e-4)
    block = SoiBlock(0, 0, "layer", "A", 0, 60)
    shapes = block_shapes((block,), np.array([1]), np.array([90]), hardware, scheme)
    each = [scheme.solve_counts(shapes, np.array([n]), inv) for n in solution.iterations.tolist()]
    assert solution.counts == as_counts(added(*each))
    assert solver.program_counts == as_counts(scheme.program_counts(shapes, vmm.device.cell, inv))
    assert solution.counts.inv_ops == solution.iterations.sum() > 5


def test_an_own_scheme_trains(tmp_path, own_scheme):
    directory = run(tmp_path / "run", *TINY, own_scheme, "inversion.method=richardson")
    files = sorted((directory / "solves").rglob("*.parquet"))
    solves = pq.ParquetDataset(files).read().to_pylist()
    assert solves
    assert {row["method"] for row in solves} == {"richardson"}
    assert all(row["converged"] for row in solves)


def test_an_own_scheme_is_planned(tmp_path, own_scheme):
    """Four times the rounds take between three and four times as long: some work is done once."""

    def seconds(rounds):
        plan = run(tmp_path / str(rounds), "study=plan", "workload=vgg16", own_scheme,
                   "inversion.method=richardson", f"soi.assumed_iterations={rounds}")  # fmt: skip
        figures = json.loads((plan / "answer.json").read_text())["figures"]
        return {item["name"]: item["value"] for item in figures}["SOI work, busiest chips"]

    assert 3.0 < seconds(32) / seconds(8) <= 4.0
