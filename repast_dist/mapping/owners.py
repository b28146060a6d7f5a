"""Who owns which SOI block and which micro-batch."""

import heapq
from collections.abc import Sequence
from typing import Literal

import numpy as np

from repast_dist.mapping.blocks import SoiBlock

BlockStrategy = Literal["lpt", "round_robin", "layer", "owner"]


def micro_batch_owners(
    micro_batches: int,
    owners: int,
    strategy: Literal["round_robin", "contiguous"],
    speeds: Sequence[float] = (),
) -> tuple[int, ...]:
    """Return the owner of every micro-batch.

    Parameters
    ----------
    micro_batches, owners : int
        How many there are.
    strategy : str
        In turn, or neighbours together.
    speeds : sequence of float
        Relative speed of every owner; where they differ, each micro-batch goes to the owner that
        would have it done first, and `strategy` plays no part.
    """
    if len(set(speeds)) > 1:
        return _earliest_done(micro_batches, speeds)
    if strategy == "round_robin":
        return tuple(number % owners for number in range(micro_batches))
    return tuple(number * owners // micro_batches for number in range(micro_batches))


def _earliest_done(micro_batches: int, speeds: Sequence[float]) -> tuple[int, ...]:
    ends = [(1.0 / speed, owner) for owner, speed in enumerate(speeds)]
    heapq.heapify(ends)
    owners = []
    for _ in range(micro_batches):
        end, owner = heapq.heappop(ends)
        owners.append(owner)
        heapq.heappush(ends, (end + 1.0 / speeds[owner], owner))
    return tuple(owners)


def block_owners(
    blocks: tuple[SoiBlock, ...],
    costs_s: np.ndarray,
    chips: int,
    strategy: BlockStrategy,
    speeds: Sequence[float] = (),
) -> tuple[int, ...]:
    """Return the chip that owns every block.

    Parameters
    ----------
    blocks : tuple of SoiBlock
        The blocks.
    costs_s : ndarray
        Modelled work per block and step.
    chips : int
        Chips at hand.
    strategy : str
        ``lpt``: the most expensive first, each to the chip with the least work so far.
        ``layer``: the same with whole factors and cost n^3, as K-FAC libraries do.
        ``round_robin``: in turn. ``owner``: all on chip 0.
    speeds : sequence of float
        Relative speed of every chip; empty: all the same. ``lpt`` and ``layer`` heed it.
    """
    if strategy == "owner":
        return (0,) * len(blocks)
    if strategy == "round_robin":
        return tuple(number % chips for number in range(len(blocks)))
    if strategy == "lpt":
        return tuple(longest_first(costs_s, chips, speeds).tolist())
    factors = [(block.layer, block.factor) for block in blocks]
    names = list(dict.fromkeys(factors))
    place = {name: number for number, name in enumerate(names)}
    widths = np.zeros(len(names))
    for block, factor in zip(blocks, factors, strict=True):
        widths[place[factor]] += block.size
    owner = longest_first(widths**3, chips, speeds)
    return tuple(int(owner[place[factor]]) for factor in factors)


def longest_first(costs: np.ndarray, chips: int, speeds: Sequence[float] = ()) -> np.ndarray:
    """Return the chip of every job: the longest first, each to the least loaded chip.

    Load is work over relative speed (empty `speeds`: all the same). Ties go to the lower chip
    number, so the answer does not depend on anything else.
    """
    speed = speeds or (1.0,) * chips
    owner = np.zeros(len(costs), np.int64)
    load = [(0.0, chip) for chip in range(chips)]
    for job in np.argsort(-np.asarray(costs), kind="stable"):
        busy, chip = heapq.heappop(load)
        owner[job] = chip
        heapq.heappush(load, (busy + float(costs[job]) / speed[chip], chip))
    return owner


def balance(costs: np.ndarray, owner: tuple[int, ...], chips: int) -> float:
    """Return the efficiency of an assignment: mean work over the busiest chip's; 1 is perfect."""
    load = np.bincount(np.asarray(owner, np.int64), costs, minlength=chips)
    return float(load.mean() / load.max()) if len(costs) and load.max() > 0 else 1.0
