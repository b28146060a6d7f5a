"""What a kind of machine must be able to do for products on crossbars.

All kernels compute the same numbers, bit for bit. Currents are sums of whole multiples of a step,
a power of two, far below what a level is worth: their exact sum is rounded to float32 once,
whatever the order in which a unit adds.
"""

import abc
import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np

from repast_dist.analog.kernels.draws import (
    GaussianLaw,
    Stream,
    gaussian_planes,
    largest_of,
    round_to_steps,
)
from repast_dist.ground.numbers import ceil_div

LARGEST_STEPS = 127 * 256 + 127
"""Steps that a pair can hold: what two 8-bit numbers, the upper one in units of 256, reach."""

EXACT_FLOAT32 = 2.0**24
"""Whole numbers up to here are exact in float32."""


def step_of(levels: np.ndarray, most: float = math.inf) -> float:
    """Return the step for what pairs hold: the smallest power of two of which `LARGEST_STEPS` are
    enough.

    Parameters
    ----------
    levels : ndarray
        What pairs hold, in levels, any shape and float dtype.
    most : float
        What none of them exceeds, if it is known: few are then looked at.
    """
    # Whatever needs more than half of what the largest would has its step.
    enough = LARGEST_STEPS * step_for(most) / 2.0 if most < math.inf else math.inf
    return step_for(largest_of(np.ascontiguousarray(levels).reshape(-1), enough))


def step_for(largest: float) -> float:
    """Return the step for pairs of which none holds more than so many levels."""
    return 2.0 ** math.ceil(math.log2(largest / LARGEST_STEPS)) if largest > 0 else 1.0


def in_steps(levels: np.ndarray, step: float | None = None) -> np.ndarray:
    """Return what pairs hold rounded to whole steps, in levels: float32, the same shape."""
    step = step_of(levels) if step is None else step
    rounded = np.empty(levels.shape, np.float32)
    round_to_steps(np.ascontiguousarray(levels).reshape(-1), step, rounded.reshape(-1))
    return rounded


@dataclasses.dataclass(frozen=True)
class Design:
    """What products on some multipliers have in common.

    Attributes
    ----------
    rows : int
        Of a row tile.
    passes, bits : int
        Passes per input and bits per pass; pass p weighs ``2 ** (bits * p)``.
    answers : ndarray
        (digits,) what cells answer to the digits of a pass from 0 to the largest, which is the last
        one; the digits themselves where cells are linear. (K, digits) where rows differ.
    whole : bool
        Whether pairs hold whole levels.
    codes : float
        Largest ADC code.
    slice_weights : ndarray
        (slices,) float64, what one level of every slice is worth.
    read_sigma : float
        Standard deviation of what a cell appears to hold, from read to read, in levels.
    noise_codes : float
        Standard deviation of the converters' own noise, in codes.
    step : float or None
        A power of two of which what pairs hold are whole multiples, in levels; None: it is found.
    """

    rows: int
    passes: int
    bits: int
    answers: np.ndarray
    whole: bool
    codes: float
    slice_weights: np.ndarray
    read_sigma: float
    noise_codes: float
    step: float | None = None

    @property
    def top(self) -> int:
        """The largest digit."""
        return self.answers.shape[-1] - 1

    @property
    def bends(self) -> bool:
        """Whether cells answer to some digit with something else."""
        return bool((self.answers != np.arange(self.top + 1)).any())

    def of(self, rows: slice) -> "Design":
        """Return the design of some rows."""
        if self.answers.ndim == 1:
            return self
        return dataclasses.replace(self, answers=self.answers[rows])

    def step_of(self, levels: np.ndarray) -> float:
        """Return the step of what pairs hold, any shape."""
        return step_of(levels) if self.step is None else self.step

    @property
    def noisy(self) -> bool:
        """Whether cells or converters are, from read to read."""
        return bool(self.read_sigma or self.noise_codes)


class StepsDiffer(Exception):
    """Multipliers that are drawn from streams of their own need different steps."""


@dataclasses.dataclass(frozen=True)
class Kept:
    """What multipliers hold, in memory.

    Attributes
    ----------
    planes : ndarray
        (B, K, slices, M) float32 in levels.
    step : float
        A power of two of which all of them are whole multiples.
    """

    planes: np.ndarray
    step: float

    @property
    def shape(self) -> tuple[int, ...]:
        """B, K, slices, M."""
        return self.planes.shape

    def part(self, number: int, multipliers: slice) -> "Kept":
        """Return what some of the multipliers hold, which are a part of equal ones."""
        return Kept(self.planes[multipliers], self.step)


