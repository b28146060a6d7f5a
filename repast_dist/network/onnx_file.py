"""Layer tables from ONNX files: shapes only, weights are never loaded as numbers.

Products become layers, arithmetic becomes digital operations, and what only moves or describes
data costs nothing. Operators that are none of these are listed in the workload's assumptions
with what was assumed for them; none is dropped silently.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper, shape_inference

from repast_dist.ground.errors import DataError, SettingsError
from repast_dist.network import kinds
from repast_dist.network.operations import ADDITION, FUNCTION, NORMALIZATION, POOL, SOFTMAX
from repast_dist.network.shapes import LayerShape, Workload, digital_shape, normalization_shape

_FREE = frozenset((
    "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Dropout", "Cast",
    "Constant", "ConstantOfShape", "Shape", "Size", "Concat", "Split", "Slice", "Expand", "Tile",
    "Pad", "Range", "DepthToSpace", "SpaceToDepth", "QuantizeLinear", "DequantizeLinear",
))  # fmt: skip
_FUNCTIONS = (
    "Relu", "LeakyRelu", "PRelu", "Clip", "Neg", "Abs", "Max", "Min", "Where", "Equal", "Greater",
    "Less", "Not", "And", "Or", "Sqrt", "Pow", "Reciprocal", "HardSigmoid", "HardSwish", "Sigmoid",
    "Tanh", "Exp", "Log", "Erf", "Gelu", "Elu", "Softplus", "Mish",
)  # fmt: skip
_NORMALIZATIONS = (
    "BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization",
)  # fmt: skip
_FOLLOWING = frozenset((*_FUNCTIONS, "Softmax", "LogSoftmax"))
"""What runs on the results of a row, in that row, if it has one input that is no constant."""
_PER_OUTPUT = {
    **dict.fromkeys(_FUNCTIONS, FUNCTION),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Sum"), ADDITION),
    **dict.fromkeys(("Softmax", "LogSoftmax"), SOFTMAX),
    "LRN": NORMALIZATION,
}
"""Digital operations per output element."""
_PER_INPUT = {
    **dict.fromkeys(
        ("GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceSum", "ReduceMax", "ArgMax"),
        POOL,
    ),
    **dict.fromkeys(("ReduceL2", "TopK"), 2 * POOL),
}
"""Digital operations per input element; squares are summed, and sorting compares, twice."""
_POOLS = frozenset(("MaxPool", "AveragePool", "LpPool"))

Shape = tuple[int, ...]


@dataclasses.dataclass
class _Graph:
    """What the nodes of a graph refer to."""

    shapes: dict[str, Shape]
    weights: dict[str, Shape]
    free_dimensions: set[str]


# What a file that is no network makes the readers of its nodes stumble over.
_MALFORMED = (
    IndexError, ValueError, TypeError, AttributeError, ArithmeticError, MemoryError, KeyError,
    SettingsError,
)  # fmt: skip


def workload_from_onnx(path: Path) -> Workload:
    """Read a network from an ONNX file.

    Parameters
    ----------
    path : Path
        The file. Open dimensions (batch, sequence) are taken as 1 and noted.

    Returns
    -------
    Workload
        One layer per product, normalisation, embedding and piece of digital work, per sample.

    Raises
    ------
    DataError
        The file is no ONNX model, or a product's shapes cannot be inferred.
    """
    try:
        model = onnx.load(str(path), load_external_data=False)
        model = shape_inference.infer_shapes(model, data_prop=True)
    except (DecodeError, shape_inference.InferenceError, *_MALFORMED) as error:
        raise DataError(f"{path}: not a readable ONNX model ({error})") from error
    try:
        graph = _read(model.graph)
    except _MALFORMED as error:
        raise DataError(f"{path}: not a readable ONNX model ({error})") from error
    layers: list[LayerShape] = []
    unknown: Counter[str] = Counter()
    names: Counter[str] = Counter()
    made_by: dict[str, int] = {}
    for node in model.graph.node:
        before = _made_by(node, graph, made_by)
        if node.op_type not in _FREE and not _scales(node, graph):
            reader = _READERS.get(node.op_type, _digital)
            name = _unique(node.name or node.op_type.lower(), names)
            try:
                layer = reader(node, name, graph)
            except KeyError as error:
                raise DataError(
                    f"{path}: node {name} ({node.op_type}): the shape of {error} cannot be inferred"
                ) from error
            except _MALFORMED as error:
                raise DataError(
                    f"{path}: node {name} ({node.op_type}): inputs or attributes do not fit "
                    f"({type(error).__name__}: {error})"
                ) from error
            if reader is _digital and not _known(node.op_type):
                unknown[node.op_type] += 1
            joined = None if before is None else _joined(node, layers[before], layer)
            if before is not None and joined is not None:
                layers[before] = joined
            else:
                before = len(layers)
                layers.append(layer)
        if before is not None:
            made_by |= dict.fromkeys(node.output, before)
    if not layers:
        raise DataError(f"{path}: the graph has no operations")
    return Workload(
        name=path.stem,
        layers=tuple(layers),
        input_shape=_input_shape(model.graph, graph),
        source=str(path),
        assumptions=tuple(_assumptions(unknown, graph)),
    )


def _read(graph: Any) -> _Graph:
    weights = {item.name: tuple(item.dims) for item in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    weights[node.output[0]] = numpy_helper.to_array(attribute.t).shape
    shapes: dict[str, Shape] = dict(weights)
    free: set[str] = set()
    for item in (*graph.input, *graph.value_info, *graph.output):
        if not item.type.HasField("tensor_type") or not item.type.tensor_type.HasField("shape"):
            continue
        dimensions = []
        for dimension in item.type.tensor_type.shape.dim:
            if dimension.HasField("dim_value"):
                dimensions.append(int(dimension.dim_value))
            else:
                free.add(dimension.dim_param or "unnamed")
                dimensions.append(1)
        shapes.setdefault(item.name, tuple(dimensions))
    return _Graph(shapes, weights, free)


def _made_by(node: Any, graph: _Graph, made_by: dict[str, int]) -> int | None:
    """Return the row that makes a node's one input that is no constant, if there is one."""
    inputs = {name for name in node.input if name and name not in graph.weights}
    return made_by.get(inputs.pop()) if len(inputs) == 1 else None


