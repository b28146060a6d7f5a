"""Whatever is killed, the run ends with the same weights, to the bit."""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

import psutil
import pytest
from conftest import final_arrays
from strangers import Strangers

from repast_dist.cli import main
from repast_dist.farm.watcher import RUN_MARK
from repast_dist.trace import verify

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.kills_workers]

SETTINGS = (
    "model=digits_mlp", "train.max_steps=14", "train.epochs=2", "soi.block_size=24",
    "farm.checkpoint_every=4",
)  # fmt: skip
STEPS = 14
STOPS = [signal.SIGINT]
if os.environ.get("REPAST_FUZZ") == "full":
    STOPS += [signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    root = tmp_path_factory.mktemp("undisturbed")
    words = [f"run_root={root}", *SETTINGS, "farm.backend=inprocess", "farm.chips=1"]
    assert main(words) == 0
    return final_arrays(_only_run(root))


def _started(root, held_at=None, **options):
    """Start the command; it stops before it records a step, until `_go_on` is called."""
    words = ["-m", "repast_dist.cli"]
    if held_at is not None:
        words = [str(Path(__file__).with_name("held_run.py")), str(root / "go"), str(held_at)]
    words = [sys.executable, *words, f"run_root={root}", *SETTINGS, "farm.chips=2"]
    return subprocess.Popen(words, **options)


def _go_on(root):
    (root / "go").touch()


def _only_run(root) -> Path:
    (run_dir,) = (path for path in (root / "train").iterdir() if path.is_dir())
    return run_dir


def _steps_logged(root) -> int:
    logs = list(root.glob("train/*/run.log"))
    return logs[0].read_text().count(" INFO step ") if logs else 0


def _worker_processes():
    """Processes of workers in the cluster of this test session."""
    found = []
    for process in psutil.process_iter(["name"]):
        try:
            is_worker = process.info["name"].startswith("ray::RayWorker")
            if is_worker and process.environ().get(RUN_MARK) == os.environ.get(RUN_MARK):
                found.append(process)
        except psutil.Error:
            continue
    return sorted(found, key=lambda process: process.pid)


def _when_steps(root, steps, action, limit_s=300):
    """Do something in the background once so many steps are logged."""

    def wait():
        deadline = time.monotonic() + limit_s
        while _steps_logged(root) < steps and time.monotonic() < deadline:
            time.sleep(0.01)
        action()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.mark.usefixtures("ray_cluster")
def test_the_files_of_ray_lie_where_no_other_user_comes():
    import ray

    folder = Path(ray._private.worker._global_node.get_temp_dir_path())
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    assert folder.parent.parent.samefile(tempfile.gettempdir())


@pytest.mark.usefixtures("ray_cluster")
def test_every_worker_killed_once_leaves_the_result_the_same(train, tmp_path, undisturbed):
    struck = set()
    lot = random.Random(0)

    def strike(delay_s):
        time.sleep(delay_s)
        left = [process for process in _worker_processes() if process.pid not in struck]
        process = lot.choice(left)
        struck.add(process.pid)
        os.kill(process.pid, signal.SIGKILL)

    moments = [(3 + 4 * number, lot.random() * 0.15) for number in range(3)]
    threads = [_when_steps(tmp_path, at, partial(strike, late)) for at, late in moments]
    run_dir = train(*SETTINGS, "farm.chips=3")
    for thread in threads:
        thread.join()
    assert len(struck) == 3
    _assert_whole(run_dir, undisturbed)


@pytest.mark.usefixtures("ray_cluster")
def test_workers_killed_at_once_come_back_though_strangers_bother_those_who_join(
    train, tmp_path, undisturbed, monkeypatch
):
    # Ray is not imported before its authentication is set.
    from repast_dist.farm.ray_farm import RayFarm

    lot = random.Random(2)
    wait = RayFarm._wait

    def wait_and_tell(farm, asked):
        """Tell strangers where workers listen, before these know it of each other."""
        found = wait(farm, asked)
        if found and isinstance(found[0], tuple):
            strangers.bother(found, of_each_kind=3)
            time.sleep(0.3)
        return found

    def strike():
        time.sleep(lot.random() * 0.15)
        for process in lot.sample(_worker_processes(), 2):
            os.kill(process.pid, signal.SIGKILL)

    monkeypatch.setattr(RayFarm, "_wait", wait_and_tell)
    with Strangers() as strangers:
        thread = _when_steps(tmp_path, 5, strike)
        run_dir = train(*SETTINGS, "farm.chips=3")
        thread.join()
    # The three listen when they begin, and again after the loss.
    assert sum(met > 2 for met in strangers.met.values()) >= 6
    _assert_whole(run_dir, undisturbed)


def _assert_whole(run_dir, undisturbed):
    """Check that a run recovered, and lacks nothing of one that nobody disturbed."""
    assert final_arrays(run_dir) == undisturbed
    assert verify(run_dir / "trace", steps=STEPS) == []
    result = json.loads((run_dir / "result.json").read_text())
    assert [item["step"] for item in result["steps"]] == list(range(STEPS))
    assert any(item["kind"] == "recovery" for item in result["events"])


@pytest.mark.usefixtures("ray_cluster")
def test_a_worker_that_hangs_is_replaced(train, tmp_path, undisturbed):
    def freeze():
        os.kill(_worker_processes()[0].pid, signal.SIGSTOP)

    thread = _when_steps(tmp_path, 4, freeze)
    run_dir = train(*SETTINGS, "farm.chips=3", "farm.call_timeout_s=5")
    thread.join()
    assert final_arrays(run_dir) == undisturbed
    assert verify(run_dir / "trace", steps=STEPS) == []
    events = json.loads((run_dir / "result.json").read_text())["events"]
    # A busy machine may keep the others silent for as long once more.
    recovery, *_ = (item["message"] for item in events if item["kind"] == "recovery")
    # Its peers and the coordinator wait equally long; a busy machine decides who gives up first.
    assert any(sign in recovery for sign in ("no word from worker", "no answer in"))
    assert recovery.count("started anew [") == 1
    assert "started anew []" not in recovery


@pytest.mark.usefixtures("ray_cluster")
def test_a_worker_that_keeps_failing_is_retired_and_its_work_moves(train, tmp_path, undisturbed):
    stop = threading.Event()

    def keep_striking():
        """Kill the first worker whenever it is there, until the run has retired it."""
        while not stop.is_set():
            workers = _worker_processes()
            if len(workers) == 3 and _steps_logged(tmp_path) > 0:
                os.kill(min(workers, key=lambda p: p.create_time()).pid, signal.SIGKILL)
                time.sleep(1.0)
            # Looking through all processes of a machine takes a while.
            time.sleep(0.2)

    thread = threading.Thread(target=keep_striking)
    thread.start()
    try:
        run_dir = train(*SETTINGS, "farm.chips=3", "farm.max_worker_failures=1")
    finally:
        stop.set()
        thread.join()
    assert final_arrays(run_dir) == undisturbed
    events = json.loads((run_dir / "result.json").read_text())["events"]
    assert any("retired [" in item["message"] and "retired []" not in item["message"]
               for item in events)  # fmt: skip


@pytest.mark.parametrize("number", STOPS)
def test_an_interrupt_saves_everything_and_the_run_goes_on_from_there(
    tmp_path, undisturbed, number
):
    process = _started(
        tmp_path, held_at=8,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        # Tests that a shell runs in the background ignore Ctrl-C, and so would what they start.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )  # fmt: skip

    def interrupt():
        # A shell tells all processes of a command, Slurm and Kubernetes the one they started.
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        _go_on(tmp_path)

    thread = _when_steps(tmp_path, 5, interrupt)
    output, _ = process.communicate(timeout=500)
    thread.join()
    assert process.returncode == 130, output
    run_dir = _only_run(tmp_path)
    assert f"resume={run_dir}" in output
    assert json.loads((run_dir / "result.json").read_text())["status"] == "interrupted"
    assert verify(run_dir / "trace") == []
    assert _resumed(run_dir) == 0
    assert final_arrays(run_dir) == undisturbed
    assert verify(run_dir / "trace", steps=STEPS) == []


def test_a_killed_driver_leaves_no_process_and_the_run_can_be_resumed(
    tmp_path, undisturbed, capsys
):
    process = _started(tmp_path, held_at=10, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    thread = _when_steps(tmp_path, 6, lambda: None)
    thread.join()
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    gone, alive = psutil.wait_procs(children, timeout=100)
    assert gone
    assert not alive
    run_dir = _only_run(tmp_path)
    newest = sorted((run_dir / "checkpoints").glob("step-*"))[-1]
    # A torn newest checkpoint is refused by name; the one before it is used.
    (newest / "arrays.npz").write_bytes((newest / "arrays.npz").read_bytes()[:100])
    assert _resumed(run_dir) == 0
    assert newest.name in capsys.readouterr().out
    assert final_arrays(run_dir) == undisturbed
    assert verify(run_dir / "trace", steps=STEPS) == []


def test_a_killed_raylet_ends_the_run_in_one_line_and_another_run_is_not_disturbed(
    tmp_path, undisturbed
):
    others = tmp_path / "others"
    other = _started(others, stdout=subprocess.DEVNULL)
    process = _started(
        tmp_path, held_at=8, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )

    def strike():
        for child in psutil.Process(process.pid).children():
            if child.name() == "raylet":
                child.kill()
        _go_on(tmp_path)

    thread = _when_steps(tmp_path, 5, strike)
    output, errors = process.communicate(timeout=500)
    thread.join()
    run_dir = _only_run(tmp_path)
    # On a busy machine a start may have warned before.
    lines = [line for line in errors.splitlines() if not line.startswith("WARNING ")]
    assert len(lines) == 1, errors
    error = lines[0]
    assert error.startswith("repast-dist: error: Ray's process on this machine (raylet, pid ")
    assert error.endswith(f"resume={run_dir} goes on")
    assert process.returncode == 1
    assert "state-dump" not in output
    assert json.loads((run_dir / "result.json").read_text())["status"] == "failed"
    assert other.wait(timeout=500) == 0
    assert final_arrays(_only_run(others)) == undisturbed
    assert _resumed(run_dir) == 0
    assert final_arrays(run_dir) == undisturbed
    assert verify(run_dir / "trace", steps=STEPS) == []


def _resumed(run_dir):
    return main([f"resume={run_dir}", "farm.backend=inprocess"])


@pytest.mark.timeout(500)
def test_the_chips_of_a_removed_node_move_to_the_others_and_to_one_that_is_added(
    tmp_path, undisturbed
):
    script = str(Path(__file__).with_name("nodes_scenario.py"))
    words = [sys.executable, script, str(tmp_path), *SETTINGS, "farm.chips=4"]
    words.append("farm.node_timeout_s=200")
    done = subprocess.run(words, capture_output=True, text=True, timeout=480)
    assert done.returncode == 0, done.stderr[-3000:]
    run_dir = _only_run(tmp_path)
    assert final_arrays(run_dir) == undisturbed
    assert verify(run_dir / "trace", steps=STEPS) == []
    events = json.loads((run_dir / "result.json").read_text())["events"]
    assert any(item["kind"] == "recovery" for item in events)
