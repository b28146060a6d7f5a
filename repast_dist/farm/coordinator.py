"""One training run: has the workers do its steps, and keeps what they say about them.

The workers hold the weights, the optimizer's state, the factor averages and the prepared solvers,
and exchange what they need among themselves. The coordinator asks for steps, tests and
checkpoints in order and a little ahead, so that no worker waits for it, and records the answers as
they come. Whatever is lost with a worker comes back from the newest checkpoint, and the steps
since are done again: same addresses, same numbers.
"""

import collections
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from repast_dist.analog.arrays.vmm import CLIP_WARNING_RATE
from repast_dist.farm.block_state import SolveReport, merged
from repast_dist.farm.checkpoint import Checkpoint, latest_checkpoint, save_checkpoint
from repast_dist.farm.clock import align
from repast_dist.farm.failures import WorkersLost, decide
from repast_dist.farm.interface import Farm, Ref
from repast_dist.farm.sampling import steps_per_epoch, total_steps
from repast_dist.farm.setup import FarmSetup, make_setup
from repast_dist.ground.errors import FarmError
from repast_dist.training.step import Evaluation

logger = logging.getLogger(__name__)

_EVALUATION_CHUNK = 64
# Steps are asked for in calls of about this long, so that a call's own cost does not count.
_CALL_S = 1.0
_MOST_STEPS_PER_CALL = 16