def _scales(node: Any, graph: _Graph) -> bool:
    """Whether a node multiplies by one constant, which the scale of the numbers takes in."""
    constant = {"Mul": node.input, "Div": node.input[1:]}.get(node.op_type, ())
    return any(math.prod(graph.weights.get(name, (0,))) == 1 for name in constant)


def _joined(node: Any, before: LayerShape, layer: LayerShape) -> LayerShape | None:
    """Return the row before with what a node adds to it, or None if the node has its own row."""
    if node.op_type in _FOLLOWING and not layer.parameters:
        return before.followed_by(layer.elementwise_ops)
    biased = before.has_weights and not (before.bias or before.elementwise_ops)
    if node.op_type == "Add" and biased and layer.parameters == before.out_features:
        return dataclasses.replace(before, bias=True)
    return None


def _conv(node: Any, name: str, graph: _Graph) -> LayerShape:
    kernel = graph.shapes[node.input[1]]
    output = graph.shapes[node.output[0]]
    groups = int(_attribute(node, "group", 1))
    rows, columns = math.prod(kernel[1:]), kernel[0] // groups
    return LayerShape(
        name=name,
        kind=kinds.CONV if groups == 1 else kinds.DEPTHWISE_CONV,
        in_features=rows,
        out_features=columns,
        vectors_per_sample=math.prod(output[2:]),
        groups=groups,
        bias=len(node.input) > 2,
        preconditioned=groups == 1,
    )


def _gemm(node: Any, name: str, graph: _Graph) -> LayerShape:
    if node.input[1] not in graph.weights:
        return _matmul(node, name, graph)
    matrix = graph.shapes[node.input[1]]
    rows, columns = matrix[::-1] if _attribute(node, "transB", 0) else matrix
    return _dense(name, rows, columns, 1, bias=len(node.input) > 2)


