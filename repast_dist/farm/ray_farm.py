"""The farm on Ray: every host is an actor, every value an object in the object store."""

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
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

from repast_dist.errors import FarmError, RepastError
from repast_dist.farm.actor_log import configure_actor_log
from repast_dist.farm.failures import HostsLost
from repast_dist.farm.metrics import RunMetrics
from repast_dist.farm.protocol import HostFactory, Ref
from repast_dist.farm.specs import FarmSpec, actor_groups

_PING_S = 5.0
# Ray puts arguments of up to 100 kB into the call itself.
_INLINE_BYTES = 80_000
_LOST = (RayActorError, ObjectLostError, NodeDiedError, WorkerCrashedError, TaskCancelledError)
logger = logging.getLogger(__name__)


class ChipActor:
    """A Ray actor around a plain host of chips; it adds nothing but the process."""

    def __init__(self, factory: HostFactory, chips: tuple[int, ...], shared: Any) -> None:
        configure_actor_log(chips)
        self._host = factory(chips, shared)

    def call(self, method: str, *args: Any) -> Any:
        """Run a method of the host."""
        return getattr(self._host, method)(*args)

    def ping(self) -> bool:
        """Answer, which shows that the process lives and is not stuck."""
        return True


class RayFarm:
    """Actors on this machine or on a cluster; Ray must be up already."""

    def __init__(self, spec: FarmSpec, factory: HostFactory, shared: Any) -> None:
        self._spec = spec
        self._factory = factory
        self._groups = dict(enumerate(actor_groups(spec)))
        self._shared = ray.put(shared)
        self._placement = self._reserve() if spec.placement != "any" else None
        self._actors: dict[int, Any] = {host: self._start(host) for host in self._groups}
        self._await_ready(list(self._groups))
        self._metrics = RunMetrics()

    @property
    def hosts(self) -> dict[int, tuple[int, ...]]:
        """Live host number -> its chips."""
        return dict(self._groups)

    def put(self, value: Any) -> Ref:
        """Put a value into the object store once; small arrays travel faster with the calls."""
        return value if _travels_with_calls(value) else ray.put(value)

    def call(self, host: int, method: str, *args: Any, returns: int = 1) -> list[Ref]:
        """Queue a method call on the host's actor."""
        call = self._actors[host].call.options(num_returns=returns)
        refs = call.remote(method, *args)
        return [refs] if returns == 1 else refs

    def get(self, refs: Sequence[Ref]) -> list[Any]:
        """Wait for values; see `Farm.get` for what is raised."""
        try:
            return ray.get(list(refs), timeout=self._spec.call_timeout_s)
        except GetTimeoutError as error:
            raise self._lost(f"no answer in {self._spec.call_timeout_s:g} s", stuck=True) from error
        except RayTaskError as error:
            cause = error.cause
            if isinstance(cause, RepastError):
                raise cause from None
            if isinstance(cause, _LOST):
                raise self._lost(_first_line(cause)) from error
            raise
        except _LOST as error:
            raise self._lost(_first_line(error)) from error

    def revive(self, hosts: Sequence[int]) -> None:
        """Start actors anew, wherever the cluster has room."""
        for host in hosts:
            self._end(host)
            self._actors[host] = self._start(host)
        self._await_ready(hosts)

    def retire(self, hosts: Sequence[int]) -> None:
        """End actors for good."""
        for host in hosts:
            self._end(host)
            del self._groups[host]

    def publish(self, values: Mapping[str, float]) -> None:
        """Set the run's Ray metrics."""
        self._metrics.publish(values)

    def close(self) -> None:
        """End all actors and give their place back."""
        for host in list(self._actors):
            self._end(host)
        if self._placement is not None:
            with contextlib.suppress(RayError):
                remove_placement_group(self._placement)

    def process_ids(self) -> dict[int, int]:
        """Return host -> operating-system process id (for tests that kill one)."""
        return {
            host: ray.get(self._actors[host].call.remote("process_id")) for host in self._groups
        }

    def _start(self, host: int) -> Any:
        chips = self._groups[host]
        options: dict[str, Any] = {
            "num_cpus": self._spec.cpus_per_actor,
            "resources": dict(self._spec.resources_per_actor) or None,
            "max_restarts": 0,
            "max_task_retries": 0,
            "runtime_env": thread_environment(self._spec),
        }
        if self._placement is not None:
            options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(
                self._placement, placement_group_bundle_index=host
            )
        actor_class = ray.remote(**options)(ChipActor)
        return actor_class.remote(self._factory, chips, self._shared)

    def _await_ready(self, hosts: Sequence[int]) -> None:
        """Wait until the actors answer.

        Raises
        ------
        FarmError
            They did not come up within ``farm.node_timeout_s`` per wait.
        """
        pings = {self._actors[host].ping.remote(): host for host in hosts}
        deadline_s = self._spec.node_timeout_s + 2.0 * len(pings)
        done, waiting = ray.wait(list(pings), num_returns=len(pings), timeout=deadline_s)
        if waiting:
            raise FarmError(
                f"{len(waiting)} of {len(pings)} chip actors did not start in {deadline_s:.0f} s: "
                "the cluster has no room for them (farm.cpus_per_actor, farm.resources_per_actor, "
                "farm.placement) or no node; see farm.node_timeout_s"
            )
        for ping in done:
            try:
                ray.get(ping)
            except RayError as error:
                raise FarmError(
                    f"chip actor {pings[ping]} failed to start: {_first_line(error)}"
                ) from error

    def _reserve(self) -> Any:
        strategy = "SPREAD" if self._spec.placement == "spread" else "PACK"
        bundle = {"CPU": self._spec.cpus_per_actor, **self._spec.resources_per_actor}
        bundle = {name: amount for name, amount in bundle.items() if amount > 0}
        if not bundle:
            raise FarmError(
                f"farm.placement={self._spec.placement} needs farm.cpus_per_actor or "
                "farm.resources_per_actor above 0 to place actors by"
            )
        group = placement_group([bundle] * len(self._groups), strategy=strategy)
        if not group.wait(timeout_seconds=self._spec.node_timeout_s):
            remove_placement_group(group)
            raise FarmError(
                f"farm.placement={self._spec.placement}: the cluster has no room for "
                f"{len(self._groups)} x {bundle}"
            )
        return group

    def _lost(self, reason: str, stuck: bool = False) -> HostsLost:
        """Find out who is gone; who is stuck or cannot be reached is ended so that it is gone."""
        pings = {self._actors[host].ping.remote(): host for host in self._groups}
        lost = set()
        for ping, host in self._answers(pings, _PING_S if stuck else self._spec.call_timeout_s):
            if ping is None:
                lost.add(host)
                self._end(host)
        return HostsLost(lost, reason)

    def _answers(self, pings: dict[Any, int], limit_s: float) -> Iterator[tuple[Any, int]]:
        """Yield (True or None, host); a host that is only out of reach is asked again."""
        deadline = time.monotonic() + limit_s
        unreachable_until = time.monotonic() + self._spec.node_timeout_s
        for first, host in pings.items():
            ping = first
            while True:
                try:
                    left_s = max(deadline - time.monotonic(), 0.1)
                    yield ray.get(ping, timeout=left_s), host
                    break
                except ray.exceptions.ActorUnavailableError:
                    if time.monotonic() > unreachable_until:
                        yield None, host
                        break
                    time.sleep(0.25)
                    ping = self._actors[host].ping.remote()
                except RayError:
                    yield None, host
                    break

    def _end(self, host: int) -> None:
        with contextlib.suppress(RayError, KeyError, ValueError):
            ray.kill(self._actors[host])


def _travels_with_calls(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    arrays = list(value.values())
    small = all(isinstance(array, np.ndarray) for array in arrays)
    return small and sum(array.nbytes for array in arrays) <= _INLINE_BYTES


def thread_environment(spec: FarmSpec) -> dict[str, dict[str, str]]:
    """Return the Ray runtime environment that sets a process's threads before NumPy loads."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    return {"env_vars": dict.fromkeys(names, str(spec.blas_threads))}


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
