"""Writes the reference of all settings from the settings classes themselves."""

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Literal, Union

import annotated_types

from repast_dist.ground.registry import Registry

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

    Classes in `whole` are listed as one setting each, and so is a member of a registry.
    """
    hints = typing.get_type_hints(cls, include_extras=True)
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        texts |= documented_attributes(base)
    for field in dataclasses.fields(cls):
        here = f"{path}.{field.name}" if path else field.name
        chosen = Registry.of(hints[field.name]) is not None
        nested = None if chosen else _settings_class(_without_annotation(hints[field.name]))
        if nested is not None and nested not in whole:
            yield from setting_rows(nested, here, whole)
        else:
            yield SettingRow(
                here,
                describe_type(hints[field.name]),
                _default(field, hints[field.name]),
                texts.get(field.name, ""),
            )


def settings_markdown(
    intro: str,
    groups: Sequence[tuple[str, Any, Sequence[str]]],
    whole: Collection[type] = (),
) -> str:
    """Return the reference as Markdown.

    Parameters
    ----------
    intro : str
        Heading and what goes before the groups, in Markdown.
    groups : sequence of (name, annotation, presets)
        Top-level setting, its class or the choice from a registry, and the options of its group in
        conf/ (may be empty). The members of a registry follow where it is met first.
    whole : collection of type
        Classes listed as one setting each, such as a figure with its unit and source.
    """
    parts, listed = [intro], list[Registry[Any]]()
    for name, kind, presets in groups:
        parts.append(f"## `{name}`\n")
        registry = Registry.of(kind)
        if registry is None:
            parts += [_summary(kind), *_presets(name, presets), _table(kind, name, whole)]
        else:
            parts += [f"{_sentence(describe_type(kind))}\n", *_presets(name, presets)]
        for path, inner in registries(kind, name, whole):
            parts += _members(path, inner, listed, whole)
    return "\n".join(parts)


def registries(
    kind: Any, path: str = "", whole: Collection[type] = ()
) -> Iterator[tuple[str, Registry[Any]]]:
    """Yield (dotted path, registry) of every choice in a settings field, in order of definition."""
    registry = Registry.of(kind)
    plain = _without_annotation(kind)
    if registry is not None:
        yield path, registry
    elif isinstance(plain, type) and dataclasses.is_dataclass(plain):
        hints = typing.get_type_hints(plain, include_extras=True)
        for field in dataclasses.fields(plain) if plain not in whole else ():
            here = f"{path}.{field.name}" if path else field.name
            # A class may hold itself.
            yield from registries(hints[field.name], here, (*whole, plain))
    elif typing.get_origin(plain) in (Union, types.UnionType):
        for item in typing.get_args(plain):
            yield from registries(item, path, whole)
    elif typing.get_origin(plain) in (tuple, list):
        for item in typing.get_args(plain):
            yield from registries(item, f"{path}[]", whole)


def _members(
    path: str, registry: Registry[Any], listed: list[Registry[Any]], whole: Collection[type]
) -> Iterator[str]:
    """Yield the sections of a registry's members, once per registry; then of what they hold."""
    if registry in listed:
        return
    listed.append(registry)
    classes: dict[type, list[str]] = {}
    for name in registry.names():
        classes.setdefault(registry.get(name), []).append(name)
    for cls, names in classes.items():
        named = " or ".join(f"`{registry.tag}={name}`" for name in names)
        yield f"### `{path}` with {named}\n"
        yield _summary(cls)
        if len(dataclasses.fields(cls)) > 1:
            yield _table(cls, path, whole)
    for cls in classes:
        for inner, deeper in registries(cls, path, whole):
            yield from _members(inner, deeper, listed, whole)


def _summary(cls: type) -> str:
    summary = inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0].replace("\n", " ")
    return summary + "\n"


def _presets(name: str, presets: Sequence[str]) -> list[str]:
    options = ", ".join(f"`{name}={preset}`" for preset in presets)
    return [f"Presets: {options}.\n"] if presets else []


def _table(cls: type, path: str, whole: Collection[type]) -> str:
    rows = [
        f"| `{row.path}` | {_cell(row.valid)} | {_code(row.default)} | {_cell(row.text)} |"
        for row in setting_rows(cls, path, whole)
    ]
    return "\n".join(["| setting | valid | default | meaning |\n|---|---|---|---|", *rows, ""])


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def describe_type(kind: Any) -> str:
    """Return a type annotation in words: ``integer, at least 1``; ``one of a, b``."""
    registry = Registry.of(kind)
    if registry is not None:
        names = ", ".join(f"`{name}`" for name in registry.names())
        return f"{registry.kind} with `{registry.tag}` one of {names}"
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
    words_of = {int: "integer", float: "number", str: "text", bool: "true or false"}
    if kind is type(None):
        return "null"
    return words_of.get(kind, getattr(kind, "__name__", str(kind)))


def documented_attributes(cls: type) -> dict[str, str]:
    """Return attribute -> description from the "Attributes" section of a numpy docstring."""
    inherited: dict[str, str] = {}
    for base in reversed(cls.__mro__[1:]):
        inherited |= _own_attributes(base)
    return inherited | _own_attributes(cls)


def _own_attributes(cls: type) -> dict[str, str]:
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


def _default(field: dataclasses.Field[Any], hint: Any) -> str:
    value: Any = field.default
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    if value is dataclasses.MISSING:
        return ""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    registry = Registry.of(hint)
    if registry is not None:
        return str(getattr(value, registry.tag))
    if isinstance(value, tuple):
        return str(list(value))
    return str(value)


def _code(text: str) -> str:
    return f"`{_cell(text)}`" if text else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("``", "`")
