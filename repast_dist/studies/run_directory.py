"""The folder a run leaves behind: made once, never overwritten, used by one process at a time."""

import contextlib
import datetime
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from repast_dist.ground.errors import RunDirectoryError, SettingsError

RESULT, ANSWER, SETTINGS, LOCK, TRACE, CHECKPOINTS, POINTS, LOG, REPORT = (
    "result.json",
    "answer.json",
    "settings.json",
    ".lock",
    "trace",
    "checkpoints",
    "points",
    "run.log",
    "report.html",
)


def new_run_directory(root: Path, study: str) -> Path:
    """Make ``root/study/<date-time>``; a name already taken gets a number behind it."""
    parent = root / study
    parent.mkdir(parents=True, exist_ok=True)
    stamp = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    for attempt in range(1, 1000):
        path = parent / (stamp if attempt == 1 else f"{stamp}_{attempt}")
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            return path
    raise RunDirectoryError(f"{parent}: a thousand runs started in one second")


def existing_run(path: str | None) -> Path:
    """Return a run directory that a study was told to read.

    Raises
    ------
    SettingsError
        None was named.
    RunDirectoryError
        It is not one.
    """
    if path is None:
        raise SettingsError("run: this study reads a run; valid: run=RUN_DIR")
    folder = Path(path)
    if not (folder / RESULT).is_file():
        raise RunDirectoryError(f"run: {folder} is no run directory, it has no {RESULT}")
    return folder


@contextlib.contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Hold the run directory's lock, so that two processes never write into one.

    Raises
    ------
    RunDirectoryError
        Another process is using it.
    """
    with (run_dir / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunDirectoryError(f"{run_dir}: another process is using this run") from None
        yield
    with contextlib.suppress(OSError):
        (run_dir / LOCK).unlink()


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write JSON aside and rename it, so that a reader never sees half a file."""
    aside = path.with_name(f".{path.name}.tmp")
    with aside.open("w") as file:
        file.write(_text(data))
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


def _text(data: Mapping[str, Any]) -> str:
    """Return JSON with a line for every entry of every entry: a step, an epoch, a group of
    settings.
    """
    entries = (f" {json.dumps(name)}: {_entry(value)}" for name, value in data.items())
    return "{\n" + ",\n".join(entries) + "\n}\n"


def _entry(value: Any) -> str:
    if isinstance(value, list) and value:
        return "[\n  " + ",\n  ".join(_line(item) for item in value) + "\n ]"
    if isinstance(value, Mapping) and value:
        items = (f"{json.dumps(name)}: {_line(item)}" for name, item in value.items())
        return "{\n  " + ",\n  ".join(items) + "\n }"
    return _line(value)


def _line(value: Any) -> str:
    return json.dumps(value, allow_nan=False)


def read_json(path: Path) -> dict[str, Any]:
    """Read JSON that a run wrote.

    Raises
    ------
    RunDirectoryError
        The file is missing or damaged.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RunDirectoryError(f"{path}: not readable ({error})") from error
