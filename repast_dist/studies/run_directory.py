"""The folder a run leaves behind: made once, never overwritten, used by one process at a time."""

import contextlib
import contextvars
import datetime
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from repast_dist.ground.errors import RunDirectoryError, SettingsError
from repast_dist.ground.files import LOCK, RESULT

_NOTED: contextvars.ContextVar[tuple[Callable[[Path], None], ...]] = contextvars.ContextVar(
    "noted", default=()
)


@contextlib.contextmanager
def noted_directories(note: Callable[[Path], None]) -> Iterator[None]:
    """Have a function called with every run directory that is made inside the block, at once."""
    token = _NOTED.set((*_NOTED.get(), note))
    try:
        yield
    finally:
        _NOTED.reset(token)


def new_run_directory(root: Path, study: str) -> Path:
    """Make ``root/study/<date-time>``; a name already taken gets a number behind it."""
    parent = root / study
    parent.mkdir(parents=True, exist_ok=True)
    stamp = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    for attempt in range(1, 1000):
        path = parent / (stamp if attempt == 1 else f"{stamp}_{attempt}")
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            for note in _NOTED.get():
                note(path)
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
        raise SettingsError("study.run: this study reads a run; valid: study.run=RUN_DIR")
    folder = Path(path)
    if not (folder / RESULT).is_file():
        raise RunDirectoryError(f"study.run: {folder} is no run directory, it has no {RESULT}")
    return folder


@contextlib.contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Hold the run directory's lock, so that two processes never write into one.

    Raises
    ------
    RunDirectoryError
        Another process is using it.
    """
    path = run_dir / LOCK
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The one before may have deleted the file between opening and locking.
            is_the_lock = path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())
        except OSError:
            is_the_lock = False
        if not is_the_lock:
            raise RunDirectoryError(f"{run_dir}: another process is using this run")
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                path.unlink()
