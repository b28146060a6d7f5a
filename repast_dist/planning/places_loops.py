"""The inner loops of dividing a chip's arrays among SOI blocks, compiled by numba: they run for
every way that is tried on every kind of chips, over few blocks each.
"""

import math

import numba
import numpy as np

_BISECTIONS = 18


@numba.njit(cache=True, nogil=True)
def balanced_copies(
    work_s: np.ndarray,
    most: np.ndarray,
    fixed_s: np.ndarray,
    weight: np.ndarray,
    needed: np.ndarray,
    room: np.ndarray,
    group: np.ndarray,
    groups: int,
) -> np.ndarray:
    """Choose copies so that the longest time of each group is as short as its arrays allow.

    A block takes `fixed_s`, and the time `work_s` of solving, which its copies share, as multiples
    of a weight.

    Parameters
    ----------
    work_s, most, fixed_s : ndarray
        (blocks,) times in seconds, float64, and the most copies, int64.
    weight : ndarray
        (ways, blocks), float64.
    needed, room : ndarray
        (2, blocks) inverting and multiplying arrays that one copy takes, and (2,) those that a
        group has, int64.
    group : ndarray
        (ways, blocks) number of the group, int64.
    groups : int
        Number of groups.

    Returns
    -------
    ndarray
        (ways, blocks) copies, int64.
    """
    ways, blocks = group.shape
    high, low, largest = np.zeros(groups), np.zeros(groups), 1
    for way in range(ways):
        for block in range(blocks):
            own = group[way, block]
            high[own] = max(high[own], (fixed_s[block] + work_s[block]) / weight[way, block])
            largest = max(largest, most[block])
    for own in range(groups):
        low[own] = high[own] / largest
    middle, taken = np.empty(groups), np.empty((groups, 2), np.int64)
    for _ in range(_BISECTIONS):
        for own in range(groups):
            middle[own] = math.sqrt(low[own] * high[own])
            taken[own, 0] = taken[own, 1] = 0
        for way in range(ways):
            for block in range(blocks):
                own = group[way, block]
                left = middle[own] * weight[way, block] - fixed_s[block]
                copies = _copies(work_s[block], most[block], left)
                taken[own, 0] += copies * needed[0, block]
                taken[own, 1] += copies * needed[1, block]
        for own in range(groups):
            if taken[own, 0] <= room[0] and taken[own, 1] <= room[1]:
                high[own] = middle[own]
            else:
                low[own] = middle[own]
    chosen = np.empty((ways, blocks), np.int64)
    for way in range(ways):
        for block in range(blocks):
            left = high[group[way, block]] * weight[way, block] - fixed_s[block]
            chosen[way, block] = _copies(work_s[block], most[block], left)
    return chosen


@numba.njit(cache=True, nogil=True)
def _copies(work_s: float, most: int, left_s: float) -> int:
    """Return the fewest copies, of so many, that solve within a time."""
    shortest_s = work_s / most
    if left_s <= shortest_s:
        return most if work_s > 0.0 else 1
    return min(max(math.ceil(work_s / left_s), 1), most)


def first_banks(wide: np.ndarray, group: np.ndarray, banks: int) -> np.ndarray:
    """Return the first bank of every holding if those of a group lie one after the other, and on
    from the first bank where the last one is passed: a bank may have several arrays. Those that
    would then begin in the same bank as another begin in one in which none does, if there is one.

    Parameters
    ----------
    wide, group : ndarray
        (...) banks of each, and the number of its group, int64.
    banks : int
        Number of banks.

    Returns
    -------
    ndarray
        (...), int64.
    """
    order = np.argsort(group, axis=None, kind="stable")
    return _first_banks(wide.ravel(), group.ravel(), order, banks).reshape(group.shape)


@numba.njit(cache=True, nogil=True)
def _first_banks(wide: np.ndarray, group: np.ndarray, order: np.ndarray, banks: int) -> np.ndarray:
    bank = np.empty(len(group), np.int64)
    # The last group in which some block begins in a bank, and those that begin where one does.
    begun, late = np.full(banks, -1), np.empty(len(group), np.int64)
    start = 0
    while start < len(group):
        number, stop = group[order[start]], start
        filled, moved = 0, 0
        while stop < len(group) and group[order[stop]] == number:
            block = order[stop]
            place = filled % banks
            bank[block] = place
            filled += wide[block]
            if begun[place] == number:
                late[moved] = block
                moved += 1
            begun[place] = number
            stop += 1
        free = 0
        for place in range(moved):
            while free < banks and begun[free] == number:
                free += 1
            if free == banks:
                break
            bank[late[place]] = free
            free += 1
        start = stop
    return bank


def longest_s(turn: np.ndarray, bank: np.ndarray, busy_s: np.ndarray) -> np.ndarray:
    """Return when a chip is done: blocks of a turn that begin in the same bank run one after the
    other, and turns follow each other, beside turn 0.

    Parameters
    ----------
    turn, bank : ndarray
        (ways, blocks) each block's turn and first bank, int64.
    busy_s : ndarray
        (segments, ways, blocks) for how long it keeps its arrays busy, float64.

    Returns
    -------
    ndarray
        (segments, ways), float64.
    """
    order = np.argsort(turn, axis=1, kind="stable")
    return _longest_s(turn, bank, order, busy_s, np.zeros(int(bank.max()) + 1))


@numba.njit(cache=True, nogil=True)
def _longest_s(
    turns: np.ndarray, banks: np.ndarray, orders: np.ndarray, busy_s: np.ndarray, ends_s: np.ndarray
) -> np.ndarray:
    segments, ways, blocks = busy_s.shape
    done_s = np.empty((segments, ways))
    for way in range(ways):
        turn, bank, order = turns[way], banks[way], orders[way]
        for segment in range(segments):
            busy = busy_s[segment, way]
            beside_s, in_turn_s, start = 0.0, 0.0, 0
            while start < blocks:
                number, stop, longest = turn[order[start]], start, 0.0
                while stop < blocks and turn[order[stop]] == number:
                    place = bank[order[stop]]
                    ends_s[place] += busy[order[stop]]
                    longest = max(longest, ends_s[place])
                    stop += 1
                for place in range(start, stop):
                    ends_s[bank[order[place]]] = 0.0
                if number == 0:
                    beside_s = longest
                else:
                    in_turn_s += longest
                start = stop
            done_s[segment, way] = max(beside_s, in_turn_s)
    return done_s


@numba.njit(cache=True, nogil=True)
def turns_of(share: np.ndarray, first: int, filled: np.ndarray) -> np.ndarray:
    """Return the turn of each block, from 1: as many follow each other in one as take a share of
    the arrays together.

    Parameters
    ----------
    share : ndarray
        (blocks,) share of the arrays that one copy takes.
    first : int
        Blocks from this one on are in other turns than those before.
    filled : ndarray
        (ways,) shares that a turn may take; one block may take more.

    Returns
    -------
    ndarray
        (ways, blocks), int64.
    """
    turns = np.empty((len(filled), len(share)), np.int64)
    for way in range(len(filled)):
        turn, taken = 1, 0.0
        for block in range(len(share)):
            beyond = taken > 0.0 and taken + share[block] > filled[way]
            if beyond or (block == first and first > 0):
                turn, taken = turn + 1, 0.0
            turns[way, block] = turn
            taken += share[block]
    return turns
