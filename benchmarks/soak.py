"""A long run on one machine: does memory stay flat, and disk space proportional to the steps?

Trains a tiny network in one process and looks at the process and its run directory as it goes.
``python benchmarks/soak.py [STEPS]``; 5,000 by default.
"""

import dataclasses
import gc
import io
import sys
import tempfile
import time
from pathlib import Path

import psutil
from rich.console import Console

from repast_dist.settings import load_settings
from repast_dist.studies import recorder, run_study
from repast_dist.studies.verify import findings

STEPS = 5000
LOOKS = 10
SETTINGS = (
    "model=digits_mlp", "engine=float64", "train.batch_size=16", "train.micro_batch_size=16",
    "train.epochs=100000", "dataset.train_samples=320", "dataset.test_fraction=0.03",
    "soi.block_size=24", "farm.backend=inprocess", "farm.chips=1", "farm.checkpoint_every=50",
    "model.layers=[{kind: flatten}, {kind: dense, name: hidden, outputs: 12}, {kind: relu}, "
    "{kind: dense, name: readout, outputs: 10}]",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Look:
    """What was found after some steps.

    Attributes
    ----------
    steps : int
        Steps done.
    memory_bytes : int
        Resident memory of the process.
    trace_bytes, other_bytes : int
        Size of the trace with the solve reports, and of everything else in the run directory.
    files : int
        Files in the run directory.
    """

    steps: int
    memory_bytes: int
    trace_bytes: int
    other_bytes: int
    files: int


def look(steps: int, run_dir: Path) -> Look:
    """Look at the process and at its run directory."""
    gc.collect()
    sizes = {path: path.stat().st_size for path in run_dir.rglob("*") if path.is_file()}
    of_trace = sum(
        size
        for path, size in sizes.items()
        if path.relative_to(run_dir).parts[0].startswith(("trace", "solves"))
    )
    memory = psutil.Process().memory_info().rss
    return Look(steps, memory, of_trace, sum(sizes.values()) - of_trace, len(sizes))


def soak(steps: int, root: Path, looks: int = LOOKS) -> list[Look]:
    """Train for some steps and return what was found on the way, at equal distances."""
    found: list[Look] = []
    whole = recorder.RunRecorder.steps

    def watched(self: recorder.RunRecorder, records, rows, solves) -> None:
        whole(self, records, rows, solves)
        done = records[-1].step + 1
        if done % (steps // looks) == 0:
            found.append(look(done, self._path.parent))

    recorder.RunRecorder.steps = watched
    try:
        settings = load_settings([*SETTINGS, f"train.max_steps={steps}", f"run_root={root}"])
        run_dir = run_study(settings, Console(file=io.StringIO()))
    finally:
        recorder.RunRecorder.steps = whole
    problems = list(findings(run_dir))
    assert not problems, problems
    return found


def main() -> None:
    """Print what was found."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else STEPS
    started = time.process_time()
    with tempfile.TemporaryDirectory() as root:
        found = soak(steps, Path(root))
    print(f"{'steps':>8}{'memory MB':>12}{'trace kB':>12}{'other kB':>12}{'files':>8}")
    for item in found:
        print(
            f"{item.steps:>8}{item.memory_bytes / 1e6:>12.1f}{item.trace_bytes / 1e3:>12.0f}"
            f"{item.other_bytes / 1e3:>12.0f}{item.files:>8}"
        )
    print(f"{time.process_time() - started:.0f} s of processor time")


if __name__ == "__main__":
    main()
