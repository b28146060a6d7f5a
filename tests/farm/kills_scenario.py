"""Kills runs, resumes, recoveries, reports and sweeps at any moment and goes on until they end.

Every trial is done by children of this process, which has no threads. A child dies at its k-th
operation on files, or at some moment of its processor time, also in the middle of compiled code.
Usage: kills_scenario.py FOLDER FIRST_TRIAL TRIALS; the last line printed is a JSON object.
"""

import dataclasses
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console

import repast_dist as rd
from repast_dist.api.runs import open_run
from repast_dist.farm import launch
from repast_dist.farm.checkpoint import latest_checkpoint
from repast_dist.farm.failures import WorkersLost
from repast_dist.farm.inprocess import InProcessFarm
from repast_dist.settings import load_settings
from repast_dist.studies import run_study
from repast_dist.studies.multirun import run_sweep
from repast_dist.studies.settings import RunSettings
from repast_dist.studies.verify import findings
from repast_dist.trace import read_solves, read_trace

SETTINGS = (
    "model=digits_mlp", "train.batch_size=32", "train.max_steps=6", "train.epochs=1",
    "farm.checkpoint_every=2", "farm.chips=2", "farm.backend=inprocess", "soi.block_size=24",
    "dataset.train_samples=320", "dataset.test_fraction=0.03",
    "model.layers=[{kind: flatten}, {kind: dense, name: hidden, outputs: 12}, {kind: relu}, "
    "{kind: dense, name: readout, outputs: 10}]",
)  # fmt: skip
CHANGES_FILES = {"open", "write", "close", "fsync", "replace", "rename", "unlink", "mkdir", "rmdir"}
MOST_OPERATIONS, MOST_SECONDS = 400, 0.4
KILLED, FAILED = 9, 7


class LossyFarm(InProcessFarm):
    """Loses its worker now and then, so that the run recovers."""

    def __init__(self, chips, factory, setup):
        super().__init__(chips, factory, setup)
        self.answers = 0

    def get(self, answers):
        self.answers += 1
        if self.answers in (5, 8):
            raise WorkersLost([0], "as the test wants it")
        return super().get(answers)


def train(root: Path) -> None:
    run_study(SEEDS[0](root), Console(file=io.StringIO()))


def recover(root: Path) -> None:
    launch.InProcessFarm = LossyFarm
    train(root)


def sweep(root: Path) -> None:
    settings = [of(root) for of in SEEDS]
    run_sweep(settings, [["seed=0"], ["seed=1"]], Console(file=io.StringIO()))


def report(run: Path) -> None:
    rd.study("report", f"study.run={run}", quiet=True)


def go_on(root: Path, begin: Callable[[Path], None]) -> None:
    """Do what a user does after a crash: resume what is there, or begin again."""
    (found,) = [*root.glob("sweep/2*"), *root.glob("train/2*")][:1] or [None]
    if found is None:
        begin(root)
    elif (found / "report.html").is_file() and (found / "checksums.json").is_file():
        return
    else:
        try:
            rd.resume(found, quiet=True)
        except rd.RepastError as error:
            if "nothing to resume" not in str(error):
                raise


def in_child(action: Callable[[], None], operation: int = 0, after_s: float = 0.0) -> int:
    """Do something in a child that dies at an operation on files, or after some processor time."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status)
    status = FAILED
    try:
        if operation:
            sys.setprofile(_Counter(operation))
        if after_s:
            signal.setitimer(signal.ITIMER_PROF, after_s)
        action()
        status = 0
    except BaseException:
        sys.setprofile(None)
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


class _Counter:
    """Ends the process at its k-th operation on files."""

    def __init__(self, left: int) -> None:
        self.left = left

    def __call__(self, frame: object, event: str, function: object) -> None:
        if event == "c_call" and getattr(function, "__name__", "") in CHANGES_FILES:
            self.left -= 1
            if not self.left:
                os._exit(KILLED)


def content(run: Path) -> dict[str, bytes]:
    """Return all that a run has computed, as bytes."""
    checkpoint, _ = latest_checkpoint(run / "checkpoints")
    arrays = {n: np.ascontiguousarray(a).tobytes() for n, a in checkpoint.arrays.items()}
    tables = {"trace": read_trace(run / "trace"), "solves": read_solves(run)}
    for name, table in tables.items():
        arrays[name] = json.dumps(table.to_pydict(), default=str).encode()
    result = json.loads((run / "result.json").read_text())
    steps = [{**step, "wall_s": 0, "computing_s": 0} for step in result["steps"]]
    return {**arrays, "steps": json.dumps(steps).encode()}


def check(root: Path, expected: list[Path]) -> None:
    """Compare finished runs with those that nobody disturbed."""
    folders = list(root.glob("sweep/2*"))
    runs = [run.folder for run in open_run(folders[0]).runs] if folders else []
    runs = runs or list(root.glob("train/2*"))
    assert len(runs) == len(expected), (runs, expected)
    for run, whole in zip(runs, expected, strict=True):
        assert not list(findings(run)), list(findings(run))
        found, wanted = content(run), content(whole)
        assert found.keys() == wanted.keys()
        assert not [name for name in found if found[name] != wanted[name]]


def trial(number: int, root: Path, expected: list[Path]) -> Counter[str]:
    """Kill one run again and again, then let it end and compare it; return what was killed."""
    draw = random.Random(f"kills {number}")
    kind = ("train", "recover", "sweep")[number % 3]
    begin = {"train": train, "recover": recover, "sweep": sweep}[kind]
    kills: Counter[str] = Counter()
    for stage in range(draw.choice([4, 5, 6])):
        what = kind if stage == 0 else f"resume of {kind}"
        dies = (
            {"operation": draw.randrange(1, MOST_OPERATIONS)}
            if draw.random() < 0.6
            else {"after_s": MOST_SECONDS * draw.random()}
        )
        status = in_child(lambda: go_on(root, begin), **dies)
        assert status != FAILED, (number, what)
        if status == 0:
            break
        kills[what] += 1
    assert in_child(lambda: go_on(root, begin)) == 0, number
    if kind == "train":
        (run,) = root.glob("train/2*")
        kills["report"] += in_child(lambda: report(run), draw.randrange(1, 60)) == KILLED
        assert in_child(lambda: report(run)) == 0, number
    assert in_child(lambda: check(root, expected)) == 0, number
    return kills


def main() -> None:
    """Do the trials."""
    folder, first, trials = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    # A crash leaves no core dumps in the folder.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    assert in_child(lambda: sweep(folder / "whole")) == 0
    (whole,) = (folder / "whole").glob("sweep/2*")
    names = json.loads((whole / "sweep.json").read_text())["runs"]
    expected = [whole / name for name in names]
    kills: Counter[str] = Counter()
    for number in range(first, first + trials):
        root = folder / str(number)
        kills += trial(number, root, expected if number % 3 == 2 else expected[:1])
        shutil.rmtree(root)
    print(json.dumps(kills))


def _of(seed: int) -> Callable[[Path], RunSettings]:
    settings = load_settings([*SETTINGS, f"seed={seed}"])
    return lambda root: dataclasses.replace(settings, run_root=str(root))


SEEDS = [_of(0), _of(1)]

if __name__ == "__main__":
    main()
