"""The settings of a training run, and the setup that is sent to every worker."""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

import numpy as np

from repast_dist.farm.checkpoint import Checkpoint
from repast_dist.farm.exchange import Area, Bucket, SolveTask, solve_tasks
from repast_dist.farm.specs import FarmSpec, chip_speed, worker_groups
from repast_dist.ground.errors import SettingsError
from repast_dist.hardware.hardware import Hardware
from repast_dist.planning.delays import layer_delays, parameter_delays
from repast_dist.planning.idle import best_plan
from repast_dist.planning.machine import Machine
from repast_dist.planning.matrix_ops import matrix_layers, matrix_owners
from repast_dist.planning.plan import Plan, make_plan
from repast_dist.planning.solve_costs import solve_prices
from repast_dist.planning.specs import Policy, StepWork
from repast_dist.planning.summary import summarise
from repast_dist.planning.wear import cell_writes
from repast_dist.training.datasets import DATASETS, Dataset, DataSource
from repast_dist.training.engines import AS_WRITTEN, Engine, Schedule, make_engine
from repast_dist.training.factor_rows import HeldRows
from repast_dist.training.gradient_noise import GradientNoise
from repast_dist.training.models import MODELS, ModelSource
from repast_dist.training.network import FactorBlocks, FactorKey, Network, Part
from repast_dist.training.optimizers import Optimizer
from repast_dist.training.specs import EngineSpec, TrainSpec


@dataclasses.dataclass(frozen=True)
class TrainingJob:
    """All settings that decide what a training run computes and costs."""

    seed: int
    train: TrainSpec
    model: Annotated[ModelSource, MODELS.choice()]
    dataset: Annotated[DataSource, DATASETS.choice()]
    optimizer: Optimizer
    engine: EngineSpec
    machine: Machine
    farm: FarmSpec


