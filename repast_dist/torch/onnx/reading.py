"""Reads an ONNX file as a PyTorch module with the weights of the file.

Layers become PyTorch's own modules, so that they run on the arrays like those of any network;
all other operators are functions.
"""

import dataclasses
import fnmatch
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from google.protobuf.message import DecodeError
from onnx import TensorProto, inliner, shape_inference
from torch import nn

from repast_dist.ground.errors import DataError, SettingsError
from repast_dist.ground.user_code import described
from repast_dist.network.onnx_graph import dims_of_type
from repast_dist.torch.onnx.constants import Constants, read_attributes, uses
from repast_dist.torch.onnx.layers import BUILDERS, Biases
from repast_dist.torch.onnx.network import Declared, OnnxNetwork, begin_anew
from repast_dist.torch.onnx.operators import OPERATORS, Call
from repast_dist.torch.onnx.samples import NotTrained, Samples
from repast_dist.torch.onnx.store import Store

_OLDEST = 13
_DOMAINS = ("", "ai.onnx")
_WHOLE = (TensorProto.INT64, TensorProto.INT32)
_WEIGHTS = {
    "MatMul": (0, 1), "Gemm": (1, 2), "Einsum": (0, 1), "InstanceNormalization": (1, 2),
    "GroupNormalization": (1, 2), "LayerNormalization": (1, 2), "RMSNormalization": (1,),
}  # fmt: skip
"""Inputs of functions that are trained, whatever an exporter calls them."""
_OPEN = "an export of two samples with an open first dimension (docs/onnx.md)"
_MALFORMED = (
    IndexError, ValueError, TypeError, AttributeError, ArithmeticError, MemoryError, KeyError,
    RuntimeError,
)  # fmt: skip
"""What makers of layers stumble over in a file that is no network."""
_TOLERANCE = 1e-3
"""Of results for two samples at once, relative to the largest, in single precision."""


def from_onnx(path: str | Path, *, weights: str = "file", frozen: Sequence[str] = ()) -> nn.Module:
    """Return the network of an ONNX file as a module that can be trained.

    Parameters
    ----------
    path : str or Path
        The file, with its weights.
    weights : {"file", "fresh"}
        Where the first weights of layers come from: the file, or PyTorch's own way to begin. What
        belongs to no layer, such as tokens, positions and scales, begins as in the file.
    frozen : sequence of str
        Parameters that are not trained, by name or pattern: ``layers.0.*``.

    Returns
    -------
    Module
        It is called with the inputs of the file, samples first, in order or by name; several
        outputs are a mapping. Parameters have the names of the file. Products with weights are
        `nn.Linear`, `nn.Conv2d`, `nn.LSTM` and so on, which `convert` knows.

    Raises
    ------
    DataError
        The file is no ONNX model, or has something that cannot be trained; the message says what.
    SettingsError
        `weights` is none of the two, or a pattern fits no parameter.
    """
    if weights not in ("file", "fresh"):
        raise SettingsError(f"weights: '{weights}'; valid: file, fresh")
    network = _Reader(Path(path)).network()
    if weights == "fresh":
        begin_anew(network)
    parameters = dict(network.named_parameters())
    for pattern in frozen:
        chosen = fnmatch.filter(parameters, pattern)
        if not chosen:
            raise SettingsError(
                f"frozen: '{pattern}' is no parameter of {path}; valid: {', '.join(parameters)}"
            )
        for name in chosen:
            parameters[name].requires_grad_(False)
    return network


