"""Gives every layer its arrays: for its weights, for copies of them, and for its inputs."""

import bisect
import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence

import numpy as np

from repast_dist.ground.errors import CapacityError
from repast_dist.ground.numbers import ceil_div
from repast_dist.hardware.geometry import array_count
from repast_dist.hardware.hardware import Hardware
from repast_dist.hardware.specs import ChipSpec
from repast_dist.planning.layers import LayerTable
from repast_dist.planning.specs import PartitionSpec, StepWork

_TURNS_SHARE = 0.25
"""Share of the weights' arrays in which layers take turns when not all fit."""

_COPIES_ROOM = 2
"""A layer stays in its arrays only if this many times its arrays are free: early layers need room
for copies.
"""


@dataclasses.dataclass(frozen=True)
class ArrayBudget:
    """Multiplying arrays of one chip by purpose.

    Attributes
    ----------
    weights : int
        Arrays for weights, their transposes, and copies of both.
    activations : int
        Arrays for the inputs of layers, which gradients and factors are made from.
    solvers : int
        Arrays for the residual products of the inversion.
    """

    weights: int
    activations: int
    solvers: int

    @classmethod
    def of(cls, chip: ChipSpec, partition: PartitionSpec, *, second_order: bool) -> "ArrayBudget":
        """Divide the arrays of a chip by purpose; only second-order methods keep arrays for
        solvers.
        """
        solvers = chip.residual_arrays if second_order else 0
        activations = max(1, int(chip.vmm_arrays * partition.activation_share))
        weights = max(1, chip.vmm_arrays - solvers - activations)
        return cls(weights, activations, solvers)

    @property
    def turns(self) -> int:
        """Those of the weights' arrays in which layers take turns if not all of them fit."""
        return max(1, int(self.weights * _TURNS_SHARE))


@dataclasses.dataclass(frozen=True)
class LayerArrays:
    """The arrays of one layer, and where they are.

    Attributes
    ----------
    stage : int
        Place of the layer's chip in the pipeline of chips; 0 where every chip holds all layers.
    weights : int
        Arrays that one copy of the weights and of their transposes takes.
    copies : int
        Copies of both.
    resident : bool
        Whether the weights stay in their arrays; other layers are written anew for every
        micro-batch.
    rounds : int
        Parts of the weights that take turns in the arrays they get; 1 where all fit at once.
    activations : int
        Arrays that the inputs of one micro-batch take.
    pool : int
        Arrays that the layer has for these inputs; they are filled as often as needed.
    first_bank : int
        Bank at which the weights begin.
    weight_banks, pool_banks : int
        Banks over which the weights and the inputs are spread.
    """

    stage: int
    weights: int
    copies: int
    resident: bool
    rounds: int
    activations: int
    pool: int
    first_bank: int
    weight_banks: int
    pool_banks: int


def _column(name: str, dtype: type = np.int64) -> functools.cached_property[np.ndarray]:
    """Make a property that returns one field of all layers as an array."""

    def read(allocation: "Allocation") -> np.ndarray:
        return np.array([getattr(layer, name) for layer in allocation.layers], dtype)

    return functools.cached_property(read)


