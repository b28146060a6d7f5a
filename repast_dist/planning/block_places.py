"""Divides the arrays of a chip among the SOI blocks that it holds.

Where all blocks fit, each may stay, copied as often as makes the longest solve as short as
possible. Otherwise, or if it is better, only some stay in arrays of their own and the others take
turns in the rest: those of a turn lie side by side, copied so that they take about equally long,
and are programmed in every step. No array waits for others then, at the price of more programming
and wear. The search tries how many blocks stay, how many turns there are, and how copies are
divided between G and A blocks, and times what it tries as the timeline does: A blocks are written
beside the solves of G blocks, and a segment ends when the slowest chip has finished it, which in
steps that renew blocks may be another one than in those that do not.
"""

import dataclasses
import functools
import itertools

import numpy as np

from repast_dist.ground.numbers import ceil_div
from repast_dist.hardware.hardware import Hardware
from repast_dist.hardware.specs import ChipSpec
from repast_dist.planning.block_times import BlockTimes
from repast_dist.planning.places_loops import balanced_copies, first_banks, longest_s, turns_of
from repast_dist.planning.solves import BlockShapes
from repast_dist.planning.specs import Policy

_SHARES = (0.0, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 1.0)
"""Shares of the banks that are tried for blocks that stay."""

_FILLED = (1.0, 0.7, 0.5, 0.35, 0.25, 0.15, 0.08)
"""Shares of the arrays that single copies of the blocks of a turn may take."""

_TIE = 1e-6
"""Writes per step that any time is worth less than."""

_BETTER = 0.97
"""Blocks that could all stay take turns where that brings the goal to this share or less."""

_RATIOS = (1 / 16, 1 / 8, 0.25, 0.4, 0.6, 0.8, 1.0, 1.25, 1.6, 2.5, 4.0, 8.0, 16.0)
"""Ratios that are tried between the times of solving with G and with A blocks, as multiples of
the one that makes their sum smallest if copies were no whole numbers.
"""

_ROUNDS = 4
"""Times that the divisions of all chips are improved one after the other, at most."""


@dataclasses.dataclass(frozen=True, eq=False)
class BlockPlaces:
    """Where blocks lie, one entry per holding; of several ways to place them, (ways, holdings).

    Attributes
    ----------
    copies : ndarray
        Copies of the block on its chip, int64; they divide its right-hand sides.
    turn : ndarray
        Number of the turn, int64, from 1; 0 for blocks that stay. Those of a turn begin when the
        turn before has ended.
    first_bank : ndarray
        First bank, int64; holdings of a chip and a turn that begin in the same bank run one after
        the other.
    """

    copies: np.ndarray
    turn: np.ndarray
    first_bank: np.ndarray

    @property
    def stays(self) -> np.ndarray:
        """Whether the block stays in its arrays, bool; others are programmed in every step."""
        return self.turn == 0

    def take(self, place: np.ndarray) -> "BlockPlaces":
        """Return the places of some holdings."""
        return BlockPlaces(self.copies[place], self.turn[place], self.first_bank[place])


@dataclasses.dataclass(frozen=True, eq=False)
class HeldBlocks:
    """The blocks that chips hold, one entry per holding.

    Attributes
    ----------
    chip : ndarray
        Number of the chip.
    is_g : ndarray of bool
        Whether it is a G block; those are solved before the A blocks.
    times : BlockTimes
        What their rows take.
    """

    chip: np.ndarray
    is_g: np.ndarray
    times: BlockTimes

    @property
    def shapes(self) -> BlockShapes:
        """The blocks, with the right-hand sides that are solved on the chip."""
        return self.times.shapes

    def take(self, place: np.ndarray) -> "HeldBlocks":
        """Return some holdings."""
        return HeldBlocks(self.chip[place], self.is_g[place], self.times.take(place))

    @property
    def key(self) -> bytes:
        """What decides how the blocks are placed on their chip."""
        shapes, times = self.shapes, self.times
        rows = (shapes.held, shapes.fresh)
        columns = (shapes.size, shapes.right_sides, *rows, times.solving_s, self.is_g)
        return b"".join(column.tobytes() for column in columns)


