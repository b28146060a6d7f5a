"""What a class says about its attributes is what it has."""

import dataclasses
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import repast_dist

# Ray reads its authentication when it is imported, which the farm must have set before.
_WITH_RAY = tuple(
    f"repast_dist.farm.{path.stem}"
    for path in (Path(repast_dist.__file__).parent / "farm").glob("*.py")
    if re.search(r"^(import|from) ray\b", path.read_text(), re.MULTILINE)
)

_HEADING = re.compile(r"^Attributes\n-+\n(.*?)(?=^\w[^\n]*\n-+\n|\Z)", re.MULTILINE | re.DOTALL)
_ENTRY = re.compile(r"^(\w[\w, ]*)(?: : .*)?$", re.MULTILINE)


def data_classes() -> Iterator[type]:
    for module in pkgutil.walk_packages(repast_dist.__path__, "repast_dist."):
        if module.name in _WITH_RAY:
            continue
        try:
            loaded = importlib.import_module(module.name)
        except ImportError as missing:
            if (missing.name or "").startswith("repast_dist"):
                raise
            continue  # an optional dependency
        for name, cls in inspect.getmembers(loaded, inspect.isclass):
            own = cls.__module__ == module.name and not name.startswith("_")
            if own and dataclasses.is_dataclass(cls) and documented(cls) is not None:
                yield cls


def documented(cls: type) -> set[str] | None:
    """Return the names below "Attributes" in a class' docstring; None without that section."""
    section = _HEADING.search(inspect.cleandoc(cls.__dict__.get("__doc__") or ""))
    if section is None:
        return None
    entries = (match[1].split(",") for match in _ENTRY.finditer(section[1]))
    return {name.strip() for names in entries for name in names}


@pytest.mark.parametrize("cls", data_classes(), ids=lambda cls: cls.__qualname__)
def test_documented_attributes_are_exactly_the_public_fields(cls: type) -> None:
    names = documented(cls) or set()
    fields = {field.name for field in dataclasses.fields(cls) if not field.name.startswith("_")}
    inherited = {
        field.name
        for base in cls.__mro__[1:]
        if dataclasses.is_dataclass(base)
        for field in dataclasses.fields(base)
    }
    assert names <= fields, "documented, but no field"
    assert fields - inherited - _tags(cls) <= names, "a field, but not documented"


def _tags(cls: type) -> set[str]:
    """Return fields that only name the class in settings, such as ``name: Literal["train"]``."""
    return {
        field.name
        for field in dataclasses.fields(cls)
        if str(field.type).startswith(("typing.Literal", "Literal"))
        and field.default in getattr(field.type, "__args__", ())
        and len(field.type.__args__) == 1
    }
