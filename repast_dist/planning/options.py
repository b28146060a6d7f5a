"""Lists how many arrays each layer of a chip may get, and what the layer then takes.

Times and energies come from the counts of `repast_dist.planning.layer_ops`, as those of the planned
step do.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np

from repast_dist.ground.numbers import ceil_div
from repast_dist.ops.op import Resource
from repast_dist.ops.pricing import duration_of, energy_of
from repast_dist.planning.allocation import LayerArrays, Needs
from repast_dist.planning.fills import input_fills, weight_fills
from repast_dist.planning.layer_ops import LayerOp, LayerWork, soi_ops, training_ops, weight_writes

_STEP = 1.25
"""Ratio between numbers of copies, or of parts, that are tried above the first few."""

_ALL_UP_TO = 4
_FINE = np.linspace(-1.0, 1.0, 17)
"""Powers of that ratio between which numbers are refined."""

NEVER = 2**40
"""Arrays of an option that does not exist."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """What decides the times of options besides the layers.

    Attributes
    ----------
    arrays : int
        Arrays of the chip that are used; they are spread evenly over all its banks.
    copied : bool
        Whether layers may be copied.
    factor_share : float
        Share of the micro-batches of a step that form factors, of the chip that has most of them.
    factor_shares : tuple of float
        The same of every kind of steps there is.
    micro_batches : int
        Micro-batches per step of the chip that has most of them.
    lasting : bool
        Whether it matters how often arrays are filled.
    """

    arrays: int
    copied: bool
    factor_share: float
    factor_shares: tuple[float, ...]
    micro_batches: int
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
    forward_s, backward_s : ndarray
        Time per sample in the layer's forward and backward stage.
    kinds_s : ndarray
        The same in every kind of steps, (kinds, 2, layers, options).
    writing_j : ndarray
        Energy per step of writing weights.
    fills : ndarray
        Times that a micro-batch fills the arrays anew; 0 if that does not matter.
    """

    arrays: np.ndarray
    copies: np.ndarray
    forward_s: np.ndarray
    backward_s: np.ndarray
    kinds_s: np.ndarray
    writing_j: np.ndarray
    fills: np.ndarray

    @property
    def slower_s(self) -> np.ndarray:
        """Time per sample in the slower of both stages."""
        slower: np.ndarray = np.maximum(self.forward_s, self.backward_s)
        return slower

    def kept(self, layers: np.ndarray) -> "Options":
        """Return the options without those in which the weights of some layers do not stay."""
        return self._without(layers[:, None] & (self.copies == 0))

    def filled(self, most: float) -> "Options":
        """Return the options without those whose arrays are filled more often."""
        return self._without(self.fills > most)

    def _without(self, gone: np.ndarray) -> "Options":
        return dataclasses.replace(
            self,
            forward_s=np.where(gone, np.inf, self.forward_s),
            backward_s=np.where(gone, np.inf, self.backward_s),
        )


def weight_options(work: LayerWork, needs: Needs, setting: Setting, numbers: Numbers) -> Options:
    """Return the options for weights: parts of them take turns, or whole copies stay.

    Parameters
    ----------
    work, needs : LayerWork, Needs
        The layers, with columns of the shape (layers, 1).
    setting : Setting
        What decides times besides.
    numbers : Numbers
        Numbers that are tried.
    """
    need, vectors = needs.weights, np.maximum(work.layers.vectors, 1)
    few = ceil_div(need, numbers.parts)
    copies = np.minimum(numbers.copies, vectors if setting.copied else np.ones_like(vectors))
    real = np.concatenate([_new(few) & (few < need), _new(copies)], axis=1)
    arrays = np.concatenate([few, copies * need], axis=1)
    copies = np.concatenate([np.zeros_like(few), copies], axis=1)
    # Layers without weights have one option, no arrays.
    real &= (need > 0) | (np.cumsum(copies > 0, axis=1) == 1)
    real &= arrays <= setting.arrays
    return _evaluated(work, needs, setting, arrays, copies, real, of_weights=True)


def pool_options(work: LayerWork, needs: Needs, setting: Setting, numbers: Numbers) -> Options:
    """Return the options for inputs: their arrays are filled once or more often; parameters are
    those of `weight_options`.
    """
    arrays = ceil_div(needs.activations, numbers.fillings)
    real = _new(arrays) & (arrays <= setting.arrays)
    copies = np.ones_like(arrays)
    return _evaluated(work, needs, setting, arrays, copies, real, of_weights=False)


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


