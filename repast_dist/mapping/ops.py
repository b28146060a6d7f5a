"""Builds the op table of a training step from a plan, for numeric and for cost-only runs."""

import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from repast_dist.analog.schemes.base import added
from repast_dist.analog.solution import SolveCounts
from repast_dist.ground.numbers import ceil_div
from repast_dist.hardware.geometry import Counts, product_counts, with_buffers, write_counts
from repast_dist.mapping.collectives import (
    Exchange,
    all_reduce,
    all_to_all,
    gather_from_owners,
    reduce_to_owners,
    send,
)
from repast_dist.mapping.layers import LayerTable
from repast_dist.mapping.plan import Plan, average_ops, block_banks, program_counts, solve_counts
from repast_dist.mapping.solves import counted, modelled_preparations, modelled_solves
from repast_dist.ops import op
from repast_dist.ops.op import Op
from repast_dist.ops.table import OpTable, concatenate, op_rows

_CLIP_OPS, _UPDATE_OPS = 3, 4
"""Digital operations per number: KL clip (product, sum, scaling), update (momentum, weight decay,
step)."""


def step_ops(
    plan: Plan,
    chips: int | Sequence[int] | None,
    step: int,
    *,
    factors_due: bool,
    inverses_due: bool,
    solves: Mapping[int, SolveCounts] | None = None,
    every_block: bool = False,
) -> OpTable:
    """Return what chips do in one step.

    Parameters
    ----------
    plan : Plan
        Who does what.
    chips : int, sequence of int or None
        The chips; None: all.
    step : int
        Number of the step, for the rows' identity.
    factors_due, inverses_due : bool
        The step updates the running averages; programs the blocks.
    solves : mapping, optional
        Block -> what the chip's arrays for it really did in this step (programming and solving
        together); None takes the modelled counts.
    every_block : bool
        Include the SOI blocks of chips that were not asked for, too.

    Returns
    -------
    OpTable
        Rows in order of execution per chip.
    """
    due = factors_due and plan.work.second_order
    before, after = outer_rows(plan, chips, due)
    blocks = block_rows(
        plan, None if every_block else chips, due, inverses_due=inverses_due, solves=solves
    )
    table = concatenate([before, blocks, after])
    table.columns["step"][:] = step
    return table


def outer_rows(
    plan: Plan, chips: int | Sequence[int] | None, factors_due: bool
) -> tuple[OpTable, OpTable]:
    """Return the rows before and after those of the SOI blocks: all steps have them alike.

    Parameters are those of `step_ops`; the step is 0.
    """
    wanted = _chip_mask(plan, chips)
    before = [*_compute_rows(plan, wanted, factors_due), *_exchange_rows(plan, wanted, factors_due)]
    return concatenate(before), concatenate(_update_rows(plan, wanted))


def block_rows(
    plan: Plan,
    chips: int | Sequence[int] | None,
    factors_due: bool,
    *,
    inverses_due: bool,
    solves: Mapping[int, SolveCounts] | None = None,
) -> OpTable:
    """Return the rows of the SOI blocks: averaging, programming and solving.

    Parameters are those of `step_ops`; the step is 0.
    """
    wanted = _chip_mask(plan, chips)
    mine = wanted[plan.holdings.chip] if len(plan.holdings) else np.zeros(0, bool)
    if not mine.any():
        return concatenate([])
    shapes, copies = plan.held_shapes, plan.block_copies
    identity, is_g = _block_identity(plan), _is_g(plan)
    counts = _solve_columns(plan, solves, inverses_due)
    solving = solve_counts(shapes, counts, copies, plan.hardware)
    rows = []
    if factors_due:
        averaged = mine & ~shapes.fused
        rows.append(_selected(op.AVERAGE_FACTOR, identity, _averaging(plan), averaged))
    programmed = mine & (plan.crowded | inverses_due) & (counts["program_cells"] > 0)
    if programmed.any():
        programming = program_counts(shapes, counts, copies, plan.hardware)
        rows.append(_selected(op.PROGRAM_BLOCK, identity, programming, programmed))
    rows.append(_selected(op.SOLVE_G, identity, solving, mine & is_g))
    rows.append(_selected(op.SOLVE_A, identity, solving, mine & ~is_g))
    return concatenate(rows)


