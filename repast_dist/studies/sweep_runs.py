"""The runs of a sweep: one after the other in this process, or side by side in others."""

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

import repast_dist.ground.errors as errors
from repast_dist.farm.cluster import cluster, shared_cluster
from repast_dist.farm.specs import worker_groups
from repast_dist.ground.errors import FarmError, RepastError
from repast_dist.report.console import say
from repast_dist.studies.output import objective_of, read_answer, read_figures
from repast_dist.studies.settings import RunSettings
from repast_dist.studies.sweep_state import SweepState, settings_file

Reply = dict[str, str]


def do_missing(
    state: SweepState, farm: Mapping[str, Any], console: Console, jobs: int | None
) -> None:
    """Do the runs of a sweep that are not finished.

    Parameters
    ----------
    state : SweepState
        The sweep; it is written after every run.
    farm : mapping
        Settings of ``farm`` to change in runs that are gone on with.
    console : Console
        Where the runs are shown.
    jobs : int, optional
        How many runs at a time; None: as many as this machine has processors for.

    Raises
    ------
    KeyboardInterrupt, RepastError, OSError
        Ctrl-C, or a run failed; those beside it have kept what they had finished.
    """
    todo = [number for number, point in enumerate(state.points) if not point.finished]
    settings = [state.points[number].settings for number in todo]
    on_ray = [item.farm for item in settings if starts_ray(item)]
    at_once = min(jobs or _side_by_side(settings), len(todo))
    with cluster(on_ray[0]) if on_ray else contextlib.nullcontext():
        if at_once > 1:
            _do_side_by_side(state, todo, farm, console, at_once)
        else:
            for number in todo:
                console.rule(_heading(state, number), align="left")
                state.points[number].do(farm, console)
                _finished(state, number)
                _check_objective(state, number)


def _side_by_side(settings: list[RunSettings]) -> int:
    """Return how many of the runs this machine has processors for at a time."""
    processors = len(os.sched_getaffinity(0))
    return max(1, processors // max(map(_processes, settings), default=1))


def _processes(settings: RunSettings) -> int:
    """Return how many processes a run keeps busy."""
    if not starts_ray(settings):
        return 1
    if settings.study.name == "train":
        return len(worker_groups(settings.farm))
    return settings.farm.study_workers or len(os.sched_getaffinity(0))


def starts_ray(settings: RunSettings) -> bool:
    """Return whether a run starts processes on Ray, here or on a cluster."""
    reads = any(name in ("farm", "farm.address") for name in settings.study.reads)
    return reads and settings.farm.backend == "ray"


def _heading(state: SweepState, number: int) -> str:
    words = " ".join(state.points[number].overrides) or "defaults"
    return f"run {number + 1} of {len(state.points)}: {words}"


def _finished(state: SweepState, number: int) -> None:
    state.points[number].finished = True
    state.save()


def _check_objective(state: SweepState, number: int) -> None:
    """Refuse an objective that a finished run does not have, before more are begun in vain."""
    point = state.points[number]
    objective_of(point.settings.objective, read_figures(point.run))


def _do_side_by_side(
    state: SweepState, todo: list[int], farm: Mapping[str, Any], console: Console, at_once: int
) -> None:
    console.print(f"{len(todo)} runs, {at_once} at a time")
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in todo:
        waiting.put(number)
    replies: queue.SimpleQueue[tuple[int, Reply]] = queue.SimpleQueue()
    failed: RepastError | None = None
    with _processes_of(state, waiting, replies, farm, at_once):
        for _ in todo:
            number, reply = replies.get()
            if "error" in reply:
                failed = _error(_heading(state, number), reply)
                break
            point = state.points[number]
            point.run = Path(reply["run"])
            _finished(state, number)
            _check_objective(state, number)
            console.print(_heading(state, number), style="bold", markup=False, soft_wrap=True)
            say(f"  {read_answer(point.run)}", console)
    if failed is not None:
        raise failed


@contextlib.contextmanager
def _processes_of(
    state: SweepState,
    waiting: "queue.SimpleQueue[int]",
    replies: "queue.SimpleQueue[tuple[int, Reply]]",
    farm: Mapping[str, Any],
    count: int,
) -> Iterator[None]:
    """Have processes do what waits; at the end they stop as with Ctrl-C, and are waited for."""
    processes: list[subprocess.Popen[str]] = []
    threads: list[threading.Thread] = []
    try:
        with shared_cluster():
            for _ in range(count):
                # A session of its own: Ctrl-C at the terminal is for this process alone.
                process = subprocess.Popen(
                    [sys.executable, "-m", "repast_dist.studies.run_process"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    start_new_session=True,
                )
                processes.append(process)
                threads.append(
                    threading.Thread(
                        target=_feed, args=(process, state, waiting, replies, farm), daemon=True
                    )
                )
                threads[-1].start()
        yield
    finally:
        with contextlib.suppress(queue.Empty):
            while True:
                waiting.get_nowait()
        for process in processes:
            with contextlib.suppress(OSError):
                _of(process.stdin).close()
        for process, thread in zip(processes, threads, strict=True):
            process.wait()
            thread.join()
        for number, point in enumerate(state.points):
            if not point.finished and point.finished_meanwhile():
                _finished(state, number)


def _feed(
    process: "subprocess.Popen[str]",
    state: SweepState,
    waiting: "queue.SimpleQueue[int]",
    replies: "queue.SimpleQueue[tuple[int, Reply]]",
    farm: Mapping[str, Any],
) -> None:
    """Hand a process one run after the other, and pass on what it answers."""
    while True:
        try:
            number = waiting.get_nowait()
        except queue.Empty:
            return
        task = {
            "settings": str(state.folder / settings_file(number)),
            "run": str(state.points[number].run),
            "farm": dict(farm),
        }
        try:
            print(json.dumps(task), file=_of(process.stdin), flush=True)
            line = _of(process.stdout).readline()
        except (OSError, ValueError):
            line = ""
        lost = {"error": f"its process ended with status {process.poll()}", "kind": "FarmError"}
        replies.put((number, json.loads(line) if line else lost))


def _of[File](stream: File | None) -> File:
    assert stream is not None, "opened as a pipe"
    return stream


def _error(heading: str, reply: Reply) -> RepastError:
    """Return the error that a process told, with the run that it is of."""
    kind = getattr(errors, reply["kind"], FarmError)
    return kind(f"{heading}: {reply['error']}")
