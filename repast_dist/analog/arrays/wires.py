"""Wire resistance of a crossbar as a transfer matrix, computed once per programmed array.

Rows are driven at their left ends, columns are held at ground at their lower ends; every cell has
a segment of row wire on its left and a segment of column wire below it. All is linear, so the
column currents are ``i = T' v`` and T, the effective conductances, takes the place of the cells'.

Wires end open on the right and at the top. Were the potentials there known, all others would follow
from cell to cell, right to left and downwards. So every potential and current is a linear function
of the potentials at the open ends, and these are what the sources and the ground at the other ends
ask for: *shooting*, in about K M (K + M) operations and a solve of min(K, M) equations. What is
wrong at an open end grows on the way as potentials do, so that as many digits are lost.

Where wires resist so much that this is too many, nodes are eliminated instead. Those
of the row wires form one tridiagonal system per row and are eliminated in closed form.
What remains couples neighbouring rows only, through the column wires: a block-tridiagonal system
with one dense block per row, eliminated from the top,

    P_k = S_k - g^2 P_(k-1)^-1,    F_k = [g P_(k-1)^-1 F_(k-1), s_k],    T = g (P_K^-1 F_K)'

with S_k row k's Schur complement, s_k the currents its source sends into the columns, g the
conductance of a segment. By reciprocity T of the mirrored, transposed array is the same, so blocks
have the size of the array's shorter side. Cost: about min(K, M)^2 max(K, M) (M + K / 2) operations.
"""

import numba
import numpy as np
from scipy.linalg import blas, lapack

from repast_dist.analog.kernels.conversion import largest_magnitudes
from repast_dist.analog.kernels.vectors import wide
from repast_dist.analog.specs import WireSpec
from repast_dist.ground.errors import DataError

_LEAF = 64
_MOST_GROWTH = 1e3
"""Of potentials, up to which what shooting loses of 16 digits does not matter."""
_LANES = 16
"""Open ends that are followed at a time; a multiple of four."""


def transfer_matrix(conductances: np.ndarray, wire: WireSpec) -> np.ndarray:
    """Return the effective conductances of an array with resistive wires.

    Parameters
    ----------
    conductances : ndarray
        (K, M) float64, siemens, not negative: rows are driven, columns are read.
    wire : WireSpec
        Ohm per segment.

    Returns
    -------
    ndarray
        (K, M) float64, siemens: current of column m per volt on row k.

    Raises
    ------
    DataError
        A conductance is negative or not finite, which no circuit has.
    """
    if not np.isfinite(conductances).all() or np.min(conductances, initial=0.0) < 0:
        raise DataError("wires need finite conductances that are not negative")
    if not conductances.size or not (wire.row_ohm or wire.column_ohm):
        return conductances.copy()
    if not wire.column_ohm:
        return _driven(np.ascontiguousarray(conductances), 1.0 / wire.row_ohm)
    if not wire.row_ohm:
        return _mirrored(_driven(_mirrored(conductances), 1.0 / wire.column_ohm))
    rows, columns = conductances.shape
    row, column = 1.0 / wire.row_ohm, 1.0 / wire.column_ohm
    if columns <= rows:
        return _resistive(np.ascontiguousarray(conductances), row, column)
    return _mirrored(_resistive(_mirrored(conductances), column, row))


def _mirrored(matrix: np.ndarray) -> np.ndarray:
    """Exchange what drives and what is read: T(G, row, column) = T(G~, column, row)~."""
    return np.ascontiguousarray(matrix[::-1, ::-1].T)


def _resistive(conductances: np.ndarray, row: float, column: float) -> np.ndarray:
    shot = _shoot(conductances, 1.0 / row, 1.0 / column)
    return _eliminate(conductances, row, column) if shot is None else shot


def _shoot(conductances: np.ndarray, row_ohm: float, column_ohm: float) -> np.ndarray | None:
    """Return T by shooting, or None where that is not accurate."""
    # Rows and columns without cells, at open ends, change nothing.
    rows, columns = conductances.shape
    above = -rows % 4
    high, across = rows + above, columns + columns % 2
    cells = np.zeros((high, across))
    cells[above:, :columns] = conductances
    # What open ends of rows and of columns do to sources; to grounds, and the currents there.
    sources = np.empty((high, high)), np.empty((high, across))
    grounds = np.empty((2 * across, high)), np.empty((2 * across, across))
    for of_rows, up, down in zip((True, False), sources, grounds, strict=True):
        _follow(cells, row_ohm, column_ohm, of_rows, up, down[:across], down[across:])
    potentials = (*sources, grounds[0][:across], grounds[1][:across])
    if not all(largest_magnitudes(part[None])[0] <= _MOST_GROWTH for part in potentials):
        return None
    # Rows are followed downwards: no source sees the open ends of rows below it.
    ends = blas.dtrsm(1.0, sources[0].T, grounds[0].T, lower=0)
    of_columns = grounds[1] - ends.T @ sources[1]
    makes_up = np.linalg.solve(of_columns[:across].T, of_columns[across:].T)
    currents: np.ndarray = ends[:, across:] - ends[:, :across] @ makes_up
    return np.ascontiguousarray(currents[above:, :columns])