def _chip_mask(plan: Plan, chips: int | Sequence[int] | None) -> np.ndarray:
    mask = np.zeros(plan.work.chips, bool)
    mask[slice(None) if chips is None else np.atleast_1d(np.asarray(chips, np.int64))] = True
    return mask


def _once_per_plan[**P, T](function: Callable[P, T]) -> Callable[P, T]:
    """Let a plan remember what a function of it returns: the same in every step."""

    @functools.wraps(function)
    def remembered(*arguments: P.args, **_: P.kwargs) -> T:
        plan, *others = arguments
        assert isinstance(plan, Plan)
        what = (function.__name__, *others)
        result: T = plan.once(what, lambda: function(*arguments))  # type: ignore[call-arg]
        return result

    return remembered


# Micro-batches ------------------------------------------------------------------------------


def _compute_rows(plan: Plan, wanted: np.ndarray, factors_due: bool) -> list[OpTable]:
    """Return forward, backward, gradient and factor rows: every micro-batch times every layer."""
    rows = [_per_micro_batch(plan, wanted, *item) for item in _layer_ops(plan, factors_due)]
    return [*rows, *_stage_sends(plan, wanted)]


@_once_per_plan
def _layer_ops(plan: Plan, factors_due: bool) -> list[tuple[Op, np.ndarray, Counts]]:
    """Return (operation, mask of layers, counts per layer) of one micro-batch.

    They are the same for every step and micro-batch; the cache serves runs of many steps.
    """
    layers, allocation = plan.layers, plan.allocation
    products = layers.products
    ops: list[tuple[Op, np.ndarray, Counts]] = [
        (op.RELOAD_WEIGHTS, layers.weighted & ~allocation.resident, _reloads(plan)),
        (op.WRITE_OPERAND, layers.written, _operand_writes(plan)),
        (op.VMM_FORWARD, products, _forward(plan)),
        (op.ELEMENTWISE_FORWARD, _digital_mask(plan), _elementwise(plan)),
        (op.WRITE_ACTIVATIONS, products, _activation_writes(plan)),
        (op.VMM_BACKWARD, layers.errors_pass, _backward(plan)),
        (op.ELEMENTWISE_BACKWARD, _digital_mask(plan), _elementwise(plan)),
        (op.VMM_GRADIENT, products, _gradient(plan)),
    ]
    if factors_due:
        from_inputs = np.array([sizes.size > 0 for sizes in layers.a_sizes])
        from_errors = np.array([sizes.size > 0 for sizes in layers.g_sizes])
        if plan.work.fisher_passes:
            # A whole backward pass each; gradients by the weights alone are not formed again.
            ops += [
                (op.VMM_FISHER, layers.errors_pass, _repeated(plan, _backward(plan))),
                (op.ELEMENTWISE_FISHER, _digital_mask(plan), _repeated(plan, _elementwise(plan))),
                (op.OPERAND_FISHER, layers.written, _repeated(plan, _gradient(plan))),
            ]
        ops += [
            (op.WRITE_MEANS, from_inputs & _combines(layers), _mean_writes(plan)),
            (op.FACTOR_A, from_inputs, _factor(plan, "A")),
            (op.WRITE_ERRORS, from_errors, _error_writes(plan)),
            (op.FACTOR_G, from_errors, _factor(plan, "G")),
        ]
    return ops


def _repeated(plan: Plan, counts: Counts) -> Counts:
    """Return the counts of all Fisher passes."""
    return {name: values * plan.work.fisher_passes for name, values in counts.items()}


def _per_micro_batch(
    plan: Plan, wanted: np.ndarray, what: Op, mask: np.ndarray, counts: Counts
) -> OpTable:
    layers = np.flatnonzero(mask)
    chip = np.add.outer(np.asarray(plan.micro_batch_owner), plan.allocation.stage[layers])
    micro_batch, place = np.nonzero(wanted[chip])
    if not len(place):
        return concatenate([])
    taken = layers[place]
    columns = {name: values[taken] for name, values in counts.items()}
    return op_rows(
        what,
        chip=chip[micro_batch, place],
        bank=plan.allocation.first_bank[taken],
        layer=taken,
        micro_batch=micro_batch,
        **columns,
    )


