"""Files that a reader never sees half written, and the names inside a run directory."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

RESULT, ANSWER, SETTINGS, LOCK, TRACE, SOLVES, CHECKPOINTS, POINTS, LOG, REPORT = (
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
)
"""Names inside a run directory."""


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Write a file or folder aside and put it in place when the block ends well.

    Parameters
    ----------
    path : Path
        The final name. What the block writes to the yielded path gets that name in one step;
        files are flushed to the disk before.

    Yields
    ------
    Path
        Where to write, in the same folder. It is removed if the block fails.

    Raises
    ------
    OSError
        The disk is full or not writable; what was at `path` before is untouched.
    """
    aside = path.with_name(f".{path.name}.tmp")
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


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
