"""Every setting of the farm reaches the place where it acts.

Ray is replaced by a stand-in that notes what it is asked for; checkpoints and failures are watched
in runs of one process. For every setting one place is watched, once with its default and once with
another value.
"""

import contextlib
import dataclasses
import os
import socket
import threading
import time
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import threadpoolctl

from repast_dist.analog.kernels.chosen import VARIABLE, available, current
from repast_dist.farm import cluster as cluster_module
from repast_dist.farm import peers, startup
from repast_dist.farm.certificate import RunCertificate
from repast_dist.farm.checkpoint import list_checkpoints
from repast_dist.farm.coordinator import Coordinator
from repast_dist.farm.failures import WorkersLost
from repast_dist.farm.inprocess import InProcessFarm
from repast_dist.farm.launch import open_farm
from repast_dist.farm.records import Event
from repast_dist.farm.setup import beginning, make_setup
from repast_dist.farm.specs import FarmSpec
from repast_dist.farm.study_pool import map_unordered
from repast_dist.farm.worker import ChipWorker
from repast_dist.ground.errors import FarmError, SettingsError
from repast_dist.settings import load_settings
from repast_dist.studies.settings import training_job

TINY = (
    "model=digits_mlp", "optimizer=sgd", "engine=float64", "train.max_steps=5",
    "dataset.train_samples=320", "farm.backend=inprocess", "farm.chips=1",
)  # fmt: skip
STEPS = 5


class Pretended:
    """Stands in for Ray: notes what it is asked for, and answers at once."""

    def __init__(self) -> None:
        self.asked: dict[str, list[Any]] = {}
        self.exceptions = types.SimpleNamespace(
            RayTaskError=_Never, RayError=_Never, ActorUnavailableError=_Never
        )
        self.ObjectRef = object

    def note(self, what: str, value: Any) -> None:
        self.asked.setdefault(what, []).append(value)

    def init(self, **options: Any) -> types.SimpleNamespace:
        self.note("init", options)
        self.note("environment", dict(os.environ))
        return types.SimpleNamespace(dashboard_url="127.0.0.1:8265")

    def shutdown(self) -> None:
        self.note("shutdown", True)

    def is_initialized(self) -> bool:
        return False

    def put(self, value: Any) -> Any:
        return value

    def remote(self, **options: Any) -> Callable[[Any], Any]:
        def made(thing: Any) -> Any:
            self.note("options", options)
            return types.SimpleNamespace(remote=lambda *given: self._started(thing, given))

        return made

    def _started(self, thing: Any, given: tuple[Any, ...]) -> Any:
        self.note("arguments", given)
        if not isinstance(thing, type):
            return object()
        ready = types.SimpleNamespace(remote=lambda *_: object())
        connect = types.SimpleNamespace(remote=lambda *given: self.note("connect", given))
        return types.SimpleNamespace(ping=ready, endpoint=ready, connect=connect, call=ready)

    def get(self, refs: Any, timeout: float | None = None) -> Any:
        self.note("get", timeout)
        return list(refs) if isinstance(refs, list) else refs

    def wait(self, refs: list[Any], num_returns: int, timeout: float | None = None) -> Any:
        self.note("wait", (len(refs), timeout))
        return refs[:num_returns], refs[num_returns:]

    def kill(self, handle: Any) -> None:
        self.note("kill", handle)

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 3.0}


class _Never(Exception):
    """An error that does not happen."""


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch, ray_cluster: None) -> Pretended:
    """Put the stand-in in the place of Ray, which is up, so that its modules can be imported."""
    from repast_dist.farm import ray_farm

    pretended = Pretended()

    def reserved(bundles: list[Any], strategy: str) -> Any:
        pretended.note("placement", (strategy, bundles))
        return types.SimpleNamespace(
            wait=lambda timeout_seconds: not pretended.note("room", timeout_seconds)
        )

    monkeypatch.setattr(ray_farm, "ray", pretended)
    monkeypatch.setattr(ray_farm, "placement_group", reserved)
    monkeypatch.setattr(ray_farm, "PlacementGroupSchedulingStrategy", lambda group, **_: group)
    monkeypatch.setattr(ray_farm, "remove_placement_group", lambda group: None)
    monkeypatch.setattr(ray_farm, "RunMetrics", lambda: None)
    monkeypatch.setitem(__import__("sys").modules, "ray", pretended)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setattr(cluster_module, "_start_watcher", lambda *_: types.SimpleNamespace(pid=0))
    monkeypatch.setattr(cluster_module, "_stop", lambda *_: None)
    return pretended


