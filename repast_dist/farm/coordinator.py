"""The coordinator drives one training run and records what its workers report.

The workers hold the weights, the optimizer's state, the factor averages and the prepared solvers,
and exchange what they need among themselves. The coordinator asks for steps, tests and
checkpoints in order and a little ahead, so that no worker waits for it, and records the answers as
they come. When a worker is lost, all workers go back to the newest checkpoint and repeat the steps
since then. The random draws have the same addresses, so the numbers are the same.
"""

import collections
import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, Protocol

import numpy as np
import pyarrow as pa

from repast_dist.farm.checkpoint import Checkpoint, latest_checkpoint, save_checkpoint
from repast_dist.farm.clock import align
from repast_dist.farm.failures import WorkersLost, decide
from repast_dist.farm.interface import Answer, Farm, Worker
from repast_dist.farm.records import (
    EpochRecord,
    Event,
    MicroBatchOutcome,
    StepRecord,
    StepReport,
    WorkerAnswer,
)
from repast_dist.farm.setup import FarmSetup, make_setup
from repast_dist.ground.errors import FarmError
from repast_dist.ground.numbers import ceil_div
from repast_dist.training.block_state import joined
from repast_dist.training.engines import ClipCount
from repast_dist.training.network import Evaluation
from repast_dist.training.sampling import steps_per_epoch, tested_after, total_steps
from repast_dist.training.solve_report import SolveReport, merged

logger = logging.getLogger(__name__)

_EVALUATION_CHUNK = 64
# Steps are asked for in calls of about this long, so that a call's own cost does not count.
_CALL_S = 1.0
_MOST_STEPS_PER_CALL = 16


@dataclasses.dataclass
class Progress:
    """How far a run has come; the arrays of its state are held by the workers.

    Attributes
    ----------
    step : int
        First step not recorded yet.
    clock_s : float
        Simulated time so far.
    epochs : list of EpochRecord
        Finished epochs.
    steps : list of StepRecord
        Finished steps.
    """

    step: int
    clock_s: float
    epochs: list[EpochRecord]
    steps: list[StepRecord]

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "Progress":
        """Return the progress that is stored in a checkpoint."""
        state = checkpoint.state
        epochs = [EpochRecord(**item) for item in state["epochs"]]
        steps = [StepRecord(**item) for item in state["steps"]]
        return cls(checkpoint.step, state["clock_s"], epochs, steps)

    def plain(self) -> dict[str, Any]:
        """Return everything but the step as JSON data, for a checkpoint."""
        return {
            "clock_s": self.clock_s,
            "epochs": [record.plain() for record in self.epochs],
            "steps": [record.plain() for record in self.steps],
        }


@dataclasses.dataclass(frozen=True)
class Restoring:
    """State in which all workers load a checkpoint; `Working` follows.

    Attributes
    ----------
    checkpoint : Checkpoint
        The checkpoint.
    """

    checkpoint: Checkpoint


@dataclasses.dataclass(frozen=True)
class Working:
    """State in which the workers do their steps; `Ended` follows."""


@dataclasses.dataclass(frozen=True)
class Recovering:
    """State in which lost workers are started anew or retired; `Restoring` follows.

    Attributes
    ----------
    lost : WorkersLost
        Which workers, and why.
    """

    lost: WorkersLost


@dataclasses.dataclass(frozen=True)
class Ended:
    """State in which the run is over.

    Attributes
    ----------
    complete : bool
        Whether all steps are done, or the target accuracy is reached.
    """

    complete: bool


State = Restoring | Working | Recovering | Ended
"""What a coordinator is at. `Recovering` also follows every state in which workers are lost; an
error of any other kind ends the run."""


@dataclasses.dataclass
class _Failures:
    """The failures of the run so far, on which the failure policy decides.

    Attributes
    ----------
    of_worker : dict
        Worker -> how often it was lost.
    recoveries : int
        Recoveries so far.
    """

    of_worker: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)
    recoveries: int = 0


