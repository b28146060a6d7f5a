"""Chooses how many chips of a machine work where the others may be switched off.

Chips share micro-batches and blocks: with more of them a step computes faster and exchanges more.
`best_number` looks for the number where that is best, and plans at most `MOST_PLANS` of them,
whatever the size of the machine.
"""

import dataclasses
import math
from collections.abc import Callable

from repast_dist.ground.errors import CapacityError, SettingsError
from repast_dist.ground.numbers import ceil_div
from repast_dist.hardware.hardware import Hardware
from repast_dist.network.shapes import Workload
from repast_dist.planning.plan import Plan, make_plan
from repast_dist.planning.specs import PartitionSpec, Policy, StepWork
from repast_dist.planning.summary import summarise

MOST_PLANS = 10
"""So many numbers of chips are tried at most."""

_STRIDES = 5
"""Walks up and down from the first number of chips take so many strides at most."""

_GAIN = 0.002
"""Numbers between those that were tried are left where they promise less than this fraction."""

_NEAR = 1.25
"""Nothing is tried between two numbers whose ratio is less, and of which one is the last."""


def best_plan(workload: Workload, hardware: Hardware, policy: Policy, work: StepWork) -> Plan:
    """Plan a training step on the chips that are to work.

    Parameters
    ----------
    workload : Workload
        What is trained.
    hardware : Hardware
        The chips and their network.
    policy : Policy
        How second-order information is kept, spread and solved with, and whether chips may be
        switched off (``partition.idle_chips``).
    work : StepWork
        All chips, and the micro-batches of a step.

    Returns
    -------
    Plan
        Of the chips at work; ``work.idle`` counts the others.

    Raises
    ------
    SettingsError, CapacityError
        As `make_plan` for all chips, or chips of unequal speed may be switched off.
    """
    if policy.partition.idle_chips == "none":
        return make_plan(workload, hardware, policy, work)
    if len(set(work.speeds)) > 1:
        raise SettingsError(
            "partition.idle_chips=auto with chips of unequal speed (farm.chip_overrides): how many "
            "work is found for equal ones; valid: none"
        )

    best = math.inf, work.chips, make_plan(workload, hardware, policy, work)

    def goal(chips: int) -> float:
        """Return what is to be least; infinite for too few chips, which may not hold the layers
        or fill the dimensions of the network.
        """
        nonlocal best
        idle = work.chips - chips
        fewer = dataclasses.replace(work, chips=chips, idle=idle, speeds=work.speeds[:chips])
        try:
            plan = make_plan(workload, hardware, policy, fewer) if idle else best[2]
            found = _goal(plan)
        except (CapacityError, SettingsError):
            return math.inf
        best = min(best, (found, chips, plan), key=lambda item: item[:2])
        return found

    best_number(goal, work.chips, work.micro_batches)
    return best[2]


def refuse_idle_chips(partition: PartitionSpec, why: str) -> None:
    """Refuse chips that may be switched off where all of them are to work.

    Raises
    ------
    SettingsError
        They may.
    """
    if partition.idle_chips != "none":
        raise SettingsError(f"partition.idle_chips={partition.idle_chips}: {why}; valid: none")


def best_number(goal: Callable[[int], float], chips: int, micro_batches: int) -> int:
    """Return the number of chips that is best of those that are tried.

    These are, until `MOST_PLANS` are tried:

    - all chips, and the fewest that have no more micro-batches each than these have;
    - from there, numbers that double, and numbers that halve, each until one is worse than the one
      before; on large machines the factor is larger, so that five reach the end;
    - for as long as that promises a gain, a number beside the best one: where the parabola through
      it and its tried neighbours is lowest, both axes logarithmic;
    - the fewest chips with one micro-batch each more, or less, than the best number has.

    Wherever a number is halved or comes from a parabola, the fewest chips are tried that have no
    more micro-batches each. Of equally good numbers the least is taken.

    Parameters
    ----------
    goal : callable
        Chips -> what is to be least, not negative; infinite where so few cannot work. It is called
        once for every number.
    chips : int
        Chips of the machine.
    micro_batches : int
        Micro-batches of a step.
    """
    tried = _Tried(goal, micro_batches)
    first = min(chips, tried.fewest(chips))
    tried.better(chips, first)
    up, down = _stride(chips / first), _stride(first)
    _walk(tried, first, lambda number: min(chips, round(number * up)))
    _walk(tried, first, lambda number: tried.fewest(round(number / down)))
    while len(tried.goals) < MOST_PLANS and (number := tried.promising()):
        tried.better(number, tried.best)
    return tried.best


