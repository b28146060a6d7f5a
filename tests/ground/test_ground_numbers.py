"""Arithmetic that several rooms share, against the definition."""

import math
from fractions import Fraction

import numpy as np

from repast_dist.ground.numbers import ceil_div


def test_division_that_rounds_up_is_exact_for_numbers_and_for_arrays():
    left, right = np.arange(0, 60), np.arange(1, 13)
    wanted = [[math.ceil(Fraction(int(a), int(b))) for b in right] for a in left]
    assert ceil_div(left[:, None], right).tolist() == wanted
    assert [[ceil_div(int(a), int(b)) for b in right] for a in left] == wanted
    # Floating point would round 2**62 / 3 and so on.
    assert ceil_div(2**62 + 1, 3) == (2**62 + 1 + 2) // 3