@dataclasses.dataclass
class _Pace:
    """The number of steps to ask for in one call, chosen by how long answers take.

    Attributes
    ----------
    steps_per_call : int
        Steps of a call.
    answered_at : float
        Wall clock of the newest answer.
    """

    steps_per_call: int = 1
    answered_at: float = 0.0

    def answered(self, asked_at: float) -> float:
        """Note an answer; return the wall time it took, in seconds."""
        now = time.perf_counter()
        wall_s = now - max(asked_at, self.answered_at)
        self.answered_at = now
        return wall_s

    def adapt(self, step_s: float) -> None:
        """Ask for as many steps at once as take about a second."""
        self.steps_per_call = min(max(int(_CALL_S / step_s), 1), _MOST_STEPS_PER_CALL)


@dataclasses.dataclass(frozen=True)
class _Asked[Result]:
    """A request to all workers, and the function that takes their answers."""

    answers: Sequence[Answer[Result]]
    use: Callable[[list[Result], float], None]
    asked_at: float
    decides: bool = False


class Recorder(Protocol):
    """Receives the records of a run while it goes on, for example to write them to files."""

    def steps(
        self,
        records: Sequence[StepRecord],
        rows: Sequence[pa.RecordBatch],
        solves: Sequence[SolveReport],
    ) -> None:
        """Take the records, the trace rows and the solve reports of some steps."""

    def epoch(self, record: EpochRecord) -> None:
        """Take the record of one epoch."""

    def event(self, event: Event) -> None:
        """Take an event that the reader of the run should know of."""

    def cut(self) -> None:
        """Write everything received so far to disk, because a checkpoint follows."""

    def saved(self) -> None:
        """Take note that the checkpoint is there: the run can go on from what is on the disk."""

    def drop_from(self, step: int) -> None:
        """Delete the rows of this step and of later ones, because they will be done again."""


