"""Divides the arrays of a chip among its layers so that a step takes as little time or energy as
possible.

Each layer may have from one array, in which parts of its weights take turns, up to as many copies
of its weights as it has input vectors, and from one array for its inputs up to room for all. Since
samples pass through the layers one behind the other, a step takes the sum of the times per sample
of all stages, and for every further sample that of the slowest stage. So the search tries limits of
the slowest stage: from the smallest that the arrays allow upwards. Each layer gets the arrays that
it needs to keep the limit, and those left go where they save most per array (a Lagrange multiplier
is the price of an array).
"""

import bisect
import dataclasses
from collections.abc import Iterator

import numpy as np

from repast_dist.ground.errors import CapacityError
from repast_dist.ground.numbers import ceil_div
from repast_dist.planning.allocation import (
    Allocation,
    ArrayBudget,
    LayerArrays,
    Needs,
    check_fits,
    stage_ranges,
)
from repast_dist.planning.layer_ops import LayerWork
from repast_dist.planning.options import (
    NEVER,
    Numbers,
    Options,
    Setting,
    placed_arrays,
    pool_options,
    weight_options,
    weight_write_seconds,
)
from repast_dist.planning.specs import PartitionSpec, Policy

_LIMITS = (1.0, 1.03, 1.1, 1.3, 2.0, np.inf)
"""Limits of the slowest stage that are tried, as multiples of the smallest one."""

_PREFIXES = 9
"""Numbers of layers that are made to stay which are tried for the least energy."""

_ALIKE = 1.005
"""Of divisions whose goal is within this ratio of the least, the one in which fewest weights move
is taken.
"""

_USED = 0.9
"""Layers that use a smaller share of their arrays are spread over more banks."""

_AROUND = (0.71, 0.84, 1.19, 1.41)
"""Numbers of arrays that are tried around the best of these, as multiples of it."""

_WORTH = 0.98
"""They are taken where the goal comes down to this share: weights rather stay where all arrays are
used.
"""

_BISECTIONS = 22
_PRICES = 1e-9
_PASSES = 4


def allocate(
    work: LayerWork, policy: Policy, budget: ArrayBudget, cuts: tuple[int, ...] | None = None
) -> Allocation:
    """Give layers their arrays.

    Parameters
    ----------
    work : LayerWork
        The layers, the chip, and the micro-batches of a step.
    policy : Policy
        What the arrays are divided for, spreading over chips, overflow and copies.
    budget : ArrayBudget
        Arrays of a chip that layers may have.
    cuts : tuple of int or None
        Layers before which another chip may take over; None: any.

    Raises
    ------
    CapacityError
        The layers do not fit and ``partition.overflow`` is ``error``, or a chip has fewer arrays
        than its layers.
    """
    partition, chip = policy.partition, work.hardware.chip
    needs = Needs.of(work.layers, work.hardware, work.step)
    stages, ranges = stage_ranges(needs, budget, partition, work.step.chips, cuts)
    goal = _Goal.of(work, policy, stages)
    placed, goals = [], []
    for start, stop in ranges:
        mine = np.arange(start, stop)
        layers, need = work.take(mine), needs.take(mine)
        if partition.overflow == "error":
            check_fits(layers.layers, need, budget, chip)
        division = _divided(layers, need, budget, goal)
        placed.append(division.arrays)
        goals.append(division.value)
    stage = np.repeat(np.arange(len(ranges)), [stop - start for start, stop in ranges])
    columns = {
        field.name: np.concatenate([getattr(arrays, field.name) for arrays in placed])
        for field in dataclasses.fields(LayerArrays)
    }
    return Allocation(**columns, stages=stages, stage=stage, budget=budget, goal=max(goals))


