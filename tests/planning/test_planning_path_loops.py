"""The loops that divide arrays among layers, against all divisions there are."""

import itertools

import numpy as np
import pytest

from repast_dist.planning.path_loops import (
    choices,
    joined,
    may_reach,
    smallest_limit,
    together,
)

SEEDS = range(12)
KINDS, OPTIONS = 3, 5
REAL = np.array([OPTIONS, OPTIONS - 2, OPTIONS])


def stages(random, options):
    """Seconds of both stages, of which some options do not exist and some are alike."""
    seconds = np.sort(random.integers(1, 12, (2, KINDS, options)), axis=2)[:, :, ::-1] / 8.0
    seconds[:, 0, 0] = np.inf
    return np.ascontiguousarray(seconds)


def a_path(random):
    """Options of kinds of layers: more and more arrays, shorter and shorter limits."""
    arrays = np.cumsum(random.integers(1, 9, (KINDS, OPTIONS)), axis=1)
    limit_s = np.sort(random.uniform(0.1, 4.0, (KINDS, OPTIONS)), axis=1)[:, ::-1].copy()
    cost = np.sort(random.uniform(0.1, 4.0, (KINDS, OPTIONS)), axis=1)[:, ::-1].copy()
    kind_of = np.array([0, 1, 1, 2, 0])
    return arrays, limit_s, cost, REAL, np.bincount(kind_of), kind_of


def every_choice(kind_of):
    """Yield the options, of all layers, of every division there is."""
    real = [range(REAL[kind]) for kind in kind_of]
    yield from (np.array(choice) for choice in itertools.product(*real))


@pytest.mark.parametrize("seed", SEEDS)
def test_options_for_weights_and_inputs_keep_every_limit_with_the_first_that_do(seed):
    random = np.random.default_rng(seed)
    of_weights, of_pools = stages(random, 6), stages(random, 4)
    weight, pool, real = joined(of_weights, of_pools)
    for kind in range(KINDS):
        both = [seconds[:, kind].max(axis=0) for seconds in (of_weights, of_pools)]
        limits = sorted({limit for column in both for limit in column.tolist()}, reverse=True)
        expected = [
            tuple(int((column <= limit).argmax()) for column in both)
            for limit in limits
            if np.isfinite(limit) and all((column <= limit).any() for column in both)
        ]
        found = list(zip(weight[kind].tolist(), pool[kind].tolist(), strict=True))
        assert found[: real[kind]] == expected


def test_options_together_take_the_slower_of_both_stages_and_the_arrays_of_both():
    of_weights = np.array([[[[4.0, 1.0]], [[2.0, 1.0]]]])
    of_pools = np.array([[[[3.0, 0.5]], [[5.0, 0.5]]]])
    weight, pool, real = joined(of_weights[0], of_pools[0])
    arrays, limit_s, cost, seconds = together(
        weight, pool, real, of_weights, of_pools,
        (np.array([[1, 7]]), np.array([[2, 30]])), np.array([[0.25, 0.0]]), 10.0, 4.0,
    )  # fmt: skip
    assert real.tolist() == [3]
    assert list(zip(weight[0, :3], pool[0, :3], strict=True)) == [(0, 0), (0, 1), (1, 1)]
    assert arrays.tolist() == [[3, 31, 37]]
    assert limit_s.tolist() == [[5.0, 4.0, 1.0]]
    assert seconds[0, :, 0].tolist() == [[4.0, 4.0, 1.0], [5.0, 2.0, 1.0]]
    assert cost.tolist() == [[10 * 9.0 + 1.0, 10 * 6.0 + 1.0, 10 * 2.0]]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_smallest_limit_is_that_of_all_divisions_that_fit(seed):
    random = np.random.default_rng(seed)
    arrays, limit_s, _, real, layers, kind_of = a_path(random)
    for used in (3, 20, 45, 80, 10**6):
        fitting = [
            limit_s[kind_of, choice].max()
            for choice in every_choice(kind_of)
            if arrays[kind_of, choice].sum() <= used
        ]
        assert smallest_limit(arrays, limit_s, real, layers, used) == min(fitting, default=np.inf)


@pytest.mark.parametrize("slowest", [0.0, 0.7, 20.0])
@pytest.mark.parametrize("seed", SEEDS)
def test_no_goal_that_a_division_reaches_is_said_to_be_out_of_reach(seed, slowest):
    random = np.random.default_rng(seed)
    arrays, limit_s, cost, real, layers, kind_of = a_path(random)
    used = int(arrays[kind_of, 0].sum()) + int(random.integers(0, 25))
    goals = [
        cost[kind_of, choice].sum() + slowest * limit_s[kind_of, choice].max()
        for choice in every_choice(kind_of)
        if arrays[kind_of, choice].sum() <= used
    ]
    smallest = smallest_limit(arrays, limit_s, real, layers, used)

    def reached(goal):
        return may_reach(arrays, limit_s, cost, real, layers, used, slowest, smallest, goal)

    assert reached(min(goals) * (1 + 1e-9))
    assert not reached(0.0)


@pytest.mark.parametrize("seed", SEEDS)
def test_choices_fit_keep_their_limit_and_cost_hardly_more_than_the_best(seed):
    random = np.random.default_rng(seed)
    arrays, limit_s, cost, real, layers, kind_of = a_path(random)
    used = int(arrays[kind_of, 0].sum()) + int(random.integers(0, 40))
    smallest = smallest_limit(arrays, limit_s, real, layers, used)
    limits = np.array([smallest, 1.3 * smallest, np.inf])
    chosen = choices(arrays, limit_s, cost, real, limits, layers, kind_of, used)
    for limit, mine in zip(limits, chosen, strict=True):
        assert arrays[kind_of, mine].sum() <= used
        assert limit_s[kind_of, mine].max() <= limit
        allowed = [
            choice
            for choice in every_choice(kind_of)
            if arrays[kind_of, choice].sum() <= used and limit_s[kind_of, choice].max() <= limit
        ]
        best, worst = (
            pick(cost[kind_of, choice].sum() for choice in allowed) for pick in (min, max)
        )
        assert cost[kind_of, mine].sum() <= best + 0.3 * (worst - best)
        # No layer alone would gain by arrays that are left.
        left = used - arrays[kind_of, mine].sum()
        for layer, kind in enumerate(kind_of):
            more = arrays[kind] - arrays[kind, mine[layer]]
            gains = (limit_s[kind] <= limit) & (cost[kind] < cost[kind, mine[layer]])
            gains[real[kind] :] = False
            assert not (gains & (more <= left)).any()
