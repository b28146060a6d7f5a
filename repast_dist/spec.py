"""Frozen, validated settings classes and how they are loaded from plain data."""

import dataclasses
import difflib
import json
from collections.abc import Mapping
from typing import Any, cast, dataclass_transform

import pydantic
from pydantic.dataclasses import dataclass as pydantic_dataclass

from repast_dist.errors import SettingsError

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
        # JSON rules are strict about types and still take a list for a tuple.
        return pydantic.TypeAdapter(cls).validate_json(json.dumps(data), strict=True)
    except pydantic.ValidationError as error:
        raise SettingsError(
            "\n".join(_explain(item, cls, path) for item in error.errors())
        ) from None


def to_dict(settings: Any) -> dict[str, Any]:
    """Return a spec as plain nested data; `load` takes it back."""
    return json.loads(json.dumps(dataclasses.asdict(settings)))


def _explain(item: Any, cls: type, path: str) -> str:
    location = [str(part) for part in item["loc"]]
    where = ".".join(part for part in (path, *location) if part)
    kind, context = item["type"], item.get("ctx", {})
    if kind == "unexpected_keyword_argument":
        names = _field_names(cls, location[:-1])
        near = difflib.get_close_matches(location[-1], names, n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        return f"{where}: unknown setting; {hint}valid: {', '.join(names)}"
    if kind == "missing":
        return f"{where}: a value is required"
    if kind == "value_error":
        return f"{where}: {context['error']}"
    return f"{where}: {item['msg'][0].lower()}{item['msg'][1:]}, got {item['input']!r}"


def _field_names(cls: Any, location: list[str]) -> list[str]:
    for name in location:
        fields = dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ()
        cls = next((field.type for field in fields if field.name == name), None)
    return (
        [field.name for field in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else []
    )