def place_blocks(
    held: HeldBlocks, hardware: Hardware, policy: Policy, chips: int
) -> tuple[BlockPlaces, float]:
    """Divide the arrays of every chip among its blocks.

    Parameters
    ----------
    held : HeldBlocks
        What the chips hold.
    hardware : Hardware
        The chips.
    policy : Policy
        When blocks are renewed, and what the arrays are divided for.
    chips : int
        Number of chips.

    Returns
    -------
    BlockPlaces, float
        The places, and what was made small, per chip: the time per step in seconds, the energy in
        joules, or how often cells of blocks that take turns are written.
    """
    order = np.argsort(held.chip, kind="stable")
    edges = np.searchsorted(held.chip[order], np.arange(chips + 1))
    number: dict[bytes, int] = {}
    found: list[list[_Division]] = []
    mine: list[tuple[int, np.ndarray]] = []
    for start, stop in itertools.pairwise(edges.tolist()):
        if start == stop:
            continue
        holdings = order[start:stop]
        blocks = held if len(holdings) == len(order) else held.take(holdings)
        # Many chips hold blocks of the same shapes.
        key = blocks.key
        if key not in number:
            number[key] = len(found)
            found.append(_divisions(blocks, hardware, policy))
        mine.append((number[key], holdings))
    chosen = _chosen(found, policy)
    copies, turn, bank = np.ones((3, len(held.chip)), np.int64)
    for kind, holdings in mine:
        places = chosen[kind].places
        copies[holdings], turn[holdings] = places.copies, places.turn
        bank[holdings] = places.first_bank
    goal = _goal_together(chosen, [kind for kind, _ in mine], hardware, policy)
    return BlockPlaces(copies, turn, bank), goal


def busy_seconds(held: HeldBlocks, hardware: Hardware) -> np.ndarray:
    """Return the time per step that each holding keeps all arrays of a chip busy, (holdings,): that
    of solving with one copy times the share of the arrays that it takes.
    """
    seconds: np.ndarray = held.times.solving_s * _Rooms.of(held.shapes, hardware.chip).share
    return seconds


def least_solving_s(held: HeldBlocks, hardware: Hardware, products_per_bank: int) -> float:
    """Return the time per step of solving below which no division gets if so many arrays of a bank
    hold residual products: every array of the slowest chip would always be busy.
    """
    shapes = dataclasses.replace(held.shapes, products_per_bank=products_per_bank)
    seconds = held.times.solving_s * _Rooms.of(shapes, hardware.chip).share
    return float(np.bincount(held.chip, seconds).max(initial=0.0))


# Divisions of the arrays of one chip ----------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class _Division:
    """One way to divide the arrays of a chip, and what it leads to.

    Attributes
    ----------
    places : BlockPlaces
        Where the blocks lie.
    segment_s : ndarray
        (kinds of steps, 2) time until the G blocks are solved and all blocks renewed, and of the
        solves with the A blocks, each times the share of such steps.
    writing_j : float
        Energy per step of programming.
    writes : float
        How often the cells of those that take turns are written in a step.
    goal : float
        What is made small where every chip decides for itself.
    """

    places: BlockPlaces
    segment_s: np.ndarray
    writing_j: float
    writes: float
    goal: float

    @property
    def seconds(self) -> float:
        """Time per step."""
        return float(self.segment_s.sum())

    @property
    def dearer(self) -> float:
        """By how much taking turns has to be better."""
        return 1.0 if self.places.stays.all() else 1.0 / _BETTER


def segment_seconds(held: HeldBlocks, ways: BlockPlaces, policy: Policy) -> np.ndarray:
    """Return the time in which one chip renews all blocks and solves with the G blocks, and in
    which it then solves with the A blocks, for each of several ways to place its blocks and for
    each kind of steps, times the share of these; (ways, kinds, 2).

    It is that of the timeline (`repast_dist.planning.timeline`): turns follow each other in either
    segment, beside blocks that stay.
    """
    kinds, turn, stays = held.times.kinds, ways.turn, ways.stays
    busy_s = np.zeros((len(kinds), 2, *turn.shape))
    solves = held.times.solves_s(ways.copies)
    for (first, second), (kind, solve_s) in zip(busy_s, solves, strict=True):
        renewal_s = held.times.renewal_s(kind, stays)
        if policy.soi.stale:
            # Beside later steps.
            renewal_s = np.where(stays, 0.0, renewal_s)
        first[:] = renewal_s + np.where(held.is_g, solve_s, 0.0)
        second[:] = np.where(held.is_g, 0.0, solve_s)
    done_s = longest_s(turn, ways.first_bank, busy_s.reshape(-1, *turn.shape))
    shares = np.array([kind.share for kind in kinds])
    seconds: np.ndarray = shares[:, None] * done_s.reshape(len(kinds), 2, -1).transpose(2, 0, 1)
    return seconds


