"""Where a module can be cut, so that chips hold one stretch of its operations after the other.

A module is traced with ``torch.fx`` and run once by its operations. It is cut where one tensor is
all that goes on, and where nothing that is trained or that changes is used on both sides.
"""

import copy
import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from repast_dist.ground.global_streams import kept, positions
from repast_dist.ground.user_code import described
from repast_dist.network.shapes import LayerShape, Workload, digital_shape
from repast_dist.torch.draws import DropoutCounter, KeyedDropout
from repast_dist.torch.farm_module import LiveModule
from repast_dist.torch.layers.base import Converted
from repast_dist.torch.matrices import to_numpy
from repast_dist.torch.samples import called
from repast_dist.training.datasets.records import apart


@dataclasses.dataclass(frozen=True)
class Cut:
    """A place where one tensor is all that goes on.

    Attributes
    ----------
    row : int
        Row of the workload that comes next.
    node : int
        Number of the operation that comes next.
    dropouts : int
        Dropouts that were drawn before.
    """

    row: int
    node: int
    dropouts: int


@dataclasses.dataclass(frozen=True)
class Division:
    """Where a module can be cut.

    Attributes
    ----------
    workload : Workload
        Rows of what it computes, with the cuts; parameters that no product, normalisation or
        look-up has are rows where they are used first.
    cuts : tuple of Cut
        The places, in order.
    whole_modules : bool
        Whether modules of the user's own are single operations.
    undivided : str
        Why there are none; empty: there are some.
    """

    workload: Workload
    cuts: tuple[Cut, ...] = ()
    whole_modules: bool = False
    undivided: str = ""


@dataclasses.dataclass(frozen=True)
class Trial:
    """What one call of a module with a loss left, to be compared.

    Attributes
    ----------
    gradients, buffers : dict
        Name -> array.
    workload : Workload
        Rows of what it computed.
    """

    gradients: dict[str, np.ndarray]
    buffers: dict[str, np.ndarray]
    workload: Workload

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Trial)
            and self.workload == other.workload
            and _same(self.gradients, other.gradients)
            and _same(self.buffers, other.buffers)
        )

    __hash__ = None  # type: ignore[assignment]


def tried(live: LiveModule) -> Trial:
    """Return what the first call of a module left."""
    gradients = {
        name: np.array(to_numpy(item.grad))
        for name, item in live.module.named_parameters()
        if item.grad is not None
    }
    assert live.work.latest is not None
    return Trial(gradients, live.buffers(), live.work.latest)


