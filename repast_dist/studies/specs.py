"""Settings of the studies; ``study.name`` decides which."""

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, MinLen
from pydantic import Discriminator

from repast_dist.farm.specs import TrainSpec
from repast_dist.ground.spec import spec
from repast_dist.hardware.specs import ChipSpec
from repast_dist.mapping.baselines import GpuSpec, PipeLayerSpec
from repast_dist.mapping.specs import SoiSpec
from repast_dist.training.specs import ModelSpec, OptimizerSpec


@spec
class TrainStudy:
    """Train one network on the farm: accuracy and cost in one run."""

    name: Literal["train"] = "train"


@spec
class VerifyStudy:
    """Check a run directory (``run=RUN_DIR``) for missing, duplicate and damaged rows."""

    name: Literal["verify"] = "verify"


@spec
class CompareStudy:
    """Put runs side by side (``runs=[A,B]`` or a folder of runs): settings that differ, results."""

    name: Literal["compare"] = "compare"


@spec
class ExportPerfettoStudy:
    """Write a run's trace (``run=RUN_DIR``) for Perfetto or Chrome: chips as processes.

    Attributes
    ----------
    rows : int
        At most so many rows; the first steps are kept whole.
    """

    name: Literal["export-perfetto"] = "export-perfetto"
    rows: Annotated[int, Ge(1)] = 200_000


PositiveInt = Annotated[int, Ge(1)]


@spec
class PlanStudy:
    """Print who does what in a step and how well SOI work is balanced; nothing is run."""

    name: Literal["plan"] = "plan"


@spec
class ExplainStudy:
    """Print a chip's parts: count, area, power, share and source of each."""

    name: Literal["explain"] = "explain"


@spec
class Anchor:
    """A published figure.

    Attributes
    ----------
    kind : str
        What it is of; decides how ours is calculated.
    subject : str
        The network, machine or ratio.
    published : float
        The figure.
    unit : str
        Its unit.
    tolerance : float or None
        Largest relative difference that counts as agreement; None: shown, not judged.
    source : str
        Where it was published.
    """

    kind: Literal[
        "parameters", "macs", "chip power", "chip area", "GPU throughput", "placement",
        "PipeLayer over GTX 1080", "paper", "collective",
    ]  # fmt: skip
    subject: str
    published: float
    unit: str = "1"
    tolerance: Annotated[float, Ge(0)] | None = None
    source: str


@spec
class ValidateStudy:
    """Put every published figure beside ours: published, calculated, difference.

    Attributes
    ----------
    anchors : tuple of Anchor
        The figures.
    isaac : ChipSpec
        The published chip.
    v100, a100, gtx1080 : GpuSpec
        GPUs with published throughputs.
    pipelayer : PipeLayerSpec
        The first-order accelerator by its published peaks.
    pipelayer_chip : ChipSpec
        A chip of its kind, to be costed from the same parts as RePAST's.
    """

    name: Literal["validate"] = "validate"
    anchors: Annotated[tuple[Anchor, ...], MinLen(1)]
    isaac: ChipSpec
    v100: GpuSpec
    a100: GpuSpec
    gtx1080: GpuSpec
    pipelayer: PipeLayerSpec
    pipelayer_chip: ChipSpec


@spec
class HeadlineStudy:
    """RePAST beside a GPU and PipeLayer on published networks, on three footings.

    Attributes
    ----------
    networks : tuple of str
        Networks to compare on.
    batch_size, micro_batch_size : int
        Samples per step of one chip and of the GPU, and per micro-batch.
    sensitive : tuple of str
        Networks over which every assumed constant is halved and doubled.
    pipelayer : PipeLayerSpec
        The first-order accelerator by its published peaks.
    pipelayer_chip : ChipSpec
        A chip of its kind, to be costed from the same parts as RePAST's.
    """

    name: Literal["headline"] = "headline"
    networks: Annotated[tuple[str, ...], MinLen(1)]
    batch_size: PositiveInt = 256
    micro_batch_size: PositiveInt = 8
    sensitive: Annotated[tuple[str, ...], MinLen(1)]
    pipelayer: PipeLayerSpec
    pipelayer_chip: ChipSpec


