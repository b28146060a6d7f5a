"""The plan of a training step: which chip stores, computes, reduces and inverts what."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from repast_dist.ground.errors import SettingsError
from repast_dist.ground.numbers import ceil_div
from repast_dist.hardware.geometry import Counts
from repast_dist.hardware.hardware import Hardware
from repast_dist.hardware.specs import ChipSpec
from repast_dist.mapping.allocation import Allocation, allocate
from repast_dist.mapping.blocks import SoiBlock, soi_blocks
from repast_dist.mapping.holdings import Holdings, make_holdings
from repast_dist.mapping.layers import LayerTable, layer_table
from repast_dist.mapping.owners import Room, block_owners, micro_batch_owners
from repast_dist.mapping.solves import (
    BlockShapes,
    block_shapes,
    can_fuse,
    fuse,
    modelled_preparations,
    modelled_solves,
)
from repast_dist.mapping.specs import Policy, StepWork
from repast_dist.network.shapes import Workload
from repast_dist.ops.pricing import time_per_count

_BISECTIONS = 24


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """Says which chip does what in every step. Plans are compared by identity.

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
    blocks : tuple of SoiBlock
        All blocks.
    block_owner : tuple of int
        Chip of every block.
    holdings : Holdings
        Chips that hold each block's solver, the owner among them, and what they solve for.
    micro_batch_owner : tuple of int
        Chip of every micro-batch; the first chip of its pipeline if layers are spread over chips.
    block_cost_s : ndarray
        Modelled work per block and step, on one copy; what ``lpt`` balances.
    layers : LayerTable
        The workload as columns.
    allocation : Allocation
        Arrays per layer.
    shapes : BlockShapes
        The blocks as columns.
    apart_s, fused_s : ndarray
        Modelled time per block and step with the product formed and without (fused; infinite
        where the activations do not fit), on one copy: what ``soi.fusion=auto`` compares.
    """

    workload: Workload
    hardware: Hardware
    policy: Policy
    work: StepWork
    blocks: tuple[SoiBlock, ...]
    block_owner: tuple[int, ...]
    holdings: Holdings
    micro_batch_owner: tuple[int, ...]
    block_cost_s: np.ndarray
    layers: LayerTable
    allocation: Allocation
    shapes: BlockShapes
    apart_s: np.ndarray
    fused_s: np.ndarray
    _remembered: dict[Any, Any] = dataclasses.field(default_factory=dict, init=False, repr=False)

    def once(self, what: Any, make: Callable[[], Any]) -> Any:
        """Return what `make` returned the first time it was asked for under the name `what`.

        For columns that follow from the plan and are the same in every step.
        """
        if what not in self._remembered:
            self._remembered[what] = make()
        return self._remembered[what]

    @property
    def replicas(self) -> int:
        """Copies of the network over the chips."""
        return self.work.chips // self.allocation.stages

    @functools.cached_property
    def held_shapes(self) -> BlockShapes:
        """The blocks as columns, one entry per holding."""
        return self.shapes.shared(self.holdings.block, self.holdings.right_sides)

    @functools.cached_property
    def held_cost_s(self) -> np.ndarray:
        """Modelled work per holding and step, on one copy."""
        block = self.holdings.block
        share = self.holdings.right_sides / np.maximum(self.shapes.right_sides[block], 1)
        cost: np.ndarray = self.block_cost_s[block] * share
        return cost

    @functools.cached_property
    def block_copies(self) -> np.ndarray:
        """Copies of a block on its chip, per holding; right-hand sides are shared among them."""
        return _balanced_block_copies(self)

    @functools.cached_property
    def crowded(self) -> np.ndarray:
        """Holdings whose chip cannot hold all its blocks at once: programmed every step."""
        once = np.ones(len(self.holdings), np.int64)
        crowded: np.ndarray = ~_fits(self, once)[self.holdings.chip]
        return crowded


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
        Chips at work, and what a step is made of.

    Raises
    ------
    SettingsError
        The chip cannot invert and the method is of second order; the network between chips does
        not hold them.
    CapacityError
        The network does not fit and ``partition.overflow`` is ``error``.
    """
    chip, soi, partition = hardware.chip, policy.soi, policy.partition
    if work.second_order and not chip.inv_arrays:
        raise SettingsError(
            f"chip.inv.arrays_per_bank: chip '{chip.name}' has no inverting arrays; valid: at "
            "least 1, or a first-order optimizer"
        )
    blocks = soi_blocks(workload, soi.block_size, work.sides)
    layers = layer_table(workload, blocks)
    held = _held_rows(blocks, layers, work.batch_size)
    shapes = block_shapes(blocks, _right_sides(blocks, layers), held, hardware, policy.inversion)
    apart_s = _block_step_s(shapes, hardware, policy)
    fused_s = _fused_seconds(shapes, hardware, policy)
    wanted = {"off": fused_s < 0, "on": np.isfinite(fused_s), "auto": fused_s < apart_s}[soi.fusion]
    shapes = fuse(shapes, wanted, hardware)
    kept = tuple(b for b, inside in zip(blocks, wanted.tolist(), strict=True) if not inside)
    layers = layer_table(workload, kept)
    cost_s = block_seconds(shapes, hardware, policy)
    allocation = allocate(layers, hardware, partition, work)
    room = Room(
        needed=(2 if soi.stale else 1)
        * np.stack([shapes.inv_arrays, shapes.product_arrays], axis=1),
        capacity=np.array([chip.inv_arrays, allocation.budget.solvers]),
        chips=work.chips,
    )
    owner = block_owners(blocks, cost_s, work.chips, partition.blocks, work.speeds, room)
    stages = allocation.stages
    replica = micro_batch_owners(
        work.micro_batches,
        work.chips // stages,
        partition.micro_batches,
        work.speeds if stages == 1 else (),
    )
    return Plan(
        workload=workload,
        hardware=hardware,
        policy=policy,
        work=work,
        blocks=blocks,
        block_owner=owner,
        holdings=make_holdings(blocks, owner, shapes.right_sides, cost_s, policy, work),
        micro_batch_owner=tuple(number * stages for number in replica),
        block_cost_s=cost_s,
        layers=layers,
        allocation=allocation,
        shapes=shapes,
        apart_s=apart_s,
        fused_s=fused_s,
    )


