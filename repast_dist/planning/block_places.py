"""Divides the arrays of a chip among the SOI blocks that it holds.

Where all blocks fit, each may stay, copied as often as makes the longest solve as short as
possible. Otherwise, or if it is better, only some stay in arrays of their own and the others take
turns in the rest: those of a turn lie side by side, copied so that they take about equally long,
and are programmed in every step. No array waits for others then, at the price of more programming
and wear. The search tries how many blocks stay and how many turns there are, with the modelled
costs of programming and solving.
"""

import dataclasses

import numpy as np

from repast_dist.ground.numbers import ceil_div
from repast_dist.hardware.hardware import Hardware
from repast_dist.hardware.specs import ChipSpec
from repast_dist.planning.block_costs import BlockCosts, block_banks
from repast_dist.planning.solves import BlockShapes
from repast_dist.planning.specs import Policy

_BISECTIONS = 18

_SHARES = (0.0, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 1.0)
"""Shares of the banks that are tried for blocks that stay."""

_FILLED = (1.0, 0.7, 0.5, 0.35, 0.25, 0.15, 0.08)
"""Shares of the arrays that single copies of the blocks of a turn may take."""

_TIE = 1e-6
"""Writes per step that any time is worth less than."""

_BETTER = 0.97
"""Blocks that could all stay take turns where that brings the goal to this share or less."""


@dataclasses.dataclass(frozen=True, eq=False)
class BlockPlaces:
    """Where blocks lie, one entry per holding.

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
    shapes : BlockShapes
        The blocks, with the right-hand sides that are solved on the chip.
    costs : BlockCosts
        Modelled times and energies on one copy.
    """

    chip: np.ndarray
    is_g: np.ndarray
    shapes: BlockShapes
    costs: BlockCosts

    def take(self, place: np.ndarray) -> "HeldBlocks":
        """Return some holdings."""
        shapes = self.shapes.shared(place, self.shapes.right_sides[place])
        return HeldBlocks(self.chip[place], self.is_g[place], shapes, self.costs.take(place))

    @property
    def key(self) -> bytes:
        """What decides how the blocks are placed on their chip."""
        shapes, costs = self.shapes, self.costs
        columns = (shapes.size, shapes.right_sides, shapes.held, costs.solving_s, self.is_g)
        return b"".join(column.tobytes() for column in columns)