def _evaluated(
    held: HeldBlocks, ways: BlockPlaces, hardware: Hardware, policy: Policy
) -> list[_Division]:
    """Work out what ways to place the blocks of a chip lead to."""
    stays = ways.stays
    renewals = np.where(stays, held.times.renewals, 1.0)
    writing_j = (held.times.programming_j * ways.copies * renewals).sum(axis=1)
    writes = _turn_writes(held, ways.copies, stays, hardware, policy)
    of_ways = zip(
        map(BlockPlaces, ways.copies, ways.turn, ways.first_bank),
        segment_seconds(held, ways, policy),
        writing_j.tolist(),
        writes.tolist(),
        strict=True,
    )
    return [_division(*way, hardware, policy) for way in of_ways]


def _division(
    places: BlockPlaces,
    segment_s: np.ndarray,
    writing_j: float,
    writes: float,
    hardware: Hardware,
    policy: Policy,
) -> _Division:
    seconds = float(segment_s.sum())
    goals = {
        "time": seconds,
        "energy": writing_j + hardware.costs.static_w * seconds,
        "lifetime": writes + _TIE * seconds / (1.0 + seconds),
    }
    return _Division(places, segment_s, writing_j, writes, goals[policy.partition.objective])


def _turn_writes(
    held: HeldBlocks, copies: np.ndarray, stays: np.ndarray, hardware: Hardware, policy: Policy
) -> np.ndarray:
    """Return the writes per step of the cells that blocks take turns in, (ways,), for copies of
    blocks, (ways, blocks).
    """
    rooms = _Rooms.of(held.shapes, hardware.chip)
    moving = np.where(stays, 0, copies) @ rooms.needed.T
    kept = np.where(stays, policy.soi.array_sets * copies, 0) @ rooms.needed.T
    writes: np.ndarray = (moving / np.maximum(rooms.room - kept, 1)).max(axis=1)
    return writes


def _divisions(held: HeldBlocks, hardware: Hardware, policy: Policy) -> list[_Division]:
    """Return ways to divide the arrays of a chip that are worth a choice; those in which blocks
    take turns only where they may be better.
    """
    rooms = _Rooms.of(held.shapes, hardware.chip, policy.soi.array_sets)
    if not rooms.hold_all:
        return _in_turns(held, hardware, policy, np.inf)
    found = _staying(held, rooms, hardware, policy)
    if len(held.chip) == 1 or policy.partition.objective == "lifetime":
        # What takes turns is written in every step.
        return found
    least = _BETTER * min(division.seconds for division in found)
    # No division is faster than one that keeps every array busy.
    fastest = _Rooms.of(held.shapes, hardware.chip).even_seconds(held.times)
    if policy.partition.objective == "time" and fastest > least:
        return found
    return found + _in_turns(held, hardware, policy, least)


def _chosen(found: list[list[_Division]], policy: Policy) -> list[_Division]:
    """Choose one division for every kind of chips.

    All chips wait for the slowest in either segment, in steps of every kind. For the least time,
    limits are chosen that every chip can keep, so that their sum is small, and then, for each chip,
    what writes least within these limits.
    """
    if policy.partition.objective != "time" or not found:
        return [min(each, key=lambda item: item.goal * item.dearer) for each in found]
    seconds = [np.stack([item.segment_s.ravel() * item.dearer for item in each]) for each in found]
    chosen = _together(seconds, _limited(seconds))
    limits = np.max([own[way] for own, way in zip(seconds, chosen, strict=True)], axis=0)
    kept = [np.flatnonzero((own <= limits).all(axis=1)).tolist() for own in seconds]
    return [
        min(
            (each[way] for way in ways),
            key=lambda item: (item.writes, item.writing_j, item.seconds),
        )
        for each, ways in zip(found, kept, strict=True)
    ]


def _limited(seconds: list[np.ndarray]) -> list[int]:
    """Return a way for every kind of chips with which the longest average over the kinds of steps
    of the one segment and that of the other are shortest together.

    Parameters
    ----------
    seconds : list of ndarray
        Per kind of chips, (ways, kinds of steps times 2).
    """
    columns = [(own[:, 0::2].sum(axis=1), own[:, 1::2].sum(axis=1)) for own in seconds]
    limits = np.unique(np.concatenate([g_s for g_s, _ in columns]))
    limits = limits[limits >= max(g_s.min() for g_s, _ in columns)]
    others = np.zeros(len(limits))
    for g_s, a_s in columns:
        order = np.argsort(g_s)
        least = np.minimum.accumulate(a_s[order])
        others = np.maximum(others, least[np.searchsorted(g_s[order], limits, "right") - 1])
    limit = limits[(limits + others).argmin()]
    return [int(np.where(g_s <= limit, a_s, np.inf).argmin()) for g_s, a_s in columns]


