"""Code of the user's own that settings name as ``module:function``.

A module that lies beside the settings, or anywhere else where no packages are installed, is read
together with the modules beside it that it imports, and runs from these texts in every process of
a run: workers get them by Ray, so their machines need no copy of the files. What is installed,
into whatever folder, is imported there by its name.
"""

import ast
import contextlib
import dataclasses
import functools
import hashlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import linecache
import site
import sys
import sysconfig
import traceback
import types
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from repast_dist.ground.errors import SettingsError, brief

_OWN = __name__.partition(".")[0]
_INSTALLED = ("site-packages", "dist-packages")
_TORCH = "PyTorch is not installed; valid: pip install 'repast-dist[torch]'"


@dataclasses.dataclass(frozen=True)
class ModuleSource:
    """A module as it travels to workers.

    Attributes
    ----------
    name : str
        Its dotted name.
    path : str
        Where its text comes from.
    text : str
        The text; empty for a folder without ``__init__.py``.
    package : bool
        Whether it is a folder with modules in it.
    """

    name: str
    path: str
    text: str
    package: bool = False

    @property
    def folder(self) -> str:
        """The folder that it is, or that it is in."""
        path = Path(self.path)
        return str(path.parent if path.suffix == ".py" else path)

    @property
    def sha256(self) -> str:
        """Checksum of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def resolve(reference: str, setting: str) -> Any:
    """Return what a setting names, and take its module along from now on.

    Parameters
    ----------
    reference : str
        ``my_lab:make_model``, ``package.module:name`` or ``folder/my_lab.py:make_model``. Modules
        are looked for in the working directory first.
    setting : str
        Dotted path of the setting, for messages.

    Raises
    ------
    SettingsError
        There is no such module or name, or the module fails; the message says what would be valid.
    """
    place, _, name = reference.rpartition(":")
    if not place or not name.isidentifier():
        raise SettingsError(
            f"{setting}: {brief(reference)}; valid: module:function, such as my_lab:make, or "
            "folder/my_lab.py:make"
        )
    module = _module(place, setting)
    if not hasattr(module, name):
        own = [
            key
            for key, value in vars(module).items()
            if callable(value) and getattr(value, "__module__", "") == module.__name__
        ]
        raise SettingsError(
            f"{setting}: {place} has no '{name}'; valid: {', '.join(own) or 'it has no functions'}"
        )
    return getattr(module, name)


def resolve_callable(reference: str, setting: str) -> Any:
    """Return a function or a class that a setting names; as `resolve`."""
    found = resolve(reference, setting)
    if not callable(found):
        raise SettingsError(
            f"{setting}: {reference} is {brief(found)}; valid: a function or a class"
        )
    return found


def described(error: BaseException) -> str:
    """Return what an error of the user's code says, and the line of the user's that raised it."""
    if isinstance(error, ModuleNotFoundError) and error.name == "torch":
        return _TORCH
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}: {error.msg}"
    paths = {source.path for source in _TAKEN.values()}
    lines = [
        f" ({frame.filename}, line {frame.lineno})"
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename in paths
    ]
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}{lines[-1] if lines else ''}"


def taken() -> tuple[ModuleSource, ...]:
    """Return the modules that settings named in this process: what workers must be given."""
    return tuple(_TAKEN.values())


def take(sources: Sequence[ModuleSource]) -> None:
    """Let modules be imported from these texts; what an older text made is forgotten."""
    for source in sources:
        held = _TAKEN.get(source.name)
        if held != source:
            sys.modules.pop(source.name, None)
            _TAKEN[source.name] = source
            lines = source.text.splitlines(True)
            linecache.cache[source.path] = (len(source.text), None, lines, source.path)
    if sources and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def bring(references: Iterable[str]) -> None:
    """Take the modules of references along without running them, as far as they can be found."""
    for reference in references:
        with contextlib.suppress(SettingsError):
            _taken_along(reference.rpartition(":")[0], "")


def code_checksums(references: Iterable[str]) -> dict[str, str]:
    """Return module -> SHA-256 of its text, of some references, for the records of a run."""
    places = {reference.rpartition(":")[0] for reference in references}
    names = [name for place in sorted(places) for name in _OF_PLACE.get(place, ())]
    return {name: _TAKEN[name].sha256 for name in names if name in _TAKEN}


_TAKEN: dict[str, ModuleSource] = {}
_OF_PLACE: dict[str, tuple[str, ...]] = {}
"""Module or file of a reference -> the modules that were taken along for it."""


def _taken_along(place: str, setting: str) -> str:
    """Take the module of a reference along with what it imports; return its name."""
    name, places = place, [Path.cwd(), *_own_folders()]
    if place.endswith(".py"):
        path = Path(place)
        if not path.is_file():
            raise SettingsError(f"{setting}: {place} is not a file; valid: a file of Python code")
        name, places = path.stem, [path.resolve().parent]
    if name == "__main__":
        return name
    if not all(part.isidentifier() for part in name.split(".")):
        raise SettingsError(f"{setting}: {brief(name)} is no name of a module")
    try:
        sources = _with_imports(name, places)
    except (SyntaxError, OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{setting}: {described(error)}") from error
    # Where there are no such files, it has been taken along.
    if any(_TAKEN.get(source.name) != source for source in sources):
        # Modules that imported an older text hold on to it.
        for source in sources:
            sys.modules.pop(source.name, None)
    take(sources)
    if sources:
        _OF_PLACE[place] = tuple(source.name for source in sources)
    return name


def _module(place: str, setting: str) -> types.ModuleType:
    """Import the module of a reference."""
    name = _taken_along(place, setting)
    try:
        return importlib.import_module(name)
    except Exception as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name in _prefixes(name)
        if missing and name not in _TAKEN:
            raise SettingsError(
                f"{setting}: no module '{name}' in {Path.cwd()}, and none is installed; valid: a "
                "module of the working directory, an installed one, or folder/my_lab.py:make"
            ) from None
        raise SettingsError(f"{setting}: {name}: {described(error)}") from error


def _own_folders() -> Iterator[Path]:
    """Yield the folders of Python's search path in which nothing is installed."""
    known = (
        *sysconfig.get_paths().values(),
        *site.getsitepackages(),
        site.getusersitepackages(),
        str(Path(json.__file__).parents[1]),
    )
    installed = {Path(path).resolve() for path in known}
    for entry in sys.path:
        path = Path(entry or ".").resolve()
        if path.is_dir() and not any(
            part == one or part.name in _INSTALLED
            for part in (path, *path.parents)
            for one in installed
        ):
            yield path