def _forward(plan: Plan) -> Counts:
    layers, a = plan.layers, plan.allocation
    vectors = plan.work.micro_batch_size * layers.vectors
    counts = product_counts(
        plan.hardware.geometry, vectors, layers.rows, layers.columns, layers.groups, a.copies
    )
    counts["serial_passes"] = counts["serial_passes"] * a.rounds
    return with_buffers(counts, plan.hardware.chip, a.weight_banks)


def _backward(plan: Plan) -> Counts:
    layers, a = plan.layers, plan.allocation
    vectors = plan.work.micro_batch_size * layers.vectors
    counts = product_counts(
        plan.hardware.geometry, vectors, layers.columns, layers.rows, layers.groups, a.copies
    )
    counts["serial_passes"] = counts["serial_passes"] * a.rounds
    return with_buffers(counts, plan.hardware.chip, a.weight_banks)


def _gradient(plan: Plan) -> Counts:
    """Errors of one output after the other drive the arrays that hold the inputs."""
    layers, a = plan.layers, plan.allocation
    held = plan.work.micro_batch_size * layers.vectors
    counts = product_counts(
        plan.hardware.geometry, layers.columns, held, layers.rows + layers.bias, layers.groups
    )
    counts["serial_passes"] = counts["serial_passes"] * _pool_rounds(plan)
    return with_buffers(counts, plan.hardware.chip, a.pool_banks)


def _factor(plan: Plan, factor: str) -> Counts:
    """Return the counts of a block-diagonal factor product, summed over a layer's blocks."""
    layers, a = plan.layers, plan.allocation
    held = plan.work.micro_batch_size * layers.factor_vectors
    sizes = layers.a_sizes if factor == "A" else layers.g_sizes
    names = product_counts(plan.hardware.geometry, np.ones(1), np.ones(1), np.ones(1)).keys()
    counts = {name: np.zeros(len(layers), np.int64) for name in names}
    for layer, widths in enumerate(sizes):
        if widths.size:
            parts = product_counts(plan.hardware.geometry, widths, held[layer], widths)
            for name in names:
                total = parts[name].max() if name.startswith("serial") else parts[name].sum()
                counts[name][layer] = total
    counts["serial_passes"] = counts["serial_passes"] * _pool_rounds(plan)
    return with_buffers(counts, plan.hardware.chip, a.pool_banks)


def _activation_writes(plan: Plan) -> Counts:
    layers, a = plan.layers, plan.allocation
    held = plan.work.micro_batch_size * layers.vectors
    at_once = np.minimum(
        np.maximum(a.pool, 1), a.pool_banks * plan.hardware.chip.written_arrays_per_bank
    )
    return write_counts(
        plan.hardware.geometry, held, layers.rows + layers.bias, layers.groups, at_once
    )


def _combines(layers: LayerTable) -> np.ndarray:
    """Mask of the layers whose vectors are combined before they make factors."""
    return layers.factor_vectors < layers.vectors


def _mean_writes(plan: Plan) -> Counts:
    """Inputs averaged over the vectors of a sample, one row per sample, beside the inputs."""
    layers, a = plan.layers, plan.allocation
    held = plan.work.micro_batch_size * layers.factor_vectors
    width = layers.rows + layers.bias
    at_once = a.pool_banks * plan.hardware.chip.written_arrays_per_bank
    counts = write_counts(plan.hardware.geometry, held, width, layers.groups, at_once)
    counts["digital_ops"] = plan.work.micro_batch_size * layers.vectors * width * layers.groups
    return counts


def _error_writes(plan: Plan) -> Counts:
    layers, a = plan.layers, plan.allocation
    held = plan.work.micro_batch_size * layers.factor_vectors
    at_once = a.pool_banks * plan.hardware.chip.written_arrays_per_bank
    once = write_counts(plan.hardware.geometry, held, layers.columns, layers.groups, at_once)
    summed = plan.work.micro_batch_size * layers.vectors * layers.columns * layers.groups
    once["digital_ops"] = np.where(_combines(layers), summed, 0)
    return {name: values * max(plan.work.fisher_passes, 1) for name, values in once.items()}


def _operand_writes(plan: Plan) -> Counts:
    """Attention operands are written for every sample, and transposed for the backward pass."""
    layers, a = plan.layers, plan.allocation
    at_once = a.weight_banks * plan.hardware.chip.written_arrays_per_bank
    samples = plan.work.micro_batch_size
    once = write_counts(
        plan.hardware.geometry, layers.rows, layers.columns, layers.groups * samples, at_once
    )
    return {name: 2 * values for name, values in once.items()}