def _together(seconds: list[np.ndarray], chosen: list[int]) -> list[int]:
    """Improve the ways of several kinds of chips, one after the other, until what is made small,
    the longest time of every kind of steps and segment in sum, gets no smaller.
    """
    ways = list(chosen)
    now = np.stack([own[way] for own, way in zip(seconds, ways, strict=True)])
    for _ in range(_ROUNDS):
        before = list(ways)
        for number, own in enumerate(seconds):
            now[number] = 0.0
            totals = np.maximum(own, now.max(axis=0)).sum(axis=1)
            if totals.min() < totals[ways[number]]:
                ways[number] = int(totals.argmin())
            now[number] = own[ways[number]]
        if ways == before:
            break
    return ways


def _goal_together(
    chosen: list[_Division], kinds: list[int], hardware: Hardware, policy: Policy
) -> float:
    """Return what was made small, per chip, for chips of these kinds."""
    if not kinds:
        return 0.0
    seconds = float(np.max([item.segment_s for item in chosen], axis=0).sum())
    if policy.partition.objective == "time":
        return seconds
    if policy.partition.objective == "lifetime":
        return max(item.goal for item in chosen)
    writing_j = sum(chosen[kind].writing_j for kind in kinds) / len(kinds)
    return writing_j + hardware.costs.static_w * seconds


@dataclasses.dataclass(frozen=True, eq=False)
class _Rooms:
    """The arrays that blocks need, and those that there are; inverting and multiplying ones.

    Attributes
    ----------
    needed : ndarray
        (2, blocks) arrays of one copy.
    per_bank : ndarray
        (2,) arrays of a bank.
    banks : int
        Number of banks.
    """

    needed: np.ndarray
    per_bank: np.ndarray
    banks: int

    @classmethod
    def of(cls, shapes: BlockShapes, chip: ChipSpec, sets: int = 1) -> "_Rooms":
        """Return all arrays of a chip, of which a copy takes several sets."""
        needed = sets * np.stack([shapes.inv_arrays, shapes.product_arrays])
        per_bank = np.array([chip.inv.arrays_per_bank, shapes.products_per_bank])
        return cls(needed, per_bank, chip.banks)

    @property
    def room(self) -> np.ndarray:
        """Arrays that there are, (2,)."""
        room: np.ndarray = self.per_bank * self.banks
        return room

    @functools.cached_property
    def share(self) -> np.ndarray:
        """The share of the arrays that one copy of each block takes."""
        share: np.ndarray = self.share_in(np.array([self.banks]))[0]
        return share

    def share_in(self, banks: np.ndarray) -> np.ndarray:
        """Return the same of the arrays of other numbers of banks, (numbers, blocks)."""
        room = np.maximum(self.per_bank * banks[:, None], 1)
        share: np.ndarray = (self.needed / room[:, :, None]).max(axis=1)
        return share

    @property
    def hold_all(self) -> bool:
        """Whether one copy of all blocks fits."""
        return bool((self.needed.sum(axis=1) <= self.room).all())

    def even_seconds(self, times: BlockTimes) -> float:
        """Return the time of solving per step if all arrays were always busy."""
        return float((times.solving_s * self.share).sum())


def _staying(
    held: HeldBlocks, rooms: _Rooms, hardware: Hardware, policy: Policy
) -> list[_Division]:
    """Return divisions in which all blocks stay, with the copies divided between G and A blocks in
    several ways.
    """
    times, chip = held.times, hardware.chip
    everything = np.zeros(len(held.chip), np.int64)
    fixed_s = np.zeros(len(held.chip))
    if not policy.soi.stale:
        fixed_s = np.where(held.is_g, times.renewing_s(everything == 0), 0.0)
    work = np.maximum([(times.solving_s * rooms.share)[kind].sum() for kind in _kinds(held)], 1e-30)
    ratios = np.sqrt(work[0] / work[1]) * np.array(_RATIOS)
    if held.is_g.all() or not held.is_g.any():
        ratios = ratios[:1]
    weight = np.where(held.is_g, ratios[:, None], 1.0)
    group = np.arange(len(ratios))[:, None] + everything
    every = balanced_copies(
        times.solving_s,
        times.most_copies,
        fixed_s,
        weight,
        rooms.needed,
        rooms.room,
        group,
        len(ratios),
    )
    copies = np.stack(list({row.tobytes(): row for row in every}.values()))
    banks = first_banks(copies * times.banks, group[: len(copies)], chip.banks)
    return _evaluated(held, BlockPlaces(copies, 0 * copies, banks), hardware, policy)


