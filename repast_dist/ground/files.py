"""Files that a reader never sees half written, and the names inside a run directory."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from repast_dist.ground.errors import RunDirectoryError

RESULT, ANSWER, SETTINGS, LOCK, TRACE, SOLVES, CHECKPOINTS, POINTS, LOG, REPORT, SWEEP = (
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
    except (OSError, ValueError) as error:
        raise RunDirectoryError(f"{path}: not readable ({error})") from error
    if not isinstance(data, dict):
        raise RunDirectoryError(f"{path}: holds {type(data).__name__}; valid: a JSON object")
    return data


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
