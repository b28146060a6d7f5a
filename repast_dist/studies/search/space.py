"""The parameters of a search: what a sampler sees of them, and the settings that they stand for.

A sampler sees numbers. Values of a list that are numbers are seen by their place in it, in order,
so that it knows which are neighbours; names and sets of settings are seen as kinds.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from repast_dist.ground.errors import SettingsError
from repast_dist.ground.spec import to_dict
from repast_dist.studies.kinds.search import Parameter, Range
from repast_dist.studies.settings import RunSettings
from repast_dist.studies.variants import varied

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Seen = dict[str, int | float]
"""A point as a sampler sees it: parameter -> number."""

_WHOLE = 1e-9


@dataclasses.dataclass(frozen=True)
class Space:
    """The parameters of a search.

    Attributes
    ----------
    parameters : mapping
        Name -> values, range or sets of settings.
    whole : frozenset of str
        Ranges of settings that are whole numbers.
    where : str
        Path of the parameters in the settings; messages begin with it.
    """

    parameters: Mapping[str, Parameter]
    whole: frozenset[str]
    where: str

    @classmethod
    def of(cls, parameters: Mapping[str, Parameter], settings: RunSettings, where: str) -> "Space":
        """Return the parameters of a study, each checked against the settings.

        Raises
        ------
        SettingsError
            A parameter names no setting, the study's measures do not read it, or none of its
            values is valid beside the other settings.
        """
        data = to_dict(settings)
        ranges = {name: it for name, it in parameters.items() if isinstance(it, Range)}
        whole = frozenset(
            name for name, item in ranges.items() if _is_whole(value_at(data, name), item)
        )
        space = cls(parameters, whole, where)
        for name in parameters:
            space._check(name, settings)
        return space

    def distributions(self) -> "dict[str, BaseDistribution]":
        """Return what Optuna samples from."""
        return {name: self._distribution(name) for name in self.parameters}

    def levels(self) -> dict[str, list[int | float]]:
        """Return the values of every parameter that a grid tries, as a sampler sees them.

        Raises
        ------
        SettingsError
            A range has neither a step nor a number of levels.
        """
        return {name: self._levels(name) for name in self.parameters}

    def changes(self, seen: Mapping[str, int | float]) -> dict[str, Any]:
        """Return the settings that a point stands for: dotted path -> value."""
        found: dict[str, Any] = {}
        for name, item in self.parameters.items():
            value = self.shown(name, seen[name])
            found |= item[value] if isinstance(item, Mapping) else {name: value}
        return found

    def shown(self, name: str, seen: int | float) -> Any:
        """Return the value of a parameter: of its list or range, or the name of a set."""
        item = self.parameters[name]
        if isinstance(item, Range):
            return round(seen) if name in self.whole else float(seen)
        return list(item)[int(seen)]

    def values(self, seen: Mapping[str, int | float]) -> dict[str, Any]:
        """Return a point as people read it: parameter -> value."""
        return {name: self.shown(name, seen[name]) for name in self.parameters}

    def named(self, name: str) -> list[Any]:
        """Return all values of a parameter that is no range: of its list, or names of its sets."""
        item = self.parameters[name]
        return [] if isinstance(item, Range) else list(item)

    def is_log(self, name: str) -> bool:
        """Return whether a parameter is drawn on a logarithmic axis."""
        item = self.parameters[name]
        return isinstance(item, Range) and item.log

    def is_ordered(self, name: str) -> bool:
        """Return whether a parameter's values are numbers."""
        item = self.parameters[name]
        return isinstance(item, Range) or (isinstance(item, tuple) and _is_ascending(item))

    def _distribution(self, name: str) -> "BaseDistribution":
        from optuna.distributions import (
            CategoricalDistribution,
            FloatDistribution,
            IntDistribution,
        )

        item = self.parameters[name]
        if not isinstance(item, Range):
            if isinstance(item, tuple) and _is_ascending(item):
                return IntDistribution(0, len(item) - 1)
            return CategoricalDistribution(tuple(range(len(item))))
        if name in self.whole:
            step = int(item.step or 1)
            low = math.ceil(item.low)
            most = low + (math.floor(item.high) - low) // step * step
            return IntDistribution(low, most, log=item.log, step=step)
        high = item.high
        if item.step is not None:
            steps = math.floor((item.high - item.low) / item.step + _WHOLE)
            high = item.low + steps * item.step
        return FloatDistribution(item.low, high, log=item.log, step=item.step)

    def _levels(self, name: str) -> list[int | float]:
        item = self.parameters[name]
        if not isinstance(item, Range):
            return list(range(len(item)))
        whole = name in self.whole
        step = item.step or (1.0 if whole and item.levels is None and not item.log else None)
        if item.levels is None and step is None:
            raise SettingsError(
                f"{self.where}.{name}: a grid needs distances; valid: step=NUMBER, or levels=NUMBER"
            )
        if item.levels is None and step is not None:
            low = math.ceil(item.low) if whole else item.low
            count = math.floor((item.high - low) / step + _WHOLE) + 1
            found = [low + number * step for number in range(count)]
        else:
            found = _spread(item)
        if not whole:
            return found
        # The ends of a range need not be whole.
        inside = [round(v) for v in found if item.low <= round(v) <= item.high]
        return list(dict.fromkeys(inside))

    def _check(self, name: str, settings: RunSettings) -> None:
        """Refuse a parameter of which no value is valid; single ones may be, beside others."""
        item, first = self.parameters[name], None
        if isinstance(item, Range):
            ends = (math.ceil, math.floor) if name in self.whole else (float, float)
            tried = [{name: ends[0](item.low)}, {name: ends[1](item.high)}]
        elif isinstance(item, Mapping):
            tried = list(item.values())
        else:
            tried = [{name: value} for value in item]
        for changes in tried:
            try:
                varied(settings, changes, f"{self.where}.{name}")
            except SettingsError as error:
                first = first or error
            else:
                return
        if first is not None:
            raise first


def value_at(data: Mapping[str, Any], path: str) -> Any:
    """Return the value at a dotted path of plain settings; None: there is none."""
    place: Any = data
    for part in path.split("."):
        place = place.get(part) if isinstance(place, Mapping) else None
    return place


def _is_whole(now: Any, item: Range) -> bool:
    """Return whether a setting is a whole number; where it has no value now, its range decides."""
    if now is None:
        return all(float(v).is_integer() for v in (item.low, item.high, item.step or 1.0))
    return isinstance(now, int) and not isinstance(now, bool)


def _is_ascending(values: Sequence[Any]) -> bool:
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    return numbers and all(a < b for a, b in itertools.pairwise(values))


def _spread(item: Range) -> list[float]:
    """Return so many values between the ends of a range, evenly on its axis."""
    count = item.levels or 2
    low, high = (math.log(item.low), math.log(item.high)) if item.log else (item.low, item.high)
    inner = [low + (high - low) * k / (count - 1) for k in range(1, count - 1)]
    return [item.low, *(math.exp(v) if item.log else v for v in inner), item.high]
