"""Lists how many arrays each layer of a chip may get, and what the layer then takes.

Times and energies come from the counts of `repast_dist.planning.layer_ops`, as those of the planned
step do.
"""

import dataclasses
import functools
import math
from collections.abc import Iterable

import numpy as np

from repast_dist.ground.numbers import ceil_div
from repast_dist.hardware.geometry import Counts
from repast_dist.hardware.hardware import Hardware
from repast_dist.hardware.specs import ChipSpec
from repast_dist.ops.op import Resource
from repast_dist.ops.pricing import duration_of, energy_of
from repast_dist.planning.allocation import LayerArrays, Needs
from repast_dist.planning.fills import input_fills, weight_fills
from repast_dist.planning.layer_ops import (
    LayerOp,
    LayerWork,
    PlacedLayers,
    serial_weight_writes,
    soi_ops,
    training_ops,
    written_copies,
)
from repast_dist.planning.path_loops import option_tables

_STEP = 1.25
"""Ratio between numbers of copies, or of parts, that are tried above the first few."""

_ALL_UP_TO = 4
_FINE = np.linspace(-1.0, 1.0, 17)
"""Powers of that ratio between which numbers are refined."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """What decides the times of options besides the layers.

    Attributes
    ----------
    arrays : int
        Arrays of the chip that are used; they are spread evenly over all its banks.
    factor_share : float
        Share of the micro-batches of a step that form factors, of the chip that has most of them.
    factor_shares : tuple of float
        The same of every kind of steps there is.
    lasting : bool
        Whether it matters how often arrays are filled.
    """

    arrays: int
    factor_share: float
    factor_shares: tuple[float, ...]
    lasting: bool


@dataclasses.dataclass(frozen=True)
class Numbers:
    """Numbers that are tried, for all layers or per layer; (1 or layers, numbers), int64.

    Attributes
    ----------
    parts : ndarray
        Parts of the weights that take turns, at least 2, descending.
    copies : ndarray
        Copies of the weights, ascending.
    fillings : ndarray
        Times that the arrays for inputs are filled, descending.
    """

    parts: np.ndarray
    copies: np.ndarray
    fillings: np.ndarray

    def take(self, place: np.ndarray) -> "Numbers":
        """Return the numbers for some layers."""
        return Numbers(*(row if len(row) == 1 else row[place] for row in vars(self).values()))

    @property
    def per_layer(self) -> list[np.ndarray]:
        """Those that differ from layer to layer."""
        return [row for row in vars(self).values() if len(row) > 1]

    @classmethod
    def broad(cls, work: LayerWork, needs: Needs) -> "Numbers":
        """Return few numbers up to all that make sense."""
        parts, copies, fillings = (
            _numbers(max(1, int(most.max())))[None]
            for most in (needs.weights, work.layers.vectors, needs.activations)
        )
        return cls(parts[:, :0:-1], copies, fillings[:, ::-1])

    @classmethod
    def near(cls, arrays: LayerArrays) -> "Numbers":
        """Return many numbers around those of arrays that layers may have."""
        parts, fillings = (
            ceil_div(need, np.maximum(given, 1))
            for need, given in ((arrays.weights, arrays.written), (arrays.activations, arrays.pool))
        )
        parts, copies, fillings = (
            np.rint(count[:, None] * _STEP**_FINE).astype(np.int64)
            for count in (parts, arrays.copies, fillings)
        )
        return cls(
            np.maximum(parts, 2)[:, ::-1],
            np.maximum(copies, 1),
            np.maximum(fillings, 1)[:, ::-1],
        )


@dataclasses.dataclass(frozen=True)
class Options:
    """Numbers of arrays that each layer may get for one purpose, in ascending order, and what they
    lead to; (layers, options). Options that do not exist have infinite times.

    Attributes
    ----------
    arrays : ndarray
        Arrays, int64.
    copies : ndarray
        Copies of the weights; 0 if they do not stay.
    seconds : ndarray
        Time per sample in the layer's forward and backward stage, in the average step and, if there
        are several kinds of steps, in those of every kind, (steps, 2, layers, options).
    writing_j : ndarray
        Energy per step of writing weights.
    fills : ndarray
        Times that a micro-batch fills the arrays anew; 0 if that does not matter.
    """

    arrays: np.ndarray
    copies: np.ndarray
    seconds: np.ndarray
    writing_j: np.ndarray
    fills: np.ndarray

    def kept(self, layers: np.ndarray) -> "Options":
        """Return the options without those in which the weights of some layers do not stay."""
        return self._without(layers[:, None] & (self.copies == 0))

    def filled(self, most: float) -> "Options":
        """Return the options without those whose arrays are filled more often."""
        return self._without(self.fills > most)

    def _without(self, gone: np.ndarray) -> "Options":
        if not gone.any():
            return self
        return dataclasses.replace(self, seconds=np.where(gone, np.inf, self.seconds))


@dataclasses.dataclass(frozen=True, eq=False)
class Candidates:
    """Numbers of arrays that each layer may get for one purpose, however many the chip uses; one
    entry per layer and option, since layers have different numbers of them.

    Attributes
    ----------
    work, needs : LayerWork, Needs
        The layer of each candidate.
    arrays : ndarray
        Arrays, int64.
    copies : ndarray
        Copies of the weights; 0 if they do not stay.
    shape : tuple of int
        Layers, and options of that which has most of them.
    place : ndarray
        Place of each candidate in flat columns of this shape, the options of a layer in ascending
        order.
    of_weights : bool
        Whether the arrays are for weights, or else for inputs.
    micro_batches : int
        Micro-batches per step of the chip that has most of them.
    writes : dict
        Counts of writing weights; of inputs none.
    """

    work: LayerWork
    needs: Needs
    arrays: np.ndarray
    copies: np.ndarray
    shape: tuple[int, int]
    place: np.ndarray
    of_weights: bool
    micro_batches: int
    writes: Counts
    _busy: dict[int, tuple[np.ndarray, np.ndarray]] = dataclasses.field(
        default_factory=dict, init=False, repr=False
    )

    @classmethod
    def for_weights(
        cls, work: LayerWork, needs: Needs, numbers: Numbers, *, copied: bool, micro_batches: int
    ) -> "Candidates":
        """Return those for weights, which may be `copied`: parts of them take turns, or whole
        copies stay.

        Parameters
        ----------
        work, needs : LayerWork, Needs
            The layers.
        numbers : Numbers
            Numbers that are tried.
        """
        need, vectors = needs.weights[:, None], np.maximum(work.layers.vectors, 1)[:, None]
        few = ceil_div(need, numbers.parts)
        copies = np.minimum(numbers.copies, vectors if copied else np.ones_like(vectors))
        real = np.concatenate([_new(few) & (few < need), _new(copies)], axis=1)
        arrays = np.concatenate([few, copies * need], axis=1)
        copies = np.concatenate([np.zeros_like(few), copies], axis=1)
        # Layers without weights have one option, no arrays.
        real &= (need > 0) | (np.cumsum(copies > 0, axis=1) == 1)
        return cls._of(work, needs, real, arrays, copies, True, micro_batches)

    @classmethod
    def for_inputs(
        cls, work: LayerWork, needs: Needs, numbers: Numbers, *, micro_batches: int
    ) -> "Candidates":
        """Return those for inputs: their arrays are filled once or more often."""
        arrays = ceil_div(needs.activations[:, None], numbers.fillings)
        return cls._of(
            work, needs, _new(arrays), arrays, np.ones_like(arrays), False, micro_batches
        )

    @classmethod
    def _of(
        cls,
        work: LayerWork,
        needs: Needs,
        real: np.ndarray,
        arrays: np.ndarray,
        copies: np.ndarray,
        of_weights: bool,
        micro_batches: int,
    ) -> "Candidates":
        """Return the `real` ones of these options, (layers, options)."""
        layer, _ = np.nonzero(real)
        before = np.cumsum(real, axis=1) - 1
        shape = len(real), max(1, int(before[:, -1].max(initial=0)) + 1)
        place = layer * shape[1] + before[real]
        own, given, few = work.take(layer), arrays[real], copies[real]
        writes = written_copies(own, np.maximum(few, 1)) if of_weights else {}
        return cls(
            own, needs.take(layer), given, few, shape, place, of_weights, micro_batches, writes
        )

    def on(self, hardware: Hardware) -> "Candidates":
        """Return the same numbers on another chip whose arrays have the same geometry."""
        return dataclasses.replace(self, work=self.work.on(hardware))

    @functools.cached_property
    def writing_j(self) -> np.ndarray:
        """Energy per step of writing weights, wherever they lie."""
        times = np.where(self.copies > 0, 1, self.micro_batches) * self.work.layers.weighted
        joules = energy_of(self.writes, self.work.hardware.costs, len(self.place))
        writing: np.ndarray = times * joules
        return writing

    def held(self, used: int | np.ndarray) -> LayerArrays:
        """Return the arrays of layers, wherever they begin, if `used` are spread over all banks;
        of the other purpose there are none.
        """
        own, copies = _Spread.of(self.arrays, used, self.work.hardware.chip), self.copies
        weights, pool = (own, _NOTHING) if self.of_weights else (_NOTHING, own)
        return _layer_arrays(self.needs, weights, copies, pool, first_bank=_NOTHING.arrays)

    def expect(self, used: Iterable[int]) -> None:
        """Time the candidates for several numbers of arrays that are used, all at once, which takes
        hardly longer than for one of them: `options` then does not.
        """
        numbers = [number for number in dict.fromkeys(used) if number not in self._busy]
        if not numbers:
            return
        placed = PlacedLayers(self.work, self.held(np.array(numbers)[:, None]))
        resources = (
            (Resource.WEIGHT_ARRAYS, Resource.DIGITAL)
            if self.of_weights
            else (Resource.ACTIVATION_ARRAYS,)
        )
        ops = training_ops(placed), soi_ops(placed) if self.work.step.second_order else []
        shape = len(numbers), len(self.place)
        known: dict[int, np.ndarray] = {}
        both = [_busy(placed.work, items, resources, shape, known) for items in ops]
        for number, *busy in zip(numbers, *both, strict=True):
            self._busy[number] = busy[0], busy[1]

    def options(self, setting: Setting) -> Options:
        """Return what the candidates lead to; those with more arrays than are used do not exist."""
        self.expect([setting.arrays])
        passing, forming = self._busy[setting.arrays]
        shares = [setting.factor_share]
        if len(setting.factor_shares) > 1:
            shares += setting.factor_shares
        arrays, copies, seconds, writing_j = option_tables(
            self.place,
            math.prod(self.shape),
            self.arrays,
            self.copies,
            passing,
            forming,
            np.array(shares),
            setting.arrays,
            self.work.step.micro_batch_size,
            self.writing_j if self.of_weights else np.zeros(0),
        )
        return Options(
            arrays.reshape(self.shape),
            copies.reshape(self.shape),
            seconds.reshape(-1, 2, *self.shape),
            writing_j.reshape(self.shape),
            self._fills(setting).reshape(self.shape),
        )

    def _fills(self, setting: Setting) -> np.ndarray:
        """Return how often options fill their arrays if that matters, as a flat column."""
        fills = np.zeros(math.prod(self.shape))
        if setting.lasting:
            held, work = self.held(setting.arrays), self.work
            filled = (
                weight_fills(work, held)
                if self.of_weights
                else input_fills(work, held, setting.factor_share)
            )
            fills[self.place] = np.where(self.arrays <= setting.arrays, filled, 0.0)
        return fills


def _new(numbers: np.ndarray) -> np.ndarray:
    """Return a mask of the first of equal numbers in ascending rows."""
    return np.diff(numbers, axis=1, prepend=-1) > 0


def _numbers(most: int) -> np.ndarray:
    """Return 1, 2, 3 and so on up to `most`, with steps that grow in proportion."""
    first = np.arange(1, min(most, _ALL_UP_TO) + 1)
    if most <= _ALL_UP_TO:
        return first
    steps = int(np.log(most / _ALL_UP_TO) / np.log(_STEP)) + 1
    grown = np.rint(_ALL_UP_TO * _STEP ** np.arange(1, steps + 1)).astype(np.int64)
    return np.unique(np.concatenate([first, np.minimum(grown, most), [most]]))


def placed_arrays(
    work: LayerWork,
    needs: Needs,
    used: int,
    given: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> LayerArrays:
    """Return where layers lie, one after the other, if `used` arrays are spread over all banks.

    Parameters
    ----------
    work, needs : LayerWork, Needs
        The layers.
    used : int
        Arrays of the chip that are used.
    given : tuple of ndarray
        Arrays for the weights of each layer, copies of them (0: they do not stay), and arrays for
        its inputs; (layers,), or (divisions, layers) for several divisions.
    """
    written, copies, pool = given
    chip, before = work.hardware.chip, np.cumsum(written, axis=-1) - written
    weights, inputs = (_Spread.of(arrays, used, chip) for arrays in (written, pool))
    return _layer_arrays(needs, weights, copies, inputs, before * chip.banks // used % chip.banks)


@dataclasses.dataclass(frozen=True)
class _Spread:
    """Arrays of layers for one purpose, and the banks and tiles over which they are spread."""

    arrays: np.ndarray
    banks: np.ndarray
    tiles: np.ndarray

    @classmethod
    def of(cls, arrays: np.ndarray, used: int | np.ndarray, chip: ChipSpec) -> "_Spread":
        """Spread arrays if `used` of them lie evenly in all banks and tiles of a chip."""
        if not arrays.any():
            one = np.ones(np.broadcast_shapes(arrays.shape, np.shape(used)), np.int64)
            return cls(arrays, one, one)
        banks, tiles = (
            np.maximum(np.minimum(ceil_div(arrays * places, used), np.minimum(arrays, places)), 1)
            for places in (chip.banks, chip.tiles)
        )
        return cls(arrays, banks, tiles)


_NOTHING = _Spread(np.zeros(1, np.int64), np.ones(1, np.int64), np.ones(1, np.int64))
"""Arrays for a purpose that is not looked at."""


def _layer_arrays(
    needs: Needs, weights: _Spread, copies: np.ndarray, inputs: _Spread, first_bank: np.ndarray
) -> LayerArrays:
    return LayerArrays(
        weights=needs.weights,
        written=weights.arrays,
        copies=np.maximum(copies, 1),
        resident=copies > 0,
        activations=needs.activations,
        pool=inputs.arrays,
        first_bank=first_bank,
        weight_banks=weights.banks,
        pool_banks=inputs.banks,
        weight_tiles=weights.tiles,
        pool_tiles=inputs.tiles,
    )


def _busy(
    work: LayerWork,
    items: Iterable[LayerOp],
    resources: tuple[Resource, ...],
    shape: tuple[int, int],
    known: dict[int, np.ndarray],
) -> np.ndarray:
    """Return the time that operations of a micro-batch keep some resources of each layer busy, in
    the forward and the backward stage, for several numbers of arrays that are used; (numbers, 2,
    resources, layers), where `shape` are numbers and layers. Operations that share their counts
    are timed once: `known` holds the durations by these, which the operations keep.
    """
    numbers, layers = shape
    busy = np.zeros((numbers, 2, len(resources), layers))
    for item in items:
        if item.what.resource in resources and item.layers.any():
            counts = item.counts
            if id(counts) not in known:
                known[id(counts)] = duration_of(counts, work.hardware.costs, shape)
            row = busy[:, int(item.what.backward), resources.index(item.what.resource)]
            np.add(row, known[id(counts)], out=row, where=item.layers)
    return busy


def weight_write_seconds(work: LayerWork, arrays: LayerArrays) -> np.ndarray:
    """Return the time in which a chip writes the weights that stay, (divisions,), of arrays of
    several divisions, (divisions, layers); those that begin in the same bank are written one after
    the other.
    """
    divisions, banks = len(arrays.written), work.hardware.chip.banks
    kept = work.layers.weighted & arrays.resident
    counts = serial_weight_writes(work, arrays)
    seconds = duration_of(counts, work.hardware.costs, kept.shape)
    place = arrays.first_bank + np.arange(divisions)[:, None] * banks
    ends = np.bincount(place.ravel(), (seconds * kept).ravel(), divisions * banks)
    longest: np.ndarray = ends.reshape(divisions, banks).max(axis=1)
    return longest
