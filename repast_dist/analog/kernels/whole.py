"""Exact products of whole numbers of up to 32 bits, or of 8, on a matrix unit.

A number is four bytes, of which the uppermost has the sign. Sixteen products of bytes (four where
the other number is one byte) are summed in 32 bits, those that weigh as much as each other
together, and their weighted sum is rounded once.
"""

from typing import Protocol

import numba
import numpy as np

from repast_dist.analog.kernels import tile_registers as unit
from repast_dist.analog.kernels.memory import aligned, reused
from repast_dist.analog.kernels.vectors import wide
from repast_dist.ground.numbers import ceil_div

SIDE, DEEP = unit.SIDE, unit.DEEP
_BYTES = 4
_TILE = SIDE * DEEP
_LARGEST = 2.0**31 - 1
_MOST_ROWS = 2**31 // (_BYTES * 255**2)
"""Of which 32 bits hold the sums."""

_LEAST_CELLS = 2**16
"""Of a matrix, below which there is little to gain."""


class WholeMatrix(Protocol):
    """A matrix of whole numbers, ready for products with others."""

    def multiply(self, codes: np.ndarray) -> np.ndarray:
        """Return ``matrix @ codes``, (n, r) float64.

        Parameters
        ----------
        codes : ndarray
            (k, r) float64 whole numbers of no more bits than those of the matrix may have.
        """


def hold_whole(matrix: np.ndarray, bits: int) -> WholeMatrix:
    """Return a matrix of whole numbers, ready for products with others.

    With a matrix unit, every entry of a product is the exact one, rounded once, up to 32 bits. The
    BLAS, which serves else, rounds where sums go beyond 2^53.

    Parameters
    ----------
    matrix : ndarray
        (n, k) float64.
    bits : int
        Of the numbers on either side, sign included.
    """
    fits = bits <= 8 * _BYTES and matrix.shape[1] <= _MOST_ROWS
    if fits and matrix.size >= _LEAST_CELLS and unit.has_matrix_unit():
        return TiledMatrix(matrix)
    return FloatMatrix(matrix)


def hold_for_codes(matrix: np.ndarray, bits: int) -> "FixedMatrix | None":
    """Return a matrix of any numbers, ready for products with codes; None where there is no matrix
    unit, too little for it to do, or something that it cannot.

    Parameters
    ----------
    matrix : ndarray
        (n, k), any float dtype.
    bits : int
        Of the codes, sign included.
    """
    fits = bits <= 8 and matrix.shape[1] <= _MOST_ROWS and matrix.size >= _LEAST_CELLS
    if fits and unit.has_matrix_unit() and np.isfinite(matrix).all():
        return FixedMatrix(matrix)
    return None


class FloatMatrix:
    """A matrix for the BLAS.

    Parameters
    ----------
    matrix : ndarray
        (n, k) float64.
    """

    def __init__(self, matrix: np.ndarray) -> None:
        self._matrix = matrix

    def multiply(self, codes: np.ndarray) -> np.ndarray:
        """Return the product with (k, r) whole numbers."""
        return np.asarray(self._matrix @ codes)