def _matmul(node: Any, name: str, graph: _Graph) -> LayerShape:
    left, right = graph.shapes[node.input[0]], graph.shapes[node.input[1]]
    if node.input[1] in graph.weights and len(right) == 2:
        return _dense(name, right[0], right[1], max(1, math.prod(left[1:-1])), bias=False)
    return LayerShape(
        name=name,
        kind=kinds.MATMUL,
        in_features=left[-1],
        out_features=right[-1],
        vectors_per_sample=left[-2] if len(left) > 1 else 1,
        groups=max(1, math.prod(right[1:-2])),
        bias=False,
        preconditioned=False,
    )


def _dense(name: str, rows: int, columns: int, vectors: int, bias: bool) -> LayerShape:
    return LayerShape(
        name=name,
        kind=kinds.DENSE,
        in_features=rows,
        out_features=columns,
        vectors_per_sample=vectors,
        bias=bias,
    )


def _gather(node: Any, name: str, graph: _Graph) -> LayerShape:
    """A look-up in weights is an embedding; any other only moves data."""
    table = graph.weights.get(node.input[0])
    if table is None or len(table) != 2:
        return digital_shape(name, 1, 0)
    features = table[1]
    vectors = max(1, math.prod(graph.shapes[node.output[0]]) // max(features, 1))
    return LayerShape(
        name=name,
        kind=kinds.EMBEDDING,
        in_features=table[0],
        out_features=features,
        vectors_per_sample=vectors,
        bias=False,
        preconditioned=False,
        parameters=math.prod(table),
        elementwise_ops=features * vectors,
    )


def _pool(node: Any, name: str, graph: _Graph) -> LayerShape:
    elements = _per_sample(graph.shapes[node.output[0]])
    kernel = math.prod(_attribute(node, "kernel_shape", [1]))
    return digital_shape(name, elements, POOL * elements * kernel)


def _digital(node: Any, name: str, graph: _Graph) -> LayerShape:
    """Return arithmetic on elements; an unknown operator counts one operation per output."""
    if node.op_type in _PER_INPUT:
        source = _per_sample(graph.shapes[node.input[0]])
        elements = _per_sample(graph.shapes.get(node.output[0], (1,)))
        return digital_shape(name, elements, _PER_INPUT[node.op_type] * source)
    elements = _per_sample(graph.shapes.get(node.output[0], (1,)))
    held = [math.prod(graph.weights[i]) for i in node.input if i in graph.weights]
    # Single numbers are constants of the function: bounds, exponents.
    trained = sum(numbers for numbers in held if numbers > 1 or not _known(node.op_type))
    return digital_shape(name, elements, _PER_OUTPUT.get(node.op_type, 1) * elements, trained)


def _normalization(node: Any, name: str, graph: _Graph) -> LayerShape:
    """A scale and a shift per channel, or per feature of a layer normalisation."""
    features = math.prod(graph.shapes[node.input[1]])
    vectors = _per_sample(graph.shapes[node.output[0]]) // features
    return normalization_shape(name, features, vectors)


_READERS: dict[str, Callable[[Any, str, _Graph], LayerShape]] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Gather": _gather,
    **dict.fromkeys(_NORMALIZATIONS, _normalization),
    **dict.fromkeys(_POOLS, _pool),
}


def _known(op_type: str) -> bool:
    return op_type in _PER_OUTPUT or op_type in _PER_INPUT


def _per_sample(shape: Shape) -> int:
    return max(1, math.prod(shape[1:]))


def _attribute(node: Any, name: str, default: Any) -> Any:
    for attribute in node.attribute:
        if attribute.name == name:
            return onnx.helper.get_attribute_value(attribute)
    return default


def _unique(name: str, names: Counter[str]) -> str:
    names[name] += 1
    return name if names[name] == 1 else f"{name}_{names[name]}"


def _input_shape(graph: Any, read: _Graph) -> Shape:
    inputs = [item.name for item in graph.input if item.name not in read.weights]
    return read.shapes.get(inputs[0], ())[1:] if inputs else ()


def _assumptions(unknown: Counter[str], graph: _Graph) -> list[str]:
    notes = [
        f"Operator {name} ({count} times) is not known: one digital operation per output element."
        for name, count in sorted(unknown.items())
    ]
    if graph.free_dimensions:
        listed = ", ".join(sorted(graph.free_dimensions))
        notes.append(f"Open dimensions taken as 1: {listed}.")
    return notes
