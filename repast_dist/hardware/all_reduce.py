"""Textbook times of all-reduce algorithms on P chips of a flat network.

n bytes, latency a, seconds per byte b, local addition c per byte (Thakur et al., 2005; Chan et
al., 2007).
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
    """Return ``2 log2(P) a + 2 n (P-1)/P b + n (P-1)/P c``; other P fold to a power of two first,
    which adds ``2 a + 2 n b + n c``.
    """
    power = 1 << (chips.bit_length() - 1)
    share = size * (power - 1) / power
    time = 2 * math.log2(power) * a + 2 * share * b + share * c
    return time if power == chips else time + 2 * a + 2 * size * b + size * c


def tree_all_reduce_s(chips: int, size: float, a: float, b: float, c: float = 0.0) -> float:
    """Return a binomial reduce and a binomial broadcast: ``ceil(log2 P) (2 a + 2 n b + n c)``."""
    return math.ceil(math.log2(chips)) * (2 * a + 2 * size * b + size * c)


def direct_all_reduce_s(chips: int, size: float, a: float, b: float, c: float = 0.0) -> float:
    """Return ``2 a + 2 n (P-1)/P b + n (P-1)/P c``: everybody sends to everybody at once."""
    share = size * (chips - 1) / chips
    return 2 * a + 2 * share * b + share * c


ALGORITHMS: dict[str, AllReduce] = {
    "ring": ring_all_reduce_s,
    "halving_doubling": halving_doubling_all_reduce_s,
    "tree": tree_all_reduce_s,
}
"""Algorithms that run on any topology, by the name of ``interconnect.all_reduce``."""
