"""A user's own parts: plug-ins, which are files or installed modules that register members.

Nothing is imported but what the user names. A plug-in file runs once in every process of a run:
workers get its text, not its path, so they need no copy of the file.
"""

import builtins
import dataclasses
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
    """

    name: str
    text: str
    module: str
    sha256: str


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
            _run(source)
            _ACTIVE[source.module] = source


def active() -> tuple[PluginSource, ...]:
    """Return the plug-ins that run in this process: what workers must be given."""
    return tuple(_ACTIVE.values())


def checksums(names: Sequence[str]) -> dict[str, str]:
    """Return plug-in -> SHA-256 of the source at work, for the records of a run."""
    return {source.name: source.sha256 for source in active() if source.name in names}


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
    offered = importlib.metadata.entry_points(group=ENTRY_POINTS)
    if name not in offered.names:
        valid = ", ".join(sorted(offered.names)) or "none is installed"
        raise SettingsError(
            f"plugins: no plug-in '{name}'; valid: the path of a .py file, or an entry point of "
            f"the group {ENTRY_POINTS} ({valid})"
        )
    module = offered[name].module
    found = importlib.util.find_spec(module)
    origin = None if found is None else found.origin
    content = Path(origin).read_bytes() if origin and Path(origin).is_file() else b""
    return PluginSource(name, "", module, _sha256(content))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _run(source: PluginSource) -> None:
    try:
        if source.text:
            _run_text(source)
        else:
            importlib.import_module(source.module)
    except RepastError as error:
        raise SettingsError(f"plugins: {source.name}: {error}") from error
    except Exception as error:
        raise SettingsError(f"plugins: {_described(source, error)}") from error


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
    if isinstance(error, SyntaxError):
        return f"{source.name}, line {error.lineno}: {error.msg}"
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == source.name
    ]
    where = f", line {lines[-1]}" if lines else ""
    return f"{source.name}{where}: {type(error).__name__}: {error}"