@dataclasses.dataclass(frozen=True)
class Drawn:
    """What multipliers hold whose cells have Gaussian errors, drawn where it is needed.

    Attributes
    ----------
    integers : ndarray
        (B, K, M) float64 whole numbers.
    slices, bits : int
        Slices of a whole number, and bits of a slice.
    law : GaussianLaw
        Of the cells.
    streams : tuple of Stream
        Of the draws: one of every multiplier, one of all together, or one of each of equal parts.
    most : float
        Levels that no pair exceeds.
    tiles : dict
        Row tiles and their step, by who holds them and the rows of a tile.
    """

    integers: np.ndarray
    slices: int
    bits: int
    law: GaussianLaw
    streams: tuple[Stream, ...]
    most: float
    tiles: dict[tuple[str, int], tuple[np.ndarray, float]] = dataclasses.field(
        default_factory=dict, repr=False, compare=False
    )

    @property
    def shape(self) -> tuple[int, ...]:
        """B, K, slices, M."""
        count, rows, columns = self.integers.shape
        return count, rows, self.slices, columns

    def part(self, number: int, multipliers: slice) -> "Drawn":
        """Return what those of one stream hold."""
        streams = (self.streams[number],)
        integers = self.integers[multipliers]
        return dataclasses.replace(self, integers=integers, streams=streams, tiles={})

    def step_of(self, largest: Sequence[float]) -> float:
        """Return the step for the largest magnitudes of all streams.

        Raises
        ------
        StepsDiffer
            It is not the same for all of them.
        """
        steps = {step_for(one) for one in largest}
        if len(steps) > 1:
            raise StepsDiffer
        return steps.pop()

    def written_once(
        self, kind: str, rows: int, write: Callable[[float], tuple[np.ndarray, Sequence[float]]]
    ) -> tuple[np.ndarray, float]:
        """Return row tiles and their step, which are the same for all who ask.

        Parameters
        ----------
        kind : str
            Who holds them.
        rows : int
            Rows of a tile.
        write : callable
            Step -> tiles, and the largest magnitude of every stream before rounding, in levels.
        """
        key = kind, rows
        if key not in self.tiles:
            self.tiles[key] = self._in_steps(write)
        return self.tiles[key]

    def _in_steps(
        self, write: Callable[[float], tuple[np.ndarray, Sequence[float]]]
    ) -> tuple[np.ndarray, float]:
        """Return what is written in the step that it needs, and that step."""
        step = step_for(self.most)
        held, largest = write(step)
        needed = self.step_of(largest)
        if needed != step:
            held, _ = write(needed)
        return held, needed

    @property
    def planes(self) -> np.ndarray:
        """See `Kept`."""
        return self._kept.planes

    @property
    def step(self) -> float:
        """See `Kept`."""
        return self._kept.step

    @cached_property
    def _kept(self) -> Kept:
        planes, columns = np.empty(self.shape, np.float32), self.shape[-1]
        parts = len(self.streams)
        integers = self.integers.reshape(parts, -1, columns)
        written = planes.reshape(parts, -1, self.slices, columns)

        def write(step: float) -> tuple[np.ndarray, list[float]]:
            each = zip(integers, self.streams, written, strict=True)
            return planes, [
                gaussian_planes(part, self.bits, self.law, stream, step, out)
                for part, stream, out in each
            ]

        return Kept(*self._in_steps(write))


@dataclasses.dataclass(frozen=True)
class DrawnColumns:
    """Some columns of multipliers that are drawn where it is needed.

    Attributes
    ----------
    whole : Drawn
        All columns.
    start, stop : int
        Those of weights.
    """

    whole: Drawn
    start: int
    stop: int

    @property
    def shape(self) -> tuple[int, ...]:
        """B, K, slices, M."""
        return *self.whole.shape[:-1], self.stop - self.start

    def part(self, number: int, multipliers: slice) -> "DrawnColumns":
        """Return the same columns of those of one stream."""
        return DrawnColumns(self.whole.part(number, multipliers), self.start, self.stop)

    @property
    def planes(self) -> np.ndarray:
        """See `Kept`."""
        return self.whole.planes[..., self.start : self.stop]

    @property
    def step(self) -> float:
        """See `Kept`."""
        return self.whole.step


@dataclasses.dataclass(frozen=True)
class DrawnRows:
    """The first rows of multipliers that are drawn where it is needed.

    Attributes
    ----------
    whole : Drawn or DrawnColumns
        All rows.
    count : int
        Those of them.
    """

    whole: Drawn | DrawnColumns
    count: int

    @property
    def shape(self) -> tuple[int, ...]:
        """B, K, slices, M."""
        count, _, slices, columns = self.whole.shape
        return count, self.count, slices, columns

    def part(self, number: int, multipliers: slice) -> "DrawnRows":
        """Return the same rows of those of one stream."""
        return DrawnRows(self.whole.part(number, multipliers), self.count)

    @property
    def planes(self) -> np.ndarray:
        """See `Kept`."""
        return self.whole.planes[:, : self.count]

    @property
    def step(self) -> float:
        """See `Kept`."""
        return self.whole.step


