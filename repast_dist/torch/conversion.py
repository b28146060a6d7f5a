"""Turns a network of PyTorch modules into one whose products run on simulated arrays."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import nn

from repast_dist.api.loading import HARDWARE, Override, as_overrides, load_settings, refuse_others
from repast_dist.ground.errors import SettingsError
from repast_dist.hardware.hardware import Hardware
from repast_dist.planning.solve_costs import solve_prices
from repast_dist.studies.settings import RunSettings
from repast_dist.torch.layers.attention import AttentionFunctions, MultiheadAttention
from repast_dist.torch.layers.base import Converted
from repast_dist.torch.layers.conv import Conv1d, Conv2d, ConvTranspose2d
from repast_dist.torch.layers.linear import Linear
from repast_dist.torch.layers.operands import Operands, OperandsOnArrays
from repast_dist.torch.layers.recurrent import GRU, LSTM
from repast_dist.torch.matrices import Matrix, Part
from repast_dist.torch.simulation import ExactIn, MicroBatch, Simulation
from repast_dist.torch.work import WorkCounter
from repast_dist.training.engines import Engine, make_engine

CLASSES: Mapping[type[nn.Module], type[Converted]] = {
    nn.Linear: Linear,
    nn.Conv1d: Conv1d,
    nn.Conv2d: Conv2d,
    nn.ConvTranspose2d: ConvTranspose2d,
    nn.MultiheadAttention: MultiheadAttention,
    nn.LSTM: LSTM,
    nn.GRU: GRU,
    Operands: OperandsOnArrays,
}
"""PyTorch's class -> what its modules are converted to; `convert` takes further ones."""

_GROUPS = ("engine", "inversion", "soi", "partition", "seed", "plugins")
_KEY = "_repast_dist"