@spec
class ScalingStudy:
    """Cost a step on growing numbers of chips, without training.

    Attributes
    ----------
    chips : tuple of int
        Numbers of chips.
    modes : tuple of {"strong", "weak"}
        Strong keeps the batch, weak the batch per chip.
    networks : tuple of str
        Networks; empty: the one of the settings' ``workload``.
    batch_size, micro_batch_size : int
        Samples per step of all chips (strong) or of one (weak), and per micro-batch.
    """

    name: Literal["scaling"] = "scaling"
    chips: Annotated[tuple[PositiveInt, ...], MinLen(1)]
    modes: Annotated[tuple[Literal["strong", "weak"], ...], MinLen(1)] = ("strong", "weak")
    networks: tuple[str, ...] = ()
    batch_size: PositiveInt = 256
    micro_batch_size: PositiveInt = 8


@spec
class ExportChakraStudy:
    """Write the plan of a step as Chakra execution traces, one per chip, for ASTRA-sim.

    Attributes
    ----------
    chips, batch_size, micro_batch_size : int
        The step that is planned.
    steps : int
        Steps in a trace.
    ticks_per_s : float
        Chakra's durations are whole numbers, by custom microseconds; more ticks keep shorter
        operations apart.
    """

    name: Literal["export-chakra"] = "export-chakra"
    chips: PositiveInt = 16
    batch_size: PositiveInt = 256
    micro_batch_size: PositiveInt = 8
    steps: PositiveInt = 1
    ticks_per_s: Annotated[float, Ge(1)] = 1e6


@spec
class ExportSpiceStudy:
    """Write a matrix as circuits of programmed arrays for ngspice, with calculated values.

    Attributes
    ----------
    circuits : tuple of {"vmm", "inv", "fused"}
        Arrays that multiply by the matrix, the one that inverts it, and the two that invert it
        as a product of rows without forming the product.
    matrix : {"random", "factor", "file"}
        A random symmetric positive definite one, a block of a damped K-FAC factor, or a file.
    size, condition : int, float
        Rows, and condition number of a random matrix; a factor's block is cut from its middle.
    path : str or None
        Of a ``.npy`` or ``.csv`` file.
    layer, factor : str or None, {"A", "G"}
        Whose factor; None: the first layer's.
    steps : int
        Steps of training, in float64, behind a factor.
    full_scale_v : float
        Largest voltage on rows, and of amplifiers.
    simulate : bool
        Run ngspice where it is installed and show what it found.
    """

    name: Literal["export-spice"] = "export-spice"
    circuits: Annotated[tuple[Literal["vmm", "inv", "fused"], ...], MinLen(1)] = ("vmm", "inv")
    matrix: Literal["random", "factor", "file"] = "random"
    size: PositiveInt = 16
    condition: Annotated[float, Ge(1)] = 100.0
    path: str | None = None
    layer: str | None = None
    factor: Literal["A", "G"] = "A"
    steps: PositiveInt = 10
    full_scale_v: Annotated[float, Gt(0)] = 0.2
    simulate: bool = True

    def __post_init__(self) -> None:
        if (self.matrix == "file") != (self.path is not None):
            raise ValueError("matrix=file needs a path, and only it takes one")


PrecisionMethod = Literal[
    "single", "taylor", "refine_bare", "refine", "fcg", "fcg_sliced", "cg"
]  # fmt: skip


@spec
class PrecisionStudy:
    """Invert blocks of real K-FAC factors with every method, on better and worse arrays.

    Attributes
    ----------
    methods : tuple of str
        As ``inversion.method``; ``refine_bare`` is ``refine`` without regularisation of the array,
        ``fcg_sliced`` is ``fcg`` with two slices per array.
    cell_bits : tuple of int
        Bits of the cells of inverting arrays.
    programming_sigma : tuple of float
        Programming errors of these cells, relative to the conductance range.
    damping : tuple of float
        Values of ``optimizer.damping``.
    block_sizes : tuple of int
        Blocks are cut from the middle of the network's widest factor; one that is narrower than a
        size is taken whole.
    steps : int
        Steps of training, in float64, behind the factors.
    columns : int
        Right-hand sides: columns of the last gradient that are not zero, at most.
    max_iterations : int
        Rounds after which a method is given up.
    """

    name: Literal["precision"] = "precision"
    methods: Annotated[tuple[PrecisionMethod, ...], MinLen(1)]
    cell_bits: Annotated[tuple[Annotated[int, Ge(1), Le(8)], ...], MinLen(1)]
    programming_sigma: Annotated[tuple[Annotated[float, Ge(0)], ...], MinLen(1)]
    damping: Annotated[tuple[Annotated[float, Gt(0)], ...], MinLen(1)]
    block_sizes: Annotated[tuple[PositiveInt, ...], MinLen(1)]
    steps: PositiveInt = 40
    columns: PositiveInt = 16
    max_iterations: PositiveInt = 200