def workers(spec: FarmSpec, ray: Pretended) -> None:
    """Start the workers of a farm, ask them for something, and end them."""
    from repast_dist.farm.ray_farm import RayFarm

    farm = RayFarm(spec, ChipWorker, None)  # type: ignore[arg-type]
    ray.note("groups", farm.workers)
    farm.get([farm.call(0, ChipWorker.common_state)])
    farm.close()


def watched(ray: Pretended, *what: str) -> Callable[[FarmSpec], list[Any]]:
    """Return what a farm's workers are started and waited for with."""

    def found(spec: FarmSpec) -> list[Any]:
        ray.asked.clear()
        workers(spec, ray)
        return [ray.asked.get(name) for name in what]

    return found


def options(spec: FarmSpec, ray: Pretended) -> list[dict[str, Any]]:
    ray.asked.clear()
    workers(spec, ray)
    return ray.asked["options"]


# Workers on Ray -----------------------------------------------------------------------------


@pytest.mark.ray
def test_what_a_worker_reserves_is_what_the_settings_say(ray: Pretended) -> None:
    assert [item["num_cpus"] for item in options(FarmSpec(chips=2), ray)] == [0.0, 0.0]
    assert options(FarmSpec(chips=1), ray)[0]["resources"] is None
    reserving = FarmSpec(chips=1, cpus_per_worker=1.5, resources_per_worker={"chip": 1.0})
    (found,) = options(reserving, ray)
    assert (found["num_cpus"], found["resources"]) == (1.5, {"chip": 1.0})


@pytest.mark.ray
def test_a_worker_process_has_the_threads_of_the_settings(ray: Pretended) -> None:
    for threads in (1, 3):
        (found,) = options(FarmSpec(chips=1, blas_threads=threads), ray)
        variables = found["runtime_env"]["env_vars"]
        assert {variables[f"{name}_NUM_THREADS"] for name in ("OMP", "OPENBLAS", "NUMBA")} == {
            str(threads)
        }


@pytest.mark.ray
def test_a_worker_process_has_the_kernels_of_the_settings(ray: Pretended) -> None:
    for name in ("auto", "float32"):
        (found,) = options(FarmSpec(chips=1, kernels=name), ray)
        assert found["runtime_env"]["env_vars"][VARIABLE] == name