def _kinds(held: HeldBlocks) -> tuple[np.ndarray, np.ndarray]:
    """Return masks of G and of A blocks."""
    return held.is_g, ~held.is_g


# Taking turns ---------------------------------------------------------------------------------


def _in_turns(
    held: HeldBlocks, hardware: Hardware, policy: Policy, least_s: float
) -> list[_Division]:
    """Return divisions in which some blocks take turns; for the least time, only of those that may
    take less than `least_s`.
    """
    chip, banks = hardware.chip, held.times.banks
    rooms = _Rooms.of(held.shapes, chip, policy.soi.array_sets)
    order = _worth_staying(held, rooms)
    filled = np.cumsum(rooms.needed[:, order], axis=1)
    # Banks whose arrays hold one copy of the first blocks.
    need = ceil_div(filled, np.maximum(rooms.per_bank, 1)[:, None]).max(axis=0)
    # At least one always takes turns, and the widest has to find room.
    free = chip.banks - int(banks.max())
    single = _Rooms.of(held.shapes, chip)
    counts = np.searchsorted(need, np.array(_SHARES) * free, "right")
    counts = np.unique(np.minimum(counts, len(order) - 1))
    left_banks = chip.banks - np.append(0, need)[counts]
    busy_s = held.times.solving_s * single.share_in(left_banks)
    moving = np.argsort(order) >= counts[:, None]
    found: list[_Division] = []
    for own_banks, own_busy_s, moves in zip(left_banks.tolist(), busy_s, moving, strict=True):
        if policy.partition.objective == "time" and own_busy_s[moves].sum() >= least_s:
            continue
        left = dataclasses.replace(single, banks=own_banks)
        turns = {turn.tobytes(): turn for turn in _turns_of(held, moves, left)}
        ways = _places_in_turn(held, banks, np.stack(list(turns.values())), left)
        tried = _evaluated(held, ways, hardware, policy)
        least_s = min(least_s, *(division.seconds for division in tried))
        found += tried
    return found


def _worth_staying(held: HeldBlocks, rooms: _Rooms) -> np.ndarray:
    """Return the blocks, those first whose programming takes longest per array that they need, but
    those last whose solves on one copy would take longer than all others together on all arrays.
    """
    long = held.times.solving_s > rooms.even_seconds(held.times)
    worth = held.times.programming_s / np.maximum(rooms.share, np.finfo(float).tiny)
    order: np.ndarray = np.lexsort((np.arange(len(worth)), -worth, long))
    return order


def _turns_of(held: HeldBlocks, moving: np.ndarray, left: _Rooms) -> np.ndarray:
    """Return turns if some blocks move in the arrays that the others leave, (ways, blocks): single
    copies of the blocks of a turn take several shares of these. Those of a turn are alike.
    """
    longest_first = []
    for kind in _kinds(held):
        mine = np.flatnonzero(kind & moving)
        longest_first.append(mine[np.argsort(-held.times.solving_s[mine], kind="stable")])
    order = np.concatenate(longest_first)
    turns = turns_of(left.share[order], len(longest_first[0]), np.array(_FILLED))
    every = np.zeros((len(turns), len(moving)), np.int64)
    every[:, order] = turns
    return every


def _places_in_turn(
    held: HeldBlocks, banks: np.ndarray, turns: np.ndarray, left: _Rooms
) -> BlockPlaces:
    """Return places of blocks that take so many banks with each of several turns, (ways, blocks),
    of the same blocks, in the arrays behind those of the others.
    """
    times, chip = held.times, held.times.hardware.chip
    moves, used = turns[0] > 0, chip.banks - left.banks
    mine, kept = np.flatnonzero(moves), np.flatnonzero(~moves)
    fixed_s = np.where(held.is_g, times.renewing_s(~moves), 0.0)
    most = int(turns.max()) + 1
    group = np.arange(len(turns))[:, None] * most + turns.take(mine, axis=1)
    every = balanced_copies(
        times.solving_s[mine],
        times.most_copies[mine],
        fixed_s[mine],
        np.ones(group.shape),
        left.needed.take(mine, axis=1),
        left.room,
        group,
        len(turns) * most,
    )
    copies, begins = np.ones(turns.shape, np.int64), np.zeros(turns.shape, np.int64)
    copies[:, mine] = every
    begins[:, kept] = first_banks(banks[kept], turns[0][kept], max(used, 1))
    begins[:, mine] = used + first_banks(every * banks[mine], group, max(left.banks, 1))
    return BlockPlaces(copies, turns, begins)
