"""The same network costs the same, op by op: from settings, from a table, from an ONNX file."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repast_dist.ground.spec import load
from repast_dist.network import Workload
from repast_dist.network.losses import Loss, LossShape
from repast_dist.network.model import ModelSpec, build_model
from repast_dist.network.shapes import digital_shape, embedding_shape
from repast_dist.network.tables import network_table
from repast_dist.network.tables.rows import dense, transformer_block
from repast_dist.network.workload import WorkloadSpec, build_workload
from repast_dist.ops import OPS, price
from repast_dist.ops.table import IDENTITY, LINK, SERIAL
from repast_dist.planning import StepWork, make_plan, place, step_ops
from repast_dist.settings import load_settings
from repast_dist.trace.schema import COUNTS

Layers = list[dict[str, Any]]


TEN_CLASSES = LossShape(loss="cross_entropy", rows=1, width=10)


def from_settings(
    layers: Layers, shape: tuple[int, ...], rows: int | None = None, **others: Any
) -> Workload:
    """Return the workload of a trained network; `rows` cuts a head that the model needs."""
    spec = load(
        ModelSpec, {"name": "settings", "input_shape": list(shape), "layers": layers, **others}
    )
    workload = build_model(spec).workload
    if rows is None:
        return workload
    return dataclasses.replace(workload, layers=workload.layers[:rows], losses=())


# What is compared ---------------------------------------------------------------------------


def mlp() -> Workload:
    function = {"kind": "relu"}
    return from_settings(
        [{"kind": "flatten"}, {"kind": "dense", "outputs": 300}, function,
         {"kind": "dense", "outputs": 100, "bias": False}, function,
         {"kind": "dense", "outputs": 10}],
        (1, 28, 28),
    )  # fmt: skip


def mlp_table() -> Workload:
    # A row without bias has its function, too: only convolutions leave it to a normalisation.
    layers = (
        dense("fc1", 784, 300),
        dense("fc2", 300, 100, bias=False),
        dense("fc3", 100, 10, activation=False),
    )
    return Workload(name="table", layers=layers, losses=(TEN_CLASSES,))


def lenet() -> Workload:
    stage = [{"kind": "tanh"}, {"kind": "avg_pool", "size": 2}]
    return from_settings(
        [{"kind": "conv", "outputs": 6, "kernel": 5}, *stage,
         {"kind": "conv", "outputs": 16, "kernel": 5}, *stage, {"kind": "flatten"},
         {"kind": "dense", "outputs": 120}, {"kind": "tanh"},
         {"kind": "dense", "outputs": 84}, {"kind": "tanh"}, {"kind": "dense", "outputs": 10}],
        (1, 32, 32),
    )  # fmt: skip


def residual() -> Workload:
    """The first block of the second stage of ResNet-18; the head is cut off."""
    same = {"kind": "conv", "kernel": 3, "padding": 1, "bias": False}
    norm, relu = {"kind": "norm"}, {"kind": "relu"}
    block = {
        "kind": "residual",
        "body": [{**same, "outputs": 128, "stride": 2}, norm, relu, {**same, "outputs": 128}, norm],
        "shortcut": [{**same, "outputs": 128, "kernel": 1, "padding": 0, "stride": 2}, norm],
    }
    head = [{"kind": "global_pool"}, {"kind": "dense", "outputs": 1}]
    return from_settings([block, relu, *head], (64, 56, 56), -2)


def residual_table() -> Workload:
    rows = network_table("resnet18").layers
    layers = tuple(row for row in rows if row.name.startswith("layer2.0."))
    return Workload(name="table", layers=layers)


WIDTH, TOKENS, HEADS, WORDS = 32, 16, 2, 23


def transformer() -> Workload:
    return from_settings(
        [{"kind": "patches", "size": 2}, {"kind": "dense", "outputs": WIDTH},
         {"kind": "positions"},
         {"kind": "residual", "body": [{"kind": "attention", "heads": HEADS}]}, {"kind": "norm"},
         {"kind": "residual",
          "body": [{"kind": "dense", "outputs": 4 * WIDTH}, {"kind": "gelu"},
                   {"kind": "dense", "outputs": WIDTH}]},
         {"kind": "norm"}, {"kind": "global_pool"}, {"kind": "dense", "outputs": 10}],
        (1, 8, 8),
    )  # fmt: skip


def transformer_table() -> Workload:
    size = WIDTH * TOKENS
    layers = (
        dense("embed", 4, WIDTH, vectors=TOKENS, activation=False),
        digital_shape("positions", size, size, parameters=size),
        *transformer_block("block", WIDTH, HEADS, TOKENS),
        digital_shape("average", WIDTH, size),
        dense("head", WIDTH, 10, activation=False),
    )
    return Workload(name="table", layers=layers, losses=(TEN_CLASSES,))


def language_model() -> Workload:
    return from_settings(
        [{"kind": "embedding", "entries": WORDS, "width": WIDTH},
         {"kind": "dense", "outputs": WORDS, "bias": False}],
        (1, 1, TOKENS), loss="next_token",
    )  # fmt: skip


def language_table() -> Workload:
    layers = (
        embedding_shape("words", WORDS, WIDTH, TOKENS),
        dense("head", WIDTH, WORDS, vectors=TOKENS, bias=False, activation=False),
    )
    loss = LossShape(loss="next_token", rows=TOKENS, width=WORDS)
    return Workload(name="table", layers=layers, losses=(loss,))


# The same as ONNX files ---------------------------------------------------------------------


class Graph:
    """An ONNX graph, node by node; every call returns the name of its result."""

    def __init__(self, *shape: int) -> None:
        self.onnx = pytest.importorskip("onnx")
        self.shape, self.nodes, self.weights = shape, [], []

    def __call__(self, kind: str, *inputs: str, **attributes: Any) -> str:
        result = f"v{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, [result], result, **attributes))
        return result

    def weight(self, *shape: int, values: list[float] | None = None) -> str:
        name, helper = f"w{len(self.weights)}", self.onnx.helper
        kind = self.onnx.TensorProto.FLOAT if values is None else self.onnx.TensorProto.INT64
        given = [0.0] * math.prod(shape) if values is None else values
        self.weights.append(helper.make_tensor(name, kind, shape, given))
        return name

    def shaped(self, value: str, *shape: int) -> str:
        return self("Reshape", value, self.weight(len(shape), values=list(shape)))

    def gemm(self, value: str, inputs: int, outputs: int, bias: bool = True) -> str:
        parameters = [self.weight(inputs, outputs), *([self.weight(outputs)] if bias else [])]
        return self("Gemm", value, *parameters)

    def tokenwise(self, value: str, inputs: int, outputs: int) -> str:
        product = self("MatMul", value, self.weight(inputs, outputs))
        return self("Add", product, self.weight(outputs))

    def conv(self, value: str, before: int, after: int, kernel: int, **attributes: Any) -> str:
        weights = self.weight(after, before, kernel, kernel)
        return self("Conv", value, weights, **attributes)

    def norm(self, value: str, channels: int) -> str:
        parts = [self.weight(channels) for _ in range(4)]
        return self("BatchNormalization", value, *parts)

    def read(
        self, folder: Path, result: str, loss: Loss | None = "cross_entropy", kind: int = 0
    ) -> Workload:
        helper, number = self.onnx.helper, self.onnx.TensorProto.FLOAT
        ends = [helper.make_tensor_value_info("x", kind or number, self.shape),
                helper.make_tensor_value_info(result, number, None)]  # fmt: skip
        graph = helper.make_graph(self.nodes, "g", ends[:1], ends[1:], self.weights)
        opsets = [helper.make_opsetid("", 20)]
        path = folder / "network.onnx"
        self.onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
        return build_workload(WorkloadSpec(name="onnx", path=str(path), loss=loss))


def mlp_file(folder: Path) -> Workload:
    g = Graph(1, 1, 28, 28)
    hidden = g("Relu", g.gemm(g("Flatten", "x"), 784, 300))
    return g.read(folder, g.gemm(g("Relu", g.gemm(hidden, 300, 100, bias=False)), 100, 10))


def lenet_file(folder: Path) -> Workload:
    g, value, before = Graph(1, 1, 32, 32), "x", 1
    for after in (6, 16):
        conv = g("Conv", value, g.weight(after, before, 5, 5), g.weight(after))
        value, before = g("Tanh", conv), after
        value = g("AveragePool", value, kernel_shape=[2, 2], strides=[2, 2])
    value = g("Flatten", value)
    for inputs, outputs in ((400, 120), (120, 84)):
        value = g("Tanh", g.gemm(value, inputs, outputs))
    return g.read(folder, g.gemm(value, 84, 10))


def residual_file(folder: Path) -> Workload:
    g, around = Graph(1, 64, 56, 56), [1, 1, 1, 1]
    first = g.norm(g.conv("x", 64, 128, 3, pads=around, strides=[2, 2]), 128)
    body = g.norm(g.conv(g("Relu", first), 128, 128, 3, pads=around), 128)
    shortcut = g.norm(g.conv("x", 64, 128, 1, strides=[2, 2]), 128)
    return g.read(folder, g("Relu", g("Add", body, shortcut)), loss=None)


def transformer_file(folder: Path) -> Workload:
    g, each = Graph(1, 1, 8, 8), WIDTH // HEADS

    def heads(value: str) -> str:
        split = g.shaped(g.tokenwise(value, WIDTH, WIDTH), 1, TOKENS, HEADS, each)
        return g("Transpose", split, perm=[0, 2, 1, 3])

    def norm(value: str) -> str:
        return g("LayerNormalization", value, g.weight(WIDTH), g.weight(WIDTH))

    cut = g("Transpose", g.shaped("x", 1, 4, 2, 4, 2), perm=[0, 1, 3, 2, 4])
    value = g.tokenwise(g.shaped(cut, 1, TOKENS, 4), 4, WIDTH)
    value = g("Add", value, g.weight(1, TOKENS, WIDTH))
    query, key, values = (heads(value) for _ in range(3))
    scores = g("MatMul", query, g("Transpose", key, perm=[0, 1, 3, 2]))
    attention = g("Softmax", g("Div", scores, g.weight(1)))
    mixed = g("Transpose", g("MatMul", attention, values), perm=[0, 2, 1, 3])
    mixed = g.tokenwise(g.shaped(mixed, 1, TOKENS, WIDTH), WIDTH, WIDTH)
    value = norm(g("Add", value, mixed))
    inner = g("Gelu", g.tokenwise(value, WIDTH, 4 * WIDTH))
    value = norm(g("Add", value, g.tokenwise(inner, 4 * WIDTH, WIDTH)))
    pooled = g("ReduceMean", value, g.weight(1, values=[1]), keepdims=0)
    return g.read(folder, g.gemm(pooled, WIDTH, 10))


def language_file(folder: Path) -> Workload:
    g = Graph(1, TOKENS)
    value = g("Gather", g.weight(WORDS, WIDTH), "x")
    head = g("MatMul", value, g.weight(WIDTH, WORDS))
    return g.read(folder, head, loss="next_token", kind=g.onnx.TensorProto.INT64)


# The comparison -----------------------------------------------------------------------------


def priced_rows(workload: Workload, *overrides: str) -> list[dict[str, Any]]:
    """Return every priced row of a step on two chips: what it is, its counts and its price."""
    machine = load_settings(list(overrides)).machine
    work = StepWork(chips=2, micro_batches=4, micro_batch_size=8)
    plan = make_plan(workload, machine.hardware, machine.policy, work)
    table = step_ops(plan, None, 0, factors_due=True, inverses_due=True)
    costs = price(table, machine.hardware.costs)
    placed = place(plan, table, costs.duration_s)
    columns: dict[str, np.ndarray] = {
        name: table[name] for name in (*IDENTITY, *COUNTS, *SERIAL, *LINK)
    }
    columns |= {"start_s": placed.absolute_start_s()}
    columns |= {"duration_s": costs.duration_s, "energy_j": costs.energy_j}
    lists = {name: column.tolist() for name, column in columns.items()}
    rows = [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]
    for row in rows:
        op = OPS[row["op"]]
        row |= {"op": op.name, "segment": op.segment.title, "resource": op.resource.name}
    return rows


MACHINES = {
    "small chip": (),
    "large chip": ("chip=repast",),
    "layers over chips": ("partition=pipeline",),
}
SOURCES: dict[str, tuple[Callable[[], Workload], Callable[[], Workload]]] = {
    "MLP": (mlp, mlp_table),
    "LeNet": (lenet, lambda: network_table("lenet5")),
    "residual block": (residual, residual_table),
    "transformer": (transformer, transformer_table),
    "language model": (language_model, language_table),
}
FILES = {
    "MLP": mlp_file,
    "LeNet": lenet_file,
    "residual block": residual_file,
    "transformer": transformer_file,
    "language model": language_file,
}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("network", SOURCES)
def test_a_network_from_settings_costs_what_its_table_costs_row_by_row(
    network: str, machine: str
) -> None:
    settings, table = (make() for make in SOURCES[network])
    _compare(settings, table, *MACHINES[machine])


@pytest.mark.parametrize("network", FILES)
def test_a_network_from_settings_costs_what_its_onnx_file_costs_row_by_row(
    network: str, tmp_path: Path
) -> None:
    _compare(SOURCES[network][0](), FILES[network](tmp_path))


def _compare(one: Workload, other: Workload, *overrides: str) -> None:
    # Tables do not know where a single tensor passes: they are cut anywhere.
    other = dataclasses.replace(other, cuts=one.cuts)
    first, second = priced_rows(one, *overrides), priced_rows(other, *overrides)
    assert [(row["op"], row["layer"]) for row in first] == [
        (row["op"], row["layer"]) for row in second
    ]
    for number, (row, same) in enumerate(zip(first, second, strict=True)):
        assert row == same, f"row {number}: {row['op']} of layer {row['layer']}"
    expected = {"vmm_forward", "elementwise_forward", "solve_a"}
    if other.losses:
        expected |= {"loss", "loss_fisher"}
    assert {row["op"] for row in first} >= expected
    assert any(row["energy_j"] > 0 for row in first)