@dataclasses.dataclass(frozen=True)
class Conversions:
    """How the currents of one product are converted, or of the products of several calls at once.

    The rows of all multipliers, numbered one multiplier after the other, are those of the calls,
    one call after the other, each as many.

    Attributes
    ----------
    ranges : ndarray
        (slices,) float32 ADC full scales in levels; infinity converts whole levels without loss.
    keys : ndarray
        (row tiles, calls) uint64, streams of noise; rows of a call are numbered from 0 in its own.
    errors : ndarray
        (row tiles, 4, slices, M) float32, the converters' answers to an exact code, as
        coefficients of a polynomial, or (row tiles, 0, 0, 0) where they are exact.
    counted : ndarray
        (B, N) bool, whether the codes of a row are counted; (B, 0) counts none.
    counts : ndarray
        (calls, slices, bins + 1) int64, added to: codes in bins of equal width, and those beyond.
    least : int
        Codes up to here may all be counted in the first bin.
    """

    ranges: np.ndarray
    keys: np.ndarray
    errors: np.ndarray
    counted: np.ndarray
    counts: np.ndarray
    least: int = 0

    def rows_of_call(self, rows: int) -> int:
        """Return the rows of each call, of so many in all."""
        return max(rows // self.keys.shape[1], 1)


class Held(abc.ABC):
    """What B multipliers of one shape hold, ready for products.

    Parameters
    ----------
    shape : tuple of int
        B, K, slices, M.
    design : Design
        How each is built.

    Attributes
    ----------
    shape, design
        As given.
    per : int
        Row tiles of one multiplier; those of all are numbered one multiplier after the other.
    """

    def __init__(self, shape: tuple[int, ...], design: Design) -> None:
        self.shape, self.design = shape, design
        self.per = ceil_div(shape[1], design.rows)

    @abc.abstractmethod
    def add_products(self, integers: np.ndarray, result: np.ndarray, how: Conversions) -> int:
        """Convert the currents of all row tiles and add them, weighted, to the result; return how
        many were beyond the range.

        Parameters
        ----------
        integers : ndarray
            (B, N, K) int32 inputs without gaps.
        result : ndarray
            (B, N, M) float64 without gaps, added to, in units of whole weights times whole inputs.
        how : Conversions
            How currents are converted.
        """

    @abc.abstractmethod
    def currents(self, number: int, rows: range, integers: np.ndarray) -> np.ndarray:
        """Return the currents of one row tile in levels, (rows, passes, slices, M) float32, valid
        until the next call; some rows of (B, N, K) int32 without gaps drive it.
        """

    def total_dtype(self, ranges: np.ndarray) -> type:
        """Return what sums of codes times pass weights are exact in: float32 where they can."""
        design = self.design
        largest = design.codes * 2.0 ** (design.passes * design.bits)
        fits = not np.isinf(ranges).any() and largest < EXACT_FLOAT32
        return np.float32 if fits else np.float64

    def place(self, number: int) -> tuple[int, slice]:
        """Return the multiplier that a row tile belongs to, and its rows there."""
        which, part = divmod(number, self.per)
        first = part * self.design.rows
        return which, slice(first, min(first + self.design.rows, self.shape[1]))


type Contents = Kept | Drawn | DrawnColumns | DrawnRows
"""What multipliers of one shape hold."""


class Kernels(abc.ABC):
    """The hot path of products on one kind of machine.

    Attributes
    ----------
    name : str
        As in ``farm.kernels`` and in results.
    together_bytes : int
        What micro-batches that share products may take in memory, in inputs of all products and
        gradients: larger ones gain little from each other and do not fit into caches.
    """

    name: str
    together_bytes: int = 2**25

    @abc.abstractmethod
    def hold(self, levels: np.ndarray, design: Design) -> Held:
        """Return what multipliers hold, ready for products.

        Parameters
        ----------
        levels : ndarray
            (B, K, slices, M) float32 in levels: whole multiples of a step in every row tile.
        design : Design
            How each is built.
        """

    def draw(self, drawn: Drawn | DrawnColumns, design: Design) -> Held:
        """Return what multipliers hold of which nothing has been drawn yet, ready for products; the
        design has no step.
        """
        return self.hold(drawn.planes, dataclasses.replace(design, step=drawn.step))
