"""Counts what Cholesky factorisations, triangular solves and products take in digital lanes.

The p lanes of a tile work on parts of p x p of the matrix, which lies in the buffers. Every lane
keeps the p sums of a row of its part in registers of its own. For each column to the left of a part
it gets one word of its own row and the p words of the part's columns from the buffer, and makes p
multiplications with additions, one a clock. So every word that is fetched serves p of them, and
lanes stand still only in the parts on the diagonal, in turn for every column of these, and where n
is no multiple of p. Solves with the factors do the same with right-hand sides in the place of the
part's columns; tiles share the right-hand sides, and parts below the diagonal of a factorisation.
Products of two matrices fill such parts in the same way.
"""

import dataclasses
import functools
import itertools

from repast_dist.ground.numbers import ceil_div

_ROOT_OPS = 8
"""Operations of a reciprocal square root: two of Newton's steps, of four operations each, double
the bits of a table of eight twice."""


@dataclasses.dataclass(frozen=True)
class LaneWork:
    """What digital lanes do.

    Attributes
    ----------
    operations : int
        Multiplications, each with an addition.
    clocks : int
        Clocks from start to end, where the buffers keep up.
    words : int
        Numbers that are read from buffers or written to them.
    """

    operations: int
    clocks: int
    words: int

    def __add__(self, other: "LaneWork") -> "LaneWork":
        return LaneWork(
            self.operations + other.operations,
            self.clocks + other.clocks,
            self.words + other.words,
        )

    def __mul__(self, times: int) -> "LaneWork":
        return LaneWork(times * self.operations, times * self.clocks, times * self.words)


@functools.lru_cache(maxsize=4096)
def factorisation(size: int, lanes: int, tiles: int) -> LaneWork:
    """Return the work of ``A = L L'``, column of parts after column of parts.

    Parameters
    ----------
    size : int
        Rows n of A.
    lanes : int
        Lanes p of a tile.
    tiles : int
        Tiles that share the parts below the diagonal.
    """
    clocks = words = 0
    edges = _edges(size, lanes)
    for start, stop in edges:
        width = stop - start
        corner = width * (width - 1) // 2
        inside = start * width + corner + width
        clocks += inside + width * _ROOT_OPS
        # The corner is half read and half written; its rows are its columns.
        words += start * width + 2 * (corner + width)
        rows = size - stop
        below = ceil_div(rows, lanes)
        clocks += ceil_div(below, tiles) * inside
        # Each part below reads the corner, and itself is read and written.
        words += below * (start * width + corner + width) + rows * (start + 2 * width)
    operations = size * (size**2 - 1) // 6 + size * (size + 1) // 2 + size * _ROOT_OPS
    return LaneWork(operations, clocks, words)


@functools.lru_cache(maxsize=4096)
def triangular_solves(size: int, right_sides: int, lanes: int, tiles: int) -> LaneWork:
    """Return the work of ``L y = b`` and ``L' x = y``; the diagonal's reciprocals are known.

    Parameters
    ----------
    size, lanes : int
        As of `factorisation`.
    right_sides : int
        Right-hand sides.
    tiles : int
        Tiles that share them.
    """
    mine = ceil_div(right_sides, tiles)
    busy = ceil_div(right_sides, mine)
    # So many right-hand sides have their sums in a lane's registers at a time.
    turns = ceil_div(mine, lanes)
    fetched = (busy - 1) * turns + ceil_div(right_sides - (busy - 1) * mine, lanes)
    edges = _edges(size, lanes)
    clocks = words = 0
    for start, stop in edges:
        width = stop - start
        clocks += 2 * (width * turns + (width - 1) * mine)
        words += 2 * (fetched * (width * (width + 1) // 2) + 2 * width * right_sides)
    for (left, right), (top, bottom) in itertools.combinations(edges, 2):
        width, height = right - left, bottom - top
        # Forwards the lanes have rows of the part, backwards its columns.
        clocks += (width + height) * mine
        words += 2 * fetched * width * height + (width + height) * right_sides
    return LaneWork(right_sides * size * (size + 1), clocks, words)


def product(rows: int, inner: int, columns: int, lanes: int, tiles: int) -> LaneWork:
    """Return the work of a product (rows, inner) by (inner, columns).

    Parameters
    ----------
    rows, inner, columns : int
        Shapes of the factors.
    lanes : int
        Lanes p of a tile, which fill a part of p x p of the result at a time.
    tiles : int
        Tiles that share the parts.
    """
    high, wide = ceil_div(rows, lanes), ceil_div(columns, lanes)
    # The last parts of a row are narrower, and take fewer clocks.
    turns = columns if wide == 1 else lanes
    clocks = ceil_div(high * wide, tiles) * inner * turns
    words = inner * (rows * wide + columns * high) + rows * columns
    return LaneWork(rows * inner * columns, clocks, words)


def _edges(size: int, lanes: int) -> list[tuple[int, int]]:
    return [(start, min(start + lanes, size)) for start in range(0, size, lanes)]