@dataclasses.dataclass(frozen=True)
class _Goal:
    """What is made small: ``per_s (sum_weight * sum of stages + most_weight * slowest stage + time
    of writing weights) + per_j * energy of writing weights``, if `lasting` of divisions in which
    the arrays that are filled most often are filled as seldom as possible.

    Where only some steps form factors, ``factor_shares`` are the micro-batches that do in the
    others and in these, as shares, and ``forming`` is how many of the steps they are: each kind of
    steps has a slowest stage of its own.
    """

    partition: PartitionSpec
    sum_weight: float
    most_weight: float
    per_s: float
    per_j: float
    factor_shares: tuple[float, ...]
    forming: float
    micro_batches: int
    lasting: bool

    @classmethod
    def of(cls, work: LayerWork, policy: Policy, stages: int) -> "_Goal":
        step, partition = work.step, policy.partition
        replicas = step.chips // stages
        micro_batches = ceil_div(step.micro_batches, replicas)
        forming = 0
        if step.second_order:
            # Steps end when the replica that forms most factors does.
            forming = ceil_div(policy.soi.forming(step.micro_batches), replicas)
        samples = micro_batches * step.micro_batch_size
        energy = partition.objective == "energy"
        interval = policy.soi.factor_interval if forming else 1
        return cls(
            partition=partition,
            sum_weight=1.0 if partition.pipelining else float(samples),
            most_weight=samples - 1.0 if partition.pipelining else 0.0,
            per_s=work.hardware.costs.static_w if energy else 1.0,
            per_j=1.0 if energy else 0.0,
            factor_shares=(0.0,) * (interval > 1) + (forming / micro_batches,),
            forming=1.0 / interval,
            micro_batches=micro_batches,
            lasting=partition.objective == "lifetime",
        )

    def settings(self, arrays: int) -> list[Setting]:
        """Return what decides the times of layers if so many arrays are used: with factors formed
        as in the average step and, where steps differ, as in those that form them.
        """
        most = self.factor_shares[-1]
        average = most * self.forming
        shares = [average] if self.lasting else sorted({average, most})
        copied, count = self.partition.replicate_layers, self.micro_batches
        return [Setting(arrays, copied, share, self.factor_shares, count) for share in shares]


def _divided(work: LayerWork, needs: Needs, budget: ArrayBudget, goal: _Goal) -> "_Division":
    """Divide the arrays of one chip among its layers.

    Where layers do not use all of them, those that they use are spread over all banks, and where
    more arrays help little, half of them, and so on, and then numbers between: arrays that lie in
    more banks have more converters and buses. Few numbers of arrays per layer are tried first, and
    then those around the best ones.
    """
    tried: list[_Division] = []
    used, broad = budget.layers, Numbers.broad(work, needs)
    while used:
        found = _divisions(work, needs, used, goal, broad)
        if not found or (tried and _least(found).rank >= _least(tried).rank):
            break
        tried += found
        taken = _least(found).taken
        used = taken if taken < _USED * used else used // 2
    if not tried:
        least = int((needs.weights > 0).sum() + (needs.activations > 0).sum())
        raise CapacityError(
            f"chip '{work.hardware.chip.name}' has {budget.layers} arrays for layers, which need "
            f"at least {least}: one for the weights and one for the inputs of each; valid: "
            "partition.layers=auto with more chips, or a larger chip"
        )
    best = _least(tried)
    for used in sorted({int(best.used * ratio) for ratio in _AROUND} - {best.used}):
        found = _divisions(work, needs, used, goal, broad) if 0 < used <= budget.layers else []
        if found and _least(found).value < _WORTH * best.value:
            tried += found
    best = _least(tried)
    tried += _divisions(work, needs, best.used, goal, Numbers.near(best.arrays))
    first = _least(tried)
    alike = [
        division
        for division in tried
        if division.value <= _ALIKE * first.value and division.fills <= _ALIKE * first.fills
    ]
    return min(alike, key=lambda division: (division.moving_j, division.value))


@dataclasses.dataclass(frozen=True)
class _Division:
    """Arrays of layers, how many of the chip's are used, the value of the goal, the energy of
    writing weights that do not stay, and how often a micro-batch fills the arrays that are filled
    most, 0 if that does not matter.
    """

    arrays: LayerArrays
    used: int
    value: float
    moving_j: float
    fills: float

    @property
    def rank(self) -> tuple[float, float]:
        """What makes a division better than another, as far as it is smaller."""
        return self.fills, self.value

    @property
    def taken(self) -> int:
        """Arrays that the layers take."""
        return int((self.arrays.written + self.arrays.pool).sum())


def _least(divisions: list[_Division]) -> _Division:
    return min(divisions, key=lambda division: division.rank)


def _divisions(
    work: LayerWork, needs: Needs, used: int, goal: _Goal, numbers: Numbers
) -> list[_Division]:
    """Return good divisions of `used` arrays among layers that may have some numbers of them; none
    if they are too few.
    """
    kinds = _kinds(work, needs, numbers)
    return [
        division
        for setting in goal.settings(used)
        for division in _divisions_if(work, needs, setting, goal, numbers, kinds)
    ]


