"""Calls of a module on the farm: a whole micro-batch, or a micro-batch in one of its parts.

Parts of a module are held by chips one after the other. A part is the module itself, of which a
call computes some operations; each micro-batch that is on its way keeps buffers of its own.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from repast_dist.ground.errors import DataError, RepastError
from repast_dist.ground.global_streams import kept
from repast_dist.ground.user_code import described
from repast_dist.network.node import Trainable
from repast_dist.network.shapes import Workload
from repast_dist.torch.cuts import Cut, Operations
from repast_dist.torch.draws import KeyedDropout
from repast_dist.torch.farm_loss import AnyLoss, ModuleLoss
from repast_dist.torch.farm_module import LiveModule
from repast_dist.torch.fisher import Likelihood
from repast_dist.torch.samples import called
from repast_dist.torch.statistics import PartStatistics, Statistics, logits
from repast_dist.training.engines import Engine
from repast_dist.training.network import (
    Evaluation,
    FactorKey,
    FactorsAsked,
    MicroBatch,
    MicroBatchResult,
    Values,
)
from repast_dist.training.optimizers import SecondOrder


@dataclasses.dataclass(frozen=True)
class ModuleFacts:
    """What is known of a module since its first call.

    Attributes
    ----------
    setting : str
        The setting that says where it comes from.
    loss : AnyLoss
        Its loss.
    parameters : tuple of Trainable
        Everything that is trained.
    running : dict
        Name of a buffer that training changes -> (1, its numbers).
    workload : Workload
        Rows of what it computes.
    precision : dict
        Name of a parameter, a buffer or an entry of its state -> type in which it is kept.
    terms : int
        Terms of a sample's loss, such as tokens.
    passes : int
        Backward passes of the exact Fisher matrix.
    cuts : tuple of Cut
        Where it can be cut.
    whole_modules : bool
        Whether modules of the user's own are single operations between cuts.
    undivided : str
        Why it cannot be cut; empty: it can.
    """

    setting: str
    loss: AnyLoss
    parameters: tuple[Trainable, ...]
    running: dict[str, tuple[int, int]]
    workload: Workload
    precision: dict[str, np.dtype]
    terms: int
    passes: int
    cuts: tuple[Cut, ...]
    whole_modules: bool
    undivided: str


class Calls:
    """What calls of a module in one step have in common.

    Parameters
    ----------
    facts : ModuleFacts
        What is known of the module.
    live : LiveModule
        The copy that is called, with the step's values.
    engine : Engine
        The arithmetic of its products.
    step : int
        The training step.
    """

    def __init__(self, facts: ModuleFacts, live: LiveModule, engine: Engine, step: int) -> None:
        self.facts, self.live, self.engine, self.step = facts, live, engine, step
        self.before = live.buffers()

    def watcher[S: Statistics](
        self,
        made: type[S],
        asked: FactorsAsked,
        samples: np.ndarray,
    ) -> S:
        """Return what collects the optimizer's statistics of a micro-batch."""
        likelihood = self.facts.loss.likelihood or Likelihood()
        # The loss is a sum over the samples already.
        method = asked.optimizer
        watcher = made(self.live.simulation, method, likelihood, logits, lambda micro_batch: 1.0)
        watcher.unformed = asked.unformed
        watcher.blocks = dict(self._whole(method) if asked.blocks is None else asked.blocks)
        watcher.number(samples)
        return watcher

    def _whole(self, method: SecondOrder) -> dict[FactorKey, tuple[tuple[int, int]]]:
        return {
            (item.name, side): ((0, item.rows if side == "A" else item.columns),)
            for item in self.facts.parameters
            if item.preconditioned
            for side in method.sides
        }

    def loss(
        self, outputs: Any, inputs: np.ndarray, labels: np.ndarray, micro_batch: int
    ) -> ModuleLoss:
        """Return the loss of a micro-batch.

        Raises
        ------
        DataError
            It is not finite: training diverged.
        """
        loss = self.facts.loss(outputs, inputs, labels)
        if not np.isfinite(loss.total):
            raise DataError(
                f"step {self.step}, micro-batch {micro_batch}: the loss is not finite; "
                "lower optimizer.learning_rate or raise optimizer.damping"
            )
        return loss

    def running(self, samples: int) -> dict[str, np.ndarray]:
        """Return what the micro-batch leaves of running values, times its samples.

        Raises
        ------
        DataError
            It changed other buffers, too.
        """
        after, known = self.live.buffers(), self.facts.running
        for name, value in after.items():
            if name not in known and not np.array_equal(value, self.before[name], equal_nan=True):
                raise DataError(
                    f"step {self.step}: buffer {name} of the module changes, and it did not in "
                    "its first call; valid: buffers that change in every call, or in none"
                )
        return {name: samples * after[name].reshape(1, -1).astype(np.float64) for name in known}

    @contextlib.contextmanager
    def errors_named(self, micro_batch: int | None) -> Iterator[None]:
        """Turn errors of the user's code into one line that names step and place."""
        try:
            yield
        except RepastError:
            raise
        except Exception as error:
            setting = self.facts.setting
            where = "test" if micro_batch is None else f"micro-batch {micro_batch}"
            raise DataError(f"step {self.step}, {where}: {setting}: {described(error)}") from error


