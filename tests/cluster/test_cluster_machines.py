"""A farm on machines with addresses of their own, of which one comes late and is cut off."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import final_arrays
from machines import Machines, missing, plugged, until

from repast_dist.cli import main
from repast_dist.trace import verify

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.usefixtures("namespaces"),
]

STEPS = 14
EPOCH = 11
SETTINGS = (
    "model=digits_mlp", f"train.max_steps={STEPS}", "train.epochs=2", "soi.block_size=24",
    "farm.checkpoint_every=4",
)  # fmt: skip
HEAD = "n1:6379"
NODE = (sys.executable, "-m", "repast_dist.farm.node")
SMALL = ("--object-store-memory=80000000", "--num-cpus=1")
# Ray takes a minute to give up a machine that does not answer.
IMPATIENT = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "3",
}
BUSY_S = 600.0


@pytest.fixture(scope="module")
def namespaces():
    why_not = missing()
    if why_not is not None:
        pytest.skip(why_not)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    root = tmp_path_factory.mktemp("undisturbed")
    words = [f"run_root={root}", *SETTINGS, "farm.backend=inprocess", "farm.chips=1"]
    assert main(words) == 0
    return final_arrays(only_run(root))


@pytest.fixture(scope="module")
def machines(namespaces, tmp_path_factory):
    """Three machines, of which the first two are a Ray cluster already; no two are the same."""
    folder = tmp_path_factory.mktemp("machines")
    token = folder / "token"
    token.write_text("d" * 64)
    environment = {
        "RAY_AUTH_TOKEN_PATH": str(token),
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "OMP_NUM_THREADS": "1",
        **IMPATIENT,
    }
    with plugged(["n1", "n2", "n3"], folder / "machines", environment) as found:
        found.start("n1", [*NODE, "head", "--include-dashboard=false", *SMALL, hosts(1)])
        found.start("n2", [*NODE, HEAD, *SMALL, hosts(2)])
        yield found


def hosts(chips):
    return f"--resources={json.dumps({'chip_host': chips})}"


def only_run(root) -> Path:
    (run_dir,) = (path for path in (root / "train").iterdir() if path.is_dir())
    return run_dir


def log_of(root) -> str:
    return "".join(path.read_text() for path in root.glob("train/*/run.log"))


def steps_of(root) -> int:
    return log_of(root).count(" INFO step ")


def started(machines: Machines, root) -> subprocess.Popen:
    """Start a run that waits for a file before its sixth step."""
    held = Path(__file__).parents[1] / "farm" / "held_run.py"
    root.mkdir()
    return machines.start(
        "n1",
        [
            sys.executable, str(held), str(root / "go"), "5", *SETTINGS, f"run_root={root}",
            f"farm.address={HEAD}", "farm.nodes=2", "farm.chips=4",
            "farm.resources_per_worker={chip_host:1}", "farm.link_timeout_s=8",
            f"farm.node_timeout_s={BUSY_S}",
        ],
    )  # fmt: skip


def workers_of(machines: Machines, node: str) -> int:
    words = "for pid in $(ip netns pids $0); do cat /proc/$pid/comm; done; true"
    return machines.run(node, ["sh", "-c", words, node]).count("ray::RayWorker")


def go_on(root, until_step: int | None = None) -> None:
    """Let the run go on, to its end or to a step it waits at."""
    partial = root / "partial"
    partial.write_text("" if until_step is None else str(until_step))
    partial.replace(root / "go")


def test_a_run_on_uneven_nodes_bears_a_late_one_a_short_cut_and_a_long_one(
    machines, tmp_path, undisturbed
):
    root = tmp_path / "runs"
    run = started(machines, root)
    # The two that are there have room for three of the four chips.
    until(lambda: list(root.glob("train/*")), BUSY_S, "the run begins")
    machines.start("n3", [*NODE, HEAD, *SMALL, hosts(1)])
    until(lambda: steps_of(root) >= 4, BUSY_S, "some steps")
    assert [workers_of(machines, node) for node in ("n1", "n2", "n3")] == [1, 2, 1]

    machines.plug("n3", into_switch=False)
    # Steps are recorded up to a checkpoint or the end of an epoch at a time; this is one.
    go_on(root, EPOCH)
    time.sleep(2.0)
    assert steps_of(root) < EPOCH
    machines.plug("n3", into_switch=True)
    until(lambda: steps_of(root) >= EPOCH, BUSY_S, "more steps")
    assert "started anew" not in log_of(root)

    machines.plug("n3", into_switch=False)
    go_on(root)
    until(lambda: "started anew" in log_of(root), BUSY_S, "the loss is noticed")
    assert run.poll() is None
    machines.plug("n3", into_switch=True)
    assert run.wait(timeout=BUSY_S) == 0, machines.log("n1")[-3000:]
    # Ray on it has begun anew by itself.
    assert machines.log("n3").count("Ray runtime started") >= 2

    run_dir = only_run(root)
    assert final_arrays(run_dir) == undisturbed
    assert verify(run_dir / "trace", steps=STEPS) == []
    result = json.loads((run_dir / "result.json").read_text())
    assert result["status"] == "finished"
    assert [item["step"] for item in result["steps"]] == list(range(STEPS))
    assert "recovery" in [item["kind"] for item in result["events"]]


def test_nothing_is_left_of_machines_whose_test_failed(tmp_path):
    def fail():
        with plugged(["n1", "n2"], tmp_path, {}) as found:
            sleeping.append(found.start("n2", ["sleep", "987654"]))
            until(lambda: "987654" in found.run("n1", ["ps", "ax"]), 20.0, "a process")
            raise Failed

    class Failed(Exception):
        pass

    sleeping = []
    with pytest.raises(Failed):
        fail()
    assert sleeping[0].wait(timeout=20) != 0
    assert "987654" not in subprocess.run(["ps", "ax"], capture_output=True, text=True).stdout
    assert not list(Path("/run").glob("netns/*"))
