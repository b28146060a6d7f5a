"""Open a farm for a job: start or join a Ray cluster if one is wanted, then start the workers."""

import contextlib
from collections.abc import Iterator

from threadpoolctl import threadpool_limits

from repast_dist.analog.kernels.chosen import using
from repast_dist.farm.cluster import cluster
from repast_dist.farm.inprocess import InProcessFarm
from repast_dist.farm.interface import Farm
from repast_dist.farm.setup import FarmSetup
from repast_dist.farm.specs import FarmSpec
from repast_dist.farm.worker import ChipWorker


@contextlib.contextmanager
def open_farm(spec: FarmSpec, setup: FarmSetup) -> Iterator[Farm]:
    """Keep the workers of a job running inside the block; afterwards all processes have ended.

    Raises
    ------
    FarmError
        The cluster or the chips did not come up.
    SettingsError
        This machine does not have the kernels that are asked for.
    """
    # A product's last bits depend on the number of threads: the same everywhere.
    with threadpool_limits(spec.blas_threads):
        if spec.backend == "inprocess":
            with using(spec.kernels):
                yield InProcessFarm(spec.chips, ChipWorker, setup)
        else:
            with _ray_farm(spec, setup) as farm:
                yield farm


@contextlib.contextmanager
def _ray_farm(spec: FarmSpec, setup: FarmSetup) -> Iterator[Farm]:
    with cluster(spec):
        # Ray may only be imported once the cluster's authentication is set.
        from repast_dist.farm.ray_farm import RayFarm

        farm = RayFarm(spec, ChipWorker, setup)
        try:
            with farm.errors_named():
                yield farm
        finally:
            farm.close()
