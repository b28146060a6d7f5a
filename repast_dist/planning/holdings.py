"""Chooses the chips that hold the solver of each SOI block and divide its right-hand sides.

KAISA (Pauloski et al., SC 2021) lets a fraction of the workers hold the inverse of a layer and
repeat its preconditioning, which saves the exchange of the result. Here the weights are gathered
from all chips anyway, so chips that hold a block divide the work instead of repeating it: solves
get shorter, but arrays, programming and the exchange of factors grow.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from repast_dist.ground.numbers import ceil_div
from repast_dist.planning.blocks import SoiBlock, even_ranges
from repast_dist.planning.specs import Policy, StepWork

Ranges = tuple[tuple[int, int], ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Holdings:
    """One entry per block and chip that holds it; those of the owners come first, in block order.

    Attributes
    ----------
    block, chip : ndarray
        (holdings,) int64, number of the block and of the chip.
    right_sides : ndarray
        (holdings,) right-hand sides that the chip solves for per step.
    ranges : tuple
        Per holding, (start, stop) of the right-hand sides that are solved together.
    whole : bool
        Whether holdings are the blocks, in order, each with all of its right-hand sides.
    """

    block: np.ndarray
    chip: np.ndarray
    right_sides: np.ndarray
    ranges: tuple[Ranges, ...]
    whole: bool

    def __len__(self) -> int:
        return len(self.block)


@functools.lru_cache(maxsize=64)
def _all_ranges(right_sides: tuple[int, ...], at_once: int) -> tuple[Ranges, ...]:
    """Return the right-hand sides of each block that are solved together."""
    return tuple(solve_ranges(count, at_once) for count in right_sides)


@functools.lru_cache(maxsize=4096)
def solve_ranges(right_sides: int, at_once: int) -> Ranges:
    """Return the right-hand sides of a block that are solved together.

    They depend on the block alone, so the result does not depend on which chip solves what.
    """
    return tuple(even_ranges(right_sides, max(1, ceil_div(right_sides, at_once))))


def make_holdings(
    blocks: tuple[SoiBlock, ...],
    owner: Sequence[int],
    right_sides: np.ndarray,
    costs_s: np.ndarray,
    policy: Policy,
    work: StepWork,
) -> Holdings:
    """Choose the chips with the least work to hold each block besides its owner.

    Parameters
    ----------
    blocks, owner : sequence
        The blocks and their owners.
    right_sides, costs_s : ndarray
        Right-hand sides and modelled work per block.
    policy : Policy
        Share of the chips that hold a block (at least its owner does, at most as many as have
        something to solve), and right-hand sides that are solved together.
    work : StepWork
        The chips and their speeds.
    """
    at_once = policy.soi.right_sides_at_once
    ranges = _all_ranges(tuple(right_sides.tolist()), at_once)
    wanted = max(1, int(np.ceil(policy.partition.grad_worker_fraction * work.chips - 1e-9)))
    if wanted == 1:
        alone = np.arange(len(blocks)), np.array(owner, np.int64)
        return Holdings(*alone, right_sides.astype(np.int64), ranges, whole=True)
    holders = [[int(chip)] for chip in owner]
    counts = np.array([min(wanted, len(item)) for item in ranges])
    _add_holders(holders, counts, blocks, costs_s, work.speeds or (1.0,) * work.chips)
    order = [(place, b) for b, item in enumerate(holders) for place in range(len(item))]
    order.sort()
    taken = [_part(ranges[b], place, len(holders[b])) for place, b in order]
    return Holdings(
        block=np.array([b for _, b in order], np.int64),
        chip=np.array([holders[b][place] for place, b in order], np.int64),
        right_sides=np.array([sum(b - a for a, b in item) for item in taken], np.int64),
        ranges=tuple(taken),
        whole=False,
    )


def _add_holders(
    holders: list[list[int]],
    counts: np.ndarray,
    blocks: tuple[SoiBlock, ...],
    costs_s: np.ndarray,
    speeds: Sequence[float],
) -> None:
    """Add holders to the owners; since G blocks are solved before A blocks, each kind is spread
    alone.
    """
    speed = np.asarray(speeds, np.float64)
    for factor in ("G", "A"):
        mine = [block.index for block in blocks if block.factor == factor]
        load = np.zeros(len(speed))
        for number in mine:
            chip = holders[number][0]
            load[chip] += costs_s[number] / counts[number] / speed[chip]
        for number in sorted(mine, key=lambda block: -costs_s[block]):
            share = costs_s[number] / counts[number]
            free = load + share / speed
            free[holders[number][0]] = np.inf
            chosen = np.argsort(free, kind="stable")[: counts[number] - 1]
            load[chosen] += share / speed[chosen]
            holders[number] += chosen.tolist()


def _part(ranges: Ranges, place: int, holders: int) -> Ranges:
    first, last = (len(ranges) * edge // holders for edge in (place, place + 1))
    return ranges[first:last]
