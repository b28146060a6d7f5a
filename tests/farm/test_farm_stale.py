"""Stale factors: steps go on with the old inverses while new ones are prepared beside them."""

import json
import os
import signal

import numpy as np
import pytest
from conftest import final_arrays
from test_farm_faults import _when_steps, _worker_processes

from repast_dist.farm.peers import NoPeers
from repast_dist.farm.setup import beginning, make_setup
from repast_dist.farm.worker import ChipWorker
from repast_dist.ground.errors import SettingsError
from repast_dist.settings import load_settings
from repast_dist.studies.settings import training_job
from repast_dist.trace import read_trace, verify

STALE = (
    "model=digits_mlp", "soi.block_size=24", "soi.interval=3", "soi.stale=2", "train.batch_size=32",
    "train.max_steps=8", "train.epochs=1",
)  # fmt: skip
HERE = "farm.backend=inprocess"


def _steps(run_dir):
    return json.loads((run_dir / "result.json").read_text())["steps"]


def _losses(run_dir):
    return [step["loss"] for step in _steps(run_dir)]


def _worker(*settings):
    loaded = load_settings([*STALE, *settings, "farm.chips=1", HERE])
    setup = make_setup(training_job(loaded), loaded.dataset.load())
    worker = ChipWorker((0,), setup, NoPeers())
    worker.restore(0, beginning(setup).arrays)
    return worker


@pytest.mark.slow
def test_any_number_of_chips_has_the_same_bits_and_staleness_changes_them(train, tmp_path):
    fused = ("soi.fusion=on", "optimizer.factor_decay=0.5", "soi.fused_left_out=0.3")
    for name, more in (("formed", ()), ("fused", fused)):
        one, two, three = (
            train(*STALE, *more, HERE, f"farm.chips={chips}", root=tmp_path / f"{name}{chips}")
            for chips in (1, 2, 3)
        )
        assert _losses(one) == _losses(two) == _losses(three)
        assert final_arrays(one) == final_arrays(two) == final_arrays(three)
    fresh = train(*STALE, HERE, "farm.chips=1", "soi.stale=0", root=tmp_path / "fresh")
    stale = tmp_path / "formed1"
    (stale,) = (path for path in (stale / "train").iterdir() if path.is_dir())
    # The first inverses are there from the first step on; those of step 3 count from step 5 on.
    # A loss is that of the weights before the step.
    same = [a == b for a, b in zip(_losses(fresh), _losses(stale), strict=True)]
    assert same == [True] * 4 + [False] * 4


def test_new_inverses_are_used_so_many_steps_later():
    """An independent count: which factors a step has solved with."""
    worker = _worker("engine=float64")
    written = {}
    for step in range(8):
        worker.advance(step, 1)
        state = worker.block_state()
        written[step] = int(state["block/0/written/step"])
        assert ("block/0/next/step" in state) == (step in (3, 4, 6, 7))
    assert written == {0: 0, 1: 0, 2: 0, 3: 0, 4: 0, 5: 3, 6: 3, 7: 3}


@pytest.mark.parametrize("stop", [4, 5])
def test_a_worker_goes_on_with_both_sets_of_arrays(stop):
    whole, other = _worker(), _worker()
    whole.advance(0, stop)
    other.restore(stop, whole.common_state() | whole.block_state())
    for worker in (whole, other):
        worker.advance(stop, 8 - stop)
    found, wanted = (w.common_state() | w.block_state() for w in (other, whole))
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_renewal_takes_no_time_but_as_much_energy(train, tmp_path):
    """Against the rows of a run that waits: the step is shorter by what is done beside it."""
    common = (HERE, "farm.chips=2", "inversion=single", "soi.interval=3")
    fresh = train(*STALE, *common, "soi.stale=0", root=tmp_path / "fresh")
    stale = train(*STALE, *common, "soi.stale=2", root=tmp_path / "stale")
    renewal = ("average_factor", "program_block", "reduce_factors")
    seconds, work = [], []
    for run_dir in (fresh, stale):
        assert verify(run_dir / "trace") == []
        seconds.append([step["time_s"] for step in _steps(run_dir)])
        rows = read_trace(run_dir / "trace").to_pylist()
        work.append([
            sum(row["energy_j"] - row["static_j"] for row in rows if row["step"] == step)
            for step in range(8)
        ])  # fmt: skip
    rows = read_trace(fresh / "trace").to_pylist()
    # Nothing is there to go on with in step 0.
    assert seconds[0][0] == pytest.approx(seconds[1][0])
    for step in range(1, 8):
        reduce_s = next(
            row["duration_s"] for row in rows if (row["step"], row["op"]) == (step, renewal[2])
        )
        # Other inverses take a little longer or shorter to settle.
        assert seconds[1][step] < seconds[0][step] - 0.8 * reduce_s
    for one, other in zip(*work, strict=True):
        assert one == pytest.approx(other, rel=0.02)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.kills_workers
def test_stale_factors_on_ray_survive_a_killed_worker(train, tmp_path):
    alone = train(*STALE, HERE, "farm.chips=1", root=tmp_path / "alone")

    def strike():
        os.kill(_worker_processes()[0].pid, signal.SIGKILL)

    thread = _when_steps(tmp_path / "ray", 4, strike)
    run_dir = train(*STALE, "farm.chips=2", "farm.checkpoint_every=2", root=tmp_path / "ray")
    thread.join()
    assert any(
        item["kind"] == "recovery"
        for item in json.loads((run_dir / "result.json").read_text())["events"]
    )
    assert _losses(run_dir) == _losses(alone)
    assert final_arrays(run_dir) == final_arrays(alone)


def test_inverses_that_are_never_used_are_refused():
    with pytest.raises(SettingsError, match=r"stale=4 exceeds interval=3.*valid: at most that"):
        load_settings([*STALE, "soi.stale=4"])
