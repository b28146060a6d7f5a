"""PyTorch modules as networks that the farm trains; see `repast_dist.training.network`.

A module travels as the user's function made it. Each process makes a copy whose products run on
the arrays, in float64 like the NumPy engine; what is trained is kept in the precision that it
came with. What the farm reduces and updates are the matrices (in[+1], out) of converted modules,
and every other parameter as one row. Running values, such as the means of a batch norm, become
what a micro-batch leaves of them, averaged over the micro-batches of a step.
"""

import copy
import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from repast_dist.farm.checkpoint import STATE_DICT
from repast_dist.ground.errors import RepastError, SettingsError, brief
from repast_dist.ground.global_streams import kept
from repast_dist.ground.user_code import described, resolve, resolve_callable
from repast_dist.network.node import Trainable
from repast_dist.network.shapes import Workload
from repast_dist.torch.conversion import CLASSES, is_converted
from repast_dist.torch.cuts import Operations, divide, tried
from repast_dist.torch.farm_calls import (
    LoadedModule,
    LoadedStretch,
    ModuleFacts,
    Spread,
    Stretch,
)
from repast_dist.torch.farm_loss import AnyLoss, NamedLoss, OwnLoss
from repast_dist.torch.farm_module import LiveModule
from repast_dist.torch.fisher import Likelihood
from repast_dist.torch.layers.base import Converted
from repast_dist.torch.matrices import to_numpy
from repast_dist.torch.samples import CPU, called
from repast_dist.torch.statistics import logits
from repast_dist.training.datasets import Dataset
from repast_dist.training.datasets.records import sample_text
from repast_dist.training.engines import Engine
from repast_dist.training.models.modules import LOSSES, ModuleModel
from repast_dist.training.network import Values
from repast_dist.training.optimizers import Fisher

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
                first = tried(live)
            made = sorted({*live.buffers()} - {*before})
            if made:
                raise SettingsError(
                    f"{source.where}: buffer {made[0]} is made as the module is called; valid: "
                    "buffers that it has from the beginning"
                )
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
    division = divide(
        module,
        known,
        inputs,
        first,
        lambda outputs: loss(outputs, inputs, labels).backward(),
        (seed, "model", "trace"),
    )
    workload = division.workload
    rows = 0 if loss.likelihood is None else len(loss.likelihood.rows(logits(outputs)))
    # A loss of the user's own that is no likelihood is not priced.
    losses = loss.likelihood and (loss.likelihood.shape(logits(outputs), len(inputs)),)
    facts = ModuleFacts(
        setting=source.origin[0],
        loss=loss,
        parameters=live.trainable(workload),
        running=running,
        workload=dataclasses.replace(
            workload,
            name=source.name,
            losses=losses or (),
            cuts=tuple(cut.row for cut in division.cuts),
        ),
        precision=precision,
        terms=rows // len(inputs),
        passes=1 if loss.likelihood is None else loss.likelihood.passes(logits(outputs)),
        cuts=division.cuts,
        whole_modules=division.whole_modules,
        undivided=division.undivided,
    )
    return ModuleNetwork(source, module, known, facts, inputs)


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
    try:
        return copy.deepcopy(module).cpu()
    except Exception as error:
        raise SettingsError(
            f"{where}: the module cannot be copied: {described(error)}; valid: "
            "torch.nn.utils.parametrizations in place of hooks that compute weights (weight_norm), "
            "prune.remove"
        ) from error


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
    facts : ModuleFacts
        What is known of it.
    inputs : ndarray
        Samples like those that it is called with.
    """

    def __init__(
        self,
        source: ModuleModel,
        module: nn.Module,
        known: dict[type[nn.Module], type[Converted]],
        facts: ModuleFacts,
        inputs: np.ndarray,
    ) -> None:
        self._source, self._known = source, known
        self._module, self._facts, self._inputs = module, facts, inputs

    def __getstate__(self) -> dict[str, Any]:
        own = ("live", "working", "operations", "_spreads")
        return {name: item for name, item in vars(self).items() if name not in own}

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
        return self._copy()

    def _copy(self) -> LiveModule:
        name = self._source.device
        device = CPU if name == "cpu" else accelerator(name)
        return LiveModule(self._module, self._known, device)

    @functools.cached_property
    def operations(self) -> Operations:
        """What it computes, one after the other."""
        return Operations(self._module, self._known, self._inputs, self._facts.whole_modules)

    @functools.cached_property
    def _spreads(self) -> dict[int, tuple[Engine, Spread]]:
        return {}

    def spread(self, engine: Engine) -> Spread:
        """Return the copy whose parts chips of one arithmetic hold, in this process."""
        if id(engine) not in self._spreads:
            made = Spread(self._facts, self._copy(), self.operations)
            self._spreads[id(engine)] = engine, made
        return self._spreads[id(engine)][1]

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
    def loss(self) -> AnyLoss:
        """Its loss."""
        return self._facts.loss

    @property
    def undivided(self) -> str:
        """Why it cannot be cut; empty: it can."""
        return self._facts.undivided

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
    ) -> LoadedModule:
        """Write all weights to the arrays of a step; transposes are written when they are used."""
        return LoadedModule(self._facts, self.working, values, engine, step)

    def part(self, first: int, last: int) -> "ModulePart":
        """Return the operations that have some rows of the workload."""
        cuts = {cut.row: cut for cut in self._facts.cuts}
        start, stop = cuts.get(first), cuts.get(last)
        stages = self._first_uses
        begin, end = (
            0 if start is None else start.node,
            len(self.operations.nodes) if stop is None else stop.node,
        )
        trained = [(stages[self.live.tensor_name(item.name)], item) for item in self.parameters]
        stretch = Stretch(
            first=start,
            last=stop,
            parameters=tuple(item for node, item in trained if begin <= node < end),
            running=tuple(name for name in self.running if begin <= stages[name] < end),
        )
        return ModulePart(self, stretch)

    @property
    def _first_uses(self) -> dict[str, int]:
        """Name of a parameter or a buffer -> number of the first operation that takes it; the last
        one of what none takes.
        """
        module = self.live.module
        first: dict[int, int] = {}
        for number in range(len(self.operations.nodes)):
            for tensor in self.operations.uses(module, number):
                first.setdefault(id(tensor), number)
        last = len(self.operations.nodes) - 1
        named = (*module.named_parameters(), *module.named_buffers())
        return {name: first.get(id(item), last) for name, item in named}

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


@dataclasses.dataclass(frozen=True)
class ModulePart:
    """Successive operations of a module; see `repast_dist.training.network.Part`.

    Attributes
    ----------
    network : ModuleNetwork
        The module.
    stretch : Stretch
        Its operations.
    """

    network: ModuleNetwork
    stretch: Stretch

    @property
    def parameters(self) -> tuple[Trainable, ...]:
        """What of them is trained."""
        return self.stretch.parameters

    @property
    def running(self) -> tuple[str, ...]:
        """The running values that they change."""
        return self.stretch.running

    def load(self, values: Values, engine: Engine, step: int) -> LoadedStretch:
        """Write the weights of a step, of all parts that this process holds together."""
        spread = self.network.spread(engine)
        return LoadedStretch(self.stretch, spread, spread.load(values, engine, step))