def block_seconds(shapes: BlockShapes, hardware: Hardware, policy: Policy) -> np.ndarray:
    """Return the modelled time per step of every block on one copy: its solve, and its share of
    programming.
    """
    soi = policy.soi
    solving = modelled_solves(shapes, policy.inversion, hardware, soi.assumed_iterations)
    preparing = modelled_preparations(shapes, policy.inversion, hardware, soi.assumed_iterations)
    one = np.ones(len(shapes), np.int64)
    weights = time_per_count(hardware.costs)
    solve = solve_counts(shapes, solving, one, hardware)
    prepare = solve_counts(shapes, preparing, one, hardware)
    program = program_counts(shapes, preparing, one, hardware)
    return sum(
        (solve.get(name, 0) + (prepare.get(name, 0) + program.get(name, 0)) / soi.interval) * weight
        for name, weight in weights.items()
    ) + np.zeros(len(shapes))


def fusion_rows(plan: Plan) -> list[dict[str, Any]]:
    """Return, per block, what fusion would take and save per step, and what was chosen."""
    return [
        {
            "block": block.index,
            "layer": block.layer_name,
            "factor": block.factor,
            "n": block.size,
            "rows": int(plan.shapes.held[block.index]),
            "apart_s": float(plan.apart_s[block.index]),
            "fused_s": float(plan.fused_s[block.index]),
            "fused": bool(plan.shapes.fused[block.index]),
            "saved_s": float(
                (plan.apart_s - plan.fused_s)[block.index] if plan.shapes.fused[block.index] else 0
            ),
        }
        for block in plan.blocks
    ]


def _block_step_s(shapes: BlockShapes, hardware: Hardware, policy: Policy) -> np.ndarray:
    """Return the time per step of blocks whose product is formed: factor product of a chip's
    micro-batch, running average, programming and solving.
    """
    weights = time_per_count(hardware.costs)
    passes = shapes.size * hardware.geometry.passes
    lanes = max(1, hardware.chip.digital_lanes)
    average = ceil_div(average_ops(shapes.size), lanes)
    formed = passes * weights["serial_passes"] + average * weights["serial_digital_ops"]
    solved = block_seconds(shapes, hardware, policy)
    seconds: np.ndarray = formed / policy.soi.factor_interval + solved
    return seconds


def _fused_seconds(shapes: BlockShapes, hardware: Hardware, policy: Policy) -> np.ndarray:
    """Return the time per step of fused blocks; infinite where they do not fit."""
    possible = can_fuse(shapes, hardware.chip)
    fused = fuse(shapes, possible, hardware)
    seconds = block_seconds(fused, hardware, policy)
    return np.where(possible, seconds, np.inf)


