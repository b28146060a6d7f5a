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
import functools
import itertools
import math
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
from repast_dist.planning.layer_ops import LayerWork, once_per_work
from repast_dist.planning.options import (
    NEVER,
    Candidates,
    Numbers,
    Options,
    Setting,
    placed_arrays,
    weight_write_seconds,
)
from repast_dist.planning.specs import PartitionSpec, Policy

_LIMITS = (1.0, 1.03, 1.1, 1.3, 2.0, np.inf)
"""Limits of the slowest stage that are tried, as multiples of the smallest one."""

_PREFIXES = 9
"""Numbers of layers that are made to stay which are tried for the least energy."""

_ALIKE = 1.003
"""Of divisions whose goal is within this ratio of the least, the one in which fewest weights move
is taken.
"""

_USED = 0.9
"""Layers that take a smaller share of the arrays that they may have need no more."""

_FINE = 4
"""Steps between numbers of arrays per bank of which one is twice the other, around the best one."""

_AROUND = 1.45
"""Ratio to the best one up to which they are tried."""

_HALVINGS = 3
"""Times that the numbers of arrays between the best one and the next are halved, if the first time
helps.
"""

_SMALL, _FEW_LAYERS = 512, 24
"""Banks of a chip on which so many layers have so few each that one more or less is a large part of
them.
"""

_FEW_BANKS = 8
"""Banks of such a layer."""

_STARTS, _ROUNDS = 3, 3
"""Best divisions of a small chip around which others are looked for, and how many times."""

_NEAREST, _FAR = 16, 1.6
"""Numbers of arrays around each that are tried, and the ratio up to which they are."""

_PRICES = 2.0 ** np.arange(-1, 4)
"""Prices of an array with which goals are bounded, as multiples of what the goal has left for the
sum of all stages per array.
"""

_INTERVALS = 4
"""Intervals of limits of the slowest stage in which goals are bounded."""

_CROSSINGS = 40
"""Prices of an array that are tried at most."""

_ROUNDING = 1e-12

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
        tried = _broadly(work, start, stop, goal)
        if partition.overflow == "error":
            check_fits(tried.work.layers, tried.needs, budget, chip)
        division = _divided(tried, budget, goal)
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
        return [
            Setting(
                arrays,
                share,
                self.factor_shares,
                self.lasting,
            )
            for share in ([average] if self.lasting else sorted({average, most}))
        ]


def _divided(broad: "_Tried", budget: ArrayBudget, goal: _Goal) -> "_Division":
    """Divide the arrays of one chip among its layers, of which few numbers are tried broadly.

    Arrays are spread over all banks, and have more converters and buses the fewer of them lie in
    one. So all are tried, and one, two, four and so on per bank, as long as fewer are better, then
    numbers around the best of these. But for all of them, they do not depend on how many there are:
    what is good where a chip has few arrays is tried where it has many. Few numbers of arrays per
    layer are tried first, and then those around the best ones.
    """
    trials = _Trials(broad, budget.layers, goal)
    _downwards(trials)
    if not trials.found:
        work, needs = broad.work, broad.needs
        least = int((needs.weights > 0).sum() + (needs.activations > 0).sum())
        raise CapacityError(
            f"chip '{work.hardware.chip.name}' has {budget.layers} arrays for layers, which need "
            f"at least {least}: one for the weights and one for the inputs of each; valid: "
            "partition.layers=auto with more chips, or a larger chip"
        )
    _around(trials)
    _between(trials)
    if trials.tiles <= trials.best.taken < trials.best.used:
        # Those that are taken, and no others.
        trials.better(trials.best.taken)
    starts = [trials.best]
    if trials.banks <= _SMALL and len(broad.kind) <= _FEW_LAYERS:
        _jumping(trials)
    if trials.best is not starts[0]:
        starts.append(trials.best)
    tried = trials.found
    for best in starts:
        near = _Tried.of(broad.work, broad.needs, Numbers.near(best.arrays), goal)
        tried = tried + _divisions(near, best.used, goal, best.value)
    first = _least(tried)
    alike = [
        division
        for division in tried
        if division.value <= _ALIKE * first.value and division.fills <= _ALIKE * first.fills
    ]
    return min(alike, key=lambda division: (division.moving_j, division.value))