def _eliminate(conductances: np.ndarray, row: float, column: float) -> np.ndarray:
    rows, columns = conductances.shape
    inverse = np.zeros((columns, columns), order="F")
    sent = np.empty(columns)
    carried = np.zeros((columns, rows), order="F")
    for k in range(rows):
        # Only the lower triangles are kept; symmetry does the rest.
        _row_schur(conductances[k], row, column, k == 0, inverse, sent)
        inverse = _inverted(inverse)
        carried[:, k] = sent
        # What the rows so far send on to the next node of every column.
        part = carried[:, : k + 1]
        carried[:, : k + 1] = blas.dsymm(column, inverse, part, lower=1)
    return carried.T.copy()


def _inverted(matrix: np.ndarray) -> np.ndarray:
    """Invert a symmetric positive definite matrix, in Fortran order and place, lower triangle only.

    By halves, so that most of the work is products: small factorisations are slow.
    """
    if len(matrix) <= _LEAF:
        factor, failed = lapack.dpotrf(matrix, lower=1, overwrite_a=1, clean=0)
        inverse, failed_too = lapack.dpotri(factor, lower=1, overwrite_c=1)
        if failed or failed_too:
            raise DataError("the wires' equations are singular; valid: smaller wire resistances")
        return inverse
    half = len(matrix) // 2
    first, corner, last = (
        np.array(part, order="F")
        for part in (matrix[:half, :half], matrix[half:, :half], matrix[half:, half:])
    )
    first = _inverted(first)
    through = blas.dsymm(1.0, first, corner, side=1, lower=1)
    last = _inverted(blas.dgemm(-1.0, through, corner, 1.0, last, trans_b=1, overwrite_c=1))
    corner = blas.dsymm(-1.0, last, through, lower=1)
    first = blas.dgemm(-1.0, through, corner, 1.0, first, trans_a=1, overwrite_c=1)
    matrix[:half, :half], matrix[half:, :half], matrix[half:, half:] = first, corner, last
    return matrix


@numba.njit(cache=True, nogil=True)
def _follow(
    cells: np.ndarray,
    row_ohm: float,
    column_ohm: float,
    of_rows: bool,
    sources: np.ndarray,
    grounds: np.ndarray,
    currents: np.ndarray,
) -> None:
    """Follow potentials and currents from open ends to sources and grounds.

    Parameters
    ----------
    cells : ndarray
        (K, M) siemens; K is a multiple of four, M of two.
    row_ohm, column_ohm : float
        Of a segment.
    of_rows : bool
        Whether the open ends of rows are followed, n = K, or those of columns, n = M.
    sources, grounds, currents : ndarray
        (K, n), (M, n) volts and (M, n) siemens, written: the potentials where sources and ground
        should be and the currents into ground, per volt at each open end.
    """
    wide()
    rows, columns = cells.shape
    count = sources.shape[1]
    along, down = np.empty(8 * _LANES), np.empty(2 * columns * _LANES)
    for first in range(0, count, _LANES):
        width = min(_LANES, count - first)
        down[:] = 0.0
        begin = 0
        if of_rows:
            # Nothing above the row of an open end is at any potential.
            begin = first
            sources[:begin, first : first + width] = 0.0
        else:
            for n in range(width):
                down[2 * (first + n) * _LANES + n] = 1.0
        for k in range(begin, rows, 4):
            along[:] = 0.0
            if of_rows and k - first < _LANES:
                for part in range(4):
                    along[2 * part * _LANES + k - first + part] = 1.0
            _four_rows(cells[k : k + 4], row_ohm, column_ohm, along, down)
            for part in range(4):
                for n in range(width):
                    sources[k + part, first + n] = along[2 * part * _LANES + n]
        for m in range(columns):
            for n in range(width):
                grounds[m, first + n] = down[2 * m * _LANES + n]
                currents[m, first + n] = down[(2 * m + 1) * _LANES + n]