def _divisions_if(
    work: LayerWork,
    needs: Needs,
    setting: Setting,
    goal: _Goal,
    numbers: Numbers,
    kinds: tuple[np.ndarray, np.ndarray],
) -> list[_Division]:
    """Return good divisions for one setting among layers of some kinds."""
    used, (first, kind) = setting.arrays, kinds
    alike = work.take(first), needs.take(first), setting, numbers.take(first)
    weights, pools = weight_options(*alike), pool_options(*alike)
    fills = 0.0
    if goal.lasting:
        fills = _fewest_fills(weights, pools, np.bincount(kind), used)
        weights, pools = weights.filled(fills), pools.filled(fills)
    found = []
    for kept in _kept(needs, used, goal):
        path = _path(weights.kept(kept[first]), pools)
        for chosen in _choices(path, kind, used, goal):
            weight, pool = path.weight[kind, chosen], path.pool[kind, chosen]
            given = (
                weights.arrays[kind, weight],
                weights.copies[kind, weight],
                pools.arrays[kind, pool],
            )
            arrays = placed_arrays(work, needs, used, given)
            value = path.value(kind, chosen, goal) + goal.per_s * weight_write_seconds(work, arrays)
            moving_j = float(path.writing_j[kind, chosen] @ ~arrays.resident)
            found.append(_Division(arrays, used, value, moving_j, fills))
    return found


def _fewest_fills(weights: Options, pools: Options, layers: np.ndarray, used: int) -> float:
    """Return the smallest number for which every layer has arrays that a micro-batch fills no more
    often, together as many as are used at most; infinity: there is none.
    """
    limits = np.unique(np.concatenate([weights.fills.ravel(), pools.fills.ravel()]))

    def fits(limit: float) -> bool:
        needed = sum(
            np.where(options.fills <= limit, options.arrays, NEVER).min(axis=1)
            for options in (weights, pools)
        )
        return bool(needed @ layers <= used)

    place = bisect.bisect_left(limits, True, key=fits)
    return float(limits[place]) if place < len(limits) else np.inf


def _kinds(work: LayerWork, needs: Needs, numbers: Numbers) -> tuple[np.ndarray, np.ndarray]:
    """Return one layer of each kind, and the kind of each layer: networks repeat their layers."""
    every = [*work.columns, needs.weights, needs.activations, *numbers.per_layer]
    table = np.column_stack(every)
    _, first, kind = np.unique(table, axis=0, return_index=True, return_inverse=True)
    return first, kind.reshape(-1)


def _kept(needs: Needs, used: int, goal: _Goal) -> Iterator[np.ndarray]:
    """Yield masks of layers that have to stay: all if they fit, and if the settings allow that
    others move, none. For the least energy more and more of them are tried, those with few arrays
    first, since every array that stays saves about the same.
    """
    everything = np.ones(len(needs.weights), bool)
    if needs.held <= used:
        yield everything
    if goal.partition.overflow == "error":
        return
    yield ~everything
    if goal.per_j:
        sizes, place = np.unique(needs.weights, return_inverse=True)
        arrays = np.cumsum(sizes * np.bincount(place.reshape(-1)))
        for fitting in sorted({int((arrays <= limit).sum()) for limit in _prefixes(used)} - {0}):
            yield needs.weights <= sizes[fitting - 1]


def _prefixes(used: int) -> np.ndarray:
    return np.linspace(0.0, used, _PREFIXES)


# Options of layers as one list per layer ------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Path:
    """The options of each kind of layer, from few arrays to many: those for weights and those for
    inputs which keep the same limit go together; (kinds, options), padded with options of infinite
    time. ``kinds_s`` are the times of both stages in every kind of steps, (kinds, 2, ...).
    """

    arrays: np.ndarray
    limit_s: np.ndarray
    stages_s: np.ndarray
    kinds_s: np.ndarray
    writing_j: np.ndarray
    weight: np.ndarray
    pool: np.ndarray

    def cost(self, goal: _Goal) -> np.ndarray:
        """Return what the options add to the goal besides the slowest stage."""
        cost: np.ndarray = (
            goal.per_s * goal.sum_weight * self.stages_s + goal.per_j * self.writing_j
        )
        return cost

    def value(self, kind: np.ndarray, chosen: np.ndarray, goal: _Goal) -> float:
        """Return the goal without the time of writing weights, for layers of these kinds."""
        if len(self.kinds_s) == 1:
            slowest = float(self.limit_s[kind, chosen].max())
            cost = float(self.cost(goal)[kind, chosen].sum())
            return cost + goal.per_s * goal.most_weight * slowest
        seconds = self.kinds_s[:, :, kind, chosen]
        of_kinds = goal.sum_weight * seconds.sum(axis=(1, 2)) + goal.most_weight * seconds.max(
            axis=(1, 2)
        )
        steps = 1.0 - goal.forming, goal.forming
        writing_j = float(self.writing_j[kind, chosen].sum())
        return goal.per_s * float(of_kinds @ steps) + goal.per_j * writing_j