class _Trials:
    """Numbers of arrays of a chip that have been tried, of those that layers may have, and good
    divisions of them.
    """

    def __init__(self, broad: "_Tried", arrays: int, goal: _Goal) -> None:
        chip = broad.work.hardware.chip
        self.arrays, self.tiles, self.banks = arrays, chip.tiles, chip.banks
        self.numbers: list[int] = []
        self.found: list[_Division] = []
        self._broad, self._goal = broad, goal
        # These are asked for in most cases.
        below = _numbers_of_arrays(self.tiles, arrays, _FINE)
        broad.expect(
            [arrays, *self.fewer(arrays)[-1:], *(n for n in below if n * _AROUND > arrays)]
        )

    @property
    def best(self) -> "_Division":
        """The best division so far."""
        return _least(self.found)

    def better(self, used: int) -> bool:
        """Divide so many arrays if they have not been tried; return whether that is better than all
        before.
        """
        if used in self.numbers:
            return False
        best = self.best if self.found else None
        found = _divisions(self._broad, used, self._goal, best.value if best else np.inf)
        self.numbers.append(used)
        self.found += found
        return bool(found) and (best is None or _least(found).rank < best.rank)

    def fewer(self, used: int) -> list[int]:
        """Return numbers of arrays that are well below one."""
        return _numbers_of_arrays(self.tiles, used / math.sqrt(2))


def _numbers_of_arrays(tiles: int, below: float, steps: int = 1) -> list[int]:
    """Return numbers of arrays, up to one below a limit, of which so many lie between one per tile,
    two, four and so on. Fewer than one would leave tiles empty.
    """
    many = math.ceil(steps * math.log2(max(below / tiles, 1.0)))
    return [
        used for step in range(many + 1) if (used := round(tiles * 2 ** (step / steps))) < below
    ]


def _downwards(trials: _Trials) -> None:
    """Divide all arrays, and fewer and fewer as long as that is better."""
    used = trials.arrays
    while trials.better(used) and (fewer := trials.fewer(used)):
        # What does not take more is no worse in more banks and tiles.
        used = next((number for number in fewer if trials.best.taken <= number), fewer[-1])


def _around(trials: _Trials) -> None:
    """Divide numbers of arrays around the best of those that were tried."""
    best = trials.best
    most = best.used * (_AROUND if best.fills_up else 1.0)
    for used in _numbers_of_arrays(trials.tiles, min(most, trials.arrays), _FINE):
        if used > best.used / _AROUND:
            trials.better(used)


def _between(trials: _Trials) -> None:
    """Divide numbers of arrays between the best one and the next that was tried.

    The goal falls with more arrays up to where a layer is spread over fewer banks, so that it has
    one pass more, and then jumps: halving looks for the last number before that.
    """
    few = trials.best.used
    more = [used for used in trials.numbers if used > few]
    if not more or not trials.best.fills_up:
        return
    many, helped = min(more), False
    for _ in range(_HALVINGS):
        middle = (few + many) // 2
        if few < middle and trials.better(middle):
            few, helped = middle, True
        elif not helped:
            return
        else:
            many = middle


def _jumping(trials: _Trials) -> None:
    """Divide numbers of arrays just below those from which a layer lies in one bank less.

    In between the goal falls with more arrays, and jumps there, on small chips by a large part of
    it: one more bank for the slowest layer may be worth half of all others.
    """
    for used in _numbers_of_arrays(trials.tiles, trials.arrays, _FINE):
        trials.better(used)
    seen: set[int] = set()
    for _ in range(_ROUNDS):
        best: dict[int, _Division] = {}
        for division in sorted(trials.found, key=lambda division: division.rank):
            best.setdefault(division.used, division)
        starts = [division for division in best.values() if division.used not in seen][:_STARTS]
        for start in starts:
            seen.add(start.used)
            least, most = start.used / _FAR, min(start.used * _FAR, trials.arrays)
            for used in (start.taken, *start.jumps(trials.banks)[:_NEAREST]):
                if max(least, trials.tiles) <= used <= most:
                    trials.better(used)


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

    @property
    def fills_up(self) -> bool:
        """Whether they take nearly all that they may have."""
        return self.taken >= _USED * self.used

    def jumps(self, banks: int) -> list[int]:
        """Return the most arrays that may be used so that some layer of few banks, of so many in
        all, keeps them or has one more.
        """
        layers = self.arrays
        numbers: set[int] = set()
        for arrays, lie in (
            (layers.written, layers.weight_banks),
            (layers.pool, layers.pool_banks),
        ):
            few = (lie > 0) & (lie <= _FEW_BANKS)
            for fewer in (lie[few], lie[few] - 1):
                # In more banks than `fewer` while arrays * banks / used is above it.
                some = fewer > 0
                numbers.update((ceil_div(arrays[few][some] * banks, fewer[some]) - 1).tolist())
        return sorted(numbers, key=lambda number: abs(number - self.used))