def place_blocks(held: HeldBlocks, hardware: Hardware, policy: Policy, chips: int) -> BlockPlaces:
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
    """
    chip = hardware.chip
    rooms = _Rooms(held.shapes, chip, policy.soi.array_sets)
    once = np.ones(len(held.chip), np.int64)
    fits = rooms.hold(once, held.chip, chips)
    copies = _balanced_copies(held, rooms, held.chip, chips)
    turn = np.zeros(len(once), np.int64)
    wide = copies * block_banks(held.shapes, chip)
    bank = _first_banks(wide, held.chip, chip.banks)
    places = BlockPlaces(copies, turn, bank)
    order = np.argsort(held.chip, kind="stable")
    edges = np.searchsorted(held.chip[order], np.arange(chips + 1))
    known: dict[bytes, BlockPlaces | None] = {}
    for number in np.flatnonzero(np.diff(edges)):
        mine = order[edges[number] : edges[number + 1]]
        blocks = held.take(mine)
        # Many chips hold blocks of the same shapes.
        key = blocks.key
        if key not in known:
            staying = places.take(mine) if fits[number] else None
            known[key] = _better(blocks, staying, hardware, policy)
        turns = known[key]
        if turns is not None:
            copies[mine], turn[mine], bank[mine] = turns.copies, turns.turn, turns.first_bank
    return places


def _better(
    held: HeldBlocks, staying: BlockPlaces | None, hardware: Hardware, policy: Policy
) -> BlockPlaces | None:
    """Return how the blocks of a chip take turns, or None if it is better that all stay."""
    if staying is None:
        return _best_turns(held, hardware, policy)
    if len(held.chip) == 1 or policy.partition.objective == "lifetime":
        # What takes turns is written in every step.
        return None
    least = _BETTER * _goal(held, staying, hardware, policy)
    # No division is faster than one that keeps every array busy.
    fastest = _Rooms(held.shapes, hardware.chip).even_seconds(held.costs)
    if policy.partition.objective == "time" and fastest > least:
        return None
    turns = _best_turns(held, hardware, policy)
    return turns if _goal(held, turns, hardware, policy) < least else None


class _Rooms:
    """The arrays that blocks need, by kind, and those that a chip has."""

    def __init__(
        self, shapes: BlockShapes, chip: ChipSpec, sets: int = 1, banks: int | None = None
    ) -> None:
        self.needed = sets * np.stack([shapes.inv_arrays, shapes.product_arrays])
        self.per_bank = np.array([chip.inv.arrays_per_bank, chip.residual.arrays_per_bank])
        self.room = self.per_bank * (chip.banks if banks is None else banks)

    @property
    def share(self) -> np.ndarray:
        """The share of the arrays that one copy of each block takes."""
        share: np.ndarray = (self.needed / np.maximum(self.room, 1)[:, None]).max(axis=0)
        return share

    def hold(self, copies: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
        """Return, per group of blocks, whether these copies of them fit together."""
        fits = np.ones(groups, bool)
        for kind, room in zip(self.needed, self.room, strict=True):
            fits &= np.bincount(group, copies * kind, groups) <= room
        return fits

    def even_seconds(self, costs: BlockCosts) -> float:
        """Return the time of solving per step if all arrays were always busy."""
        return float((costs.solving_s * self.share).sum())

    def banks_of(self, blocks: np.ndarray) -> int:
        """Return the banks whose arrays hold one copy of these blocks."""
        needed = self.needed[:, blocks].sum(axis=1)
        return int(ceil_div(needed, np.maximum(self.per_bank, 1)).max(initial=0))


def _balanced_copies(held: HeldBlocks, rooms: _Rooms, group: np.ndarray, groups: int) -> np.ndarray:
    """Choose the copies of blocks so that the longest solve of each group is as short as the arrays
    allow that the group has together.
    """
    cost = held.costs.per_step_s
    if not len(cost):
        return np.zeros(0, np.int64)
    most = np.maximum(held.shapes.right_sides, 1)

    def copies_for(longest: np.ndarray) -> np.ndarray:
        copies: np.ndarray = np.minimum(np.ceil(cost / longest[group]), most).astype(np.int64)
        return np.maximum(copies, 1)

    high = np.full(groups, float(cost.max()))
    low = high / float(most.max())
    for _ in range(_BISECTIONS):
        middle = np.sqrt(low * high)
        fits = rooms.hold(copies_for(middle), group, groups)
        high, low = np.where(fits, middle, high), np.where(fits, low, middle)
    return copies_for(high)


def _first_banks(wide: np.ndarray, group: np.ndarray, banks: int) -> np.ndarray:
    """Return the first bank of every holding if those of a group lie one after the other, and on
    from the first bank where the last one is passed: a bank may have several arrays. Those that
    would then begin in the same bank as another begin in one in which none does, if there is one.
    """
    order = np.argsort(group, kind="stable")
    before = np.cumsum(wide[order]) - wide[order]
    start = np.searchsorted(group[order], group[order])
    bank = np.zeros(len(group), np.int64)
    bank[order] = (before - before[start]) % banks
    place = group * banks + bank
    _, first = np.unique(place, return_index=True)
    late = np.ones(len(group), bool)
    late[first] = False
    for number in np.unique(group[late]).tolist():
        begun = np.zeros(banks, bool)
        begun[bank[(group == number) & ~late]] = True
        free = np.flatnonzero(~begun)
        moved = np.flatnonzero(late & (group == number))[: len(free)]
        bank[moved] = free[: len(moved)]
    return bank


# Taking turns ---------------------------------------------------------------------------------


def _best_turns(held: HeldBlocks, hardware: Hardware, policy: Policy) -> BlockPlaces:
    """Return where the blocks of a chip lie that does not hold them all: the fastest way, or the
    one that takes least energy.
    """
    chip, banks = hardware.chip, block_banks(held.shapes, hardware.chip)
    rooms = _Rooms(held.shapes, chip, policy.soi.array_sets)
    order = _worth_staying(held, rooms)
    filled = np.cumsum(rooms.needed[:, order], axis=1)
    need = ceil_div(filled, np.maximum(rooms.per_bank, 1)[:, None]).max(axis=0)
    # At least one always takes turns, and the widest has to find room.
    free = chip.banks - int(banks.max())
    best, least = None, np.inf
    counts = {int(np.searchsorted(need, share * free, "right")) for share in _SHARES}
    for count in sorted({min(count, len(order) - 1) for count in counts}):
        moving = np.ones(len(banks), bool)
        moving[order[:count]] = False
        used, blocks = rooms.banks_of(~moving), held.take(np.flatnonzero(moving))
        left = _Rooms(blocks.shapes, chip, banks=chip.banks - used)
        if policy.partition.objective == "time" and left.even_seconds(blocks.costs) >= least:
            continue
        tried = set()
        for filled_share in _FILLED:
            turn = _turns_of(held, chip, moving, used, filled_share)
            if turn.tobytes() in tried:
                continue
            tried.add(turn.tobytes())
            places = _in_turns(held, chip, turn, used)
            goal = _goal(held, places, hardware, policy)
            if goal < least:
                best, least = places, goal
    assert best is not None
    return best


def _worth_staying(held: HeldBlocks, rooms: _Rooms) -> np.ndarray:
    """Return the blocks, those first whose programming takes longest per array that they need, but
    those last whose solves on one copy would take longer than all others together on all arrays.
    """
    long = held.costs.solving_s > rooms.even_seconds(held.costs)
    worth = held.costs.renewing_s / np.maximum(rooms.share, np.finfo(float).tiny)
    order: np.ndarray = np.lexsort((np.arange(len(worth)), -worth, long))
    return order


def _turns_of(
    held: HeldBlocks, chip: ChipSpec, moving: np.ndarray, used: int, filled: float
) -> np.ndarray:
    """Return turns if some blocks move in the banks behind those that are used by the others, and
    single copies of the blocks of a turn take a share of these banks.
    """
    turn = np.zeros(len(moving), np.int64)
    rooms = _Rooms(held.shapes, chip, banks=chip.banks - used)
    for kind in (held.is_g, ~held.is_g):
        mine = np.flatnonzero(kind & moving)
        turns = _turns(held.costs.solving_s[mine], rooms.share[mine], filled)
        turn[mine] = int(turn.max()) + 1 + turns
    return turn


def _in_turns(held: HeldBlocks, chip: ChipSpec, turn: np.ndarray, used: int) -> BlockPlaces:
    """Return places of blocks with these turns, in the banks behind those that the others use."""
    wide = block_banks(held.shapes, chip)
    copies = np.ones(len(turn), np.int64)
    bank = np.zeros(len(turn), np.int64)
    kept = np.flatnonzero(turn == 0)
    bank[kept] = _first_banks(wide[kept], turn[kept], max(used, 1))
    mine = np.flatnonzero(turn)
    blocks = held.take(mine)
    room = _Rooms(blocks.shapes, chip, banks=chip.banks - used)
    copies[mine] = _balanced_copies(blocks, room, turn[mine], int(turn.max()) + 1)
    left = max(chip.banks - used, 1)
    bank[mine] = used + _first_banks(copies[mine] * wide[mine], turn[mine], left)
    return BlockPlaces(copies, turn, bank)


def _turns(seconds: np.ndarray, share: np.ndarray, filled: float) -> np.ndarray:
    """Return the turn of each block, from 0: the longest first, so that those of a turn are alike,
    as many as take a share of the arrays together.
    """
    order = np.argsort(-seconds, kind="stable")
    turn, number, taken = np.zeros(len(order), np.int64), 0, 0.0
    for place, part in zip(order.tolist(), share[order].tolist(), strict=True):
        if taken and taken + part > filled:
            number, taken = number + 1, 0.0
        turn[place] = number
        taken += part
    return turn


def _goal(held: HeldBlocks, places: BlockPlaces, hardware: Hardware, policy: Policy) -> float:
    """Return what the arrays are divided for: the time per step of G and A blocks; the energy that
    depends on their places, which is that of programming and what the chip leaks meanwhile; or how
    often the cells of those that take turns are written in a step, of the same by time.
    """
    costs = held.costs
    renewals = np.where(places.stays, 1.0 / costs.interval, 1.0)
    busy = costs.solving_s / places.copies + costs.renewing_s * renewals
    seconds = sum(_longest(places, busy * kind) for kind in (held.is_g, ~held.is_g))
    if policy.partition.objective == "time":
        return seconds
    if policy.partition.objective == "lifetime":
        return _turn_writes(held, places, hardware, policy) + _TIE * seconds / (1.0 + seconds)
    programming_j = float((costs.renewing_j * places.copies * renewals).sum())
    return programming_j + hardware.costs.static_w * seconds


def _turn_writes(
    held: HeldBlocks, places: BlockPlaces, hardware: Hardware, policy: Policy
) -> float:
    """Return the writes per step of the cells that blocks take turns in."""
    rooms = _Rooms(held.shapes, hardware.chip)
    moving = np.where(places.stays, 0, places.copies) * rooms.needed
    kept = np.where(places.stays, policy.soi.array_sets * places.copies, 0) * rooms.needed
    left = np.maximum(rooms.room - kept.sum(axis=1), 1)
    return float((moving.sum(axis=1) / left).max())


def _longest(places: BlockPlaces, busy: np.ndarray) -> float:
    """Return when a chip is done: turns follow each other, beside blocks that stay."""
    turns, banks = int(places.turn.max()) + 1, int(places.first_bank.max()) + 1
    ends = np.bincount(places.turn * banks + places.first_bank, busy, turns * banks)
    longest = ends.reshape(turns, banks).max(axis=1)
    return float(max(longest[0], longest[1:].sum()))
