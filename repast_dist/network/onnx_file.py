"""Layer tables from ONNX files: shapes only.

Products become layers, arithmetic becomes digital operations, and what only moves or describes
data costs nothing, nor does what is the same for every input. Operators that are none of these are
refused where they hold weights, and otherwise listed in the workload's assumptions with what was
assumed for them; none is dropped silently. `repast_dist.network.onnx_products` reads products.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError
from onnx import shape_inference

from repast_dist.ground.errors import DataError, SettingsError
from repast_dist.network import kinds
from repast_dist.network.losses import Loss, LossShape
from repast_dist.network.onnx_graph import Graph, attribute_of
from repast_dist.network.onnx_products import PRODUCTS, NotKnown
from repast_dist.network.operations import ADDITION, FUNCTION, NORMALIZATION, POOL, SOFTMAX
from repast_dist.network.shapes import (
    LayerShape,
    Workload,
    digital_shape,
    embedding_shape,
    normalization_shape,
)

_FREE = frozenset((
    "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Dropout", "Cast",
    "CastLike", "Constant", "ConstantOfShape", "Shape", "Size", "Concat", "Split", "Slice",
    "Expand", "Tile", "Pad", "Range", "DepthToSpace", "SpaceToDepth", "QuantizeLinear",
    "DequantizeLinear",
    "EyeLike", "GatherElements", "GatherND", "ScatterND", "ScatterElements", "Trilu",
    "ReverseSequence", "NonZero", "SplitToSequence", "SequenceAt", "SequenceConstruct",
    "ConcatFromSequence",
))  # fmt: skip
_FUNCTIONS = (
    "Relu", "LeakyRelu", "PRelu", "Clip", "Neg", "Abs", "Max", "Min", "Where", "Equal", "Greater",
    "Less", "GreaterOrEqual", "LessOrEqual", "Not", "And", "Or", "Xor", "Sqrt", "Pow", "Reciprocal",
    "HardSigmoid", "HardSwish", "Swish", "Sigmoid", "Tanh", "Exp", "Log", "Erf", "Gelu", "Elu",
    "Selu", "Celu", "Softplus", "Softsign", "Mish", "Sin", "Cos", "Floor", "Ceil", "Round", "Sign",
    "Mod", "IsNaN", "IsInf", "ThresholdedRelu", "OneHot",
)  # fmt: skip
_NORMALIZATIONS = (
    "BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization",
    "RMSNormalization", "SimplifiedLayerNormalization",
)  # fmt: skip
_FOLLOWING = frozenset((*_FUNCTIONS, "Softmax", "LogSoftmax"))
"""What runs on the results of a row, in that row, if it has one input that is no constant."""
_PER_OUTPUT = {
    **dict.fromkeys(_FUNCTIONS, FUNCTION),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Sum", "Mean", "CumSum"), ADDITION),
    **dict.fromkeys(("Softmax", "LogSoftmax"), SOFTMAX),
    # Two products and a sum; four neighbours are weighed.
    **dict.fromkeys(("RotaryEmbedding",), 3 * ADDITION),
    **dict.fromkeys(("Resize", "Upsample", "GridSample"), 4 * ADDITION),
    **dict.fromkeys(("LRN", "LpNormalization", "MeanVarianceNormalization"), NORMALIZATION),
}
"""Digital operations per output element."""
_PER_INPUT = {
    **dict.fromkeys(
        ("GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin",
         "ReduceProd", "ReduceL1", "ArgMax", "ArgMin"),
        POOL,
    ),
    **dict.fromkeys(("ReduceL2", "ReduceSumSquare", "ReduceLogSumExp", "TopK"), 2 * POOL),
}  # fmt: skip
"""Digital operations per input element; squares are summed, and sorting compares, twice."""
_POOLS = frozenset(("MaxPool", "AveragePool", "LpPool"))
_IMAGE = 4
"""Axes of a batch of images, channels behind the samples."""
_DOMAINS = frozenset(("", "ai.onnx", "com.microsoft"))

# What a file that is no network makes the readers of its nodes stumble over.
_MALFORMED = (
    IndexError, ValueError, TypeError, AttributeError, ArithmeticError, MemoryError, KeyError,
)  # fmt: skip


@dataclasses.dataclass
class _Reading:
    """Rows so far, and what is to be said about them."""

    layers: list[LayerShape] = dataclasses.field(default_factory=list)
    names: Counter[str] = dataclasses.field(default_factory=Counter)
    unknown: Counter[str] = dataclasses.field(default_factory=Counter)
    made_by: dict[str, int] = dataclasses.field(default_factory=dict)
    operators: Counter[str] = dataclasses.field(default_factory=Counter)
    again: int = 0


def workload_from_onnx(
    path: Path,
    *,
    batch_axis: int = 0,
    sequence: int | None = None,
    allow_unknown: bool = False,
    loss: Loss | None = None,
) -> Workload:
    """Read a network from an ONNX file.

    Parameters
    ----------
    path : Path
        The file.
    batch_axis : int
        Axis of the first input that counts samples: vectors per sample are all vectors over it.
    sequence : int or None
        What open dimensions other than the batch are taken as; None: 1, which is noted. An open
        batch is 1.
    allow_unknown : bool
        Whether operators that are not known may hold weights: priced as one digital operation per
        output element.
    loss : str or None
        What the first output is trained for, as ``model.loss``; None: its loss is not priced.

    Returns
    -------
    Workload
        One layer per product, normalisation, embedding and piece of digital work, per sample.

    Raises
    ------
    DataError
        The file is no ONNX model, a product's shapes cannot be inferred, or an operator that holds
        weights is not known.
    SettingsError
        There is no such axis, or a sequence is given where no dimension is open.
    """
    try:
        model = onnx.load(str(path), load_external_data=False)
        graph = Graph(model, batch_axis, sequence, path.parent)
    except SettingsError:
        raise
    except (DecodeError, shape_inference.InferenceError, *_MALFORMED) as error:
        raise DataError(f"{path}: not a readable ONNX model ({error})") from error
    done = _Reading()
    for node in graph.nodes:
        try:
            # Training computes products of weights and constants anew in every step.
            fixed = _is_constant(node, graph) and not _weights_of(node, graph)
            if not (node.op_type in _FREE or fixed or _scales(node, graph)):
                _read(node, graph, done, path, allow_unknown)
            elif (before := _made_by(node, graph, done)) is not None:
                done.made_by |= dict.fromkeys(node.output, before)
        except (*_MALFORMED, SettingsError) as error:
            raise DataError(
                f"{path}: node {node.name!r} ({node.op_type}): inputs or attributes do not fit "
                f"({type(error).__name__}: {error})"
            ) from error
    if not done.layers:
        raise DataError(f"{path}: the graph has no operations")
    return Workload(
        name=path.stem,
        layers=tuple(_with_left_over(done.layers, graph)),
        input_shape=graph.input_shape,
        source=str(path),
        assumptions=tuple(_assumptions(done, graph, sequence, loss)),
        losses=() if loss is None else (_loss_shape(loss, graph),),
    )


def _loss_shape(loss: Loss, graph: Graph) -> LossShape:
    """Return the loss of the first output, of which every row has a label: the axis of classes is
    the last one, and of images that behind the samples.
    """
    shape = graph.result or (1,)
    width = max(shape[1] if len(shape) >= _IMAGE else shape[-1], 1)
    return LossShape(loss=loss, rows=graph.per_sample(math.prod(shape) // width), width=width)


def _read(node: Any, graph: Graph, done: _Reading, path: Path, allow_unknown: bool) -> None:
    """Add a node's rows to those before it."""
    name = _unique(graph.name_of(node, *_weights_of(node, graph)), done.names)
    known = node.domain in _DOMAINS and (node.op_type in _READERS or _known(node.op_type))
    try:
        rows = _READERS.get(node.op_type, _digital)(node, name, graph) if known else None
    except NotKnown:
        rows = None
    except KeyError as error:
        raise DataError(
            f"{path}: node {name} ({node.op_type}): the shape of {error} cannot be inferred"
        ) from error
    if rows is None:
        held = _held(node, graph)
        if held and not allow_unknown:
            raise DataError(
                f"{path}: node {name}: operator {node.op_type} is not known, and it holds {held:,} "
                "weights; valid: an export without it (docs/onnx.md), or workload.unknown=allow to "
                "price it as one digital operation per output element"
            )
        done.unknown[node.op_type] += 1
        rows = _digital(node, name, graph)
    done.operators[node.op_type] += 1
    before = _made_by(node, graph, done)
    if not rows:
        if before is not None:
            done.made_by |= dict.fromkeys(node.output, before)
        return
    if len(rows) == 1 and (again := _same_weights(rows[0], done)) is not None:
        # Used once more: more vectors for what lies in the arrays already.
        first = done.layers[again]
        more = first.vectors_per_sample + rows[0].vectors_per_sample
        done.layers[again] = dataclasses.replace(first, vectors_per_sample=more)
        done.again += 1
        done.made_by |= dict.fromkeys(node.output, again)
        return
    joined = None
    if before is not None and len(rows) == 1:
        joined = _joined(node, done.layers[before], rows[0])
    if before is not None and joined is not None:
        done.layers[before] = joined
    else:
        done.layers += rows
        before = len(done.layers) - 1
    done.made_by |= dict.fromkeys(node.output, before)