@dataclasses.dataclass(frozen=True)
class Allocation:
    """The arrays of all layers. Counting uses the columns, which are the fields of `LayerArrays`.

    Attributes
    ----------
    stages : int
        Chips that the layers are spread over; 1 if every chip holds all layers.
    layers : tuple of LayerArrays
        One record per layer.
    budget : ArrayBudget
        Multiplying arrays of each chip by purpose.
    """

    stages: int
    layers: tuple[LayerArrays, ...]
    budget: ArrayBudget

    stage = _column("stage")
    weights = _column("weights")
    copies = _column("copies")
    resident = _column("resident", np.bool_)
    rounds = _column("rounds")
    activations = _column("activations")
    pool = _column("pool")
    first_bank = _column("first_bank")
    weight_banks = _column("weight_banks")
    pool_banks = _column("pool_banks")


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
        Shares of the arrays, spreading over chips, overflow and copies.
    work : StepWork
        Chips at hand and samples of a micro-batch; second-order methods keep arrays for solvers.

    Raises
    ------
    CapacityError
        The layers do not fit and ``partition.overflow`` is ``error``.
    """
    budget = ArrayBudget.of(hardware.chip, partition, second_order=work.second_order)
    needs = _layer_needs(layers, hardware, work)
    stages, ranges = _stage_ranges(needs, budget, partition, work.chips)
    placed = [
        _place_stage(number, needs[start:stop], budget, partition, hardware.chip)
        for number, (start, stop) in enumerate(ranges)
    ]
    return Allocation(stages, tuple(itertools.chain.from_iterable(placed)), budget)


@dataclasses.dataclass(frozen=True)
class _Need:
    """The arrays that a layer needs for one copy of its weights and for its inputs, and what makes
    its products long: its input vectors per sample and its output columns.
    """

    name: str
    weights: int
    activations: int
    vectors: int
    columns: int


def _layer_needs(layers: LayerTable, hardware: Hardware, work: StepWork) -> list[_Need]:
    g, held = hardware.geometry, work.micro_batch_size * layers.vectors
    forward = array_count(g, layers.rows, layers.columns, layers.groups)
    backward = array_count(g, layers.columns, layers.rows, layers.groups)
    activations = array_count(g, held, layers.rows + layers.bias, layers.groups)
    weights = np.where(layers.products, forward, 0) + np.where(layers.errors_pass, backward, 0)
    columns = (weights, np.where(layers.weighted, activations, 0), layers.vectors, layers.columns)
    rows = zip(layers.names, *(column.tolist() for column in columns), strict=True)
    return [_Need(*row) for row in rows]


# Stages ---------------------------------------------------------------------------------------

_Range = tuple[int, int]
"""First layer of a stage, and first layer after it."""


def _stage_ranges(
    needs: Sequence[_Need], budget: ArrayBudget, partition: PartitionSpec, chips: int
) -> tuple[int, list[_Range]]:
    """Return the number of chips that the layers are spread over, and the layers of each; the last
    chips may have none.
    """
    weights = [need.weights for need in needs]
    if partition.layers == "replicate":
        return 1, [(0, len(weights))]
    most = min(chips, max(1, sum(arrays > 0 for arrays in weights)))
    divisors = [count for count in range(1, most + 1) if chips % count == 0]
    if partition.layers == "auto":
        for count in divisors:
            ranges = _spread(weights, count)
            if max(sum(weights[slice(*layers)]) for layers in ranges) <= budget.weights:
                return count, ranges
    return divisors[-1], _spread(weights, divisors[-1])


def _spread(weights: Sequence[int], stages: int) -> list[_Range]:
    """Cut the layers into consecutive stages so that the largest stage needs as few arrays as
    possible.
    """
    if stages == 1:
        return [(0, len(weights))]
    largest = max(weights, default=1)
    limit = _smallest(largest, sum(weights), lambda limit: len(_filled(weights, limit)) <= stages)
    return _filled(weights, limit)


def _filled(weights: Sequence[int], limit: int) -> list[_Range]:
    """Fill one stage after the other with layers, each up to a limit of arrays."""
    starts, filled = [0], 0
    for place, arrays in enumerate(weights):
        if filled and filled + arrays > limit:
            starts.append(place)
            filled = 0
        filled += arrays
    return list(itertools.pairwise([*starts, len(weights)]))


# One stage ------------------------------------------------------------------------------------


def _place_stage(
    stage: int,
    needs: Sequence[_Need],
    budget: ArrayBudget,
    partition: PartitionSpec,
    chip: ChipSpec,
) -> list[LayerArrays]:
    """Give the layers of one chip their arrays, one layer after the other."""
    stays = _stays(needs, budget, partition, chip)
    copies = _copies(needs, stays, budget, partition)
    pools = _pools(needs, budget.activations)
    placed, taken = [], 0
    for need, resident, count, pool in zip(needs, stays, copies, pools, strict=True):
        written = need.weights * count if resident else budget.turns
        placed.append(
            LayerArrays(
                stage=stage,
                weights=need.weights,
                copies=count,
                resident=resident,
                rounds=1 if resident else ceil_div(need.weights, budget.turns),
                activations=need.activations,
                pool=pool,
                first_bank=taken // chip.vmm.arrays_per_bank % chip.banks,
                weight_banks=_banks(written, chip),
                pool_banks=_banks(pool, chip),
            )
        )
        taken += written if resident else 0
    return placed


def _banks(arrays: int, chip: ChipSpec) -> int:
    return min(max(ceil_div(arrays, chip.vmm.arrays_per_bank), 1), chip.banks)


def _stays(
    needs: Sequence[_Need], budget: ArrayBudget, partition: PartitionSpec, chip: ChipSpec
) -> list[bool]:
    """Choose the layers whose weights stay in their arrays: all of them if they fit.

    Otherwise layers with many vectors per sample are preferred, since copies of them shorten the
    pipeline, and writing an array costs the same for all layers.

    Raises
    ------
    CapacityError
        The layers do not fit, and the settings do not allow that they take turns.
    """
    if sum(need.weights for need in needs) <= budget.weights:
        return [True] * len(needs)
    if partition.overflow == "error":
        raise CapacityError(_too_large(needs, budget, chip))
    stays, held = [False] * len(needs), 0
    for place in sorted(range(len(needs)), key=lambda n: (-needs[n].vectors, needs[n].weights)):
        weights = needs[place].weights
        if held + weights * _COPIES_ROOM <= budget.weights - budget.turns:
            stays[place] = True
            held += weights
    return stays


def _too_large(needs: Sequence[_Need], budget: ArrayBudget, chip: ChipSpec) -> str:
    largest = max(needs, key=lambda need: need.weights)
    return (
        f"chip '{chip.name}' has {budget.weights} arrays for weights, the network needs "
        f"{sum(need.weights for need in needs)} (layer {largest.name} alone {largest.weights}); "
        "valid: partition.overflow=reload, partition.layers=auto with more chips, a larger chip, "
        "or a smaller partition.activation_share"
    )


def _copies(
    needs: Sequence[_Need], stays: Sequence[bool], budget: ArrayBudget, partition: PartitionSpec
) -> list[int]:
    """Choose the copies of the layers that stay so that the busiest copy has as few vectors as the
    arrays allow; other layers are not copied.
    """
    kept = [need for need, resident in zip(needs, stays, strict=True) if resident]
    copies = np.ones(len(needs), np.int64)
    if partition.replicate_layers and kept:
        weights = np.array([need.weights for need in kept])
        work = np.array([need.vectors if need.weights else 1 for need in kept])
        free = budget.weights - (0 if all(stays) else budget.turns)
        most = _smallest(
            1, int(work.max()), lambda most: (weights * ceil_div(work, most)).sum() <= free
        )
        copies[np.array(stays)] = ceil_div(work, most)
    counts: list[int] = copies.tolist()
    return counts


def _pools(needs: Sequence[_Need], arrays: int) -> list[int]:
    """Divide arrays among the inputs of layers so that the longest gradient product is as short as
    possible.

    The errors of a layer drive its arrays once per output and filling: ``columns * needed / pool``
    vectors. Each layer gets at least one array if it needs any, and at most what it needs.
    """
    needed = np.array([need.activations for need in needs], np.int64)
    if needed.sum() > arrays:
        work = needed * np.array([need.columns for need in needs], np.int64)
        longest = _smallest(
            1,
            int(work.max()),
            lambda longest: np.minimum(needed, ceil_div(work, longest)).sum() <= arrays,
        )
        needed = np.minimum(needed, ceil_div(work, longest))
    pools: list[int] = needed.tolist()
    return pools


def _smallest(low: int, high: int, fits: Callable[[int], bool]) -> int:
    """Return the smallest number for which `fits` holds; `high` if none from `low` does."""
    return low + bisect.bisect_left(range(low, high), True, key=fits)
