"""Compute independent points of a study in worker processes or in this process."""

import itertools
import os
from collections.abc import Callable, Generator, Iterable
from typing import Any

from threadpoolctl import threadpool_limits

from repast_dist.analog.kernels.chosen import using
from repast_dist.farm.cluster import cluster
from repast_dist.farm.specs import FarmSpec
from repast_dist.ground.errors import FarmError, RepastError
from repast_dist.ground.plugins import PluginSource, activate, active
from repast_dist.ground.user_code import ModuleSource, take, taken

_RETRIES = 2
# While it waits, the study looks this often whether the cluster is still there.
_LOOK_S = 1.0


def map_unordered[Shared, Point, Result](
    function: Callable[[Shared, Point], Result],
    shared: Shared,
    points: Iterable[Point],
    farm: FarmSpec,
) -> Generator[tuple[int, Result]]:
    """Apply a function to every point and yield the results in the order they are finished.

    A point is taken when a worker is free for it, after the results so far were yielded, so that
    what comes next may depend on them.

    Parameters
    ----------
    function : callable
        A function of a module, ``function(shared, point)``.
    shared : object
        Moved to every worker once.
    points : iterable
        One call each.
    farm : FarmSpec
        ``backend`` says where: on Ray workers, or here one after the other;
        ``study_workers`` how many at a time, by default as many as the cluster has cores, also
        those of nodes that join later.

    Yields
    ------
    tuple of (int, result)
        Number of the point and its result.

    Raises
    ------
    RepastError
        What the function raised on purpose.
    FarmError
        A worker died again and again on one point.
    """
    if farm.backend == "ray":
        rest = iter(points)
        # A cluster is only started if there is something to do.
        for first in rest:
            yield from _on_ray(function, shared, itertools.chain([first], rest), farm)
        return
    # A product's last bits depend on the number of threads: the same everywhere.
    with using(farm.kernels), threadpool_limits(farm.blas_threads):
        for number, point in enumerate(points):
            yield number, function(shared, point)


def _on_ray(
    function: Callable[..., Any], shared: Any, points: Iterable[Any], farm: FarmSpec
) -> Generator[tuple[int, Any]]:
    with cluster(farm):
        # Ray may only be imported once the cluster's authentication is set.
        import ray

        from repast_dist.farm.lifeline import Lifeline
        from repast_dist.farm.ray_farm import process_environment

        lifeline = Lifeline()
        task = ray.remote(num_cpus=1, max_retries=_RETRIES, runtime_env=process_environment(farm))(
            _call
        )
        there, plugins, code = ray.put(shared), active(), taken()
        waiting = enumerate(points)
        running: dict[Any, int] = {}
        try:
            while True:
                free = (farm.study_workers or _cores(ray)) - len(running)
                for number, point in itertools.islice(waiting, max(0, free)):
                    arguments = (there, ray.put(point))
                    ref = task.remote(function, arguments, plugins, code, farm.blas_threads)
                    running[ref] = number
                if not running:
                    break
                done, _ = ray.wait(list(running), num_returns=1, timeout=_LOOK_S)
                lifeline.check()
                for ref in done:
                    yield running.pop(ref), _value(ref)
        finally:
            for ref in running:
                ray.cancel(ref, force=True)


def _cores(ray: Any) -> int:
    return int(ray.cluster_resources().get("CPU", os.cpu_count() or 1))


def _call(
    function: Callable[..., Any],
    arguments: tuple[Any, Any],
    plugins: tuple[PluginSource, ...],
    code: tuple[ModuleSource, ...],
    threads: int,
) -> Any:
    import ray

    # What plug-ins and users' modules declare must be there before the arguments are unpickled.
    take(code)
    activate(plugins)
    with threadpool_limits(threads):
        return function(*ray.get(list(arguments)))


def _value(ref: Any) -> Any:
    import ray

    try:
        return ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, RepastError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        raise FarmError(f"a worker process was lost {_RETRIES + 1} times: {error}") from error
