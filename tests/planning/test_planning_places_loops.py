"""The loops that divide arrays among SOI blocks, against all ways there are and plain sums."""

import collections
import itertools

import numpy as np
import pytest

from repast_dist.planning.places_loops import balanced_copies, first_banks, longest_s

MOST = 4


def longest_of(copies, work_s, fixed_s, weight):
    return ((fixed_s + work_s / copies) / weight).max()


@pytest.mark.parametrize("seed", range(20))
def test_no_copies_that_fit_have_a_shorter_longest_time(seed):
    """Two groups of three blocks, in which the longest time is found without the other one."""
    random = np.random.default_rng(seed)
    work_s, fixed_s = random.uniform(0.1, 3.0, 3), random.uniform(0.0, 1.0, 3)
    weight = random.uniform(0.3, 3.0, (2, 3))
    needed, room = random.integers(1, 4, (2, 3)), random.integers(10, 22, 2)
    group = np.array([[0, 0, 0], [1, 1, 1]])
    chosen = balanced_copies(
        work_s, np.full(3, MOST), fixed_s, weight, needed, room, group, len(group)
    )
    for own, mine in enumerate(chosen):
        assert (needed @ mine <= room).all()
        best = min(
            longest_of(copies, work_s, fixed_s, weight[own])
            for copies in map(np.array, itertools.product(range(1, MOST + 1), repeat=3))
            if (needed @ copies <= room).all()
        )
        assert longest_of(mine, work_s, fixed_s, weight[own]) <= best * (1 + 1e-4)


def test_groups_of_one_way_share_no_room():
    group = np.array([[0, 0, 1]])
    copies = balanced_copies(
        np.ones(3), np.full(3, 9), np.zeros(3), np.ones((1, 3)), np.ones((2, 3), int),
        np.array([8, 6]), group, 2,
    )  # fmt: skip
    assert copies.tolist() == [[3, 3, 6]]


@pytest.mark.parametrize("seed", range(10))
def test_no_two_of_a_group_begin_in_one_bank_while_there_are_others(seed):
    random = np.random.default_rng(seed)
    group, banks = np.sort(random.integers(0, 3, (2, 12)), axis=1), 9
    group[1] += 3
    bank = first_banks(random.integers(1, 8, group.shape), group, banks)
    assert ((bank >= 0) & (bank < banks)).all()
    for number in np.unique(group):
        mine = bank[group == number]
        assert len(set(mine.tolist())) == min(len(mine), banks)


def test_those_of_a_group_lie_one_after_the_other_as_far_as_banks_reach():
    wide, group = np.array([3, 2, 2, 9, 1]), np.array([0, 0, 1, 0, 0])
    # The last one begins in the bank of the first one again, and the next free one is taken.
    assert first_banks(wide, group, 14).tolist() == [0, 3, 0, 5, 1]


@pytest.mark.parametrize("seed", range(10))
def test_a_chip_is_done_when_the_longest_queues_of_all_turns_are_or_what_stays(seed):
    random = np.random.default_rng(seed)
    ways, blocks = 3, 8
    turn, bank = random.integers(0, 4, (ways, blocks)), random.integers(0, 3, (ways, blocks))
    busy_s = random.uniform(0.0, 1.0, (2, ways, blocks))
    found = longest_s(turn, bank, busy_s)
    for segment, way in itertools.product(range(2), range(ways)):
        queues = collections.Counter()
        for block in range(blocks):
            queues[turn[way, block], bank[way, block]] += busy_s[segment, way, block]
        longest = {number: 0.0 for number in range(4)}
        for (number, _), seconds in queues.items():
            longest[number] = max(longest[number], seconds)
        in_turn = sum(longest[number] for number in (1, 2, 3))
        assert found[segment, way] == pytest.approx(max(longest[0], in_turn), rel=1e-12)