def _least(divisions: list[_Division]) -> _Division:
    return min(divisions, key=lambda division: division.rank)


@dataclasses.dataclass(frozen=True)
class _Tried:
    """Layers with the numbers of arrays that are tried for them.

    Networks repeat their layers, so that one of each kind stands for others: `weights` and `pools`
    are the candidates of each kind, and layer `n` is of that in row ``kind[n]``.
    """

    work: LayerWork
    needs: Needs
    weights: Candidates
    pools: Candidates
    first: np.ndarray
    kind: np.ndarray

    @classmethod
    def of(cls, work: LayerWork, needs: Needs, numbers: Numbers, goal: _Goal) -> "_Tried":
        """Find the layers that are alike and have the same numbers."""
        every = [*work.columns, needs.weights, needs.activations, *numbers.per_layer]
        known: dict[bytes, int] = {}
        rows = (row.tobytes() for row in np.column_stack(every))
        kind = np.array([known.setdefault(row, len(known)) for row in rows])
        first = np.unique(kind, return_index=True)[1]
        layers, need, few = work.take(first), needs.take(first), numbers.take(first)
        copied, most = goal.partition.replicate_layers, goal.micro_batches
        weights = Candidates.for_weights(layers, need, few, copied=copied, micro_batches=most)
        pools = Candidates.for_inputs(layers, need, few, micro_batches=most)
        return cls(work, needs, weights, pools, first, kind)

    @functools.cached_property
    def layers(self) -> np.ndarray:
        """How many layers there are of each kind."""
        return np.bincount(self.kind)

    def expect(self, used: list[int]) -> None:
        """Prepare for divisions of such numbers of arrays."""
        for candidates in (self.weights, self.pools):
            candidates.expect(number for number in used if number)


@once_per_work
def _broadly(work: LayerWork, start: int, stop: int, goal: _Goal) -> _Tried:
    """Return a range of layers with few numbers up to all that make sense, which are the same
    however many arrays a chip has for layers.
    """
    # Counted for themselves: what is remembered of `work` holds them, and would hold `work`.
    layers = work.take(np.arange(start, stop)).alone
    needs = Needs.of(layers.layers, work.hardware, work.step)
    return _Tried.of(layers, needs, Numbers.broad(layers, needs), goal)


def _divisions(tried: _Tried, used: int, goal: _Goal, least: float) -> list[_Division]:
    """Return good divisions of `used` arrays among layers that may have some numbers of them; none
    if they are too few. Those may be missing which are not alike the best one, or one whose goal is
    `least`.
    """
    return [
        division
        for setting in goal.settings(used)
        for division in _divisions_if(tried, setting, goal, least)
    ]


def _divisions_if(
    tried: _Tried, setting: Setting, goal: _Goal, least: float
) -> Iterator[_Division]:
    """Return good divisions for one setting."""
    used = setting.arrays
    weights, pools = tried.weights.options(setting), tried.pools.options(setting)
    fills = 0.0
    if goal.lasting:
        fills = _fewest_fills(weights, pools, tried.layers, used)
        weights, pools = weights.filled(fills), pools.filled(fills)
    found: list[list[_Division]] = []
    # Those first that leave most open: they are hardly ever worse.
    for kept in reversed(list(_kept(tried.needs, used, goal))):
        path = _path(weights.kept(kept[tried.first]), pools)
        smallest = _smallest_limit(path, tried.layers, used)
        if smallest is None or not _may_reach(path, tried.layers, used, goal, smallest, least):
            continue
        chosen = _choices(path, tried, used, goal, smallest)
        found.append(_placed(tried, used, goal, (weights, pools, path), chosen, fills))
        least = min(least, _least(found[-1]).value)
    yield from itertools.chain.from_iterable(reversed(found))


