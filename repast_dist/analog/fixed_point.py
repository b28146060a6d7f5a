"""Fixed point: numbers as whole multiples of a step that their largest sets."""

import math

import numpy as np

from repast_dist.analog.kernels.columns import largest, round_columns


def rounded(matrix: np.ndarray, bits: int) -> np.ndarray:
    """Round to `bits` bits of the largest entry, sign included."""
    codes, step = codes_of(matrix, bits)
    codes *= step
    return codes


def codes_of(matrix: np.ndarray, bits: int) -> tuple[np.ndarray, float]:
    """Return whole numbers of `bits` bits, sign included, and what one of them is worth."""
    largest = float(np.max(np.abs(matrix), initial=0.0))
    step = (largest if largest > 0 else 1.0) / (2 ** (bits - 1) - 1)
    codes = matrix / step
    return np.rint(codes, out=codes), step


def exponent_of(values: np.ndarray) -> int:
    """Return the exponent of the power of two just above the largest entry; 0 for zeros."""
    return int(np.frexp(np.max(np.abs(values), initial=0.0))[1])


def shared_step(largest: float, bits: int) -> float:
    """Return what one unit of whole numbers of `bits` bits, sign included, stands for.

    It is the smallest power of two that cuts off nothing up to `largest`, which a digital unit
    finds from the highest bit of the largest number and applies by shifts. Up to one of the bits
    stays unused. It is 1 for zeros.
    """
    mantissa, exponent = math.frexp(largest / (2.0 ** (bits - 1) - 1))
    return math.ldexp(1.0, exponent - (mantissa == 0.5)) if largest > 0 else 1.0


def codes_of_columns(values: np.ndarray, bits: int | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return whole numbers of so many bits, sign included, of all columns or of each, and what one
    of each column is worth.
    """
    values = np.ascontiguousarray(values, np.float64)
    reach = largest(values)
    reach[~(reach > 0)] = 1.0
    step = reach / (2 ** (bits - 1) - 1)
    return round_columns(values, step), step
