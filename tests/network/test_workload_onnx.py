"""Networks read from ONNX files, against shapes written down by hand."""

import numpy
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper  # noqa: E402

from repast_dist.ground.errors import DataError, SettingsError  # noqa: E402
from repast_dist.ground.spec import load  # noqa: E402
from repast_dist.network import kinds  # noqa: E402
from repast_dist.network.workload import WorkloadSpec, build_workload  # noqa: E402


def tensor(name, shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def weight(name, shape):
    return helper.make_tensor(name, TensorProto.FLOAT, shape, [0.0] * _size(shape))


def _size(shape):
    size = 1
    for edge in shape:
        size *= edge
    return size


def saved(tmp_path, nodes, inputs, outputs, weights):
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("custom", 1)]
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return build_workload(WorkloadSpec(name="onnx", path=str(path)))


def small_network(tmp_path, extra=()):
    nodes = [
        helper.make_node("Conv", ["x", "k", "kb"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("Conv", ["r", "d"], ["s"], name="depthwise", group=8, pads=[1, 1, 1, 1]),
        helper.make_node("MaxPool", ["s"], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
        *extra,
        helper.make_node("Gemm", ["f", "w", "b"], ["y"], name="fc", transB=1),
    ]
    weights = [
        weight("k", (8, 3, 3, 3)),
        weight("kb", (8,)),
        weight("d", (8, 1, 3, 3)),
        weight("w", (10, 8 * 16)),
        weight("b", (10,)),
    ]
    return saved(
        tmp_path, nodes, [tensor("x", ["batch", 3, 8, 8])], [tensor("y", ["batch", 10])], weights
    )


def test_layers_of_a_small_network_are_read_with_their_shapes(tmp_path):
    workload = small_network(tmp_path)
    layers = {layer.name: layer for layer in workload.layers}
    assert list(layers) == ["conv", "depthwise", "pool", "fc"]
    conv, depthwise, fc = layers["conv"], layers["depthwise"], layers["fc"]
    assert (conv.in_features, conv.out_features, conv.vectors_per_sample) == (27, 8, 64)
    assert conv.bias
    # The rectifier runs in the row of what it follows: one look-up per output.
    assert conv.elementwise_ops == 8 * 64
    assert (depthwise.in_features, depthwise.groups, depthwise.preconditioned) == (9, 8, False)
    assert (fc.in_features, fc.out_features) == (128, 10)
    assert layers["pool"].elementwise_ops == 8 * 16 * 4
    assert workload.parameter_count == 8 * 27 + 8 + 8 * 9 + 1280 + 10
    assert workload.input_shape == (3, 8, 8)
    assert workload.assumptions[0] == "Open dimensions taken as 1: batch."


def test_an_unknown_operator_is_listed_with_what_was_assumed(tmp_path):
    whirl = helper.make_node("Whirl", ["f"], ["z"], name="whirl", domain="custom")
    workload = small_network(tmp_path, [whirl])
    assert any(note.startswith("Operator Whirl (1 times)") for note in workload.assumptions)
    assert "whirl" in [layer.name for layer in workload.layers]


def test_a_product_of_activations_has_no_weights(tmp_path):
    nodes = [
        helper.make_node("MatMul", ["q", "k"], ["scores"], name="scores"),
        helper.make_node("Softmax", ["scores"], ["p"], name="softmax"),
        helper.make_node("MatMul", ["p", "w"], ["y"], name="dense"),
    ]
    inputs = [tensor("q", [1, 12, 128, 64]), tensor("k", [1, 12, 64, 128])]
    workload = saved(
        tmp_path, nodes, inputs, [tensor("y", [1, 12, 128, 32])], [weight("w", (128, 32))]
    )
    scores, dense = workload.layers
    assert (scores.kind, scores.groups, scores.vectors_per_sample) == (kinds.MATMUL, 12, 128)
    assert scores.elementwise_ops == 3 * 12 * 128 * 128
    assert (dense.kind, dense.vectors_per_sample, dense.parameter_count) == (
        kinds.DENSE,
        12 * 128,
        128 * 32,
    )


def test_a_file_that_is_no_model_is_refused(tmp_path):
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"not a model at all")
    with pytest.raises(DataError, match="not a readable ONNX model"):
        build_workload(WorkloadSpec(name="onnx", path=str(path)))


def test_a_missing_file_and_an_unknown_network_are_named():
    with pytest.raises(SettingsError, match=r"workload\.path: no file nowhere\.onnx"):
        build_workload(WorkloadSpec(name="onnx", path="nowhere.onnx"))
    valid = r"bert_base, .*, lenet5, .*, onnx, model"
    with pytest.raises(SettingsError, match=f"no network 'alexnet'; valid: {valid}"):
        load(WorkloadSpec, {"name": "alexnet"}, "workload")


def test_bounds_of_a_function_are_no_parameters_and_a_constant_factor_costs_nothing(tmp_path):
    nodes = [
        helper.make_node("Clip", ["x", "low", "high"], ["c"], name="clip"),
        helper.make_node("Mul", ["c", "factor"], ["m"], name="scale"),
        helper.make_node("MatMul", ["m", "w"], ["p"], name="dense"),
        helper.make_node("Add", ["p", "b"], ["y"], name="bias"),
    ]
    weights = [weight(name, ()) for name in ("low", "high", "factor")]
    weights += [weight("w", (8, 4)), weight("b", (4,))]
    workload = saved(tmp_path, nodes, [tensor("x", [1, 8])], [tensor("y", [1, 4])], weights)
    assert [layer.name for layer in workload.layers] == ["clip", "dense"]
    assert workload.parameter_count == 8 * 4 + 4
    assert workload.layers[1].bias


def layers_of(tmp_path, nodes, inputs, outputs, weights):
    return {
        layer.name: layer
        for layer in saved(
            tmp_path,
            nodes,
            [tensor(f"x{n}" if n else "x", shape) for n, shape in enumerate(inputs)],
            [tensor("y", outputs)],
            weights,
        ).layers
    }


def test_vectors_per_sample_are_all_vectors_over_the_batch_of_the_input(tmp_path):
    """Rows of a Gemm, windows on the first axis, and tokens on it are vectors."""
    nodes = [
        helper.make_node("Reshape", ["x", "rows"], ["r"], name="reshape"),
        helper.make_node("Gemm", ["r", "w", "b"], ["g"], name="gemm"),
        helper.make_node("Reshape", ["g", "windows"], ["v"], name="windows_first"),
        helper.make_node("MatMul", ["v", "w2"], ["y"], name="matmul"),
    ]
    weights = [
        helper.make_tensor("rows", TensorProto.INT64, (2,), [-1, 8]),
        helper.make_tensor("windows", TensorProto.INT64, (3,), [6, 4, 16]),
        weight("w", (8, 16)), weight("b", (16,)), weight("w2", (16, 4)),
    ]  # fmt: skip
    layers = layers_of(tmp_path, nodes, [[2, 12, 8]], [6, 4, 4], weights)
    assert layers["gemm"].vectors_per_sample == layers["matmul"].vectors_per_sample == 12
    assert layers["gemm"].macs_per_sample == 12 * 8 * 16


def test_a_weight_that_is_transposed_split_and_scaled_stays_one(tmp_path):
    nodes = [
        helper.make_node("Transpose", ["w"], ["t"], name="transpose"),
        helper.make_node("Split", ["t"], ["q", "k"], name="split", axis=1, num_outputs=2),
        helper.make_node("MatMul", ["x", "q"], ["a"], name="query"),
        helper.make_node("MatMul", ["x", "k"], ["b"], name="key"),
        helper.make_node("Add", ["a", "b"], ["y"], name="add"),
    ]
    layers = layers_of(tmp_path, nodes, [[1, 5, 8]], [1, 5, 8], [weight("w", (16, 8))])
    assert [layers[name].parameter_count for name in ("query", "key", "add")] == [64, 64, 0]
    assert not layers["key"].shares_weights_with


def test_a_matrix_that_multiplies_again_has_more_vectors_and_the_same_weights(tmp_path):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["r"], name="relu"),
        helper.make_node("MatMul", ["r", "w"], ["y"], name="second"),
    ]
    layers = layers_of(tmp_path, nodes, [[1, 5, 8]], [1, 5, 8], [weight("w", (8, 8))])
    again = build_workload(WorkloadSpec(name="onnx", path=str(tmp_path / "net.onnx")))
    assert again.assumptions[0].startswith("Products with weights that were used before (1)")
    assert list(layers) == ["first"]
    assert (layers["first"].vectors_per_sample, layers["first"].parameter_count) == (10, 64)


