"""One training run: has the hosts do its steps, and keeps what they say about them.

The hosts hold the weights, the optimizer's state, the factor averages and the prepared solvers,
and exchange what they need among themselves. The coordinator asks for steps a little ahead, so
that no host waits for it, records them, and takes checkpoints. Whatever is lost with an actor
comes back from the newest checkpoint, and the steps since are done again: same addresses, same
numbers.
"""

import collections
import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from repast_dist.analog.vmm import CLIP_WARNING_RATE
from repast_dist.errors import FarmError
from repast_dist.farm.alignment import align
from repast_dist.farm.checkpoint import Checkpoint, latest_checkpoint, save_checkpoint
from repast_dist.farm.failures import HostsLost, decide
from repast_dist.farm.job import HostSetup, make_setup
from repast_dist.farm.keeper import SolveReport, merged
from repast_dist.farm.protocol import Farm, Ref
from repast_dist.farm.sampling import steps_per_epoch, total_steps
from repast_dist.training.step import Evaluation

logger = logging.getLogger(__name__)

_EVALUATION_CHUNK = 64
# Steps are asked for in calls of about this long, so that a call's own cost does not count.
_CALL_S = 0.25
_MOST_STEPS_PER_CALL = 8
_CALLS_AHEAD = 2


@dataclasses.dataclass
class Progress:
    """Where a run is, beside the arrays that its hosts hold.

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
class _Call:
    """Steps that the hosts were asked for, and their answers."""

    first: int
    count: int
    answers: list[Ref]
    asked_at: float


class Recorder(Protocol):
    """Where a run's records go; the coordinator calls it as things happen."""

    def step(
        self, record: dict[str, Any], rows: Sequence[pa.RecordBatch], solves: Sequence[SolveReport]
    ) -> None:
        """Take one step's record, trace rows and solve reports."""

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
    setup : HostSetup
        What the hosts were built from.
    farm : Farm
        The hosts.
    start : Checkpoint
        Where to begin: `repast_dist.farm.job.beginning`, or a checkpoint of the run.
    recorder : Recorder
        Where records go.
    checkpoints : Path
        Folder of the run's checkpoints.
    """

    def __init__(
        self,
        setup: HostSetup,
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
            Asked between calls; when it says yes, the steps already asked for are finished, the
            run is checkpointed and ends early.

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
        if self._done.step == 0:
            self._guarded(self._checkpoint)
        while self._done.step < self._total_steps and not stop():
            self._guarded(lambda: self._advance(stop))
        self._guarded(self._checkpoint)
        return self._done.step >= self._total_steps

    def _guarded(self, action: Callable[[], None]) -> None:
        """Do something that needs all hosts; go back to a checkpoint if some are lost."""
        try:
            action()
        except HostsLost as lost:
            self._recover(lost)

    def _advance(self, stop: Callable[[], bool]) -> None:
        """Do the steps up to the next one after which all hosts are needed for something else."""
        every = self._job.farm.checkpoint_every
        step = self._done.step
        ends = [(step // every + 1) * every, (step // self._epoch_steps + 1) * self._epoch_steps]
        last = min(*ends, self._total_steps)
        calls: collections.deque[_Call] = collections.deque()
        while step < last or calls:
            while step < last and len(calls) < _CALLS_AHEAD and not (calls and stop()):
                calls.append(self._ask(step, min(self._call_steps, last - step)))
                step += calls[-1].count
            self._take(calls.popleft())
            if stop():
                last = step
        if self._done.step % self._epoch_steps == 0 or self._done.step == self._total_steps:
            self._finish_epoch()
        if self._done.step % every == 0:
            self._checkpoint()

    def _checkpoint(self) -> None:
        """Save everything needed to go on from the current step."""
        hosts = list(self._farm.hosts)
        calls = [self._farm.call(host, "block_state") for host in hosts]
        arrays: dict[str, np.ndarray] = {}
        for part in self._farm.get([self._farm.call(hosts[0], "common_state"), *calls]):
            arrays |= part
        self._recorder.cut()
        records = dataclasses.asdict(self._done)
        step, keep = records.pop("step"), self._job.farm.checkpoint_keep
        save_checkpoint(self._checkpoints, step, arrays, records, keep)

    def _restore(self, checkpoint: Checkpoint) -> None:
        """Put coordinator and hosts into the state of a checkpoint."""
        self._done = _progress_of(checkpoint)
        arrays = self._farm.put(checkpoint.arrays)
        hosts = self._farm.hosts
        self._farm.get([self._farm.call(h, "restore", checkpoint.step, arrays) for h in hosts])

    # One step ---------------------------------------------------------------------------

    def _ask(self, first: int, count: int) -> _Call:
        calls = [self._farm.call(host, "advance", first, count) for host in self._farm.hosts]
        return _Call(first, count, calls, time.perf_counter())

    def _take(self, call: _Call) -> None:
        """Wait for the steps of a call and record them."""
        answers = self._farm.get(call.answers)
        now = time.perf_counter()
        wall_s = (now - max(call.asked_at, self._answered_at)) / call.count
        self._answered_at = now
        self._call_steps = min(max(int(_CALL_S / wall_s), 1), _MOST_STEPS_PER_CALL)
        for number, parts in enumerate(zip(*answers, strict=True)):
            self._record(call.first + number, parts, wall_s)

    def _record(self, step: int, parts: Sequence[dict[str, Any]], wall_s: float) -> None:
        """Record a step from what each host says about it."""
        loss, accuracy = self._outcome([item for part in parts for item in part["outcomes"]])
        chips = {chip: cost for part in parts for chip, cost in part["chips"].items()}
        rows, clock_s = align(chips, self._done.clock_s)
        record = {
            "step": step,
            "loss": loss,
            "accuracy": accuracy,
            "time_s": clock_s - self._done.clock_s,
            "wall_s": wall_s,
            "computing_s": _computing_s([part["busy_s"] for part in parts]),
            **self._clipping(step, [part["clipping"] for part in parts]),
        }
        reports = merged(report for part in parts for report in part["reports"])
        self._recorder.step(record, rows, reports)
        self._note_divergence(reports)
        self._farm.publish(
            {
                "steps": step + 1,
                "loss": loss,
                "inversion_residual": max((report.residual for report in reports), default=0.0),
                "simulated_seconds_per_second": record["time_s"] / wall_s,
                "restarts": self._recoveries,
            }
        )
        self._done.steps.append(record)
        self._done.step, self._done.clock_s = step + 1, clock_s

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
        for counts in (counts for host in counted for counts in host):
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

    def _finish_epoch(self) -> None:
        step = self._done.step
        first = (step - 1) // self._epoch_steps * self._epoch_steps
        records = [record for record in self._done.steps if first <= record["step"] < step]
        test = self._evaluate()
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

    def _evaluate(self) -> Evaluation:
        """Test on all hosts; chunks are summed in order."""
        hosts = list(self._farm.hosts)
        chunks = -(-len(self._setup.data.test_inputs) // _EVALUATION_CHUNK)
        calls = [
            self._farm.call(
                host, "evaluate", list(range(place, chunks, len(hosts))), _EVALUATION_CHUNK
            )
            for place, host in enumerate(hosts)
        ]
        parts = {chunk: value for part in self._farm.get(calls) for chunk, value in part.items()}
        return sum((parts[chunk] for chunk in sorted(parts)), Evaluation())

    # Failures ---------------------------------------------------------------------------

    def _recover(self, lost: HostsLost) -> None:
        """Bring lost hosts back (or leave them out) and go back to the newest checkpoint."""
        while True:
            for host in lost.hosts:
                self._failures[host] = self._failures.get(host, 0) + 1
            alive = set(self._farm.hosts) - set(lost.hosts)
            spec = self._job.farm
            decision = decide(lost.hosts, alive, self._failures, self._recoveries, spec)
            if decision.stop:
                raise FarmError(f"step {self._done.step}: {lost}; giving up: {decision.stop}")
            self._recoveries += 1
            logger.warning("step %d: %s", self._done.step, lost)
            self._recorder.event(
                self._done.step,
                "recovery",
                f"actors {list(lost.hosts)} lost ({lost.reason}); "
                f"started anew {list(decision.revive)}, retired {list(decision.retire)}",
            )
            try:
                if decision.retire:
                    self._farm.retire(decision.retire)
                    self._reassign()
                self._farm.revive(decision.revive)
                self._roll_back()
                return
            except HostsLost as again:
                lost = again

    def _reassign(self) -> None:
        """Spread the work of retired hosts' chips over the chips that are left."""
        self._setup = make_setup(self._job, self._setup.data, self._farm.hosts)
        setup = self._farm.put(self._setup)
        self._farm.get([self._farm.call(h, "reassign", setup) for h in self._farm.hosts])

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
    as long as on its slowest host.
    """
    parts = {part for host in busy for part in host}
    return sum(max(host.get(part, 0.0) for host in busy) for part in parts)


def _progress_of(checkpoint: Checkpoint) -> Progress:
    state = checkpoint.state
    return Progress(checkpoint.step, state["clock_s"], list(state["epochs"]), list(state["steps"]))
