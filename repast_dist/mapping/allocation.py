"""Assigns arrays to weights and their transposes, copies of layers, activations and solvers."""

import dataclasses

import numpy as np

from repast_dist.ground.errors import CapacityError
from repast_dist.ground.numbers import ceil_div
from repast_dist.hardware.geometry import array_count
from repast_dist.hardware.hardware import Hardware
from repast_dist.hardware.specs import ChipSpec
from repast_dist.mapping.layers import LayerTable
from repast_dist.mapping.specs import PartitionSpec, StepWork

_TURNS_SHARE = 0.25
"""Share of the weights' arrays in which layers take turns when not all fit."""

_COPIES_ROOM = 2
"""A layer keeps its own arrays only if twice as many are free, so early layers can be copied."""


@dataclasses.dataclass(frozen=True)
class Allocation:
    """Arrays per layer, one entry each.

    Attributes
    ----------
    stages : int
        Chips the layers are spread over; 1: every chip holds all layers.
    stage : ndarray
        Place of the layer's chip in that pipeline.
    forward_arrays, backward_arrays : ndarray
        Arrays of one copy of the weights and of the transposes.
    copies : ndarray
        Copies of both.
    resident : ndarray of bool
        Held all the time; others are written anew for every micro-batch.
    rounds : ndarray
        Times a layer's weights take turns in the arrays they get; 1 unless larger than those.
    activation_arrays : ndarray
        Arrays the inputs of one micro-batch would fill.
    pool_arrays : ndarray
        Arrays the layer has for them; they are filled as often as needed.
    first_bank, weight_banks, pool_banks : ndarray
        Where the layer begins, and over how many banks its weights and activations lie.
    solver_arrays : int
        Multiplying arrays of a chip kept for residual products.
    used_arrays : ndarray
        (stages,) weight arrays in use, copies included.
    budget : int
        Multiplying arrays of a chip for weights.
    """

    stages: int
    stage: np.ndarray
    forward_arrays: np.ndarray
    backward_arrays: np.ndarray
    copies: np.ndarray
    resident: np.ndarray
    rounds: np.ndarray
    activation_arrays: np.ndarray
    pool_arrays: np.ndarray
    first_bank: np.ndarray
    weight_banks: np.ndarray
    pool_banks: np.ndarray
    solver_arrays: int
    used_arrays: np.ndarray
    budget: int

    @property
    def weight_arrays(self) -> np.ndarray:
        """Arrays of one copy, weights and transposes."""
        return self.forward_arrays + self.backward_arrays


def allocate(
    layers: LayerTable, hardware: Hardware, partition: PartitionSpec, work: StepWork
) -> Allocation:
    """Give layers their arrays.

    Parameters
    ----------
    layers : LayerTable
        The network.
    hardware : Hardware
        The chip and how matrices lie on its arrays.
    partition : PartitionSpec
        Shares, spreading over chips, overflow and copies.
    work : StepWork
        Chips at hand and samples of a micro-batch; second-order methods keep arrays for solvers.

    Raises
    ------
    CapacityError
        The layers do not fit and ``partition.overflow`` is ``error``.
    """
    chip, g = hardware.chip, hardware.geometry
    forward = np.where(
        layers.products, array_count(g, layers.rows, layers.columns, layers.groups), 0
    )
    backward = np.where(
        layers.errors_pass, array_count(g, layers.columns, layers.rows, layers.groups), 0
    )
    weights = forward + backward
    solvers = int(chip.vmm_arrays * partition.solver_share) if work.second_order else 0
    pool = max(1, int(chip.vmm_arrays * partition.activation_share))
    budget = max(1, chip.vmm_arrays - solvers - pool)
    stages = _stage_count(weights, budget, partition, work.chips)
    stage = _spread(weights, stages)

    resident, copies = np.ones(len(layers), bool), np.ones(len(layers), np.int64)
    rounds, used = np.ones(len(layers), np.int64), np.zeros(stages, np.int64)
    activation = np.where(
        layers.weighted,
        array_count(
            g, work.micro_batch_size * layers.vectors, layers.rows + layers.bias, layers.groups
        ),
        0,
    )
    pools, first = np.zeros(len(layers), np.int64), np.zeros(len(layers), np.int64)
    for number in range(stages):
        own = np.flatnonzero(stage == number)
        if not len(own):
            continue
        region, kept = 0, own
        if weights[own].sum() > budget:
            if partition.overflow == "error":
                raise CapacityError(_too_large(weights[own], budget, layers.names, own, chip))
            region = max(1, int(budget * _TURNS_SHARE))
            resident[own] = _resident(weights[own], layers.vectors[own], budget - region)
            kept, spilled = own[resident[own]], own[~resident[own]]
            rounds[spilled] = ceil_div(weights[spilled], region)
        if partition.replicate_layers and len(kept):
            copies[kept] = _balanced_copies(weights[kept], layers.vectors[kept], budget - region)
        taken = np.where(resident[own], weights[own] * copies[own], 0)
        used[number] = int(taken.sum()) + region
        offsets = np.cumsum(taken) - taken
        first[own] = offsets // chip.vmm.arrays_per_bank % chip.banks
        pools[own] = _balanced_pool(activation[own], layers.columns[own], pool)
    held = np.where(resident, weights * copies, np.maximum(1, int(budget * _TURNS_SHARE)))
    return Allocation(
        stages=stages,
        stage=stage,
        forward_arrays=forward,
        backward_arrays=backward,
        copies=copies,
        resident=resident,
        rounds=rounds,
        activation_arrays=activation,
        pool_arrays=pools,
        first_bank=first,
        weight_banks=_banks(held, chip),
        pool_banks=_banks(pools, chip),
        solver_arrays=solvers,
        used_arrays=used,
        budget=budget,
    )


