"""Settings of the farm: how many chips there are, where they run, and how failures are handled."""

from dataclasses import field
from typing import Annotated, Literal

from annotated_types import Ge, Gt

from repast_dist.analog.kernels.chosen import KernelChoice
from repast_dist.ground.numbers import PositiveInt
from repast_dist.ground.spec import spec


@spec
class ChipOverride:
    """Settings of one chip that differ from the others'; None keeps the common value."""

    speed: Annotated[float, Gt(0)] = 1.0
    programming_sigma: Annotated[float, Ge(0)] | None = None


@spec
class FarmSpec:
    """Settings of the processes that run the simulated chips.

    Attributes
    ----------
    backend : {"ray", "inprocess"}
        ``ray``: every chip in a worker process. ``inprocess``: all chips in this process, one
        after the other; the reference, and the one to debug with.
    chips : int
        Number of simulated chips.
    chips_per_worker : int
        Chips that share one worker process; 1 gives every chip a process of its own.
    study_workers : int or None
        Processes that compute the points of a study at the same time; None: one per CPU of the
        cluster. They are not workers of a farm: each prices or trains points on its own.
    address : str
        ``local`` starts Ray on this machine's loopback and ends it with the run; ``auto`` or
        ``ray://host:port`` or ``host:port`` attaches to a running cluster and leaves it running.
    nodes : int or None
        Nodes that a running cluster must have before anything is started there; the first one, too,
        is waited for as long as ``node_timeout_s``. None: whatever answers at once.
    cpus_per_worker : float
        Logical CPUs Ray reserves per worker; 0 lets any number of workers share a machine.
    resources_per_worker : dict
        Custom Ray resources a worker needs, for clusters that label the machines for chips.
    placement : {"any", "spread", "pack"}
        Where workers go on a cluster of several nodes.
    blas_threads : int
        BLAS and OpenMP threads per worker process.
    kernels : {"auto", "amx", "int8", "float32", "cuda", "torch"}
        What products on crossbars are computed with: ``amx`` takes the processor's matrix unit for
        8-bit numbers, ``int8`` other 8-bit units (VNNI) and the package ``onednn-cpu-gomp``,
        ``float32`` additions and NumPy's BLAS, ``auto`` the first of these that a worker's machine
        has; ``cuda`` PyTorch on a GPU, which a node's workers share, ``torch`` PyTorch on the
        processor. The numbers are the same.
    object_store_bytes : int
        Shared memory for Ray's object store on a local cluster, in bytes.
    dashboard : bool
        Start Ray's dashboard on this machine's loopback, and say where it is and which token it
        asks for; Ray's Prometheus ports open with it. A cluster that is attached to has its own.
    checkpoint_every : int
        Steps between checkpoints; lost work after a failure is at most this many steps.
    checkpoint_keep : int
        How many of the newest checkpoints stay on disk.
    max_worker_failures : int
        A worker that failed this often is retired and its chips move to another worker.
    max_recoveries : int
        The run stops after this many recoveries in total.
    call_timeout_s : float
        Longest wait in seconds, both of a worker for what others send it in a step and of the
        coordinator for answers. A worker that is silent for longer counts as lost, so this must
        exceed the longest step.
    node_timeout_s : float
        Longest wait for a node with room for a worker, and for a node that is out of reach, in
        seconds.
    link_timeout_s : float
        A worker whose machine has not answered any other for so long is taken to be cut off, in
        seconds; one that computes, or hangs, still answers by its kernel.
    start_timeout_s : float
        Longest wait for Ray and for workers to start where there is room for them, in seconds: a
        busy machine takes long for it.
    chip_overrides : dict
        Chip number (as text) -> settings of that chip that differ: ``speed`` (relative to the
        others, for example 0.5) and ``programming_sigma`` (a noisier chip changes the maths).
    """

    backend: Literal["ray", "inprocess"] = "ray"
    chips: PositiveInt = 4
    chips_per_worker: PositiveInt = 1
    study_workers: PositiveInt | None = None
    address: str = "local"
    nodes: PositiveInt | None = None
    cpus_per_worker: Annotated[float, Ge(0)] = 0.0
    resources_per_worker: dict[str, Annotated[float, Gt(0)]] = field(default_factory=dict)
    placement: Literal["any", "spread", "pack"] = "any"
    blas_threads: PositiveInt = 1
    kernels: KernelChoice = "auto"
    object_store_bytes: Annotated[int, Ge(80_000_000)] = 500_000_000
    dashboard: bool = False
    checkpoint_every: PositiveInt = 20
    checkpoint_keep: PositiveInt = 2
    max_worker_failures: PositiveInt = 3
    max_recoveries: Annotated[int, Ge(0)] = 20
    call_timeout_s: Annotated[float, Gt(0)] = 600.0
    node_timeout_s: Annotated[float, Gt(0)] = 60.0
    link_timeout_s: Annotated[float, Gt(0)] = 30.0
    start_timeout_s: Annotated[float, Gt(0)] = 900.0
    chip_overrides: dict[str, ChipOverride] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.nodes is not None and self.address == "local":
            raise ValueError("nodes: address=local is one node; valid: null, or address=auto")
        if self.dashboard and self.address != "local":
            raise ValueError(
                "dashboard: a cluster that is attached to has its own; valid: "
                "farm.address=local, or farm.dashboard=false"
            )
        for name in self.chip_overrides:
            if not name.isdigit() or int(name) >= self.chips:
                raise ValueError(
                    f"chip_overrides.{name}: no such chip; valid: 0 to {self.chips - 1}"
                )


def worker_groups(spec: FarmSpec) -> tuple[tuple[int, ...], ...]:
    """Return the chips of every worker, in chip order."""
    size = spec.chips_per_worker
    return tuple(
        tuple(range(first, min(first + size, spec.chips))) for first in range(0, spec.chips, size)
    )


def chip_speed(spec: FarmSpec, chip: int) -> float:
    """Return a chip's speed relative to the others."""
    override = spec.chip_overrides.get(str(chip))
    return override.speed if override is not None else 1.0
