"""Products in ONNX graphs as layers: dense, convolutions, einsum, recurrent cells and attention.

Every product is groups of matrices K x M that S vectors per sample are multiplied by, so that
``groups * K * M * S`` is the number of multiplications of a sample, whatever axis the batch has.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from repast_dist.network import kinds
from repast_dist.network.kinds import LayerKind
from repast_dist.network.onnx_graph import Graph, attribute_of
from repast_dist.network.operations import ADDITION, FUNCTION, SOFTMAX
from repast_dist.network.shapes import LayerShape, digital_shape

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_CELL_OPERATIONS = {
    # Per state and step: functions; then sums of both products, and products and sums of gates.
    "LSTM": 5 * FUNCTION + (4 + 4) * ADDITION,
    "GRU": 3 * FUNCTION + (3 + 4) * ADDITION,
    "RNN": FUNCTION + ADDITION,
}


class NotKnown(Exception):
    """A form of an operator that has no reader."""


def _weighted(
    graph: Graph,
    name: str,
    kind: LayerKind,
    weight: str,
    bias: str,
    rows: int,
    columns: int,
    total_vectors: int,
    groups: int = 1,
    bias_numbers: int | None = None,
) -> LayerShape:
    """Return a product with weights of the file; `total_vectors` are those of the whole batch."""
    if bias and not graph.weights(bias, made_up=True):
        bias = ""  # Zeros that an exporter has put in.
    numbers = groups * rows * columns
    taken = graph.take(weight, name, made_up=True)
    of_bias = graph.take(bias, name, made_up=True) if bias else 0
    first = graph.first_user(weight)
    shared = first if not taken and first != name else ""
    expected = groups * columns if bias else 0
    plain = taken == numbers and of_bias == expected and bias_numbers is None
    return LayerShape(
        name=name,
        kind=kind,
        in_features=rows,
        out_features=columns,
        vectors_per_sample=graph.per_sample(total_vectors),
        groups=groups,
        bias=bool(bias),
        preconditioned=groups == 1 and kind.has_factors and not shared,
        parameters=None if plain else taken + of_bias,
        shares_weights_with=shared,
    )


def _activations(
    graph: Graph, name: str, rows: int, columns: int, vectors: int, groups: int
) -> LayerShape:
    """Return a product of two activations; `groups` and `vectors` are those of the whole batch."""
    batch = graph.batch
    if groups % batch == 0:
        groups //= batch
    elif vectors % batch == 0:
        vectors //= batch
    else:
        groups = graph.per_sample(groups)
    return LayerShape(
        name=name,
        kind=kinds.MATMUL,
        in_features=rows,
        out_features=columns,
        vectors_per_sample=max(1, vectors),
        groups=max(1, groups),
        bias=False,
        preconditioned=False,
    )


def _conv(node: Any, name: str, graph: Graph) -> list[LayerShape]:
    kernel, output = graph.shapes[node.input[1]], graph.shapes[node.output[0]]
    groups = int(attribute_of(node, "group", 1))
    rows, columns = math.prod(kernel[1:]), kernel[0] // groups
    vectors = output[0] * math.prod(output[2:])
    if not graph.is_constant(node.input[1]):
        return [_activations(graph, name, rows, columns, vectors, groups)]
    kind = kinds.CONV
    if groups > 1:
        kind = kinds.DEPTHWISE_CONV if kernel[1] == 1 else kinds.GROUPED_CONV
    bias = _input(node, 2)
    return [
        _weighted(graph, name, kind, node.input[1], bias, rows, columns, vectors, groups=groups)
    ]


def _conv_transpose(node: Any, name: str, graph: Graph) -> list[LayerShape]:
    """Each input position is multiplied by what it adds to all the outputs it reaches."""
    kernel, source = graph.shapes[node.input[1]], graph.shapes[node.input[0]]
    groups = int(attribute_of(node, "group", 1))
    rows, columns = kernel[0] // groups, math.prod(kernel[1:])
    vectors = source[0] * math.prod(source[2:])
    if not graph.is_constant(node.input[1]):
        return [_activations(graph, name, rows, columns, vectors, groups)]
    kind = kinds.CONV if groups == 1 else kinds.GROUPED_CONV
    outputs = kernel[1] * groups
    row = _weighted(
        graph, name, kind, node.input[1], _input(node, 2), rows, columns, vectors,
        groups=groups, bias_numbers=outputs,
    )  # fmt: skip
    # Overlapping contributions are added up.
    return [dataclasses.replace(row, elementwise_ops=ADDITION * row.output_elements_per_sample)]


def _gemm(node: Any, name: str, graph: Graph) -> list[LayerShape]:
    left, right = graph.shapes[node.input[0]], graph.shapes[node.input[1]]
    left = left[::-1] if attribute_of(node, "transA", 0) else left
    right = right[::-1] if attribute_of(node, "transB", 0) else right
    bias = _input(node, 2)
    if graph.is_constant(node.input[1]):
        of_weights = bias if bias and graph.is_constant(bias) else ""
        rows, columns = right
        return [
            _weighted(graph, name, kinds.DENSE, node.input[1], of_weights, rows, columns, left[0])
        ]
    if graph.is_constant(node.input[0]):
        columns, rows = left
        return [_weighted(graph, name, kinds.DENSE, node.input[0], "", rows, columns, right[1])]
    return [_activations(graph, name, left[1], right[1], left[0], 1)]


def _matmul(node: Any, name: str, graph: Graph) -> list[LayerShape]:
    left, right = graph.shapes[node.input[0]], graph.shapes[node.input[1]]
    left = (1, *left) if len(left) == 1 else left
    right = (*right, 1) if len(right) == 1 else right
    rows, columns = right[-2:]
    batch = math.prod(_broadcast(left[:-2], right[:-2]))
    if graph.is_constant(node.input[1]):
        groups = math.prod(right[:-2])
        vectors = batch * left[-2] // groups
        return [
            _weighted(graph, name, kinds.DENSE, node.input[1], "", rows, columns, vectors, groups)
        ]
    if graph.is_constant(node.input[0]):
        groups = math.prod(left[:-2])
        vectors = batch * columns // groups
        return [
            _weighted(graph, name, kinds.DENSE, node.input[0], "", rows, left[-2], vectors, groups)
        ]
    if math.prod(right[:-2]) == 1 and math.prod(left[:-2]) > 1:
        # One operand for all: its vectors are those of all.
        return [_activations(graph, name, rows, columns, batch * left[-2], 1)]
    return [_activations(graph, name, rows, columns, left[-2], batch)]


def _broadcast(left: tuple[int, ...], right: tuple[int, ...]) -> list[int]:
    width = max(len(left), len(right))
    padded = [(1,) * (width - len(side)) + side for side in (left, right)]
    return [max(a, b) for a, b in zip(*padded, strict=True)]


def _einsum(node: Any, name: str, graph: Graph) -> list[LayerShape]:
    """Two operands: labels of both and the result are groups, labels of both alone are summed."""
    equation = attribute_of(node, "equation", b"")
    text = (equation.decode() if isinstance(equation, bytes) else equation).replace(" ", "")
    terms, arrow, result = text.partition("->")
    labels = terms.split(",")
    if len(labels) == 1:
        return [digital_shape(name, graph.elements(node.output[0]), graph.elements(node.input[0]))]
    if len(labels) != 2 or not arrow:
        raise NotKnown
    size: dict[str, int] = {}
    spelled = []
    for term, source in zip(labels, node.input, strict=True):
        shape = graph.shapes[source]
        spelled.append(_spelled(term, len(shape)))
        for label, edge in zip(spelled[-1], shape, strict=True):
            size[label] = max(size.get(label, 1), edge)
    dots = [label for term in spelled for label in term if label.isdigit()]
    out = set(result.replace("...", "")) | (set(dots) if "..." in result else set())
    first, second = (set(term) for term in spelled)

    def product(chosen: set[str]) -> int:
        return math.prod(size[label] for label in chosen)

    groups, summed = product(first & second & out), product((first & second) - out)
    of_first, of_second = product(first & out - second), product(second & out - first)
    for weight, columns, vectors in (
        (node.input[1], of_second, of_first),
        (node.input[0], of_first, of_second),
    ):
        if graph.is_constant(weight):
            return [
                _weighted(graph, name, kinds.DENSE, weight, "", summed, columns, vectors, groups)
            ]
    return [_activations(graph, name, summed, of_second, of_first, groups)]


def _spelled(term: str, width: int) -> list[str]:
    """Return a label per axis; axes behind an ellipsis are numbered from the last."""
    before, dots, after = term.partition("...")
    if not dots:
        return list(term)
    hidden = width - len(before) - len(after)
    return [*before, *(str(hidden - n) for n in range(hidden)), *after]


def _recurrent(node: Any, name: str, graph: Graph) -> list[LayerShape]:
    """Per direction a product with the inputs and one with the states, and what cells compute."""
    inputs, weights, states = node.input[:3]
    if not (graph.is_constant(weights) and graph.is_constant(states)):
        raise NotKnown
    source, held = graph.shapes[inputs], graph.shapes[weights]
    directions, columns, width = held
    hidden = columns // _GATES[node.op_type]
    vectors = source[0] * source[1]
    bias = _input(node, 3)
    taken = {item: graph.take(item, f"{name}.inputs", made_up=True)
             for item in (weights, states, bias) if item}  # fmt: skip
    layers = []
    for part, rows, item in (("inputs", width, weights), ("states", hidden, states)):
        for direction in range(directions):
            back = ".reverse" if direction else ""
            share = taken[item] // directions + taken.get(bias, 0) // (2 * directions)
            layers.append(
                LayerShape(
                    name=f"{name}.{part}{back}",
                    kind=kinds.DENSE,
                    in_features=rows,
                    out_features=columns,
                    vectors_per_sample=graph.per_sample(vectors),
                    bias=bool(bias),
                    parameters=share,
                )
            )
    work = directions * hidden * graph.per_sample(vectors)
    layers.append(digital_shape(f"{name}.cells", work, _CELL_OPERATIONS[node.op_type] * work))
    return layers


def _attention(node: Any, name: str, graph: Graph) -> list[LayerShape]:
    """Scores with their softmax, and the weighted sum of values."""
    query, key, value = (graph.shapes[item] for item in node.input[:3])
    if len(query) == 4:
        samples, heads, tokens, width = query
        keys, out = key[2], value[3]
    else:
        heads = int(attribute_of(node, "q_num_heads", 0) or attribute_of(node, "num_heads", 0))
        of_keys = int(attribute_of(node, "kv_num_heads", 0) or heads)
        if len(query) != 3 or len(key) != 3 or not heads:
            raise NotKnown
        samples, tokens = query[:2]
        keys, width, out = key[1], query[2] // heads, value[2] // of_keys
    groups = samples * heads
    scores = _activations(graph, f"{name}.scores", width, keys, tokens, groups)
    softmax = SOFTMAX * scores.output_elements_per_sample
    mix = _activations(graph, f"{name}.mix", keys, out, tokens, groups)
    return [dataclasses.replace(scores, elementwise_ops=softmax), mix]


def _input(node: Any, place: int) -> str:
    return node.input[place] if len(node.input) > place else ""


PRODUCTS: dict[str, Callable[[Any, str, Graph], list[LayerShape]]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "FusedMatMul": _matmul,
    "Einsum": _einsum,
    **dict.fromkeys(_GATES, _recurrent),
    **dict.fromkeys(("Attention", "MultiHeadAttention"), _attention),
}
"""Operator -> how its rows are read."""