def _reloads(plan: Plan) -> Counts:
    at_once = plan.allocation.weight_banks * plan.hardware.chip.written_arrays_per_bank
    return _weight_writes(plan, at_once, np.ones(len(plan.layers), np.int64))


def _weight_writes(plan: Plan, at_once: np.ndarray, copies: np.ndarray) -> Counts:
    """Return the counts of writing weights and transposes."""
    layers, g = plan.layers, plan.hardware.geometry
    forward = write_counts(g, layers.rows, layers.columns, layers.groups, at_once, copies)
    backward = write_counts(g, layers.columns, layers.rows, layers.groups, at_once, copies)
    return {
        name: values + np.where(layers.errors_pass, backward[name], 0)
        for name, values in forward.items()
    }


def _elementwise(plan: Plan) -> Counts:
    layers = plan.layers
    operations = _elementwise_per_sample(plan) * plan.work.micro_batch_size
    moved = 2 * layers.outputs * plan.work.micro_batch_size * plan.hardware.geometry.value_bytes
    tiles = ceil_div(plan.allocation.weight_banks, plan.hardware.chip.banks_per_tile)
    return {
        "digital_ops": operations,
        "buffer_bytes": np.where(operations > 0, moved, 0),
        "serial_digital_ops": ceil_div(operations, _lanes(plan, tiles)),
    }


def _elementwise_per_sample(plan: Plan) -> np.ndarray:
    layers = plan.layers
    return layers.elementwise + layers.bias * layers.outputs


def _digital_mask(plan: Plan) -> np.ndarray:
    return _elementwise_per_sample(plan) > 0


def _pool_rounds(plan: Plan) -> np.ndarray:
    a = plan.allocation
    return ceil_div(a.activations, np.maximum(a.pool, 1))


def _lanes(plan: Plan, tiles: np.ndarray) -> np.ndarray:
    return np.maximum(1, plan.hardware.chip.digital_lanes * tiles)


def _stage_sends(plan: Plan, wanted: np.ndarray) -> list[OpTable]:
    """Return the messages between the chips of a pipeline of layers."""
    a = plan.allocation
    if a.stages == 1:
        return []
    last = np.flatnonzero(np.diff(a.stage) > 0)
    held = (
        plan.work.micro_batch_size * plan.layers.outputs[last] * plan.hardware.geometry.value_bytes
    )
    costs = [send(plan.hardware.interconnect, plan.work.chips, float(size)) for size in held]
    rows = []
    for what, layers in ((op.SEND_ACTIVATIONS, last), (op.SEND_ERRORS, last + 1)):
        chip = np.add.outer(np.asarray(plan.micro_batch_owner), a.stage[layers])
        micro_batch, place = np.nonzero(wanted[chip])
        if len(place):
            rows.append(
                op_rows(
                    what,
                    chip=chip[micro_batch, place],
                    layer=layers[place],
                    micro_batch=micro_batch,
                    link_bytes=held[place],
                    link_s=np.array([cost.time_s for cost in costs])[place],
                    link_j=np.array([cost.energy_j for cost in costs])[place],
                )
            )
    return rows


# Between chips ------------------------------------------------------------------------------


def exchanges(plan: Plan, factors_due: bool) -> dict[Op, Exchange]:
    """Return the collectives of a step in their order; one chip has none."""
    if plan.work.chips == 1:
        return {}
    found = {op.REDUCE_GRADIENTS: _gradient_reduction(plan)}
    if factors_due:
        found[op.REDUCE_FACTORS] = _factor_reduction(plan)
    if plan.work.second_order:
        found[op.EXCHANGE_GRADIENTS] = _solved_exchange(plan)
        scalar = all_reduce(
            plan.hardware.interconnect, plan.work.chips, plan.hardware.interconnect.element_bytes
        )
        found[op.REDUCE_SCALAR] = scalar
    found[op.GATHER_UPDATES] = _update_gather(plan)
    return found


def _exchange_rows(plan: Plan, wanted: np.ndarray, factors_due: bool) -> list[OpTable]:
    found = exchanges(plan, factors_due)
    return [_exchange_row(plan, wanted, what, cost) for what, cost in found.items()]


