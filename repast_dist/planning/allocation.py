"""Describes which arrays of its chip each layer has, and spreads layers over chips."""

import bisect
import dataclasses
import itertools
from collections.abc import Callable, Sequence

import numpy as np

from repast_dist.ground.errors import CapacityError
from repast_dist.hardware.geometry import array_count
from repast_dist.hardware.hardware import Hardware
from repast_dist.hardware.specs import ChipSpec
from repast_dist.planning.layers import LayerTable
from repast_dist.planning.specs import PartitionSpec, StepWork


@dataclasses.dataclass(frozen=True)
class ArrayBudget:
    """Multiplying arrays of one chip by purpose.

    Attributes
    ----------
    layers : int
        Arrays for weights, their transposes, copies of both, and the inputs of layers, which
        gradients and factors are made from.
    solvers : int
        Arrays for the residual products of the inversion.
    """

    layers: int
    solvers: int

    @classmethod
    def of(cls, chip: ChipSpec, solvers_per_bank: int) -> "ArrayBudget":
        """Divide the arrays of a chip by purpose."""
        solvers = chip.banks * solvers_per_bank
        return cls(chip.vmm_arrays - solvers, solvers)


@dataclasses.dataclass(frozen=True)
class Needs:
    """What layers need before they get arrays, with one entry per layer, int64.

    Attributes
    ----------
    weights : ndarray
        Arrays that one copy of the weights and of their transposes takes.
    activations : ndarray
        Arrays that the inputs of one micro-batch take.
    """

    weights: np.ndarray
    activations: np.ndarray

    @classmethod
    def of(cls, layers: LayerTable, hardware: Hardware, work: StepWork) -> "Needs":
        """Count the arrays."""
        g = hardware.geometry
        forward = array_count(g, layers.rows, layers.columns, layers.groups)
        backward = array_count(g, layers.columns, layers.rows, layers.groups)
        activations = array_count(g, *layers.inputs(work.micro_batch_size))
        return cls(
            np.where(layers.products, forward, 0) + np.where(layers.errors_pass, backward, 0),
            np.where(layers.products, activations, 0),
        )

    def take(self, place: np.ndarray) -> "Needs":
        """Return the needs of some layers."""
        return Needs(self.weights[place], self.activations[place])

    @property
    def held(self) -> int:
        """Arrays that hold all weights once, and inputs of every layer a part at a time."""
        return int((self.weights + np.minimum(self.activations, 1)).sum())


@dataclasses.dataclass(frozen=True)
class LayerArrays:
    """The arrays of layers, and where they are, with one entry per layer, int64 unless noted.

    Attributes
    ----------
    weights : ndarray
        Arrays that one copy of the weights and of their transposes takes.
    written : ndarray
        Arrays that the layer has for them: all copies, or fewer than one copy takes.
    copies : ndarray
        Copies of both.
    resident : ndarray of bool
        Whether the weights stay in their arrays. Other layers have fewer arrays than they need, in
        which parts of the weights take turns, and are written anew for every micro-batch.
    activations : ndarray
        Arrays that the inputs of one micro-batch take.
    pool : ndarray
        Arrays that the layer has for these inputs; they are filled as often as needed.
    first_bank : ndarray
        Bank at which the weights begin.
    weight_banks, pool_banks : ndarray
        Banks over which the weights and the inputs are spread.
    weight_tiles, pool_tiles : ndarray
        Tiles of these banks; where some banks stay empty, one may have only some in use.
    """

    weights: np.ndarray
    written: np.ndarray
    copies: np.ndarray
    resident: np.ndarray
    activations: np.ndarray
    pool: np.ndarray
    first_bank: np.ndarray
    weight_banks: np.ndarray
    pool_banks: np.ndarray
    weight_tiles: np.ndarray
    pool_tiles: np.ndarray


@dataclasses.dataclass(frozen=True)
class Allocation(LayerArrays):
    """The arrays of all layers on the chips that these are spread over.

    Attributes
    ----------
    stages : int
        Chips that the layers are spread over; 1 if every chip holds all layers.
    stage : ndarray
        Place of each layer's chip in the pipeline of chips; 0 where every chip holds all layers.
    budget : ArrayBudget
        Multiplying arrays of each chip by purpose.
    goal : float
        What was made small, on the chip where it is largest: the time per step in seconds, or the
        energy in joules.
    """

    stages: int
    stage: np.ndarray
    budget: ArrayBudget
    goal: float


# Stages ---------------------------------------------------------------------------------------

Range = tuple[int, int]
"""First layer of a stage, and first layer after it."""


def stage_ranges(
    needs: Needs,
    budget: ArrayBudget,
    partition: PartitionSpec,
    chips: int,
    cuts: Sequence[int] | None = None,
) -> tuple[int, list[Range]]:
    """Return the number of chips that the layers are spread over, and the layers of each; the last
    chips may have none. They are cut before any layer, or before some of the `cuts`.
    """
    end = len(needs.weights)
    if partition.layers == "replicate":
        return 1, [(0, end)]
    # Behind the last layer with work there is nothing to begin with.
    starts = list(range(end)) if cuts is None else [0, *(cut for cut in cuts if cut < end)]
    weights: list[int] = np.add.reduceat(needs.weights, starts).tolist()
    ends = [*starts, end]
    most = min(chips, max(1, sum(arrays > 0 for arrays in weights)))
    divisors = [count for count in range(1, most + 1) if chips % count == 0]
    if partition.layers == "auto":
        for count in divisors:
            ranges = _layers(_spread(weights, count), ends)
            if all(needs.take(np.arange(*layers)).held <= budget.layers for layers in ranges):
                return count, ranges
    return divisors[-1], _layers(_spread(weights, divisors[-1]), ends)


def _layers(ranges: Sequence[Range], ends: Sequence[int]) -> list[Range]:
    """Return the layers of ranges of groups of layers."""
    return [(ends[first], ends[last]) for first, last in ranges]


def _spread(weights: Sequence[int], stages: int) -> list[Range]:
    """Cut the layers into consecutive stages so that the largest stage needs as few arrays as
    possible.
    """
    if stages == 1:
        return [(0, len(weights))]
    largest = max(weights, default=1)
    limit = _smallest(largest, sum(weights), lambda limit: len(_filled(weights, limit)) <= stages)
    return _filled(weights, limit)


def _filled(weights: Sequence[int], limit: int) -> list[Range]:
    """Fill one stage after the other with layers, each up to a limit of arrays."""
    starts, filled = [0], 0
    for place, arrays in enumerate(weights):
        if filled and filled + arrays > limit:
            starts.append(place)
            filled = 0
        filled += arrays
    return list(itertools.pairwise([*starts, len(weights)]))


def _smallest(low: int, high: int, fits: Callable[[int], bool]) -> int:
    """Return the smallest number for which `fits` holds; `high` if none from `low` does."""
    return low + bisect.bisect_left(range(low, high), True, key=fits)


def check_fits(layers: LayerTable, needs: Needs, budget: ArrayBudget, chip: ChipSpec) -> None:
    """Refuse layers that do not all stay in the arrays of a chip.

    Raises
    ------
    CapacityError
        They do not.
    """
    if needs.held <= budget.layers:
        return
    largest = int(needs.weights.argmax())
    raise CapacityError(
        f"chip '{chip.name}' has {budget.layers} arrays for layers, the network needs "
        f"{needs.held} (layer {layers.names[largest]} alone {needs.weights[largest]}); "
        "valid: partition.overflow=reload, partition.layers=auto with more chips, or a larger chip"
    )