class Operations:
    """The operations of a module, in the order in which it computes.

    Parameters
    ----------
    module : Module
        The module; it stays as it is.
    known : mapping
        Classes whose modules run on the arrays: single operations.
    inputs : ndarray
        Samples that it is called with; other arguments have their defaults.
    whole_modules : bool
        Whether modules of the user's own are single operations, too.

    Attributes
    ----------
    nodes : list of Node
        The operations; the last one is the output.
    """

    def __init__(
        self,
        module: nn.Module,
        known: Mapping[type[nn.Module], type[Converted]],
        inputs: np.ndarray,
        whole_modules: bool,
    ) -> None:
        module = copy.deepcopy(module)
        module.training = True
        self._arguments = inspect.signature(type(module).forward)
        tracer = _Tracer(tuple(known), whole_modules)
        self._graph = tracer.trace(module, self._left_out(inputs))
        self.nodes = list(self._graph.nodes)
        names = [node.target for node in self.nodes if node.op == "get_attr"]
        own = dict(tracer.root.named_parameters()) | dict(tracer.root.named_buffers())
        # What was computed of constants while the module was traced.
        self._constants = {
            name: getattr(tracer.root, name) for name in names if name.startswith("_tensor_const")
        }
        for name in set(names) - set(own) - set(self._constants):
            raise TypeError(f"{name} is used as it is")

    def _left_out(self, inputs: np.ndarray) -> dict[str, Any]:
        """Return the arguments that a call leaves out, and their defaults."""
        given = apart(inputs)
        if isinstance(given, dict):
            bound = self._arguments.bind(None, **given)
        else:
            bound = self._arguments.bind(None, *(given if isinstance(given, tuple) else (given,)))
        return {
            name: item.default
            for name, item in self._arguments.parameters.items()
            if name not in bound.arguments and item.default is not inspect.Parameter.empty
        }

    def run(
        self, live: LiveModule, watch: Callable[[int, Mapping[fx.Node, Any]], None]
    ) -> Callable[..., Any]:
        """Return a forward function of a module that computes its operations one by one.

        Parameters
        ----------
        live : LiveModule
            A copy of the module that was traced.
        watch : callable
            Called after each operation with its number and what it and those before have made.
        """
        interpreter = self._interpreter(live)

        def forward(*args: Any, **kwargs: Any) -> Any:
            interpreter.begin(self._bound(args, kwargs), {})
            for number in range(len(self.nodes)):
                interpreter.step(number)
                watch(number, interpreter.env)
            return interpreter.env[self.nodes[-1]]

        return forward

    def between(self, live: LiveModule, first: int, last: int | None) -> Callable[..., Any]:
        """Return a forward function that computes some operations of a module only.

        Parameters
        ----------
        live : LiveModule
            A copy of the module that was traced.
        first, last : int
            The operations; 0: the inputs of the function are those of the module, otherwise the
            one tensor that goes on there. None: to the end.
        """
        interpreter = self._interpreter(live)

        def forward(*args: Any, **kwargs: Any) -> Any:
            if first:
                interpreter.begin((), {self.crossing[first]: args[0]})
            else:
                interpreter.begin(self._bound(args, kwargs), {})
            for number in range(first, len(self.nodes) if last is None else last):
                interpreter.step(number)
            result = interpreter.env[self.nodes[-1] if last is None else self.crossing[last]]
            interpreter.begin((), {})
            return result

        return forward

    def _interpreter(self, live: LiveModule) -> "_Interpreter":
        for name, value in self._constants.items():
            live.module.__dict__.setdefault(name, value)
        return _Interpreter(live, self._graph, self.nodes)

    def _bound(self, args: Any, kwargs: Any) -> tuple[Any, ...]:
        """Return a call's arguments in their order; those that are left out are the defaults."""
        bound = self._arguments.bind(None, *args, **kwargs)
        bound.apply_defaults()
        return bound.args[1:]

    @functools.cached_property
    def crossing(self) -> dict[int, fx.Node]:
        """Number of an operation -> the only result that it and later ones take of those before;
        what modules hold is at hand everywhere.
        """
        ends = {
            given: number
            for number, node in enumerate(self.nodes)
            for given in node.all_input_nodes
        }
        found: dict[int, fx.Node] = {}
        live: dict[fx.Node, int] = {}
        for number, node in enumerate(self.nodes):
            live = {item: end for item, end in live.items() if end >= number}
            if len(live) == 1:
                (only,) = live
                if only.op != "placeholder":
                    found[number] = only
            if node in ends and node.op != "get_attr":
                live[node] = ends[node]
        return found

    def uses(self, module: nn.Module, number: int) -> Iterator[torch.Tensor]:
        """Yield the parameters and buffers that an operation takes of a module."""
        node = self.nodes[number]
        if node.op == "call_module":
            part = module.get_submodule(str(node.target))
            yield from part.parameters()
            yield from part.buffers()
        for given in node.all_input_nodes:
            if given.op == "get_attr" and given.target not in self._constants:
                where, _, name = str(given.target).rpartition(".")
                yield getattr(module.get_submodule(where), name)