def _same_weights(row: LayerShape, done: _Reading) -> int | None:
    """Return the row before that multiplies by the same matrix, if there is one."""
    for number, other in enumerate(done.layers if row.shares_weights_with else ()):
        if other.name == row.shares_weights_with and other.has_weights:
            same = all(
                getattr(row, field) == getattr(other, field)
                for field in ("kind", "groups", "in_features", "out_features")
            )
            return number if same else None
    return None


def _weights_of(node: Any, graph: Graph) -> list[str]:
    """Return the inputs of a product that are weights: a layer is called after them."""
    if node.op_type not in PRODUCTS and not (
        node.op_type in _READERS and any(not graph.is_constant(name) for name in node.input if name)
    ):
        return []
    return [name for name in node.input if name and graph.weights(name, made_up=True)]


def _is_constant(node: Any, graph: Graph) -> bool:
    named = [name for name in node.output if name]
    return bool(named) and all(graph.is_constant(name) for name in named)


def _made_by(node: Any, graph: Graph, done: _Reading) -> int | None:
    """Return the row that makes a node's one input that is no constant, if there is one."""
    inputs = {name for name in node.input if name and not graph.is_constant(name)}
    return done.made_by.get(inputs.pop()) if len(inputs) == 1 else None


def _scales(node: Any, graph: Graph) -> bool:
    """Whether a node multiplies by one constant, which the scale of the numbers takes in."""
    given = {"Mul": node.input, "Div": node.input[1:]}.get(node.op_type, ())
    return any(
        graph.is_constant(name) and math.prod(graph.constants[name].shape) == 1 for name in given
    )