@dataclasses.dataclass(frozen=True)
class FarmSetup:
    """Everything a worker needs to build its chips; it is sent once.

    Attributes
    ----------
    job : TrainingJob
        The settings; its farm has only the chips that are not switched off
        (``partition.idle_chips``).
    chips : tuple of int
        The chips at work, ascending; the plan's chip k is ``chips[k]``.
    plan : Plan
        Who does what.
    pieces, tasks : tuple of SolveTask
        The areas of the gradients that each chip reduces and solves with its G blocks, and those
        that each chip then solves with its A blocks.
    routes : dict
        Chip -> worker that holds it.
    workers : tuple of int
        Live workers in ascending order; payloads are exchanged in this order.
    network : Network
        The network that is trained.
    data : Dataset
        Training and test set.
    schedule : Schedule
        What is planned of a step of the whole farm, by which cells age and wear.
    """

    job: TrainingJob
    network: Network
    chips: tuple[int, ...]
    plan: Plan
    pieces: tuple[SolveTask, ...]
    tasks: tuple[SolveTask, ...]
    routes: dict[int, int]
    workers: tuple[int, ...]
    data: Dataset
    schedule: Schedule = AS_WRITTEN

    @functools.cached_property
    def preconditioned(self) -> frozenset[str]:
        """The layers that have SOI blocks."""
        return frozenset(block.layer_name for block in self.plan.blocks)

    @functools.cached_property
    def factor_blocks(self) -> FactorBlocks:
        """The ranges of the diagonal blocks of every factor whose product is formed."""
        ranges: dict[FactorKey, list[tuple[int, int]]] = {}
        for block in self.plan.blocks:
            formed = ranges.setdefault((block.layer_name, block.factor), [])
            if block.index not in self.fused:
                formed.append((block.start, block.stop))
        return ranges

    @functools.cached_property
    def fused(self) -> frozenset[int]:
        """The numbers of the blocks whose product is not formed."""
        return frozenset(np.flatnonzero(self.plan.shapes.fused).tolist())

    @functools.cached_property
    def unformed(self) -> frozenset[FactorKey]:
        """The factors of these blocks."""
        blocks = (self.plan.blocks[number] for number in self.fused)
        return frozenset((block.layer_name, block.factor) for block in blocks)

    def held_rows(self, block: int) -> HeldRows | None:
        """Return how a fused block keeps its running average; None for others."""
        if block not in self.fused:
            return None
        shapes, soi = self.plan.shapes, self.job.machine.policy.soi
        return HeldRows(int(shapes.held[block] // shapes.fresh[block]), soi.fused_rest)

    @functools.cached_property
    def stages(self) -> tuple[tuple[int, int], ...]:
        """The layers of the workload, ``first:last``, of every stage that chips hold; one stage if
        every chip holds all layers.
        """
        stage = self.plan.allocation.stage
        firsts = np.flatnonzero(np.diff(stage, prepend=-1)).tolist()
        return tuple(itertools.pairwise([*firsts, len(stage)]))

    @functools.cached_property
    def matrix_owners(self) -> dict[str, int]:
        """Layer that is updated as a whole matrix -> chip that does it."""
        names = (self.plan.workload.layers[layer].name for layer in matrix_layers(self.plan))
        owners = (self.chips[chip] for chip in matrix_owners(self.plan))
        return dict(zip(names, owners, strict=True))

    @functools.cached_property
    def matrix_shapes(self) -> dict[str, tuple[int, int]]:
        """Name of what is trained -> rows, without that of a bias, and columns."""
        parameters = self.network.parameters
        return {item.name: (item.rows - item.bias, item.columns) for item in parameters}

    def matrix_area(self, layer: str) -> Area:
        """Return where the matrix of a layer lies in its gradient, which may have a row more."""
        rows, columns = self.matrix_shapes[layer]
        return layer, 0, rows, 0, columns

    @functools.cached_property
    def delays(self) -> dict[str, int]:
        """Name of what is trained -> steps by which a step's weights are older than the newest."""
        names = [item.name for item in self.network.parameters]
        workload = self.network.workload
        partition = self.job.machine.policy.partition
        layers = layer_delays(workload, partition, self.job.train.micro_batches)
        return parameter_delays(names, workload, layers)

    @functools.cached_property
    def parts(self) -> tuple[Part, ...]:
        """What the network has in these stages, if there are several."""
        return tuple(self.network.part(first, last) for first, last in self.stages)

    @functools.cached_property
    def stage_of(self) -> dict[str, int]:
        """Name of what is trained, or of running values -> its stage."""
        if len(self.stages) == 1:
            trained = [item.name for item in self.network.parameters]
            return dict.fromkeys([*trained, *self.network.running], 0)
        parts = enumerate(self.parts)
        return {
            name: stage
            for stage, part in parts
            for name in (*(item.name for item in part.parameters), *part.running)
        }

    def bucket(self, worker: int, stage: int) -> Bucket:
        """Return the layout of the vector that is sent to a worker to be reduced, of what a
        micro-batch leaves in a stage.
        """
        pieces = [
            piece
            for piece in self.pieces
            if self.routes[piece.chip] == worker and self.stage_of[piece.area[0]] == stage
        ]
        held = {number for chip, number in self.held if self.routes[chip] == worker}
        met = [block for block in self.plan.blocks if self.stage_of[block.layer_name] == stage]
        blocks = [block for block in met if block.index in held]
        formed = [block for block in blocks if block.index not in self.fused]
        fused = [block for block in blocks if block.index in self.fused]
        measured = [name for name in self.measured if self.stage_of[name] == stage]
        return Bucket(pieces, formed, met, fused, measured)

    @property
    def measured(self) -> tuple[str, ...]:
        """The layers of which the noise of gradients is measured."""
        if not self.job.machine.policy.soi.residual_to_noise:
            return ()
        return tuple(dict.fromkeys(block.layer_name for block in self.plan.blocks))

    def gradient_noise(self) -> GradientNoise | None:
        """Return what measures it; None: nothing does."""
        second, train = self.job.optimizer.second_order, self.job.train
        if not self.measured or second is None:
            return None
        share = self.job.machine.policy.soi.residual_to_noise
        return GradientNoise(
            self.measured,
            train.micro_batches,
            train.micro_batch_size,
            share,
            second.lasting_decay,
        )

    @functools.cached_property
    def held(self) -> tuple[tuple[int, int], ...]:
        """The pairs (chip, block) of all holdings."""
        holdings = self.plan.holdings
        pairs = zip(holdings.chip.tolist(), holdings.block.tolist(), strict=True)
        return tuple((self.chips[chip], block) for chip, block in pairs)

    def block_owner(self, block: int) -> int:
        """Return the chip that owns a SOI block."""
        return self.chips[self.plan.block_owner[block]]

    def micro_batch_owner(self, micro_batch: int) -> int:
        """Return the chip that runs a micro-batch, or the first of the chips that do."""
        return self.chips[self.plan.micro_batch_owner[micro_batch]]

    @functools.cached_property
    def place_of(self) -> dict[int, int]:
        """Chip -> its number in the plan."""
        return {chip: place for place, chip in enumerate(self.chips)}

    @functools.cached_property
    def computing(self) -> frozenset[int]:
        """The chips that run micro-batches or hold blocks or matrices; all others have nothing to
        compute.
        """
        stages = self.plan.allocation.stages
        first = set(self.plan.micro_batch_owner)
        running = {place + stage for place in first for stage in range(stages)}
        holding = {*self.plan.holdings.chip.tolist(), *matrix_owners(self.plan)}
        return frozenset(self.chips[place] for place in running | holding)

    def place_in_pipeline(self, chip: int) -> tuple[int, int]:
        """Return the first chip of the pipeline that a chip belongs to, and its stage in it; behind
        the last of `stages` for chips that hold no layers.
        """
        place = self.place_of[chip]
        stage = place % self.plan.allocation.stages
        return self.chips[place - stage], stage

    def next_in_pipeline(self, chip: int, further: int) -> int:
        """Return the chip so many places further on in the pipeline of a chip."""
        return self.chips[self.place_of[chip] + further]


def make_setup(
    job: TrainingJob,
    data: Dataset,
    groups: Mapping[int, Sequence[int]] | None = None,
    network: Network | None = None,
) -> FarmSetup:
    """Plan a job for the live workers and their chips.

    Parameters
    ----------
    job : TrainingJob
        The settings.
    data : Dataset
        Training and test set.
    groups : mapping, optional
        Worker -> its chips, which all work; by default as the farm's settings say, without chips
        that are switched off.
    network : Network, optional
        The network, where it has been made already.

    Raises
    ------
    SettingsError
        The training set is smaller than a batch, the model does not take its samples, or it cannot
        be spread over chips.
    """
    if len(data.train_inputs) < job.train.batch_size:
        raise SettingsError(
            f"train.batch_size={job.train.batch_size} exceeds the "
            f"{len(data.train_inputs)} training samples of dataset {job.dataset.name}"
        )
    chip_engine(job, 0)  # refuses a chip whose arrays are not simulated
    if network is None:
        network = job.model.build(lambda: data, job.seed, job.train.micro_batch_size)
        network.check(data)
    _check_stages(job, network)
    _check_order(job, network)
    partition = job.machine.policy.partition
    layer_delays(network.workload, partition, job.train.micro_batches)  # refuses too many stages
    if job.train.target_accuracy is not None and not job.model.classifies:
        raise SettingsError(
            f"train.target_accuracy={job.train.target_accuracy}: the loss of {network.name} has no "
            "accuracy; valid: null, or a model with the loss cross_entropy"
        )
    if groups is None:
        # Chosen once: when workers are lost later, all chips that are left work.
        work = _work(job, network, range(job.farm.chips))
        plan = best_plan(network.workload, *_machine(job), work)
        farm = dataclasses.replace(job.farm, chips=plan.work.chips)
        job = dataclasses.replace(job, farm=farm)
        one_process = farm.backend == "inprocess"
        groups = {0: range(farm.chips)} if one_process else dict(enumerate(worker_groups(farm)))
        chips = tuple(range(farm.chips))
    else:
        chips = tuple(sorted(chip for group in groups.values() for chip in group))
        plan = make_plan(network.workload, *_machine(job), _work(job, network, chips))
    _check_fusion(job, plan)
    _check_damping(job, network, plan)
    _check_noise(job)
    shapes = {item.name: (item.rows, item.columns) for item in network.parameters}
    shapes |= network.running
    setup = FarmSetup(
        job=job,
        network=network,
        chips=chips,
        plan=plan,
        pieces=(),
        tasks=(),
        routes={chip: worker for worker, group in groups.items() for chip in group},
        workers=tuple(sorted(groups)),
        data=data,
        schedule=_schedule(job, network),
    )
    matrices = {
        name: (setup.matrix_shapes[name][0], chip) for name, chip in setup.matrix_owners.items()
    }
    pieces, tasks = solve_tasks(shapes, plan.blocks, plan.holdings, chips, matrices)
    return dataclasses.replace(setup, pieces=pieces, tasks=tasks)


def _machine(job: TrainingJob) -> tuple[Hardware, Policy]:
    return job.machine.hardware, job.machine.policy


def _work(job: TrainingJob, network: Network, chips: Sequence[int]) -> StepWork:
    """Return what some chips have to do in a step."""
    second = job.optimizer.second_order
    return StepWork(
        chips=len(chips),
        micro_batches=job.train.micro_batches,
        micro_batch_size=job.train.micro_batch_size,
        sides=second.sides if second else (),
        fisher_passes=network.fisher_passes(second.output_gradients) if second else 0,
        decay=second.lasting_decay if second else 0.0,
        fusible=second is not None and second.fusible,
        update_operations=job.optimizer.update_operations,
        clips=second is not None and second.clips,
        damping_every=second.damping_every if second else 0,
        matrices=job.optimizer.matrices,
        speeds=tuple(chip_speed(job.farm, chip) for chip in chips),
    )


def _schedule(job: TrainingJob, network: Network) -> Schedule:
    """Return how cells age and wear, if they do. It is planned for all chips of the farm, so that a
    worker that is lost does not change it.
    """
    device = job.machine.hardware.device
    cells = (device.cell, device.inv_cell)
    if not job.engine.uses_analog() or not any(cell.ages or cell.wears for cell in cells):
        return AS_WRITTEN
    work = _work(job, network, range(job.farm.chips))
    plan = make_plan(network.workload, *_machine(job), work)
    writes = dataclasses.asdict(cell_writes(plan))
    ages = any(cell.ages for cell in cells)
    return Schedule(step_s=summarise(plan).step_s if ages else 0.0, **writes)


def beginning(setup: FarmSetup) -> Checkpoint:
    """Return the state of a run before its first step."""
    network = setup.network
    values = network.initial()
    weights = {item.name: values[item.name] for item in network.parameters}
    optimizer = setup.job.optimizer.initial_state(weights)
    arrays = network.to_state(values)
    arrays |= {f"optimizer/{name}": value for name, value in optimizer.items()}
    return Checkpoint(0, arrays, {"clock_s": 0.0, "epochs": [], "steps": []})


def chip_engine(job: TrainingJob, chip: int, schedule: Schedule = AS_WRITTEN) -> Engine:
    """Return the arithmetic of one chip, which is its own if its settings differ.

    Parameters
    ----------
    job : TrainingJob
        The settings.
    chip : int
        The chip's number.
    schedule : Schedule
        How cells age and wear.

    Raises
    ------
    SettingsError
        Something is analog, and the chip's arrays are of a kind that is not simulated.
    """
    bits = job.machine.policy.soi.factor_bits
    if not job.engine.uses_analog():
        return dataclasses.replace(make_engine(job.engine, job.seed), factor_bits=bits)
    hardware = job.machine.hardware
    override = job.farm.chip_overrides.get(str(chip))
    if override is not None and override.programming_sigma is not None:
        device = hardware.device.with_programming_sigma(override.programming_sigma)
        hardware = dataclasses.replace(hardware, device=device)
    vmm, inv, residual = hardware.vmm_spec, hardware.inv_spec, hardware.residual_spec
    if hardware.device.variation.die_sigma:
        vmm, inv, residual = vmm.on(chip), inv.on(chip), residual.on(chip)
    inversion = job.machine.policy.inversion
    engine = make_engine(job.engine, job.seed, vmm, inv, residual, inversion, schedule)
    prices = functools.partial(solve_prices, hardware=hardware, scheme=inversion)
    return dataclasses.replace(engine, prices=prices, factor_bits=bits)


def chip_engines(
    job: TrainingJob, chips: Iterable[int], schedule: Schedule = AS_WRITTEN
) -> dict[int, Engine]:
    """Return chip -> its arithmetic; chips whose settings do not differ share one engine.

    Parameters and errors are those of `chip_engine`.
    """
    shared: Engine | None = None
    found = {}
    differs = job.machine.hardware.device.variation.die_sigma > 0
    for chip in chips:
        override = job.farm.chip_overrides.get(str(chip))
        if differs or (override is not None and override.programming_sigma is not None):
            found[chip] = chip_engine(job, chip, schedule)
            continue
        if shared is None:
            shared = chip_engine(job, chip, schedule)
        found[chip] = shared
    return found


def _check_fusion(job: TrainingJob, plan: Plan) -> None:
    """Refuse to fuse blocks where none can be."""
    soi, second = job.machine.policy.soi, job.optimizer.second_order
    if soi.fusion != "on" or second is None or not plan.blocks or plan.shapes.fused.any():
        return
    if not second.fusible:
        raise SettingsError(
            f"soi.fusion=on: the matrices of {second.name} are no products of rows; valid: off, "
            "auto, or optimizer=kfac|foof"
        )
    scheme = job.machine.policy.inversion
    if not scheme.fusible:
        raise SettingsError(
            f"soi.fusion=on: inversion.method={scheme.name} needs formed blocks; valid: off, auto, "
            "or inversion.method=cg|fcg|refine|single"
        )
    fewest, size = int(plan.shapes.held.min()), job.machine.hardware.chip.inv.size
    raise SettingsError(
        f"soi.fusion=on: no block fits; they are at least {int(plan.shapes.size.min())} "
        f"wide and hold at least {fewest:,} rows of "
        f"{soi.held_batches(second.lasting_decay)} batches, inverting arrays {size}; valid: off, "
        "auto, a smaller optimizer.factor_decay, train.batch_size or soi.block_size, or a larger "
        "soi.fused_left_out or chip.inv.size"
    )


def _check_order(job: TrainingJob, network: Network) -> None:
    """Refuse to draw vectors that form factors where these cannot be written first."""
    positions = job.machine.policy.soi.factor_positions
    if positions < 1 and not network.layered:
        raise SettingsError(
            f"soi.factor_positions={positions:g}: {network.name} is a PyTorch module, whose inputs "
            "are written in the order of its calls; valid: 1, or soi.factor_micro_batches"
        )


def _check_damping(job: TrainingJob, network: Network, plan: Plan) -> None:
    """Refuse to adapt damping where the samples of a step cannot pass once more as they did."""
    if not plan.work.damping_every:
        return
    reason = ""
    if not network.layered:
        reason = f"{network.name} is a PyTorch module, which may compute otherwise in tests"
    elif plan.allocation.stages > 1 or plan.delays.any():
        reason = "layers are spread over chips or compute with older weights"
    if reason:
        raise SettingsError(
            f"optimizer.adapt_damping_every={plan.work.damping_every}: {reason}; valid: 0"
        )


def _check_noise(job: TrainingJob) -> None:
    """Refuse targets that follow the noise of gradients where it cannot be measured or nothing
    reads them.
    """
    share = job.machine.policy.soi.residual_to_noise
    if not share or job.optimizer.second_order is None:
        return
    if job.engine.inverse != "analog":
        raise SettingsError(
            f"soi.residual_to_noise={share:g} with engine.inverse={job.engine.inverse}, which has "
            "no target; valid: 0, or engine.inverse=analog"
        )
    if job.train.micro_batches < 2:
        raise SettingsError(
            f"soi.residual_to_noise={share:g} with one micro-batch per batch, which tells no noise;"
            " valid: 0, or a train.batch_size of several times train.micro_batch_size"
        )


def _check_stages(job: TrainingJob, network: Network) -> None:
    """Refuse to spread a network over chips that cannot be cut."""
    layers = job.machine.policy.partition.layers
    if layers != "replicate" and not network.workload.cuts:
        raise SettingsError(
            f"partition.layers={layers}: {network.name} has no place where one tensor is all that "
            f"goes on from one chip to the next: {network.undivided}; valid: replicate"
        )