def solve_counts(
    shapes: BlockShapes, counts: Counts, copies: np.ndarray, hardware: Hardware
) -> Counts:
    """Return op-table counts of solving, from `SolveCounts` as columns."""
    chip, g = hardware.chip, hardware.product_geometry(shapes.product_bits)
    inv_ops, vmm_ops, n = counts["inv_ops"], counts["vmm_ops"], shapes.size
    driven = vmm_ops * g.passes
    cells = dac = adc = np.zeros(len(shapes), np.int64)
    for rows, columns in shapes.factors:
        row_tiles = ceil_div(rows, g.rows)
        cells = cells + rows * columns * g.slices * g.columns_per_weight
        dac = dac + rows * ceil_div(columns * g.slices, g.weight_columns)
        adc = adc + row_tiles * columns * g.slices
    banks = copies * block_banks(shapes, chip)
    lanes = np.maximum(1, chip.digital_lanes * ceil_div(banks, chip.banks_per_tile))
    return {
        "crossbar_reads": driven * shapes.product_arrays,
        "cells_read": driven * cells
        # One settling reads one piece, with all its slices and copies.
        + inv_ops * (shapes.inverting_cells // 2**shapes.depth),
        "dac_conversions": driven * dac,
        "adc_conversions": driven * adc,
        "inv_ops": inv_ops,
        "amplifier_ops": inv_ops * shapes.piece * (1 + shapes.fused),
        "inv_dac_conversions": inv_ops * shapes.piece,
        "inv_adc_conversions": inv_ops * shapes.piece,
        "digital_ops": counts["digital_ops"],
        "buffer_bytes": (vmm_ops + inv_ops) * 2 * n * g.value_bytes,
        "serial_passes": ceil_div(vmm_ops, copies) * g.passes * (1 + shapes.fused),
        "serial_inv_ops": ceil_div(inv_ops, copies),
        "serial_digital_ops": ceil_div(counts["digital_ops"], lanes),
    }


def program_counts(
    shapes: BlockShapes, counts: Counts, copies: np.ndarray, hardware: Hardware
) -> Counts:
    """Return op-table counts of programming blocks; copies are written at the same time."""
    chip, g = hardware.chip, hardware.product_geometry(shapes.product_bits)
    arrays = shapes.inv_arrays + shapes.product_arrays
    at_once = block_banks(shapes, chip) * chip.written_arrays_per_bank
    rows = np.maximum(shapes.piece, np.minimum(shapes.size, g.rows))
    return {
        "cell_writes": counts["program_cells"] * copies,
        "buffer_bytes": shapes.product_values * g.value_bytes,
        "serial_row_writes": np.where(
            counts["program_cells"] > 0, ceil_div(arrays, at_once) * rows, 0
        ),
    }


_AVERAGE_OPS = 3
"""Digital operations per number of a running average: decay, add, damp."""


def average_ops(size: np.ndarray) -> np.ndarray:
    """Return the digital operations of updating symmetric running averages of these widths."""
    ops: np.ndarray = size * (size + 1) // 2 * _AVERAGE_OPS
    return ops


def block_banks(shapes: BlockShapes, chip: ChipSpec) -> np.ndarray:
    """Return the banks one copy of each block is spread over."""
    per_bank = max(chip.inv.arrays_per_bank, 1)
    wanted = np.maximum(
        ceil_div(shapes.inv_arrays, per_bank),
        ceil_div(shapes.product_arrays, chip.vmm.arrays_per_bank),
    )
    return np.clip(wanted, 1, chip.banks)


def _held_rows(blocks: tuple[SoiBlock, ...], layers: LayerTable, batch: int) -> np.ndarray:
    """Return the rows of a whole batch's activations or errors, per block."""
    return np.array([batch * int(layers.factor_vectors[b.layer]) for b in blocks], np.int64)


def _right_sides(blocks: tuple[SoiBlock, ...], layers: LayerTable) -> np.ndarray:
    """Return right-hand sides per block: a layer's columns for A, its rows with bias for G."""
    rows = layers.rows + layers.bias
    sizes = [b.right_sides(int(rows[b.layer]), int(layers.columns[b.layer])) for b in blocks]
    return np.array(sizes, np.int64)


def _fits(plan: Plan, copies: np.ndarray) -> np.ndarray:
    """Return, per chip, whether it holds these copies of its blocks. Renewing behind the steps
    takes a second set of arrays.
    """
    chip, shapes = plan.holdings.chip, plan.held_shapes
    sets = 2 if plan.policy.soi.stale else 1
    inverting = np.bincount(chip, sets * copies * shapes.inv_arrays, plan.work.chips)
    product = np.bincount(chip, sets * copies * shapes.product_arrays, plan.work.chips)
    fits: np.ndarray = (inverting <= plan.hardware.chip.inv_arrays) & (
        product <= plan.allocation.budget.solvers
    )
    return fits


def _balanced_block_copies(plan: Plan) -> np.ndarray:
    """Copy the blocks of each chip until the longest solve is as short as its arrays allow."""
    if not plan.blocks:
        return np.zeros(0, np.int64)
    chip, cost = plan.holdings.chip, plan.held_cost_s
    most = np.maximum(plan.holdings.right_sides, 1)

    def copies_for(longest: np.ndarray) -> np.ndarray:
        wanted = np.ceil(cost / longest[chip])
        copies: np.ndarray = np.clip(wanted, 1, most).astype(np.int64)
        return copies

    high = np.full(plan.work.chips, float(cost.max()))
    low = high / float(most.max())
    for _ in range(_BISECTIONS):
        middle = np.sqrt(low * high)
        fits = _fits(plan, copies_for(middle))
        high, low = np.where(fits, middle, high), np.where(fits, low, middle)
    return copies_for(high)
