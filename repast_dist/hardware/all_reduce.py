"""Gives textbook times of all-reduce algorithms on P chips of a flat network.

Each chip holds n bytes; a message takes a latency of a seconds and b seconds per byte, and adding
received numbers takes c seconds per byte (Thakur et al., 2005; Chan et al., 2007).
"""

import math
from collections.abc import Callable

AllReduce = Callable[[int, float, float, float, float], float]


def ring_all_reduce_s(chips: int, size: float, a: float, b: float, c: float = 0.0) -> float:
    """Return ``2 (P-1) a + 2 n (P-1)/P b + n (P-1)/P c``."""
    share = size * (chips - 1) / chips
    return 2 * (chips - 1) * a + 2 * share * b + share * c


def halving_doubling_all_reduce_s(
    chips: int, size: float, a: float, b: float, c: float = 0.0
) -> float:
    """Return ``2 log2(P) a + 2 n (P-1)/P b + n (P-1)/P c``, for P a power of two. For another P,
    the chips beyond a power of two first send their data to others, and get the result back in the
    end, which adds ``2 a + 2 n b + n c``.
    """
    power = 1 << (chips.bit_length() - 1)
    share = size * (power - 1) / power
    time = 2 * math.log2(power) * a + 2 * share * b + share * c
    return time if power == chips else time + 2 * a + 2 * size * b + size * c


def tree_all_reduce_s(chips: int, size: float, a: float, b: float, c: float = 0.0) -> float:
    """Return ``ceil(log2 P) (2 a + 2 n b + n c)``: a binomial reduce, then a binomial broadcast."""
    return math.ceil(math.log2(chips)) * (2 * a + 2 * size * b + size * c)


def direct_all_reduce_s(chips: int, size: float, a: float, b: float, c: float = 0.0) -> float:
    """Return ``2 a + 2 n (P-1)/P b + n (P-1)/P c``: every chip sends to all others at once."""
    share = size * (chips - 1) / chips
    return 2 * a + 2 * share * b + share * c


ALGORITHMS: dict[str, AllReduce] = {
    "ring": ring_all_reduce_s,
    "halving_doubling": halving_doubling_all_reduce_s,
    "tree": tree_all_reduce_s,
}
"""Algorithms that run on any topology, by the name of ``interconnect.all_reduce``."""