class _Tracer(fx.Tracer):
    proxy_buffer_attributes = True  # what modules do to their buffers is an operation, too

    def __init__(self, known: tuple[type[nn.Module], ...], whole_modules: bool) -> None:
        super().__init__()
        self._known, self._whole = known, whole_modules

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Return whether a module is one operation."""
        hooks = (m._forward_hooks, m._forward_pre_hooks, m._backward_hooks, m._backward_pre_hooks)
        own = self._whole and not isinstance(m, nn.Sequential)
        leaf = super().is_leaf_module(m, module_qualified_name)
        return bool(leaf or own or isinstance(m, self._known) or any(map(bool, hooks)))


class _Interpreter(fx.Interpreter):
    """Computes operations one by one, at the paths of the modules that they are in."""

    def __init__(self, live: LiveModule, graph: fx.Graph, nodes: Sequence[fx.Node]) -> None:
        super().__init__(live.module, graph=graph)
        self._nodes, self._paths = nodes, live.simulation.paths

    def begin(self, args: tuple[Any, ...], env: dict[fx.Node, Any]) -> None:
        """Begin a call."""
        self.args_iter = iter(args)
        self.env = env

    def step(self, number: int) -> None:
        """Compute an operation; what no later one takes is forgotten."""
        node = self._nodes[number]
        for given in node.all_input_nodes:
            if given.op == "get_attr" and given not in self.env:
                self.env[given] = self.run_node(given)
        # Modules that are called keep their paths themselves.
        around = node.meta.get("nn_module_stack") if node.op != "call_module" else None
        if around:
            self._paths.append(next(reversed(around.values()))[0])
        try:
            self.env[node] = self.run_node(node)
        finally:
            if around:
                self._paths.pop()
        for used in self.user_to_last_uses.get(node, ()):
            self.env.pop(used, None)


def divide(
    module: nn.Module,
    known: Mapping[type[nn.Module], type[Converted]],
    inputs: np.ndarray,
    first: Trial,
    differentiate: Callable[[Any], None],
    begin_at: tuple[int | str, ...],
) -> Division:
    """Find where a module can be cut.

    Parameters
    ----------
    module : Module
        The module, in float64; it stays as it is.
    known : mapping
        PyTorch's class -> what its modules are converted to.
    inputs : ndarray
        Samples that it is called with.
    first : Trial
        What its first call left.
    differentiate : callable
        Runs the backward pass of the loss of its outputs.
    begin_at : tuple
        Seed and address of the streams of random numbers in that call.
    """
    hooked = any((module._forward_hooks, module._forward_pre_hooks, module._backward_hooks))
    if hooked:
        return Division(first.workload, undivided="hooks of the user's own see its calls")
    if isinstance(module, tuple(known)):
        return Division(first.workload, undivided="it is one operation")
    reason = ""
    for whole_modules in (False, True):
        try:
            with kept():
                trial = _Trace(module, known, inputs, whole_modules)
                found = trial.division(inputs, first, differentiate, begin_at)
        except Exception as error:
            why = f"PyTorch cannot trace its operations ({described(error)})"
            found = Division(first.workload, undivided=why)
        if found.cuts:
            return found
        reason = reason or found.undivided
    return Division(first.workload, undivided=reason)


class _Trace:
    """One run of a traced module by its operations, looked at between them."""

    def __init__(
        self,
        module: nn.Module,
        known: Mapping[type[nn.Module], type[Converted]],
        inputs: np.ndarray,
        whole_modules: bool,
    ) -> None:
        self._module, self._known, self._whole = module, known, whole_modules
        self._operations = Operations(module, known, inputs, whole_modules)
        self._live = LiveModule(module, known)
        self._crossing = self._operations.crossing
        self._events: list[int] = []
        self._dropouts: list[int] = []
        self._sizes: dict[int, int] = {}
        self._dense: set[int] = set()

    def division(
        self,
        inputs: np.ndarray,
        first: Trial,
        differentiate: Callable[[Any], None],
        begin_at: tuple[int | str, ...],
    ) -> Division:
        """Return where the module can be cut."""
        if not self._keyed(inputs):
            why = "it draws random numbers otherwise than by dropout"
            return Division(first.workload, undivided=why)
        live = self._live
        with DropoutCounter() as counter, kept() as begin, live.training():
            begin(*begin_at)
            live.module.forward = self._operations.run(
                live,
                lambda number, env: self._look(number, env, counter, len(inputs)),
            )
            differentiate(called(live.module, inputs))
        if tried(live) != first:
            why = "what it computes depends on more than its inputs"
            return Division(first.workload, undivided=why)
        workload, cuts = self._placed(len(inputs))
        if not cuts:
            why = "several tensors go on, or weights are used again behind it, wherever it is cut"
            return Division(first.workload, undivided=why)
        return Division(workload, cuts, self._whole)

    def _keyed(self, inputs: np.ndarray) -> bool:
        """Return whether all that it draws are dropouts."""
        live = LiveModule(self._module, self._known)
        with live.training(), KeyedDropout(0, 0, 0, np.arange(len(inputs))):
            before = positions()
            called(live.module, inputs)
            return positions() == before

    def _look(
        self, number: int, env: Mapping[fx.Node, Any], counter: DropoutCounter, samples: int
    ) -> None:
        """Note what is there after an operation."""
        self._events.append(len(self._live.simulation.running.events))
        self._dropouts.append(counter.calls)
        node = self._crossing.get(number + 1)
        value = None if node is None else env[node]
        if (
            isinstance(value, torch.Tensor)
            and value.requires_grad
            and value.dtype == torch.float64
            and value.dim()
            and len(value) == samples
            and _is_dense(value)
        ):
            self._sizes[number + 1] = value.numel() // samples
            value.register_hook(lambda error: _note(self._dense, number + 1, error))

    def _placed(self, samples: int) -> tuple[Workload, tuple[Cut, ...]]:
        """Return the rows of the workload and where they can be cut."""
        workload, moved = self._with_own_rows()
        reached, blocked = self._live.work.reached, self._blocked()
        # From each event on, the first row that is met.
        later = np.minimum.accumulate([row for row, _ in reached][::-1])[::-1].tolist()
        found: dict[int, Cut] = {}
        for node in sorted(self._dense & self._sizes.keys() - blocked):
            events = self._events[node - 1]
            if not 0 < events < len(reached) or later[events] < reached[events - 1][1]:
                continue
            row = reached[events - 1][1]
            before = [place for used, place in moved if used < node]
            behind = row + len(before)
            if (before and max(before) >= row) or behind >= len(workload.layers):
                continue
            *_, last = rows = workload.layers[:behind]
            # Errors of the passes for the Fisher matrix go as far as they are priced.
            needed = any(item.preconditioned for item in rows)
            if needed and last.output_elements_per_sample == self._sizes[node]:
                found[behind] = Cut(behind, node, self._dropouts[node - 1])
        cuts = tuple(found.values())
        return dataclasses.replace(workload, cuts=tuple(cut.row for cut in cuts)), cuts

    def _with_own_rows(self) -> tuple[Workload, list[tuple[int, int]]]:
        """Return the workload with a row for each parameter that belongs to no other row, where it
        is used first; and of each, that operation and the row that it is put before.
        """
        work, module = self._live.work, self._live.module
        workload = work.latest
        assert workload is not None
        if not work.rest:
            return workload, []
        parameters = {name: module.get_parameter(name) for name in work.rest}
        moved = []
        for name, parameter in parameters.items():
            used = [number for number in self._numbers if parameter in _Ids(self._uses(number))]
            node = used[0] if used else len(self._operations.nodes) - 1
            events = self._events[node - 1] if node else 0
            row = self._live.work.reached[events - 1][1] if events else 0
            moved.append((node, row, name))
        rows: list[LayerShape] = list(workload.layers[:-1])
        for _, row, name in sorted(moved, key=lambda item: item[1], reverse=True):
            shape = digital_shape(name, 0, 0, parameters=parameters[name].numel())
            rows.insert(row, shape)
        return dataclasses.replace(workload, layers=tuple(rows)), [item[:2] for item in moved]

    @property
    def _numbers(self) -> range:
        return range(len(self._operations.nodes))

    def _uses(self, number: int) -> Iterator[torch.Tensor]:
        return self._operations.uses(self._live.module, number)

    def _blocked(self) -> set[int]:
        """Return where something that is trained, or that changes, is used on both sides."""
        spans: dict[int, tuple[int, int]] = {}
        module, after = self._live.module, self._live.buffers()
        changes = {
            id(module.get_buffer(name))
            for name, before in self._module.named_buffers()
            if not np.array_equal(before.numpy(), after[name], equal_nan=True)
        }
        for number in self._numbers:
            for tensor in self._uses(number):
                if not isinstance(tensor, nn.Parameter) and id(tensor) not in changes:
                    continue
                start, _ = spans.get(id(tensor), (number, number))
                spans[id(tensor)] = start, number
        return {node for start, end in spans.values() for node in range(start + 1, end + 1)}


class _Ids:
    """Tensors by who they are."""

    def __init__(self, tensors: Iterator[torch.Tensor]) -> None:
        self._ids = {id(tensor) for tensor in tensors}

    def __contains__(self, tensor: torch.Tensor) -> bool:
        return id(tensor) in self._ids


def _note(dense: set[int], node: int, error: torch.Tensor) -> None:
    if _is_dense(error):
        dense.add(node)


def _is_dense(tensor: torch.Tensor) -> bool:
    """Return whether a tensor fills its memory, in whatever order its axes lie."""
    wanted = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1:
            if stride != wanted:
                return False
            wanted *= size
    return True


def _same(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(
        np.array_equal(one[name], other[name], equal_nan=True) for name in one
    )
