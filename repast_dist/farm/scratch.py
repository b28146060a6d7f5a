"""The temporary folder of a local cluster, and what is left of those whose runs were killed.

A run holds a lock in its folder as long as it lives. Where nobody holds it, run and watcher were
both killed: the next start ends what they left running and deletes the folder.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from repast_dist.farm.watcher import end_marked_processes

_PREFIX = "repast-"
_OWNER = "owner"


@contextlib.contextmanager
def scratch_folder(mark: str) -> Iterator[Path]:
    """Make a folder that is this run's alone, and keep others from taking it for left behind.

    Parameters
    ----------
    mark : str
        What the run's processes carry in their environment.

    Raises
    ------
    OSError
        There is no room for it, or it is not allowed.
    """
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=short_temp_dir()))
    try:
        with (folder / f".{_OWNER}").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(mark)
            file.flush()
            # Only what is locked already gets the name that others look for.
            os.replace(folder / f".{_OWNER}", folder / _OWNER)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def clear_left_behind() -> list[Path]:
    """End the processes and delete the folders of this user's runs that are no more.

    Returns
    -------
    list of Path
        The folders.
    """
    cleared = []
    for owner in Path(short_temp_dir()).glob(f"{_PREFIX}*/{_OWNER}"):
        # Folders of other users cannot be entered, others may be deleted meanwhile.
        with contextlib.suppress(OSError), owner.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not owner.is_symlink() and owner.parent.stat().st_uid == os.getuid():
                mark = file.read()
                if mark:
                    end_marked_processes(mark, str(owner.parent), spare={os.getpid()})
                shutil.rmtree(owner.parent, ignore_errors=True)
                cleared.append(owner.parent)
    return cleared


def short_temp_dir() -> str:
    """Return a folder short enough for the Unix sockets Ray puts below it."""
    preferred = tempfile.gettempdir()
    return preferred if len(preferred) <= 24 else "/tmp"