def _stage_count(weights: np.ndarray, budget: int, partition: PartitionSpec, n_chips: int) -> int:
    if partition.layers == "replicate":
        return 1
    most = min(n_chips, max(1, int(np.count_nonzero(weights))))
    divisors = [count for count in range(1, most + 1) if n_chips % count == 0]
    if partition.layers == "pipeline":
        return divisors[-1]
    for count in divisors:
        stage = _spread(weights, count)
        if np.bincount(stage, weights, minlength=count).max() <= budget:
            return count
    return divisors[-1]


def _spread(weights: np.ndarray, stages: int) -> np.ndarray:
    """Cut the layers into consecutive stages whose largest needs the fewest arrays."""
    if stages == 1:
        return np.zeros(len(weights), np.int64)
    low, high = int(weights.max(initial=1)), int(weights.sum())
    while low < high:
        middle = (low + high) // 2
        if _cuts(weights, middle)[-1] < stages:
            high = middle
        else:
            low = middle + 1
    return _cuts(weights, low)


def _cuts(weights: np.ndarray, limit: int) -> np.ndarray:
    """Fill stages up to a limit; return each layer's stage."""
    stage, filled, number = np.zeros(len(weights), np.int64), 0, 0
    for place, arrays in enumerate(weights):
        if filled + arrays > limit and filled:
            number, filled = number + 1, 0
        stage[place] = number
        filled += int(arrays)
    return stage


def _resident(weights: np.ndarray, vectors: np.ndarray, budget: int) -> np.ndarray:
    """Return a mask of the layers that stay: those of many vectors per sample, since copies of
    them shorten the pipeline; writing costs the same per array whichever layer takes turns.
    """
    resident = np.zeros(len(weights), bool)
    held = 0
    for place in np.lexsort((weights, -vectors)):
        if held + weights[place] * _COPIES_ROOM > budget:
            continue
        resident[place] = True
        held += int(weights[place])
    return resident


def _balanced_copies(weights: np.ndarray, vectors: np.ndarray, budget: int) -> np.ndarray:
    """Return the copies that make the busiest layer's vectors per copy as few as fit."""
    work = np.where(weights > 0, vectors, 1)
    low, high = 1, int(work.max())
    while low < high:
        middle = (low + high) // 2
        if (weights * ceil_div(work, middle)).sum() <= budget:
            high = middle
        else:
            low = middle + 1
    return ceil_div(work, low)


def _balanced_pool(needed: np.ndarray, columns: np.ndarray, pool: int) -> np.ndarray:
    """Share a pool so that the longest gradient product is as short as it can be.

    A layer's errors drive its arrays once per output and filling: ``columns * needed / pool``
    vectors. At least one array each, at most what is needed.
    """
    if needed.sum() <= pool:
        return needed
    work = needed * columns
    low, high = 1, int(work.max())
    while low < high:
        middle = (low + high) // 2
        if np.minimum(needed, ceil_div(work, middle)).sum() <= pool:
            high = middle
        else:
            low = middle + 1
    return np.minimum(needed, ceil_div(work, low))


def _banks(arrays: np.ndarray, chip: ChipSpec) -> np.ndarray:
    return np.clip(ceil_div(arrays, chip.vmm.arrays_per_bank), 1, chip.banks)


def _too_large(
    weights: np.ndarray, budget: int, names: tuple[str, ...], own: np.ndarray, chip: ChipSpec
) -> str:
    largest = own[int(np.argmax(weights))]
    return (
        f"chip '{chip.name}' has {budget} arrays for weights, the network needs "
        f"{int(weights.sum())} (layer {names[largest]} alone {int(weights.max())}); valid: "
        "partition.overflow=reload, partition.layers=auto with more chips, a larger chip, or a "
        "smaller partition.activation_share"
    )