def test_an_output_layer_that_shares_the_embedding_counts_once(tmp_path):
    nodes = [
        helper.make_node("Gather", ["table", "x"], ["e"], name="words"),
        helper.make_node("Transpose", ["table"], ["t"], name="turned"),
        helper.make_node("MatMul", ["e", "t"], ["y"], name="head"),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.INT64, [1, 6])],
        [tensor("y", [1, 6, 100])], [weight("table", (100, 8))],
    )  # fmt: skip
    path = tmp_path / "tied.onnx"
    onnx.save(helper.make_model(graph, ir_version=8), path)
    workload = build_workload(WorkloadSpec(name="onnx", path=str(path)))
    words, head = workload.layers
    assert (words.parameter_count, head.parameter_count) == (800, 0)
    assert (head.shares_weights_with, head.preconditioned) == ("words", False)
    assert head.macs_per_sample == 6 * 800


def test_a_copy_that_an_exporter_made_of_a_tied_weight_is_found_by_its_numbers(tmp_path):
    numbers = numpy.arange(800 * 8, dtype=numpy.float32).reshape(800, 8)
    nodes = [
        helper.make_node("Gather", ["embedding.weight", "x"], ["e"], name="words"),
        helper.make_node("MatMul", ["e", "onnx::MatMul_7"], ["y"], name="head"),
    ]
    for turned, expected in ((numbers.T, 6400), (numbers.T + 1, 12800)):
        stored = [
            onnx.numpy_helper.from_array(numbers, "embedding.weight"),
            onnx.numpy_helper.from_array(numpy.ascontiguousarray(turned), "onnx::MatMul_7"),
        ]
        graph = helper.make_graph(
            nodes, "g", [helper.make_tensor_value_info("x", TensorProto.INT64, [1, 6])],
            [tensor("y", [1, 6, 800])], stored,
        )  # fmt: skip
        path = tmp_path / "tied.onnx"
        onnx.save(helper.make_model(graph, ir_version=8), path)
        workload = build_workload(WorkloadSpec(name="onnx", path=str(path)))
        assert workload.parameter_count == expected
        assert workload.layers[1].preconditioned == (expected == 12800)


