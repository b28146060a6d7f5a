"""The farm on Ray runs every worker as an actor and puts shared values into the object store."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Concatenate

import ray
from ray.exceptions import (
    GetTimeoutError,
    NodeDiedError,
    ObjectLostError,
    RayActorError,
    RayError,
    RayTaskError,
    TaskCancelledError,
    WorkerCrashedError,
)
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from repast_dist.analog.kernels.chosen import VARIABLE
from repast_dist.farm.certificate import RunCertificate
from repast_dist.farm.failures import PeersLost, WorkersLost
from repast_dist.farm.interface import Answer, Worker, WorkerFactory
from repast_dist.farm.lifeline import Lifeline
from repast_dist.farm.metrics import RunMetrics
from repast_dist.farm.peers import Endpoint, SocketPeers
from repast_dist.farm.setup import FarmSetup
from repast_dist.farm.specs import FarmSpec, worker_groups
from repast_dist.farm.startup import Patience, told_while
from repast_dist.farm.worker_log import configure_worker_log
from repast_dist.ground.errors import FarmError, RepastError
from repast_dist.ground.plugins import PluginSource, activate, active
from repast_dist.ground.user_code import ModuleSource, take, taken

_PING_S = 5.0
_RETRY_S = 0.25
# While it waits, the farm looks this often whether the cluster is still there.
_LOOK_S = 1.0
_CONNECT_TRIES = 3
_CALLS_AHEAD = 1
# For glibc: arrays up to 32 MiB come from the heap, of which up to 256 MiB stay when free.
_KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(256 * 2**20),
}
_LOST = (RayActorError, ObjectLostError, NodeDiedError, WorkerCrashedError, TaskCancelledError)
logger = logging.getLogger(__name__)


class RayWorker:
    """A Ray actor that runs a plain worker of chips in a process of its own."""

    def __init__(
        self,
        factory: WorkerFactory,
        chips: tuple[int, ...],
        setup: tuple[Any],
        plugins: tuple[PluginSource, ...],
        code: tuple[ModuleSource, ...],
        link_s: float,
        wait_s: float,
    ) -> None:
        configure_worker_log(chips)
        self._peers = SocketPeers(ray.util.get_node_ip_address(), wait_s, link_s)
        # What plug-ins and users' modules declare must be there before the setup is unpickled.
        take(code)
        activate(plugins)
        self._worker = factory(chips, ray.get(setup[0]), self._peers)

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the worker and return its result."""
        return getattr(self._worker, method)(*args, **kwargs)

    def endpoint(self) -> Endpoint:
        """Return the address and port at which this worker listens."""
        return self._peers.endpoint

    def connect(
        self,
        worker: int,
        endpoints: Mapping[int, Endpoint],
        certificate: RunCertificate,
        timeout_s: float,
    ) -> None:
        """Connect to all other workers; see `SocketPeers.connect`."""
        self._peers.connect(worker, endpoints, certificate, timeout_s)

    def ping(self) -> bool:
        """Return True, which shows that the process lives and is not stuck."""
        return True


