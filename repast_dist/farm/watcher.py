"""The watcher is a small process that ends the cluster of a run that was killed.

It knows the run's processes by a mark in their environment, so it needs no Ray and no broad
``ray stop``, and a second run on the same machine is never touched.
"""

import contextlib
import os
import shutil
import sys

import psutil

RUN_MARK = "REPAST_RUN_MARK"
_GRACE_S = 5.0


def main() -> None:
    """Wait until the parent's end of the pipe closes, then end the processes it left behind."""
    mark, folder = sys.argv[1:]
    sys.stdin.buffer.read()
    end_marked_processes(mark, folder, spare={os.getpid()})
    shutil.rmtree(folder, ignore_errors=True)


def end_marked_processes(mark: str, folder: str, spare: set[int]) -> None:
    """End every process of a run.

    Parameters
    ----------
    mark : str
        The value that the run's processes carry in their environment.
    folder : str
        The cluster's temporary folder. Some of Ray's agents overwrite their environment with their
        title; they are known by the logs they keep open there.
    spare : set of int
        Process ids to leave alone.
    """
    own = [p for p in psutil.process_iter() if p.pid not in spare and _belongs(p, mark, folder)]
    for process in own:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    kill_what_stays(own, _GRACE_S)


def kill_what_stays(processes: list[psutil.Process], grace_s: float) -> None:
    """Wait so long for processes to end, and end those that do not by force."""
    _, alive = psutil.wait_procs(processes, timeout=grace_s)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=_GRACE_S)


def _belongs(process: psutil.Process, mark: str, folder: str) -> bool:
    try:
        if process.environ().get(RUN_MARK) == mark:
            return True
        if not process.name().startswith("ray::"):
            return False
        return any(file.path.startswith(folder) for file in process.open_files())
    except (psutil.Error, OSError):
        return False


if __name__ == "__main__":
    main()
