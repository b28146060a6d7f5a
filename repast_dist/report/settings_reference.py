"""Writes the reference of all settings from the settings classes themselves."""

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Literal, Union

import annotated_types

_SECTION = re.compile(r"^(\w[\w ]*)\n-+$", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class SettingRow:
    """One setting.

    Attributes
    ----------
    path : str
        Dotted path.
    valid : str
        Type and range in words.
    default : str
        Default of the class, "" if a value is required (the presets in conf/ give it).
    text : str
        What it means, from the class's docstring.
    """

    path: str
    valid: str
    default: str
    text: str


def setting_rows(cls: type, path: str = "", whole: Collection[type] = ()) -> Iterator[SettingRow]:
    """Yield every setting of a settings class, nested classes in place, in order of definition.

    Classes in `whole` are listed as one setting each.
    """
    hints = typing.get_type_hints(cls, include_extras=True)
    texts = documented_attributes(cls)
    for field in dataclasses.fields(cls):
        here = f"{path}.{field.name}" if path else field.name
        kind = _without_annotation(hints[field.name])
        nested = _settings_class(kind)
        if nested is not None and nested not in whole:
            yield from setting_rows(nested, here, whole)
        else:
            yield SettingRow(
                here, describe_type(hints[field.name]), _default(field), texts.get(field.name, "")
            )


def settings_markdown(
    intro: str,
    groups: Sequence[tuple[str, type, Sequence[str]]],
    whole: Collection[type] = (),
) -> str:
    """Return the reference as Markdown.

    Parameters
    ----------
    intro : str
        Heading and what goes before the groups, in Markdown.
    groups : sequence of (name, class, presets)
        Top-level setting, its class, and the options of its group in conf/ (may be empty).
    whole : collection of type
        Classes listed as one setting each, such as a figure with its unit and source.
    """
    parts = [intro]
    for name, cls, presets in groups:
        parts.append(f"## `{name}`\n")
        summary = inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0].replace("\n", " ")
        parts.append(summary + "\n")
        if presets:
            options = ", ".join(f"`{name}={preset}`" for preset in presets)
            parts.append(f"Presets: {options}.\n")
        parts.append("| setting | valid | default | meaning |\n|---|---|---|---|")
        rows = [
            f"| `{row.path}` | {_cell(row.valid)} | {_code(row.default)} | {_cell(row.text)} |"
            for row in setting_rows(cls, name, whole)
        ]
        parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)


def describe_type(kind: Any) -> str:
    """Return a type annotation in words: ``integer, at least 1``; ``one of a, b``."""
    if typing.get_origin(kind) is typing.Annotated:
        base, *constraints = typing.get_args(kind)
        ranges = [text for item in constraints if (text := _range(item))]
        return ", ".join([describe_type(base), *ranges])
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return "one of " + ", ".join(f"`{item}`" for item in arguments)
    if origin in (Union, types.UnionType):
        kinds = [kind for item in arguments if (kind := _kinds(item))]
        if len(kinds) > 1:
            return "settings with `kind` one of " + ", ".join(kinds)
        return " or ".join(describe_type(item) for item in arguments)
    if origin in (tuple, list):
        inner = [item for item in arguments if item is not Ellipsis]
        if origin is tuple and Ellipsis not in arguments:
            words = [describe_type(item) for item in inner]
            same = len(set(words)) == 1
            return f"list of {len(words)}: " + (words[0] if same else "; ".join(words))
        return "list of " + describe_type(inner[0])
    if origin is dict:
        return f"mapping of text to {describe_type(arguments[1])}"
    names = {int: "integer", float: "number", str: "text", bool: "true or false"}
    if kind is type(None):
        return "null"
    return names.get(kind, getattr(kind, "__name__", str(kind)))


def documented_attributes(cls: type) -> dict[str, str]:
    """Return attribute -> description from the "Attributes" section of a numpy docstring."""
    document = inspect.cleandoc(cls.__doc__ or "")
    found = {match[1]: match for match in _SECTION.finditer(document)}
    if "Attributes" not in found:
        return {}
    start = found["Attributes"].end()
    later = [match.start() for match in found.values() if match.start() > start]
    texts: dict[str, str] = {}
    names: list[str] = []
    for line in document[start : min(later, default=len(document))].strip("\n").splitlines():
        if line and not line.startswith(" "):
            names = [name.strip() for name in line.partition(":")[0].split(",")]
        for name in names if line.startswith(" ") else ():
            texts[name] = f"{texts.get(name, '')} {line.strip()}".strip()
    return texts


def _kinds(cls: Any) -> str:
    """Return the values of a settings class's ``kind``, by which a list of them is told apart."""
    if not dataclasses.is_dataclass(cls):
        return ""
    hint = typing.get_type_hints(cls).get("kind")
    return ", ".join(f"`{kind}`" for kind in typing.get_args(hint))


def _range(constraint: Any) -> str:
    match constraint:
        case annotated_types.Ge():
            return f"at least {constraint.ge}"
        case annotated_types.Gt():
            return f"above {constraint.gt}"
        case annotated_types.Le():
            return f"at most {constraint.le}"
        case annotated_types.Lt():
            return f"below {constraint.lt}"
        case annotated_types.Interval() | annotated_types.Len():
            return ", ".join(text for item in constraint if (text := _range(item)))
        case annotated_types.MinLen():
            return f"at least {constraint.min_length} of them"
        case _:
            return ""


def _settings_class(kind: Any) -> type | None:
    """Return the settings class to descend into; an optional one counts too."""
    if dataclasses.is_dataclass(kind):
        return typing.cast(type, kind)
    if typing.get_origin(kind) in (Union, types.UnionType):
        inner = [item for item in typing.get_args(kind) if dataclasses.is_dataclass(item)]
        if len(inner) == 1:
            return typing.cast(type, inner[0])
    return None


def _without_annotation(kind: Any) -> Any:
    return typing.get_args(kind)[0] if typing.get_origin(kind) is typing.Annotated else kind


def _default(field: dataclasses.Field[Any]) -> str:
    value: Any = field.default
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    if value is dataclasses.MISSING:
        return ""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple):
        return str(list(value))
    return str(value)


def _code(text: str) -> str:
    return f"`{_cell(text)}`" if text else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("``", "`")