def _prefixes(name: str) -> list[str]:
    """Return a module's name and those of the packages around it, from the outside in."""
    parts = name.split(".")
    return [".".join(parts[: count + 1]) for count in range(len(parts))]


def _with_imports(name: str, places: Sequence[Path]) -> list[ModuleSource]:
    """Return a module of some folders, the packages around it, and all that these import."""
    found: dict[str, ModuleSource] = {}
    asked, waiting = set[str](), [name]
    while waiting:
        wanted = waiting.pop()
        if wanted in asked or wanted.partition(".")[0] == _OWN:
            continue
        asked.add(wanted)
        chain = _find(wanted, places)
        for source in chain:
            if source.name not in found:
                found[source.name] = source
                waiting += _imports(source)
    return list(found.values())


def _find(name: str, places: Sequence[Path]) -> list[ModuleSource]:
    """Return a module and the packages around it; nothing where no folder has it, or the first
    that has it was given it by an installer.
    """
    for place in places:
        if name.partition(".")[0] in _installed_into(place):
            return []
        chain: list[ModuleSource] = []
        for prefix in _prefixes(name):
            where = place.joinpath(*prefix.split("."))
            file, inside = where.with_name(f"{where.name}.py"), where / "__init__.py"
            if inside.is_file():
                chain.append(ModuleSource(prefix, str(inside), inside.read_text(), package=True))
            elif file.is_file():
                chain.append(ModuleSource(prefix, str(file), file.read_text()))
            elif where.is_dir() and prefix != name:
                chain.append(ModuleSource(prefix, str(where), "", package=True))
            else:
                break
        else:
            return chain
    return []


@functools.cache
def _installed_into(folder: Path) -> frozenset[str]:
    """Return the packages and modules that ``pip install --target`` and the like put into a folder,
    as their records say.
    """
    records = [
        record.read_text().splitlines()
        for record in folder.glob("*.dist-info/RECORD")
        if record.is_file()
    ]
    files = {line.partition(",")[0].partition("/")[0] for lines in records for line in lines}
    return frozenset(file.partition(".")[0] for file in files)


def _imports(source: ModuleSource) -> Collection[str]:
    """Return the names of all modules that a module may import."""
    package = source.name if source.package else source.name.rpartition(".")[0]
    names: dict[str, None] = {}
    for node in ast.walk(ast.parse(source.text, source.path)):
        if isinstance(node, ast.Import):
            names |= dict.fromkeys(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *filter(None, [node.module])])
            names |= dict.fromkeys([base, *(f"{base}.{alias.name}" for alias in node.names)])
    return [name for name in names if all(part.isidentifier() for part in name.split("."))]


class _Finder(importlib.abc.MetaPathFinder):
    """Finds modules among the texts that were taken along."""

    def find_spec(
        self, name: str, path: Any = None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return how a module that was taken along is made."""
        source = _TAKEN.get(name)
        if source is None:
            return None
        return importlib.util.spec_from_file_location(
            name,
            source.path,
            loader=_Loader(source),
            submodule_search_locations=[source.folder] if source.package else None,
        )


class _Loader(importlib.abc.Loader):
    """Runs the text of a module."""

    def __init__(self, source: ModuleSource) -> None:
        self._source = source

    def exec_module(self, module: types.ModuleType) -> None:
        """Run it."""
        code = compile(self._source.text, self._source.path, "exec", dont_inherit=True)
        exec(code, vars(module))

    def get_source(self, name: str) -> str:
        """Return its text, for tracebacks and `inspect`."""
        return self._source.text
