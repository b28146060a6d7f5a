"""Counts what a network's calls compute, and describes it as rows of a workload.

Products on arrays report themselves. Everything else is watched as PyTorch dispatches it, and
costs the digital operations that `repast_dist.network.operations` says.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from repast_dist.ground.numbers import ceil_div
from repast_dist.network import kinds
from repast_dist.network.operations import ADDITION, FUNCTION, NORMALIZATION, POOL, SOFTMAX
from repast_dist.network.shapes import LayerShape, Workload, digital_shape
from repast_dist.torch.layers.recurrent import RECURRENT
from repast_dist.torch.simulation import Event, MicroBatch, Watcher


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


FUNCTIONS = _words(
    "relu gelu silu sigmoid tanh exp exp2 expm1 log log1p log2 sqrt rsqrt reciprocal erf sin cos "
    "abs sign square hardtanh hardswish hardsigmoid elu leaky_relu softplus mish clamp clamp_min "
    "clamp_max logsigmoid_forward log_sigmoid_forward threshold _prelu_kernel bernoulli "
    "native_dropout masked_fill where maximum minimum logical_not floor ceil round"
)
"""One look-up or comparison per element, right where the number is made."""

BINARY = _words("add sub rsub mul div pow addcmul addcdiv lerp atan2 remainder fmod")
NORMS = _words(
    "native_layer_norm native_batch_norm _native_batch_norm_legit native_group_norm "
    "cudnn_batch_norm _batch_norm_with_update batch_norm_with_update _fused_rms_norm"
)
REDUCTIONS = _words(
    "mean sum amax amin max min prod std var var_mean linalg_vector_norm norm cumsum argmax "
    "argmin topk sort logsumexp any all _adaptive_avg_pool2d adaptive_max_pool2d"
)
SOFTMAXES = _words("_softmax _log_softmax _safe_softmax")
WINDOWS = {
    "max_pool2d_with_indices": 2,
    "avg_pool2d": 2,
    "max_pool3d_with_indices": 3,
    "avg_pool3d": 3,
}
PRODUCTS = _words("mm bmm addmm baddbmm convolution mv dot addbmm addmv")
MOVES = _words(
    "view _unsafe_view reshape _reshape_alias permute transpose t expand squeeze unsqueeze select "
    "slice split split_with_sizes unbind cat stack index index_select gather scatter clone copy "
    "copy_ _to_copy detach alias as_strided zeros ones full empty zeros_like ones_like full_like "
    "empty_like new_zeros new_ones new_full new_empty arange scalar_tensor lift_fresh im2col "
    "constant_pad_nd reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d flip "
    "roll repeat tril triu zero_ fill_ fill _local_scalar_dense unfold chunk pixel_shuffle "
    "pixel_unshuffle upsample_nearest2d empty_strided eq ne lt le gt ge slice_scatter "
    "select_scatter index_put one_hot diagonal movedim repeat_interleave is_pinned item "
    "logical_and logical_or bitwise_and bitwise_or bitwise_not resize_ set_ unsafe_split"
)
"""Data that only move, and masks, cost nothing."""


class WorkCounter(Watcher):
    """Describes each kind of call of a network as a workload, once.

    Parameters
    ----------
    model : Module
        The network.
    where : callable
        Returns the path of the module that is being called.

    Attributes
    ----------
    reached : tuple of (int, int)
        Of the call that was described last, after each of its events: the row that it belongs to,
        and how many rows there were.
    rest : tuple of str
        Parameters that this call has in a row of no event, the last one.
    """

    def __init__(self, model: nn.Module, where: Callable[[], str]) -> None:
        self._model, self._where = model, where
        self._found: dict[tuple[Any, ...], Workload] = {}
        self.reached: tuple[tuple[int, int], ...] = ()
        self.rest: tuple[str, ...] = ()

    @property
    def latest(self) -> Workload | None:
        """The workload of the kind of call that was described last."""
        return next(reversed(self._found.values()), None)

    def forget(self) -> None:
        """Describe calls anew: the treatment of the network has changed."""
        self._found.clear()

    def workload(self, signature: tuple[Any, ...]) -> Workload:
        """Return the workload of calls with these shapes of inputs."""
        return self._found[signature]

    def began(self, micro_batch: MicroBatch) -> None:
        """Watch a call with gradients of a kind that is new."""
        if micro_batch.train and micro_batch.signature not in self._found:
            micro_batch.context.enter_context(_Watch(micro_batch.events, self._where))

    def ended(self, micro_batch: MicroBatch, outputs: Any) -> None:
        """Describe what was watched."""
        if micro_batch.train and micro_batch.signature not in self._found:
            rows = _Rows(self._model, micro_batch)
            self._found[micro_batch.signature] = rows.workload()
            self.reached, self.rest = tuple(rows.reached), tuple(rows.rest)


class _Watch(TorchDispatchMode):
    """Adds an event for everything that is no product on arrays."""

    def __init__(self, events: list[Event], where: Callable[[], str]) -> None:
        super().__init__()
        self._events, self._where = events, where

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func._schema.name.partition("::")[2]
        plain = name.rstrip("_") if name.rstrip("_") in FUNCTIONS | BINARY else name
        if plain not in MOVES:
            first = out[0] if isinstance(out, list | tuple) else out
            shape = tuple(map(int, first.shape)) if isinstance(first, torch.Tensor) else ()
            operations = _operations(plain, args, shape)
            if operations or plain in PRODUCTS:
                self._events.append(Event(self._where(), plain, shape, operations))
        return out


def _operations(name: str, args: Sequence[Any], shape: tuple[int, ...]) -> int:
    """Return the digital operations of one call."""
    results = torch.Size(shape).numel()
    if name in FUNCTIONS:
        return FUNCTION * results
    if name in BINARY:
        constant = sum(isinstance(value, torch.Tensor) and value.dim() > 0 for value in args) < 2
        return 0 if constant and name in ("mul", "div") else ADDITION * results
    if name in SOFTMAXES:
        return SOFTMAX * results
    if name in NORMS:
        return NORMALIZATION * results
    if name in REDUCTIONS or name == "col2im":
        return POOL * int(args[0].numel())
    if name in WINDOWS:
        window = torch.Size(args[1]).numel()
        return POOL * (window if len(args[1]) > 1 else window ** WINDOWS[name]) * results
    if name == "embedding":
        return results
    if name in ("mm", "addmm", "bmm", "baddbmm"):
        left = args[1] if name in ("addmm", "baddbmm") else args[0]
        return 2 * int(left.shape[-1]) * results
    if name == "convolution":
        weight = args[1]
        transposed = bool(args[6])
        if transposed:
            return 2 * int(args[0].numel()) * int(weight[0].numel())
        return 2 * int(weight[0].numel()) * results
    return ADDITION * results


@dataclasses.dataclass
class _Row:
    """A row that is being made."""

    shape: LayerShape
    number: int
    operations: int = 0


class _Rows:
    """The rows of one call."""

    def __init__(self, model: nn.Module, micro_batch: MicroBatch) -> None:
        self._model, self._call = model, micro_batch
        self._samples = max(micro_batch.samples, 1)
        self._rows: list[_Row] = []
        self._of: dict[tuple[str, str], _Row] = {}
        self._counted: set[int] = set()
        self._modules = dict(model.named_modules())
        self._notes: dict[str, None] = {}
        self._met: _Row | None = None
        self.reached: list[tuple[int, int]] = []
        self.rest: list[str] = []

    def workload(self) -> Workload:
        """Return the workload."""
        for uses in self._call.uses.values():
            self._counted |= {id(uses.matrix.parameter(part)) for part in uses.matrix.parts}
        for event in self._call.events:
            self._add(event)
            met = 0 if self._met is None else self._met.number
            self.reached.append((met, len(self._rows)))
        self._rest()
        rows = [
            dataclasses.replace(
                row.shape,
                name=name,
                elementwise_ops=row.shape.elementwise_ops + ceil_div(row.operations, self._samples),
            )
            for name, row in zip(self._names(), self._rows, strict=True)
        ]
        return Workload(
            name=type(self._model).__name__,
            layers=tuple(rows),
            source="PyTorch modules as they were called",
            assumptions=tuple(self._notes),
        )

    def _names(self) -> list[str]:
        """Return names that are used once."""
        used: dict[str, int] = {}
        names = []
        for row in self._rows:
            before = used.get(row.shape.name, 0)
            used[row.shape.name] = before + 1
            names.append(f"{row.shape.name}:{before}" if before else row.shape.name)
        return names

    def _add(self, event: Event) -> None:
        if event.what == "matrix":
            self._add_matrix(event.name)
        elif event.what == "operands":
            self._add_operands(event)
        else:
            self._add_digital(event)

    def _add_matrix(self, name: str) -> None:
        uses = self._call.uses[name]
        matrix = uses.matrix
        # Groups with factors of their own are rows of their own, others are one.
        apart = matrix.preconditioned
        if matrix.group and not apart:
            return
        base = name.rpartition(".")[0] if matrix.groups > 1 else name
        module = self._modules.get(base)
        groups = 1 if apart else matrix.groups
        kind = matrix.kind
        if apart and kind is kinds.DEPTHWISE_CONV:
            kind = kinds.CONV  # of one channel
        elif groups > 1 and kind is kinds.CONV:
            kind = kinds.GROUPED_CONV
        if isinstance(matrix.module, tuple(RECURRENT)):
            self._notes[
                "The states of a recurrent layer are counted like the vectors of a sequence that "
                "is known at once: that each step waits for the one before is not in the time."
            ] = None
        own_bias = matrix.bias is None and isinstance(module, nn.ConvTranspose2d)
        extra = module.bias if own_bias and module is not None and not matrix.group else None
        shared = any(
            id(matrix.parameter(matrix.weight)) == id(other.matrix.parameter(other.matrix.weight))
            and other.matrix.weight == matrix.weight
            for other_name, other in self._call.uses.items()
            if other_name != name and ("matrix", other_name) in self._of
        )
        trained = matrix.trained and not shared
        count = groups * matrix.inputs * matrix.outputs
        count += 0 if matrix.bias is None else groups * matrix.outputs
        if extra is not None:
            self._counted.add(id(extra))
            count += int(extra.numel())
        self._put(
            "matrix",
            name,
            LayerShape(
                name=name if apart else base,
                kind=kind,
                in_features=matrix.inputs,
                out_features=matrix.outputs,
                vectors_per_sample=max(ceil_div(uses.vectors, self._samples), 1),
                bias=matrix.bias is not None,
                preconditioned=matrix.preconditioned,
                groups=groups,
                parameters=count if trained else 0,
                trained=matrix.trained,
            ),
        )

    def _add_operands(self, event: Event) -> None:
        n, heads, tokens, inner, outer = event.shape
        # What precedes the last three dimensions is samples and heads, in whatever order.
        groups = max(ceil_div(n * heads, self._samples), 1)
        name = ("operands", event.name)
        if name in self._of:
            old = self._of[name].shape
            vectors = old.vectors_per_sample + tokens
            self._met = self._of[name]
            self._of[name].shape = dataclasses.replace(old, vectors_per_sample=vectors)
            return
        self._put(
            "operands",
            event.name,
            LayerShape(
                name=event.name,
                kind=kinds.MATMUL,
                in_features=inner,
                out_features=outer,
                vectors_per_sample=tokens,
                groups=groups,
                bias=False,
                preconditioned=False,
            ),
        )

    def _add_digital(self, event: Event) -> None:
        key = (event.what, event.name)
        module = self._modules.get(event.name)
        name = ".".join(filter(None, (event.name, event.what.strip("_"))))
        elements = ceil_div(torch.Size(event.shape).numel(), self._samples)
        if key in self._of and isinstance(module, tuple(RECURRENT)):
            # What is done in every step of a sequence is one row.
            row = self._met = self._of[key]
            row.operations += event.operations
            if row.shape.kind is kinds.ELEMENTWISE:
                wide = row.shape.out_features + elements
                row.shape = dataclasses.replace(row.shape, out_features=wide)
            return
        follows = event.what in FUNCTIONS or event.what in SOFTMAXES
        if follows and self._rows:
            self._of[key] = self._met = self._rows[-1]
            self._rows[-1].operations += event.operations
            return
        if event.what in NORMS and module is not None:
            self._put(*key, self._norm(event, module))
        elif event.what == "embedding" and module is not None:
            self._put(*key, self._embedding(event, module))
        else:
            if event.what in PRODUCTS:
                self._notes[
                    f"{event.name or 'network'}: a product that PyTorch computes itself is counted "
                    "as digital work, two operations per multiplication."
                ] = None
            elif event.what not in BINARY | REDUCTIONS | set(WINDOWS) | {"col2im"}:
                self._notes[
                    f"{event.what} is counted as one digital operation per number that it gives."
                ] = None
            self._put(*key, digital_shape(name, elements, 0))
        self._of[key].operations += event.operations

    def _norm(self, event: Event, module: nn.Module) -> LayerShape:
        elements = ceil_div(torch.Size(event.shape).numel(), self._samples)
        weight = getattr(module, "weight", None)
        features = elements if weight is None else int(weight.numel())
        return LayerShape(
            name=event.name,
            kind=kinds.NORMALIZATION,
            in_features=features,
            out_features=features,
            vectors_per_sample=max(ceil_div(elements, max(features, 1)), 1),
            bias=False,
            preconditioned=False,
            parameters=self._own_parameters(module),
        )

    def _embedding(self, event: Event, module: nn.Module) -> LayerShape:
        entries, features = module.weight.shape
        elements = ceil_div(torch.Size(event.shape).numel(), self._samples)
        return LayerShape(
            name=event.name,
            kind=kinds.EMBEDDING,
            in_features=int(entries),
            out_features=int(features),
            vectors_per_sample=max(ceil_div(elements, int(features)), 1),
            bias=False,
            preconditioned=False,
            parameters=self._own_parameters(module),
        )

    def _own_parameters(self, module: nn.Module) -> int:
        """Return how many trained numbers of a module no row has counted yet."""
        count = 0
        for parameter in module.parameters(recurse=False):
            if id(parameter) not in self._counted and parameter.requires_grad:
                count += parameter.numel()
            self._counted.add(id(parameter))
        return count

    def _rest(self) -> None:
        """Add a row for trained numbers that belong to no other."""
        self.rest = [
            name
            for name, parameter in self._model.named_parameters()
            if id(parameter) not in self._counted and parameter.requires_grad
        ]
        left = sum(self._own_parameters(module) for module in self._model.modules())
        if left:
            shape = digital_shape("other parameters", 0, 0, parameters=left)
            self._put("rest", "rest", shape)

    def _put(self, what: str, name: str, shape: LayerShape) -> None:
        row = self._met = _Row(shape, len(self._rows))
        self._rows.append(row)
        self._of[what, name] = row