class LoadedModule:
    """A module with the values of a step; see `repast_dist.training.network.LoadedNetwork`.

    Parameters
    ----------
    facts : ModuleFacts
        What is known of the module.
    live : LiveModule
        The copy that is called.
    values : mapping
        The step's values.
    engine : Engine
        The arithmetic of its products.
    step : int
        The training step.
    """

    def __init__(
        self, facts: ModuleFacts, live: LiveModule, values: Values, engine: Engine, step: int
    ) -> None:
        live.write(values)
        self._calls = Calls(facts, live, engine, step)
        live.simulation.write(engine, step)
        self._version = live.version

    def at_once(self, samples: int) -> int:
        """Return 1: a module may mix the samples of a micro-batch."""
        return 1

    def run_micro_batches(
        self, batches: Sequence[MicroBatch], asked: FactorsAsked | None = None
    ) -> list[MicroBatchResult]:
        """Run micro-batches one after the other."""
        return [self._run(batch, asked) for batch in batches]

    def _run(self, batch: MicroBatch, asked: FactorsAsked | None) -> MicroBatchResult:
        """Run a micro-batch forward and backward."""
        inputs, labels, samples = batch.arrays
        calls, live = self._calls, self._entered()
        seed, step, micro_batch = calls.engine.seed, calls.step, batch.number
        live.simulation.micro_batches = micro_batch
        live.set_buffers(calls.before)
        live.module.zero_grad(set_to_none=True)
        watcher = None
        if asked is not None:
            watcher = calls.watcher(Statistics, asked, samples)
        dropout = KeyedDropout(seed, step, micro_batch, samples)
        with calls.errors_named(micro_batch), kept() as begin, live.training(), dropout:
            begin(seed, "module", step, micro_batch)
            with live.watched(watcher):
                outputs = called(live.module, inputs, device=live.device)
                loss = calls.loss(outputs, inputs, labels, micro_batch)
                loss.backward()
        gradients = {item.name: live.gradient(item.name) for item in calls.facts.parameters}
        return MicroBatchResult(
            len(inputs),
            loss.total,
            loss.correct,
            loss.squared_error,
            gradients | calls.running(len(inputs)),
            {} if watcher is None else watcher.sums(),
            {} if watcher is None else watcher.rows(),
        )

    def evaluate(self, inputs: np.ndarray, labels: np.ndarray) -> Evaluation:
        """Return the sums of loss and hits over samples."""
        calls, live = self._calls, self._entered()
        live.simulation.evaluations = 0
        with calls.errors_named(None), kept() as begin, live.evaluating():
            begin(calls.engine.seed, "evaluate", calls.step)
            outputs = called(live.module, inputs, device=live.device)
            loss = calls.facts.loss(outputs, inputs, labels)
        return Evaluation(len(inputs), loss.total, loss.correct, loss.squared_error)

    def _entered(self) -> LiveModule:
        """Return the module.

        Raises
        ------
        DataError
            Something else has been loaded into it since.
        """
        if self._calls.live.version != self._version:
            raise DataError("the network has been loaded anew since")
        return self._calls.live


class Spread:
    """The copy of a module in one process whose parts chips of one arithmetic hold.

    Parameters
    ----------
    facts : ModuleFacts
        What is known of the module.
    live : LiveModule
        The copy.
    operations : Operations
        What it computes.
    """

    def __init__(self, facts: ModuleFacts, live: LiveModule, operations: Operations) -> None:
        self.facts, self.live, self.operations = facts, live, operations
        self._written: tuple[Values, int] | None = None
        self._calls: Calls | None = None

    def load(self, values: Values, engine: Engine, step: int) -> Calls:
        """Write values for a step, unless another part has had the same ones written."""
        if self._calls is None or self._written is None or self._written[0] is not values:
            self.live.write(values)
            self._calls = Calls(self.facts, self.live, engine, step)
            self.live.simulation.write(engine, step)
            self._written = values, step
        return self._calls


