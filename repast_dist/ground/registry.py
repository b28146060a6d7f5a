"""Registries: every kind of part (cell model, scheme, layer, ...) has one.

A member is a class with its settings, its behaviour and its price in one file. The package's own
members lie in a folder that is searched when the first of them is asked for; a user's come from a
plug-in (`repast_dist.ground.plugins`) or from a Python entry point, which is imported only when a
setting names it.
"""

import dataclasses
import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

from pydantic import AfterValidator, PlainValidator

from repast_dist.ground.errors import SettingsError, brief
from repast_dist.ground.plugins import entry_points, use_entry_point
from repast_dist.ground.spec import Problems, build


class Registry[T]:
    """The members of one kind, by name.

    Parameters
    ----------
    kind : str
        What messages call a member, for example ``cell model``.
    base : type
        Class that members derive from; its abstract methods are what a member must have.
    tag : str
        Field that names the member in settings: annotated ``Literal["name"]``; several names
        make one class stand for several members.
    home : str
        Package that holds the project's own members, one module each.
    default : str
        Member that settings without the tag mean; empty: the tag is required.
    implied : mapping, optional
        Setting -> the member that settings with it and without the tag mean.

    Notes
    -----
    Entry points of the group ``repast_dist.<kind, plural, with underscores>``, for example
    ``repast_dist.cell_models``, add members of installed packages.
    """

    def __init__(
        self,
        kind: str,
        base: type[T],
        *,
        tag: str,
        home: str,
        default: str = "",
        implied: Mapping[str, str] | None = None,
    ) -> None:
        self.kind, self.base, self.tag, self.default = kind, base, tag, default
        self._implied = implied or {}
        self.entry_points = f"repast_dist.{_plural(kind).replace(' ', '_')}"
        self._home: str | None = home
        self._members: dict[str, type[T]] = {}

    def register[M: type](self, cls: M) -> M:
        """Add a member; used as a class decorator above `spec`.

        Raises
        ------
        SettingsError
            The class is no member of this kind: wrong base, no name, a method is missing, or its
            name is taken. The message names the class and what is missing.
        """
        where = f"{self.kind} {cls.__module__}.{cls.__qualname__}"
        member: type = cls
        if not issubclass(member, self.base):
            raise SettingsError(
                f"{where}: does not derive from {self.base.__qualname__}; valid: a subclass of it"
            )
        missing = sorted(getattr(cls, "__abstractmethods__", ()))
        if missing:
            raise SettingsError(f"{where}: lacks {', '.join(missing)}")
        names = self._names(cls)
        if not names:
            raise SettingsError(
                f'{where}: has no name; valid: a field {self.tag}: Literal["my_name"] = "my_name"'
            )
        for name in names:
            held = self._members.get(name)
            if held is not None and _place(held) != _place(cls):
                raise SettingsError(
                    f"{where}: the name '{name}' is taken by {'.'.join(_place(held))}"
                )
            self._members[name] = member
        return cls

    def names(self) -> list[str]:
        """Return the valid names; entry points are listed without being imported."""
        self._find_own()
        return sorted({*self._members, *entry_points(self.entry_points).names})

    def get(self, name: str) -> type[T]:
        """Return the class of a name.

        Raises
        ------
        SettingsError
            There is none; the message lists the valid names.
        """
        self._find_own()
        if name not in self._members:
            for point in entry_points(self.entry_points).select(name=name):
                use_entry_point(point)
        if name not in self._members:
            raise SettingsError(f"no {self.kind} {brief(name)}; valid: {', '.join(self.names())}")
        return self._members[name]

    def has(self, name: Any) -> bool:
        """Return whether there is a member of this name."""
        return isinstance(name, str) and name in self.names()

    def load(self, data: Any) -> T:
        """Build a member's settings from plain data that names it, or return an instance as it is.

        Raises
        ------
        Problems
            All that is wrong with the data.
        """
        if isinstance(data, self.base):
            return data
        if not isinstance(data, Mapping):
            raise Problems([((), f"a {self.kind} is a group of settings, got {brief(data)}")])
        name = data.get(self.tag) or self.implied_by(data) or self.default
        if not name:
            raise Problems(
                [((self.tag,), f"a value is required; valid: {', '.join(self.names())}")]
            )
        try:
            cls = self.get(str(name))
        except SettingsError as error:
            raise Problems([((self.tag,), str(error))]) from None
        return build(cls, {**data, self.tag: name})

    def implied_by(self, settings: Iterable[str]) -> str:
        """Return the member that the names of some settings imply; empty: none."""
        return next((self._implied[name] for name in settings if name in self._implied), "")

    def name_of(self, member: T) -> str:
        """Return the name a member's settings go by."""
        return str(getattr(member, self.tag))

    def choice(self) -> Any:
        """Return the annotation of a settings field that holds a member.

        Use: ``cell: Annotated[Cell, CELLS.choice()]``.
        """
        return PlainValidator(self.load)

    @staticmethod
    def of(annotation: Any) -> "Registry[Any] | None":
        """Return the registry whose members a settings field of this annotation holds, if any."""
        for item in getattr(annotation, "__metadata__", ()):
            owner = getattr(getattr(item, "func", None), "__self__", None)
            if isinstance(item, PlainValidator) and isinstance(owner, Registry):
                return owner
        return None

    def switched(self, data: Mapping[str, Any], name: str) -> dict[str, Any]:
        """Return plain settings of one member as those of another: what both have is kept."""
        kept = {field.name for field in dataclasses.fields(cast(Any, self.get(name)))}
        return {key: value for key, value in data.items() if key in kept} | {self.tag: name}

    def name(self) -> Any:
        """Return the annotation of a settings field that holds a member's name."""
        return AfterValidator(self._checked)

    def _checked(self, name: str) -> str:
        try:
            self.get(name)
        except SettingsError as error:
            raise ValueError(str(error)) from None
        return name

    def _names(self, cls: type) -> tuple[str, ...]:
        hint = get_type_hints(cls).get(self.tag)
        return tuple(get_args(hint)) if get_origin(hint) is Literal else ()

    def _find_own(self) -> None:
        """Import the modules of the home package, once."""
        if self._home is None:
            return
        home, self._home = self._home, None
        package = importlib.import_module(home)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{home}.{module.name}")


def _place(cls: type) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__


def _plural(kind: str) -> str:
    return f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"