@numba.njit(cache=True, nogil=True, fastmath={"contract"})
def _four_rows(
    cells: np.ndarray, row_ohm: float, column_ohm: float, along: np.ndarray, down: np.ndarray
) -> None:
    """Follow potentials and currents over four rows of cells, (4, M).

    Both lie in one vector, so that the inner loop turns into vector instructions: `along`
    (8 lanes,) of every row, `down` (2 lanes M,) of every column.
    """
    wide()
    lanes = _LANES
    for m in range(cells.shape[1] - 1, 0, -2):
        left0, left1, left2, left3 = cells[:, m - 1]
        right0, right1, right2, right3 = cells[:, m]
        part = down[2 * (m - 1) * lanes : 2 * (m + 1) * lanes]
        for n in range(lanes):
            u, d = part[n], part[lanes + n]
            p, q = part[2 * lanes + n], part[3 * lanes + n]
            v, i = along[n], along[lanes + n]
            v, i, p, q = _cell(right0, row_ohm, column_ohm, v, i, p, q)
            v, i, u, d = _cell(left0, row_ohm, column_ohm, v, i, u, d)
            along[n], along[lanes + n] = v, i
            v, i = along[2 * lanes + n], along[3 * lanes + n]
            v, i, p, q = _cell(right1, row_ohm, column_ohm, v, i, p, q)
            v, i, u, d = _cell(left1, row_ohm, column_ohm, v, i, u, d)
            along[2 * lanes + n], along[3 * lanes + n] = v, i
            v, i = along[4 * lanes + n], along[5 * lanes + n]
            v, i, p, q = _cell(right2, row_ohm, column_ohm, v, i, p, q)
            v, i, u, d = _cell(left2, row_ohm, column_ohm, v, i, u, d)
            along[4 * lanes + n], along[5 * lanes + n] = v, i
            v, i = along[6 * lanes + n], along[7 * lanes + n]
            v, i, p, q = _cell(right3, row_ohm, column_ohm, v, i, p, q)
            v, i, u, d = _cell(left3, row_ohm, column_ohm, v, i, u, d)
            along[6 * lanes + n], along[7 * lanes + n] = v, i
            part[n], part[lanes + n] = u, d
            part[2 * lanes + n], part[3 * lanes + n] = p, q


@numba.njit(inline="always")
def _cell(
    siemens: float,
    row_ohm: float,
    column_ohm: float,
    row_v: float,
    row_a: float,
    column_v: float,
    column_a: float,
) -> tuple[float, float, float, float]:
    """Return potential and current of the row to the left of a cell, and of the column below."""
    current = siemens * (row_v - column_v)
    row_a += current
    column_a += current
    return row_v + row_ohm * row_a, row_a, column_v - column_ohm * column_a, column_a


@numba.njit(cache=True, nogil=True)
def _row_schur(
    cells: np.ndarray,
    row: float,
    column: float,
    first: bool,
    block: np.ndarray,
    sent: np.ndarray,
) -> None:
    """Eliminate one row wire and the rows above it.

    The wire's matrix is ``A = tridiagonal(row) + diag(cells)``. The lower triangle of `block`, the
    inverse of the row above, becomes ``diag(cells + columns) - diag(cells) A^-1 diag(cells) -
    column^2 block``, `columns` being the segments of column wire at a node; `sent` becomes
    ``diag(cells) A^-1 row e_1``.
    """
    count = cells.shape[0]
    ratio, right = _ratios(cells, row)
    segments = column if first else 2.0 * column
    square = 0.0 if first else column * column
    # Entries of A^-1 in a column are products of ratios downwards from the diagonal.
    left = row  # conductance seen to the left of a node, its segment included
    for j in range(count):
        value = 1.0 / (left + cells[j] + right[j])
        if j == 0:
            potential = value * row
            for i in range(count):
                sent[i] = cells[i] * potential
                potential *= ratio[i]
        block[j, j] = cells[j] + segments - cells[j] * cells[j] * value - square * block[j, j]
        scaled = cells[j] * value
        for i in range(j + 1, count):
            scaled *= ratio[i - 1]
            block[i, j] = -cells[i] * scaled - square * block[i, j]
        seen = left + cells[j]
        left = row * seen / (row + seen)


@numba.njit(cache=True, nogil=True)
def _ratios(cells: np.ndarray, row: float) -> tuple[np.ndarray, np.ndarray]:
    """Return per node of a row wire: potential of the next node over its own when driven from the
    left, and the conductance seen to its right.
    """
    count = cells.shape[0]
    ratio, right = np.zeros(count), np.zeros(count)
    for i in range(count - 2, -1, -1):
        seen = cells[i + 1] + right[i + 1]
        ratio[i] = row / (row + seen)
        right[i] = row * seen / (row + seen)
    return ratio, right


@numba.njit(cache=True, nogil=True)
def _driven(conductances: np.ndarray, row: float) -> np.ndarray:
    """Return T when only the driven wires are resistive: every row is a ladder of its own."""
    result = np.empty_like(conductances)
    for k in range(conductances.shape[0]):
        cells = conductances[k]
        ratio, right = _ratios(cells, row)
        potential = row / (row + cells[0] + right[0])
        for m in range(cells.shape[0]):
            result[k, m] = cells[m] * potential
            potential *= ratio[m]
    return result
