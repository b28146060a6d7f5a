"""Files that a reader never sees half written, and the names inside a run directory."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from repast_dist.ground.errors import RunDirectoryError

(
    RESULT,
    ANSWER,
    SETTINGS,
    LOCK,
    TRACE,
    SOLVES,
    CHECKPOINTS,
    POINTS,
    LOG,
    REPORT,
    SWEEP,
    SUMS,
    TENSORBOARD,
    COPIED,
) = (
    "result.json",
    "answer.json",
    "settings.json",
    ".lock",
    "trace",
    "solves",
    "checkpoints",
    "points",
    "run.log",
    "report.html",
    "sweep.json",
    "checksums.json",
    "tensorboard",
    ".copied.json",
)
"""Names inside a run directory."""


@contextlib.contextmanager
def replaced(path: Path, within: Path | None = None) -> Iterator[Path]:
    """Write a file or folder under another name and rename it when the block succeeds.

    Parameters
    ----------
    path : Path
        The final name. What the block writes to the yielded path gets that name in one step;
        files are flushed to the disk before.
    within : Path, optional
        Folder to write in until then, on the same disk; None: the folder of `path`. A folder
        that other programs read as a whole should never hold an unfinished file.

    Yields
    ------
    Path
        Where to write. It is removed if the block fails.

    Raises
    ------
    OSError
        The disk is full or not writable; what was at `path` before is untouched.
    """
    aside = (within or path.parent) / f".{path.name}.tmp"
    _remove(aside)
    try:
        yield aside
        if aside.is_file():
            with aside.open("rb") as file:
                os.fsync(file.fileno())
        elif path.is_dir():
            # A folder takes the place of a file or of nothing, but not of a folder with content.
            shutil.rmtree(path)
        os.replace(aside, path)
    except BaseException:
        _remove(aside)
        raise


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a JSON file at once, with one line per nested entry (a step, an epoch, ...)."""
    entries = (f" {json.dumps(name)}: {_entry(value)}" for name, value in data.items())
    with replaced(path) as aside:
        aside.write_text("{\n" + ",\n".join(entries) + "\n}\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object that a run wrote.

    Raises
    ------
    RunDirectoryError
        The file is missing or damaged, or holds something else than an object.
    """
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise RunDirectoryError(f"{path}: not readable ({error})") from error
    if not isinstance(data, dict):
        raise RunDirectoryError(f"{path}: holds {type(data).__name__}; valid: a JSON object")
    return data


def checked_entries(path: Path, data: Any, entries: Mapping[str, type | tuple[type, ...]]) -> None:
    """Check that the data of a file has some entries.

    Raises
    ------
    RunDirectoryError
        An entry is missing or of another type; the message names file and entry.
    """
    if not isinstance(data, dict):
        raise RunDirectoryError(f"{path}: holds {type(data).__name__}; valid: a JSON object")
    for name, kind in entries.items():
        if not isinstance(data.get(name), kind):
            found = f"is {type(data[name]).__name__}" if name in data else "is missing"
            raise RunDirectoryError(f"{path}: damaged, '{name}' {found}")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(folder: Path) -> None:
    """Write the checksums of all files of a run directory; nothing is to be changed after.

    Of a checkpoint it is that of its own checksums, and what is exported can be exported again.
    """
    (folder / SUMS).unlink(missing_ok=True)
    files = {str(path.relative_to(folder)): sha256(path) for path in _sealed(folder)}
    write_json(folder / SUMS, {"files": files})


def unseal(folder: Path) -> None:
    """Allow changes: remove the checksums, and what writers that were killed have left."""
    (folder / SUMS).unlink(missing_ok=True)
    for path in sorted(folder.rglob(".*.tmp")):
        _remove(path)


def changed_since_sealed(folder: Path) -> list[str]:
    """Return what is wrong with the files of a run directory, one line each.

    Raises
    ------
    RunDirectoryError
        There are no readable checksums.
    """
    stored = read_json(folder / SUMS)
    checked_entries(folder / SUMS, stored, {"files": dict})
    problems = []
    for name, expected in stored["files"].items():
        try:
            same = sha256(folder / name) == expected
        except (OSError, ValueError) as error:
            problems.append(f"missing: {name}: cannot be read ({error})")
            continue
        if not same:
            problems.append(f"damaged: {name}: its SHA-256 is not that in {SUMS}")
    return problems


def _sealed(folder: Path) -> list[Path]:
    found = []
    for path in folder.rglob("*"):
        first = path.relative_to(folder).parts[0]
        if first == CHECKPOINTS and path.name != SUMS:
            continue
        if first not in (LOCK, TENSORBOARD, COPIED) and path.is_file():
            found.append(path)
    return sorted(found)


def _entry(value: Any) -> str:
    if isinstance(value, list) and value:
        return "[\n  " + ",\n  ".join(_line(item) for item in value) + "\n ]"
    if isinstance(value, Mapping) and value:
        items = (f"{json.dumps(name)}: {_line(item)}" for name, item in value.items())
        return "{\n  " + ",\n  ".join(items) + "\n }"
    return _line(value)


def _line(value: Any) -> str:
    return json.dumps(value, allow_nan=False)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
