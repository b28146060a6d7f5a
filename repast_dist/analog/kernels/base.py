"""What a kind of machine must be able to do for products on crossbars.

All kernels compute the same numbers, bit for bit. Currents are sums of whole multiples of a step,
a power of two, far below what a level is worth: their exact sum is rounded to float32 once,
whatever the order in which a unit adds.
"""

import abc
import math

import numpy as np

from repast_dist.analog.kernels.conversion import bit_planes, convert_and_add
from repast_dist.analog.kernels.draws import round_to_steps

LARGEST_STEPS = 127 * 256 + 127
"""Steps that a pair can hold: what two 8-bit numbers, the upper one in units of 256, reach."""

EXACT_FLOAT32 = 2.0**24
"""Whole numbers up to here are exact in float32."""


def step_of(levels: np.ndarray) -> float:
    """Return the step for what pairs hold: the smallest power of two of which `LARGEST_STEPS` are
    enough.

    Parameters
    ----------
    levels : ndarray
        What pairs hold, in levels, any shape and float dtype.
    """
    largest = max(float(levels.max(initial=0.0)), -float(levels.min(initial=0.0)))
    return 2.0 ** math.ceil(math.log2(largest / LARGEST_STEPS)) if largest > 0 else 1.0


def in_steps(levels: np.ndarray) -> np.ndarray:
    """Return what pairs hold rounded to whole steps, in levels: float32, the same shape."""
    rounded = np.empty(levels.shape, np.float32)
    round_to_steps(np.ascontiguousarray(levels).reshape(-1), step_of(levels), rounded.reshape(-1))
    return rounded


class Tile(abc.ABC):
    """What some rows of a multiplier hold, ready for products.

    Attributes
    ----------
    rows, columns : int
        Its size; columns of all slices.
    step : float
        What one unit of the currents is worth, in levels.
    base : float
        What separates two passes that share a plane; 0 where each has its own.
    """

    rows: int
    columns: int
    step: float
    base: float

    @abc.abstractmethod
    def plane_memory(self, samples: int, passes: int, packed: bool = True) -> np.ndarray:
        """Return reused memory for `planes`, (samples, planes, rows) of the tile's dtype.

        Parameters
        ----------
        samples, passes : int
            How many there are.
        packed : bool
            Passes may share planes if there is a base.
        """

    def planes(self, integers: np.ndarray, bits: int, passes: int, out: np.ndarray) -> None:
        """Write what is applied in each pass, or pair of passes; see `bit_planes`.

        Parameters
        ----------
        integers : ndarray
            (N, rows) int32.
        bits, passes : int
            Magnitude bits per pass, passes per input.
        out : ndarray
            (N, planes, rows), of `plane_memory`.
        """
        base = self.base if out.shape[1] < passes else 0.0
        bit_planes(integers, bits, passes, base, out)

    @abc.abstractmethod
    def product(self, planes: np.ndarray, out: np.ndarray) -> None:
        """Write the currents of planes: (n, rows) to (n, columns) float32, in steps."""


class Kernels(abc.ABC):
    """The hot path of products on one kind of machine.

    Attributes
    ----------
    name : str
        As in ``farm.kernels`` and in results.
    """

    name: str

    @abc.abstractmethod
    def tile(self, levels: np.ndarray, whole: bool, answers: np.ndarray) -> Tile:
        """Return some rows of a multiplier, ready for products.

        Parameters
        ----------
        levels : ndarray
            (rows, columns) float32, what pairs hold, in levels: whole multiples of a step.
        whole : bool
            Whether they are whole levels.
        answers : ndarray
            What cells answer to the digits of a pass from 0 to the largest, which is the last one;
            the digits themselves where cells are linear.
        """

    convert_and_add = staticmethod(convert_and_add)
    """Converts currents and adds them; see `conversion.convert_and_add`."""
