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
from repast_dist.hardware.hardware import Hardware
from repast_dist.planning.allocation import (
    Allocation,
    ArrayBudget,
    LayerArrays,
    Needs,
    check_fits,
    stage_ranges,
)
from repast_dist.planning.goals import Goal
from repast_dist.planning.layer_ops import (
    LayerWork,
    alike,
    kinds_of,
    once_per_geometry,
    once_per_work,
)
from repast_dist.planning.options import (
    Candidates,
    Numbers,
    Options,
    Setting,
    placed_arrays,
    weight_write_seconds,
)
from repast_dist.planning.path_loops import NEVER
from repast_dist.planning.paths import ALIKE, Path
from repast_dist.planning.specs import Policy

_PREFIXES = 9
"""Numbers of layers that are made to stay which are tried for the least energy."""

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
    needs = _needs(work)
    stages, ranges = stage_ranges(needs, budget, partition, work.step.chips, cuts)
    goal = Goal.of(work, policy, stages)
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


def _divided(broad: "_Tried", budget: ArrayBudget, goal: Goal) -> "_Division":
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
        near = _Tried.of(broad.work, broad.needs, Numbers.near(best.arrays), *goal.candidates)
        tried = tried + _divisions(near, best.used, goal, best.value)
    first = _least(tried)
    alike = [
        division
        for division in tried
        if division.value <= ALIKE * first.value and division.fills <= ALIKE * first.fills
    ]
    return min(alike, key=lambda division: (division.moving_j, division.value))


class _Trials:
    """Numbers of arrays of a chip that have been tried, of those that layers may have, and good
    divisions of them.
    """

    def __init__(self, broad: "_Tried", arrays: int, goal: Goal) -> None:
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
    """Arrays of layers, one of several ways to divide them, how many the layers take, how many of
    the chip's are used, the value of the goal, the energy of writing weights that do not stay, and
    how often a micro-batch fills the arrays that are filled most, 0 if that does not matter.
    """

    placed: LayerArrays
    way: int
    taken: int
    used: int
    value: float
    moving_j: float
    fills: float

    @property
    def rank(self) -> tuple[float, float]:
        """What makes a division better than another, as far as it is smaller."""
        return self.fills, self.value

    @property
    def arrays(self) -> LayerArrays:
        """Arrays of each layer; what layers need is the same in all ways."""
        return LayerArrays(
            **{
                name: column[self.way] if column.ndim > 1 else column
                for name, column in vars(self.placed).items()
            }
        )

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
    def of(
        cls, work: LayerWork, needs: Needs, numbers: Numbers, copied: bool, micro_batches: int
    ) -> "_Tried":
        """Find the layers that are alike and have the same numbers; the last parameters are those
        of `Candidates`.
        """
        kind = kinds_of([alike(work), *numbers.per_layer]) if numbers.per_layer else alike(work)
        first = np.unique(kind, return_index=True)[1]
        layers, need, few = work.take(first), needs.take(first), numbers.take(first)
        weights = Candidates.for_weights(
            layers, need, few, copied=copied, micro_batches=micro_batches
        )
        pools = Candidates.for_inputs(layers, need, few, micro_batches=micro_batches)
        return cls(work, needs, weights, pools, first, kind)

    def on(self, hardware: Hardware) -> "_Tried":
        """Return the same numbers on another chip whose arrays have the same geometry."""
        both = self.weights.on(hardware), self.pools.on(hardware)
        return _Tried(self.work.on(hardware), self.needs, *both, self.first, self.kind)

    @functools.cached_property
    def layers(self) -> np.ndarray:
        """How many layers there are of each kind."""
        return np.bincount(self.kind)

    def expect(self, used: list[int]) -> None:
        """Prepare for divisions of such numbers of arrays."""
        for candidates in (self.weights, self.pools):
            candidates.expect(number for number in used if number)


@once_per_geometry
def _needs(work: LayerWork) -> Needs:
    """Return what all layers need."""
    return Needs.of(work.layers, work.hardware, work.step)


@once_per_work
def _broadly(work: LayerWork, start: int, stop: int, goal: Goal) -> _Tried:
    """Return a range of layers with few numbers up to all that make sense, which are the same
    however many arrays a chip has for layers.
    """
    return _many(work, start, stop, *goal.candidates).on(work.hardware)


@once_per_geometry
def _many(work: LayerWork, start: int, stop: int, copied: bool, micro_batches: int) -> _Tried:
    """Return what `_broadly` does, on any chip."""
    # Counted for themselves: what is counted of `work` holds them, and would hold `work`.
    place = np.arange(start, stop)
    layers, needs = work.take(place).alone, _needs(work).take(place)
    return _Tried.of(layers, needs, Numbers.broad(layers, needs), copied, micro_batches)


def _divisions(tried: _Tried, used: int, goal: Goal, least: float) -> list[_Division]:
    """Return good divisions of `used` arrays among layers that may have some numbers of them; none
    if they are too few. Those may be missing which are not alike the best one, or one whose goal is
    `least`.
    """
    return [
        division
        for setting in goal.settings(used)
        for division in _divisions_if(tried, setting, goal, least)
    ]


def _divisions_if(tried: _Tried, setting: Setting, goal: Goal, least: float) -> Iterator[_Division]:
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
        path = Path.of(weights.kept(kept[tried.first]), pools, goal)
        smallest = path.smallest_limit(tried.layers, used)
        if smallest == np.inf or not path.may_reach(tried.layers, used, smallest, least):
            continue
        chosen = path.choices(tried.layers, tried.kind, used, smallest)
        found.append(_placed(tried, used, (weights, pools, path), chosen, fills))
        least = min(least, _least(found[-1]).value)
    yield from itertools.chain.from_iterable(reversed(found))


def _placed(
    tried: _Tried,
    used: int,
    options: tuple[Options, Options, Path],
    chosen: np.ndarray,
    fills: float,
) -> list[_Division]:
    """Return the divisions in which layers have chosen options, (choices, layers)."""
    (weights, pools, path), kind = options, tried.kind
    weight, pool = path.weight[kind, chosen], path.pool[kind, chosen]
    given = weights.arrays[kind, weight], weights.copies[kind, weight], pools.arrays[kind, pool]
    placed = placed_arrays(tried.work, tried.needs, used, given)
    writing_s = weight_write_seconds(tried.work, placed)
    values = path.values(kind, chosen) + path.goal.per_s * writing_s
    taken = (placed.written + placed.pool).sum(axis=1)
    columns = taken.tolist(), values.tolist(), weights.writing_j[kind, weight], ~placed.resident
    return [
        _Division(placed, way, own, used, value, float(writing_j @ moves), fills)
        for way, (own, value, writing_j, moves) in enumerate(zip(*columns, strict=True))
    ]


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


def _kept(needs: Needs, used: int, goal: Goal) -> Iterator[np.ndarray]:
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
