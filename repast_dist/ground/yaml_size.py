"""How large YAML becomes once aliases and interpolations are replaced by what they stand for."""

import re
from collections.abc import Iterator
from typing import Any

import yaml  # type: ignore[import-untyped]

_Path = tuple[str, ...]
_WORD = re.compile(r"\.*\w+(?:\.\w+|\[\w+\])*|\.+\[\w+\]")


def expanded_nodes(text: bytes) -> int:
    """Return the number of values a YAML text has with all aliases written out.

    Nine lines of nine aliases each, to the line before, are 9^9 values; counting them takes as
    long as reading the text.

    Raises
    ------
    yaml.YAMLError
        The text is no YAML.
    """
    known: dict[str, int] = {}
    # Values and anchor of every collection that is still open; the outermost holds the documents.
    counts, anchors = [0], [""]
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            counts[-1] += known.get(event.anchor, 1)
        elif isinstance(event, yaml.CollectionStartEvent):
            counts.append(1)
            anchors.append(event.anchor or "")
        elif isinstance(event, yaml.CollectionEndEvent):
            inside, anchor = counts.pop(), anchors.pop()
            known[anchor] = inside
            counts[-1] += inside
        elif isinstance(event, yaml.ScalarEvent):
            known[event.anchor or ""] = 1
            counts[-1] += 1
    return counts[0]


def interpolated_size(data: Any) -> int:
    """Return how many values and characters plain data has with interpolations written out.

    Parameters
    ----------
    data : nested dict, list and values
        As YAML has it; text may hold interpolations, ``${path.to.value}`` or ``${.sibling}``.

    Returns
    -------
    int
        0 without interpolations. Otherwise, what the data becomes at most: all that looks like a
        path behind ``${`` counts, also in arguments of resolvers. Each path is followed once, so
        counting takes as long as reading the data.

    Raises
    ------
    RecursionError
        Hundreds of interpolations stand for each other.
    """
    values = dict(_values(data, ()))
    if not any(isinstance(value, str) and "${" in value for value in values.values()):
        return 0
    sizes: dict[_Path, int] = {}

    def size(path: _Path) -> int:
        if path not in values:
            return 0
        if path not in sizes:
            # Rings are for those to report who write interpolations out.
            sizes[path] = 0
            value = values[path]
            parts = [(*path, name) for name, _ in _items(value)]
            # Collections may stand inside of text, with quotes and commas.
            own = sum(len(part[-1]) + 4 for part in parts) + 4
            own += 0 if isinstance(value, dict | list) else len(str(value))
            sizes[path] = own + sum(map(size, [*parts, *_others(value, path)]))
        return sizes[path]

    return size(())


def _values(data: Any, path: _Path) -> Iterator[tuple[_Path, Any]]:
    yield path, data
    for name, inner in _items(data):
        yield from _values(inner, (*path, name))


def _items(value: Any) -> list[tuple[str, Any]]:
    """Return the names and values in a collection; of anything else, none."""
    if isinstance(value, dict):
        return [(str(name), inner) for name, inner in value.items()]
    return [(str(n), inner) for n, inner in enumerate(value)] if isinstance(value, list) else []


def _others(value: Any, path: _Path) -> list[_Path]:
    """Return the paths that interpolations in a value may stand for."""
    _, _, inside = value.partition("${") if isinstance(value, str) else ("", "", "")
    return [_absolute(word, path) for word in _WORD.findall(inside)]


def _absolute(word: str, path: _Path) -> _Path:
    """Return a path from the top; a dot in front is the folder of the value, two that above."""
    names = word.lstrip(".")
    dots = len(word) - len(names)
    above = path[: max(len(path) - dots, 0)] if dots else ()
    return (*above, *re.findall(r"\w+", names))
