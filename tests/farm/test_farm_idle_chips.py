"""Training on fewer chips than there are, the others being switched off."""

import dataclasses
import io
import json

import pytest
from conftest import final_arrays
from losing_farms import LosesAndEnds
from rich.console import Console

import repast_dist as rd
from repast_dist.farm import launch
from repast_dist.farm.setup import make_setup
from repast_dist.ground.errors import FarmError
from repast_dist.settings import load_settings
from repast_dist.studies import run_study
from repast_dist.studies.costing import planned_step
from repast_dist.studies.settings import training_job
from repast_dist.trace import read_trace, verify

SMALL = (
    "workload=model", "model=digits_mlp", "train.batch_size=24", "train.micro_batch_size=8",
    "train.max_steps=4", "train.epochs=1", "farm.checkpoint_every=1", "farm.backend=inprocess",
    "soi.interval=2", "soi.block_size=24", "dataset.train_samples=96", "dataset.test_fraction=0.03",
    "model.layers=[{kind: flatten}, {kind: dense, name: hidden, outputs: 12}, {kind: relu}, "
    "{kind: dense, name: readout, outputs: 10}]",
)  # fmt: skip
CHIPS = 7


def settings_of(root, chips, idle, *more):
    named = (f"farm.chips={chips}", f"partition.idle_chips={idle}", f"run_root={root}")
    return load_settings([*SMALL, *named, *more])


def trained(settings):
    console = Console(file=io.StringIO(), width=200)
    return run_study(settings, console), console.file.getvalue()


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return settings_of(tmp_path_factory.mktemp("auto"), CHIPS, "auto")


@pytest.fixture(scope="module")
def setup(settings):
    return make_setup(training_job(settings), settings.dataset.load())


@pytest.fixture(scope="module")
def run(settings):
    return trained(settings)


@pytest.mark.slow
def test_a_run_says_which_chips_work_and_only_these_are_in_its_trace(settings, setup, run):
    folder, told = run
    working = len(setup.chips)
    step = planned_step(dataclasses.replace(settings, study=load_settings(["study=plan"]).study))
    assert 1 < working == step.work.chips == setup.job.farm.chips < CHIPS
    result = json.loads((folder / "result.json").read_text())
    assert result["working_chips"] == working
    assert result["settings"]["farm"]["chips"] == CHIPS
    assert set(read_trace(folder / "trace")["chip"].to_pylist()) == set(range(working))
    line = f"{working} of {CHIPS} chips work, the others are switched off"
    assert line in told
    assert line in (folder / "report.html").read_text()
    # Otherwise blocks or micro-batches would be those of a chip that is not there.
    owners = {block["chip"] for block in result["blocks"]} | set(result["micro_batches"])
    assert owners <= set(range(working))


@pytest.mark.slow
def test_idle_chips_leave_bits_and_price_of_the_chips_that_work(setup, run, tmp_path):
    folder, _ = run
    alike, told = trained(settings_of(tmp_path / "alike", len(setup.chips), "none"))
    assert "switched off" not in told
    assert final_arrays(alike) == final_arrays(folder)
    assert read_trace(alike / "trace").equals(read_trace(folder / "trace"))
    one, _ = trained(settings_of(tmp_path / "one", 1, "none"))
    every, _ = trained(settings_of(tmp_path / "every", CHIPS, "none"))
    assert final_arrays(one) == final_arrays(every) == final_arrays(folder)
    seconds = [
        sum(step["time_s"] for step in json.loads((r / "result.json").read_text())["steps"])
        for r in (folder, every)
    ]
    assert seconds[0] < seconds[1]


@pytest.mark.slow
def test_a_run_with_idle_chips_that_is_lost_and_resumed_has_the_same_bits(
    run, tmp_path, monkeypatch
):
    folder, _ = run
    with monkeypatch.context() as patched:
        patched.setattr(launch, "InProcessFarm", LosesAndEnds)
        with pytest.raises(FarmError, match="as the test wants it"):
            trained(settings_of(tmp_path, CHIPS, "auto"))
    (begun,) = tmp_path.glob("train/2*")
    rd.resume(begun, quiet=True)
    assert verify(begun / "trace", steps=4) == []
    assert read_trace(begun / "trace").equals(read_trace(folder / "trace"))
    assert final_arrays(begun) == final_arrays(folder)


def test_all_chips_that_are_left_work_when_a_worker_is_retired(setup):
    left = {number: (number,) for number in setup.chips[1:]}
    moved = make_setup(setup.job, setup.data, left, setup.network)
    assert moved.chips == setup.chips[1:]
    assert moved.plan.work.chips == len(left)
    assert moved.plan.work.idle == 0


@pytest.mark.slow
def test_ageing_of_cells_is_that_of_the_chips_that_work_also_when_one_is_lost(tmp_path):
    drifting = ("device=wan2022_aged", "engine=analog")
    settings = settings_of(tmp_path, CHIPS, "auto", *drifting)
    data = settings.dataset.load()
    setup = make_setup(training_job(settings), data)
    moved = make_setup(setup.job, data, {1: setup.chips[1:]}, setup.network)
    alike = settings_of(tmp_path, len(setup.chips), "none", *drifting)
    assert setup.schedule.step_s > 0
    assert setup.schedule == moved.schedule == make_setup(training_job(alike), data).schedule
