"""Normal draws of programmed cells, and what cells with Gaussian errors hold: compiled."""

import math
from typing import Any

import numba
import numpy as np

from repast_dist.analog.kernels.noise import fill_normal
from repast_dist.analog.kernels.vectors import wide
from repast_dist.ground.rng import generator

_BLOCK = 4096
"""Draws of one row of a stream."""


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
        self._rows += -(-count // _BLOCK)
        return self._key, first

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
    for first in range(0, out.shape[0], _BLOCK):
        fill_normal(key, row + first // _BLOCK, out[first : first + _BLOCK])


def gaussian_levels(
    digits: np.ndarray,
    top: int,
    sigma: float,
    profile: tuple[float, ...],
    within: tuple[float, float],
    draws: NormalDraws,
) -> np.ndarray:
    """Return what pairs of cells with Gaussian errors hold, in levels.

    The bits are those of both sides programmed one after the other, as arrays.

    Parameters
    ----------
    digits : ndarray
        (..., M) int16, without gaps.
    top : int
        Highest level.
    sigma : float
        Standard deviation of a cell relative to the range, or what multiplies the profile.
    profile : tuple of float
        Coefficients of a polynomial in the relative conductance, the constant first; empty: 1.
    within : tuple of float
        Relative conductances that none can leave.
    draws : NormalDraws
        One draw per cell, those of positive cells first.

    Returns
    -------
    ndarray
        float64, the shape of `digits`.
    """
    levels = np.empty(digits.shape)
    key, first = draws.claim(digits.size)
    _, second = draws.claim(digits.size)
    # Coefficients as Horner's rule wants them.
    down = np.array(profile[::-1], np.float64)
    _program(digits.reshape(-1), top, sigma, down, *within, key, first, second, levels.reshape(-1))
    return levels


# Without contracted operations: the bits are those of NumPy.
@numba.njit(cache=True, nogil=True)
def _program(
    digits: np.ndarray,
    top: int,
    sigma: float,
    profile: np.ndarray,
    low: float,
    high: float,
    key: np.uint64,
    first: int,
    second: int,
    levels: np.ndarray,
) -> None:
    on, against = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32)
    highest = np.float64(top)
    for start in range(0, digits.shape[0], _BLOCK):
        count = min(_BLOCK, digits.shape[0] - start)
        fill_normal(key, first + start // _BLOCK, on[:count])
        fill_normal(key, second + start // _BLOCK, against[:count])
        part, out = digits[start : start + count], levels[start : start + count]
        if profile.shape[0]:
            for i in range(count):
                digit = np.float64(part[i])
                target, other = max(digit, 0.0) / highest, max(-digit, 0.0) / highest
                here, there = profile[0], profile[0]
                for power in range(1, profile.shape[0]):
                    here = profile[power] + here * target
                    there = profile[power] + there * other
                held = np.float64(on[i]) * (sigma * here) + target
                beside = np.float64(against[i]) * (sigma * there) + other
                out[i] = (min(max(held, low), high) - min(max(beside, low), high)) * highest
        else:
            for i in range(count):
                digit = np.float64(part[i])
                target, other = max(digit, 0.0) / highest, max(-digit, 0.0) / highest
                held = np.float64(on[i]) * sigma + target
                beside = np.float64(against[i]) * sigma + other
                out[i] = (min(max(held, low), high) - min(max(beside, low), high)) * highest


@numba.njit(cache=True, nogil=True)
def round_to_steps(levels: np.ndarray, step: float, out: np.ndarray) -> None:
    """Write multiples of a step, a power of two: (n,) of any float dtype to (n,) float32."""
    per = 1.0 / step
    for i in range(levels.shape[0]):
        out[i] = np.rint(levels[i] * per) * step


@numba.njit(cache=True, nogil=True)
def cut_into_digits(integers: np.ndarray, bits: int, digits: np.ndarray) -> None:
    """Write signed digits of so many bits, the lowest first: (K, M) float64 to (K, slices, M)."""
    mask = np.int32((1 << bits) - 1)
    for k in range(integers.shape[0]):
        for number in range(digits.shape[1]):
            low = np.int32(number * bits)
            for m in range(integers.shape[1]):
                value = np.int32(integers[k, m])
                digit = (np.int32(abs(value)) >> low) & mask
                digits[k, number, m] = -digit if value < 0 else digit


def largest_of(values: np.ndarray, enough: float = math.inf) -> float:
    """Return the largest magnitude, (n,) of any float dtype without NaN; 0 of none.

    Where one above `enough` is met, what is found may be smaller, but not below that.
    """
    largest, first = 0.0, 0
    while first < len(values) and largest <= enough:
        # Most often the first of them are enough.
        last = first + _BLOCK if enough < math.inf else len(values)
        largest = max(largest, _largest(values[first:last]))
        first = last
    return largest


@numba.njit(cache=True, nogil=True, fastmath={"nnan", "nsz"})
def _largest(values: np.ndarray) -> float:
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
