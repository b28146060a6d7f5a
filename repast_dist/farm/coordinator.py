"""One training run: asks the hosts for their parts of each step and applies the update.

The coordinator holds the weights, the optimizer's state and the current step; factor averages and
prepared solvers live with the chips that own the SOI blocks. Whatever is lost with an actor comes
back from the newest checkpoint, and the steps since are done again: same addresses, same numbers.
"""

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from repast_dist.analog.vmm import CLIP_WARNING_RATE
from repast_dist.errors import DataError, FarmError
from repast_dist.farm.alignment import align
from repast_dist.farm.checkpoint import Checkpoint, latest_checkpoint, save_checkpoint
from repast_dist.farm.failures import HostsLost, decide
from repast_dist.farm.job import HostSetup, make_setup
from repast_dist.farm.keeper import SolveReport, merged
from repast_dist.farm.protocol import Farm, Ref
from repast_dist.farm.sampling import steps_per_epoch, total_steps
from repast_dist.training.kfac import damping_split
from repast_dist.training.model import build_model
from repast_dist.training.optimizers import apply_update
from repast_dist.training.step import Evaluation

logger = logging.getLogger(__name__)

_EVALUATION_CHUNK = 64


@dataclasses.dataclass
class TrainingState:
    """What the coordinator carries from step to step.

    Attributes
    ----------
    step : int
        First step not done yet.
    weights : dict
        Layer -> (in[+1], out) float64.
    optimizer : dict
        Name -> array; see `repast_dist.training.optimizers`.
    clock_s : float
        Simulated time so far.
    epochs, steps : list of dict
        Records of finished epochs and steps.
    """

    step: int
    weights: dict[str, np.ndarray]
    optimizer: dict[str, np.ndarray]
    clock_s: float = 0.0
    epochs: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    steps: list[dict[str, Any]] = dataclasses.field(default_factory=list)


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
    state : TrainingState
        Where to begin: step 0, or what `restore` made of a checkpoint.
    recorder : Recorder
        Where records go.
    checkpoints : Path
        Folder of the run's checkpoints.
    """

    def __init__(
        self,
        setup: HostSetup,
        farm: Farm,
        state: TrainingState,
        recorder: Recorder,
        checkpoints: Path,
    ) -> None:
        self._setup, self._farm = setup, farm
        self._job = job = setup.job
        self._recorder, self._checkpoints = recorder, checkpoints
        self._clipped: set[str] = set()
        self.state = state
        self._failures: dict[int, int] = {}
        self._recoveries = 0
        samples = len(setup.data.train_inputs)
        self._epoch_steps = steps_per_epoch(samples, job.train)
        self._total_steps = total_steps(samples, job.train)
        self._second_order = job.second_order
        model = build_model(job.model)
        self._biased = frozenset(p.name for p in model.parameters if p.bias)

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self._total_steps

    def run(self, stop: Callable[[], bool] = lambda: False) -> bool:
        """Train to the end, through failures; leaves a checkpoint and complete records.

        Parameters
        ----------
        stop : callable
            Asked between steps; when it says yes, the run is checkpointed and ends early.

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
        if self.state.step == 0:
            self._guarded(self.checkpoint)
        while self.state.step < self._total_steps and not stop():
            self._guarded(self._advance)
        self._guarded(self.checkpoint)
        return self.state.step >= self._total_steps

    def _guarded(self, action: Callable[[], None]) -> None:
        """Do something that needs all hosts; go back to a checkpoint if some are lost."""
        try:
            action()
        except HostsLost as lost:
            self._recover(lost)

    def _advance(self) -> None:
        self._train_step()
        if self.state.step % self._epoch_steps == 0 or self.state.step == self._total_steps:
            self._finish_epoch()
        if self.state.step % self._job.farm.checkpoint_every == 0:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Save everything needed to go on from the current step."""
        hosts = self._farm.hosts
        states = self._farm.get([self._farm.call(host, "state")[0] for host in hosts])
        arrays = {f"weights/{name}": value for name, value in self.state.weights.items()}
        arrays |= {f"optimizer/{name}": value for name, value in self.state.optimizer.items()}
        for part in states:
            for block, values in part.items():
                arrays |= {f"block/{block}/{name}": value for name, value in values.items()}
        records = {name: getattr(self.state, name) for name in ("clock_s", "epochs", "steps")}
        self._recorder.cut()
        keep = self._job.farm.checkpoint_keep
        save_checkpoint(self._checkpoints, self.state.step, arrays, records, keep)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Put coordinator and hosts into the state of a checkpoint."""
        self.state = state_of(checkpoint)
        blocks: dict[int, dict[str, np.ndarray]] = {}
        for name, value in checkpoint.arrays.items():
            kind, _, rest = name.partition("/")
            if kind == "block":
                number, _, what = rest.partition("/")
                blocks.setdefault(int(number), {})[what] = value
        shared = self._farm.put(blocks)
        self._farm.get([self._farm.call(h, "restore", shared)[0] for h in self._farm.hosts])

    # One step ---------------------------------------------------------------------------

    def _train_step(self) -> None:
        started = time.perf_counter()
        step, hosts = self.state.step, list(self._farm.hosts)
        soi = self._job.soi
        factors_due = self._second_order and soi.factors_due(step)
        programs = self._second_order and soi.inverses_due(step)
        weights = self._farm.put(self.state.weights)

        trained = {
            host: self._farm.call(host, "train", step, weights, factors_due, returns=1 + len(hosts))
            for host in hosts
        }
        reduced = self._exchange(hosts, "reduce", step, trained)
        columns: dict[int, list[Ref]] = {}
        if self._second_order:
            damping = self._damping(self._farm.get(reduced)) if programs else None
            columns = {
                host: self._farm.call(host, "solve_columns", step, damping, returns=1 + len(hosts))
                for host in hosts
            }
        finished = self._exchange(hosts, "finish", step, columns, factors_due, programs)

        outcomes = self._farm.get([trained[host][0] for host in hosts])
        loss, accuracy = self._outcome(step, [item for part in outcomes for item in part])
        sums, answers = self._farm.get(reduced), self._farm.get(finished)
        updating = time.perf_counter()
        gradients = self._assemble_gradients(sums)
        new_weights, optimizer = self._update(step, gradients, answers)
        driver_s = time.perf_counter() - updating

        chips = {chip: cost for part in answers for chip, cost in part["chips"].items()}
        rows, clock_s = align(chips, self.state.clock_s)
        wall_s = time.perf_counter() - started
        record = {
            "step": step,
            "loss": loss,
            "accuracy": accuracy,
            "time_s": clock_s - self.state.clock_s,
            "wall_s": wall_s,
            "computing_s": _computing_s([part["busy_s"] for part in answers]) + driver_s,
            **self._clipping(step, answers),
        }
        reports = merged(report for part in answers for report in part["reports"])
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
        self.state.steps.append(record)
        self.state = dataclasses.replace(
            self.state,
            step=step + 1,
            weights=new_weights,
            optimizer=optimizer,
            clock_s=clock_s,
        )

    def _exchange(
        self,
        hosts: Sequence[int],
        method: str,
        step: int,
        sent: Mapping[int, list[Ref]],
        *options: Any,
    ) -> list[Ref]:
        """Call a method on every host with what the others sent it; values go host to host."""
        calls = []
        for place, host in enumerate(hosts):
            parts = [refs[1 + place] for source, refs in sent.items() if source != host]
            calls += self._farm.call(host, method, step, *options, *parts)
        return calls

    def _damping(self, reduced: Sequence[dict[str, Any]]) -> dict[int, float]:
        """Return the damping of every block; pi weighs the factors of a layer by their traces."""
        traces = {block: value for part in reduced for block, value in part["traces"].items()}
        sums: dict[tuple[int, str], list[float]] = {}
        for block in self._setup.plan.blocks:
            entry = sums.setdefault((block.layer, block.factor), [0.0, 0.0])
            entry[0] += traces[block.index]
            entry[1] += block.size
        damping = {}
        for block in self._setup.plan.blocks:
            (trace_a, size_a), (trace_g, size_g) = (sums[block.layer, f] for f in ("A", "G"))
            for_a, for_g = damping_split(
                self._job.optimizer.damping_form,
                self._job.optimizer.damping,
                trace_a,
                int(size_a),
                trace_g,
                int(size_g),
            )
            damping[block.index] = for_a if block.factor == "A" else for_g
        return damping

    def _outcome(self, step: int, results: Sequence[tuple[int, float, int]]) -> tuple[float, float]:
        """Return mean loss and accuracy of the batch, summed in micro-batch order."""
        loss = correct = 0.0
        for micro_batch, loss_sum, hits in sorted(results):
            if not np.isfinite(loss_sum):
                raise DataError(
                    f"chip {self._setup.micro_batch_owner(micro_batch)}, step {step}: the "
                    f"loss of micro-batch {micro_batch} is not finite (weights or data diverged; "
                    "a smaller optimizer.learning_rate or more optimizer.damping may help)"
                )
            loss += loss_sum
            correct += hits
        batch = self._job.train.batch_size
        return loss / batch, correct / batch

    def _assemble_gradients(self, reduced: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
        gradients = {name: np.empty(value.shape) for name, value in self.state.weights.items()}
        for part in reduced:
            for (layer, top, bottom, left, right), value in part["gradients"].items():
                gradients[layer][top:bottom, left:right] = value
        return gradients

    def _assemble_directions(self, answers: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
        """Return the preconditioned gradients of the layers that have SOI blocks."""
        directions: dict[str, np.ndarray] = {}
        for part in answers:
            for (layer, top, bottom, left, right), value in part["directions"].items():
                shape = self.state.weights[layer].shape
                held = directions.setdefault(layer, np.empty(shape))
                held[top:bottom, left:right] = value
        return dict(sorted(directions.items()))

    def _update(
        self, step: int, gradients: dict[str, np.ndarray], answers: Sequence[dict[str, Any]]
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Return the new weights and optimizer state.

        Raises
        ------
        DataError
            A layer's weights are no longer finite.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            weights, optimizer = apply_update(
                self._job.optimizer,
                self.state.weights,
                gradients,
                self._assemble_directions(answers),
                self.state.optimizer,
                step,
                self._total_steps,
                self._biased,
            )
        for name, value in weights.items():
            if not np.isfinite(value).all():
                raise DataError(
                    f"step {step}, layer {name}: the update is not finite, training diverged; a "
                    "smaller optimizer.learning_rate or more optimizer.damping may help"
                )
        return weights, optimizer

    def _clipping(self, step: int, answers: Sequence[dict[str, Any]]) -> dict[str, float]:
        """Return the share of ADC conversions that clipped; say so once where it is large."""
        sums: dict[str, list[int]] = {}
        for counts in (counts for part in answers for counts in part["clipping"]):
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
        step = self.state.step
        first = (step - 1) // self._epoch_steps * self._epoch_steps
        records = [record for record in self.state.steps if first <= record["step"] < step]
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
        self.state.epochs.append(record)

    def _evaluate(self) -> Evaluation:
        """Test on all hosts; chunks are summed in order."""
        hosts = list(self._farm.hosts)
        samples = len(self._setup.data.test_inputs)
        chunks = -(-samples // _EVALUATION_CHUNK)
        weights = self._farm.put(self.state.weights)
        calls = [
            self._farm.call(
                host,
                "evaluate",
                self.state.step,
                weights,
                list(range(place, chunks, len(hosts))),
                _EVALUATION_CHUNK,
            )[0]
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
                raise FarmError(f"step {self.state.step}: {lost}; giving up: {decision.stop}")
            self._recoveries += 1
            logger.warning("step %d: %s", self.state.step, lost)
            self._recorder.event(
                self.state.step,
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
        self._farm.get([self._farm.call(h, "reassign", setup)[0] for h in self._farm.hosts])

    def _roll_back(self) -> None:
        checkpoint, refused = latest_checkpoint(self._checkpoints)
        for reason in refused:
            self._recorder.event(self.state.step, "checkpoint", f"refused: {reason}")
        if checkpoint is None and self.state.step == 0:
            checkpoint = self._beginning()
        if checkpoint is None:
            raise FarmError(f"{self._checkpoints}: no usable checkpoint to go back to")
        self._recorder.drop_from(checkpoint.step)
        self.restore(checkpoint)

    def _beginning(self) -> Checkpoint:
        """Return the state before the first step, for actors lost before the first checkpoint."""
        weights = {f"weights/{name}": value for name, value in self.state.weights.items()}
        other = {f"optimizer/{name}": value for name, value in self.state.optimizer.items()}
        return Checkpoint(0, weights | other, {"clock_s": 0.0, "epochs": [], "steps": []})


def _computing_s(busy: Sequence[Mapping[str, float]]) -> float:
    """Return the wall time a step would take if calls and transfers took none: each part of it
    as long as on its slowest host.
    """
    parts = {part for host in busy for part in host}
    return sum(max(host.get(part, 0.0) for host in busy) for part in parts)


def state_of(checkpoint: Checkpoint) -> TrainingState:
    """Return the coordinator's part of a checkpoint."""

    def arrays(kind: str) -> dict[str, np.ndarray]:
        prefix = f"{kind}/"
        return {
            name.removeprefix(prefix): value
            for name, value in checkpoint.arrays.items()
            if name.startswith(prefix)
        }

    return TrainingState(
        step=checkpoint.step,
        weights=arrays("weights"),
        optimizer=arrays("optimizer"),
        clock_s=checkpoint.state["clock_s"],
        epochs=checkpoint.state["epochs"],
        steps=checkpoint.state["steps"],
    )
