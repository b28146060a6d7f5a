"""What is good, what is allowed, and which points no other one beats."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from repast_dist.ground.errors import SettingsError
from repast_dist.studies.kinds.search import Goal, Limits, SearchStudy


@dataclasses.dataclass(frozen=True)
class Goals:
    """The objectives and constraints of a search.

    Attributes
    ----------
    objectives : mapping
        Measured number -> ``lowest`` or ``highest``.
    constraints : mapping
        Measured number -> limits.
    """

    objectives: Mapping[str, Goal]
    constraints: Mapping[str, Limits]

    @classmethod
    def of(cls, study: SearchStudy, record: Mapping[str, Any]) -> "Goals":
        """Return the goals of a study, checked against what was measured of one design.

        Raises
        ------
        SettingsError
            An objective, a constraint or the column of `pruning` is no number that is measured.
        """
        asked = {
            **{f"objectives.{name}": name for name in study.objectives},
            **{f"constraints.{name}": name for name in study.constraints},
        }
        if study.pruning is not None:
            asked["pruning.column"] = study.pruning.column
        valid = [name for name, value in record.items() if is_number(value)]
        for where, name in asked.items():
            if name not in valid:
                raise SettingsError(
                    f"study.{where}: '{name}' is no number that is measured; "
                    f"valid: {', '.join(valid)}"
                )
        return cls(study.objectives, study.constraints)

    def lacks(self, record: Mapping[str, Any]) -> str:
        """Return the first number without which a point cannot be judged; "": it has all."""
        names = (*self.objectives, *self.constraints)
        return next((name for name in names if not is_number(record.get(name))), "")

    def values(self, record: Mapping[str, Any]) -> list[float]:
        """Return the objectives of a point."""
        return [float(record[name]) for name in self.objectives]

    def excesses(self, record: Mapping[str, Any]) -> dict[str, float]:
        """Return by how much each constraint is broken; 0: it is not."""
        return {name: it.excess(float(record[name])) for name, it in self.constraints.items()}

    def allowed(self, record: Mapping[str, Any]) -> bool:
        """Return whether a point keeps all constraints."""
        return not any(self.excesses(record).values())

    def costs(self, records: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Return (points, objectives) numbers of which the lowest are good."""
        signs = [1.0 if goal == "lowest" else -1.0 for goal in self.objectives.values()]
        found = np.array([self.values(record) for record in records], float)
        return found.reshape(len(records), len(signs)) * signs

    def front(self, records: Sequence[Mapping[str, Any]]) -> list[int]:
        """Return the points that no other one beats, by the first objective.

        Points that break a constraint are not among them; of equal points, the first is.
        """
        allowed = [number for number, record in enumerate(records) if self.allowed(record)]
        costs = self.costs([records[number] for number in allowed])
        chosen: list[int] = []
        for place in np.lexsort(costs.T[::-1]).tolist():
            beaten = any(np.all(costs[other] <= costs[place]) for other in chosen)
            if not beaten:
                chosen.append(place)
        return [allowed[place] for place in chosen]

    def gain(self, record: Mapping[str, Any], base: Mapping[str, Any]) -> float:
        """Return by what factor a design is better than another, all objectives together.

        It is the geometric mean of the factors of the objectives. Where one of them is not above
        0, factors say nothing: then it is e to the mean of the differences.
        """
        ours, theirs = self.costs([record])[0], self.costs([base])[0]
        if all(a * b > 0 for a, b in zip(ours, theirs, strict=True)):
            powers = np.where(ours > 0, 1.0, -1.0)
            return float(np.exp(np.mean(powers * (np.log(np.abs(theirs)) - np.log(np.abs(ours))))))
        return float(np.exp(np.clip(np.mean(theirs - ours), -700.0, 700.0)))

    def best(
        self, records: Sequence[Mapping[str, Any]], base: Mapping[str, Any], keep: int
    ) -> list[int]:
        """Return the designs to keep, the best first.

        With one objective they are the best ones. With several, all lie on the front: the one with
        the largest `gain`, then the best of each objective, then those farthest from the others.
        """
        if len(self.objectives) == 1:
            costs = self.costs(records)[:, 0]
            allowed = [n for n, record in enumerate(records) if self.allowed(record)]
            return sorted(allowed, key=lambda number: (costs[number], number))[:keep]
        front = self.front(records)
        if not front:
            return []
        costs = self.costs([records[number] for number in front])
        span = np.ptp(costs, axis=0)
        scaled = (costs - costs.min(axis=0)) / np.where(span > 0, span, 1.0)
        gains = [self.gain(records[number], base) for number in front]
        order = [int(np.argmax(gains)), *map(int, np.argmin(costs, axis=0))]
        chosen = list(dict.fromkeys(order))[:keep]
        while len(chosen) < min(keep, len(front)):
            gaps = np.min(
                [np.linalg.norm(scaled - scaled[number], axis=1) for number in chosen], axis=0
            )
            chosen.append(int(np.argmax(gaps)))
            if gaps[chosen[-1]] == 0.0:
                chosen.pop()
                break
        return [front[number] for number in chosen]


def is_number(value: Any) -> bool:
    """Return whether a measured value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
