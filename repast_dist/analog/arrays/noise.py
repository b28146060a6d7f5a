"""Normal draws for read noise: a counter-based generator that runs in vector registers.

A row of draws is a function of its 64-bit key and of the place in the row, so that what a sample
draws depends on its address alone: not on chunks, threads or the order of calls. Words come from a
32-bit mixing hash (three multiply and xor-shift rounds), pairs of them from the Box-Muller
transform with polynomials for logarithm, sine and cosine (errors below 1e-5, tails to 5.8 standard
deviations).
"""

import numba
import numpy as np

_KEEP = {"contract", "nsz"}
LOG = (
    0.405465287, 0.66666656, -0.222245083, 0.0987790351,
    -0.0489324161, 0.0260695873, -0.0174050234, 0.0100092896,
)  # fmt: skip
"""ln(3/2 + t) for abs(t) <= 1/2: Chebyshev interpolation of degree 7, error below 3e-7."""


@numba.njit(cache=True, nogil=True)
def row_key(key: np.uint64, row: int) -> np.uint64:
    """Return the key of one row of a stream (the finaliser of SplitMix64, Steele et al., 2014)."""
    word = np.uint64(key) + np.uint64(row) * np.uint64(0x9E3779B97F4A7C15)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


@numba.njit(cache=True, nogil=True, fastmath=_KEEP)
def fill_normal(key: np.uint64, out: np.ndarray) -> None:
    """Fill a row with standard normal float32 draws.

    Parameters
    ----------
    key : uint64
        See `row_key`.
    out : ndarray
        (M,) float32, written.
    """
    columns = out.shape[0]
    half = (columns + 1) // 2
    low = np.uint32(key & np.uint64(0xFFFFFFFF))
    high = np.uint32(key >> np.uint64(32))
    for m in range(columns - half):
        radius, cosine, sine = _pair(low, high, m)
        out[m] = radius * cosine
        out[half + m] = radius * sine
    if columns % 2:
        radius, cosine, _ = _pair(low, high, half - 1)
        out[half - 1] = radius * cosine


@numba.njit(cache=True, nogil=True)
def fill_rows(key: np.uint64, numbers: np.ndarray, out: np.ndarray) -> None:
    """Fill rows of a stream: (N,) int64 numbers of rows, (N, M) float32 written."""
    for n in range(numbers.shape[0]):
        fill_normal(row_key(key, numbers[n]), out[n])


@numba.njit(inline="always", fastmath=_KEEP)
def _mix(word: np.uint32) -> np.uint32:
    word = np.uint32(word ^ (word >> np.uint32(17)))
    word = np.uint32(word * np.uint32(0xED5AD4BB))
    word = np.uint32(word ^ (word >> np.uint32(11)))
    word = np.uint32(word * np.uint32(0xAC4C1B51))
    word = np.uint32(word ^ (word >> np.uint32(15)))
    word = np.uint32(word * np.uint32(0x31848BAB))
    return np.uint32(word ^ (word >> np.uint32(14)))


@numba.njit(inline="always", fastmath=_KEEP)
def _pair(low: np.uint32, high: np.uint32, m: int) -> tuple[np.float32, np.float32, np.float32]:
    counter = np.uint32(m)
    first = _mix(np.uint32(counter ^ low))
    second = _mix(np.uint32(np.uint32(counter + np.uint32(0x9E3779B9)) ^ high))
    # -2 ln u for u = (k + 1/2) / 2^24: exponent and mantissa of the float apart.
    whole = np.float32(np.int32(first >> np.uint32(8))) + np.float32(0.5)
    pattern = np.float32(whole).view(np.int32)
    exponent = np.float32((pattern >> np.int32(23)) - np.int32(127 + 24))
    mantissa = np.int32((pattern & np.int32(0x7FFFFF)) | np.int32(0x3F800000)).view(np.float32)
    radius = np.sqrt(max(np.float32(-2.0) * _log(exponent, mantissa), np.float32(0.0)))
    # An angle in (-pi/2, pi/2) and a sign for its cosine cover the circle.
    angle = np.float32(np.int32(second)) * np.float32(np.pi / 2.0**32)
    square = angle * angle
    sine = angle * _sine(square)
    cosine = _cosine(square)
    sign = np.float32(1.0) - np.float32(np.int32(first & np.uint32(1))) * np.float32(2.0)
    return radius, sign * cosine, sine


@numba.njit(inline="always", fastmath=_KEEP)
def _log(exponent: np.float32, mantissa: np.float32) -> np.float32:
    """ln(mantissa * 2^exponent), mantissa in [1, 2)."""
    t = mantissa - np.float32(1.5)
    value = np.float32(LOG[7])
    value = value * t + np.float32(LOG[6])
    value = value * t + np.float32(LOG[5])
    value = value * t + np.float32(LOG[4])
    value = value * t + np.float32(LOG[3])
    value = value * t + np.float32(LOG[2])
    value = value * t + np.float32(LOG[1])
    value = value * t + np.float32(LOG[0])
    return value + exponent * np.float32(0.6931471805599453)


@numba.njit(inline="always", fastmath=_KEEP)
def _sine(square: np.float32) -> np.float32:
    """sin(x) / x from x^2, Taylor series to x^10."""
    value = np.float32(-1.0 / 39916800.0)
    value = value * square + np.float32(1.0 / 362880.0)
    value = value * square + np.float32(-1.0 / 5040.0)
    value = value * square + np.float32(1.0 / 120.0)
    value = value * square + np.float32(-1.0 / 6.0)
    return value * square + np.float32(1.0)


@numba.njit(inline="always", fastmath=_KEEP)
def _cosine(square: np.float32) -> np.float32:
    """cos(x) from x^2, Taylor series to x^10."""
    value = np.float32(-1.0 / 3628800.0)
    value = value * square + np.float32(1.0 / 40320.0)
    value = value * square + np.float32(-1.0 / 720.0)
    value = value * square + np.float32(1.0 / 24.0)
    value = value * square + np.float32(-0.5)
    return value * square + np.float32(1.0)
