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


def told_apart(
    differing: Sequence[Mapping[str, Any]], choices: Sequence[Mapping[str, str]] = ()
) -> list[dict[str, Any]]:
    """Return, per run, what tells runs apart in a line: without settings that follow from a name.

    All of ``chip=small`` follows from the option, or from ``chip.name``, as long as runs of the
    same name have the same value.

    Parameters
    ----------
    differing : sequence of mapping
        Per run: dotted path -> value, as `differing_settings` returns them.
    choices : sequence of mapping, optional
        Per run: group -> option that was chosen for it.
    """
    chosen = [dict(item) for item in choices] or [{} for _ in differing]
    groups = dict.fromkeys(name for item in chosen for name in item)
    varied = [name for name in groups if len({item.get(name) for item in chosen}) > 1]
    rows = [
        {**{name: choice.get(name, "") for name in varied}, **settings}
        for choice, settings in zip(chosen, differing, strict=True)
    ]
    named = [name for name in differing[0] if name.rpartition(".")[2] in _NAMES]
    for lead in [*varied, *named]:
        group = lead.partition(".")[0]
        for name in list(rows[0]):
            # Options of studies choose those of other groups, too.
            below = name != lead and (lead == "study" or name.startswith(f"{group}."))
            below = below and name not in varied
            if lead in rows[0] and below and _follows(rows, name, lead):
                for row in rows:
                    del row[name]
    return rows


_NAMES = ("name", "method")


def _follows(rows: Sequence[Mapping[str, Any]], name: str, lead: str) -> bool:
    """Return whether runs with the same value of one setting have the same value of another."""
    first: dict[str, Any] = {}
    return all(first.setdefault(repr(row[lead]), row[name]) == row[name] for row in rows)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted path and value of every setting below some settings."""
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from leaves(inner, f"{path}.{name}" if path else name)
    else:
        yield path, value