def _exchange_row(plan: Plan, wanted: np.ndarray, what: Op, cost: Exchange) -> OpTable:
    """Make a row per chip; all take part for the collective's whole time."""
    return op_rows(
        what,
        chip=np.flatnonzero(wanted),
        link_bytes=round(cost.sent_bytes),
        link_s=cost.time_s,
        link_j=cost.energy_j / plan.work.chips,
    )


def _gradient_reduction(plan: Plan) -> Exchange:
    total = float(plan.layers.parameters.sum() * plan.hardware.interconnect.element_bytes)
    return _per_replica(plan, reduce_to_owners, total, _largest(plan, _piece_bytes(plan)))


def _solved_exchange(plan: Plan) -> Exchange:
    """Bring solved columns to the owners of the A blocks: everybody sends to everybody, or all
    gather all, whichever is faster on this network.
    """
    largest = _largest(plan, _piece_bytes(plan))
    total = float(plan.layers.parameters.sum() * plan.hardware.interconnect.element_bytes)
    direct = all_to_all(plan.hardware.interconnect, plan.work.chips, largest)
    gathered = gather_from_owners(plan.hardware.interconnect, plan.work.chips, total, largest)
    return min(direct, gathered, key=lambda exchange: exchange.time_s)


def _update_gather(plan: Plan) -> Exchange:
    total = float(plan.layers.parameters.sum() * plan.hardware.interconnect.element_bytes)
    return _per_replica(plan, gather_from_owners, total, _largest(plan, _piece_bytes(plan)))


def _per_replica(
    plan: Plan, collective: Callable[..., Exchange], total: float, largest: float
) -> Exchange:
    """Run a collective among the chips that hold the same layers; stages do so side by side."""
    stages = plan.allocation.stages
    if stages == 1:
        return collective(plan.hardware.interconnect, plan.work.chips, total, largest)
    per_stage = np.bincount(plan.allocation.stage, plan.layers.parameters, stages)
    busiest = float(per_stage.max()) * plan.hardware.interconnect.element_bytes
    return collective(
        plan.hardware.interconnect,
        plan.replicas,
        busiest,
        max(busiest / plan.replicas, min(largest, busiest)),
    )


