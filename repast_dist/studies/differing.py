"""In which settings runs differ."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def differing_settings(settings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return, per run, dotted path -> value of the settings that are not the same in all runs.

    Where runs are copied to is not told: every run has a place of its own.
    """
    flat = [dict(leaves({n: v for n, v in item.items() if n != "storage"})) for item in settings]
    names = dict.fromkeys(name for item in flat for name in item)
    first = flat[0]
    differ = [n for n in names if any(item.get(n) != first.get(n) for item in flat)]
    return [{name: item.get(name) for name in differ} for item in flat]


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted path and value of every setting below some settings."""
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from leaves(inner, f"{path}.{name}" if path else name)
    else:
        yield path, value
