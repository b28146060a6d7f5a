"""Chooses the chip that owns each SOI block and each micro-batch."""

import dataclasses
import heapq
from collections.abc import Sequence
from typing import Literal

import numpy as np

from repast_dist.planning.blocks import SoiBlock

BlockStrategy = Literal["lpt", "capacity", "round_robin", "layer", "owner"]


@dataclasses.dataclass
class Room:
    """The arrays that jobs need and that chips have.

    Attributes
    ----------
    needed : ndarray
        (jobs, kinds) arrays of each kind.
    capacity : ndarray
        (kinds,) arrays of each kind that one chip has.
    chips : int
        Number of chips.
    """

    needed: np.ndarray
    capacity: np.ndarray
    chips: int

    def __post_init__(self) -> None:
        self._left = np.tile(self.capacity, (self.chips, 1))

    def holds(self, chip: int, job: int) -> bool:
        """Whether the chip still has the arrays that the job needs."""
        return bool((self.needed[job] <= self._left[chip]).all())

    def take(self, chip: int, job: int) -> None:
        """Give arrays of the chip to the job."""
        self._left[chip] -= self.needed[job]


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
        ``round_robin``: to the owners in turn; ``contiguous``: consecutive ones to the same owner.
    speeds : sequence of float
        Relative speed of every owner; if they differ, each micro-batch goes to the owner that would
        finish it first, and `strategy` is not used.
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
    room: Room | None = None,
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
        ``lpt``: the most expensive first, each to the chip that is done with it first; G blocks
        are solved before A blocks, so each kind is spread on its own.
        ``capacity``: the most demanding first, by work or by arrays, each to the chip that is done
        with it first, of those whose arrays still hold it.
        ``layer``: the same with whole factors and cost n^3, as K-FAC libraries do.
        ``round_robin``: in turn. ``owner``: all on chip 0.
    speeds : sequence of float
        Relative speed of every chip; empty: all the same. ``round_robin`` and ``owner`` ignore it.
    room : Room, optional
        Arrays that blocks need and chips have, for ``capacity``.
    """
    if strategy == "owner" or chips == 1:
        return (0,) * len(blocks)
    if strategy == "round_robin":
        return tuple(number % chips for number in range(len(blocks)))
    if strategy == "lpt":
        return _spread_by_kind(blocks, costs_s, chips, speeds)
    if strategy == "capacity":
        return tuple(longest_first(costs_s, chips, speeds, room=room).tolist())
    factors = [(block.layer, block.factor) for block in blocks]
    names = list(dict.fromkeys(factors))
    place = {name: number for number, name in enumerate(names)}
    widths = np.zeros(len(names))
    for block, factor in zip(blocks, factors, strict=True):
        widths[place[factor]] += block.size
    owner = longest_first(widths**3, chips, speeds)
    return tuple(int(owner[place[factor]]) for factor in factors)


def _spread_by_kind(
    blocks: tuple[SoiBlock, ...], costs_s: np.ndarray, chips: int, speeds: Sequence[float]
) -> tuple[int, ...]:
    owner = np.zeros(len(blocks), np.int64)
    work = np.zeros(chips)
    for factor in ("G", "A"):
        mine = np.array([b.index for b in blocks if b.factor == factor], np.int64)
        owner[mine] = longest_first(costs_s[mine], chips, speeds, work)
        work += np.bincount(owner[mine], costs_s[mine], chips)
    return tuple(owner.tolist())


def longest_first(
    costs: np.ndarray,
    chips: int,
    speeds: Sequence[float] = (),
    before: np.ndarray | None = None,
    room: Room | None = None,
) -> np.ndarray:
    """Return the chip of every job: the longest first, each to the chip that is done with it first.

    Of chips of the same speed (empty `speeds`: all) that is the least loaded one. Ties go to the
    chip with less work `before`, then to the lower chip number, so the result depends on nothing
    else. With `room`, jobs that need many arrays also come early, and a job goes to a chip that has
    arrays left for it; if there is none, to the one that would be done first.
    """
    earlier = np.zeros(chips) if before is None else before
    size = np.asarray(costs, np.float64)
    if room is not None:
        share = (room.needed / np.maximum(room.capacity, 1)).max(axis=1, initial=0.0)
        size = np.maximum(size * chips / max(size.sum(), np.finfo(float).tiny), share)
    order = np.argsort(-size, kind="stable")
    if len(set(speeds)) > 1:
        return _done_first(costs, order, np.array(speeds), earlier, room)
    owner = np.zeros(len(costs), np.int64)
    load = [(0.0, float(earlier[chip]), chip) for chip in range(chips)]
    heapq.heapify(load)
    for job in order:
        passed = []
        while room is not None and load and not room.holds(load[0][2], job):
            passed.append(heapq.heappop(load))
        if not load:
            passed, load = [], passed
        busy, first, chip = heapq.heappop(load)
        owner[job] = chip
        if room is not None:
            room.take(chip, job)
        for entry in (*passed, (busy + float(costs[job]), first, chip)):
            heapq.heappush(load, entry)
    return owner


def _done_first(
    costs: np.ndarray,
    order: np.ndarray,
    speeds: np.ndarray,
    earlier: np.ndarray,
    room: Room | None,
) -> np.ndarray:
    """Return the chip of every job, of chips of unequal speeds; jobs come in an order."""
    owner, busy_s = np.zeros(len(costs), np.int64), np.zeros(len(speeds))
    for job in order:
        ends_s = busy_s + costs[job] / speeds
        soonest = np.lexsort((earlier, ends_s)).tolist()
        chip = next((c for c in soonest if room is None or room.holds(c, job)), soonest[0])
        owner[job], busy_s[chip] = chip, ends_s[chip]
        if room is not None:
            room.take(chip, job)
    return owner


def balance(
    costs: np.ndarray, owner: Sequence[int], chips: int, kinds: Sequence[str] = ()
) -> float:
    """Return the efficiency of an assignment: mean work divided by the most of any chip; 1 is best.

    If jobs are of `kinds` that wait for each other, such as G and A blocks, each kind has its own
    busiest chip.
    """
    costs, places = np.asarray(costs, np.float64), np.asarray(owner, np.int64)
    labels = np.asarray(kinds or ("",) * len(costs))
    busiest = sum(
        float(np.bincount(places, costs * (labels == kind), minlength=chips).max())
        for kind in np.unique(labels)
    )
    return float(costs.sum()) / chips / busiest if busiest > 0 else 1.0