@pytest.mark.ray
def test_workers_see_the_gpu_that_they_share(ray: Pretended) -> None:
    (found,) = options(FarmSpec(chips=1), ray)
    assert found["runtime_env"]["env_vars"]["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] == "0"


def _kernels(_shared: None, _point: None) -> str:
    return current().name


def test_points_in_this_process_have_the_kernels_of_the_settings() -> None:
    for name in available():
        spec = FarmSpec(backend="inprocess", kernels=name)
        assert [found for _, found in map_unordered(_kernels, None, [None], spec)] == [name]


@pytest.mark.ray
def test_chips_share_workers_as_the_settings_say(ray: Pretended) -> None:
    found = watched(ray, "groups")
    assert found(FarmSpec(chips=5)) == [[{number: (number,) for number in range(5)}]]
    shared = {0: (0, 1), 1: (2, 3), 2: (4,)}
    assert found(FarmSpec(chips=5, chips_per_worker=2)) == [[shared]]


@pytest.mark.ray
def test_workers_are_placed_as_the_settings_say(ray: Pretended) -> None:
    found = watched(ray, "placement", "room")
    spec = FarmSpec(chips=2, cpus_per_worker=1.0, node_timeout_s=7.0)
    assert found(spec) == [None, None]
    for name, strategy in (("spread", "SPREAD"), ("pack", "PACK")):
        placed = dataclasses.replace(spec, placement=name)
        assert found(placed) == [[(strategy, [{"CPU": 1.0}] * 2)], [7.0]]
    with pytest.raises(FarmError, match=r"farm\.placement=spread needs farm\.cpus_per_worker"):
        found(FarmSpec(chips=2, placement="spread"))


@pytest.mark.ray
def test_answers_are_waited_for_as_long_as_the_settings_say(ray: Pretended) -> None:
    for limit_s in (40.0, 90.0):
        calls, arguments = watched(ray, "get", "arguments")(
            FarmSpec(chips=1, call_timeout_s=limit_s)
        )
        # In between the farm looks whether the cluster is still there.
        assert calls[-1] == 1.0
        assert arguments[0][-1] == limit_s


@pytest.mark.ray
def test_machines_are_out_of_reach_after_the_time_of_the_settings(
    ray: Pretended, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[float] = []
    monkeypatch.setattr(
        peers, "_break_when_unreachable", lambda _socket, limit_s: limits.append(limit_s)
    )
    for limit_s in (4.0, 30.0):
        (arguments,) = watched(ray, "arguments")(FarmSpec(chips=1, link_timeout_s=limit_s))
        *_, link_s, wait_s = arguments[0]
        ends = {number: peers.SocketPeers("127.0.0.1", wait_s, link_s) for number in (0, 1)}
        endpoints = {number: end.endpoint for number, end in ends.items()}
        shared = endpoints, RunCertificate.make(), 20.0
        with ThreadPoolExecutor(2) as pool:
            joined = [pool.submit(end.connect, number, *shared) for number, end in ends.items()]
            assert [item.result() for item in joined] == [None, None]
        for end in ends.values():
            end.close()
    assert limits == [4.0, 4.0, 30.0, 30.0]


@pytest.mark.ray
def test_a_call_without_an_answer_is_given_up_after_the_time_of_the_settings(
    ray: Pretended, monkeypatch: pytest.MonkeyPatch
) -> None:
    from repast_dist.farm import ray_farm

    def nothing(_refs: Any, timeout: float) -> Any:
        time.sleep(timeout)
        raise ray_farm.GetTimeoutError

    monkeypatch.setattr(ray_farm, "_PING_S", 0.1)
    for limit_s in (0.2, 0.4):
        farm = ray_farm.RayFarm(
            FarmSpec(chips=1, call_timeout_s=limit_s),
            ChipWorker,
            None,  # type: ignore[arg-type]
        )
        # The run waits longer than a worker does, which can say for whom it waited.
        with monkeypatch.context() as patched:
            patched.setattr(ray, "get", nothing)
            with pytest.raises(WorkersLost, match=f"no answer in {limit_s + 0.1:g} s"):
                farm.get([farm.call(0, ChipWorker.common_state)])


@pytest.mark.ray
def test_workers_have_the_time_of_the_settings_to_connect(ray: Pretended) -> None:
    for limit_s in (30.0, 80.0):
        (connects,) = watched(ray, "connect")(FarmSpec(chips=1, node_timeout_s=limit_s))
        assert connects[0][-1] == limit_s


class Clock:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(startup, "time", clock)
    return clock


def give_up(
    patience: startup.Patience, clock: Clock, up: int = 0, **said: Any
) -> tuple[float, str]:
    """Wait until patience ends; return after how many seconds, and why."""
    began_s = clock.now_s
    while True:
        try:
            patience.check(up, **said)
        except FarmError as error:
            return clock.now_s - began_s, str(error)
        clock.now_s += 1.0


def test_workers_that_have_room_are_waited_for_until_the_upper_bound(clock: Clock) -> None:
    for limit_s in (500.0, 900.0):
        spec = FarmSpec(chips=4, node_timeout_s=20.0, start_timeout_s=limit_s)
        patience = startup.Patience(spec, 4, lambda: True)
        waited_s, why = give_up(patience, clock, up=3)
        assert waited_s == limit_s
        assert why.startswith(f"1 of 4 workers did not start in {limit_s:g} s; valid: ")


def test_workers_without_room_are_waited_for_while_a_node_may_join(clock: Clock) -> None:
    for limit_s in (20.0, 60.0):
        spec = FarmSpec(chips=4, node_timeout_s=limit_s)
        patience = startup.Patience(spec, 4, lambda: False)
        waited_s, why = give_up(patience, clock)
        assert waited_s == pytest.approx(limit_s, abs=4.0)
        assert "no room" in why
        # Each that comes up shows that others may.
        patience = startup.Patience(spec, 4, lambda: False)
        for up in range(3):
            clock.now_s += 0.9 * limit_s
            patience.check(up)
        waited_s, why = give_up(patience, clock, up=2)
        assert waited_s == pytest.approx(limit_s, abs=4.0)


def test_workers_that_die_while_they_start_are_tried_again_for_a_while(clock: Clock) -> None:
    patience = startup.Patience(FarmSpec(chips=2, node_timeout_s=20.0), 2, lambda: True)
    waited_s, why = give_up(patience, clock, died=True)
    assert waited_s == pytest.approx(20.0, abs=2.0)
    assert why.endswith("they die while they start")


# The cluster --------------------------------------------------------------------------------


@pytest.mark.ray
def test_a_cluster_on_this_machine_is_started_with_memory_and_dashboard_of_the_settings(
    ray: Pretended,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RAY_enable_metrics_collection", raising=False)
    for spec in (FarmSpec(), FarmSpec(dashboard=True, object_store_bytes=123_000_000)):
        with cluster_module.cluster(spec):
            found = ray.asked["init"][-1]
            # What is started from here may have a Ray of its own, with a dashboard.
            assert "RAY_enable_metrics_collection" not in os.environ
        assert found["address"] == "local"
        assert found["include_dashboard"] is spec.dashboard
        assert found["object_store_memory"] == spec.object_store_bytes
        measured = ray.asked["environment"][-1].get("RAY_enable_metrics_collection") != "0"
        assert measured is spec.dashboard
        assert ("http://127.0.0.1:8265 asks for the token " in capsys.readouterr().err) is (
            spec.dashboard
        )


@pytest.mark.ray
def test_a_machine_too_busy_for_rays_own_limits_is_given_the_time_of_the_settings(
    ray: Pretended, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = ray.init
    tries = iter([True, True])

    def busy(**options: Any) -> None:
        if next(tries, False):
            raise RuntimeError("The current node timed out during startup.\n\n At length")
        whole(**options)

    monkeypatch.setattr(ray, "init", busy)
    with cluster_module.cluster(FarmSpec()):
        assert len(ray.asked["init"]) == 1
    assert caplog.text.count("trying again") == 2
    tries = iter([True])
    with (
        pytest.raises(FarmError, match=r"did not start in 1e-06 s \(The .*startup\. At length\)"),
        cluster_module.cluster(FarmSpec(start_timeout_s=1e-6)),
    ):
        pass


@pytest.mark.ray
def test_a_running_cluster_is_joined_at_the_address_of_the_settings(ray: Pretended) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        with cluster_module.cluster(FarmSpec(address=address)):
            assert ray.asked["init"][-1]["address"] == address
    with (
        pytest.raises(FarmError, match=rf"farm\.address: nothing answers at {address}"),
        cluster_module.cluster(FarmSpec(address=address)),
    ):
        pass


@pytest.mark.ray
def test_as_many_nodes_are_waited_for_as_the_settings_say(
    ray: Pretended, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined = iter([1, 2, 2, 3])
    monkeypatch.setattr(cluster_module, "_LOOK_S", 0.01)
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True}] * next(joined, 3), raising=False)
    with cluster_module.cluster(FarmSpec(address="auto", nodes=3)):
        assert next(joined, None) is None
    few = FarmSpec(address="auto", nodes=4, node_timeout_s=0.05)
    match = r"farm\.nodes=4: the cluster has 3 nodes after 0\.05 s"
    with pytest.raises(FarmError, match=match), cluster_module.cluster(few):
        pass
    # The head may be late as well.
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        nobody = cluster_module.cluster(FarmSpec(address=address))
        with pytest.raises(FarmError, match="nothing answers"), nobody:
            pass
        late = threading.Timer(0.5, listening.listen)
        late.start()
        with cluster_module.cluster(FarmSpec(address=address, nodes=3)):
            pass
    with pytest.raises(SettingsError, match=r"nodes: address=local is one node"):
        load_settings(["farm.nodes=2"])


@pytest.mark.ray
def test_points_of_a_study_run_on_as_many_processes_as_the_settings_say(ray: Pretended) -> None:
    for workers, expected in ((None, 3), (1, 1), (5, 5)):
        ray.asked.clear()
        spec = FarmSpec(study_workers=workers)
        assert len(list(map_unordered(_add, 1, range(8), spec))) == 8
        assert max(count for count, _ in ray.asked["wait"]) == expected


def _add(shared: int, point: int) -> int:
    return shared + point


# In this process ----------------------------------------------------------------------------


def _threads(_shared: None = None, _point: None = None) -> int:
    pools = threadpoolctl.threadpool_info()
    return max(pool["num_threads"] for pool in pools if pool["user_api"] == "blas")


def test_this_process_computes_with_the_threads_of_the_settings() -> None:
    settings = load_settings(list(TINY))
    setup = make_setup(training_job(settings), settings.dataset.load())
    for threads in (1, 2):
        spec = FarmSpec(backend="inprocess", chips=1, blas_threads=threads)
        with threadpoolctl.threadpool_limits(4), open_farm(spec, setup):
            assert _threads() == threads
        assert [found for _, found in map_unordered(_threads, None, [None], spec)] == [threads]


def test_the_backend_decides_where_chips_are(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def elsewhere(spec: FarmSpec, setup: Any) -> Iterator[str]:
        yield "on Ray"

    monkeypatch.setattr("repast_dist.farm.launch._ray_farm", elsewhere)
    settings = load_settings(list(TINY))
    setup = make_setup(training_job(settings), settings.dataset.load())
    with open_farm(FarmSpec(), setup) as farm:
        assert farm == "on Ray"
    with open_farm(FarmSpec(backend="inprocess", chips=1), setup) as farm:
        assert isinstance(farm, InProcessFarm)


class Lossy(InProcessFarm):
    """A farm that loses its worker in some of its answers."""

    def __init__(self, setup: Any, losses: set[int]) -> None:
        super().__init__(1, ChipWorker, setup)
        self.answers, self.losses, self.again = 0, losses, 0

    def get(self, answers: Any) -> Any:
        """Lose the worker, or answer."""
        self.answers += 1
        if self.answers in self.losses:
            raise WorkersLost({0}, "it is gone")
        return super().get(answers)

    def revive(self, workers: Any) -> None:
        """Count."""
        self.again += 1


class Notes:
    """A recorder that keeps events."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.trained = 0

    def steps(self, records: Any, rows: Any, solves: Any) -> None:
        """Count steps."""
        self.trained += len(records)

    def epoch(self, record: Any) -> None:
        """Do nothing."""

    def event(self, event: Event) -> None:
        """Keep it."""
        self.events.append(event)

    def cut(self) -> None:
        """Do nothing."""

    def saved(self) -> None:
        """Do nothing."""

    def drop_from(self, step: int) -> None:
        """Do nothing."""


def trained(folder: Path, losses: set[int], *overrides: str) -> tuple[list[int], Lossy, Notes]:
    """Train in this process; return the steps of the checkpoints left, the farm and the notes."""
    settings = load_settings([*TINY, *overrides])
    setup = make_setup(training_job(settings), settings.dataset.load())
    farm, notes = Lossy(setup, losses), Notes()
    assert Coordinator(setup, farm, beginning(setup), notes, folder).run()
    return [int(path.name.rpartition("-")[2]) for path in list_checkpoints(folder)], farm, notes


def test_checkpoints_are_as_often_and_as_many_as_the_settings_say(tmp_path: Path) -> None:
    def left(name: str, *overrides: str) -> list[int]:
        return trained(tmp_path / name, set(), *overrides)[0]

    assert left("default") == [0, STEPS]
    assert left("often", "farm.checkpoint_every=1") == [STEPS - 1, STEPS]
    assert left("many", "farm.checkpoint_every=2", "farm.checkpoint_keep=9") == [0, 2, 4, STEPS]
    assert left("last", "farm.checkpoint_every=2", "farm.checkpoint_keep=1") == [STEPS]


def test_a_run_recovers_as_often_as_the_settings_allow(tmp_path: Path) -> None:
    losses = {4, 7}
    _, farm, notes = trained(tmp_path / "all", losses, "farm.checkpoint_every=1")
    assert farm.again == len(losses)
    assert notes.trained >= STEPS
    for number, allowed in enumerate((0, 1)):
        with pytest.raises(FarmError, match=rf"farm\.max_recoveries={allowed} reached"):
            trained(tmp_path / str(number), losses, f"farm.max_recoveries={allowed}")


def test_a_worker_may_fail_as_often_as_the_settings_say(tmp_path: Path) -> None:
    losses = {4, 7, 10}
    assert trained(tmp_path / "three", losses, "farm.max_worker_failures=3")[1].again == 3
    with pytest.raises(FarmError, match=r"farm\.max_worker_failures=2 times"):
        trained(tmp_path / "two", losses, "farm.max_worker_failures=2")


def test_run_directories_are_made_where_the_settings_say(train: Any, tmp_path: Path) -> None:
    for name in ("here", "there"):
        made = train(*TINY, f"run_root={tmp_path / name}")
        assert made.is_relative_to(tmp_path / name)


def test_a_chip_of_its_own_speed_and_noise_is_what_the_overrides_say() -> None:
    from repast_dist.farm.setup import chip_engine

    own = "farm.chip_overrides={1:{speed:0.5,programming_sigma:0.25}}"
    settings = load_settings(["farm.chips=2", "farm.backend=inprocess", own])
    job = training_job(settings)
    setup = make_setup(job, settings.dataset.load())
    assert setup.plan.work.speeds == (1.0, 0.5)
    sigmas = [chip_engine(job, chip).inv.device.inv_cell.programming_sigma for chip in (0, 1)]
    assert np.isclose(sigmas[1], 0.25)
    assert sigmas[0] != sigmas[1]