TrainingMethod = Literal["float64", "fixed8", "fixed16", "single", "taylor", "refine", "fcg"]
PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]


@spec
class ConvergenceStudy:
    """Train with every optimizer and every way to invert; convergence and cost to a target.

    Attributes
    ----------
    train, soi, kfac : TrainSpec, SoiSpec, OptimizerSpec
        What takes the place of the settings' ``train``, ``soi`` and ``optimizer``.
    methods : tuple of str
        Ways to invert, compared over plain damping: ``float64``; ``fixed8`` and ``fixed16``, where
        block and inverse are rounded to so many bits; or on arrays, as ``inversion.method``.
    damping : tuple of float
        Values of plain damping.
    noise : tuple of float
        Programming errors of inverting cells at which all dampings are tried.
    pi_methods, pi_damping : tuples
        The same for the other form of damping, at `chip_noise`.
    noise_levels : tuple of float
        Programming errors tried at float64's best plain damping.
    block_methods, block_sizes : tuples
        Widths of blocks tried there, by these ways to invert.
    sgd, adam : OptimizerSpec
        The first-order optimizers; their rates are searched.
    sgd_rates, adam_rates : tuple of float
        What is searched, with one seed that is not among the reported ones.
    kfac_rates, kfac_damping : tuples of float
        The same for K-FAC in float64, with the form of damping of ``kfac``: every pair.
    chip_methods : tuple of str
        K-FAC on chips beside the optimizers, with what is best for K-FAC in float64.
    chip_noise : float
        Programming error of the inverting cells there, over block sizes and under pi.
    autoencoder : ModelSpec
        The second task, on the same data.
    seeds : int
        Reported seeds, from the settings' ``seed`` on.
    one_seed : tuple of str
        Ways to invert that are tried with the first of them only, since they take long.
    """

    name: Literal["convergence"] = "convergence"
    train: TrainSpec
    soi: SoiSpec
    kfac: OptimizerSpec
    methods: Annotated[tuple[TrainingMethod, ...], MinLen(1)]
    damping: Annotated[tuple[PositiveFloat, ...], MinLen(1)]
    noise: Annotated[tuple[NonNegativeFloat, ...], MinLen(1)]
    pi_methods: Annotated[tuple[TrainingMethod, ...], MinLen(1)]
    pi_damping: Annotated[tuple[PositiveFloat, ...], MinLen(1)]
    noise_levels: Annotated[tuple[NonNegativeFloat, ...], MinLen(1)]
    block_methods: Annotated[tuple[TrainingMethod, ...], MinLen(1)]
    block_sizes: Annotated[tuple[PositiveInt, ...], MinLen(1)]
    sgd: OptimizerSpec
    adam: OptimizerSpec
    sgd_rates: Annotated[tuple[PositiveFloat, ...], MinLen(1)]
    adam_rates: Annotated[tuple[PositiveFloat, ...], MinLen(1)]
    kfac_rates: Annotated[tuple[PositiveFloat, ...], MinLen(1)]
    kfac_damping: Annotated[tuple[PositiveFloat, ...], MinLen(1)]
    chip_methods: tuple[TrainingMethod, ...]
    chip_noise: NonNegativeFloat = 0.01
    autoencoder: ModelSpec
    seeds: PositiveInt = 3
    one_seed: tuple[TrainingMethod, ...] = ()

    def __post_init__(self) -> None:
        if "float64" not in self.methods:
            raise ValueError("methods: float64 is what the others are compared with, include it")
        searched = len(self.kfac_rates) * len(self.kfac_damping)
        if not len(self.sgd_rates) == len(self.adam_rates) == searched:
            raise ValueError(
                f"search budgets differ: {len(self.sgd_rates)} sgd_rates, {len(self.adam_rates)} "
                f"adam_rates, {searched} pairs of kfac_rates and kfac_damping; valid: as many each"
            )


StudySpec = Annotated[
    TrainStudy
    | VerifyStudy
    | CompareStudy
    | ExportPerfettoStudy
    | PlanStudy
    | ExplainStudy
    | ValidateStudy
    | HeadlineStudy
    | ScalingStudy
    | ExportChakraStudy
    | ExportSpiceStudy
    | PrecisionStudy
    | ConvergenceStudy,
    Discriminator("name"),
]
