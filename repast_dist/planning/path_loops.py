"""The inner loops of dividing a chip's arrays among its layers, compiled by numba: they run for
every number of arrays that is tried, over few layers each. Plain loops, since NumPy's functions
take numba seconds each to compile.

Options of a kind of layer are rows, from few arrays to many, of which the first are real: what is
behind them is never read.
"""

import numba
import numpy as np

NEVER = 2**40
"""Arrays of an option that does not exist."""

ROUNDING = 1e-12

_INTERVALS = 4
"""Intervals of limits of the slowest stage in which goals are bounded."""

_FEWEST, _PRICES = 0.5, 5
"""Prices of an array with which goals are bounded: so many, each twice the one before, as multiples
of what the goal has left for the sum of all stages per array.
"""

_CROSSINGS = 40
"""Prices of an array that are tried at most."""

_PASSES = 4


@numba.njit(cache=True, nogil=True)
def option_tables(
    place: np.ndarray,
    size: int,
    arrays: np.ndarray,
    copies: np.ndarray,
    passing_s: np.ndarray,
    forming_s: np.ndarray,
    shares: np.ndarray,
    used: int,
    samples: int,
    writing_j: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return what candidates lead to if so many arrays are used, as flat columns of options.

    Parameters
    ----------
    place : ndarray
        (candidates,) where each belongs, of `size` options.
    arrays, copies, writing_j : ndarray
        (candidates,) what each takes; energies may be left out, (0,).
    passing_s, forming_s : ndarray
        (2, resources, candidates) time of a micro-batch in the forward and backward stage, and what
        forming factors adds.
    shares : ndarray
        (shares,) of the micro-batches that form factors.
    used, samples : int
        Arrays that are used; others do not exist. Samples of a micro-batch.

    Returns
    -------
    tuple of ndarray
        (options,) arrays and copies; (shares, 2, options) seconds per sample; (options,) joules.
    """
    resources = passing_s.shape[1]
    arrays_of, copies_of = np.full(size, NEVER), np.ones(size, np.int64)
    seconds, writing = np.full((len(shares), 2, size), np.inf), np.zeros(size)
    for n in range(len(place)):
        own = place[n]
        copies_of[own] = copies[n]
        if arrays[n] > used:
            continue
        arrays_of[own] = arrays[n]
        if len(writing_j):
            writing[own] = writing_j[n]
        for s in range(len(shares)):
            for stage in range(2):
                busy = 0.0
                for resource in range(resources):
                    mine = passing_s[stage, resource, n] + shares[s] * forming_s[stage, resource, n]
                    busy = max(busy, mine)
                seconds[s, stage, own] = busy / samples
    return arrays_of, copies_of, seconds, writing


@numba.njit(cache=True, nogil=True)
def joined(weights_s: np.ndarray, pools_s: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return, per row, the first options for weights and for inputs that keep each limit of the
    slower stage, of the limits that both can keep, in descending order: (kinds, options) each, and
    how many they are, (kinds,).

    Parameters
    ----------
    weights_s, pools_s : ndarray
        (2, kinds, options) seconds per sample in the forward and in the backward stage.
    """
    kinds, many, few = weights_s.shape[1], weights_s.shape[2], pools_s.shape[2]
    weight = np.zeros((kinds, many + few), np.int64)
    pool = np.zeros((kinds, many + few), np.int64)
    of_weights, of_pools, real = np.empty(many + 1), np.empty(few + 1), np.empty(kinds, np.int64)
    of_weights[many] = of_pools[few] = -1.0
    for kind in range(kinds):
        least = np.inf
        for n in range(many):
            least = min(least, max(weights_s[0, kind, n], weights_s[1, kind, n]))
            of_weights[n] = least
        least = np.inf
        for n in range(few):
            least = min(least, max(pools_s[0, kind, n], pools_s[1, kind, n]))
            of_pools[n] = least
        w = p = found = 0
        while w < many and p < few:
            limit = max(of_weights[w], of_pools[p])
            if limit < np.inf:
                weight[kind, found], pool[kind, found] = w, p
                found += 1
            # The first option that keeps the next limit is behind all those with this one.
            while of_weights[w] == limit:
                w += 1
            while of_pools[p] == limit:
                p += 1
        real[kind] = found
    return weight, pool, real


@numba.njit(cache=True, nogil=True)
def together(
    weight: np.ndarray,
    pool: np.ndarray,
    real: np.ndarray,
    weights_s: np.ndarray,
    pools_s: np.ndarray,
    arrays: tuple[np.ndarray, np.ndarray],
    writing_j: np.ndarray,
    per_s: float,
    per_j: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return what options for weights and for inputs take together.

    Parameters
    ----------
    weight, pool, real
        As `joined` returns them.
    weights_s, pools_s : ndarray
        (steps, 2, kinds, options) seconds per sample in either stage, in the average step and in
        those of every kind.
    arrays : tuple of ndarray
        (kinds, options) of weights, and of inputs.
    writing_j : ndarray
        (kinds, options) energy of writing weights.
    per_s, per_j : float
        What a second of a stage and a joule of writing cost.

    Returns
    -------
    tuple of ndarray
        (kinds, options) arrays, the slower of both stages, and the cost; (steps, 2, kinds, options)
        times of both stages.
    """
    steps, kinds, width = len(weights_s), len(weight), 1
    for kind in range(kinds):
        width = max(width, real[kind])
    arrays_of, limit_s = np.empty((kinds, width), np.int64), np.empty((kinds, width))
    cost, seconds = np.empty((kinds, width)), np.empty((steps, 2, kinds, width))
    for kind in range(kinds):
        for n in range(real[kind]):
            w, p = weight[kind, n], pool[kind, n]
            for step in range(steps):
                for stage in range(2):
                    seconds[step, stage, kind, n] = max(
                        weights_s[step, stage, kind, w], pools_s[step, stage, kind, p]
                    )
            arrays_of[kind, n] = arrays[0][kind, w] + arrays[1][kind, p]
            forward_s, backward_s = seconds[0, 0, kind, n], seconds[0, 1, kind, n]
            limit_s[kind, n] = max(forward_s, backward_s)
            cost[kind, n] = per_s * (forward_s + backward_s) + per_j * writing_j[kind, w]
    return arrays_of, limit_s, cost, seconds


@numba.njit(cache=True, nogil=True)
def smallest_limit(
    arrays: np.ndarray, limit_s: np.ndarray, real: np.ndarray, layers: np.ndarray, used: int
) -> float:
    """Return the smallest limit of the slowest stage that the arrays allow, of those that options
    have; infinity: there is none.

    Parameters
    ----------
    arrays, limit_s : ndarray
        (kinds, options) arrays, ascending, and limits, descending.
    real : ndarray
        (kinds,) how many of the options are real.
    layers : ndarray
        (kinds,) layers of each kind.
    used : int
        Arrays that there are.
    """
    best = np.inf
    for kind in range(len(arrays)):
        # Of this kind's limits below the best one, the first is the largest.
        low, high = _first_keeping(limit_s[kind], real[kind], best, True), real[kind]
        # `low` is the first that is not known to fit, `high` the first that is known not to.
        if low < high and _fits(arrays, limit_s, real, layers, used, limit_s[kind, low]):
            while high - low > 1:
                middle = (low + high) // 2
                if _fits(arrays, limit_s, real, layers, used, limit_s[kind, middle]):
                    low = middle
                else:
                    high = middle
            best = limit_s[kind, low]
    return best


@numba.njit(cache=True, nogil=True)
def _first_keeping(limits: np.ndarray, real: int, limit: float, below: bool) -> int:
    """Return the first real option of a row that keeps a limit, or is below it; their number if
    none does.
    """
    low, high = 0, real
    while low < high:
        middle = (low + high) // 2
        if limits[middle] < limit or (limits[middle] == limit and not below):
            high = middle
        else:
            low = middle + 1
    return low


@numba.njit(cache=True, nogil=True)
def _fits(
    arrays: np.ndarray,
    limit_s: np.ndarray,
    real: np.ndarray,
    layers: np.ndarray,
    used: int,
    limit: float,
) -> bool:
    """Return whether the first options that keep a limit fit together."""
    needed = 0
    for kind in range(len(arrays)):
        option = _first_keeping(limit_s[kind], real[kind], limit, False)
        if option == real[kind]:
            return False
        needed += arrays[kind, option] * layers[kind]
    return needed <= used


@numba.njit(cache=True, nogil=True)
def may_reach(
    arrays: np.ndarray,
    limit_s: np.ndarray,
    cost: np.ndarray,
    real: np.ndarray,
    layers: np.ndarray,
    used: int,
    slowest: float,
    smallest: float,
    below: float,
) -> bool:
    """Return whether a division may have a goal of `below` or less.

    Whatever an array costs, no division that fits is better than the best one if arrays are paid
    for, less the price of all (a Lagrangian bound). Where the slowest stage is between two limits,
    options are those that keep the upper one, and it takes as long as the lower one at least.

    Parameters
    ----------
    arrays, limit_s, cost : ndarray
        (kinds, options), the limits descending.
    real : ndarray
        (kinds,) how many of the options are real.
    layers : ndarray
        (kinds,) layers of each kind.
    used : int
        Arrays that there are.
    slowest : float
        What a second of the slowest stage costs.
    smallest : float
        The smallest limit of the slowest stage that the arrays allow.
    below : float
        A goal.
    """
    kinds = len(arrays)
    left = below
    for kind in range(kinds):
        left -= cost[kind, _cheapest(cost[kind], 0, real[kind])] * layers[kind]
    if left < slowest * smallest:
        return False
    intervals = _INTERVALS if slowest * smallest > 0.0 else 1
    limits = np.full(intervals + 1, np.inf)
    limits[0] = smallest
    if intervals > 1:
        most = max(left / (slowest * smallest), 1.0)
        for n in range(1, intervals + 1):
            limits[n] = smallest * most ** (n / intervals)
    beyond = np.zeros(intervals, np.int64)
    for number in range(_PRICES):
        price = _FEWEST * 2**number * (left - slowest * smallest) / used
        goals = np.full(intervals, -price * used)
        for kind in range(kinds):
            best, n = np.inf, 0
            # From the last option back, the upper limits grow.
            for option in range(real[kind] - 1, -1, -1):
                while n < intervals and limit_s[kind, option] > limits[n + 1]:
                    goals[n] += best * layers[kind]
                    n += 1
                best = min(best, price * arrays[kind, option] + cost[kind, option])
            while n < intervals:
                goals[n] += best * layers[kind]
                n += 1
        for n in range(intervals):
            beyond[n] += not goals[n] + slowest * limits[n] <= below
    fewest = _PRICES
    for n in range(intervals):
        fewest = min(fewest, beyond[n])
    return fewest == 0


@numba.njit(cache=True, nogil=True)
def _cheapest(costs: np.ndarray, start: int, stop: int) -> int:
    """Return the first option of least cost of some."""
    best = start
    for option in range(start + 1, stop):
        if costs[option] < costs[best]:
            best = option
    return best


@numba.njit(cache=True, nogil=True)
def choices(
    arrays: np.ndarray,
    limit_s: np.ndarray,
    cost: np.ndarray,
    real: np.ndarray,
    limits: np.ndarray,
    layers: np.ndarray,
    kind_of: np.ndarray,
    used: int,
) -> np.ndarray:
    """Return an option for each layer, for several limits of the slowest stage, (limits, layers).

    Parameters
    ----------
    arrays, limit_s, cost : ndarray
        (kinds, options), the limits descending.
    real : ndarray
        (kinds,) how many of the options are real.
    limits : ndarray
        (limits,) that the arrays allow.
    layers : ndarray
        (kinds,) layers of each kind.
    kind_of : ndarray
        (layers,) the kind of each layer.
    used : int
        Arrays that there are.
    """
    chosen = np.empty((len(limits), len(kind_of)), np.int64)
    first = np.empty(len(arrays), np.int64)
    for n in range(len(limits)):
        for kind in range(len(arrays)):
            first[kind] = _first_keeping(limit_s[kind], real[kind], limits[n], False)
        of_kinds = _spent(arrays, cost, first, real, layers, used)
        for layer in range(len(kind_of)):
            chosen[n, layer] = of_kinds[kind_of[layer]]
        _fill_up(arrays, cost, first, real, used, kind_of, chosen[n])
    return chosen


@numba.njit(cache=True, nogil=True)
def _spent(
    arrays: np.ndarray,
    cost: np.ndarray,
    first: np.ndarray,
    real: np.ndarray,
    layers: np.ndarray,
    used: int,
) -> np.ndarray:
    """Return the options of least cost that the arrays allow, the same for all layers of a kind, of
    those from the first of each kind on.

    At a high price of an array they fit, at a low one they cost little. The price at which a choice
    that fits and one that does not are as good as each other leads to a better one than both, until
    there is none. The first options take no more arrays than there are.
    """
    kinds = len(arrays)
    small, large = first.copy(), np.empty(kinds, np.int64)
    middle = np.empty(kinds, np.int64)
    few = many = 0
    dear = cheap = 0.0
    for kind in range(kinds):
        large[kind] = _cheapest(cost[kind], first[kind], real[kind])
        few += arrays[kind, first[kind]] * layers[kind]
        dear += cost[kind, first[kind]] * layers[kind]
        many += arrays[kind, large[kind]] * layers[kind]
        cheap += cost[kind, large[kind]] * layers[kind]
    if many <= used:
        return large
    for _ in range(_CROSSINGS):
        price = (dear - cheap) / max(many - few, 1)
        between, between_cost = 0, 0.0
        for kind in range(kinds):
            best, least = 0, np.inf
            for option in range(first[kind], real[kind]):
                priced = price * arrays[kind, option] + cost[kind, option]
                if priced < least:
                    best, least = option, priced
            middle[kind] = best
            between += arrays[kind, best] * layers[kind]
            between_cost += cost[kind, best] * layers[kind]
        bound = dear + price * few
        if not between_cost + price * between < bound - ROUNDING * abs(bound):
            break
        if between <= used:
            few, dear = between, between_cost
            small, middle = middle, small
        else:
            many, cheap = between, between_cost
    return small


@numba.njit(cache=True, nogil=True)
def _fill_up(
    arrays: np.ndarray,
    cost: np.ndarray,
    first: np.ndarray,
    real: np.ndarray,
    used: int,
    kind_of: np.ndarray,
    chosen: np.ndarray,
) -> None:
    """Spend the arrays that are left where they save most per array, layer by layer."""
    layers, left = len(kind_of), used
    better, wanted = np.empty(layers, np.int64), np.empty(layers, np.int64)
    gain, order = np.empty(layers), np.empty(layers, np.int64)
    for layer in range(layers):
        left -= arrays[kind_of[layer], chosen[layer]]
        gain[layer] = np.inf
    for _ in range(_PASSES):
        found, before = 0, left
        for layer in range(layers):
            # What is not worth it now is not with fewer arrays left.
            if gain[layer] <= 0.0:
                continue
            own = kind_of[layer]
            better[layer], gain[layer] = _best_spent(
                arrays[own], cost[own], first[own], real[own], chosen[layer], left
            )
            wanted[layer] = arrays[own, better[layer]] - arrays[own, chosen[layer]]
            if gain[layer] > 0.0:
                place = found
                while place > 0 and gain[order[place - 1]] < gain[layer]:
                    order[place] = order[place - 1]
                    place -= 1
                order[place] = layer
                found += 1
        for place in range(found):
            layer = order[place]
            if wanted[layer] <= left:
                left -= wanted[layer]
                chosen[layer] = better[layer]
        if left == before:
            return


@numba.njit(cache=True, nogil=True)
def _best_spent(
    arrays: np.ndarray, cost: np.ndarray, first: int, real: int, option: int, left: int
) -> tuple[int, float]:
    """Return the option from the first one on that saves most per array that it takes more than
    another, of those that are left, and how much that is; 0: none saves.
    """
    best, most = 0, 0.0
    for other in range(first, real):
        more, saved = arrays[other] - arrays[option], cost[option] - cost[other]
        if more <= left and saved > 0.0:
            worth = saved / max(float(more), 0.5)
            if worth > most:
                best, most = other, worth
    return best, most
