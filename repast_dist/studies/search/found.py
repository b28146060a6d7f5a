"""What a search has found: its points, the best of them, and the settings' own design beside."""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import pyarrow as pa

from repast_dist.studies.costing import table
from repast_dist.studies.kinds.search import SearchStudy
from repast_dist.studies.search.goals import Goals, is_number
from repast_dist.studies.search.proposals import Record
from repast_dist.studies.search.space import Seen, Space

_ASIDE = ("refused", "stopped", "curve", "same_as", "cpu_s")


@dataclasses.dataclass(frozen=True)
class Found:
    """The outcome of a search.

    Attributes
    ----------
    study : SearchStudy
        What was asked.
    space : Space
        Its parameters.
    goals : Goals
        Its objectives and constraints.
    seen : sequence of dict
        The points, as they were proposed.
    records : sequence of dict
        What was measured of each.
    base : dict
        What was measured of the settings as they are.
    now : mapping
        Parameter -> its value in the settings as they are; None where that has no name.
    finals : mapping
        Point -> what was measured of it alone, for the best; -1: the settings as they are.
    """

    study: SearchStudy
    space: Space
    goals: Goals
    seen: Sequence[Seen]
    records: Sequence[Record]
    base: Record
    now: Mapping[str, Any]
    finals: Mapping[int, Record] = dataclasses.field(default_factory=dict)

    @cached_property
    def complete(self) -> list[int]:
        """Points that have all numbers they are judged by."""
        return [
            number
            for number, record in enumerate(self.records)
            if "refused" not in record and "stopped" not in record
        ]

    @cached_property
    def allowed(self) -> list[int]:
        """Those of them that keep the constraints."""
        return [number for number in self.complete if self.goals.allowed(self.records[number])]

    @cached_property
    def front(self) -> list[int]:
        """Those that no other one beats, by the first objective."""
        found = self.goals.front([self.records[number] for number in self.complete])
        return [self.complete[place] for place in found]

    @cached_property
    def best(self) -> list[int]:
        """The designs that are kept, the best first."""
        once = [number for number in self.complete if "same_as" not in self.records[number]]
        records = [self.records[number] for number in once]
        return [once[place] for place in self.goals.best(records, self.base, self.study.keep)]

    @property
    def distinct(self) -> int:
        """How many different points there are."""
        return len({tuple(seen.values()) for seen in self.seen})

    @cached_property
    def columns(self) -> list[str]:
        """Measured columns, in the order of the measures."""
        records = [self.base, *(self.records[number] for number in self.complete)]
        return list(dict.fromkeys(n for record in records for n in record if n not in _ASIDE))

    @property
    def judged(self) -> list[str]:
        """Columns that are objectives or constrained."""
        return list(dict.fromkeys([*self.goals.objectives, *self.goals.constraints]))

    def unit(self, column: str) -> str:
        """Return the unit of a measured column; "" for text."""
        name, _, inner = column.partition(".")
        measure = {**self.study.measures, **self.study.finals}[name]
        return measure.units.get(inner, "1")

    def values(self, number: int) -> dict[str, Any]:
        """Return the parameters of a point; -1: of the settings as they are."""
        return dict(self.now) if number < 0 else self.space.values(self.seen[number])

    def record(self, number: int) -> Record:
        """Return what was measured of a point; -1: of the settings as they are."""
        own = self.base if number < 0 else self.records[number]
        return {**own, **self.finals.get(number, {})}

    def state(self, number: int) -> str:
        """Return in a word or two what became of a point."""
        record = self.records[number]
        if "refused" in record:
            return "refused"
        if "stopped" in record:
            return "stopped early"
        if number in self.front:
            return "best" if len(self.goals.objectives) == 1 else "front"
        return "allowed" if number in self.allowed else "breaks a constraint"

    def points_table(self) -> pa.Table:
        """Return one row per point: its number, what became of it, parameters and figures."""
        rows = [
            {"point": number, "state": self.state(number)}
            | self.values(number)
            | {name: self.records[number].get(name) for name in self.columns}
            | {"cpu_s": self.records[number].get("cpu_s")}
            for number in range(len(self.records))
        ]
        return self._table(rows, self.columns)

    def designs_table(self) -> pa.Table:
        """Return the settings' own design and the best ones: parameters, figures, finals."""
        finals = list(dict.fromkeys(n for it in self.finals.values() for n in it if "." in n))
        numbers = [-1, *self.best]
        shown = [*self.columns, *(name for name in finals if name not in self.columns)]
        rows = [
            {"design": self.name(number), "point": None if number < 0 else number}
            | self.values(number)
            | {name: self.record(number).get(name) for name in shown}
            for number in numbers
        ]
        return self._table(rows, shown)

    def refused_table(self) -> pa.Table | None:
        """Return the points that were refused, with the reasons; None: none was."""
        rows = [
            {"point": number, "reason": record["refused"]} | self.values(number)
            for number, record in enumerate(self.records)
            if "refused" in record
        ]
        return self._table(rows, []) if rows else None

    def name(self, number: int) -> str:
        """Return what a kept design is called."""
        return "settings' own" if number < 0 else f"design_{self.best.index(number) + 1}"

    def _table(self, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> pa.Table:
        shown = {name: alike([row[name] for row in rows]) for name in self.space.parameters}
        rows = [
            {name: shown[name][k] if name in shown else value for name, value in row.items()}
            for k, row in enumerate(rows)
        ]
        units = {name: self.unit(name) for name in columns} | {"cpu_s": "s"}
        return table(rows, units)


def alike(values: Sequence[Any]) -> list[Any]:
    """Return the values of a parameter as a column holds them: all numbers, or all text."""
    known = [value for value in values if value is not None]
    if all(is_number(value) for value in known):
        whole = all(isinstance(value, int) for value in known)
        return [None if v is None else (v if whole else float(v)) for v in values]
    return [None if value is None else str(value) for value in values]