class TiledMatrix:
    """A matrix of whole numbers as tile registers take it.

    Parameters
    ----------
    matrix : ndarray
        (n, k) float64 whole numbers of 32 bits.
    """

    def __init__(self, matrix: np.ndarray) -> None:
        self._rows, inner = matrix.shape
        self._shape = ceil_div(self._rows, SIDE), ceil_div(inner, DEEP), _BYTES, SIDE, DEEP
        self._held = aligned(int(np.prod(self._shape))).reshape(self._shape)
        _cut_rows(np.ascontiguousarray(matrix), self._held)

    def multiply(self, codes: np.ndarray) -> np.ndarray:
        """Return the product with (k, r) whole numbers of 32 bits; NaN for columns with anything
        else.
        """
        shape = ceil_div(codes.shape[1], SIDE), *self._shape[1:]
        columns = reused("columns", shape, np.uint8)
        unusable = _cut_columns(np.ascontiguousarray(codes, np.float64), columns)
        product = np.empty((self._rows, codes.shape[1]))
        sums = reused("sums of bytes", (8, SIDE, SIDE), np.int32)
        _multiply(unit.WHOLE_TILES, self._held, columns, sums, product)
        if unusable.any():
            product[:, unusable] = np.nan
        return product

    def multiply_bytes(self, codes: np.ndarray) -> np.ndarray:
        """Return the product with (k, r) float64 whole numbers of 8 bits, sign included."""
        shape = ceil_div(codes.shape[1], SIDE), self._shape[1], SIDE, DEEP
        columns = reused("columns", shape, np.uint8)
        _cut_codes(np.ascontiguousarray(codes), columns)
        product = np.empty((self._rows, codes.shape[1]))
        sums = reused("sums of bytes", (_BYTES, SIDE, SIDE), np.int32)
        _multiply_codes(unit.WHOLE_TILES, self._held, columns, sums, product)
        return product


class FixedMatrix:
    """A matrix of any numbers, in 32 bits of its largest entry.

    Parameters
    ----------
    matrix : ndarray
        (n, k), any float dtype, finite.
    """

    def __init__(self, matrix: np.ndarray) -> None:
        largest = float(np.abs(matrix).max(initial=0.0))
        self._step = (largest or 1.0) / _LARGEST
        self._whole = TiledMatrix(np.rint(matrix.astype(np.float64) / self._step))

    def multiply(self, codes: np.ndarray) -> np.ndarray:
        """Return the product with (k, r) float64 whole numbers of 8 bits, sign included: (n, r)."""
        product = self._whole.multiply_bytes(codes)
        product *= self._step
        return product


@numba.njit(cache=True, nogil=True)
def _cut_rows(matrix: np.ndarray, held: np.ndarray) -> None:
    """Write (n, k) whole numbers as bytes, the lowest first: (blocks of rows, depth, 4, 16, 64)."""
    wide()
    rows, inner = matrix.shape
    codes = np.empty(DEEP, np.int32)
    for block in range(held.shape[0]):
        for r in range(SIDE):
            k = block * SIDE + r
            for step in range(held.shape[1]):
                first = step * DEEP
                width = min(DEEP, inner - first) if k < rows else 0
                codes[width:] = 0
                for c in range(width):
                    codes[c] = np.int32(matrix[k, first + c])
                for number in range(_BYTES):
                    out, shift = held[block, step, number, r], np.int32(8 * number)
                    for c in range(DEEP):
                        out[c] = np.uint8((codes[c] >> shift) & 255)


