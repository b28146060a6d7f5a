"""Networks read from ONNX files, against shapes written down by hand."""

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
    assert workload.assumptions == ("Open dimensions taken as 1: batch.",)


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
