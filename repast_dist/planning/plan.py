"""Plans a training step: which chip stores, computes, reduces and inverts what."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Concatenate

import numpy as np

from repast_dist.ground.errors import CapacityError, SettingsError
from repast_dist.ground.numbers import ceil_div
from repast_dist.hardware.hardware import Hardware
from repast_dist.hardware.specs import ChipSpec
from repast_dist.network.shapes import Workload
from repast_dist.ops.pricing import Costs, price
from repast_dist.ops.table import OpTable
from repast_dist.planning.allocation import Allocation, ArrayBudget
from repast_dist.planning.block_costs import BlockCosts, BlockWork
from repast_dist.planning.block_places import (
    BlockPlaces,
    HeldBlocks,
    busy_seconds,
    least_solving_s,
    place_blocks,
)
from repast_dist.planning.block_times import BlockTimes
from repast_dist.planning.blocks import (
    BlockColumns,
    SoiBlocks,
    block_columns,
    soi_blocks,
    whole_layers,
)
from repast_dist.planning.delays import layer_delays
from repast_dist.planning.fusion import Fusion
from repast_dist.planning.holdings import Holdings, make_holdings
from repast_dist.planning.layer_ops import LayerWork
from repast_dist.planning.layers import LayerTable, layer_table
from repast_dist.planning.owners import Room, block_owners, micro_batch_owners
from repast_dist.planning.search import allocate
from repast_dist.planning.solves import (
    BlockShapes,
    block_shapes,
    fuse,
)
from repast_dist.planning.specs import PartitionSpec, Policy, StepWork, step_kinds

type Chips = int | Sequence[int] | None
"""A chip, several, or None for all chips of a plan."""


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """Which chip does what in every step. Plans are compared by identity.

    Attributes
    ----------
    workload : Workload
        What is trained.
    hardware : Hardware
        What it is trained on.
    policy : Policy
        How second-order information is kept, spread and solved with.
    work : StepWork
        Chips, micro-batches and what is due in a step.
    blocks : SoiBlocks
        All blocks.
    block_owner : tuple of int
        Chip of every block.
    holdings : Holdings
        Chips that hold the solver of each block, its owner included, and their right-hand sides.
    micro_batch_owner : tuple of int
        Chip of every micro-batch; if layers are spread over chips, the first chip of its pipeline.
    block_work : BlockWork
        What is done with each block, by model.
    layer_work : LayerWork
        What the layers do.
    allocation : Allocation
        Arrays per layer.
    fusion : Fusion
        Modelled work of each block with and without fusion.
    """

    workload: Workload
    hardware: Hardware
    policy: Policy
    work: StepWork
    blocks: SoiBlocks
    block_owner: tuple[int, ...]
    holdings: Holdings
    micro_batch_owner: tuple[int, ...]
    block_work: BlockWork
    layer_work: LayerWork
    allocation: Allocation
    fusion: Fusion
    _remembered: dict[Any, Any] = dataclasses.field(default_factory=dict, init=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        """Return what is sent to other processes, without what has been computed of the plan."""
        return {**self.__dict__, "_remembered": {}}

    @property
    def measured_layers(self) -> tuple[int, ...]:
        """Numbers of the layers of which the noise of gradients is measured."""
        if not self.policy.soi.residual_to_noise:
            return ()
        return tuple(dict.fromkeys(block.layer for block in self.blocks))

    @property
    def shapes(self) -> BlockShapes:
        """The blocks as columns."""
        return self.block_work.shapes

    @property
    def block_columns(self) -> BlockColumns:
        """What of the blocks follows from the workload, as columns."""
        return block_columns(self.workload, self.blocks, self.policy.soi.factor_positions)

    @property
    def block_costs(self) -> BlockCosts:
        """Modelled costs of each block on one copy; ``lpt`` balances the times per step."""
        return self.block_work.costs

    @property
    def layers(self) -> LayerTable:
        """The workload as columns."""
        return self.layer_work.layers

    @property
    def replicas(self) -> int:
        """Copies of the network over the chips."""
        return self.work.chips // self.allocation.stages

    @functools.cached_property
    def chip_speeds(self) -> np.ndarray:
        """Relative speed of every chip, (chips,): what it does takes its share of the time."""
        return np.array(self.work.speeds or (1.0,) * self.work.chips)

    @functools.cached_property
    def forms_factors(self) -> np.ndarray:
        """Mask of the micro-batches that form factors, one entry per `micro_batch_owner`."""
        soi, count = self.policy.soi, self.work.micro_batches
        numbers = range(len(self.micro_batch_owner))
        return np.array([soi.forms_factors(number, count) for number in numbers], bool)

    @functools.cached_property
    def calibrating(self) -> "Plan":
        """The plan of a step that begins with its first micro-batch once more, by which ADC ranges
        are set; as a row it comes last.
        """
        owner = self.micro_batch_owner
        return dataclasses.replace(self, micro_batch_owner=(*owner, owner[0]))

    def price(self, table: OpTable) -> Costs:
        """Return what rows of the plan cost: chips of other speeds take another time."""
        costs = price(table, self.hardware.costs)
        return Costs(costs.duration_s / self.chip_speeds[table["chip"]], costs.energy_j)

    def chip_mask(self, chips: Chips) -> np.ndarray:
        """Return a mask of these chips, (chips,) bool."""
        mask = np.zeros(self.work.chips, bool)
        mask[slice(None) if chips is None else np.atleast_1d(np.asarray(chips, np.int64))] = True
        return mask

    @functools.cached_property
    def delays(self) -> np.ndarray:
        """Steps by which the weights of each layer are older than the newest, (layers,)."""
        partition = self.policy.partition
        return layer_delays(self.workload, partition, self.work.micro_batches)

    @functools.cached_property
    def factor_numbers(self) -> np.ndarray:
        """Numbers of each block that its owner gets in a step, (blocks,): a symmetric matrix is
        n (n + 1) / 2; a fused block is not summed, its owner gathers the rows of the new batch.
        """
        n = self.shapes.size
        numbers: np.ndarray = np.where(self.shapes.fused, n * self.shapes.fresh, n * (n + 1) // 2)
        return numbers

    @functools.cached_property
    def holds_g(self) -> np.ndarray:
        """Holdings of G blocks, as a mask."""
        return self.block_columns.is_g[self.holdings.block]

    @functools.cached_property
    def held_work(self) -> BlockWork:
        """What is done with each holding, by model."""
        if self.holdings.whole:
            return self.block_work
        shapes = self.shapes.shared(self.holdings.block, self.holdings.right_sides)
        return BlockWork(shapes, self.hardware, self.policy)

    @property
    def held_shapes(self) -> BlockShapes:
        """The blocks as columns, one entry per holding."""
        return self.held_work.shapes

    @functools.cached_property
    def held_costs(self) -> BlockCosts:
        """Modelled costs of each holding on one copy."""
        block = self.holdings.block
        share = self.holdings.right_sides / np.maximum(self.shapes.right_sides[block], 1)
        return self.block_costs.take(block).shared(share)

    @functools.cached_property
    def held(self) -> HeldBlocks:
        """Holdings with their times."""
        kinds = tuple(step_kinds(self.work, self.policy.soi))
        times = BlockTimes.of(self.held_work, kinds)
        return HeldBlocks(self.holdings.chip, self.holds_g, times)

    @property
    def places(self) -> BlockPlaces:
        """Copies and banks of each holding, and whether it stays."""
        return self._placed[0]

    @property
    def goal(self) -> float:
        """What the arrays are divided for, in sum over layers and blocks, per chip: time of
        computing and solving per step in seconds, or energy in joules.
        """
        return self.allocation.goal + self._placed[1]

    @functools.cached_property
    def _placed(self) -> tuple[BlockPlaces, float]:
        return place_blocks(self.held, self.hardware, self.policy, self.work.chips)


def once_per_plan[**P, T](
    function: Callable[Concatenate[Plan, P], T],
) -> Callable[Concatenate[Plan, P], T]:
    """Make a function of a plan compute its result, which is the same in every step, only once."""

    @functools.wraps(function)
    def remembered(plan: Plan, *others: P.args, **named: P.kwargs) -> T:
        key = (function.__module__, function.__qualname__, others, tuple(named.items()))
        if key not in plan._remembered:
            plan._remembered[key] = function(plan, *others, **named)
        result: T = plan._remembered[key]
        return result

    return remembered


def make_plan(workload: Workload, hardware: Hardware, policy: Policy, work: StepWork) -> Plan:
    """Plan a training step.

    Parameters
    ----------
    workload : Workload
        What is trained.
    hardware : Hardware
        The chips and their network.
    policy : Policy
        How second-order information is kept, spread and solved with.
    work : StepWork
        Chips that work, and the micro-batches of a step.

    Raises
    ------
    SettingsError
        The method is of second order and the chip cannot invert, or the network between chips has
        no place for all of them.
    CapacityError
        The network does not fit and ``partition.overflow`` is ``error``.
    """
    if work.second_order and policy.inversion.uses_array and not hardware.chip.inv_arrays:
        raise SettingsError(
            f"chip.inv.arrays_per_bank: chip '{hardware.chip.name}' has no inverting arrays; "
            "valid: at least 1, inversion=cg or cholesky, or a first-order optimizer"
        )
    if policy.soi.keep_levels and not hardware.chip.residual.verified:
        raise SettingsError(
            "soi.keep_levels=True: cells of residual products that are not verified have errors, "
            "which would stay; valid: False, or chip.residual.verified=true"
        )
    bits = policy.soi.factor_bits
    if bits is not None and bits > hardware.chip.input_bits:
        raise SettingsError(
            f"soi.factor_bits={bits} exceeds the {hardware.chip.input_bits} bits of what buffers "
            f"hold (chip.input_bits); valid: at most these, or null"
        )
    solved = None if work.matrices is None else whole_layers(workload, work.matrices)
    blocks = soi_blocks(workload, policy.soi.block_size, work.sides, solved, policy.soi.widths)
    columns = block_columns(workload, blocks, policy.soi.factor_positions)
    unfused = _unfused_shapes(columns, hardware, policy, work)
    fusion = Fusion(unfused, columns.rows_written, hardware, policy, work)
    return _planned(workload, blocks, fusion, _fused(workload, blocks, fusion), work)


def _fused(workload: Workload, blocks: SoiBlocks, fusion: Fusion) -> np.ndarray:
    """Return a mask of the blocks to fuse.

    Where time is to be saved, steps with all and with none are compared with that with those which
    save some by themselves: only together blocks may shorten the slowest stage of a pipeline, or
    leave arrays to others. They are compared on one chip, so that all numbers of chips compute the
    same.
    """
    policy, chosen = fusion.policy, fusion.chosen
    if policy.soi.fusion != "auto" or policy.partition.objective != "time":
        return chosen
    others = [fusion.possible, np.zeros_like(chosen)]
    others = [mask for mask in others if (mask != chosen).any()]
    if not others:
        return chosen
    alone = dataclasses.replace(fusion.work, chips=1, speeds=())

    def goal(mask: np.ndarray) -> float:
        try:
            return _planned(workload, blocks, fusion, mask, alone).goal
        except CapacityError:
            return np.inf

    return min([chosen, *others], key=goal)


def _planned(
    workload: Workload,
    blocks: SoiBlocks,
    fusion: Fusion,
    fused: np.ndarray,
    work: StepWork,
) -> Plan:
    """Return the plan if some blocks are fused."""
    hardware, policy = fusion.hardware, fusion.policy
    block_work = BlockWork(fuse(fusion.shapes, fused, hardware), hardware, policy)
    formed = SoiBlocks(block for block, inside in zip(blocks, fused, strict=True) if not inside)
    layers = layer_table(workload, formed, policy.soi.factor_positions)
    layer_work = LayerWork.of(layers, hardware, work, policy.soi.factor_bits)

    def divide(solvers_per_bank: int) -> Allocation:
        """Divide arrays among layers if so many of a bank hold residual products."""
        budget = ArrayBudget.of(hardware.chip, solvers_per_bank)
        return allocate(layer_work, policy, budget, workload.cuts)

    def plan(allocation: Allocation) -> Plan:
        """Return the plan if layers have these arrays."""
        per_bank = allocation.budget.solvers // hardware.chip.banks
        mine = block_work.in_banks(per_bank)
        cost_s = mine.costs.per_step_s
        micro_batch_owner = _micro_batch_owner(allocation.stages, policy.partition, work)

        def owned(chips: int) -> Plan:
            """Return the plan if the first of the chips own the blocks."""
            room = _room_for_blocks(mine.shapes, allocation, hardware.chip, policy, chips)
            right_sides = mine.shapes.right_sides
            owner = block_owners(blocks, cost_s, chips, policy.partition.blocks, work.speeds, room)
            return Plan(
                workload=workload,
                hardware=hardware,
                policy=policy,
                work=work,
                blocks=blocks,
                block_owner=owner,
                holdings=make_holdings(blocks, owner, right_sides, cost_s, policy, work),
                micro_batch_owner=micro_batch_owner,
                block_work=mine,
                layer_work=layer_work,
                allocation=allocation,
                fusion=fusion,
            )

        found = owned(work.chips)
        for chips in _fewer_owners(found):
            other = owned(chips)
            found = other if other.goal < _LESS * found.goal else found
        return found

    if not blocks:
        return plan(divide(0))
    tried = _solver_arrays(block_work.shapes, hardware.chip)
    best: Plan | None = None
    for number in tried:
        if best is not None and not _may_gain(best, number):
            continue
        try:
            allocation = divide(number)
        except CapacityError:
            if best is None and number == tried[-1]:
                raise
            continue
        if best is None:
            best = plan(allocation)
        elif _may_gain(best, number, allocation):
            other = plan(allocation)
            best = other if other.goal < _GAIN * best.goal else best
    assert best is not None
    return best


_FEWER = 3
"""By how many fewer chips blocks may be owned."""

_FEW_BLOCKS = 64
"""Blocks of which so many at most are tried on fewer chips: more of them divide evenly enough."""

_LESS = 0.999
"""Blocks are owned by fewer chips where that brings the goal to this share."""


def _fewer_owners(plan: Plan) -> list[int]:
    """Return numbers of chips, smaller than that of a plan, which may own the blocks with a better
    goal: where blocks do not divide by the chips, one chip more may be given a worse share.
    """
    partition, speeds = plan.policy.partition, plan.work.speeds
    if (
        len(plan.blocks) > _FEW_BLOCKS
        or partition.blocks not in ("lpt", "capacity")
        or partition.objective != "time"
        or len(set(speeds)) > 1
    ):
        return []
    most = len(set(plan.block_owner)) - 1
    # No chip is faster than if all of its arrays were always busy.
    work_s = float(busy_seconds(plan.held, plan.hardware).sum())
    allowed_s = _LESS * plan.goal - plan.allocation.goal
    return [fewer for fewer in range(most, max(0, most - _FEWER), -1) if work_s / fewer < allowed_s]


_GAIN = 0.99
"""Layers get arrays that could hold residual products where that brings the goal to this share."""


_SPREAD = 0.06
"""What solves may gain from an array per bank less for residual products, as a share: blocks then
lie in more banks, with more lanes and buses. On chips that small networks do not fill, up to 5 %
are seen.
"""


def _solver_arrays(shapes: BlockShapes, chip: ChipSpec) -> list[int]:
    """Return numbers of multiplying arrays of a bank that may be kept for residual products, from
    all that can hold some down to those in which every block finds room.
    """
    most = chip.residual.arrays_per_bank
    if not shapes.product_arrays.any():
        return [0]
    least = max(1, ceil_div(int(shapes.product_arrays.max()), chip.banks))
    return list(range(most, min(least, most) - 1, -1))


def _may_gain(plan: Plan, solvers_per_bank: int, allocation: Allocation | None = None) -> bool:
    """Whether fewer arrays for residual products may be better than those of a plan, taking it that
    solves are no faster than if no array waited, hardly faster than those of the plan and, where it
    is not known what layers do with theirs, that they compute no faster than in proportion to them.
    """
    objective, before = plan.policy.partition.objective, plan.allocation
    if objective == "lifetime":
        return False
    if allocation is None:
        more = ArrayBudget.of(plan.hardware.chip, solvers_per_bank).layers
        layers = before.goal * before.budget.layers / more
    elif allocation.stages != before.stages:
        return False
    else:
        layers = allocation.goal
    solves = plan.goal - before.goal
    if objective == "time":
        fewer = before.budget.solvers // plan.hardware.chip.banks - solvers_per_bank
        least = least_solving_s(plan.held, plan.hardware, solvers_per_bank)
        solves = max(solves * (1 - _SPREAD * fewer), least)
    return layers + solves < _GAIN * plan.goal


def _unfused_shapes(
    columns: BlockColumns, hardware: Hardware, policy: Policy, work: StepWork
) -> BlockShapes:
    """Return the shapes of blocks, none of them fused; each is the product of the rows of
    activations, or of errors of every Fisher pass, of all micro-batches that form factors.
    """
    samples = policy.soi.forming(work.micro_batches) * work.micro_batch_size
    passes = np.where(columns.is_g, max(work.fisher_passes, 1), 1)
    return block_shapes(
        columns.size,
        columns.right_sides,
        samples * columns.vectors * passes,
        hardware,
        policy.inversion,
        policy.soi.held_batches(work.decay),
        policy.soi.interval,
    )


def _room_for_blocks(
    shapes: BlockShapes, allocation: Allocation, chip: ChipSpec, policy: Policy, chips: int
) -> Room:
    """Return the arrays that blocks need; renewing behind the steps takes a second set."""
    needed = np.stack([shapes.inv_arrays, shapes.product_arrays], axis=1)
    capacity = np.array([chip.inv_arrays, allocation.budget.solvers])
    return Room(policy.soi.array_sets * needed, capacity, chips)


def _micro_batch_owner(stages: int, partition: PartitionSpec, work: StepWork) -> tuple[int, ...]:
    """Return the first chip of the replica that runs each micro-batch."""
    replicas = work.chips // stages
    speeds = work.speeds if stages == 1 else ()
    owner = micro_batch_owners(work.micro_batches, replicas, partition.micro_batches, speeds)
    return tuple(number * stages for number in owner)


def fusion_rows(plan: Plan) -> list[dict[str, Any]]:
    """Return, per block, time and energy with and without fusion, and what was chosen.

    Those with fusion are None for a block whose activations do not fit.
    """
    fusion = plan.fusion
    columns = (
        plan.shapes.held,
        plan.shapes.fresh,
        fusion.apart_s,
        fusion.fused_s,
        fusion.apart_j,
        fusion.fused_j,
        plan.shapes.fused,
    )
    rows = zip(plan.blocks, *(column.tolist() for column in columns), strict=True)
    return [
        {
            "block": block.index,
            "layer": block.layer_name,
            "factor": block.factor,
            "n": block.size,
            "rows": held,
            "batches": held // fresh,
            "apart_s": apart_s,
            "fused_s": fused_s if math.isfinite(fused_s) else None,
            "apart_j": apart_j,
            "fused_j": fused_j if math.isfinite(fused_j) else None,
            "fused": fused,
            "saved_s": apart_s - fused_s if fused else 0.0,
            "saved_j": apart_j - fused_j if fused else 0.0,
        }
        for block, held, fresh, apart_s, fused_s, apart_j, fused_j, fused in rows
    ]