def _evaluated(
    work: LayerWork,
    needs: Needs,
    setting: Setting,
    arrays: np.ndarray,
    copies: np.ndarray,
    real: np.ndarray,
    *,
    of_weights: bool,
) -> Options:
    """Return options with the times and energies of the `real` ones."""
    none = np.zeros_like(needs.weights)
    given = (arrays, copies, none) if of_weights else (none, none, arrays)
    held = _held_arrays(work, needs, setting.arrays, given, none)
    kept_busy = (
        (Resource.WEIGHT_ARRAYS, Resource.DIGITAL) if of_weights else (Resource.ACTIVATION_ARRAYS,)
    )
    shares = setting.factor_share, *setting.factor_shares
    passing, forming = (
        _busy(work, ops, kept_busy, real.shape)
        for ops in (training_ops(work, held), soi_ops(work, held) if max(shares) else [])
    )
    busy = np.stack([(passing + share * forming).max(axis=1) for share in shares])
    seconds = np.where(real, busy / work.step.micro_batch_size, np.inf)
    forward_s, backward_s = seconds[0]
    writing, fills = np.zeros((2, *real.shape))
    if of_weights:
        writing = np.where(real, _writing_j(work, held, setting.micro_batches, real.shape), 0.0)
    if setting.lasting:
        share = setting.factor_share
        filled = weight_fills(work, held) if of_weights else input_fills(work, held, share)
        fills = np.where(real, filled, 0.0)
    arrays = np.where(real, arrays, NEVER)
    return Options(arrays, copies, forward_s, backward_s, seconds[1:], writing, fills)


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
    written, banks = given[0], work.hardware.chip.banks
    before = np.cumsum(written, axis=-1) - written
    return _held_arrays(work, needs, used, given, before * banks // used % banks)


def _held_arrays(
    work: LayerWork,
    needs: Needs,
    used: int,
    given: tuple[np.ndarray, np.ndarray, np.ndarray],
    first_bank: np.ndarray,
) -> LayerArrays:
    """Return arrays whose weights begin at some bank, if `used` are spread over all banks."""
    written, copies, pool = given
    banks = work.hardware.chip.banks
    return LayerArrays(
        weights=needs.weights,
        written=written,
        copies=np.maximum(copies, 1),
        resident=copies > 0,
        activations=needs.activations,
        pool=pool,
        first_bank=first_bank,
        weight_banks=_banks(written, used, banks),
        pool_banks=_banks(pool, used, banks),
    )


def _banks(arrays: np.ndarray, used: int, banks: int) -> np.ndarray:
    """Return the banks over which arrays are spread if `used` arrays fill all banks evenly."""
    share = np.minimum(ceil_div(arrays * banks, used), np.minimum(arrays, banks))
    return np.maximum(share, 1)


def _busy(
    work: LayerWork,
    items: Iterable[LayerOp],
    resources: tuple[Resource, ...],
    shape: tuple[int, ...],
) -> np.ndarray:
    """Return the time that operations of a micro-batch keep some resources of each layer busy, in
    the forward and the backward stage; (2, resources, *shape).
    """
    busy = np.zeros((2, len(resources), *shape))
    for item in items:
        if item.what.resource in resources:
            seconds = duration_of(item.counts, work.hardware.costs, shape)
            place = int(item.what.backward), resources.index(item.what.resource)
            busy[place] += seconds * item.layers
    return busy


def _writing_j(
    work: LayerWork, arrays: LayerArrays, micro_batches: int, shape: tuple[int, ...]
) -> np.ndarray:
    """Return the energy per step of writing the weights of layers."""
    times = np.where(arrays.resident, 1, micro_batches) * work.layers.weighted
    counts = weight_writes(work, arrays, arrays.copies)
    return times * energy_of(counts, work.hardware.costs, shape)


def weight_write_seconds(work: LayerWork, arrays: LayerArrays) -> np.ndarray:
    """Return the time in which a chip writes the weights that stay, (divisions,), of arrays of
    several divisions, (divisions, layers); those that begin in the same bank are written one after
    the other.
    """
    divisions, banks = len(arrays.written), work.hardware.chip.banks
    kept = work.layers.weighted & arrays.resident
    counts = weight_writes(work, arrays, arrays.copies)
    seconds = duration_of(counts, work.hardware.costs, kept.shape)
    place = arrays.first_bank + np.arange(divisions)[:, None] * banks
    ends = np.bincount(place.ravel(), (seconds * kept).ravel(), divisions * banks)
    longest: np.ndarray = ends.reshape(divisions, banks).max(axis=1)
    return longest
