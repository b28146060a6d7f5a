"""The folder a run leaves behind: made once, never overwritten, used by one process at a time."""

import contextlib
import contextvars
import datetime
import errno
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from repast_dist.ground.errors import RunDirectoryError, SettingsError
from repast_dist.ground.files import LOCK, RESULT, SETTINGS

_PLACES: contextvars.ContextVar[list[Path]] = contextvars.ContextVar("places")


@contextlib.contextmanager
def placed(path: Path) -> Iterator[None]:
    """Have the next run directory that is made inside the block be this one.

    It may be there, as long as it holds no run.
    """
    token = _PLACES.set([path])
    try:
        yield
    finally:
        _PLACES.reset(token)


def new_run_directory(root: Path, study: str, fill: Callable[[Path], object]) -> Path:
    """Make ``root/study/<date-time>``; a name already taken gets a number behind it.

    Inside `placed` it is the directory named there.

    Parameters
    ----------
    root, study : Path, str
        Where.
    fill : callable
        Writes the first files, such as the settings, into a folder: it gets its name with them in
        it, so that a run killed at any moment leaves a directory that can be resumed, or none.

    Raises
    ------
    RunDirectoryError
        The disk is full or not writable; or the directory that was named holds a run.
    """
    places = _PLACES.get([])
    place = places.pop() if places else None
    parent = place.absolute().parent if place else root / study
    aside = parent / f".{os.getpid()}-{time.monotonic_ns()}.tmp"
    try:
        aside.mkdir(parents=True)
        fill(aside)
        if place is not None:
            return _moved(aside, place)
        return _renamed(aside, datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S"))
    except OSError as error:
        raise RunDirectoryError(f"run_root: no run can begin in {parent} ({error})") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _moved(aside: Path, place: Path) -> Path:
    """Give a folder the place that was named; what else lies there, such as logs, stays."""
    if (place / SETTINGS).exists():
        raise RunDirectoryError(
            f"{place}: there is a run already; valid: resume={place}, or another directory"
        )
    with contextlib.suppress(OSError):
        os.rename(aside, place)
        return place
    # Its settings make a folder a run: they come last.
    for item in sorted(aside.iterdir(), key=lambda it: it.name == SETTINGS):
        os.rename(item, place / item.name)
    return place


def _renamed(aside: Path, stamp: str) -> Path:
    """Give a folder the first of a date's names that is not taken."""
    for attempt in range(1, 1000):
        path = aside.parent / (stamp if attempt == 1 else f"{stamp}_{attempt}")
        try:
            os.rename(aside, path)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise
            continue
        return path
    raise RunDirectoryError(f"{aside.parent}: a thousand runs started in one second")


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


def in_use(run_dir: Path) -> bool:
    """Return whether a process holds the lock of a run directory: it goes on."""
    try:
        with (run_dir / LOCK).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _lock(file: IO[str]) -> None:
    """Lock a file; `in_use` of another process may hold it for a moment."""
    for wait_s in (0.01, 0.1):
        with contextlib.suppress(OSError):
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(wait_s)
    return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


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
            _lock(file)
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