@dataclasses.dataclass(frozen=True)
class Treatment:
    """How a module that has parameters is treated.

    Attributes
    ----------
    path : str
        Its path in the network.
    kind : str
        Its class.
    parameters : int
        Numbers in its own parameters.
    converted : bool
        Whether its products run on arrays.
    reason : str
        Why it is not converted.
    """

    path: str
    kind: str
    parameters: int
    converted: bool
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What `convert` made of a network.

    Attributes
    ----------
    model : Module
        The network.
    settings : RunSettings
        The settings of its arithmetic; those of training are not used.
    hardware : Hardware
        The chips.
    simulation : Simulation
        Its arrays.
    work : WorkCounter
        Counts what its calls compute.
    treatments : tuple of Treatment
        How each module with parameters is treated.
    """

    model: nn.Module
    settings: RunSettings
    hardware: Hardware
    simulation: Simulation
    work: WorkCounter
    treatments: tuple[Treatment, ...]

    @property
    def table(self) -> pa.Table:
        """One row per module with parameters: how it is treated, and why."""
        return pa.Table.from_pylist([dataclasses.asdict(row) for row in self.treatments])


def convert(
    model: nn.Module,
    hardware: Hardware | None = None,
    *overrides: Override,
    classes: Mapping[type[nn.Module], type[Converted]] | None = None,
    skip: Callable[[str, nn.Module], bool] | None = None,
    batch_dim: int = 0,
    exact_in: ExactIn = "float64",
    config_dir: str | Path | None = None,
    **groups: Any,
) -> nn.Module:
    """Make the products of a network run on simulated arrays, forward and backward.

    Parameters
    ----------
    model : Module
        Any network. It is changed in place: modules keep their parameters and names, so that
        optimizers, `state_dict` and checkpoints stay what they are.
    hardware : Hardware, optional
        The chips; None: those of the settings.
    *overrides, config_dir, **groups
        As in `load_settings`, of ``engine``, ``inversion``, ``soi``, ``partition``, ``seed`` and,
        without `hardware`, of the chip: ``engine="float64"``, ``{"engine.factor": "fixed"}``.
    classes : mapping, optional
        Further classes of modules, or others for those of `CLASSES`.
    skip : callable, optional
        Returns whether a module, given its path and itself, is left as it is.
    batch_dim : int
        Dimension of samples in the first tensor that the network is called with.
    exact_in : {"float64", "tensors"}
        Precision of products whose arithmetic is ``float64``: that, or that of PyTorch's tensors,
        which is faster: forward products on arrays, all others as PyTorch computes them.

    Returns
    -------
    Module
        The same network; `conversion` returns what was made of it.

    Raises
    ------
    SettingsError
        A setting is wrong, or the network is converted already.

    Notes
    -----
    Modules that have no class in the map stay PyTorch's own, and are digital work.
    """
    if any(_KEY in vars(module) for module in model.modules()):
        raise SettingsError("the network is converted already; valid: convert it once")
    if not (hardware is None or isinstance(hardware, Hardware)):
        raise SettingsError(f"hardware: {hardware!r}; valid: load_hardware(...), or None")
    settings = _settings(overrides, groups, config_dir, hardware is None)
    machine = settings.hardware if hardware is None else hardware
    if exact_in not in ("float64", "tensors"):
        raise SettingsError(f"exact_in: '{exact_in}'; valid: float64, tensors")
    simulation = Simulation(_engine(settings, machine), batch_dim, exact_in)
    treatments, work = attach(model, simulation, {**CLASSES, **(classes or {})}, skip)
    made_of = Conversion(model, settings, machine, simulation, work, treatments)
    object.__setattr__(model, _KEY, made_of)
    return model


def attach(
    model: nn.Module,
    simulation: Simulation,
    known: Mapping[type[nn.Module], type[Converted]] = CLASSES,
    skip: Callable[[str, nn.Module], bool] | None = None,
) -> tuple[tuple[Treatment, ...], WorkCounter]:
    """Let the products of a network run on the arrays of a simulation.

    Parameters
    ----------
    model : Module
        The network; it is changed in place.
    simulation : Simulation
        Its arrays; it gets the matrices of the network.
    known : mapping
        PyTorch's class -> what its modules are converted to.
    skip : callable, optional
        As of `convert`.

    Returns
    -------
    tuple of Treatment
        How each module with parameters is treated.
    WorkCounter
        Counts what its calls compute.
    """
    paths = {module: path for path, module in model.named_modules()}
    treatments, inside = [], set[nn.Module]()
    for module, path in paths.items():
        if module in inside:
            continue
        own = sum(parameter.numel() for parameter in module.parameters(recurse=False))
        made, reason = _class_for(module, known)
        if made is not None and skip is not None and skip(path, module):
            made, reason = None, "left out"
        if made is not None:
            reason = _swap(module, made, simulation, path)
            made = None if reason else made
        if made is not None:
            inside |= set(module.modules())
            own = sum(parameter.numel() for parameter in module.parameters())
        if own:
            kind = type(module).__name__
            treatments.append(Treatment(path, kind, own, made is not None, reason))
    stack = simulation.paths
    _mark_shared(model, simulation)
    for module, path in paths.items():
        _keep_path(module, path, stack)
    work = WorkCounter(model, lambda: stack[-1] if stack else "")
    simulation.watchers.append(work)
    _frame(model, simulation, stack)
    return tuple(treatments), work


def conversion(model: nn.Module) -> Conversion:
    """Return what `convert` made of a network.

    Raises
    ------
    SettingsError
        The network is not converted.
    """
    found = vars(model).get(_KEY)
    if not isinstance(found, Conversion):
        raise SettingsError("the network is not converted; valid: convert(model, hardware) first")
    return found


def is_converted(model: nn.Module) -> bool:
    """Return whether `convert` was called with this network."""
    return _KEY in vars(model)


def _settings(
    overrides: tuple[Override, ...],
    groups: Mapping[str, Any],
    config_dir: str | Path | None,
    any_hardware: bool,
) -> RunSettings:
    texts = as_overrides(overrides, groups)
    valid = (*_GROUPS, *(HARDWARE if any_hardware else ()))
    refuse_others(texts, valid, "not a setting of a converted network")
    return load_settings(*texts, config_dir=config_dir)


def _engine(settings: RunSettings, hardware: Hardware) -> Engine:
    spec = settings.engine
    if not spec.uses_analog():
        engine = make_engine(spec, settings.seed)
        return dataclasses.replace(engine, factor_bits=settings.soi.factor_bits)
    inversion = settings.inversion
    engine = make_engine(
        spec,
        settings.seed,
        hardware.vmm_spec,
        hardware.inv_spec,
        hardware.residual_spec,
        inversion,
    )
    prices = functools.partial(solve_prices, hardware=hardware, scheme=inversion)
    return dataclasses.replace(engine, prices=prices, factor_bits=settings.soi.factor_bits)


def _class_for(
    module: nn.Module, known: Mapping[type[nn.Module], type[Converted]]
) -> tuple[type[Converted] | None, str]:
    """Return what a module is converted to, or why it is not."""
    own = type(module)
    found = known.get(own)
    if found is None:
        base = next((base for base in own.__mro__ if base in known), None)
        if base is None:
            return None, "no class in the map: digital work"
        if own.forward is not base.forward:  # type: ignore[attr-defined]
            return None, f"a {base.__name__} with a forward of its own; valid: classes="
        found = known[base]
    reason = found.refuses(module)
    if not reason and any(
        isinstance(parameter, nn.UninitializedParameter) for parameter in module.parameters()
    ):
        reason = "not initialised yet; valid: call the network once first"
    if not reason and nn.utils.parametrize.is_parametrized(module):
        reason = "its weights are computed from others (parametrised)"
    return (None, reason) if reason else (found, "")


def _swap(module: nn.Module, made: type[Converted], simulation: Simulation, path: str) -> str:
    """Put a converted class in front of a module's own, or return why that cannot be."""
    own = type(module)
    module.__class__ = type(own.__name__, (made, own), {"__module__": own.__module__})
    object.__setattr__(module, "_simulation", simulation)
    object.__setattr__(module, "_path", path)
    matrices = module.matrices()
    for matrix in matrices:
        for part in matrix.parts:
            if not isinstance(matrix.parameter(part), nn.Parameter):
                # Weight norm, spectral norm and pruning compute it as the module is called.
                module.__class__ = own
                object.__delattr__(module, "_simulation")
                object.__delattr__(module, "_path")
                return f"its {part.parameter} is computed from others (weight norm, pruning)"
            _check_view(matrix, part)
    for matrix in matrices:
        simulation.matrices[matrix.name] = matrix
    return ""


