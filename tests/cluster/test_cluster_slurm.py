"""Jobs on a real Slurm of two machines: the batch script, arrays, preemption, Hydra's launcher."""

import json
import sys
from pathlib import Path

import machines
import pytest
import slurm
from conftest import final_arrays
from machines import until

from repast_dist.cli import main

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SCRIPT = Path(__file__).parents[2] / "jobs" / "slurm.sbatch"
STEPS = 12
SMALL = (
    "model=digits_mlp", f"train.max_steps={STEPS}", "train.epochs=2", "soi.block_size=24",
    "farm.checkpoint_every=4",
)  # fmt: skip
OVER = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"}
BUSY_S = 600.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    why_not = slurm.missing() or machines.missing()
    if why_not is not None:
        pytest.skip(why_not)
    folder = tmp_path_factory.mktemp("slurm")
    environment = {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "REPAST_VENV": sys.prefix,
        "OMP_NUM_THREADS": "1",
    }
    nodes = ["n1", "n2"]
    with machines.plugged(nodes, folder / "machines", environment) as found:
        yield slurm.Slurm(found, nodes, folder / "slurm")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    words = ["farm.backend=inprocess", "farm.chips=1", f"hydra.run.dir={run_dir}"]
    assert main([*SMALL, *words]) == 0
    return final_arrays(run_dir)


def assert_completed(cluster, job, folder) -> None:
    until(lambda: cluster.state(job) in OVER, BUSY_S, f"job {job} ends")
    told = "".join(path.read_text() for path in sorted(folder.glob("slurm-*.out")))
    assert cluster.state(job) == "COMPLETED", told[-3000:]


def submit_held(cluster, folder, options, settings) -> str:
    """Submit a run that waits before its seventh step for a file, and return once it waits."""
    hold = folder / "hold.py"
    hold.write_text(
        f"import sys\nsys.path.insert(0, {str(Path(__file__).parents[1] / 'farm')!r})\n"
        "from pathlib import Path\nfrom held_run import hold\n"
        f"hold(Path({str(folder / 'go')!r}), 6)\n"
    )
    words = [*options, f"--chdir={folder}", str(SCRIPT), *SMALL, *settings, f"plugins=[{hold}]"]
    job = cluster.submit(words)
    log = folder / "runs" / job / "run.log"
    until(
        lambda: (log.exists() and " INFO step 3 " in log.read_text()) or cluster.state(job) in OVER,
        BUSY_S, "some steps",
    )  # fmt: skip
    assert cluster.state(job) == "RUNNING", (folder / f"slurm-{job}.out").read_text()[-3000:]
    return job


def assert_whole(run_dir, whole) -> None:
    """Check that a run that went on lacks nothing of one that was not disturbed."""
    assert final_arrays(run_dir) == whole
    result = json.loads((run_dir / "result.json").read_text())
    assert result["status"] == "finished"
    assert [item["step"] for item in result["steps"]] == list(range(STEPS))
    assert "resume" in [item["kind"] for item in result["events"]]


def test_a_job_of_two_nodes_is_preempted_and_goes_on_with_one(cluster, whole, tmp_path):
    job = submit_held(
        cluster, tmp_path,
        ["--nodes=2", "--cpus-per-task=2"], ["farm.chips=4", "farm.chips_per_worker=2"],
    )  # fmt: skip
    taking = ["--partition=urgent", "--nodes=2", "--exclusive", "--hold", "--output=/dev/null"]
    urgent = cluster.submit([*taking, "--wrap", "sleep 1"])
    cluster.run(["scontrol", "release", urgent])
    until(lambda: cluster.restarts(job) == 1, BUSY_S, "the job is queued again")
    cluster.run(["scontrol", "update", f"jobid={job}", "numnodes=1"])
    (tmp_path / "go").touch()
    assert_completed(cluster, job, tmp_path)
    assert cluster.state(urgent) == "COMPLETED"
    assert_whole(tmp_path / "runs" / job, whole)
    assert not list(tmp_path.glob(".repast-token*"))


