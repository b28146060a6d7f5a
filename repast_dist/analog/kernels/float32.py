"""``float32``: products on any machine.

Digits of one bit need no multiplication: currents are sums of the rows that are driven, of noisy
cells pass by pass (`summed.py`), of whole levels those of several passes together (`driven.py`).
Everything else, and tiles of whole levels that are too small for that, goes to the BLAS that NumPy
has.
"""

import numpy as np

from repast_dist.analog.kernels.base import (
    EXACT_FLOAT32,
    Design,
    Drawn,
    DrawnColumns,
    Held,
    Kernels,
    step_of,
)
from repast_dist.analog.kernels.conversion import bit_planes
from repast_dist.analog.kernels.driven import DrivenTile
from repast_dist.analog.kernels.memory import reused
from repast_dist.analog.kernels.summed import Summed, sums_are_exact
from repast_dist.analog.kernels.tiles import Tile, Tiled, TileMaker
from repast_dist.analog.kernels.together import Together
from repast_dist.ground.numbers import ceil_div

_ANSWER_STEP = 2.0**-16
"""Of what curved cells answer: sums of its multiples are exact in float64."""

_LEAST_ROWS, _LEAST_COLUMNS, _LEAST_CELLS = 64, 128, 2**15
"""Of a tile whose rows are summed: to put them in order costs more than it saves below, and small
tiles are faster together.
"""

_MOST_ROWS = 2**16


class FloatTile(Tile):
    """A tile for the BLAS: float32, or float64 where sums would not be exact.

    Parameters
    ----------
    blocks, design
        See `TileMaker` and `Design`.
    """

    def __init__(self, blocks: list[np.ndarray], design: Design) -> None:
        whole = design.whole
        self.rows, self.slices, _ = blocks[0].shape
        self.step = 1.0 if whole else largest_step(blocks)
        held = [
            np.ascontiguousarray(block if whole else block * np.float32(1.0 / self.step)).reshape(
                self.rows, self.slices * block.shape[2]
            )
            for block in blocks
        ]
        bound = _largest_sum(held) * float(np.abs(design.answers).max())
        self._answers = None
        if design.bends:
            # (1, digits), or a row of them for every row.
            answers = np.atleast_2d(np.asarray(design.answers, np.float64))
            self._answers = np.rint(answers / _ANSWER_STEP) * _ANSWER_STEP
            bound /= _ANSWER_STEP
        # Currents that are whole numbers below a bound leave room for a second pass; only a power
        # of two divides them without rounding.
        base = 2.0 ** int(2.0 * bound).bit_length()
        packs = whole and not design.bends and bound * (base + 1.0) < EXACT_FLOAT32
        self.base = base if packs else 0.0
        exact = np.float32 if bound < EXACT_FLOAT32 else np.float64
        self._held = [block.astype(exact, copy=False) for block in held]

    def drive(
        self, integers: np.ndarray, bits: int, passes: int, packed: bool = True
    ) -> np.ndarray:
        """Return what is applied in each pass or pair of passes, or what cells answer to it."""
        base = self.base if packed else 0.0
        count = ceil_div(passes, 2) if base else passes
        planes = reused("planes", (len(integers), count, self.rows), self._held[0].dtype)
        bit_planes(integers, bits, passes, base, planes)
        if self._answers is not None:
            row = np.arange(self.rows) if len(self._answers) > 1 else 0
            # A DAC may be so far off that it drives a digit the other way.
            planes[:] = np.sign(planes) * self._answers[row, np.abs(planes).astype(np.int64)]
        return planes

    def currents(self, driven: np.ndarray, block: int, columns: int) -> np.ndarray:
        """Return the currents of a block of columns."""
        samples, planes, _ = driven.shape
        currents = reused("currents", (samples, planes, 1, self.slices, columns), np.float32)
        out = currents.reshape(samples * planes, self.slices * columns)
        rows = driven.reshape(samples * planes, self.rows)
        if self._held[block].dtype == out.dtype:
            np.matmul(rows, self._held[block], out=out)
        else:
            out[:] = rows @ self._held[block]
        return currents

    def energies(self, integers: np.ndarray, bits: int, passes: int) -> np.ndarray:
        """Return the sum of squares of what cells answer in each pass, (N, passes) float32."""
        if self._answers is None:
            return super().energies(integers, bits, passes)
        energies = np.empty((len(integers), passes), np.float32)
        planes = self.drive(integers, bits, passes, packed=False)
        np.sum(np.square(planes), axis=2, out=energies)
        return energies


def largest_step(blocks: list[np.ndarray]) -> float:
    """Return the step for what the blocks of a tile hold, in levels."""
    ends = [end for block in blocks for end in (block.max(initial=0.0), block.min(initial=0.0))]
    return step_of(np.array(ends))


def _largest_sum(blocks: list[np.ndarray]) -> float:
    """Return the largest sum of magnitudes of a column, of blocks (rows, columns)."""
    sums = (np.abs(block).sum(axis=0, dtype=np.float64).max(initial=0.0) for block in blocks)
    return float(max(sums, default=0.0))


def sums_rows(rows: int, columns: int, design: Design) -> bool:
    """Return whether the currents of a tile are sums of its rows, `DrivenTile`."""
    large = _LEAST_ROWS <= rows < _MOST_ROWS and columns >= _LEAST_COLUMNS
    large &= rows * columns >= _LEAST_CELLS
    return large and design.top == 1 and not design.bends


def any_tile(blocks: list[np.ndarray], design: Design) -> Tile:
    """Return a tile that needs no unit of its own; see `TileMaker`."""
    rows, slices, _ = blocks[0].shape
    if sums_rows(rows, slices * sum(block.shape[2] for block in blocks), design):
        return DrivenTile(blocks, 1.0 if design.whole else largest_step(blocks))
    return FloatTile(blocks, design)


def hold(levels: np.ndarray, design: Design, make: TileMaker, alone: bool = False) -> Held:
    """Return tiles that are worked on one after the other, or together where the BLAS multiplies.

    Parameters
    ----------
    levels, design, make
        See `Tiled`.
    alone : bool
        Whether something else multiplies.
    """
    rows = min(design.rows, levels.shape[1])
    alone |= sums_rows(rows, levels.shape[2] * levels.shape[3], design)
    # Whole levels leave room for two passes in one plane, which is faster still.
    if alone or design.whole or design.bends or not levels.size:
        return Tiled(levels, design, make)
    return Together.of_levels(levels, design)


class Float32(Kernels):
    """Products without units of their own."""

    name = "float32"

    def hold(self, levels: np.ndarray, design: Design) -> Held:
        """Return what multipliers hold, ready for products."""
        if not _summed(levels.shape, design):
            return hold(levels, design, any_tile)
        return Summed.of_levels(levels, design)

    def draw(self, drawn: Drawn | DrawnColumns, design: Design) -> Held:
        """Return what multipliers hold, written where it is drawn, once for all columns."""
        if not _summed(drawn.shape, design):
            return super().draw(drawn, design)
        if isinstance(drawn, DrawnColumns):
            return Summed.of_drawn(drawn.whole, design).columns(drawn.start, drawn.stop)
        return Summed.of_drawn(drawn, design)


def _summed(shape: tuple[int, ...], design: Design) -> bool:
    # Of whole levels, two passes share a plane, or twice as many columns are added at a time.
    return sums_are_exact(shape, design) and not design.whole