def _placed(
    tried: _Tried,
    used: int,
    goal: _Goal,
    options: tuple[Options, Options, "_Path"],
    chosen: np.ndarray,
    fills: float,
) -> list[_Division]:
    """Return the divisions in which layers have chosen options, (choices, layers)."""
    (weights, pools, path), kind = options, tried.kind
    weight, pool = path.weight[kind, chosen], path.pool[kind, chosen]
    given = weights.arrays[kind, weight], weights.copies[kind, weight], pools.arrays[kind, pool]
    placed = placed_arrays(tried.work, tried.needs, used, given)
    writing_s = weight_write_seconds(tried.work, placed)
    values = path.values(kind, chosen, goal) + goal.per_s * writing_s
    moving_j = path.writing_j[kind, chosen]
    found = []
    for place, value in enumerate(values.tolist()):
        arrays = _division_of(placed, place)
        moving = float(moving_j[place] @ ~arrays.resident)
        found.append(_Division(arrays, used, value, moving, fills))
    return found


def _division_of(arrays: LayerArrays, place: int) -> LayerArrays:
    """Return one of several divisions; what layers need is the same in all."""
    return LayerArrays(
        **{
            name: column[place] if column.ndim > 1 else column
            for name, column in vars(arrays).items()
        }
    )


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
    time. ``kinds_s`` are the times of both stages in every kind of steps, (kinds, 2, ...), if there
    are several.
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

    def values(self, kind: np.ndarray, chosen: np.ndarray, goal: _Goal) -> np.ndarray:
        """Return the goal without the time of writing weights, for layers of these kinds, with
        several choices of their options, (choices, layers).
        """
        values: np.ndarray
        if not len(self.kinds_s):
            slowest = self.limit_s[kind, chosen].max(axis=1)
            values = self.cost(goal)[kind, chosen].sum(axis=1)
            return values + goal.per_s * goal.most_weight * slowest
        seconds = self.kinds_s[:, :, kind, chosen]
        both = goal.sum_weight * seconds.sum(axis=(1, 3)) + goal.most_weight * seconds.max(
            axis=(1, 3)
        )
        steps = np.array([1.0 - goal.forming, goal.forming])
        values = goal.per_s * (steps @ both)
        return values + goal.per_j * self.writing_j[kind, chosen].sum(axis=1)


def _path(weights: Options, pools: Options) -> _Path:
    weight, pool, real = _joined(
        np.minimum.accumulate(weights.slower_s, axis=1),
        np.minimum.accumulate(pools.slower_s, axis=1),
    )
    rows = np.arange(len(real))[:, None]
    # Places in flat columns, which are found faster than rows and options of each.
    of_weights = rows * weights.arrays.shape[1] + weight
    of_pools = rows * pools.arrays.shape[1] + pool

    def slower(of_weight: np.ndarray, of_pool: np.ndarray) -> np.ndarray:
        slower: np.ndarray = np.maximum(of_weight.take(of_weights), of_pool.take(of_pools))
        return slower

    forward = slower(weights.forward_s, pools.forward_s)
    backward = slower(weights.backward_s, pools.backward_s)
    kinds = [
        [slower(*stage) for stage in zip(*both, strict=True)]
        for both in zip(weights.kinds_s, pools.kinds_s, strict=True)
    ]
    arrays = weights.arrays.take(of_weights) + pools.arrays.take(of_pools)
    return _Path(
        arrays=np.where(real, arrays, NEVER),
        limit_s=np.where(real, np.maximum(forward, backward), np.inf),
        stages_s=np.where(real, forward + backward, np.inf),
        kinds_s=np.where(real, np.array(kinds), np.inf) if kinds else np.zeros((0, 2, *real.shape)),
        writing_j=weights.writing_j.take(of_weights),
        weight=weight,
        pool=pool,
    )