def _check_view(matrix: Matrix, part: Part) -> None:
    whole = torch.empty(tuple(matrix.parameter(part).shape))
    place = part.view(whole).untyped_storage().data_ptr()
    if place != whole.untyped_storage().data_ptr():
        raise SettingsError(
            f"{matrix.name}: what its matrix takes of {part.parameter} is a copy, in which updates "
            "would be lost; valid: a view (slices, t, permute, view)"
        )


def _mark_shared(model: nn.Module, simulation: Simulation) -> None:
    """Make matrices of several modules with the same weights one matrix of several uses; mark those
    whose weights serve elsewhere otherwise, too.

    Look-ups do not count: they hand on rows of the weights, and the Fisher matrix of weights that
    are multiplied by, too, is taken to be that of the product.
    """
    users: dict[int, list[str]] = {}
    for path, module in model.named_modules():
        if isinstance(module, nn.Embedding):
            continue
        for name, parameter in module.named_parameters(recurse=False):
            users.setdefault(id(parameter), []).append(f"{path}.{name}".lstrip("."))
    _make_one(users, simulation)
    for name, matrix in simulation.matrices.items():
        if name in simulation.aliases.values():
            continue
        names = users.get(id(matrix.parameter(matrix.weight)), [])
        if len(names) > 1 and not matrix.without_factors:
            why = f"shares its weights ({', '.join(names)}): plain gradient"
            simulation.matrices[name] = dataclasses.replace(matrix, without_factors=why)


def _make_one(users: Mapping[int, list[str]], simulation: Simulation) -> None:
    """Let matrices that have all their parameters in common be uses of the first of them."""
    alike: dict[tuple[int, ...], list[str]] = {}
    for name, matrix in simulation.matrices.items():
        if matrix.groups == 1 and not matrix.without_factors:
            parts = tuple(id(matrix.parameter(part)) for part in matrix.parts)
            alike.setdefault(parts, []).append(name)
    for parts, names in alike.items():
        first, *others = (simulation.matrices[name] for name in names)
        whole = all(len(users.get(part, ())) == len(names) for part in parts)
        if others and whole and all(_looks_like(first, other) for other in others):
            for name in names[1:]:
                simulation.aliases[name] = first.name
                del simulation.matrices[name]