@dataclasses.dataclass(frozen=True)
class Stretch:
    """Successive operations of a module.

    Attributes
    ----------
    first, last : Cut or None
        Where they begin and end; None: at the inputs, at the outputs.
    parameters : tuple of Trainable
        What of them is trained.
    running : tuple of str
        The running values that they change.
    """

    first: Cut | None
    last: Cut | None
    parameters: tuple[Trainable, ...]
    running: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class LoadedStretch:
    """A part of a module with the values of a step; see `repast_dist.training.network.LoadedPart`.

    Attributes
    ----------
    stretch : Stretch
        Its operations.
    spread : Spread
        The module.
    calls : Calls
        The step.
    """

    stretch: Stretch
    spread: Spread
    calls: Calls

    def begin(
        self,
        samples: np.ndarray,
        micro_batch: int,
        asked: FactorsAsked | None = None,
    ) -> "StretchRun":
        """Return a micro-batch that is about to enter."""
        watcher = None
        if asked is not None:
            own = {item.name for item in self.stretch.parameters}
            unformed = [key for key in asked.unformed if key[0] in own]
            asked = dataclasses.replace(asked, unformed=unformed)
            watcher = self.calls.watcher(PartStatistics, asked, samples)
            watcher.blocks = {key: v for key, v in (watcher.blocks or {}).items() if key[0] in own}
        return StretchRun(self, samples, micro_batch, watcher)


class StretchRun:
    """A micro-batch on its way through a part; see `repast_dist.training.network.PartRun`.

    Parameters
    ----------
    loaded : LoadedStretch
        The part.
    samples : (N,) integer ndarray
        Numbers of the samples in the data set.
    micro_batch : int
        Number of the micro-batch in its step.
    watcher : PartStatistics or None
        Collects the optimizer's statistics.
    """

    def __init__(
        self,
        loaded: LoadedStretch,
        samples: np.ndarray,
        micro_batch: int,
        watcher: PartStatistics | None,
    ) -> None:
        self._loaded, self._samples, self._number = loaded, samples, micro_batch
        self._watcher = watcher
        self._entered: torch.Tensor | None = None
        self._loss: ModuleLoss | None = None
        self._back: list[torch.Tensor] = []

    def forward(self, inputs: np.ndarray) -> np.ndarray:
        """Return what goes on to the next part, (N, ...); of the last one nothing does, (0,)."""
        calls, stretch = self._loaded.calls, self._loaded.stretch
        live, seed, step = calls.live, calls.engine.seed, calls.step
        live.simulation.micro_batches = self._number
        live.fresh_buffers(calls.before)
        first, last = stretch.first, stretch.last
        begin_at, before = (0, 0) if first is None else (first.node, first.dropouts)
        operations = self._loaded.spread.operations
        live.module.forward = operations.between(
            live, begin_at, None if last is None else last.node
        )
        dropout = KeyedDropout(seed, step, self._number, self._samples, before)
        with calls.errors_named(self._number), kept() as begin, live.training():
            begin(seed, "module", step, self._number)
            with live.watched(self._watcher):
                if first is None:
                    with dropout:
                        self._outputs = called(live.module, inputs, device=live.device)
                else:
                    leaf = torch.from_numpy(np.array(inputs, order="K")).to(live.device)
                    # What is changed in place is not what is differentiated by.
                    self._entered = leaf.requires_grad_().clone()
                    with dropout:
                        self._outputs = live.module(self._entered)
        self._running = calls.running(len(self._samples))
        if last is None:
            return np.empty(0)
        outputs: np.ndarray = self._outputs.detach().clone().cpu().numpy()
        return outputs

    def errors(self, inputs: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
        """Find the loss of the outputs; its errors stay where they are."""
        calls = self._loaded.calls
        with calls.errors_named(self._number), calls.live.training():
            self._loss = calls.loss(self._outputs, inputs, labels, self._number)
        return []

    def backward(self, errors: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Go back with the errors of every pass, or with those of the loss that is known here."""
        calls = self._loaded.calls
        live, watcher, entered = calls.live, self._watcher, self._entered
        live.module.zero_grad(set_to_none=True)
        given = [torch.from_numpy(np.array(item, order="K")).to(live.device) for item in errors]
        found: list[torch.Tensor] = []
        back: list[torch.Tensor] = []
        with calls.errors_named(self._number), live.training(), live.watched(watcher):
            if watcher is not None:
                last = self._loss is not None
                back = watcher.go_back(self._outputs, given[1:], last, entered)
            if entered is not None:
                entered.register_hook(found.append)
            if self._loss is not None:
                self._loss.backward()
            else:
                torch.autograd.backward(self._outputs, given[0])
        self._gradients = {
            item.name: live.gradient(item.name) for item in self._loaded.stretch.parameters
        }
        self._outputs = self._entered = None
        return [item.detach().cpu().numpy() for item in (*found, *back)]

    def result(self) -> MicroBatchResult:
        """Return what the micro-batch contributes, of this part."""
        loss, watcher, count = self._loss, self._watcher, len(self._samples)
        names = self._loaded.stretch.running
        return MicroBatchResult(
            count,
            0.0 if loss is None else loss.total,
            0.0 if loss is None else loss.correct,
            0.0 if loss is None else loss.squared_error,
            self._gradients | {name: self._running[name] for name in names},
            {} if watcher is None else watcher.sums(),
            {} if watcher is None else watcher.rows(),
        )
