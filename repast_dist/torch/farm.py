"""PyTorch modules as networks that the farm trains; see `repast_dist.training.network`.

A module travels as the user's function made it. Each process makes a copy whose products run on
the arrays, in float64 like the NumPy engine; what is trained is kept in the precision that it
came with. What the farm reduces and updates are the matrices (in[+1], out) of converted modules,
and every other parameter as one row. Running values, such as the means of a batch norm, become
what a micro-batch leaves of them, averaged over the micro-batches of a step.
"""

import contextlib
import copy
import dataclasses
import functools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import torch
from torch import nn

from repast_dist.farm.checkpoint import STATE_DICT
from repast_dist.ground.errors import DataError, FarmError, RepastError, SettingsError, brief
from repast_dist.ground.global_streams import kept
from repast_dist.ground.user_code import described, resolve, resolve_callable
from repast_dist.network.node import Trainable
from repast_dist.network.shapes import Workload
from repast_dist.torch.conversion import CLASSES, is_converted
from repast_dist.torch.draws import KeyedDropout
from repast_dist.torch.farm_loss import AnyLoss, NamedLoss, OwnLoss
from repast_dist.torch.farm_module import LiveModule
from repast_dist.torch.fisher import Likelihood
from repast_dist.torch.layers.base import Converted
from repast_dist.torch.matrices import to_numpy
from repast_dist.torch.samples import called
from repast_dist.torch.statistics import Statistics, logits
from repast_dist.training.datasets import Dataset
from repast_dist.training.datasets.records import sample_text
from repast_dist.training.engines import Engine
from repast_dist.training.models.modules import LOSSES, ModuleModel
from repast_dist.training.network import (
    Evaluation,
    FactorBlocks,
    FactorKey,
    MicroBatch,
    MicroBatchResult,
    Values,
)
from repast_dist.training.optimizers import Fisher, SecondOrder

_RUNNING = "running/"


def module_network(source: ModuleModel, data: Dataset, seed: int, samples: int) -> "ModuleNetwork":
    """Make the module that settings describe, and see what it computes of the first samples.

    Parameters
    ----------
    source : ModuleModel
        The settings.
    data : Dataset
        What it is trained on.
    seed : int
        The run's seed.
    samples : int
        Samples of a micro-batch.

    Raises
    ------
    SettingsError
        The function fails or returns no module, or the module does not fit data or loss.
    """
    module, loss, known = _made(source, seed), _loss(source), _known(source)
    inputs, labels = data.train_inputs[:samples], data.train_labels[:samples]
    with kept() as begin:
        begin(seed, "model", "trace")
        try:
            _initialise(module, inputs)
            precision = {name: _precision(item) for name, item in _tensors(module).items()}
            live = LiveModule(module.double(), known)
            before = live.buffers()
            with live.training():
                outputs = called(live.module, inputs)
                if loss.likelihood is not None:
                    _check_outputs(source, outputs)
                loss.check(outputs, data)
                loss(outputs, inputs, labels).backward()
        except RepastError:
            raise
        except Exception as error:
            raise SettingsError(
                f"{source.where} cannot be trained on {len(inputs)} inputs of "
                f"shape {sample_text(inputs)}: {described(error)}; valid: a module that takes "
                "them, computes in float64, and returns what its loss takes"
            ) from error
    running = {
        name: (1, value.size)
        for name, value in live.buffers().items()
        if not np.array_equal(value, before[name], equal_nan=True)
    }
    workload = live.work.latest
    assert workload is not None
    rows = 0 if loss.likelihood is None else len(loss.likelihood.rows(logits(outputs)))
    # A loss of the user's own that is no likelihood is not priced.
    losses = loss.likelihood and (loss.likelihood.shape(logits(outputs), len(inputs)),)
    facts = ModuleFacts(
        parameters=live.trainable(workload),
        running=running,
        workload=dataclasses.replace(workload, name=source.name, losses=losses or (), cuts=()),
        precision=precision,
        terms=rows // len(inputs),
        passes=1 if loss.likelihood is None else loss.likelihood.passes(logits(outputs)),
    )
    return ModuleNetwork(source, module, known, loss, facts)


def accelerator(name: str) -> torch.device:
    """Return a device that is not the processor.

    Raises
    ------
    SettingsError
        This process has none.
    """
    if not torch.cuda.is_available():
        raise SettingsError(f"model.device={name}: PyTorch sees no GPU here; valid: cpu")
    return torch.device(name)


