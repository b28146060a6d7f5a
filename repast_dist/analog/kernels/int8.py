"""``int8``: products by matrix units or dot products of 8-bit numbers, through oneDNN.

Signed digits of a pass times whole levels are products of 8-bit numbers. What noisy cells hold,
whole steps of up to 16 bits, is an upper and a lower 8-bit part: two products.
"""

import numpy as np

from repast_dist.analog.kernels.base import EXACT_FLOAT32, Kernels, Tile, step_of
from repast_dist.analog.kernels.float32 import FloatTile, bends
from repast_dist.analog.kernels.memory import reused
from repast_dist.analog.kernels.onednn import OneDnn

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
    levels, whole
        See `Kernels.tile`; whole levels are at most 127, others become two parts.
    """

    base = 0.0

    def __init__(self, library: OneDnn, levels: np.ndarray, whole: bool) -> None:
        self._library = library
        self.rows, self.columns = levels.shape
        if whole:
            self.step = 1.0
            self._parts = [levels.astype(np.int8)]
        else:
            self.step = step_of(levels)
            steps = (levels * np.float32(1.0 / self.step)).astype(np.int32)
            upper = (steps + _UPPER // 2) >> 8
            self._parts = [upper.astype(np.int8), (steps - _UPPER * upper).astype(np.int8)]
        self._packed: dict[int, list[np.ndarray]] = {}

    def plane_memory(self, samples: int, passes: int, packed: bool = True) -> np.ndarray:
        """Return memory for planes, one for every pass."""
        return reused("planes", (samples, passes, self.rows), np.int8)

    def product(self, planes: np.ndarray, out: np.ndarray) -> None:
        """Write the currents of planes."""
        shape = len(planes), self.rows, self.columns
        for number in range(len(self._parts)):
            multiply = self._library.product(shape, float(_UPPER) if number else 0.0)
            if multiply.layout not in self._packed:
                packed = [multiply.pack(part) for part in self._parts]
                self._packed[multiply.layout] = packed
            multiply(planes, self._packed[multiply.layout][number], out)


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

    def tile(self, levels: np.ndarray, whole: bool, answers: np.ndarray) -> Tile:
        """Return some rows of a multiplier, ready for products.

        Digits that do not fit or are answered by something else, sums that would not be exact, and
        small tiles go to the BLAS, with the same numbers.
        """
        top = len(answers) - 1
        exact = top <= _TOP and len(levels) * top * (_UPPER // 2) < EXACT_FLOAT32
        if bends(answers) or not exact or levels.size < _LEAST_WORK:
            return FloatTile(levels, whole, answers)
        whole = whole and float(np.abs(levels).max(initial=0.0)) <= _TOP
        return Int8Tile(self._library, levels, whole)
