"""``float32``: products by the BLAS that NumPy has, on any machine."""

import numpy as np

from repast_dist.analog.kernels.base import EXACT_FLOAT32, Kernels, Tile, step_of
from repast_dist.analog.kernels.memory import reused
from repast_dist.ground.numbers import ceil_div

_ANSWER_STEP = 2.0**-16
"""Of what curved cells answer: sums of its multiples are exact in float64."""


def bends(answers: np.ndarray) -> bool:
    """Whether cells answer to some digit with something else."""
    return bool((answers != np.arange(len(answers))).any())


class FloatTile(Tile):
    """A tile for the BLAS: float32, or float64 where sums would not be exact.

    Parameters
    ----------
    levels, whole, answers
        See `Kernels.tile`.
    """

    def __init__(self, levels: np.ndarray, whole: bool, answers: np.ndarray) -> None:
        self.rows, self.columns = levels.shape
        self.step = 1.0 if whole else step_of(levels)
        held = np.ascontiguousarray(levels if whole else levels * np.float32(1.0 / self.step))
        bound = float(np.abs(held).sum(axis=0, dtype=np.float64).max(initial=0.0))
        bound *= len(answers) - 1
        self._answers = None
        if bends(answers):
            self._answers = np.rint(np.asarray(answers, np.float64) / _ANSWER_STEP) * _ANSWER_STEP
            bound /= _ANSWER_STEP
        # Currents that are whole numbers below a bound leave room for a second pass.
        base = 2.0 * bound + 1.0
        self.base = base if whole and bound * (base + 1.0) < EXACT_FLOAT32 else 0.0
        self._held = held if bound < EXACT_FLOAT32 else held.astype(np.float64)

    def plane_memory(self, samples: int, passes: int, packed: bool = True) -> np.ndarray:
        """Return memory for planes, of which each holds two passes where there is a base."""
        count = ceil_div(passes, 2) if packed and self.base else passes
        return reused("planes", (samples, count, self.rows), self._held.dtype)

    def planes(self, integers: np.ndarray, bits: int, passes: int, out: np.ndarray) -> None:
        """Write what is applied in each pass, or what cells answer to it."""
        super().planes(integers, bits, passes, out)
        if self._answers is not None:
            np.copysign(self._answers[np.abs(out).astype(np.int64)], out, out=out)

    def product(self, planes: np.ndarray, out: np.ndarray) -> None:
        """Write the currents of planes."""
        if self._held.dtype == out.dtype:
            np.matmul(planes, self._held, out=out)
        else:
            out[:] = planes @ self._held


class Float32(Kernels):
    """Products by NumPy's BLAS."""

    name = "float32"

    def tile(self, levels: np.ndarray, whole: bool, answers: np.ndarray) -> Tile:
        """Return some rows of a multiplier, ready for products."""
        return FloatTile(levels, whole, answers)