def _made(source: ModuleModel, seed: int) -> nn.Module:
    """Return a copy of the module that the settings name."""
    where = source.where
    with kept() as begin:
        begin(seed, "model")
        try:
            module = source.make()
        except (RepastError, ModuleNotFoundError):
            raise
        except Exception as error:
            raise SettingsError(f"{where}: {described(error)}") from error
    if not isinstance(module, nn.Module):
        raise SettingsError(f"{where} returned {type(module).__name__}; valid: a torch.nn.Module")
    if is_converted(module):
        raise SettingsError(f"{where}: the module is converted; valid: without repast_dist.convert")
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise SettingsError(f"{where}: the module has nothing to train; valid: some parameters")
    return copy.deepcopy(module).cpu()


def _loss(source: ModuleModel) -> AnyLoss:
    if source.loss in LOSSES:
        return NamedLoss(source.loss)
    likelihood = None if source.likelihood is None else Likelihood(source.likelihood)
    return OwnLoss(resolve_callable(source.loss, "model.loss"), likelihood)


def _known(source: ModuleModel) -> dict[type[nn.Module], type[Converted]]:
    """Return PyTorch's class -> what its modules are converted to, the user's own among them.

    Raises
    ------
    SettingsError
        The setting names no such mapping.
    """
    if source.classes is None:
        return dict(CLASSES)
    own = resolve(source.classes, "model.classes")
    if not isinstance(own, Mapping) or not all(
        isinstance(key, type) and isinstance(value, type) and issubclass(value, Converted)
        for key, value in own.items()
    ):
        raise SettingsError(
            f"model.classes: {source.classes} is {brief(own)}; valid: a mapping from classes of "
            "modules to subclasses of repast_dist.torch.Converted"
        )
    return {**CLASSES, **own}


