"""``study=train``: train one network on the farm, record everything, write the report."""

import contextlib
import dataclasses
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from repast_dist.farm.checkpoint import Checkpoint, latest_checkpoint, list_checkpoints
from repast_dist.farm.coordinator import Coordinator
from repast_dist.farm.failures import WorkersLost
from repast_dist.farm.interface import Farm, Worker
from repast_dist.farm.launch import open_farm
from repast_dist.farm.setup import FarmSetup, beginning, make_setup
from repast_dist.ground.errors import FarmError, RunDirectoryError, Stopped
from repast_dist.ground.files import (
    CHECKPOINTS,
    REPORT,
    RESULT,
    SUMS,
    TRACE,
    seal,
    unseal,
)
from repast_dist.ground.interrupts import STOP_SIGNALS, interrupt
from repast_dist.ops.pricing import component_energy
from repast_dist.planning.wear import Wear, cell_writes
from repast_dist.report.console import RunProgress, print_summary, say
from repast_dist.report.idle_chips import idle_chips_line
from repast_dist.report.units import counted
from repast_dist.studies import stored
from repast_dist.studies.kinds.train import TrainStudy
from repast_dist.studies.output import begin
from repast_dist.studies.recorder import RunRecorder
from repast_dist.studies.run_directory import locked
from repast_dist.studies.run_page import write_run_page
from repast_dist.studies.run_result import read_result, refuse_other_settings
from repast_dist.studies.settings import RunSettings, training_job
from repast_dist.trace import read_trace, totals, whole_steps
from repast_dist.trace.stream import stream_messages
from repast_dist.trace.writer import forget_trace, open_path, part_paths
from repast_dist.training.network import preconditioning_table
from repast_dist.training.sampling import steps_per_epoch, tests_after, total_steps


def run(study: TrainStudy, settings: RunSettings, run_dir: Path | None, console: Console) -> Path:
    """Train with these settings into a new run directory, or go on from the newest checkpoint.

    Returns
    -------
    Path
        The run directory, with answer.json, result.json, trace/, solves/, checkpoints/ and
        report.html.

    Raises
    ------
    RepastError
        Settings do not fit the data, a solve diverged under ``on_divergence=raise``, the farm
        was lost; the directory says so too.
    RunDirectoryError
        The run to go on with is finished already, in use, or without a usable checkpoint.
    """
    return _begin(settings, console) if run_dir is None else _resume(run_dir, settings, console)


def _begin(settings: RunSettings, console: Console) -> Path:
    setup = _setup(settings)
    run_dir = begin(settings)
    with locked(run_dir):
        _train(settings, setup, run_dir, None, console)
    return run_dir


def _resume(run_dir: Path, settings: RunSettings, console: Console) -> Path:
    setup = _setup(settings)
    # Another process may be at the end of this run: all that is read is read under the lock.
    with locked(run_dir):
        if _stopped_before_first_checkpoint(run_dir):
            console.print(f"Beginning {run_dir} anew", markup=False, soft_wrap=True)
            unseal(run_dir)
            forget_trace(run_dir / TRACE)
            (run_dir / RESULT).unlink(missing_ok=True)
            _train(settings, setup, run_dir, None, console)
            return run_dir
        result = read_result(run_dir)
        refuse_other_settings(run_dir, result)
        if result["status"] == "finished":
            if (run_dir / SUMS).is_file():
                if stored.is_behind():
                    return run_dir
                raise RunDirectoryError(
                    f"{run_dir}: the run is finished, there is nothing to resume"
                )
            # It stopped after its last step, for want of room for its page.
            _report(run_dir)
            return run_dir
        mark = result["settings_sha256"]
        steps = whole_steps(run_dir / TRACE, mark)
        checkpoint, refused = latest_checkpoint(run_dir / CHECKPOINTS, steps, mark)
        for reason in refused:
            console.print(f"refused {reason}", markup=False, soft_wrap=True)
        if checkpoint is None:
            raise RunDirectoryError(
                "\n".join([f"{run_dir / CHECKPOINTS}: no usable checkpoint", *refused])
            )
        console.print(f"Resuming {run_dir} at step {checkpoint.step}", markup=False, soft_wrap=True)
        unseal(run_dir)
        _train(settings, setup, run_dir, checkpoint, console)
    return run_dir


def _stopped_before_first_checkpoint(run_dir: Path) -> bool:
    """Return whether a run was killed while it started: nothing was computed yet."""
    if list_checkpoints(run_dir / CHECKPOINTS) or part_paths(run_dir / TRACE):
        return False
    return not next(stream_messages(open_path(run_dir / TRACE)), None)


def _setup(settings: RunSettings) -> FarmSetup:
    return make_setup(training_job(settings), settings.dataset.load())


