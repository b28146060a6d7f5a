"""Types of numbers in settings, and arithmetic that several rooms share."""

import math
from typing import Annotated, Any, overload

import numpy as np
from annotated_types import Ge, Gt, Le, Lt

from repast_dist.ground.errors import DataError

PositiveInt = Annotated[int, Ge(1)]
Count = Annotated[int, Ge(0)]
Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Fraction = Annotated[float, Ge(0), Lt(1)]
Rate = Annotated[float, Ge(0), Le(1)]

BITS_PER_BYTE = 8

_ROUNDING = 1e-9


def real_numbers(values: Any, name: str) -> np.ndarray:
    """Return an array of real numbers, float64.

    Raises
    ------
    DataError
        They are complex, or no numbers.
    """
    try:
        array = np.asarray(values)
        if np.iscomplexobj(array):
            raise DataError(f"{name}: holds complex numbers; valid: real ones")
        return array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name}: no array of numbers ({error})") from None


def some_of(share: float, count: int) -> int:
    """Return how many of `count` things are a share of them, rounded up, at least one."""
    return max(1, math.ceil(share * count - _ROUNDING))


@overload
def ceil_div(left: int, right: int) -> int: ...


@overload
def ceil_div(left: np.ndarray, right: int | np.ndarray) -> np.ndarray: ...


@overload
def ceil_div(left: int, right: np.ndarray) -> np.ndarray: ...


def ceil_div(left: Any, right: Any) -> Any:
    """Divide and round up, for non-negative integers or arrays of them."""
    return -(-left // right)