def _initialise(module: nn.Module, inputs: np.ndarray) -> None:
    """Let modules that find out their sizes when they are called do so."""
    if not any(isinstance(item, nn.UninitializedParameter) for item in module.parameters()):
        return
    modes = [part.training for part in module.modules()]
    module.eval()
    with torch.no_grad():
        called(module, inputs, torch.get_default_dtype())
    for part, mode in zip(module.modules(), modes, strict=True):
        part.training = mode


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return everything that a state holds, and buffers that it does not hold."""
    state = {name: item for name, item in module.state_dict().items() if torch.is_tensor(item)}
    return {**dict(module.named_parameters()), **dict(module.named_buffers()), **state}


def _precision(tensor: torch.Tensor) -> np.dtype:
    """Return in which precision a tensor is kept.

    Raises
    ------
    SettingsError
        It holds complex numbers.
    """
    if tensor.is_complex():
        raise SettingsError("model: complex numbers are not modelled; valid: real ones")
    kept_in: np.dtype = to_numpy(tensor).dtype
    return kept_in


def _check_outputs(source: ModuleModel, outputs: Any) -> None:
    given = logits(outputs)
    if not isinstance(given, torch.Tensor) or not given.requires_grad:
        what = "what depends on no parameter" if torch.is_tensor(given) else type(given).__name__
        raise SettingsError(
            f"{source.where} returns {what}; valid: a tensor, something with "
            ".logits or ['logits'], or several tensors, of which the first counts"
        )


@dataclasses.dataclass(frozen=True)
class ModuleFacts:
    """What is known of a module since its first call.

    Attributes
    ----------
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
    """

    parameters: tuple[Trainable, ...]
    running: dict[str, tuple[int, int]]
    workload: Workload
    precision: dict[str, np.dtype]
    terms: int
    passes: int


class ModuleNetwork:
    """A PyTorch module as a network; see `repast_dist.training.network.Network`.

    Parameters
    ----------
    source : ModuleModel
        Its settings.
    module : Module
        The module in float64, as the function made it.
    known : dict
        PyTorch's class -> what its modules are converted to.
    loss : AnyLoss
        Its loss.
    facts : ModuleFacts
        What is known of it.
    """

    def __init__(
        self,
        source: ModuleModel,
        module: nn.Module,
        known: dict[type[nn.Module], type[Converted]],
        loss: AnyLoss,
        facts: ModuleFacts,
    ) -> None:
        self._source, self._known = source, known
        self._module, self.loss, self._facts = module, loss, facts

    def __getstate__(self) -> dict[str, Any]:
        return {name: item for name, item in vars(self).items() if name not in ("live", "working")}

    @functools.cached_property
    def live(self) -> LiveModule:
        """The copy of this process, whose products run on the arrays."""
        return LiveModule(self._module, self._known)

    @functools.cached_property
    def working(self) -> LiveModule:
        """The copy that micro-batches run on, where the settings want it.

        Raises
        ------
        SettingsError
            This process has no such device.
        """
        if self._source.device == "cpu":
            return self.live
        return LiveModule(self._module, self._known, accelerator(self._source.device))

    @property
    def name(self) -> str:
        """Its name in reports."""
        return self._source.name

    @property
    def setting(self) -> str:
        """The setting that says where it comes from."""
        return self._source.origin[0]

    @property
    def parameters(self) -> tuple[Trainable, ...]:
        """Everything that is trained."""
        return self._facts.parameters

    @property
    def running(self) -> dict[str, tuple[int, int]]:
        """The buffers that training changes, each as one row."""
        return self._facts.running

    @property
    def layered(self) -> bool:
        """Modules write inputs as they are called, and may compute otherwise in tests."""
        return False

    @property
    def workload(self) -> Workload:
        """Rows of what it computes."""
        return self._facts.workload

    def initial(self) -> dict[str, np.ndarray]:
        """Return the values that the user's function gave it."""
        live = LiveModule(self._module, self._known)
        return self._in_precision({name: live.read(name) for name in self._names})

    def fisher_passes(self, fisher: Fisher) -> int:
        """Return the number of backward passes for the Fisher matrix beside that of the loss.

        Raises
        ------
        SettingsError
            The Fisher matrix is not known of this loss.
        """
        if fisher != "empirical" and self.loss.likelihood is None:
            raise SettingsError(
                f"optimizer.fisher={fisher}: what model.loss={self._source.loss} is the likelihood "
                "of is not known; valid: model.likelihood=cross_entropy|binary_cross_entropy|"
                "squared_error, optimizer.fisher=empirical"
            )
        if fisher == "exact" and self._facts.terms > 1:
            raise SettingsError(
                f"optimizer.fisher=exact: a sample has {self._facts.terms} terms, whose gradients "
                "would mix in one backward pass; valid: sampled, empirical"
            )
        return {"empirical": 0, "sampled": 1, "exact": self._facts.passes}[fisher]

    def check(self, data: Dataset) -> None:
        """Do nothing: it was called with the data set's samples when it was made."""

    def load(
        self, values: Values, engine: Engine, step: int, with_backward: bool = True
    ) -> "_Loaded":
        """Write all weights to the arrays of a step; transposes are written when they are used."""
        return _Loaded(self, values, engine, step)

    def part(self, first: int, last: int) -> NoReturn:
        """Refuse, as a module is called as a whole; its workload has no cuts.

        Raises
        ------
        FarmError
            Always.
        """
        raise FarmError(f"{self.name}: PyTorch modules are not spread over chips")

    def to_state(self, values: Values) -> dict[str, np.ndarray]:
        """Return the module's ``state_dict``, and running values that it does not hold."""
        self.live.write(values)
        precision = self._facts.precision
        state = {
            name: to_numpy(item).astype(precision[name]) for name, item in self.live.state().items()
        }
        found = {f"{STATE_DICT}{name}": value for name, value in state.items()}
        return found | {
            f"{_RUNNING}{name}": values[name] for name in self.running if name not in state
        }

    def from_state(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the values in a checkpoint's arrays.

        Raises
        ------
        DataError
            They do not hold this module's state.
        """
        state = {
            name.removeprefix(STATE_DICT): value
            for name, value in arrays.items()
            if name.startswith(STATE_DICT)
        }
        self.live.load_state(state)
        outside = {
            name: arrays[f"{_RUNNING}{name}"]
            for name in self.running
            if f"{_RUNNING}{name}" in arrays
        }
        self.live.write(outside)
        return self._in_precision({name: self.live.read(name) for name in self._names})

    @property
    def _names(self) -> tuple[str, ...]:
        return (*(item.name for item in self.parameters), *self.running)

    def _in_precision(self, values: Values) -> dict[str, np.ndarray]:
        precision = self._facts.precision
        return {
            name: value.astype(precision[self.live.tensor_name(name)])
            for name, value in values.items()
        }


class _Loaded:
    """See `repast_dist.training.network.LoadedNetwork`."""

    def __init__(self, network: ModuleNetwork, values: Values, engine: Engine, step: int) -> None:
        self._network, self._values = network, values
        self._engine, self._step = engine, step
        self._live = network.working
        self._live.write(values)
        self._before = self._live.buffers()
        self._live.simulation.write(engine, step)
        self._version = self._live.version

    def run_micro_batch(
        self,
        inputs: np.ndarray,
        labels: np.ndarray,
        samples: np.ndarray,
        micro_batch: int,
        statistics: SecondOrder | None = None,
        blocks: FactorBlocks | None = None,
        unformed: Collection[FactorKey] = (),
        positions: float = 1.0,
    ) -> MicroBatchResult:
        live, network, seed = self._entered(), self._network, self._engine.seed
        live.simulation.micro_batches = micro_batch
        live.set_buffers(self._before)
        live.module.zero_grad(set_to_none=True)
        watcher = None
        if statistics is not None:
            watcher = self._watcher(statistics, blocks, unformed, samples)
        dropout = KeyedDropout(seed, self._step, micro_batch, samples)
        with self._errors_named(micro_batch), kept() as begin, live.training(), dropout:
            begin(seed, "module", self._step, micro_batch)
            with live.watched(watcher):
                outputs = called(live.module, inputs, device=live.device)
                loss = network.loss(outputs, inputs, labels)
                if not np.isfinite(loss.total):
                    raise DataError(
                        f"step {self._step}, micro-batch {micro_batch}: the loss is not finite; "
                        "lower optimizer.learning_rate or raise optimizer.damping"
                    )
                loss.backward()
        gradients = {item.name: live.gradient(item.name) for item in network.parameters}
        return MicroBatchResult(
            len(inputs),
            loss.total,
            loss.correct,
            loss.squared_error,
            gradients | self._running(len(inputs)),
            {} if watcher is None else watcher.sums(),
            {} if watcher is None else watcher.rows(),
        )

    def at_once(self, samples: int) -> int:
        # A module may mix the samples of a micro-batch.
        return 1

    def run_micro_batches(
        self,
        batches: Sequence[MicroBatch],
        statistics: SecondOrder | None = None,
        blocks: FactorBlocks | None = None,
        unformed: Collection[FactorKey] = (),
        positions: float = 1.0,
    ) -> list[MicroBatchResult]:
        how = statistics, blocks, unformed, positions
        return [
            self.run_micro_batch(batch.inputs, batch.labels, batch.samples, batch.number, *how)
            for batch in batches
        ]

    def evaluate(self, inputs: np.ndarray, labels: np.ndarray) -> Evaluation:
        live = self._entered()
        live.simulation.evaluations = 0
        with self._errors_named(None), kept() as begin, live.evaluating():
            begin(self._engine.seed, "evaluate", self._step)
            outputs = called(live.module, inputs, device=live.device)
            loss = self._network.loss(outputs, inputs, labels)
        return Evaluation(len(inputs), loss.total, loss.correct, loss.squared_error)

    def _entered(self) -> LiveModule:
        """Return the module.

        Raises
        ------
        DataError
            Something else has been loaded into it since.
        """
        if self._live.version != self._version:
            raise DataError("the network has been loaded anew since")
        return self._live

    def _watcher(
        self,
        method: SecondOrder,
        blocks: FactorBlocks | None,
        unformed: Collection[FactorKey],
        samples: np.ndarray,
    ) -> Statistics:
        likelihood = self._network.loss.likelihood or Likelihood()
        # The loss is a sum over the samples already.
        watcher = Statistics(
            self._live.simulation, method, likelihood, logits, lambda micro_batch: 1.0
        )
        watcher.unformed = unformed
        watcher.blocks = dict(self._whole(method) if blocks is None else blocks)
        watcher.number(samples)
        return watcher

    def _whole(self, method: SecondOrder) -> dict[FactorKey, tuple[tuple[int, int]]]:
        return {
            (item.name, side): ((0, item.rows if side == "A" else item.columns),)
            for item in self._network.parameters
            if item.preconditioned
            for side in method.sides
        }

    def _running(self, samples: int) -> dict[str, np.ndarray]:
        """Return what the micro-batch leaves of running values, times its samples.

        Raises
        ------
        DataError
            It changed other buffers, too.
        """
        after, known = self._live.buffers(), self._network.running
        for name, value in after.items():
            if name not in known and not np.array_equal(value, self._before[name], equal_nan=True):
                raise DataError(
                    f"step {self._step}: buffer {name} of the module changes, and it did not in "
                    "its first call; valid: buffers that change in every call, or in none"
                )
        return {name: samples * after[name].reshape(1, -1).astype(np.float64) for name in known}

    @contextlib.contextmanager
    def _errors_named(self, micro_batch: int | None) -> Iterator[None]:
        """Turn errors of the user's code into one line that names step and place."""
        try:
            yield
        except RepastError:
            raise
        except Exception as error:
            setting = self._network.setting
            where = "test" if micro_batch is None else f"micro-batch {micro_batch}"
            raise DataError(f"step {self._step}, {where}: {setting}: {described(error)}") from error