def _path(weights: Options, pools: Options) -> _Path:
    weight_limits = np.minimum.accumulate(weights.slower_s, axis=1)
    pool_limits = np.minimum.accumulate(pools.slower_s, axis=1)
    chosen = [_joined(*limits) for limits in zip(weight_limits, pool_limits, strict=True)]
    width = max(1, max(len(weight) for weight, _ in chosen))
    shape = len(chosen), width
    weight, pool = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    real = np.zeros(shape, bool)
    for row, (first, second) in enumerate(chosen):
        weight[row, : len(first)], pool[row, : len(first)] = first, second
        real[row, : len(first)] = True
    rows = np.arange(len(chosen))[:, None]
    forward = np.maximum(weights.forward_s[rows, weight], pools.forward_s[rows, pool])
    backward = np.maximum(weights.backward_s[rows, weight], pools.backward_s[rows, pool])
    kinds = np.maximum(weights.kinds_s[:, :, rows, weight], pools.kinds_s[:, :, rows, pool])
    return _Path(
        arrays=np.where(real, weights.arrays[rows, weight] + pools.arrays[rows, pool], NEVER),
        limit_s=np.where(real, np.maximum(forward, backward), np.inf),
        stages_s=np.where(real, forward + backward, np.inf),
        kinds_s=np.where(real, kinds, np.inf),
        writing_j=weights.writing_j[rows, weight],
        weight=weight,
        pool=pool,
    )


def _joined(weights: np.ndarray, pools: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first options for weights and for inputs that keep each limit, of the limits that
    both can keep.
    """
    both_limits = np.concatenate([weights, pools])
    limits = np.sort(both_limits[np.isfinite(both_limits)])[::-1]
    # `numpy.unique` takes several times as long.
    limits = limits[np.diff(limits, prepend=np.inf) != 0]
    weight = np.searchsorted(-weights, -limits)
    pool = np.searchsorted(-pools, -limits)
    both = (weight < len(weights)) & (pool < len(pools))
    return weight[both], pool[both]


# The choice -----------------------------------------------------------------------------------


def _choices(path: _Path, kind: np.ndarray, used: int, goal: _Goal) -> Iterator[np.ndarray]:
    """Yield an option for each layer, for several limits of the slowest stage."""
    layers = np.bincount(kind, minlength=len(path.arrays))
    smallest = _smallest_limit(path, layers, used)
    if smallest is None:
        return
    cost = path.cost(goal)
    for limit in [smallest * ratio for ratio in _LIMITS] if goal.most_weight else [np.inf]:
        allowed = np.where(path.limit_s <= limit, cost, np.inf)
        chosen = _spent(path.arrays, allowed, layers, used)
        yield _filled_up(path.arrays, allowed, used, kind, chosen[kind])


def _smallest_limit(path: _Path, layers: np.ndarray, used: int) -> float | None:
    """Return the smallest limit of the slowest stage that the arrays allow."""
    limits = np.unique(path.limit_s[np.isfinite(path.limit_s)])
    low, high = 0, len(limits)
    while low < high:
        middle = (low + high) // 2
        kept = path.limit_s <= limits[middle]
        least = path.arrays[np.arange(len(kept)), kept.argmax(axis=1)]
        if kept.any(axis=1).all() and least @ layers <= used:
            high = middle
        else:
            low = middle + 1
    return float(limits[low]) if low < len(limits) else None


def _spent(arrays: np.ndarray, cost: np.ndarray, layers: np.ndarray, used: int) -> np.ndarray:
    """Return the options of least cost that the arrays allow, the same for all layers of a kind."""
    rows = np.arange(len(arrays))
    chosen = cost.argmin(axis=1)
    if arrays[rows, chosen] @ layers <= used:
        return chosen
    fewest = np.isfinite(cost).argmax(axis=1)
    high = float(cost[rows, fewest].max() - cost[rows, chosen].min()) + 1e-300
    low, chosen = high * _PRICES, fewest
    for _ in range(_BISECTIONS):
        price = np.sqrt(low * high)
        tried = (cost + price * arrays).argmin(axis=1)
        if arrays[rows, tried] @ layers <= used:
            high, chosen = price, tried
        else:
            low = price
    return chosen


def _filled_up(
    arrays: np.ndarray, cost: np.ndarray, used: int, kind: np.ndarray, chosen: np.ndarray
) -> np.ndarray:
    """Spend the arrays that are left where they save most per array, layer by layer."""
    for _ in range(_PASSES):
        left = used - int(arrays[kind, chosen].sum())
        if not left:
            break
        more = arrays[kind] - arrays[kind, chosen][:, None]
        saved = cost[kind, chosen][:, None] - cost[kind]
        worth = np.where((more <= left) & (saved > 0), saved / np.maximum(more, 0.5), 0.0)
        option = worth.argmax(axis=1)
        gain = worth[np.arange(len(kind)), option]
        before = left
        for row in np.argsort(-gain, kind="stable")[: int((gain > 0).sum())].tolist():
            wanted = int(more[row, option[row]])
            if wanted <= left:
                left -= wanted
                chosen[row] = option[row]
        if left == before:
            break
    return chosen
