"""Frozen, validated settings classes and how they are loaded from plain data."""

import dataclasses
import difflib
import functools
import json
from collections.abc import Mapping
from typing import Any, cast, dataclass_transform, get_type_hints

import pydantic
from pydantic.dataclasses import dataclass as pydantic_dataclass

from repast_dist.ground.errors import SettingsError, brief

_CONFIG = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass_transform(
    frozen_default=True, kw_only_default=True, field_specifiers=(dataclasses.field,)
)
def spec[T](cls: type[T]) -> type[T]:
    """Make a class a frozen, keyword-only dataclass whose fields are checked when it is built.

    Ranges are written in the annotation (``Annotated[int, Ge(1)]`` from `annotated_types`),
    combinations in ``__post_init__`` as ``ValueError``.
    """
    made = pydantic_dataclass(frozen=True, kw_only=True, config=_CONFIG)(cls)
    return cast(type[T], made)


def load[T](cls: type[T], data: Mapping[str, Any], path: str = "") -> T:
    """Build a spec from plain nested data, or say what is wrong and what would be valid.

    Parameters
    ----------
    cls : type
        A class made by `spec`.
    data : mapping
        Plain dicts, lists, strings, numbers, booleans and None.
    path : str
        Dotted path of `data` in the settings, put before the names in messages.

    Raises
    ------
    SettingsError
        One line per problem: dotted path, what is wrong, what would be valid.
    """
    try:
        return build(cls, data)
    except Problems as problems:
        raise _settings_error(path, problems.items) from None


def _settings_error(path: str, items: list[tuple[tuple[str, ...], str]]) -> SettingsError:
    return SettingsError("\n".join(_line(path, where, what) for where, what in items))


def replaced[T](settings: T, parts: Mapping[str, Any]) -> T:
    """Return a spec in which some fields come from plain data; the others are taken as they are.

    Parameters
    ----------
    settings : spec
        What was checked before.
    parts : mapping
        Name of a field -> plain data, as `load` takes it.

    Raises
    ------
    SettingsError
        One line per problem: dotted path, what is wrong, what would be valid.
    """
    cls: Any = type(settings)
    fields = _field_names(cls, [])
    values, items = {}, []
    for name in fields:
        if name in parts:
            try:
                values[name] = _adapter(cls, name).validate_json(
                    json.dumps(parts[name]), strict=True
                )
            except pydantic.ValidationError as error:
                items += _problems(error, cls, (name,))
    items += [((name,), _unknown(name, fields)) for name in parts if name not in fields]
    if items:
        raise _settings_error("", items)
    try:
        return cast(T, dataclasses.replace(cast(Any, settings), **values))
    except pydantic.ValidationError as error:  # Of how fields go together.
        raise _settings_error("", _problems(error, cls)) from None


@functools.cache
def _adapter(cls: type, field: str) -> pydantic.TypeAdapter[Any]:
    """Return what checks one field of a spec."""
    return pydantic.TypeAdapter(get_type_hints(cls, include_extras=True)[field])


class Problems(ValueError):
    """What is wrong with data that was to become a spec.

    Attributes
    ----------
    items : list of (tuple of str, str)
        Where, as names from the outside in, and what is wrong there.
    """

    def __init__(self, items: list[tuple[tuple[str, ...], str]]) -> None:
        super().__init__("; ".join(_line("", where, what) for where, what in items))
        self.items = items


def build[T](cls: type[T], data: Mapping[str, Any]) -> T:
    """Build a spec from plain nested data.

    Raises
    ------
    Problems
        All that is wrong with the data.
    """
    try:
        # JSON rules are strict about types and still take a list for a tuple.
        return pydantic.TypeAdapter(cls).validate_json(json.dumps(data), strict=True)
    except pydantic.ValidationError as error:
        raise Problems(_problems(error, cls)) from None


def to_dict(settings: Any) -> dict[str, Any]:
    """Return a spec as plain nested data; `load` takes it back."""
    return json.loads(json.dumps(dataclasses.asdict(settings)))


def _line(path: str, where: tuple[str, ...], what: str) -> str:
    """Return what is wrong, behind its dotted path; without one if it is not in one place."""
    dotted = ".".join(part for part in (path, *where) if part)
    return f"{dotted}: {what}" if dotted else what


def _problems(
    error: pydantic.ValidationError, cls: type, inside: tuple[str, ...] = ()
) -> list[tuple[tuple[str, ...], str]]:
    items = error.errors()
    # Items of a list that are wrong are not counted: then it is not too short, too.
    within = {item["loc"][:-1] for item in items if item["loc"]}
    kept = [item for item in items if item["type"] != "too_short" or item["loc"] not in within]
    return [problem for item in kept for problem in _problems_of(item, cls, inside)]


def _problems_of(
    item: Any, cls: type, inside: tuple[str, ...]
) -> list[tuple[tuple[str, ...], str]]:
    where = (*inside, *(str(part) for part in item["loc"]))
    inner = item.get("ctx", {}).get("error")
    if isinstance(inner, Problems):
        return [((*where, *deeper), what) for deeper, what in inner.items]
    return [(where, _explain(item, cls, where))]


def _explain(item: Any, cls: type, where: tuple[str, ...]) -> str:
    kind, context = item["type"], item.get("ctx", {})
    if kind == "unexpected_keyword_argument":
        return _unknown(where[-1], _field_names(cls, list(where[:-1])))
    if kind == "missing":
        return "a value is required"
    if kind == "value_error":
        return f"{context['error']}"
    return f"{item['msg'][0].lower()}{item['msg'][1:]}, got {brief(item['input'])}"


def _unknown(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"unknown setting; {hint}valid: {', '.join(names)}"


def _field_names(cls: Any, location: list[str]) -> list[str]:
    for name in location:
        fields = dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ()
        cls = next((field.type for field in fields if field.name == name), None)
    return (
        [field.name for field in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else []
    )