class _Reader:
    """Makes the module of one file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            model = onnx.load(str(path), load_external_data=False)
            if model.functions:
                model = inliner.inline_local_functions(model)
            model = shape_inference.infer_shapes(model, data_prop=True)
        except (OSError, DecodeError, ValueError, shape_inference.InferenceError) as error:
            raise DataError(f"{path}: not a readable ONNX model ({error})") from error
        version = max((o.version for o in model.opset_import if o.domain in _DOMAINS), default=0)
        if version < _OLDEST:
            raise DataError(
                f"{path}: operators of version {version}; valid: an export with opset_version="
                f"{_OLDEST} or later"
            )
        self._graph = model.graph
        self._inputs = self._declared()
        self._one = any(dims[0] == 1 for _, dims, _ in self._inputs)
        self._constants = Constants(model, path.parent, str(path), not self._one)
        self._outputs = [item.name for item in model.graph.output]
        self._store = Store(self._constants, uses(model.graph.node, self._outputs))
        self._samples = Samples()
        self._biases = self._sums()
        self._calls: list[Call] = []

    def network(self) -> OnnxNetwork:
        """Return the module."""
        done: set[str] = set()
        for node in self._graph.node:
            if not done.intersection(node.output):
                try:
                    self._add(node)
                except NotTrained as error:
                    raise DataError(
                        f"{self._path}: node {node.name!r}: {node.op_type} with {error} cannot be "
                        "trained; valid: the module itself (model.factory)"
                    ) from error
                except _MALFORMED as error:
                    raise DataError(
                        f"{self._path}: node {node.name!r} ({node.op_type}): inputs or attributes "
                        f"do not fit ({described(error)})"
                    ) from error
                done.update(self._calls[-1].outputs if self._calls else ())
        made = {name for call in self._calls for name in call.outputs}
        depends = {name for name, _, _ in self._inputs}
        for call in self._calls:
            if depends.intersection(call.inputs):
                depends.update(call.outputs)
        if not depends.intersection(self._outputs):
            raise DataError(f"{self._path}: the outputs depend on no input")
        for name in self._outputs:
            if name not in made and name in self._constants:
                self._store.hold(name)
        self._check_apart()
        self._store.tie()
        network = OnnxNetwork(self._calls, self._inputs, self._outputs, self._store.held)
        for name, child in self._store.root.named_children():
            network.add_module(name, child)
        for name, parameter in self._store.root.named_parameters(recurse=False):
            network.register_parameter(name, parameter)
        if not any(parameter.requires_grad for parameter in network.parameters()):
            raise DataError(f"{self._path}: the network holds no weights that can be trained")
        self._check_samples(network)
        return network

    def _declared(self) -> list[Declared]:
        """Return the inputs.

        Raises
        ------
        DataError
            They are for several samples.
        """
        found: list[Declared] = []
        held = {tensor.name for tensor in self._graph.initializer}
        for item in self._graph.input:
            if item.name in held:
                continue
            kind = item.type.tensor_type
            dims = dims_of_type(kind)
            if not dims or dims[0] not in (None, 1):
                what = f"for batches of {dims[0]}" if dims else "one number"
                raise DataError(
                    f"{self._path}: input {item.name} is {what}; valid: an export with one sample, "
                    f"or {_OPEN}"
                )
            found.append((item.name, dims, kind.elem_type in _WHOLE))
        if not found:
            raise DataError(f"{self._path}: the graph has no inputs")
        return found

    def _sums(self) -> Biases:
        """Return products that are used in one sum with a row of numbers only."""
        found: Biases = {}
        for node in self._graph.node:
            if node.op_type == "Add" and len(node.input) == 2:
                for product, other in (node.input, tuple(node.input)[::-1]):
                    if self._store.used[product] == 1:
                        found[product] = (node.output[0], other)
        return found

    def _add(self, node: Any) -> None:
        """Add the call of a node, unless it is a constant."""
        call = Call(
            node.op_type, tuple(node.input), tuple(node.output), read_attributes(node),
            samples=self._samples if self._one else None,
        )  # fmt: skip
        known = node.domain in _DOMAINS and (
            node.op_type in OPERATORS or node.op_type in BUILDERS or node.op_type == "Constant"
        )
        if not known:
            name = f"{node.domain}.{node.op_type}".lstrip(".")
            raise DataError(
                f"{self._path}: node {node.name!r}: operator {name} cannot be trained; valid: an "
                "export without it (docs/onnx.md), or the module itself (model.factory)"
            )
        if self._constants.track(node, call):
            return
        builder = BUILDERS.get(node.op_type)
        made = None if builder is None else builder(node, call, self._store, self._biases)
        if made is None:
            for place, name in enumerate(call.inputs):
                if name in self._constants:
                    self._store.hold(name, place in _WEIGHTS.get(node.op_type, ()))
            fixed = node.op_type == "Reshape" and node.input[1] in self._constants
            attributes = {**call.attributes, "fixed": int(fixed)}
            made = dataclasses.replace(call, attributes=attributes)
        self._calls.append(made)

    def _check_apart(self) -> None:
        twice = self._store.taken_twice()
        if twice:
            raise DataError(
                f"{self._path}: {', '.join(twice[:3])}: several weights are made of the same "
                "numbers, and would be trained apart; valid: the module itself (model.factory)"
            )

    def _check_samples(self, network: OnnxNetwork) -> None:
        """Check that a network that was written for one sample takes several beside each other."""
        if not self._one:
            return
        if any(None in dims for _, dims, _ in self._inputs):
            raise DataError(
                f"{self._path}: inputs are for one sample, and open otherwise; valid: {_OPEN}"
            )
        try:
            given = [_two_samples(item) for item in self._inputs]
        except RuntimeError as error:
            raise DataError(f"{self._path}: inputs: {described(error)}") from error
        network.eval()
        with torch.no_grad():
            reason = self._samples.choose(lambda: _difference(network, given))
        network.train()
        if reason:
            raise DataError(f"{self._path}: two samples at once: {reason}; valid: {_OPEN}")


def _two_samples(declared: Declared) -> torch.Tensor:
    """Return two samples of an input, the same ones in every call."""
    _, dims, whole = declared
    draw = torch.Generator().manual_seed(0)
    shape = (2, *(size or 1 for size in dims[1:]))
    if whole:
        return torch.randint(0, 2, shape, generator=draw)
    return torch.randn(shape, generator=draw)


def _difference(network: nn.Module, given: Sequence[torch.Tensor]) -> str:
    """Return why a network does not give for two samples what it gives for each; "": it does."""
    try:
        each = [_all(network(*(x[n : n + 1] for x in given))) for n in range(2)]
        both = _all(network(*given))
    except Exception as error:
        return described(error)
    for one, parts in zip(both, zip(*each, strict=True), strict=True):
        alone = torch.cat(parts)
        if one.shape != alone.shape:
            return f"{tuple(one.shape)} results, and {tuple(alone.shape)} of each"
        largest = float(alone.abs().max()) or 1.0
        if float((one - alone).abs().max()) > _TOLERANCE * largest:
            return "other results than of each"
    return ""


def _all(outputs: Any) -> list[torch.Tensor]:
    return list(outputs.values()) if isinstance(outputs, dict) else [outputs]
