"""Operations on the columns of (n, r) float64, compiled and in place.

Sums go row by row, so that a column's does not depend on its neighbours. Nothing is contracted: the
bits are those of NumPy.
"""

import numba
import numpy as np

from repast_dist.analog.kernels.vectors import wide


@numba.njit(cache=True, nogil=True)
def dots(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the inner products of columns, (r,)."""
    wide()
    sums = np.zeros(left.shape[1])
    for i in range(left.shape[0]):
        for j in range(left.shape[1]):
            sums[j] += left[i, j] * right[i, j]
    return sums


@numba.njit(cache=True, nogil=True)
def add_scaled(values: np.ndarray, other: np.ndarray, factors: np.ndarray) -> None:
    """Add columns of another array, each times a factor, (r,)."""
    wide()
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            values[i, j] += other[i, j] * factors[j]


@numba.njit(cache=True, nogil=True)
def largest(values: np.ndarray) -> np.ndarray:
    """Return the largest magnitude of every column, (r,); NaN where there is one."""
    wide()
    found = np.zeros(values.shape[1])
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            size = abs(values[i, j])
            # Whatever is compared with NaN is not below it.
            found[j] = found[j] if size <= found[j] or found[j] != found[j] else size
    return found


@numba.njit(cache=True, nogil=True)
def round_columns(values: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Return ``rint(values / steps)`` for a step of every column, (r,)."""
    wide()
    codes = np.empty(values.shape)
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            codes[i, j] = np.rint(values[i, j] / steps[j])
    return codes


@numba.njit(cache=True, nogil=True)
def norms(values: np.ndarray, scaling: np.ndarray) -> np.ndarray:
    """Return the norms of the columns of which every row is divided by a number, (n,)."""
    wide()
    squares = np.zeros(values.shape[1])
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            value = values[i, j] / scaling[i]
            squares[j] += value * value
    return np.sqrt(squares)