class Coordinator:
    """Drives a farm through a training run.

    Parameters
    ----------
    setup : FarmSetup
        What the workers were built from.
    farm : Farm
        The workers.
    start : Checkpoint
        Where to begin: `repast_dist.farm.setup.beginning`, or a checkpoint of the run.
    recorder : Recorder
        Where records go.
    checkpoints : Path
        Folder of the run's checkpoints.
    mark : str
        Tells the run from others: only checkpoints with it are gone on from.
    """

    def __init__(
        self,
        setup: FarmSetup,
        farm: Farm,
        start: Checkpoint,
        recorder: Recorder,
        checkpoints: Path,
        mark: str = "",
    ) -> None:
        self._setup, self._farm, self._start = setup, farm, start
        self._job = job = setup.job
        self._recorder, self._checkpoints, self._mark = recorder, checkpoints, mark
        self._clipped: set[str] = set()
        self._failures, self._pace = _Failures(), _Pace()
        self._samples = samples = len(setup.data.train_inputs)
        self._epoch_steps = steps_per_epoch(samples, job.train)
        self._total_steps = total_steps(samples, job.train)
        self._done = Progress.of(start)

    def run(self, stop: Callable[[], bool] = lambda: False) -> bool:
        """Train to the end, recover from failures, and leave a checkpoint and complete records.

        Parameters
        ----------
        stop : callable
            When it says yes, the steps already asked for are finished, the run is checkpointed
            and ends early.

        Returns
        -------
        bool
            Whether all steps are done, or the target accuracy is reached.

        Raises
        ------
        FarmError
            Too many failures.
        InversionError, DataError
            What a chip found wrong; chip, layer, block and step are named.
        """
        state: State = Restoring(self._start)
        while not isinstance(state, Ended):
            try:
                state = self._after(state, stop)
            except WorkersLost as lost:
                state = Recovering(lost)
        return state.complete

    def _at_end(self, step: int) -> bool:
        """Return whether all steps are done or the target accuracy is reached."""
        return step >= self._total_steps or self._reached_target()

    def _reached_target(self) -> bool:
        target, epochs = self._job.train.target_accuracy, self._done.epochs
        return target is not None and bool(epochs) and epochs[-1].test_accuracy >= target

    def _after(self, state: Restoring | Working | Recovering, stop: Callable[[], bool]) -> State:
        """Do the work of a state and return the state that follows."""
        match state:
            case Restoring(checkpoint):
                self._restore(checkpoint)
                return Working()
            case Working():
                self._work(stop)
                return Ended(complete=self._at_end(self._done.step))
            case Recovering(lost):
                return Restoring(self._recover(lost))

    def _work(self, stop: Callable[[], bool]) -> None:
        """Ask for everything on the agenda, some calls ahead, and take the answers."""
        waiting: collections.deque[_Asked[Any]] = collections.deque()
        for asked in self._agenda(stop):
            waiting.append(asked)
            # What is asked for next may depend on these answers.
            while asked.decides and waiting:
                self._take(waiting.popleft())
            if len(waiting) > self._farm.ahead:
                self._take(waiting.popleft())
        while waiting:
            self._take(waiting.popleft())

    def _agenda(self, stop: Callable[[], bool]) -> Iterator[_Asked[Any]]:
        """Ask the workers for everything up to the end of the run, in order.

        Workers do what they are asked in that order. A checkpoint therefore holds the state after
        all steps that were asked for before it, and before all steps asked for after it.
        """
        every = self._job.farm.checkpoint_every
        step = saved = self._done.step
        if step == 0:
            yield self._ask(self._save, self._state_calls())
        while not self._at_end(step) and not stop():
            last = min((step // n + 1) * n for n in (every, self._epoch_steps))
            last = min(last, self._total_steps)
            calls = ceil_div(last - step, self._pace.steps_per_call)
            count = ceil_div(last - step, calls)
            answers = self._call_all(Worker.advance, step, count)
            yield self._ask(partial(self._record, step), answers)
            step += count
            if tested_after(step, self._samples, self._job.train):
                tested = self._ask(self._finish_epoch, self._test_calls())
                decides = self._job.train.target_accuracy is not None
                yield dataclasses.replace(tested, decides=decides)
            if step % every == 0:
                yield self._ask(self._save, self._state_calls())
                saved = step
        if step != saved:
            yield self._ask(self._save, self._state_calls())

    def _call_all[**Arguments, Result](
        self,
        method: Callable[Concatenate[Worker, Arguments], Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> list[Answer[Result]]:
        return [self._farm.call(w, method, *args, **kwargs) for w in self._farm.workers]

    def _ask[Result](
        self, use: Callable[[list[Result], float], None], answers: Sequence[Answer[Result]]
    ) -> _Asked[Result]:
        return _Asked(answers, use, time.perf_counter())

    def _take(self, asked: _Asked[Any]) -> None:
        """Wait for answers and use them."""
        answers = self._farm.get(asked.answers)
        asked.use(answers, self._pace.answered(asked.asked_at))

    # Checkpoints ------------------------------------------------------------------------

    def _state_calls(self) -> list[Answer[dict[str, np.ndarray]]]:
        first = next(iter(self._farm.workers))
        return [self._farm.call(first, Worker.common_state), *self._call_all(Worker.block_state)]

    def _save(self, states: list[dict[str, np.ndarray]], _wall_s: float) -> None:
        """Save everything needed to go on from the current step."""
        arrays = joined({name: value for part in states for name, value in part.items()})
        self._recorder.cut()
        keep = self._job.farm.checkpoint_keep
        state = {"run": self._mark, **self._done.plain()}
        save_checkpoint(self._checkpoints, self._done.step, arrays, state, keep)
        self._recorder.saved()

    def _restore(self, checkpoint: Checkpoint) -> None:
        """Put coordinator and workers into the state of a checkpoint."""
        self._done = Progress.of(checkpoint)
        arrays = self._farm.put(checkpoint.arrays)
        self._farm.get(self._call_all(Worker.restore, checkpoint.step, arrays))

    # Steps ------------------------------------------------------------------------------

    def _record(self, first: int, answers: list[WorkerAnswer], wall_s: float) -> None:
        """Record steps from the reports of all workers."""
        if len({answer.weights for answer in answers}) > 1:
            raise FarmError(
                f"step {first}: the workers no longer hold the same weights: their nodes round "
                "differently (other CPUs or libraries); valid: nodes of one kind, for example by "
                "farm.resources_per_worker"
            )
        rows, ends = align([part.costs for part in answers], first, self._done.clock_s)
        each_s = wall_s / len(ends)
        records: list[StepRecord] = []
        solves: list[SolveReport] = []
        for number, end_s in enumerate(ends):
            parts = [answer.steps[number] for answer in answers]
            loss, accuracy = self._outcome(o for part in parts for o in part.outcomes)
            records.append(
                StepRecord(
                    step=first + number,
                    loss=loss,
                    accuracy=accuracy,
                    time_s=end_s - self._done.clock_s,
                    wall_s=each_s,
                    computing_s=_computing_s([part.busy_s for part in parts]),
                    clip_rate=self._clipping(first + number, parts),
                    damping=parts[0].damping,
                )
            )
            solves += merged(report for part in parts for report in part.solves)
            self._done.clock_s = end_s
        self._recorder.steps(records, [rows], solves)
        self._note_divergence(solves)
        self._done.steps += records
        self._done.step = first + len(records)
        if self._farm.ahead:
            self._pace.adapt(each_s)
        self._publish(records[-1], solves)

    def _publish(self, last: StepRecord, solves: Sequence[SolveReport]) -> None:
        self._farm.publish(
            {
                "steps": last.step + 1,
                "loss": last.loss,
                "inversion_residual": max((report.residual for report in solves), default=0.0),
                "simulated_seconds_per_second": last.time_s / last.wall_s,
                "restarts": self._failures.recoveries,
            }
        )

    def _outcome(self, outcomes: Iterable[MicroBatchOutcome]) -> tuple[float, float]:
        """Return mean loss and accuracy of the batch, summed in micro-batch order."""
        loss = correct = 0.0
        for outcome in sorted(outcomes):
            loss += outcome.loss_sum
            correct += outcome.correct
        batch = self._job.train.batch_size
        return loss / batch, correct / batch

    def _clipping(self, step: int, parts: Sequence[StepReport]) -> float | None:
        """Return the share of ADC conversions that clipped; report it once where it is large."""
        sums: dict[str, ClipCount] = {}
        for counts in (counts for part in parts for counts in part.clipping):
            for what, count in counts.items():
                sums[what] = sums.get(what, ClipCount()).plus(count)
        for what, count in sorted(sums.items()):
            if count.excessive and what not in self._clipped:
                self._clipped.add(what)
                self._event(
                    step,
                    "clipping",
                    f"{what}: {count.rate:.1%} of the ADC conversions are beyond the calibrated "
                    f"range; {self._clips_less()}",
                )
        whole = functools.reduce(ClipCount.plus, sums.values(), ClipCount())
        return whole.rate if whole.conversions else None

    def _clips_less(self) -> str:
        """Return what makes fewer conversions clip."""
        adc = self._job.machine.hardware.chip.adc
        if adc.percentile < 100.0:
            return f"a higher chip.adc.percentile than {adc.percentile:g} clips less"
        return "chip.adc.range=full clips nothing, chip.adc.percentile is 100 already"

    def _event(self, step: int, kind: str, message: str) -> None:
        self._recorder.event(Event(step, kind, message))

    def _note_divergence(self, reports: Sequence[SolveReport]) -> None:
        for report in reports:
            if report.action != "none":
                self._event(
                    report.step,
                    "divergence",
                    f"block {report.block} (layer {report.layer}, factor {report.factor}, chip "
                    f"{report.chip}): {report.method} left a residual of {report.residual:.2e}, "
                    f"policy {report.action}",
                )

    def _test_calls(self) -> list[Answer[dict[int, Evaluation]]]:
        """Ask every worker to test its share of the test set's chunks."""
        workers = list(self._farm.workers)
        chunks = ceil_div(len(self._setup.data.test_inputs), _EVALUATION_CHUNK)
        return [
            self._farm.call(
                worker, Worker.evaluate, list(range(place, chunks, len(workers))), _EVALUATION_CHUNK
            )
            for place, worker in enumerate(workers)
        ]

    def _finish_epoch(self, answers: list[dict[int, Evaluation]], _wall_s: float) -> None:
        """Record an epoch and its test, whose chunks are summed in order."""
        chunks = {chunk: value for part in answers for chunk, value in part.items()}
        test = sum((chunks[chunk] for chunk in sorted(chunks)), Evaluation())
        step = self._done.step
        first = (step - 1) // self._epoch_steps * self._epoch_steps
        records = [record for record in self._done.steps if first <= record.step < step]
        record = EpochRecord(
            epoch=(step - 1) // self._epoch_steps + 1,
            step=step,
            train_loss=float(np.mean([record.loss for record in records])),
            train_accuracy=float(np.mean([record.accuracy for record in records])),
            test_loss=test.loss_sum / test.samples,
            test_accuracy=test.correct / test.samples,
            test_squared_error=test.squared_error / test.samples,
        )
        self._recorder.epoch(record)
        self._done.epochs.append(record)
        if self._reached_target():
            target = self._job.train.target_accuracy
            message = (
                f"epoch {record.epoch}: the test accuracy of {record.test_accuracy:.2%} "
                f"reaches train.target_accuracy={target:g}; training ends"
            )
            self._recorder.event(Event(step - 1, "target", message))

    # Failures ---------------------------------------------------------------------------

    def _recover(self, lost: WorkersLost) -> Checkpoint:
        """Start lost workers anew or retire them; return the checkpoint to go back to."""
        failures, spec = self._failures, self._job.farm
        failures.of_worker.update(lost.workers)
        alive = set(self._farm.workers) - set(lost.workers)
        decision = decide(lost.workers, alive, failures.of_worker, failures.recoveries, spec)
        if decision.stop:
            raise FarmError(f"step {self._done.step}: {lost}; giving up: {decision.stop}")
        failures.recoveries += 1
        logger.warning("step %d: %s", self._done.step, lost)
        self._event(
            self._done.step,
            "recovery",
            f"{lost}; started anew {list(decision.revive)}, retired {list(decision.retire)}",
        )
        if decision.retire:
            self._farm.retire(decision.retire)
            self._reassign()
        self._farm.revive(decision.revive)
        return self._roll_back()

    def _reassign(self) -> None:
        """Share out the work of retired workers among the remaining chips."""
        setup = self._setup
        self._setup = make_setup(self._job, setup.data, self._farm.workers, setup.network)
        self._farm.get(self._call_all(Worker.reassign, self._farm.put(self._setup)))

    def _roll_back(self) -> Checkpoint:
        # One of later steps is there where the run goes on from before it: its trace was lost.
        checkpoint, refused = latest_checkpoint(self._checkpoints, self._done.step, self._mark)
        for reason in refused:
            self._event(self._done.step, "checkpoint", f"refused: {reason}")
        if checkpoint is None and self._start.step == 0:
            # Lost before the first checkpoint.
            checkpoint = self._start
        if checkpoint is None:
            raise FarmError(f"{self._checkpoints}: no usable checkpoint to go back to")
        self._recorder.drop_from(checkpoint.step)
        return checkpoint


def _computing_s(busy: Sequence[Mapping[str, float]]) -> float:
    """Return the wall time of a step without calls and transfers, in seconds.

    Every part of the step takes as long as its slowest worker.
    """
    parts = {part for worker in busy for part in worker}
    return sum(max(worker.get(part, 0.0) for worker in busy) for part in parts)
