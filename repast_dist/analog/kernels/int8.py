"""``int8``: products by matrix units or dot products of 8-bit numbers, through oneDNN.

Signed digits of a pass times whole levels are products of 8-bit numbers. What noisy cells hold,
whole steps of up to 16 bits, is an upper and a lower 8-bit part, side by side.
"""

import numpy as np

from repast_dist.analog.kernels.base import EXACT_FLOAT32, Design, Held, Kernels
from repast_dist.analog.kernels.conversion import bit_planes
from repast_dist.analog.kernels.float32 import any_tile, hold, largest_step, sums_rows
from repast_dist.analog.kernels.memory import reused
from repast_dist.analog.kernels.onednn import OneDnn
from repast_dist.analog.kernels.tiles import Tile

_TOP = 127
_UPPER = 256
_LEAST_WORK = 2**15
"""Multiplications of a tile with one sample, below which calling the library costs more."""


class Int8Tile(Tile):
    """A tile of one or two 8-bit parts.

    Parameters
    ----------
    library : OneDnn
        Multiplies.
    blocks, whole
        See `TileMaker` and `Design`; whole levels are at most 127, others become two parts.
    """

    def __init__(self, library: OneDnn, blocks: list[np.ndarray], whole: bool) -> None:
        self._library = library
        self.rows, self.slices, _ = blocks[0].shape
        self.step = 1.0 if whole else largest_step(blocks)
        self.parts = 1 if whole else 2
        self._held = [self._cut(block.reshape(self.rows, -1), whole) for block in blocks]
        self._packed: dict[tuple[int, int], np.ndarray] = {}

    def _cut(self, levels: np.ndarray, whole: bool) -> np.ndarray:
        """Return (rows, columns) as (rows, parts * columns) int8."""
        if whole:
            return levels.astype(np.int8)
        steps = (levels * np.float32(1.0 / self.step)).astype(np.int32)
        upper = (steps + _UPPER // 2) >> 8
        return np.concatenate([upper, steps - _UPPER * upper], axis=1).astype(np.int8)

    def drive(
        self, integers: np.ndarray, bits: int, passes: int, packed: bool = True
    ) -> np.ndarray:
        """Return what is applied in each pass."""
        planes = reused("planes", (len(integers), passes, self.rows), np.int8)
        bit_planes(integers, bits, passes, 0.0, planes)
        return planes

    def currents(self, driven: np.ndarray, block: int, columns: int) -> np.ndarray:
        """Return the currents of a block of columns."""
        samples, planes, _ = driven.shape
        shape = samples, planes, self.parts, self.slices, columns
        currents = reused("currents", shape, np.int32)
        width = self.parts * self.slices * columns
        multiply = self._library.product((samples * planes, self.rows, width))
        layout = block, multiply.layout
        if layout not in self._packed:
            self._packed[layout] = multiply.pack(self._held[block])
        multiply(driven, self._packed[layout], currents)
        return currents


class Int8(Kernels):
    """Products of 8-bit numbers by oneDNN.

    Parameters
    ----------
    library : OneDnn
        On a processor with instructions for them.
    """

    name = "int8"

    def __init__(self, library: OneDnn) -> None:
        self._library = library

    def hold(self, levels: np.ndarray, design: Design) -> Held:
        """Return what multipliers hold, ready for products.

        Digits that do not fit or are answered by something else, sums that would not be exact, and
        small tiles are multiplied without the library, with the same numbers; so are two parts of
        what noisy cells hold where there is no matrix unit and rows can be summed instead.
        """

        def tile(blocks: list[np.ndarray], design: Design) -> Tile:
            size = sum(block.size for block in blocks)
            if not self._multiplies(len(blocks[0]), size, design):
                return any_tile(blocks, design)
            largest = max(float(np.abs(block).max(initial=0.0)) for block in blocks)
            return Int8Tile(self._library, blocks, design.whole and largest <= _TOP)

        rows = min(design.rows, levels.shape[1])
        size = rows * levels.shape[2] * levels.shape[3]
        return hold(levels, design, tile, self._multiplies(rows, size, design))

    def _multiplies(self, rows: int, size: int, design: Design) -> bool:
        """Return whether the library multiplies with tiles of so many rows and cells."""
        exact = design.top <= _TOP and rows * design.top * (_UPPER // 2) < EXACT_FLOAT32
        twice = not (design.whole or self._library.has_matrix_unit)
        summed = twice and sums_rows(rows, size // max(rows, 1), design)
        return exact and size >= _LEAST_WORK and not (design.bends or summed)