@numba.njit(cache=True, nogil=True)
def _cut_columns(codes: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Write (k, r) whole numbers as bytes, the lowest first and four rows side by side: (blocks of
    columns, depth, 4, 16, 64). Return (r,) bool, which columns have numbers that do not fit.
    """
    wide()
    inner, width = codes.shape
    blocks, depth = columns.shape[:2]
    words = columns.view(np.int32)
    four = np.zeros((4, blocks * SIDE), np.int32)
    unusable = np.zeros(width, np.bool_)
    for group in range(depth * SIDE):
        for j in range(4):
            k = 4 * group + j
            if k < inner:
                for c in range(width):
                    fits = abs(codes[k, c]) <= _LARGEST
                    unusable[c] |= not fits
                    four[j, c] = np.int32(codes[k, c] if fits else 0.0)
            else:
                four[j] = 0
        for block in range(blocks):
            part = four[:, block * SIDE : (block + 1) * SIDE]
            for number in range(_BYTES):
                out, shift = words[block, group // SIDE, number, group % SIDE], np.int32(8 * number)
                for c in range(SIDE):
                    word = np.int32((part[0, c] >> shift) & 255)
                    word |= np.int32(((part[1, c] >> shift) & 255) << 8)
                    word |= np.int32(((part[2, c] >> shift) & 255) << 16)
                    word |= np.int32(((part[3, c] >> shift) & 255) << 24)
                    out[c] = word
    return unusable


@numba.njit(cache=True, nogil=True)
def _multiply(
    configuration: np.ndarray,
    held: np.ndarray,
    columns: np.ndarray,
    sums: np.ndarray,
    product: np.ndarray,
) -> None:
    """Write the product of what `_cut_rows` and `_cut_columns` have made, (n, r) float64; `sums`
    are scratch, (8, 16, 16) int32: the seventh and the eighth weigh as much as each other.
    """
    wide()
    unit.configure(configuration.ctypes.data)
    depth = held.shape[1]
    out = sums.ctypes.data
    for block in range(held.shape[0]):
        left = held.ctypes.data + block * depth * _BYTES * _TILE
        for other in range(columns.shape[0]):
            right = columns.ctypes.data + other * depth * _BYTES * _TILE
            _multiply_upper(left, right, depth, out)
            _multiply_lower(left, right, depth, out + 4 * _TILE)
            first = other * SIDE
            width = min(SIDE, product.shape[1] - first)
            for r in range(min(SIDE, product.shape[0] - block * SIDE)):
                row = product[block * SIDE + r, first : first + width]
                for c in range(width):
                    low = np.int64(sums[6, r, c]) + np.int64(sums[7, r, c])
                    low = (low << 8) + np.int64(sums[5, r, c])
                    low = (low << 8) + np.int64(sums[4, r, c])
                    low += np.int64(sums[3, r, c]) << 24
                    high = (np.int64(sums[0, r, c]) << 8) + np.int64(sums[1, r, c])
                    high = (high << 8) + np.int64(sums[2, r, c]) + (low >> 32)
                    rest = np.float64(low & 0xFFFFFFFF)
                    # Both are exact: this rounds once.
                    row[c] = np.float64(high) * 4294967296.0 + rest
    unit.release()


@numba.njit(cache=True, nogil=True)
def _multiply_upper(left: int, right: int, depth: int, out: int) -> None:
    """Sum products of bytes that weigh 2^48, 2^40, 2^32 and 2^24 in this order; all are addresses
    of tiles (depth, 4, 16, 64).
    """
    unit.clear(0)
    unit.clear(1)
    unit.clear(2)
    unit.clear(3)
    for _ in range(depth):
        unit.load(4, left + 3 * _TILE, DEEP)
        unit.load(6, right, DEEP)
        unit.add_product_right_unsigned(3, 4, 6)
        unit.load(6, right + _TILE, DEEP)
        unit.add_product_right_unsigned(2, 4, 6)
        unit.load(6, right + 2 * _TILE, DEEP)
        unit.add_product_right_unsigned(1, 4, 6)
        unit.load(7, right + 3 * _TILE, DEEP)
        unit.add_product(0, 4, 7)
        unit.load(5, left, DEEP)
        unit.add_product_left_unsigned(3, 5, 7)
        unit.load(5, left + _TILE, DEEP)
        unit.add_product_left_unsigned(2, 5, 7)
        unit.load(4, left + 2 * _TILE, DEEP)
        unit.add_product_left_unsigned(1, 4, 7)
        unit.add_product_unsigned(3, 5, 6)
        unit.add_product_unsigned(2, 4, 6)
        unit.load(6, right + _TILE, DEEP)
        unit.add_product_unsigned(3, 4, 6)
        left += _BYTES * _TILE
        right += _BYTES * _TILE
    unit.store(0, out, DEEP)
    unit.store(1, out + _TILE, DEEP)
    unit.store(2, out + 2 * _TILE, DEEP)
    unit.store(3, out + 3 * _TILE, DEEP)


@numba.njit(cache=True, nogil=True)
def _multiply_lower(left: int, right: int, depth: int, out: int) -> None:
    """Do the same with those that weigh 1, 2^8 and, in two sums, 2^16."""
    unit.clear(0)
    unit.clear(1)
    unit.clear(2)
    unit.clear(3)
    for _ in range(depth):
        unit.load(4, left, DEEP)
        unit.load(6, right + 2 * _TILE, DEEP)
        unit.add_product_unsigned(2, 4, 6)
        unit.load(6, right + _TILE, DEEP)
        unit.add_product_unsigned(1, 4, 6)
        unit.load(5, left + _TILE, DEEP)
        unit.add_product_unsigned(3, 5, 6)
        unit.load(7, right, DEEP)
        unit.add_product_unsigned(0, 4, 7)
        unit.add_product_unsigned(1, 5, 7)
        unit.load(4, left + 2 * _TILE, DEEP)
        unit.add_product_unsigned(2, 4, 7)
        left += _BYTES * _TILE
        right += _BYTES * _TILE
    unit.store(0, out, DEEP)
    unit.store(1, out + _TILE, DEEP)
    unit.store(2, out + 2 * _TILE, DEEP)
    unit.store(3, out + 3 * _TILE, DEEP)


@numba.njit(cache=True, nogil=True)
def _cut_codes(codes: np.ndarray, columns: np.ndarray) -> None:
    """Write (k, r) whole numbers of 8 bits, four rows side by side: (blocks of columns, depth, 16,
    64).
    """
    wide()
    inner, width = codes.shape
    blocks, depth = columns.shape[:2]
    words = columns.view(np.int32)
    four = np.zeros(blocks * SIDE, np.int32)
    for group in range(depth * SIDE):
        four[:] = 0
        for j in range(min(4, inner - 4 * group)):
            row, shift = codes[4 * group + j], np.int32(8 * j)
            for c in range(width):
                four[c] |= np.int32((np.int32(row[c]) & 255) << shift)
        for block in range(blocks):
            out = words[block, group // SIDE, group % SIDE]
            for c in range(SIDE):
                out[c] = four[block * SIDE + c]


@numba.njit(cache=True, nogil=True)
def _multiply_codes(
    configuration: np.ndarray,
    held: np.ndarray,
    columns: np.ndarray,
    sums: np.ndarray,
    product: np.ndarray,
) -> None:
    """Write the product of what `_cut_rows` and `_cut_codes` have made, (n, r) float64; `sums` are
    scratch, (4, 16, 16) int32.
    """
    wide()
    unit.configure(configuration.ctypes.data)
    depth, out = held.shape[1], sums.ctypes.data
    for block in range(held.shape[0]):
        for other in range(columns.shape[0]):
            unit.clear(0)
            unit.clear(1)
            unit.clear(2)
            unit.clear(3)
            left = held.ctypes.data + block * depth * _BYTES * _TILE
            right = columns.ctypes.data + other * depth * _TILE
            for _ in range(depth):
                unit.load(6, right, DEEP)
                unit.load(4, left, DEEP)
                unit.add_product_left_unsigned(0, 4, 6)
                unit.load(5, left + _TILE, DEEP)
                unit.add_product_left_unsigned(1, 5, 6)
                unit.load(4, left + 2 * _TILE, DEEP)
                unit.add_product_left_unsigned(2, 4, 6)
                unit.load(5, left + 3 * _TILE, DEEP)
                unit.add_product(3, 5, 6)
                left += _BYTES * _TILE
                right += _TILE
            unit.store(0, out, DEEP)
            unit.store(1, out + _TILE, DEEP)
            unit.store(2, out + 2 * _TILE, DEEP)
            unit.store(3, out + 3 * _TILE, DEEP)
            first = other * SIDE
            width = min(SIDE, product.shape[1] - first)
            for r in range(min(SIDE, product.shape[0] - block * SIDE)):
                row = product[block * SIDE + r, first : first + width]
                for c in range(width):
                    whole = np.int64(sums[3, r, c])
                    whole = (whole << 8) + np.int64(sums[2, r, c])
                    whole = (whole << 8) + np.int64(sums[1, r, c])
                    whole = (whole << 8) + np.int64(sums[0, r, c])
                    row[c] = np.float64(whole)
    unit.release()
