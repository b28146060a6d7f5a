"""Chips that do the same are priced once, and their rows are those that each would have alone."""

import io
import json
import math

import numpy as np
import pytest
from conftest import final_arrays
from losing_farms import LosesAndEnds
from rich.console import Console

import repast_dist as rd
from repast_dist.farm import launch
from repast_dist.farm.checkpoint import latest_checkpoint
from repast_dist.farm.clock import align
from repast_dist.farm.cost import CostRecorder, alike
from repast_dist.farm.setup import chip_engines, make_setup
from repast_dist.ground.errors import FarmError
from repast_dist.report.run_data import chip_kinds, load_run
from repast_dist.settings import load_settings
from repast_dist.studies import run_study
from repast_dist.studies.settings import training_job
from repast_dist.trace import read_trace, verify
from repast_dist.trace.query import totals

SMALL = (
    "train.batch_size=24", "train.micro_batch_size=8", "train.max_steps=2", "train.epochs=1",
    "farm.backend=inprocess",
)  # fmt: skip


def setup_of(*overrides):
    settings = load_settings([*SMALL, *overrides])
    return make_setup(training_job(settings), settings.dataset.load())


def costs_of(setup, chips):
    recorder = CostRecorder(chips, setup.plan, chips)
    second = setup.job.optimizer.second_order is not None
    for step in range(2):
        recorder.price(step, second, second and step == 0, {}, calibrated=step == 0)
    return recorder.take()


@pytest.mark.parametrize(
    "overrides",
    [
        ("model=digits_mlp", "farm.chips=40"),
        ("model=digits_mlp", "farm.chips=40", "+farm.chip_overrides.35.speed=0.5"),
        ("model=digits_mlp", "farm.chips=7", "partition=shared"),
        ("model=digits_mlp", "farm.chips=30", "optimizer=muon"),
        ("model=digits_cnn", "farm.chips=30", "partition=pipeline"),
    ],
)
def test_rows_of_a_farm_are_those_that_chips_have_one_by_one(overrides):
    setup = setup_of(*overrides)
    chips = range(len(setup.chips))
    whole, whole_ends = align([costs_of(setup, chips)], 0, 1.5)
    for sharing in ([[chip] for chip in chips], [chips[1::2], chips[::2]]):
        parts, ends = align([costs_of(setup, part) for part in sharing], 0, 1.5)
        assert ends == whole_ends
        assert parts.equals(whole)
    found = whole["chip"].to_numpy(), whole["step"].to_numpy()
    assert set(found[0].tolist()) == set(chips)
    assert (np.diff(found[1] * len(chips) + found[0]) >= 0).all()


def test_a_thousand_chips_without_work_are_priced_as_one():
    setup = setup_of("model=digits_mlp", "farm.chips=1000", "+farm.chip_overrides.999.speed=0.5")
    first, kind = alike(setup.plan, np.arange(1000))
    busy = {*setup.plan.micro_batch_owner, *setup.plan.holdings.chip.tolist()}
    assert set(setup.computing) == busy
    assert len(first) == len(busy) + 2
    idle = sorted(set(range(999)) - busy)
    assert len(set(kind[idle].tolist())) == 1
    assert first[kind[idle[0]]] == idle[0]
    assert (kind == kind[999]).sum() == 1
    engines = chip_engines(setup.job, range(1000), setup.schedule)
    assert len({id(engine) for engine in engines.values()}) == 1


MANY = (
    "model=digits_mlp", "farm.chips=300", "train.batch_size=24", "train.micro_batch_size=8",
    "train.max_steps=4", "train.epochs=1", "farm.checkpoint_every=1", "farm.backend=inprocess",
    "soi.interval=2", "soi.block_size=24",
    "model.layers=[{kind: flatten}, {kind: dense, name: hidden, outputs: 12}, {kind: relu}, "
    "{kind: dense, name: readout, outputs: 10}]",
)  # fmt: skip


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    settings = load_settings([*MANY, f"run_root={tmp_path_factory.mktemp('many')}"])
    return run_study(settings, Console(file=io.StringIO()))


def test_a_page_shows_chips_that_do_the_same_once(many):
    assert verify(many / "trace", steps=4) == []
    trace = read_trace(many / "trace")
    assert set(trace["chip"].to_pylist()) == set(range(300))
    manifest = json.loads((many / "trace-manifest.json").read_text())
    runs = manifest["parts"][0]["rows_per_chip"][0]
    assert len(runs) < 20
    assert sum(chips for _, chips in runs) == 300
    kinds = chip_kinds(totals(load_run(many).trace), 32)
    assert len(kinds.chips) < 20
    assert kinds.sizes.sum() == 300
    page = (many / "report.html").read_text()
    assert f"{kinds.hidden} of 300 chips did what another one did" in page


def test_totals_of_a_run_are_sums_over_all_rows_of_all_chips(many):
    rows = read_trace(many / "trace")
    result = json.loads((many / "result.json").read_text())
    energy, chip = rows["energy_j"].to_numpy(), rows["chip"].to_numpy()
    found = result["totals"]
    assert found["energy_j"] == pytest.approx(math.fsum(energy), rel=1e-12)
    assert found["time_s"] == pytest.approx(math.fsum(s["time_s"] for s in result["steps"]))
    static_w = rows["static_j"].to_numpy()[chip == 299].sum() / found["time_s"]
    for number in (0, 150, 299):
        # Every chip draws its static power all the time, whatever it does.
        static_j = rows["static_j"].to_numpy()[chip == number].sum()
        assert static_j == pytest.approx(static_w * found["time_s"], rel=1e-9)


def test_a_run_of_many_chips_that_is_lost_and_resumed_has_the_same_bits(
    many, tmp_path, monkeypatch
):
    with monkeypatch.context() as patched:
        patched.setattr(launch, "InProcessFarm", LosesAndEnds)
        with pytest.raises(FarmError, match="as the test wants it"):
            run_study(load_settings([*MANY, f"run_root={tmp_path}"]), Console(file=io.StringIO()))
    (begun,) = tmp_path.glob("train/2*")
    reached, _ = latest_checkpoint(begun / "checkpoints")
    assert reached is not None
    assert reached.step == 2
    rd.resume(begun, quiet=True)
    assert verify(begun / "trace", steps=4) == []
    assert read_trace(begun / "trace").equals(read_trace(many / "trace"))
    assert final_arrays(begun) == final_arrays(many)
