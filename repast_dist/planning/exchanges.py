"""Prices the exchanges between the chips of a plan in one step."""

import dataclasses
from collections.abc import Callable

import numpy as np

from repast_dist.ops import op
from repast_dist.ops.op import Op
from repast_dist.planning.collectives import (
    Exchange,
    all_reduce,
    all_to_all,
    gather_from_owners,
    reduce_to_owners,
)
from repast_dist.planning.matrix_ops import kept_ranges, matrix_numbers
from repast_dist.planning.plan import Plan


def exchanges(plan: Plan, factors_due: bool) -> dict[Op, Exchange]:
    """Return the collectives of a step in their order; one chip has none."""
    if plan.work.chips == 1:
        return {}
    found = {op.REDUCE_GRADIENTS: _per_replica(plan, reduce_to_owners)}
    if factors_due:
        found[op.REDUCE_FACTORS] = _factor_reduction(plan)
    if plan.work.second_order:
        found[op.EXCHANGE_GRADIENTS] = _solved_exchange(plan)
        if plan.work.matrices is not None:
            found[op.EXCHANGE_SOLVED] = _solved_matrices(plan)
    # The norm that the KL clip needs, and ADC ranges for the next step.
    # Adapting the damping takes a loss and the change that a model predicts, and measuring noise
    # two norms of each gradient.
    scalars = int(plan.work.clipped) + _range_count(plan) + 2 * (plan.work.damping_every > 0)
    scalars += 2 * len(plan.measured_layers)
    if scalars:
        network = plan.hardware.interconnect
        size = scalars * network.element_bytes
        found[op.REDUCE_SCALAR] = all_reduce(network, plan.work.chips, size)
    found[op.GATHER_UPDATES] = _per_replica(plan, gather_from_owners)
    return found


def _range_count(plan: Plan) -> int:
    """Return how many ADC ranges chips agree on, one per slice of every kind of product."""
    if not plan.hardware.chip.adc.follows:
        return 0
    layers = plan.layers
    # Forward, gradient and backward, one per factor, and operands of matrices.
    kinds = 2 * layers.products.sum() + layers.errors_pass.sum()
    kinds += sum(sizes.size > 0 for sizes in (*layers.a_sizes, *layers.g_sizes))
    kinds += kept_ranges(plan)
    return int(kinds) * plan.hardware.geometry.slices


def _per_replica(plan: Plan, collective: Callable[..., Exchange]) -> Exchange:
    """Price a collective among the chips that hold the same layers; the stages of a pipeline run
    theirs at the same time, over the same network.
    """
    network, stages = plan.hardware.interconnect, plan.allocation.stages
    total = _gradient_bytes(plan)
    largest = _largest_share(plan, total)
    if stages == 1:
        return collective(network, plan.work.chips, total, largest)
    per_stage = np.bincount(plan.allocation.stage, plan.layers.parameters, stages)
    busiest = float(per_stage.max()) * network.element_bytes
    largest = max(busiest / plan.replicas, min(largest, busiest))
    cost = collective(network, plan.work.chips, busiest, largest, plan.replicas, stages)
    # Other stages have fewer bytes than the busiest one.
    joules = cost.energy_j * float(per_stage.mean() / max(per_stage.max(), 1.0))
    return dataclasses.replace(cost, energy_j=joules)


def _solved_exchange(plan: Plan) -> Exchange:
    """Price bringing the columns that G blocks have solved to the owners of the A blocks: either
    every chip sends to every other, or all chips gather everything, whichever is faster.
    """
    network, chips = plan.hardware.interconnect, plan.work.chips
    layers = plan.layers
    pairs = zip(layers.a_sizes, layers.g_sizes, strict=True)
    solved = np.array([a.size + g.size > 0 for a, g in pairs])
    total = float(layers.parameters[solved].sum() * network.element_bytes)
    largest = _largest_share(plan, total)
    direct = all_to_all(network, chips, total, largest)
    gathered = gather_from_owners(network, chips, total, largest)
    return min(direct, gathered, key=lambda exchange: exchange.time_s)


def _solved_matrices(plan: Plan) -> Exchange:
    """Price bringing what A blocks have solved to the owners of the matrices, in either way."""
    network, chips = plan.hardware.interconnect, plan.work.chips
    size = matrix_numbers(plan) * network.element_bytes
    total, largest = float(size.sum()), float(size.max())
    direct = all_to_all(network, chips, total, largest)
    gathered = gather_from_owners(network, chips, total, largest)
    return min(direct, gathered, key=lambda exchange: exchange.time_s)


def _matrix_share(plan: Plan, total: float) -> float:
    """Return the most bytes that one chip gets of a total: of its matrices, and an even share of
    everything else.
    """
    size = matrix_numbers(plan) * plan.hardware.interconnect.element_bytes
    rest = max(0.0, total - float(size.sum())) / plan.work.chips
    return float(size.max()) + rest


def _factor_reduction(plan: Plan) -> Exchange:
    """Price reducing every block to its owner, or gathering its rows there. Other chips that hold
    the block get it from its owner: an all-gather among as many chips as hold a shared one on
    average.
    """
    network, chips = plan.hardware.interconnect, plan.work.chips
    size = plan.factor_numbers * network.element_bytes
    held = np.bincount(np.asarray(plan.block_owner, np.int64), size, chips)
    total, largest = float(size.sum()), float(held.max())
    cost = reduce_to_owners(network, chips, total, largest)
    holders = np.bincount(plan.holdings.block, minlength=len(plan.blocks))
    shared = holders > 1
    if shared.any():
        number = round(float(holders[shared].mean()))
        part = float(size[shared].sum()) * number / chips
        gathered = gather_from_owners(network, chips, part, min(largest, part), number)
        # Every further chip gets the whole block.
        wanted, priced = size @ (holders - 1), size @ shared * (number - 1)
        cost += dataclasses.replace(gathered, energy_j=gathered.energy_j * float(wanted / priced))
    return cost


def _gradient_bytes(plan: Plan) -> float:
    """Return the bytes of the gradient of the whole network."""
    return float(plan.layers.parameters.sum() * plan.hardware.interconnect.element_bytes)


def _largest_share(plan: Plan, total: float) -> float:
    """Return the most bytes of a gradient of so many that one chip solves with its G blocks; what
    no block solves is divided evenly.
    """
    pieces, chips = _piece_bytes(plan), plan.work.chips
    if plan.work.matrices is not None:
        return _matrix_share(plan, total)
    rest = max(0.0, total - float(pieces.sum())) / chips
    if not len(pieces):
        return rest
    return float(np.bincount(plan.holdings.chip, pieces, chips).max()) + rest


def _piece_bytes(plan: Plan) -> np.ndarray:
    """Return the bytes of the gradient that each holding of a G block solves; 0 for A blocks."""
    shapes = plan.held_shapes
    size = shapes.size * shapes.right_sides * plan.hardware.interconnect.element_bytes
    pieces: np.ndarray = np.where(plan.holds_g, size, 0)
    return pieces
