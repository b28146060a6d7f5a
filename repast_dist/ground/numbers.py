"""Types of numbers in settings, and arithmetic that several rooms share."""

from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, Lt

PositiveInt = Annotated[int, Ge(1)]
Count = Annotated[int, Ge(0)]
Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Fraction = Annotated[float, Ge(0), Lt(1)]
Rate = Annotated[float, Ge(0), Le(1)]

BITS_PER_BYTE = 8


def ceil_div(left: Any, right: Any) -> Any:
    """Divide and round up, for non-negative integers or arrays of them."""
    return -(-left // right)