def _train(
    settings: RunSettings,
    setup: FarmSetup,
    run_dir: Path,
    checkpoint: Checkpoint | None,
    console: Console,
) -> None:
    steps = total_steps(len(setup.data.train_inputs), settings.train)
    first_step = checkpoint.step if checkpoint else 0
    _announce(settings, setup, run_dir, steps, console)
    train, data = settings.train, setup.data
    progress = RunProgress(
        steps,
        setup.job.farm.chips,
        first_step=first_step,
        tests=tests_after(first_step, len(data.train_inputs), train),
        # A test has the first of the three products that a layer has in a step.
        test_steps=len(data.test_inputs) / train.batch_size / 3,
        console=console,
    )
    recorder = RunRecorder(run_dir, settings, _facts(setup), progress, checkpoint)
    try:
        done = _drive(settings, setup, run_dir, checkpoint, recorder, progress)
        recorder.seal()
        run_totals = _totals(run_dir)
        wear = _wear(setup, run_totals)
        recorder.finish("finished" if done else "interrupted", totals=run_totals, wear=wear)
    except BaseException as error:
        # On a full disk not even this can be written; what is there stays readable.
        with contextlib.suppress(OSError, RunDirectoryError):
            stopped = isinstance(error, KeyboardInterrupt)
            status = "interrupted" if stopped else "failed"
            recorder.finish(status, error=str(error) or type(error).__name__)
            seal(run_dir)
        if isinstance(error, OSError):
            raise RunDirectoryError(f"{run_dir}: {error}; resume={run_dir} goes on") from error
        if isinstance(error, FarmError):
            raise FarmError(f"{error}; resume={run_dir} goes on") from error
        raise
    _report(run_dir)
    if not done:
        console.print(
            f"Interrupted. Go on with: repast-dist resume={run_dir}", markup=False, soft_wrap=True
        )
        raise Stopped
    print_summary(recorder.result, console)
    console.print(f"Run directory: {run_dir}", markup=False, soft_wrap=True)
    console.print(f"Report:        {run_dir / REPORT}", markup=False, soft_wrap=True)


def _drive(
    settings: RunSettings,
    setup: FarmSetup,
    run_dir: Path,
    checkpoint: Checkpoint | None,
    recorder: RunRecorder,
    progress: RunProgress,
) -> bool:
    """Train on a farm; return whether all steps are done."""
    with open_farm(setup.job.farm, setup) as farm, progress, _stop_on_interrupt(progress) as stop:
        recorder.kernels(_kernels(farm))
        start = checkpoint or beginning(setup)
        mark = recorder.result["settings_sha256"]
        return Coordinator(setup, farm, start, recorder, run_dir / CHECKPOINTS, mark).run(stop)


def _kernels(farm: Farm) -> list[str]:
    """Return what the workers compute products with; nothing of workers that are lost already."""
    try:
        return farm.get([farm.call(worker, Worker.kernels) for worker in farm.workers])
    except WorkersLost:
        return []


@contextlib.contextmanager
def _stop_on_interrupt(progress: RunProgress) -> Iterator[Callable[[], bool]]:
    """Let the first Ctrl-C end the run after the current step, the second one at once.

    SIGTERM, with which Slurm and Kubernetes begin to end a job, and SIGHUP do the same.
    """
    asked = threading.Event()

    def handle(number: int, frame: Any) -> None:
        if asked.is_set():
            interrupt(number, frame)
            return
        asked.set()
        name = signal.Signals(number).name
        progress.message(f"{name}: finishing the steps under way and saving (again: at once)")

    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    for number, handler in before.items():
        # nohup ignores SIGHUP.
        if handler is not signal.SIG_IGN:
            signal.signal(number, handle)
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _totals(run_dir: Path) -> dict[str, Any]:
    return totals(read_trace(run_dir / TRACE)).to_dict()


def _wear(setup: FarmSetup, run_totals: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the run did to the cells, at the speed it had."""
    steps = run_totals["steps"]
    each_s = run_totals["time_s"] / max(steps, 1)
    wear = Wear(cell_writes(setup.plan), setup.plan.hardware.costs.endurance, each_s)
    return wear.record(steps, steps_per_epoch(len(setup.data.train_inputs), setup.job.train))


def _report(run_dir: Path) -> None:
    try:
        write_run_page(run_dir)
    except OSError as error:
        raise RunDirectoryError(f"{run_dir}: {error}; resume={run_dir} goes on") from error


def _announce(
    settings: RunSettings, setup: FarmSetup, run_dir: Path, steps: int, console: Console
) -> None:
    farm, partition = setup.job.farm, settings.partition
    where = "in this process" if farm.backend == "inprocess" else "in Ray workers"
    say(
        f"Training {settings.model.name} on {settings.dataset.name} with "
        f"{settings.optimizer.name}: {counted(steps, 'step')} on "
        f"{counted(farm.chips, 'simulated chip')} {where}",
        console,
    )
    if partition.idle_chips == "auto":
        line = idle_chips_line(farm.chips, settings.farm.chips, partition.objective)
        say(line, console)
    console.print(f"Run directory: {run_dir}", markup=False, soft_wrap=True)
    if setup.plan.work.second_order:
        console.print(_preconditioning(setup))


def _preconditioning(setup: FarmSetup) -> Table:
    table = Table(title="Preconditioning", title_justify="left")
    for name in ("layer", "kind", "weights", "SOI blocks", "treatment"):
        table.add_column(name, justify="right" if name in ("weights", "SOI blocks") else "left")
    for row in preconditioning_table(setup.network.parameters):
        blocks = [block for block in setup.plan.blocks if block.layer_name == row.name]
        sizes = " ".join(f"{block.factor}{block.size}" for block in blocks)
        table.add_row(row.name, row.kind, "x".join(map(str, row.shape)), sizes or "-", row.reason)
    return table


def _facts(setup: FarmSetup) -> dict[str, Any]:
    """Return what result.json says of layers, blocks and plan."""
    return {
        "method": setup.job.optimizer.name,
        "layers": [
            dataclasses.asdict(row) for row in preconditioning_table(setup.network.parameters)
        ],
        "blocks": [
            {**dataclasses.asdict(block), "n": block.size, "chip": setup.block_owner(block.index)}
            for block in setup.plan.blocks
        ],
        "working_chips": setup.job.farm.chips,
        "component_energy_j": component_energy(setup.plan.hardware.costs),
        "micro_batches": [
            setup.micro_batch_owner(number) for number in range(setup.job.train.micro_batches)
        ],
    }
