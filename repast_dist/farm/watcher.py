"""A small process that outlives a killed run just long enough to end its cluster.

It knows the run's processes by a mark in their environment, so it needs no Ray and no broad
``ray stop``, and a second run on the same machine is never touched.
"""

import contextlib
import os
import shutil
import sys

import psutil

RUN_MARK = "REPAST_RUN_MARK"
_STOP_GRACE_S = 5.0


def main() -> None:
    """Wait until the parent's end of the pipe closes, then end what it left behind."""
    mark, folder = sys.argv[1:]
    sys.stdin.buffer.read()
    end_marked_processes(mark, spare={os.getpid()})
    shutil.rmtree(folder, ignore_errors=True)


def end_marked_processes(mark: str, spare: set[int]) -> None:
    """End every process that carries this run's mark in its environment, and their children.

    Some of Ray's agents overwrite their environment with their title; they are found as children.
    """
    marked = {p for p in psutil.process_iter() if p.pid not in spare and _has_mark(p, mark)}
    for process in list(marked):
        with contextlib.suppress(psutil.Error):
            marked |= {p for p in process.children(recursive=True) if p.pid not in spare}
    for process in marked:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(list(marked), timeout=_STOP_GRACE_S)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=_STOP_GRACE_S)


def _has_mark(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get(RUN_MARK) == mark
    except (psutil.Error, OSError):
        return False


if __name__ == "__main__":
    main()