@dataclasses.dataclass
class Progress:
    """Where a run is, beside the arrays that its workers hold.

    Attributes
    ----------
    step : int
        First step not recorded yet.
    clock_s : float
        Simulated time so far.
    epochs, steps : list of dict
        Records of finished epochs and steps.
    """

    step: int
    clock_s: float
    epochs: list[dict[str, Any]]
    steps: list[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class _Asked:
    """Something all workers were asked for, and what to do with their answers."""

    answers: list[Ref]
    use: Callable[[list[Any], float], None]
    asked_at: float


class Recorder(Protocol):
    """Where a run's records go; the coordinator calls it as things happen."""

    def steps(
        self,
        records: Sequence[dict[str, Any]],
        rows: Sequence[pa.RecordBatch],
        solves: Sequence[SolveReport],
    ) -> None:
        """Take some steps' records, trace rows per chip, and solve reports."""

    def epoch(self, record: dict[str, Any]) -> None:
        """Take one epoch's record."""

    def event(self, step: int, kind: str, message: str) -> None:
        """Take something that should be known afterwards."""

    def cut(self) -> None:
        """Make everything up to here durable; a checkpoint follows."""

    def drop_from(self, step: int) -> None:
        """Forget this step and later ones; they will be done again."""


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
    """

    def __init__(
        self,
        setup: FarmSetup,
        farm: Farm,
        start: Checkpoint,
        recorder: Recorder,
        checkpoints: Path,
    ) -> None:
        self._setup, self._farm, self._start = setup, farm, start
        self._job = job = setup.job
        self._recorder, self._checkpoints = recorder, checkpoints
        self._clipped: set[str] = set()
        self._failures: dict[int, int] = {}
        self._recoveries = 0
        samples = len(setup.data.train_inputs)
        self._epoch_steps = steps_per_epoch(samples, job.train)
        self._total_steps = total_steps(samples, job.train)
        self._done = _progress_of(start)
        self._call_steps = 1
        self._answered_at = 0.0

    def run(self, stop: Callable[[], bool] = lambda: False) -> bool:
        """Train to the end, through failures; leaves a checkpoint and complete records.

        Parameters
        ----------
        stop : callable
            When it says yes, the steps already asked for are finished, the run is checkpointed
            and ends early.

        Returns
        -------
        bool
            Whether all steps are done.

        Raises
        ------
        FarmError
            Too many failures.
        InversionError, DataError
            What a chip found wrong; chip, layer, block and step are named.
        """
        self._guarded(lambda: self._restore(self._start))
        while not self._guarded(lambda: self._work(stop)):
            pass
        return self._done.step >= self._total_steps

    def _guarded(self, action: Callable[[], None]) -> bool:
        """Do something that needs all workers; go back to a checkpoint if some are lost.

        Returns
        -------
        bool
            Whether it is done.
        """
        try:
            action()
        except WorkersLost as lost:
            self._recover(lost)
            return False
        return True

    def _work(self, stop: Callable[[], bool]) -> None:
        """Have everything on the agenda done, asking ahead."""
        waiting: collections.deque[_Asked] = collections.deque()
        for asked in self._agenda(stop):
            waiting.append(asked)
            if len(waiting) > self._farm.ahead:
                self._take(waiting.popleft())
        while waiting:
            self._take(waiting.popleft())

    def _agenda(self, stop: Callable[[], bool]) -> Iterator[_Asked]:
        """Ask the workers for everything up to the end of the run, in order.

        Workers do what they are asked in that order, so a checkpoint holds what all steps asked for
        before it made of them, and none that is asked for after it.
        """
        every = self._job.farm.checkpoint_every
        step = saved = self._done.step
        if step == 0:
            yield self._ask(self._save, self._state_calls())
        while step < self._total_steps and not stop():
            last = min((step // n + 1) * n for n in (every, self._epoch_steps))
            last = min(last, self._total_steps)
            calls = -(-(last - step) // self._call_steps)
            count = -(-(last - step) // calls)
            yield self._ask(partial(self._record, step), self._call_all("advance", step, count))
            step += count
            if step % self._epoch_steps == 0 or step == self._total_steps:
                yield self._ask(self._finish_epoch, self._test_calls())
            if step % every == 0:
                yield self._ask(self._save, self._state_calls())
                saved = step
        if step != saved:
            yield self._ask(self._save, self._state_calls())

    def _call_all(self, method: str, *args: Any) -> list[Ref]:
        return [self._farm.call(worker, method, *args) for worker in self._farm.workers]

    def _ask(self, use: Callable[[list[Any], float], None], answers: list[Ref]) -> _Asked:
        return _Asked(answers, use, time.perf_counter())

    def _take(self, asked: _Asked) -> None:
        """Wait for answers and use them."""
        answers = self._farm.get(asked.answers)
        now = time.perf_counter()
        wall_s = now - max(asked.asked_at, self._answered_at)
        self._answered_at = now
        asked.use(answers, wall_s)

    # Checkpoints ------------------------------------------------------------------------

    def _state_calls(self) -> list[Ref]:
        first = next(iter(self._farm.workers))
        return [self._farm.call(first, "common_state"), *self._call_all("block_state")]

    def _save(self, states: list[dict[str, np.ndarray]], _wall_s: float) -> None:
        """Save everything needed to go on from the current step."""
        arrays = {name: value for part in states for name, value in part.items()}
        self._recorder.cut()
        records = dataclasses.asdict(self._done)
        step, keep = records.pop("step"), self._job.farm.checkpoint_keep
        save_checkpoint(self._checkpoints, step, arrays, records, keep)

    def _restore(self, checkpoint: Checkpoint) -> None:
        """Put coordinator and workers into the state of a checkpoint."""
        self._done = _progress_of(checkpoint)
        arrays = self._farm.put(checkpoint.arrays)
        self._farm.get(self._call_all("restore", checkpoint.step, arrays))

    # Steps ------------------------------------------------------------------------------

    def _record(self, first: int, answers: list[dict[str, Any]], wall_s: float) -> None:
        """Record steps from what each worker says about them."""
        if len({answer["weights"] for answer in answers}) > 1:
            raise FarmError(
                f"step {first}: the workers no longer hold the same weights: their nodes round "
                "differently (other CPUs or libraries); valid: nodes of one kind, for example by "
                "farm.resources_per_worker"
            )
        chips = {chip: cost for part in answers for chip, cost in part["chips"].items()}
        rows, ends = align(chips, first, self._done.clock_s)
        each_s = wall_s / len(ends)
        records: list[dict[str, Any]] = []
        reports: list[SolveReport] = []
        for number, end_s in enumerate(ends):
            parts = [answer["steps"][number] for answer in answers]
            loss, accuracy = self._outcome([item for part in parts for item in part["outcomes"]])
            records.append(
                {
                    "step": first + number,
                    "loss": loss,
                    "accuracy": accuracy,
                    "time_s": end_s - self._done.clock_s,
                    "wall_s": each_s,
                    "computing_s": _computing_s([part["busy_s"] for part in parts]),
                    **self._clipping(first + number, [part["clipping"] for part in parts]),
                }
            )
            reports += merged(report for part in parts for report in part["reports"])
            self._done.clock_s = end_s
        self._recorder.steps(records, rows, reports)
        self._note_divergence(reports)
        self._done.steps += records
        self._done.step = first + len(records)
        if self._farm.ahead:
            self._call_steps = min(max(int(_CALL_S / each_s), 1), _MOST_STEPS_PER_CALL)
        self._publish(records, reports)

    def _publish(
        self, records: Sequence[Mapping[str, float]], reports: Sequence[SolveReport]
    ) -> None:
        last = records[-1]
        self._farm.publish(
            {
                "steps": last["step"] + 1,
                "loss": last["loss"],
                "inversion_residual": max((report.residual for report in reports), default=0.0),
                "simulated_seconds_per_second": last["time_s"] / last["wall_s"],
                "restarts": self._recoveries,
            }
        )

    def _outcome(self, results: Sequence[tuple[int, float, int]]) -> tuple[float, float]:
        """Return mean loss and accuracy of the batch, summed in micro-batch order."""
        loss = correct = 0.0
        for _, loss_sum, hits in sorted(results):
            loss += loss_sum
            correct += hits
        batch = self._job.train.batch_size
        return loss / batch, correct / batch

    def _clipping(
        self, step: int, counted: Sequence[Sequence[Mapping[str, tuple[int, int]]]]
    ) -> dict[str, float]:
        """Return the share of ADC conversions that clipped; say so once where it is large."""
        sums: dict[str, list[int]] = {}
        for counts in (counts for worker in counted for counts in worker):
            for what, pair in counts.items():
                held = sums.setdefault(what, [0, 0])
                held[0] += pair[0]
                held[1] += pair[1]
        for what, (clipped, conversions) in sorted(sums.items()):
            rate = clipped / max(conversions, 1)
            if rate > CLIP_WARNING_RATE and what not in self._clipped:
                self._clipped.add(what)
                self._recorder.event(
                    step,
                    "clipping",
                    f"{what}: {rate:.1%} of the ADC conversions are beyond the calibrated range; "
                    "a higher chip.adc.percentile clips less",
                )
        clipped, conversions = (sum(pair[i] for pair in sums.values()) for i in (0, 1))
        return {"clip_rate": clipped / conversions} if conversions else {}

    def _note_divergence(self, reports: Sequence[SolveReport]) -> None:
        for report in reports:
            if report.action != "none":
                self._recorder.event(
                    report.step,
                    "divergence",
                    f"block {report.block} (layer {report.layer}, factor {report.factor}, chip "
                    f"{report.chip}): {report.method} left a residual of {report.residual:.2e}, "
                    f"policy {report.action}",
                )

    def _test_calls(self) -> list[Ref]:
        """Ask all workers for a share of the test set's chunks."""
        workers = list(self._farm.workers)
        chunks = -(-len(self._setup.data.test_inputs) // _EVALUATION_CHUNK)
        return [
            self._farm.call(
                worker, "evaluate", list(range(place, chunks, len(workers))), _EVALUATION_CHUNK
            )
            for place, worker in enumerate(workers)
        ]

    def _finish_epoch(self, answers: list[dict[int, Evaluation]], _wall_s: float) -> None:
        """Record an epoch; chunks of the test are summed in order."""
        chunks = {chunk: value for part in answers for chunk, value in part.items()}
        test = sum((chunks[chunk] for chunk in sorted(chunks)), Evaluation())
        step = self._done.step
        first = (step - 1) // self._epoch_steps * self._epoch_steps
        records = [record for record in self._done.steps if first <= record["step"] < step]
        record = {
            "epoch": (step - 1) // self._epoch_steps + 1,
            "step": step,
            "train_loss": float(np.mean([record["loss"] for record in records])),
            "train_accuracy": float(np.mean([record["accuracy"] for record in records])),
            "test_loss": test.loss_sum / test.samples,
            "test_accuracy": test.correct / test.samples,
            "test_squared_error": test.squared_error / test.samples,
        }
        self._recorder.epoch(record)
        self._done.epochs.append(record)

    # Failures ---------------------------------------------------------------------------

    def _recover(self, lost: WorkersLost) -> None:
        """Bring lost workers back (or leave them out) and go back to the newest checkpoint."""
        while True:
            for worker in lost.workers:
                self._failures[worker] = self._failures.get(worker, 0) + 1
            alive = set(self._farm.workers) - set(lost.workers)
            spec = self._job.farm
            decision = decide(lost.workers, alive, self._failures, self._recoveries, spec)
            if decision.stop:
                raise FarmError(f"step {self._done.step}: {lost}; giving up: {decision.stop}")
            self._recoveries += 1
            logger.warning("step %d: %s", self._done.step, lost)
            self._recorder.event(
                self._done.step,
                "recovery",
                f"workers {list(lost.workers)} lost ({lost.reason}); "
                f"started anew {list(decision.revive)}, retired {list(decision.retire)}",
            )
            try:
                if decision.retire:
                    self._farm.retire(decision.retire)
                    self._reassign()
                self._farm.revive(decision.revive)
                self._roll_back()
                return
            except WorkersLost as again:
                lost = again

    def _reassign(self) -> None:
        """Spread the work of retired workers' chips over the chips that are left."""
        self._setup = make_setup(self._job, self._setup.data, self._farm.workers)
        setup = self._farm.put(self._setup)
        self._farm.get(self._call_all("reassign", setup))

    def _roll_back(self) -> None:
        checkpoint, refused = latest_checkpoint(self._checkpoints)
        for reason in refused:
            self._recorder.event(self._done.step, "checkpoint", f"refused: {reason}")
        if checkpoint is None and self._start.step == 0:
            # Lost before the first checkpoint.
            checkpoint = self._start
        if checkpoint is None:
            raise FarmError(f"{self._checkpoints}: no usable checkpoint to go back to")
        self._recorder.drop_from(checkpoint.step)
        self._restore(checkpoint)


def _computing_s(busy: Sequence[Mapping[str, float]]) -> float:
    """Return the wall time a step would take if calls and transfers took none: each part of it
    as long as on its slowest worker.
    """
    parts = {part for worker in busy for part in worker}
    return sum(max(worker.get(part, 0.0) for worker in busy) for part in parts)


def _progress_of(checkpoint: Checkpoint) -> Progress:
    state = checkpoint.state
    return Progress(checkpoint.step, state["clock_s"], list(state["epochs"]), list(state["steps"]))
