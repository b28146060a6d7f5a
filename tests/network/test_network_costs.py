"""What a trained network computes is what it costs, by the counts of the tables."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from micro_batches import run_micro_batch

from repast_dist.ground.spec import load
from repast_dist.network import LayerShape, Workload, kinds
from repast_dist.network.model import Model, ModelSpec, build_model
from repast_dist.network.shapes import digital_shape
from repast_dist.network.tables import network_table
from repast_dist.network.tables.rows import conv, dense, norm, transformer_block


def network(layers: list[dict[str, Any]], shape: tuple[int, int, int]) -> Model:
    """Build a network from layer settings as they stand in a YAML file."""
    return build_model(load(ModelSpec, {"name": "n", "input_shape": list(shape), "layers": layers}))


def counts(workload: Workload) -> tuple[list[tuple[int, ...]], int, int, Counter[tuple[Any, ...]]]:
    """Return products in order, digital operations, parameters and Kronecker factors."""
    products = [
        (item.in_features, item.out_features, item.vectors_per_sample, item.groups, item.bias)
        for item in workload.layers
        if item.on_crossbars
    ]
    factors = Counter(
        (item.factor_a_size, item.factor_g_size, item.factor_vectors)
        for item in workload.layers
        if item.preconditioned
    )
    digital = sum(item.elementwise_ops for item in workload.layers)
    return products, digital, workload.parameter_count, factors


def test_lenet_from_settings_costs_what_its_table_says() -> None:
    stage = [{"kind": "tanh"}, {"kind": "avg_pool", "size": 2}]
    model = network(
        [
            {"kind": "conv", "outputs": 6, "kernel": 5}, *stage,
            {"kind": "conv", "outputs": 16, "kernel": 5}, *stage, {"kind": "flatten"},
            {"kind": "dense", "outputs": 120}, {"kind": "tanh"},
            {"kind": "dense", "outputs": 84}, {"kind": "tanh"}, {"kind": "dense", "outputs": 10},
        ],
        (1, 32, 32),
    )  # fmt: skip
    assert counts(model.workload) == counts(network_table("lenet5"))


def test_a_residual_network_from_settings_costs_what_its_table_says() -> None:
    model = network(
        [
            {"kind": "conv", "outputs": 8, "kernel": 3, "padding": 1, "bias": False},
            {"kind": "norm", "groups": 2}, {"kind": "relu"}, {"kind": "max_pool", "size": 2},
            {"kind": "residual",
             "body": [{"kind": "conv", "outputs": 16, "kernel": 3, "padding": 1, "stride": 2,
                       "bias": False}, {"kind": "norm"}],
             "shortcut": [{"kind": "conv", "outputs": 16, "kernel": 1, "stride": 2,
                           "bias": False}, {"kind": "norm"}]},
            {"kind": "global_pool"}, {"kind": "dense", "outputs": 10},
        ],
        (3, 16, 16),
    )  # fmt: skip
    table = (
        conv("conv1", 3, 8, 3, 16, bias=False),
        norm("norm1", 8, 16),
        digital_shape("pool", 512, 4 * 512),
        conv("conv2", 8, 16, 3, 4, bias=False),
        norm("norm2", 16, 4, activation=False),
        conv("shortcut", 8, 16, 1, 4, bias=False),
        norm("norm3", 16, 4, activation=False),
        digital_shape("add", 256, 256),
        digital_shape("average", 16, 256),
        dense("fc", 16, 10, activation=False),
    )
    assert counts(model.workload) == counts(Workload(name="table", layers=table))


def _convolution(outputs: int, kernel: int, stride: int = 1) -> dict[str, Any]:
    same = {"kind": "conv", "outputs": outputs, "kernel": kernel, "bias": False}
    return {**same, "padding": kernel // 2, "stride": stride}


NORM, RELU = {"kind": "norm"}, {"kind": "relu"}
PARTS_OF_TABLES: dict[tuple[str, str], tuple[tuple[int, int, int], list[dict[str, Any]]]] = {
    ("resnet18", "layer2.0."): (
        (64, 56, 56),
        [{"kind": "residual",
          "body": [_convolution(128, 3, 2), NORM, RELU, _convolution(128, 3), NORM],
          "shortcut": [_convolution(128, 1, 2), NORM]}, RELU],
    ),
    ("resnet50", "layer1.1."): (
        (256, 56, 56),
        [{"kind": "residual",
          "body": [_convolution(64, 1), NORM, RELU, _convolution(64, 3), NORM, RELU,
                   _convolution(256, 1), NORM]}, RELU],
    ),
    ("densenet121", "block1.1."): (
        (64, 56, 56), [NORM, RELU, _convolution(128, 1), NORM, RELU, _convolution(32, 3)],
    ),
    ("densenet121", "transition1."): (
        (256, 56, 56), [NORM, RELU, _convolution(128, 1), {"kind": "avg_pool", "size": 2}],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("table", "part"), PARTS_OF_TABLES)
def test_a_part_of_a_published_network_costs_in_its_table_what_settings_say(
    table: str, part: str
) -> None:
    shape, layers = PARTS_OF_TABLES[table, part]
    model = network([*layers, {"kind": "global_pool"}, {"kind": "dense", "outputs": 1}], shape)
    from_settings = Workload(name="settings", layers=model.workload.layers[:-2])
    rows = tuple(row for row in network_table(table).layers if row.name.startswith(part))
    assert rows
    assert counts(from_settings) == counts(Workload(name="table", layers=rows))


def test_a_transformer_from_settings_costs_what_the_tables_block_says() -> None:
    width, tokens = 16, 16
    model = network(
        [
            {"kind": "patches", "size": 2}, {"kind": "dense", "outputs": width},
            {"kind": "positions"},
            {"kind": "residual", "body": [{"kind": "attention", "heads": 2}]}, {"kind": "norm"},
            {"kind": "residual",
             "body": [{"kind": "dense", "outputs": 4 * width}, {"kind": "gelu"},
                      {"kind": "dense", "outputs": width}]},
            {"kind": "norm"}, {"kind": "global_pool"}, {"kind": "dense", "outputs": 10},
        ],
        (1, 8, 8),
    )  # fmt: skip
    size = width * tokens
    table: tuple[LayerShape, ...] = (
        dense("embed", 4, width, vectors=tokens, activation=False),
        digital_shape("positions", size, size, parameters=size),
        *transformer_block("block", width, 2, tokens),
        digital_shape("average", width, size),
        dense("head", width, 10, activation=False),
    )
    assert counts(model.workload) == counts(Workload(name="table", layers=table))


@pytest.mark.parametrize(
    ("layer", "operations"),
    [
        ({"kind": "relu"}, 2 * 64),
        ({"kind": "gelu"}, 2 * 64),
        ({"kind": "max_pool"}, 2 * 64),
        ({"kind": "avg_pool", "size": 4}, 2 * 64),
        ({"kind": "global_pool"}, 2 * 64),
        ({"kind": "norm"}, 5 * 2 * 64),
        ({"kind": "residual", "body": [{"kind": "relu"}]}, 2 * 2 * 64),
        ({"kind": "flatten"}, 0),
    ],
)
def test_what_a_layer_without_products_computes_is_counted(
    layer: dict[str, Any], operations: int
) -> None:
    tail = [] if layer["kind"] in ("flatten", "global_pool") else [{"kind": "flatten"}]
    head = [{"kind": "dense", "outputs": 3}]
    with_it = network([layer, *tail, *head], (2, 8, 8)).workload.layers
    assert sum(item.elementwise_ops for item in with_it[:-1]) == operations
    assert with_it[-1].elementwise_ops == 0


def test_the_products_of_attention_are_those_that_are_priced() -> None:
    """Every (sample, head) product that the numbers take has the shape of its row."""
    from repast_dist.network.model import init_weights
    from repast_dist.training.engines import Engine, make_engine
    from repast_dist.training.specs import EngineSpec
    from repast_dist.training.step import load_weights

    exact = dict.fromkeys(("forward", "backward", "gradient", "factor", "inverse"), "float64")
    engine = make_engine(EngineSpec(**exact), 0)
    seen: Counter[tuple[Any, ...]] = Counter()

    class Watched(Engine):
        def load(self, role: Any, matrix: np.ndarray, address: Any) -> Any:
            if "operand" in str(address[0]):
                seen[role, address[2], matrix.shape[-2:]] += math.prod(matrix.shape[:-2])
            return super().load(role, matrix, address)

    watched = Watched(engine.spec, None, None, None, None, 0)
    model = network(
        [{"kind": "patches", "size": 2}, {"kind": "attention", "name": "a", "heads": 2},
         {"kind": "global_pool"}, {"kind": "dense", "outputs": 3}],
        (1, 6, 6),
    )  # fmt: skip
    loaded = load_weights(model, init_weights(model, 0), watched, 0)
    inputs = np.random.default_rng(0).random((3, 1, 6, 6))
    run_micro_batch(loaded, inputs, np.array([0, 1, 2]), np.arange(3), 0)
    rows = {item.name: item for item in model.workload.layers if item.kind == kinds.MATMUL}
    assert set(rows) == {"a.scores", "a.mix"}
    for name, row in rows.items():
        k, m, s = row.in_features, row.out_features, row.vectors_per_sample
        each = 3 * row.groups
        # Forward by the operand, backward by its transpose, gradient by what drove the product.
        assert seen["forward", name, (k, m)] == each
        assert seen["backward", name, (m, k)] == each
        assert seen["gradient", name, (s, k)] == each
    assert sum(seen.values()) == 3 * 3 * sum(row.groups for row in rows.values())


def test_what_a_table_assumes_reaches_the_pages_notes_once() -> None:
    from repast_dist.studies.costing import workload_notes

    notes = [
        note.text
        for note in workload_notes([network_table("bert_base", 128), network_table("lenet5")])
    ]
    assert "bert_base: Sequences of 128 tokens." in notes
    both = workload_notes([network_table("resnet18"), network_table("resnet34")])
    assert [note.text.partition(":")[0] for note in both] == ["resnet18, resnet34"]