@pytest.mark.parametrize(
    ("equation", "weight_shape", "groups", "rows", "columns", "vectors"),
    [
        ("btd,df->btf", (8, 3), 1, 8, 3, 6),
        ("btd,edf->betf", (4, 8, 3), 1, 8, 12, 6),
        ("fd,btd->btf", (3, 8), 1, 8, 3, 6),
        ("...d,fd->...f", (3, 8), 1, 8, 3, 6),
        ("btd,td->bt", (6, 8), 6, 8, 1, 1),
    ],
)
def test_einsum_with_weights_is_groups_of_products(
    tmp_path, equation, weight_shape, groups, rows, columns, vectors
):
    names = ["w", "x"] if equation.startswith("fd") else ["x", "w"]
    nodes = [helper.make_node("Einsum", names, ["y"], name="product", equation=equation)]
    layers = layers_of(tmp_path, nodes, [[2, 6, 8]], None, [weight("w", weight_shape)])
    row = layers["product"]
    assert (row.groups, row.in_features, row.out_features, row.vectors_per_sample) == (
        groups, rows, columns, vectors,
    )  # fmt: skip


def test_einsum_of_activations_is_written_for_every_sample(tmp_path):
    nodes = [helper.make_node("Einsum", ["x", "x1"], ["y"], name="s", equation="bhqd,bhkd->bhqk")]
    layers = layers_of(tmp_path, nodes, [[2, 4, 6, 8], [2, 4, 5, 8]], [2, 4, 6, 5], [])
    row = layers["s"]
    assert (row.kind, row.groups, row.in_features, row.out_features) == (kinds.MATMUL, 4, 8, 5)
    assert row.vectors_per_sample == 6


@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_recurrent_cells_multiply_inputs_and_states_at_every_step(tmp_path, op, gates):
    nodes = [
        helper.make_node(
            op, ["x", "w", "r", "b"], ["y"], name="cells", hidden_size=5, direction="bidirectional"
        )
    ]
    weights = [
        weight("w", (2, gates * 5, 3)),
        weight("r", (2, gates * 5, 5)),
        weight("b", (2, 2 * gates * 5)),
    ]
    graph = helper.make_graph(
        nodes, "g", [tensor("x", [7, 2, 3])], [tensor("y", [7, 2, 2, 5])], weights
    )
    path = tmp_path / "cells.onnx"
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    workload = build_workload(WorkloadSpec(name="onnx", path=str(path), batch_axis=1))
    assert workload.parameter_count == 2 * gates * 5 * (3 + 5 + 2)
    assert workload.macs_per_sample == 2 * 7 * gates * 5 * (3 + 5)
    assert workload.input_shape == (7, 3)


def test_a_transposed_convolution_multiplies_every_input_position(tmp_path):
    nodes = [
        helper.make_node("ConvTranspose", ["x", "k", "b"], ["y"], name="up", strides=[2, 2]),
    ]
    weights = [weight("k", (6, 4, 2, 2)), weight("b", (4,))]
    row = layers_of(tmp_path, nodes, [[1, 6, 8, 8]], [1, 4, 16, 16], weights)["up"]
    assert (row.macs_per_sample, row.parameter_count) == (64 * 6 * 4 * 4, 6 * 4 * 4 + 4)


