"""Variation that cells share: those of an array, of one of its rows or columns, or of a chip."""

import numpy as np

from repast_dist.analog.cells.base import Cell
from repast_dist.analog.cells.use import CellUse
from repast_dist.analog.specs import VariationSpec
from repast_dist.ground.numbers import ceil_div
from repast_dist.ground.rng import generator, place


def shared_factors(
    shape: tuple[int, int],
    array: tuple[int, int],
    variation: VariationSpec,
    use: CellUse,
    seed: int,
    *address: int | str,
) -> np.ndarray:
    """Return what conductances are multiplied with: one plus the deviations of a cell's chip,
    array, row and column, which are independent.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of cells.
    array : tuple of int
        Those of one array, over which the cells are spread.
    variation : VariationSpec
        How large the deviations are.
    use : CellUse
        The chip that the arrays are on.
    seed, *address
        Address of the arrays; they deviate alike each time they are written.

    Returns
    -------
    ndarray
        `shape`, float64, not negative.
    """
    rows, columns = shape
    tall, wide = ceil_div(rows, array[0]), ceil_div(columns, array[1])
    random = generator(seed, "variation", *place(address))
    of_arrays = variation.array_sigma * random.standard_normal((tall, wide))
    of_rows = variation.row_sigma * random.standard_normal((rows, wide))
    of_columns = variation.column_sigma * random.standard_normal((tall, columns))
    die = 0.0
    if variation.die_sigma:
        die = variation.die_sigma * generator(seed, "die", use.chip).standard_normal()
    factors = np.empty(shape)
    for down in range(tall):
        for along in range(wide):
            row = slice(down * array[0], (down + 1) * array[0])
            column = slice(along * array[1], (along + 1) * array[1])
            part = 1.0 + of_arrays[down, along] + of_rows[row, along, None]
            np.add(part, of_columns[down, column], out=factors[row, column])
    factors += die
    return np.maximum(factors, 0.0, out=factors)


def scaled(relative: np.ndarray, factors: np.ndarray, cell: Cell) -> np.ndarray:
    """Return relative conductances of cells whose whole conductance is multiplied."""
    offset = cell.g_off_siemens / cell.span_siemens
    result: np.ndarray = (relative + offset) * factors - offset
    return result