def _joined(weights: np.ndarray, pools: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return, per row, the first options for weights and for inputs that keep each limit, of the
    limits that both can keep, and which of these are real: rows have different numbers of them.

    Parameters
    ----------
    weights, pools : ndarray
        (kinds, options), limits in descending order.
    """
    limits = np.concatenate([weights, pools], axis=1)
    columns = limits.shape[1]
    rows = np.arange(len(limits))[:, None] * columns
    order = np.argsort(-limits, axis=1, kind="stable")
    limits = limits.take(rows + order)
    of_weights = order < weights.shape[1]
    # The first option that keeps a limit is behind all those with a larger one.
    weight = np.cumsum(of_weights, axis=1) - of_weights
    pool = np.arange(columns) - weight
    real = np.isfinite(limits) & (weight < weights.shape[1]) & (pool < pools.shape[1])
    real[:, 1:] &= limits[:, 1:] != limits[:, :-1]
    width = max(1, int(real.sum(axis=1).max()))
    place = rows + np.argsort(~real, axis=1, kind="stable")[:, :width]
    real = real.take(place)
    return np.where(real, weight.take(place), 0), np.where(real, pool.take(place), 0), real


# The choice -----------------------------------------------------------------------------------


def _choices(path: _Path, tried: _Tried, used: int, goal: _Goal, smallest: float) -> np.ndarray:
    """Return an option for each layer, for several limits of the slowest stage from the smallest
    one, (limits, layers).
    """
    limits = smallest * np.array(_LIMITS) if goal.most_weight else np.array([np.inf])
    allowed = np.where(path.limit_s <= limits[:, None, None], path.cost(goal), np.inf)
    chosen = _spent(path.arrays, allowed, tried.layers, used)
    return _filled_up(path.arrays, allowed, used, tried.kind, chosen)


def _smallest_limit(path: _Path, layers: np.ndarray, used: int) -> float | None:
    """Return the smallest limit of the slowest stage that the arrays allow."""
    real = np.isfinite(path.limit_s)
    if not real[:, 0].all():
        return None
    # Under a limit, layers have gone on from every option with a larger one to the next.
    more = np.full(path.arrays.shape, NEVER)
    more[:, :-1] = np.where(real[:, 1:], np.diff(path.arrays, axis=1), NEVER)
    limits, more = path.limit_s[real], (more * layers[:, None])[real]
    order = np.argsort(-limits, kind="stable")
    needed = path.arrays[:, 0] @ layers + np.cumsum(more[order]) - more[order]
    fitting = int(np.searchsorted(needed, used, "right"))
    return float(limits[order[fitting - 1]]) if fitting else None


def _may_reach(
    path: _Path, layers: np.ndarray, used: int, goal: _Goal, smallest: float, least: float
) -> bool:
    """Return whether a division may have a goal that is alike one of `least`, or less.

    Whatever an array costs, no division that fits is better than the best one if arrays are paid
    for, less the price of all (a Lagrangian bound). Where the slowest stage is between two limits,
    options are those that keep the upper one, and it takes as long as the lower one at least.

    Parameters
    ----------
    path, layers, used, goal
        As in `_choices`, with the layers of each kind.
    smallest : float
        The smallest limit of the slowest stage that the arrays allow.
    least : float
        A goal.
    """
    below = _ALIKE * least * (1 + _ROUNDING)
    if not np.isfinite(below) or goal.lasting or len(path.kinds_s):
        return True
    real, slowest = np.isfinite(path.limit_s), goal.per_s * goal.most_weight
    cost = np.where(real, path.cost(goal), np.inf)
    left = below - float(cost.min(axis=1) @ layers)
    if left < slowest * smallest:
        return False
    limits = np.array([smallest, np.inf])
    if slowest:
        most = max(left / (slowest * smallest), 1.0)
        limits = smallest * most ** np.linspace(0.0, 1.0, _INTERVALS + 1)
    prices = _PRICES * (left - slowest * smallest) / used
    priced = np.multiply.outer(prices, np.where(real, path.arrays, 0)) + cost
    # The limits of options fall: those that keep one are the last ones.
    best = np.minimum.accumulate(priced[:, :, ::-1], axis=2)[:, :, ::-1]
    first = (real & (path.limit_s > limits[1:, None, None])).sum(axis=2)
    goals = best[:, np.arange(len(layers)), first] @ layers - (prices * used)[:, None]
    return bool(((goals + slowest * limits[:-1]).max(axis=0) <= below).any())


def _spent(arrays: np.ndarray, cost: np.ndarray, layers: np.ndarray, used: int) -> np.ndarray:
    """Return the options of least cost that the arrays allow, the same for all layers of a kind.

    At a high price of an array they fit, at a low one they cost little. The price at which a choice
    that fits and one that does not are as good as each other leads to a better one than both, until
    there is none.

    Parameters
    ----------
    arrays : ndarray
        (kinds, options) arrays that an option takes.
    cost : ndarray
        (limits, kinds, options) what it costs under a limit; infinite: it is not allowed.
    layers : ndarray
        (kinds,) layers of each kind.
    used : int
        Arrays that there are. Those of the first options that are allowed are no more.

    Returns
    -------
    ndarray
        (limits, kinds) options.
    """
    limits, rows = np.arange(len(cost))[:, None], np.arange(len(arrays))
    numbers, many_layers = arrays.ravel().astype(np.float64), layers.astype(np.float64)

    def together(chosen: np.ndarray) -> tuple[list[int], list[float]]:
        """Return arrays and cost of all layers, one per limit."""
        costs = cost[limits, rows, chosen] @ many_layers
        return (arrays[rows, chosen] @ layers).tolist(), costs.tolist()

    small, large = np.isfinite(cost).argmax(axis=2), cost.argmin(axis=2)
    (few, dear), (many, cheap) = together(small), together(large)
    fits = np.array(many) <= used
    small[fits] = large[fits]
    open_, looked_at = np.flatnonzero(~fits).tolist(), -1
    middle, mine = small.copy(), cost
    for _ in range(_CROSSINGS):
        if not open_:
            break
        prices = [(dear[n] - cheap[n]) / max(many[n] - few[n], 1) for n in open_]
        if len(open_) != looked_at:
            looked_at, mine = len(open_), cost[open_].reshape(len(open_), -1)
        priced = np.multiply.outer(np.array(prices), numbers)
        priced += mine
        middle[open_] = priced.reshape(-1, *arrays.shape).argmin(axis=2)
        between, costs = together(middle)
        still = []
        for n, price in zip(open_, prices, strict=True):
            bound = dear[n] + price * few[n]
            if not costs[n] + price * between[n] < bound - _ROUNDING * abs(bound):
                continue
            still.append(n)
            if between[n] <= used:
                small[n], few[n], dear[n] = middle[n], between[n], costs[n]
            else:
                many[n], cheap[n] = between[n], costs[n]
        open_ = still
    return small


def _filled_up(
    arrays: np.ndarray, cost: np.ndarray, used: int, kind: np.ndarray, chosen: np.ndarray
) -> np.ndarray:
    """Spend the arrays that are left where they save most per array, layer by layer.

    Parameters
    ----------
    arrays, cost, used
        As in `_spent`.
    kind : ndarray
        (layers,) the kind of each layer.
    chosen : ndarray
        (limits, kinds) options that were chosen.

    Returns
    -------
    ndarray
        (limits, layers) options.
    """
    chosen = chosen.take(kind, axis=1)
    left = used - arrays[kind, chosen].sum(axis=1)
    limit, layer = np.nonzero(np.broadcast_to(left[:, None] != 0, chosen.shape))
    for _ in range(_PASSES):
        if not len(limit):
            break
        better, gain, wanted = _best_spent(
            arrays, cost, left, (limit, kind[layer], chosen[limit, layer])
        )
        # What is not worth it now is not with fewer arrays left.
        some = np.flatnonzero(gain > 0)
        some = some[np.lexsort((-gain[some], limit[some]))]
        before, lefts, taken = left, left.tolist(), []
        for place, own, arrays_ in zip(
            some.tolist(), limit[some].tolist(), wanted[some].tolist(), strict=True
        ):
            if arrays_ <= lefts[own]:
                lefts[own] -= arrays_
                taken.append(place)
        chosen[limit[taken], layer[taken]] = better[taken]
        left = np.array(lefts)
        some = np.sort(some[((left != 0) & (left != before))[limit[some]]])
        limit, layer = limit[some], layer[some]
    return chosen


def _best_spent(
    arrays: np.ndarray,
    cost: np.ndarray,
    left: np.ndarray,
    layers: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return, for layers with a limit, a kind and an option each, the option that saves most per
    array that it takes more, how much that is (0: none saves), and these arrays, of those that are
    left under the limit, (limits,).
    """
    kinds, options = arrays.shape
    limit, kind, option = layers
    # Those with the same of all three do the same.
    alike, place = np.unique((limit * kinds + kind) * options + option, return_inverse=True)
    one, option = np.divmod(alike, options)
    limit, kind = np.divmod(one, kinds)
    more = arrays[kind] - arrays[kind, option][:, None]
    saved = cost[limit, kind, option][:, None] - cost[limit, kind]
    fits = more <= left[limit, None]
    worth = np.where(fits & (saved > 0), saved / np.maximum(more, 0.5), 0.0)
    best, rows = worth.argmax(axis=1), np.arange(len(alike))
    return best[place], worth[rows, best][place], more[rows, best][place]