def _joined(node: Any, before: LayerShape, layer: LayerShape) -> LayerShape | None:
    """Return the row before with what a node adds to it, or None if the node has its own row."""
    if node.op_type in _FOLLOWING and not layer.parameters:
        return before.followed_by(layer.elementwise_ops)
    biased = before.has_weights and not (before.bias or before.elementwise_ops)
    if node.op_type == "Add" and biased and layer.parameters == before.groups * before.out_features:
        parameters = before.parameters
        if parameters is None and before.shares_weights_with:
            parameters = 0
        more = None if parameters is None else parameters + layer.parameters
        return dataclasses.replace(before, bias=True, parameters=more)
    return None


def _gather(node: Any, name: str, graph: Graph) -> list[LayerShape]:
    """A look-up in weights is an embedding; any other only moves data."""
    table = graph.constants.get(node.input[0])
    if table is None or len(table.shape) != 2 or not graph.weights(node.input[0], made_up=True):
        return []
    features = table.shape[1]
    vectors = max(1, graph.elements(node.output[0]) // max(features, 1))
    row = embedding_shape(name, table.shape[0], features, vectors)
    new = graph.take(node.input[0], name, made_up=True)
    return [dataclasses.replace(row, parameters=new)]


def _pool(node: Any, name: str, graph: Graph) -> list[LayerShape]:
    elements = graph.elements(node.output[0])
    kernel = math.prod(attribute_of(node, "kernel_shape", [1]))
    return [digital_shape(name, elements, POOL * elements * kernel)]


def _digital(node: Any, name: str, graph: Graph) -> list[LayerShape]:
    """Return arithmetic on elements; an unknown operator counts one operation per output."""
    elements = graph.elements(node.output[0])
    if node.op_type in _PER_INPUT:
        source = graph.elements(node.input[0])
        return [digital_shape(name, elements, _PER_INPUT[node.op_type] * source)]
    trained = sum(graph.take(i, name) for i in node.input if i and graph.is_constant(i))
    return [digital_shape(name, elements, _PER_OUTPUT.get(node.op_type, 1) * elements, trained)]


def _normalization(node: Any, name: str, graph: Graph) -> list[LayerShape]:
    """A scale and a shift per channel, or per feature of a layer normalisation."""
    features = math.prod(graph.shapes[node.input[1]])
    elements = graph.per_sample(math.prod(graph.shapes[node.output[0]]))
    row = normalization_shape(name, features, elements // features)
    # Means and variances that batch norm keeps are not trained.
    trained = sum(graph.take(i, name) for i in node.input[1:3] if i and graph.is_constant(i))
    return [dataclasses.replace(row, parameters=trained)]


_READERS: dict[str, Callable[[Any, str, Graph], list[LayerShape]]] = {
    **PRODUCTS,
    "Gather": _gather,
    **dict.fromkeys(_NORMALIZATIONS, _normalization),
    **dict.fromkeys(_POOLS, _pool),
}


def _known(op_type: str) -> bool:
    return op_type in _PER_OUTPUT or op_type in _PER_INPUT


def _held(node: Any, graph: Graph) -> int:
    """Return how many numbers an operator and its bodies hold that may be weights."""
    bodies = [a.g for a in node.attribute if a.HasField("g")]
    inside = sum(
        math.prod(tensor.dims) for body in bodies for tensor in body.initializer
        if math.prod(tensor.dims) > 1
    )  # fmt: skip
    inside += sum(_held(inner, graph) for body in bodies for inner in body.node)
    return inside + sum(graph.weights(name, made_up=True) for name in node.input if name)


def _with_left_over(layers: list[LayerShape], graph: Graph) -> list[LayerShape]:
    """Give tensors' parts that no layer reads to the layer that reads the rest of them."""
    more: Counter[str] = Counter()
    for layer, numbers in graph.left_over():
        more[layer] += numbers
    return [
        dataclasses.replace(layer, parameters=layer.parameter_count + more[layer.name])
        if more[layer.name]
        else layer
        for layer in layers
    ]


def _unique(name: str, names: Counter[str]) -> str:
    names[name] += 1
    return name if names[name] == 1 else f"{name}_{names[name]}"


def _assumptions(
    done: _Reading, graph: Graph, sequence: int | None, loss: Loss | None
) -> list[str]:
    notes = [
        f"Operator {name} ({count} times) is not known: one digital operation per output element."
        for name, count in sorted(done.unknown.items())
    ]
    if graph.open_dimensions:
        listed = ", ".join(sorted(set(graph.open_dimensions)))
        taken = "1" if sequence is None else f"1 (the batch) or {sequence}"
        notes.append(f"Open dimensions taken as {taken}: {listed}.")
    if graph.batch > 1:
        notes.append(f"The file's input has {graph.batch} samples; figures are of one.")
    layers = done.layers
    grouped = sum(1 for layer in layers if layer.kind in (kinds.DEPTHWISE_CONV, kinds.GROUPED_CONV))
    if grouped:
        notes.append(f"Convolutions of several groups ({grouped}) get a first-order update.")
    tied = sum(1 for layer in layers if layer.shares_weights_with and not layer.preconditioned)
    if tied:
        notes.append(f"Layers that share an embedding's weights ({tied}): a first-order update.")
    if done.again:
        notes.append(
            f"Products with weights that were used before ({done.again}) are further vectors of "
            "those. Exporters join equal tensors: of untrained copies of a layer one is left."
        )
    if any(done.operators[name] for name in ("LSTM", "GRU", "RNN")):
        notes.append("Kronecker factors of recurrent layers take their steps as independent.")
    if done.operators["Conv"] and not any(done.operators[name] for name in _NORMALIZATIONS):
        notes.append("The file has no normalisation: where it was folded, its work is missing.")
    if loss is None:
        notes.append("The file does not say what it is trained for: workload.loss prices a loss.")
    return notes