def test_attention_is_two_products_of_activations(tmp_path):
    node = helper.make_node("Attention", ["x", "x1", "x2"], ["y"], name="attend")
    shapes = [[2, 4, 6, 8], [2, 4, 5, 8], [2, 4, 5, 8]]
    graph = helper.make_graph(
        [node], "g", [tensor(f"x{n}" if n else "x", s) for n, s in enumerate(shapes)],
        [tensor("y", [2, 4, 6, 8])],
    )  # fmt: skip
    path = tmp_path / "attend.onnx"
    opsets = [helper.make_opsetid("", 23)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    workload = build_workload(WorkloadSpec(name="onnx", path=str(path)))
    assert [layer.name for layer in workload.layers] == ["attend.scores", "attend.mix"]
    assert workload.macs_per_sample == 2 * 4 * 6 * 5 * 8
    assert workload.layers[0].elementwise_ops == 3 * 4 * 6 * 5


def test_an_unknown_operator_that_holds_weights_is_refused_unless_allowed(tmp_path):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="dense"),
        helper.make_node("Whirl", ["a", "v"], ["y"], name="whirl", domain="custom"),
    ]
    weights = [weight("w", (8, 4)), weight("v", (4, 4))]
    with pytest.raises(DataError, match=r"whirl: operator Whirl .* 16 weights; .*unknown=allow"):
        saved(tmp_path, nodes, [tensor("x", [1, 8])], [tensor("y", [1, 4])], weights)
    path = str(tmp_path / "net.onnx")
    workload = build_workload(WorkloadSpec(name="onnx", path=path, unknown="allow"))
    assert workload.parameter_count == 32 + 16
    assert workload.assumptions[0].startswith("Operator Whirl (1 times) is not known")


def test_open_dimensions_beside_the_batch_are_the_sequence(tmp_path):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="dense")]
    given = [tensor("x", ["batch", "tokens", 8])], [tensor("y", ["batch", "tokens", 4])]
    saved(tmp_path, nodes, *given, [weight("w", (8, 4))])
    path = str(tmp_path / "net.onnx")
    workload = build_workload(WorkloadSpec(name="onnx", path=path, sequence=32))
    assert workload.layers[0].vectors_per_sample == 32
    assert "Open dimensions taken as 1 (the batch) or 32: batch, tokens." in workload.assumptions
    saved(
        tmp_path, nodes, [tensor("x", [1, 5, 8])], [tensor("y", [1, 5, 4])], [weight("w", (8, 4))]
    )
    with pytest.raises(SettingsError, match=r"workload\.sequence=32: no input"):
        build_workload(WorkloadSpec(name="onnx", path=path, sequence=32))
    with pytest.raises(SettingsError, match=r"workload\.batch_axis=3: .* valid: 0 to 2"):
        build_workload(WorkloadSpec(name="onnx", path=path, batch_axis=3))


def test_heads_of_pretraining_are_a_setting_of_bert():
    plain, full = (
        build_workload(WorkloadSpec(name="bert_base", pretraining=heads)) for heads in (False, True)
    )
    # Devlin et al.: 110 million; transformers counts BertForPreTraining to the last one.
    assert full.parameter_count == 110_106_428
    assert full.macs_per_sample - plain.macs_per_sample == 128 * 768 * (768 + 30522) + 768 * 2
    with pytest.raises(SettingsError, match=r"pretraining: resnet50 has no heads .* bert_base"):
        build_workload(WorkloadSpec(name="resnet50", pretraining=True))
    for wrong in ({"batch_axis": 1}, {"unknown": "allow"}):
        with pytest.raises(ValueError, match="only a file has it"):
            WorkloadSpec(name="resnet50", **wrong)


@pytest.mark.parametrize(("kind", "trained"), [("PARAMETER", 5), ("BUFFER", 0)])
def test_buffers_that_an_exporter_names_as_such_are_not_trained(tmp_path, kind, trained):
    nodes = [
        helper.make_node("Mul", ["x", "rope.inv_freq"], ["s"], name="scale"),
        helper.make_node("MatMul", ["s", "fc.weight"], ["y"], name="fc"),
    ]
    graph = helper.make_graph(
        nodes, "g", [tensor("x", [1, 5])], [tensor("y", [1, 3])],
        [weight("rope.inv_freq", (5,)), weight("fc.weight", (5, 3))],
    )  # fmt: skip
    held = tensor("rope.inv_freq", (5,))
    held.metadata_props.add(key="pkg.torch.export.graph_signature.InputSpec.kind", value=kind)
    graph.value_info.append(held)
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    workload = build_workload(WorkloadSpec(name="onnx", path=str(path)))
    assert workload.parameter_count == 15 + trained