def _stride(ratio: float) -> float:
    """Return the factor between numbers that grow by a ratio in so many strides or fewer."""
    return max(2.0, ratio ** (1 / _STRIDES))


def _walk(tried: "_Tried", start: int, following: Callable[[int], int]) -> None:
    """Try a number after the other until one is worse than that before, or the last one."""
    now, then = start, following(start)
    while then != now and tried.better(then, now):
        now, then = then, following(then)


class _Tried:
    """Numbers of chips that have been tried, and what may be tried next."""

    def __init__(self, goal: Callable[[int], float], micro_batches: int) -> None:
        self._goal, self._micro_batches = goal, micro_batches
        self.goals: dict[int, float] = {}

    def better(self, number: int, than: int) -> bool:
        """Return whether a number is better than another; try what has not been tried, unless
        enough has been.
        """
        for new in (than, number):
            if new not in self.goals:
                if len(self.goals) == MOST_PLANS:
                    return False
                self.goals[new] = self._goal(new)
        return (self.goals[number], number) < (self.goals[than], than)

    @property
    def best(self) -> int:
        """The best number."""
        return min(self.goals, key=lambda number: (self.goals[number], number))

    def fewest(self, number: int) -> int:
        """Return the fewest chips that have no more micro-batches each than so many."""
        return self._with(self._each(number))

    def promising(self) -> int | None:
        """Return a number that has not been tried and may be better than the best, or None."""
        best = self.best
        low, high = self._beside(best)
        ratio = _where_least(*((number, self.goals[number]) for number in (low, best, high)))
        middle = round(best * ratio)
        if middle == best and ratio != 1.0:
            middle += 1 if ratio > 1.0 else -1
        between = [n for n in (self.fewest(middle), middle) if low < n < high]
        each = self._each(best)
        steps = [self._with(each + 1), self._with(max(1, each - 1))]
        further = [n for n in steps if n < max(self.goals)]
        return next((n for n in between + further if n not in self.goals), None)

    def _each(self, number: int) -> int:
        """Return the most micro-batches that one of so many chips has."""
        return ceil_div(self._micro_batches, max(1, number))

    def _with(self, each: int) -> int:
        """Return the fewest chips that have so many micro-batches each, or fewer."""
        return ceil_div(self._micro_batches, each)

    def _beside(self, number: int) -> tuple[int, int]:
        """Return the tried numbers below and above one; itself where there is none."""
        numbers = sorted(self.goals)
        place = numbers.index(number)
        return numbers[max(0, place - 1)], numbers[min(place + 1, len(numbers) - 1)]


_Point = tuple[int, float]


def _where_least(low: _Point, best: _Point, high: _Point) -> float:
    """Return by what the best number is multiplied where a better one may be; 1: nowhere.

    It is the lowest place of the parabola through three numbers and their goals, unless that is
    hardly lower. Where the best number is the first or last one, or the next one cannot work, it
    is halfway to the other.
    """
    if min(low[1], best[1], high[1]) <= 0:
        return 1.0
    if low == best or high == best or math.inf in (low[1], high[1]):
        other = high[0] if low == best or low[1] == math.inf else low[0]
        ratio = other / best[0]
        return math.sqrt(ratio) if max(ratio, 1 / ratio) > _NEAR else 1.0
    below, above = math.log(low[0] / best[0]), math.log(high[0] / best[0])
    fall = math.log(low[1] / best[1]) / below
    rise = math.log(high[1] / best[1]) / above
    bend = (rise - fall) / (above - below)
    slope = fall - bend * below
    if bend <= 0 or slope**2 / (4 * bend) < _GAIN:
        return 1.0
    return math.exp(-slope / (2 * bend))


def _goal(plan: Plan) -> float:
    """Return what is to be least of a plan: never negative."""
    step, objective = summarise(plan), plan.policy.partition.objective
    if objective == "lifetime":
        return 1 / step.wear.lifetime_steps[step.wear.first]
    return step.energy_j if objective == "energy" else step.step_s