def test_a_job_near_its_time_limit_saves_and_queues_itself_again(cluster, whole, tmp_path):
    words = ["--nodes=1", "--cpus-per-task=1"], ["farm.backend=inprocess", "farm.chips=4"]
    job = submit_held(cluster, tmp_path, *words)
    told = tmp_path / f"slurm-{job}.out"
    # As Slurm does by itself, to the minute.
    cluster.run(["scancel", "--batch", "--signal=USR1", job])
    until(lambda: "saving" in told.read_text(), BUSY_S, "the run is told")
    (tmp_path / "go").touch()
    assert_completed(cluster, job, tmp_path)
    assert cluster.restarts(job) == 1
    assert_whole(tmp_path / "runs" / job, whole)


def test_an_array_takes_a_point_of_a_sweep_per_job(cluster, tmp_path):
    (tmp_path / "points.txt").write_text("farm.chips=1\nfarm.chips=2 seed=1\n")
    words = ["--nodes=1", "--array=1-2", "--cpus-per-task=1", f"--chdir={tmp_path}", str(SCRIPT)]
    job = cluster.submit(
        [*words, "model=digits_mlp", "train.max_steps=2", "farm.backend=inprocess"],
        REPAST_POINTS="points.txt",
    )
    for task in ("1", "2"):
        assert_completed(cluster, f"{job}_{task}", tmp_path)
    found = [
        json.loads((tmp_path / "runs" / job / task / "settings.json").read_text())
        for task in ("1", "2")
    ]
    assert [(one["farm"]["chips"], one["seed"]) for one in found] == [(1, 0), (2, 1)]


def test_a_study_that_needs_no_nodes_starts_none_and_is_not_run_twice(cluster, tmp_path):
    words = ["--nodes=2", "--cpus-per-task=1", f"--chdir={tmp_path}", str(SCRIPT)]
    job = cluster.submit([*words, "study=plan", "workload=lenet5"])
    assert_completed(cluster, job, tmp_path)
    told, run_dir = tmp_path / f"slurm-{job}.out", tmp_path / "runs" / job
    assert (run_dir / "answer.json").is_file()
    assert not list(tmp_path.glob("repast-ray-*"))

    def again() -> str:
        cluster.run(["scontrol", "requeue", job])
        until(lambda: cluster.state(job) not in OVER, BUSY_S, "the job is queued again")
        assert_completed(cluster, job, tmp_path)
        return told.read_text()

    assert "Finished before: " in again()
    # As if it had been stopped while it wrote: it keeps nothing to go on with.
    (run_dir / "answer.json").unlink()
    assert "study=plan keeps nothing to go on with of " in again()
    assert (tmp_path / "runs" / f"{job}_2" / "answer.json").is_file()


def test_a_study_that_is_queued_again_does_the_points_that_are_left(cluster, tmp_path):
    words = ["--nodes=1", "--cpus-per-task=1", f"--chdir={tmp_path}", str(SCRIPT)]
    settings = ["study=scaling", "workload=lenet5", "study.chips=[1,2]", "study.modes=[strong]"]
    job = cluster.submit([*words, *settings])
    assert_completed(cluster, job, tmp_path)
    run_dir = tmp_path / "runs" / job
    points = sorted((run_dir / "points").iterdir())
    assert len(points) == 2
    # As after a preemption.
    (run_dir / "answer.json").unlink()
    points[0].unlink()
    before = points[1].stat().st_mtime_ns
    cluster.run(["scontrol", "requeue", job])
    until(lambda: cluster.state(job) not in OVER, BUSY_S, "the job is queued again")
    assert_completed(cluster, job, tmp_path)
    assert (run_dir / "answer.json").is_file()
    assert points[0].is_file()
    assert points[1].stat().st_mtime_ns == before


def test_hydra_starts_the_points_of_a_sweep_as_jobs(cluster, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    cluster.run(
        [
            sys.executable, "-m", "repast_dist.cli", "-m", "hydra/launcher=submitit_slurm",
            "hydra.launcher.timeout_min=10", f"hydra.sweep.dir={tmp_path / 'all'}",
            "farm.chips=1,2", "farm.backend=inprocess", "train.max_steps=2", *SMALL[:1],
        ],
        BUSY_S,
    )  # fmt: skip
    losses = [
        json.loads((tmp_path / "all" / point / "result.json").read_text())["steps"][-1]["loss"]
        for point in ("0", "1")
    ]
    assert losses[0] == losses[1]
    assert (tmp_path / "all" / "answer.json").exists()
