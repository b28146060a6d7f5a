"""Normal draws of programmed cells, and what cells with Gaussian errors hold: compiled."""

import dataclasses
import math
from typing import Any

import numba
import numpy as np

from repast_dist.analog.kernels.noise import fill_normal
from repast_dist.analog.kernels.vectors import wide
from repast_dist.ground.rng import generator

BLOCK = 4096
"""Draws of one row of a stream."""

type Law = tuple[float, float, np.ndarray, float, float]
"""What compiled functions take of a `GaussianLaw`."""

type Stream = tuple[np.uint64, int, int]
"""A key, and the first rows of the draws of positive and of negative cells."""


class NormalDraws(np.random.Generator):
    """A generator of an address whose normal draws are compiled: about ten times as fast.

    Parameters
    ----------
    seed, *address
        See `repast_dist.ground.rng.generator`.
    """

    def __init__(self, seed: int, *address: int | str) -> None:
        stream = generator(seed, *address).bit_generator
        super().__init__(stream)
        self._key = np.uint64(stream.random_raw())
        self._rows = 0

    def claim(self, count: int) -> tuple[np.uint64, int]:
        """Return the stream's key and its first row for so many draws, which are then used up."""
        first = self._rows
        self._rows += -(-count // BLOCK)
        return self._key, first

    def stream(self, count: int) -> Stream:
        """Return where the draws of so many pairs are, those of positive cells first; they are then
        used up.
        """
        key, first = self.claim(count)
        return key, first, self.claim(count)[1]

    def standard_normal(self, size: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Return standard normal draws: float64 of a shape, or one number."""
        if args or kwargs:
            raise TypeError("draws of programmed cells have a shape and are float64")
        shape = () if size is None else size
        drawn = np.empty(shape, np.float32)
        _fill(*self.claim(drawn.size), drawn.reshape(-1))
        return float(drawn) if size is None else drawn.astype(np.float64)


@numba.njit(cache=True, nogil=True)
def _fill(key: np.uint64, row: int, out: np.ndarray) -> None:
    for first in range(0, out.shape[0], BLOCK):
        fill_normal(key, row + first // BLOCK, out[first : first + BLOCK])


@dataclasses.dataclass(frozen=True)
class GaussianLaw:
    """What cells with Gaussian errors hold right after they have been programmed.

    Attributes
    ----------
    top : int
        Highest level.
    sigma : float
        Standard deviation of a cell relative to the range, or what multiplies the profile.
    profile : tuple of float
        Coefficients of a polynomial in the relative conductance, the constant first; empty: 1.
    low, high : float
        Relative conductances that no cell can leave.
    """

    top: int
    sigma: float
    profile: tuple[float, ...]
    low: float
    high: float

    @property
    def numbers(self) -> Law:
        """What compiled functions take, coefficients as Horner's rule wants them."""
        down = np.array(self.profile[::-1], np.float64)
        return float(self.top), self.sigma, down, self.low, self.high


def gaussian_levels(digits: np.ndarray, law: GaussianLaw, draws: NormalDraws) -> np.ndarray:
    """Return what pairs of cells with Gaussian errors hold, in levels.

    The bits are those of both sides programmed one after the other, as arrays.

    Parameters
    ----------
    digits : ndarray
        (..., M) int16, without gaps.
    law : GaussianLaw
        Of the cells.
    draws : NormalDraws
        One draw per cell, those of positive cells first.

    Returns
    -------
    ndarray
        float64, the shape of `digits`.
    """
    levels = np.empty(digits.shape)
    stream = draws.stream(digits.size)
    _program_digits(digits.reshape(-1), law.numbers, stream, levels.reshape(-1))
    return levels


def gaussian_planes(
    integers: np.ndarray,
    bits: int,
    law: GaussianLaw,
    stream: Stream,
    step: float,
    planes: np.ndarray,
) -> float:
    """Write what pairs of cells with Gaussian errors hold of whole numbers, rounded to steps.

    The numbers are those of `cut_into_digits`, `gaussian_levels` and `round_to_steps`, of which
    nothing goes through memory.

    Parameters
    ----------
    integers : ndarray
        (K, M) float64 whole numbers.
    bits : int
        Of a slice.
    law : GaussianLaw
        Of the cells.
    stream : Stream
        Of the draws.
    step : float
        A power of two, in levels.
    planes : ndarray
        (K, slices, M) float32, written.

    Returns
    -------
    float
        The largest magnitude before rounding, in levels.
    """
    return float(_program(integers, bits, law.numbers, stream, step, planes))


@numba.njit(cache=True, nogil=True)
def _program_digits(
    digits: np.ndarray,
    law: Law,
    stream: Stream,
    levels: np.ndarray,
) -> None:
    key, first, second = stream
    on, against = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    for start in range(0, digits.shape[0], BLOCK):
        count = min(BLOCK, digits.shape[0] - start)
        fill_normal(key, first + start // BLOCK, on[:count])
        fill_normal(key, second + start // BLOCK, against[:count])
        _add_errors(digits[start : start + count], on, against, law, levels[start : start + count])


@numba.njit(cache=True, nogil=True)
def _program(
    integers: np.ndarray,
    bits: int,
    law: Law,
    stream: Stream,
    step: float,
    planes: np.ndarray,
) -> float:
    cells, slices = planes.reshape(-1), planes.shape[1]
    room, largest = block_room(), 0.0
    for start in range(0, cells.shape[0], BLOCK):
        levels = draw_block(integers, slices, bits, law, stream, start, room)
        largest = max(largest, largest_in(levels))
        round_to_steps(levels, step, cells[start : start + levels.shape[0]])
    return largest


@numba.njit(cache=True, nogil=True)
def block_room() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return scratch of `draw_block`: draws of both sides, digits and levels."""
    on, against = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    return on, against, np.empty(BLOCK, np.int16), np.empty(BLOCK)


@numba.njit(cache=True, nogil=True)
def draw_block(
    integers: np.ndarray,
    slices: int,
    bits: int,
    law: Law,
    stream: Stream,
    start: int,
    room: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
) -> np.ndarray:
    """Return what up to `BLOCK` pairs hold, float64 in levels, valid until the next call.

    Parameters
    ----------
    integers : ndarray
        (K, M) float64 whole numbers; pairs are numbered as in (K, slices, M).
    slices, bits : int
        Slices of a whole number, and bits of a slice.
    law, stream
        As a `GaussianLaw` has its numbers, and as `NormalDraws.stream` returns it.
    start : int
        The first pair, a multiple of `BLOCK`.
    room : tuple of ndarray
        See `block_room`.
    """
    on, against, digits, levels = room
    columns = integers.shape[1]
    count = min(BLOCK, integers.shape[0] * slices * columns - start)
    at = 0
    while at < count:
        line, m = divmod(start + at, columns)
        k, number = divmod(line, slices)
        some = min(columns - m, count - at)
        _cut(integers[k, m : m + some], bits, number, digits[at : at + some])
        at += some
    key, first, second = stream
    fill_normal(key, first + start // BLOCK, on[:count])
    fill_normal(key, second + start // BLOCK, against[:count])
    _add_errors(digits[:count], on, against, law, levels[:count])
    return levels[:count]


# Without contracted operations: the bits are those of NumPy.
@numba.njit(cache=True, nogil=True)
def _add_errors(
    digits: np.ndarray,
    on: np.ndarray,
    against: np.ndarray,
    law: Law,
    levels: np.ndarray,
) -> None:
    wide()
    top, sigma, profile, low, high = law
    if profile.shape[0]:
        for i in range(digits.shape[0]):
            share = np.float64(digits[i]) / top
            target, other = max(share, 0.0), max(-share, 0.0)
            here, there = profile[0], profile[0]
            for power in range(1, profile.shape[0]):
                here = profile[power] + here * target
                there = profile[power] + there * other
            held = np.float64(on[i]) * (sigma * here) + target
            beside = np.float64(against[i]) * (sigma * there) + other
            levels[i] = (min(max(held, low), high) - min(max(beside, low), high)) * top
    else:
        for i in range(digits.shape[0]):
            share = np.float64(digits[i]) / top
            target, other = max(share, 0.0), max(-share, 0.0)
            held = np.float64(on[i]) * sigma + target
            beside = np.float64(against[i]) * sigma + other
            levels[i] = (min(max(held, low), high) - min(max(beside, low), high)) * top


@numba.njit(cache=True, nogil=True)
def round_to_steps(levels: np.ndarray, step: float, out: np.ndarray) -> None:
    """Write multiples of a step, a power of two: (n,) of any float dtype to (n,) float32."""
    wide()
    per = 1.0 / step
    for i in range(levels.shape[0]):
        out[i] = np.rint(levels[i] * per) * step


@numba.njit(cache=True, nogil=True)
def cut_into_digits(integers: np.ndarray, bits: int, digits: np.ndarray) -> None:
    """Write signed digits of so many bits, the lowest first: (K, M) float64 to (K, slices, M)."""
    for k in range(integers.shape[0]):
        for number in range(digits.shape[1]):
            _cut(integers[k], bits, number, digits[k, number])


@numba.njit(cache=True, nogil=True)
def _cut(integers: np.ndarray, bits: int, number: int, digits: np.ndarray) -> None:
    wide()
    mask, low = np.int32((1 << bits) - 1), np.int32(number * bits)
    for m in range(integers.shape[0]):
        value = np.int32(integers[m])
        digit = (np.int32(abs(value)) >> low) & mask
        digits[m] = -digit if value < 0 else digit


def largest_of(values: np.ndarray, enough: float = math.inf) -> float:
    """Return the largest magnitude, (n,) of any float dtype without NaN; 0 of none.

    Where one above `enough` is met, what is found may be smaller, but not below that.
    """
    largest, first = 0.0, 0
    while first < len(values) and largest <= enough:
        # Most often the first of them are enough.
        last = first + BLOCK if enough < math.inf else len(values)
        largest = max(largest, largest_in(values[first:last]))
        first = last
    return largest


@numba.njit(cache=True, nogil=True, fastmath={"nnan", "nsz"})
def largest_in(values: np.ndarray) -> float:
    """Return the largest magnitude, (n,) of any float dtype without NaN, at least one."""
    wide()
    largest = abs(values[0])
    for i in range(values.shape[0]):
        largest = max(largest, abs(values[i]))
    return float(largest)


@numba.njit(cache=True, nogil=True)
def round_quotients(values: np.ndarray, scales: np.ndarray, integers: np.ndarray) -> None:
    """Write ``rint(values / scales)``, (B, K, M) float64 over (B,)."""
    wide()
    for b in range(values.shape[0]):
        for k in range(values.shape[1]):
            for m in range(values.shape[2]):
                integers[b, k, m] = np.rint(values[b, k, m] / scales[b])
