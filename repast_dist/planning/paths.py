"""The numbers of arrays of each kind of layer as one list, and the choice among them."""

import dataclasses

import numpy as np

from repast_dist.planning.goals import Goal
from repast_dist.planning.options import Options
from repast_dist.planning.path_loops import (
    ROUNDING,
    choices,
    joined,
    may_reach,
    smallest_limit,
    together,
)

ALIKE = 1.003
"""Of divisions whose goal is within this ratio of the least, the one in which fewest weights move
is taken.
"""

_LIMITS = np.array([1.0, 1.03, 1.1, 1.3, 2.0, np.inf])
"""Limits of the slowest stage that are tried, as multiples of the smallest one."""


@dataclasses.dataclass(frozen=True)
class Path:
    """The options of each kind of layer, from few arrays to many: those for weights and those for
    inputs which keep the same limit go together; (kinds, options), of which the first are real.

    Attributes
    ----------
    weight, pool : ndarray
        Option for the weights, and for the inputs.
    arrays : ndarray
        Arrays of both.
    limit_s : ndarray
        Seconds per sample of the slower stage, descending.
    real : ndarray
        (kinds,) how many options each kind has.
    cost : ndarray
        What they add to the goal besides the slowest stage.
    seconds : ndarray
        Seconds per sample in either stage, in the average step and, if there are several kinds of
        steps, in those of every kind, (steps, 2, kinds, options).
    weights : Options
        The options for weights.
    goal : Goal
        What is made small.
    """

    weight: np.ndarray
    pool: np.ndarray
    arrays: np.ndarray
    limit_s: np.ndarray
    real: np.ndarray
    cost: np.ndarray
    seconds: np.ndarray
    weights: Options
    goal: Goal

    @classmethod
    def of(cls, weights: Options, pools: Options, goal: Goal) -> "Path":
        """Join options for weights and for inputs."""
        weight, pool, real = joined(weights.seconds[0], pools.seconds[0])
        arrays, limit_s, cost, seconds = together(
            weight,
            pool,
            real,
            weights.seconds,
            pools.seconds,
            (weights.arrays, pools.arrays),
            weights.writing_j,
            goal.per_s * goal.sum_weight,
            goal.per_j,
        )
        return cls(weight, pool, arrays, limit_s, real, cost, seconds, weights, goal)

    def smallest_limit(self, layers: np.ndarray, used: int) -> float:
        """Return the smallest limit of the slowest stage that so many arrays allow to layers of
        each kind; infinity: they are too few.
        """
        return float(smallest_limit(self.arrays, self.limit_s, self.real, layers, used))

    def may_reach(self, layers: np.ndarray, used: int, smallest: float, least: float) -> bool:
        """Return whether a division of so many arrays, which allow a smallest limit, may have a
        goal that is alike one of `least`, or less.
        """
        goal, below = self.goal, ALIKE * least * (1 + ROUNDING)
        if not np.isfinite(below) or goal.lasting or len(self.seconds) > 1:
            return True
        slowest = goal.per_s * goal.most_weight
        columns = self.arrays, self.limit_s, self.cost, self.real
        return bool(may_reach(*columns, layers, used, slowest, smallest, below))

    def choices(
        self, layers: np.ndarray, kind: np.ndarray, used: int, smallest: float
    ) -> np.ndarray:
        """Return an option for each layer, of these kinds, for several limits of the slowest stage
        from the smallest one, (limits, layers), without those that are the same as for the limit
        before.
        """
        limits = smallest * _LIMITS if self.goal.most_weight else np.array([np.inf])
        columns = self.arrays, self.limit_s, self.cost, self.real
        chosen: np.ndarray = choices(*columns, limits, layers, kind, used)
        differs = np.ones(len(chosen), bool)
        differs[1:] = (chosen[1:] != chosen[:-1]).any(axis=1)
        return chosen[differs]

    def values(self, kind: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """Return the goal without the time of writing weights, for layers of these kinds, with
        several choices of their options, (choices, layers).
        """
        goal, values = self.goal, self.cost[kind, chosen].sum(axis=1)
        if len(self.seconds) == 1:
            slowest = self.limit_s[kind, chosen].max(axis=1)
            of_one: np.ndarray = values + goal.per_s * goal.most_weight * slowest
            return of_one
        seconds = self.seconds[1:, :, kind, chosen]
        both = goal.sum_weight * seconds.sum(axis=(1, 3)) + goal.most_weight * seconds.max(
            axis=(1, 3)
        )
        steps = np.array([1.0 - goal.forming, goal.forming])
        writing_j = self.weights.writing_j[kind, self.weight[kind, chosen]]
        of_steps: np.ndarray = goal.per_s * (steps @ both) + goal.per_j * writing_j.sum(axis=1)
        return of_steps
