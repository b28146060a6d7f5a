"""A user's own parts: plug-ins, which are files or installed modules that register members.

Nothing is imported but what the user names. A plug-in file runs once in every process of a run:
workers get its text, not its path, so they need no copy of the file.
"""

import builtins
import dataclasses
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import linecache
import sys
import traceback
import types
from collections.abc import Sequence
from pathlib import Path

from repast_dist.ground.errors import RepastError, SettingsError

ENTRY_POINTS = "repast_dist.plugins"
"""Group of entry points whose names ``plugins=[name]`` takes beside files."""

_MODULE = "repast_dist_plugin_"


@dataclasses.dataclass(frozen=True)
class PluginSource:
    """A plug-in as it travels to workers.

    Attributes
    ----------
    name : str
        The path or entry point the user gave.
    text : str
        Python source of a file; empty for an installed module, which workers import.
    module : str
        Name of the module it becomes, or is.
    sha256 : str
        Checksum of the source.
    package : str
        Name of the installed package that offers it; empty for a file.
    version : str
        The package's version.
    asked_for : bool
        ``plugins`` names it; otherwise a setting has the name of a member that it offers.
    """

    name: str
    text: str
    module: str
    sha256: str
    package: str = ""
    version: str = ""
    asked_for: bool = True


def read_plugins(names: Sequence[str]) -> tuple[PluginSource, ...]:
    """Read the plug-ins that settings name, without running them.

    Parameters
    ----------
    names : sequence of str
        Paths of ``.py`` files, or names of entry points of the group ``repast_dist.plugins``.

    Raises
    ------
    SettingsError
        A file or entry point does not exist, or two files would become the same module.
    """
    sources = tuple(_read(name) for name in names)
    for number, source in enumerate(sources):
        for other in sources[:number]:
            if source.module == other.module and source.name != other.name:
                raise SettingsError(
                    f"plugins: {other.name} and {source.name} have the same name; valid: files of "
                    "different names"
                )
    return sources


def activate(sources: Sequence[PluginSource]) -> None:
    """Run plug-ins in this process, so that what they register can be used; each one once.

    Raises
    ------
    SettingsError
        A plug-in fails; the message names it, the line, and what is wrong.
    """
    for source in sources:
        held = _ACTIVE.get(source.module)
        if held is None or held.sha256 != source.sha256:
            try:
                _run(source)
            except SettingsError as error:
                raise SettingsError(f"plugins: {error}") from error.__cause__
            _ACTIVE[source.module] = source


def entry_points(group: str) -> importlib.metadata.EntryPoints:
    """Return what installed packages offer in a group."""
    return _all_entry_points().select(group=group)


@functools.cache
def _all_entry_points() -> importlib.metadata.EntryPoints:
    """Look through all installed packages, once per process."""
    return importlib.metadata.entry_points()


def use_entry_point(point: importlib.metadata.EntryPoint) -> None:
    """Import what an installed package offers; from then on it is one of the plug-ins at work.

    Raises
    ------
    SettingsError
        It fails; the message names the entry point, its package, and what is wrong.
    """
    source = _installed(point, asked_for=False)
    _run(source)
    _ACTIVE.setdefault(source.module, source)


def active() -> tuple[PluginSource, ...]:
    """Return the plug-ins that run in this process: what workers must be given."""
    return tuple(_ACTIVE.values())


def checksums(names: Sequence[str]) -> dict[str, str]:
    """Return plug-in -> SHA-256 of the source at work, for the records of a run.

    Members of installed packages, which settings name without naming a plug-in, are among them.
    """
    return {
        source.name: source.sha256
        for source in active()
        if source.name in names or not source.asked_for
    }


def packages() -> dict[str, str]:
    """Return installed package -> version of the plug-ins at work."""
    return {source.package: source.version for source in active() if source.package}


_ACTIVE: dict[str, PluginSource] = {}


def _read(name: str) -> PluginSource:
    if name.endswith(".py"):
        path = Path(name)
        try:
            text = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"plugins: {name} cannot be read ({error})") from None
        stem = "".join(letter if letter.isalnum() else "_" for letter in path.stem)
        return PluginSource(name, text, _MODULE + stem, _sha256(text.encode()))
    offered = entry_points(ENTRY_POINTS)
    if name not in offered.names:
        valid = ", ".join(sorted(offered.names)) or "none is installed"
        raise SettingsError(
            f"plugins: no plug-in '{name}'; valid: the path of a .py file, or an entry point of "
            f"the group {ENTRY_POINTS} ({valid})"
        )
    return _installed(offered[name], asked_for=True)


def _installed(point: importlib.metadata.EntryPoint, asked_for: bool) -> PluginSource:
    package, version = ("", "") if point.dist is None else (point.dist.name, point.dist.version)
    digest = _sha256_of_module(point.module)
    return PluginSource(point.name, "", point.module, digest, package, version, asked_for)


def _sha256_of_module(module: str) -> str:
    path = _file_of(module)
    return _sha256(b"" if path is None else path.read_bytes())


def _file_of(module: str) -> Path | None:
    """Return the file of an installed module, if it is there."""
    try:
        found = importlib.util.find_spec(module)
    except Exception:  # Packages around it are imported, and importing it says what is wrong.
        return None
    origin = None if found is None else found.origin
    return Path(origin) if origin and Path(origin).is_file() else None


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _run(source: PluginSource) -> None:
    try:
        if source.text:
            _run_text(source)
        else:
            _import(source)
    except RepastError as error:
        raise SettingsError(f"{_title(source)}: {error}") from error
    except Exception as error:
        raise SettingsError(_described(source, error)) from error


def _import(source: PluginSource) -> None:
    if _file_of(source.module) and _sha256_of_module(source.module) != source.sha256:
        raise SettingsError(
            f"module {source.module} is another one here than where the run was started; valid: "
            f"{source.package} {source.version} on every machine"
        )
    importlib.import_module(source.module)


def _run_text(source: PluginSource) -> None:
    module = types.ModuleType(source.module)
    module.__file__ = source.name
    # Classes are looked up in their module when they register and when workers unpickle them.
    sys.modules[source.module] = module
    # Tracebacks show the source on machines that have no such file, too.
    linecache.cache[source.name] = (
        len(source.text),
        None,
        source.text.splitlines(True),
        source.name,
    )
    try:
        code = compile(source.text, source.name, "exec")
        builtins.exec(code, module.__dict__)
    except BaseException:
        sys.modules.pop(source.module, None)
        raise


def _described(source: PluginSource, error: Exception) -> str:
    """Name the last line of the plug-in that was at work, and the error."""
    title = _title(source)
    if isinstance(error, SyntaxError):
        return f"{title}, line {error.lineno}: {error.msg}"
    file = source.name if source.text else str(_file_of(source.module))
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == file
    ]
    where = f", line {lines[-1]}" if lines else ""
    return f"{title}{where}: {type(error).__name__}: {error}"


def _title(source: PluginSource) -> str:
    """Return what messages call a plug-in: a file by its path, an entry point by its package."""
    if not source.package:
        return source.name
    return f"{source.name} of package {source.package} {source.version}, module {source.module}"
