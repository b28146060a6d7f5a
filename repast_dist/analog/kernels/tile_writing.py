"""What row tiles hold, written as tile registers take it, from levels or as it is drawn.

A row tile is (blocks of columns, depth, parts, 16, 64) int8: 16 columns of 64 rows, of which four
lie side by side; the upper part of steps comes first where there are two.
"""

import numba
import numpy as np

from repast_dist.analog.kernels.draws import BLOCK, Law, Stream, block_room, draw_block, largest_in
from repast_dist.analog.kernels.tile_registers import SIDE
from repast_dist.analog.kernels.vectors import wide

_ROWS = 4
"""That lie side by side."""


@numba.njit(cache=True, nogil=True)
def write_levels(
    cells: np.ndarray, per_step: float, per: int, height: int, held: np.ndarray
) -> None:
    """Write what all row tiles hold.

    Parameters
    ----------
    cells : ndarray
        (B, K, columns) float32 in levels.
    per_step : float
        Steps of a level.
    per, height : int
        Row tiles of a multiplier, and rows of a tile.
    held : ndarray
        (B * per, blocks of columns, depth, parts, 16, 64) int8, written.
    """
    rows, columns = cells.shape[1:]
    steps, words = np.empty(_ROWS * columns, np.int32), held.view(np.int32)
    halves = np.zeros((2, held.shape[1] * SIDE), np.int32)
    for which in range(cells.shape[0]):
        k = 0
        while k < rows:
            part, inside = divmod(k, height)
            count = min(_ROWS, min((part + 1) * height, rows) - k)
            _to_steps(cells[which, k : k + count].reshape(-1), per_step, steps)
            _write_rows(steps, count, columns, inside // _ROWS, halves, words[which * per + part])
            k += count
    _clear_rest(rows, per, height, words)


@numba.njit(cache=True, nogil=True)
def write_drawn(
    integers: np.ndarray,
    slices: int,
    bits: int,
    law: Law,
    stream: Stream,
    per_step: float,
    per: int,
    height: int,
    held: np.ndarray,
) -> float:
    """Write what all row tiles of some multipliers hold that share a stream of draws.

    Parameters
    ----------
    integers : ndarray
        (B, K, M) float64 whole numbers.
    slices, bits, law, stream
        See `draw_block`.
    per_step, per, height, held
        See `write_levels`.

    Returns
    -------
    float
        The largest magnitude before rounding, in levels.
    """
    rows, columns = integers.shape[1:]
    width, words = slices * columns, held.view(np.int32)
    lines = integers.reshape(-1, columns)
    steps = np.empty(BLOCK + _ROWS * width, np.int32)
    halves = np.zeros((2, held.shape[1] * SIDE), np.int32)
    room, largest = block_room(), 0.0
    line, waiting = 0, 0
    for start in range(0, lines.shape[0] * width, BLOCK):
        levels = draw_block(lines, slices, bits, law, stream, start, room)
        largest = max(largest, largest_in(levels))
        _to_steps(levels, per_step, steps[waiting:])
        waiting, used = waiting + levels.shape[0], 0
        while line < lines.shape[0]:
            which, k = divmod(line, rows)
            part, inside = divmod(k, height)
            some = min(_ROWS, min((part + 1) * height, rows) - k)
            if waiting - used < some * width:
                break
            tile = words[which * per + part]
            _write_rows(steps[used:], some, width, inside // _ROWS, halves, tile)
            line, used = line + some, used + some * width
        waiting -= used
        for i in range(waiting):
            steps[i] = steps[used + i]
    _clear_rest(rows, per, height, words)
    return largest


@numba.njit(cache=True, nogil=True)
def copy_columns(
    held: np.ndarray, slices: int, columns: int, start: int, stop: int, part: np.ndarray
) -> None:
    """Write what row tiles hold in some columns of weights.

    Parameters
    ----------
    held : ndarray
        (tiles, blocks of columns, depth, parts, 16, 64) int8, all columns.
    slices, columns : int
        Slices of a weight, and columns of weights.
    start, stop : int
        Those to write.
    part : ndarray
        As `held`, with fewer blocks of columns, written.
    """
    tiles, blocks = part.shape[:2]
    lines = part.shape[2] * part.shape[3] * SIDE
    here, there = part.view(np.int32), held.view(np.int32)
    width = stop - start
    for tile in range(tiles):
        for block in range(blocks):
            out = here[tile, block].reshape(lines, SIDE)
            for c in range(SIDE):
                number, m = divmod(block * SIDE + c, width)
                if number >= slices:
                    out[:, c] = 0
                    continue
                source, column = divmod(number * columns + start + m, SIDE)
                come_from = there[tile, source].reshape(lines, SIDE)
                for line in range(lines):
                    out[line, c] = come_from[line, column]


@numba.njit(cache=True, nogil=True)
def _to_steps(levels: np.ndarray, per_step: float, steps: np.ndarray) -> None:
    """Write whole steps: (n,) of any float dtype to the first n of int32."""
    wide()
    for i in range(levels.shape[0]):
        steps[i] = np.int32(np.rint(levels[i] * per_step))


@numba.njit(cache=True, nogil=True)
def _write_rows(
    steps: np.ndarray, rows: int, columns: int, four: int, halves: np.ndarray, tile: np.ndarray
) -> None:
    """Write up to four rows of a tile.

    Parameters
    ----------
    steps : ndarray
        The first ``rows * columns`` of int32.
    rows, columns : int
        Sizes.
    four : int
        Number of the rows, in fours.
    halves : ndarray
        (2, columns of all blocks) int32, scratch; zeros behind the columns.
    tile : ndarray
        (blocks of columns, depth, parts, 16, 16) int32, written.
    """
    wide()
    parts = tile.shape[2]
    upper, lower = halves
    upper[:columns] = 0
    lower[:columns] = 0
    for j in range(rows):
        row, shift = steps[j * columns : (j + 1) * columns], np.int32(8 * j)
        for c in range(columns):
            high = np.int32(0) if parts == 1 else np.int32((row[c] + 128) >> 8)
            low = np.int32(row[c] - (high << np.int32(8)))
            upper[c] |= np.int32((high & 255) << shift)
            lower[c] |= np.int32((low & 255) << shift)
    deep, inside = divmod(four, SIDE)
    for block in range(tile.shape[0]):
        first = block * SIDE
        for c in range(SIDE):
            tile[block, deep, parts - 1, inside, c] = lower[first + c]
        if parts == 2:
            for c in range(SIDE):
                tile[block, deep, 0, inside, c] = upper[first + c]


@numba.njit(cache=True, nogil=True)
def _clear_rest(rows: int, per: int, height: int, words: np.ndarray) -> None:
    """Write zeros where tiles have room for more rows than they have."""
    tiles, blocks, depth, parts, _, _ = words.shape
    for tile in range(tiles):
        held = min(height, rows - tile % per * height)
        for four in range((held + _ROWS - 1) // _ROWS, depth * SIDE):
            for block in range(blocks):
                for part in range(parts):
                    words[tile, block, four // SIDE, part, four % SIDE] = 0