def _factor_reduction(plan: Plan) -> Exchange:
    """Reduce every block to its owner; a symmetric block is n (n + 1) / 2 numbers. A fused block
    is not summed: its owner gathers the rows it is the product of. Chips that hold a block beside
    its owner get it from there: an all-gather among as many chips as hold one on average.
    """
    n = plan.shapes.size
    numbers = np.where(plan.shapes.fused, n * plan.shapes.held, n * (n + 1) // 2)
    size = numbers * plan.hardware.interconnect.element_bytes
    owner = np.asarray(plan.block_owner, np.int64)
    held = np.bincount(owner, size, plan.work.chips)
    total, largest = float(size.sum()), float(held.max())
    cost = reduce_to_owners(plan.hardware.interconnect, plan.work.chips, total, largest)
    holders = round(len(plan.holdings) / len(plan.blocks))
    if holders > 1:
        part = total * holders / plan.work.chips
        cost += gather_from_owners(plan.hardware.interconnect, holders, part, min(largest, part))
    return cost


def _piece_bytes(plan: Plan) -> np.ndarray:
    """Return the bytes of the gradient piece that every holding of a G block solves; 0 for A."""
    is_g = np.array([block.factor == "G" for block in plan.blocks], bool)
    shapes = plan.held_shapes
    size = shapes.size * shapes.right_sides * plan.hardware.interconnect.element_bytes
    pieces: np.ndarray = np.where(is_g[plan.holdings.block], size, 0)
    return pieces


def _largest(plan: Plan, piece_bytes: np.ndarray) -> float:
    """Return the bytes of the chip that owns most; layers without blocks are shared evenly."""
    element = plan.hardware.interconnect.element_bytes
    total = float(plan.layers.parameters.sum()) * element
    rest = max(0.0, total - float(piece_bytes.sum())) / plan.work.chips
    if not len(piece_bytes):
        return rest
    held = np.bincount(plan.holdings.chip, piece_bytes, plan.work.chips)
    return float(held.max()) + rest


# SOI blocks and update ----------------------------------------------------------------------


@_once_per_plan
def _averaging(plan: Plan) -> Counts:
    """Return what updating the running average of every holding takes."""
    shapes = plan.held_shapes
    average = average_ops(shapes.size)
    lanes = _lanes(
        plan, ceil_div(block_banks(shapes, plan.hardware.chip), plan.hardware.chip.banks_per_tile)
    )
    return {
        "digital_ops": average,
        "buffer_bytes": 2 * shapes.size**2 * plan.hardware.geometry.value_bytes,
        "serial_digital_ops": ceil_div(average, lanes),
    }


@_once_per_plan
def _block_identity(plan: Plan) -> Counts:
    """Return the identity columns of every holding."""
    block = plan.holdings.block
    layers = np.array([item.layer for item in plan.blocks], np.int64)
    return {
        "chip": plan.holdings.chip,
        "bank": _block_bank(plan),
        "block": block,
        "layer": layers[block],
    }


@_once_per_plan
def _is_g(plan: Plan) -> np.ndarray:
    """Return which holdings are of G blocks."""
    kinds = np.array([item.factor == "G" for item in plan.blocks], bool)
    return kinds[plan.holdings.block]


def _selected(what: Op, identity: Counts, counts: Counts, mask: np.ndarray) -> OpTable:
    if not mask.any():
        return concatenate([])
    columns = {name: values[mask] for name, values in (identity | counts).items()}
    return op_rows(what, **columns)


def _solve_columns(
    plan: Plan, solves: Mapping[int, SolveCounts] | None, inverses_due: bool
) -> Counts:
    if solves is not None:
        columns = counted(dict(solves), len(plan.blocks))
        return {name: values[plan.holdings.block] for name, values in columns.items()}
    shapes, scheme = plan.held_shapes, plan.policy.inversion
    rounds = plan.policy.soi.assumed_iterations
    solving = modelled_solves(shapes, scheme, plan.hardware, rounds)
    preparing = modelled_preparations(shapes, scheme, plan.hardware, rounds)
    if inverses_due:
        return added(solving, preparing)
    return {**solving, "program_cells": preparing["program_cells"]}


def _block_bank(plan: Plan) -> np.ndarray:
    """Return the first bank of every block: a chip's blocks lie one behind the other."""
    wide = plan.block_copies * block_banks(plan.held_shapes, plan.hardware.chip)
    owner = plan.holdings.chip
    order = np.argsort(owner, kind="stable")
    before = np.cumsum(wide[order]) - wide[order]
    first = np.searchsorted(owner[order], owner[order])
    bank = np.zeros(len(owner), np.int64)
    bank[order] = (before - before[first]) % plan.hardware.chip.banks
    return bank


def _update_rows(plan: Plan, wanted: np.ndarray) -> list[OpTable]:
    """Clip, update, and write the weights of resident layers; every chip updates what it holds."""
    layers, a = plan.layers, plan.allocation
    chips = np.flatnonzero(wanted)
    per_stage = np.bincount(a.stage, layers.parameters, a.stages).astype(np.int64)
    held = per_stage[chips % a.stages]
    rows = []
    if plan.work.second_order:
        clipped = ceil_div(int(layers.parameters.sum()), plan.work.chips) * _CLIP_OPS
        rows.append(_digital_row(plan, op.CLIP, chips, np.full(len(chips), clipped)))
    rows.append(_digital_row(plan, op.UPDATE, chips, held * _UPDATE_OPS))
    at_once = a.weight_banks * plan.hardware.chip.written_arrays_per_bank
    counts = _weight_writes(plan, at_once, a.copies)
    kept = np.flatnonzero(layers.weighted & a.resident)
    which, place = np.nonzero(np.equal.outer(chips % a.stages, a.stage[kept]))
    if len(place):
        taken = kept[place]
        columns = {name: values[taken] for name, values in counts.items()}
        bank = a.first_bank[taken]
        rows.append(op_rows(op.WRITE_WEIGHTS, chip=chips[which], bank=bank, layer=taken, **columns))
    return rows


def _digital_row(plan: Plan, what: Op, chips: np.ndarray, operations: np.ndarray) -> OpTable:
    lanes = max(1, plan.hardware.chip.tiles * plan.hardware.chip.digital_lanes)
    return op_rows(
        what,
        chip=chips,
        digital_ops=operations,
        buffer_bytes=operations * plan.hardware.interconnect.element_bytes,
        serial_digital_ops=ceil_div(operations, lanes),
    )