class RayFarm:
    """Workers on this machine or on a cluster; Ray must be up already."""

    def __init__(self, spec: FarmSpec, factory: WorkerFactory, setup: FarmSetup) -> None:
        self._spec = spec
        self._factory = factory
        self._groups = dict(enumerate(worker_groups(spec)))
        self._setup = (ray.put(setup),)
        self._plugins, self._code = active(), taken()
        self._lifeline = Lifeline()
        self._placement = self._reserve() if spec.placement != "any" else None
        self._handles: dict[int, Any] = {}
        self._start_all()
        self._metrics = RunMetrics()

    @property
    def workers(self) -> dict[int, tuple[int, ...]]:
        """Live worker number -> its chips."""
        return dict(self._groups)

    @property
    def ahead(self) -> int:
        """One call, which bridges the time of a Ray call and of the work on an answer."""
        return _CALLS_AHEAD

    def put[Value](self, value: Value) -> Value:
        """Put a value into the object store and return its reference, which calls can take."""
        reference: Any = ray.put(value)
        return reference

    def call[**Arguments, Result](
        self,
        worker: int,
        method: Callable[Concatenate[Worker, Arguments], Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Answer[Result]:
        """Queue a method call on the worker."""
        return Answer(self._handles[worker].call.remote(method.__name__, *args, **kwargs))

    def get[Result](self, answers: Sequence[Answer[Result]]) -> list[Result]:
        """Wait for answers; `Farm.get` lists the errors."""
        return self._wait([answer.pending for answer in answers])

    def _wait(self, refs: Sequence[Any]) -> list[Any]:
        # A worker that waits for a silent one says so first.
        limit_s = self._spec.call_timeout_s + _PING_S
        deadline = time.monotonic() + limit_s
        while True:
            self._lifeline.check()
            left_s = deadline - time.monotonic()
            try:
                found: list[Any] = ray.get(list(refs), timeout=min(max(left_s, 0.0), _LOOK_S))
                return found
            except GetTimeoutError as error:
                if left_s <= _LOOK_S:
                    raise self._lost(f"no answer in {limit_s:g} s", stuck=True) from error
            except (RayTaskError, *_LOST) as error:
                self._lifeline.check()
                raise self._meaning(refs, error) from error

    def _meaning(self, refs: Sequence[Any], error: Exception) -> BaseException:
        """Return the error that caused all others; workers lose each other because of it."""
        cause = _cause(error)
        if isinstance(cause, PeersLost):
            # Where a machine is cut off, Ray takes a while to give it up.
            limit_s = min(self._spec.call_timeout_s, self._spec.node_timeout_s)
            ray.wait(list(refs), num_returns=len(refs), timeout=limit_s)
            settled = [_failure(ref) for ref in refs]
            cause = next((c for c in settled if isinstance(c, RepastError)), cause)
        if isinstance(cause, RepastError):
            return cause
        if isinstance(cause, (PeersLost, *_LOST)):
            return self._lost(_first_line(cause), stuck=isinstance(cause, PeersLost))
        return error

    def revive(self, workers: Sequence[int]) -> None:
        """Start workers again, wherever the cluster has room, and connect all workers."""
        for worker in workers:
            self._end(worker)
        self._bring_up(workers)
        self._connect()

    def retire(self, workers: Sequence[int]) -> None:
        """End workers and remove them from the farm."""
        for worker in workers:
            self._end(worker)
            del self._groups[worker]

    def publish(self, values: Mapping[str, float]) -> None:
        """Set the Ray metrics of the run."""
        self._metrics.publish(values)

    @contextlib.contextmanager
    def errors_named(self) -> Iterator[None]:
        """Turn what Ray raises about a cluster that is gone or in trouble into a `FarmError`."""
        try:
            yield
        except RayTaskError:
            # A worker's own mistake, with its traceback.
            raise
        except (RayError, ConnectionError) as error:
            self._lifeline.check()
            raise FarmError(f"Ray: {_first_line(error)}") from error

    def close(self) -> None:
        """End all workers and release their placement group."""
        for worker in list(self._handles):
            self._end(worker)
        if self._placement is not None:
            with contextlib.suppress(RayError):
                remove_placement_group(self._placement)

    def _start(self, worker: int) -> Any:
        chips = self._groups[worker]
        options: dict[str, Any] = {
            "num_cpus": self._spec.cpus_per_worker,
            "resources": dict(self._spec.resources_per_worker) or None,
            "max_restarts": 0,
            "max_task_retries": 0,
            "runtime_env": process_environment(self._spec),
        }
        if self._placement is not None:
            options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(
                self._placement, placement_group_bundle_index=worker
            )
        actor_class = ray.remote(**options)(RayWorker)
        return actor_class.remote(
            self._factory,
            chips,
            self._setup,
            self._plugins,
            self._code,
            self._spec.link_timeout_s,
            self._spec.call_timeout_s,
        )

    def _bring_up(self, workers: Sequence[int]) -> None:
        """Start workers and wait until they answer.

        Ray may place a worker on a node that is about to be found dead, so a worker whose process
        dies before it answers is started again.

        Raises
        ------
        FarmError
            They did not come up (`Patience` says when), or refused to.
        """
        waiting: dict[Any, int] = {}
        patience = Patience(self._spec, len(workers), lambda: self._has_room(waiting.values()))
        missing = list(workers)
        up = 0
        with told_while(lambda: f"{len(workers) - up} of {len(workers)} workers to start"):
            while missing or waiting:
                for worker in missing:
                    self._handles[worker] = self._start(worker)
                    waiting[self._handles[worker].ping.remote()] = worker
                limit_s = max(min(_LOOK_S, patience.left_s), 0.1)
                done, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=limit_s)
                self._lifeline.check()
                answered = [(ping, waiting.pop(ping)) for ping in done]
                missing = [worker for ping, worker in answered if not self._is_up(ping, worker)]
                up += len(answered) - len(missing)
                patience.check(up, died=bool(missing))
                if missing:
                    time.sleep(_RETRY_S)

    def _has_room(self, workers: Iterable[int]) -> bool:
        """Return whether the cluster has a place for one more of some workers that are starting."""
        needed = _bundle(self._spec)
        # Ray keeps room for the bundles of a placement group.
        if not needed or self._placement is not None:
            return True
        free = ray.available_resources()
        fits = all(free.get(name, 0.0) >= amount for name, amount in needed.items())
        return fits or all(self._is_placed(worker) for worker in workers)

    def _is_placed(self, worker: int) -> bool:
        """Return whether a worker has a process, which may still be starting."""
        actor = ray._private.state.actors(self._handles[worker]._actor_id.hex())
        return bool(actor and actor["Pid"])

    def _is_up(self, ping: Any, worker: int) -> bool:
        """Return whether a started worker lives.

        Raises
        ------
        FarmError
            It failed while it was built: another try would fail, too.
        """
        try:
            ray.get(ping)
        except RayActorError as error:
            if error.actor_init_failed:
                raise FarmError(f"worker {worker} failed to start: {_first_line(error)}") from error
            logger.warning("worker %d died while starting: %s", worker, _first_line(error))
            return False
        return True

    def _start_all(self) -> None:
        """Start and connect all workers; on a busy machine this may take more than one try."""
        missing: Sequence[int] = list(self._groups)
        for tries_left in reversed(range(_CONNECT_TRIES)):
            self._bring_up(missing)
            try:
                self._connect()
                return
            except WorkersLost as error:
                if not tries_left:
                    raise FarmError(f"the workers cannot reach each other: {error}") from error
                logger.warning("while the workers connect: %s; trying again", error)
                missing = error.workers

    def _connect(self) -> None:
        """Connect every worker to all others."""
        workers = list(self._groups)
        found = self._wait([self._handles[worker].endpoint.remote() for worker in workers])
        endpoints = dict(zip(workers, found, strict=True))
        shared = endpoints, RunCertificate.make(), self._spec.node_timeout_s
        self._wait([self._handles[worker].connect.remote(worker, *shared) for worker in workers])

    def _reserve(self) -> Any:
        strategy = "SPREAD" if self._spec.placement == "spread" else "PACK"
        bundle = _bundle(self._spec)
        if not bundle:
            raise FarmError(
                f"farm.placement={self._spec.placement} needs farm.cpus_per_worker or "
                "farm.resources_per_worker above 0 to place workers by"
            )
        group = placement_group([bundle] * len(self._groups), strategy=strategy)
        if not group.wait(timeout_seconds=self._spec.node_timeout_s):
            remove_placement_group(group)
            raise FarmError(
                f"farm.placement={self._spec.placement}: the cluster has no room for "
                f"{len(self._groups)} x {bundle}"
            )
        return group

    def _lost(self, reason: str, stuck: bool = False) -> WorkersLost:
        """Find the lost workers; those that are stuck or cannot be reached are ended first."""
        pings = {self._handles[worker].ping.remote(): worker for worker in self._groups}
        lost = set()
        for ping, worker in self._answers(pings, _PING_S if stuck else self._spec.call_timeout_s):
            if ping is None:
                lost.add(worker)
                self._end(worker)
        return WorkersLost(lost, reason)

    def _answers(self, pings: dict[Any, int], limit_s: float) -> Iterator[tuple[Any, int]]:
        """Yield (True or None, worker); a worker that is only out of reach is asked again."""
        deadline = time.monotonic() + limit_s
        unreachable_until = time.monotonic() + self._spec.node_timeout_s
        for first, worker in pings.items():
            ping = first
            while True:
                try:
                    left_s = max(deadline - time.monotonic(), 0.1)
                    yield ray.get(ping, timeout=left_s), worker
                    break
                except ray.exceptions.ActorUnavailableError:
                    if time.monotonic() > unreachable_until:
                        yield None, worker
                        break
                    time.sleep(_RETRY_S)
                    ping = self._handles[worker].ping.remote()
                except RayError:
                    yield None, worker
                    break

    def _end(self, worker: int) -> None:
        with contextlib.suppress(RayError, KeyError, ValueError):
            ray.kill(self._handles[worker])


def _bundle(spec: FarmSpec) -> dict[str, float]:
    """Return the resources that one worker takes."""
    wanted = {"CPU": spec.cpus_per_worker, **spec.resources_per_worker}
    return {name: amount for name, amount in wanted.items() if amount > 0}


def _cause(error: BaseException) -> BaseException:
    return error.cause if isinstance(error, RayTaskError) and error.cause else error


def _failure(ref: Any) -> BaseException | None:
    try:
        ray.get(ref, timeout=0)
    except RayError as error:
        return _cause(error)
    return None


def process_environment(spec: FarmSpec) -> dict[str, dict[str, str]]:
    """Return the Ray runtime environment of a worker process.

    Threads are set before NumPy loads, kernels before the first product. Freed memory is kept:
    asking for it again in every step costs up to a tenth of one.
    """
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    variables = dict.fromkeys(names, str(spec.blas_threads))
    # Kernels and modules may use the GPU that workers share: Ray hides it from actors that do not
    # reserve one.
    variables["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    return {"env_vars": variables | {VARIABLE: spec.kernels} | _KEEP_MEMORY}


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