def _looks_like(one: Matrix, other: Matrix) -> bool:
    """Return whether two matrices are the same view of the same parameters."""
    return one.kind == other.kind and all(
        torch.equal(mine.view(numbers), theirs.view(numbers))
        for mine, theirs in zip(one.parts, other.parts, strict=True)
        for numbers in [torch.arange(one.parameter(mine).numel()).view_as(one.parameter(mine))]
    )


def own_matrices(simulation: Simulation, names: Mapping[int, str]) -> dict[str, Matrix]:
    """Return the matrices whose weights and biases are arrays of their own.

    Parameters that serve elsewhere too, or of which only a part is trained or belongs to
    matrices, are arrays as they are, and have no factors.

    Parameters
    ----------
    simulation : Simulation
        The arrays of a network; it is noted why matrices have no factors.
    names : mapping
        ``id`` of a parameter -> its name.
    """
    held: dict[str, Matrix] = {}
    covered: dict[int, int] = {}
    for name, matrix in simulation.matrices.items():
        if matrix.preconditioned:
            held[name] = matrix
            for part in matrix.parts:
                parameter = matrix.parameter(part)
                size = part.view(parameter.detach()).numel()
                covered[id(parameter)] = covered.get(id(parameter), 0) + size
    for name, matrix in list(held.items()):
        for part in matrix.parts:
            parameter = matrix.parameter(part)
            if not parameter.requires_grad or covered[id(parameter)] != parameter.numel():
                what = "frozen" if not parameter.requires_grad else "used otherwise, too"
                why = f"{names[id(parameter)]} is {what}: plain gradient"
                simulation.matrices[name] = dataclasses.replace(matrix, without_factors=why)
                held.pop(name, None)
    shared = {
        id(matrix.parameter(part))
        for name, matrix in simulation.matrices.items()
        if name not in held
        for part in matrix.parts
    }
    for name, matrix in list(held.items()):
        if any(id(matrix.parameter(part)) in shared for part in matrix.parts):
            why = "shares a parameter with another matrix: plain gradient"
            simulation.matrices[name] = dataclasses.replace(matrix, without_factors=why)
            del held[name]
    return held


def _keep_path(module: nn.Module, path: str, stack: list[str]) -> None:
    """Keep the paths of the modules that are being called."""
    module.register_forward_pre_hook(lambda *_: stack.append(path))
    module.register_forward_hook(lambda *_: _pop(stack), always_call=True)


def _pop(stack: list[str]) -> None:
    # A call that was refused before it began has no path.
    if stack:
        stack.pop()


def _frame(model: nn.Module, simulation: Simulation, stack: list[str]) -> None:
    """Make every call of the network one of the simulation."""

    def begin(module: nn.Module, args: Any, kwargs: Any) -> None:
        tensors = list(_tensors((*args, *kwargs.values())))
        first = tensors[0] if tensors else None
        samples = 1 if first is None or not first.dim() else int(first.shape[simulation.batch_dim])
        train = torch.is_grad_enabled() and module.training
        signature = tuple(tuple(tensor.shape) for tensor in tensors)
        micro_batch = simulation.begin(samples, train, signature)
        functions = AttentionFunctions(simulation, lambda: stack[-1] if stack else "")
        micro_batch.context.enter_context(functions)
        _without_fast_path(micro_batch)

    def end(module: nn.Module, args: Any, kwargs: Any, outputs: Any) -> None:
        simulation.end(outputs)

    model.register_forward_pre_hook(begin, with_kwargs=True, prepend=True)
    model.register_forward_hook(end, with_kwargs=True, always_call=True)


def _without_fast_path(micro_batch: MicroBatch) -> None:
    """Keep PyTorch's transformer layers from going past their own modules."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    micro_batch.context.callback(torch.backends.mha.set_fastpath_enabled, before)


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors in nested arguments, in order."""
    if isinstance(values, torch.Tensor):
        yield values
    elif isinstance(values, Mapping):
        for value in values.values():
            yield from _tensors(value)
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _tensors(value)
