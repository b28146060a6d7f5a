"""ONNX files as modules that train: what they compute, what runs on arrays, what is refused."""

import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

from conftest import final_arrays  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402
from onnx_networks import NETWORKS, export, inputs_of, made  # noqa: E402
from rich.console import Console  # noqa: E402
from test_fuzz import draws, some_network  # noqa: E402

import repast_dist.torch as rt  # noqa: E402
from repast_dist.cli import main  # noqa: E402
from repast_dist.farm.setup import make_setup  # noqa: E402
from repast_dist.ground import user_code  # noqa: E402
from repast_dist.ground.errors import DataError, RunDirectoryError, SettingsError  # noqa: E402
from repast_dist.network.onnx_file import workload_from_onnx  # noqa: E402
from repast_dist.settings import load_settings  # noqa: E402
from repast_dist.studies import resume_study  # noqa: E402
from repast_dist.studies import train as train_study  # noqa: E402
from repast_dist.studies.recorder import RunRecorder  # noqa: E402
from repast_dist.studies.settings import training_job  # noqa: E402
from repast_dist.torch.onnx import from_onnx  # noqa: E402

CASES = [
    *((name, "dynamo") for name in NETWORKS),
    *((name, "any batch") for name in ("cnn", "transformer", "lstm", "two")),
    ("transformer", "optimized"), ("transformer", "torchscript"), ("transformer", "training"),
    ("cnn", "training"), ("lstm", "training"), ("gru", "optimized"), ("unet", "torchscript"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_taken(monkeypatch):
    monkeypatch.setattr(user_code, "_TAKEN", {})
    monkeypatch.setattr(user_code, "_OF_PLACE", {})


def listed(outputs):
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    return list(outputs.values()) if isinstance(outputs, dict) else list(outputs)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "how"), CASES)
def test_a_file_computes_what_the_exported_module_does(tmp_path, name, how):
    model = made(name)
    path = export(model, inputs_of(name, 2 if how == "any batch" else 1), tmp_path / "n.onnx", how)
    network = from_onnx(path).double().eval()
    several = inputs_of(name, 7)
    for ours, theirs in zip(listed(network(*several)), listed(model(*several)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    single = from_onnx(path).float().eval()
    few = [x.float() if x.is_floating_point() else x for x in several]
    for ours, theirs in zip(listed(single(*few)), listed(model(*several)), strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-5)
    trained = sum(parameter.numel() for parameter in network.parameters())
    assert trained == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", ["cnn", "mlp", "unet"])
def test_parameters_keep_the_names_of_the_file(tmp_path, name):
    model = made(name)
    network = from_onnx(export(model, inputs_of(name, 1), tmp_path / "n.onnx"))
    state = network.state_dict()
    assert set(state) - {"norm.num_batches_tracked"} == set(model.state_dict()) - {
        "norm.num_batches_tracked"
    }
    again = made(name)
    for tensor in again.parameters():
        torch.nn.init.zeros_(tensor)
    again.load_state_dict(state)
    (x,) = inputs_of(name, 3)
    torch.testing.assert_close(again(x), model(x))


@pytest.mark.parametrize("name", ["cnn", "transformer", "gru"])
def test_products_run_on_arrays_and_are_those_that_the_file_is_priced_with(tmp_path, name):
    path = export(made(name), inputs_of(name, 1), tmp_path / "n.onnx")
    network = rt.convert(from_onnx(path).double(), engine="float64")
    assert {row["converted"] for row in rt.conversion(network).table.to_pylist()
            if row["kind"] in ("Linear", "Conv2d", "GRU")} == {True}  # fmt: skip
    network(*inputs_of(name, 2))
    ours, file = rt.conversion(network).work.latest, workload_from_onnx(path)
    assert ours.macs_per_sample == file.macs_per_sample
    assert ours.parameter_count == file.parameter_count
    assert sum(row.kind.name == "matmul" for row in ours.layers) == 2 * (name == "transformer")


RUN = (
    "dataset=digits", "train.batch_size=32", "train.micro_batch_size=16", "train.max_steps=3",
    "dataset.train_samples=96", "dataset.test_samples=64", "soi.block_size=40", "seed=3",
    "farm.backend=inprocess",
)  # fmt: skip


def losses(run):
    return [step["loss"] for step in json.loads((run / "result.json").read_text())["steps"]]


TEXT = """
import numpy as np, torch
from onnx_networks import made

def make_text():
    starts = np.random.default_rng(0).integers(0, 12, 160)
    tokens = (starts[:, None] + np.arange(7) ** 2) % 12
    x, y = tokens[:, :-1], tokens[:, 1:]
    return (x[:96], y[:96]), (x[96:], y[96:])

def network(name):
    return made(name).train()
"""


@pytest.fixture
def lab(tmp_path, monkeypatch):
    folder = tmp_path / "lab"
    folder.mkdir()
    (folder / "my_text.py").write_text(TEXT)
    shutil.copy(export.__code__.co_filename, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "data"),
    [("cnn", ()), ("mlp", ()), ("transformer", ("dataset.factory=my_text:make_text",))],
)
def test_a_file_trains_like_its_module_on_any_number_of_chips(train, lab, name, data):
    path = export(made(name), inputs_of(name, 1), lab / "n.onnx")
    run = [word for word in RUN if word != "dataset=digits" or not data]
    file = (*run, *data, f"model.path={path}")
    one, two = (train(*file, f"farm.chips={chips}") for chips in (1, 2))
    assert losses(one) == losses(two)
    assert final_arrays(one) == final_arrays(two)
    assert np.ptp(losses(one)) > 0.01
    if name == "mlp":
        return  # As a module it does not take pictures.
    module = ("model.factory=my_text:network", f"model.arguments.name={name}")
    # One projection of attention is one matrix in the file, and three in PyTorch's module.
    others = ("engine=float64", *(["optimizer=sgd"] if name == "transformer" else []))
    exact = (train(*run, *data, *source, *others) for source in (module, file[-1:]))
    theirs, ours = (losses(run) for run in exact)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)


def setup_of(*words):
    settings = load_settings([*RUN, "engine=float64", *words])
    return make_setup(training_job(settings), settings.dataset.load())


def test_weights_may_begin_anew_and_some_may_stay(tmp_path):
    path = export(made("mlp"), inputs_of("mlp", 1), tmp_path / "n.onnx")
    initial = {
        words: setup_of(f"model.path={path}", *words).network.initial()
        for words in ((), ("model.weights=fresh",), ("model.weights=fresh", "seed=4"))
    }
    file, fresh, other = initial.values()
    weights = np.vstack([made("mlp").hidden.weight.detach().T, made("mlp").hidden.bias.detach()])
    np.testing.assert_array_equal(file["hidden"], weights)
    assert not np.allclose(fresh["hidden"], file["hidden"])
    assert not np.allclose(fresh["hidden"], other["hidden"])
    assert np.array_equal(fresh["hidden"], setup_of(f"model.path={path}", "model.weights=fresh")
                          .network.initial()["hidden"])  # fmt: skip
    kept = setup_of(f"model.path={path}", "model.frozen=[hidden.*]").network
    assert [row.name for row in kept.parameters] == ["head"]
    with pytest.raises(SettingsError, match=r"frozen: 'nothing.\*' .*valid: hidden.weight"):
        setup_of(f"model.path={path}", "model.frozen=['nothing.*']")


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_workers_on_ray_get_the_network_and_not_the_file(train, tmp_path, monkeypatch):
    path = export(made("transformer"), inputs_of("transformer", 1), tmp_path / "n.onnx")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_text.py").write_text(TEXT.replace("from onnx_networks import made", ""))
    words = [word for word in RUN if not word.startswith(("dataset=", "farm."))]
    words += ["dataset.factory=my_text:make_text", f"model.path={path}"]
    one = train(*words, "farm.backend=inprocess", "farm.chips=1")
    opened = train_study.open_farm

    def without_files(*given):
        for file in (path, path.with_name("n.onnx.data")):
            file.unlink(missing_ok=True)
        return opened(*given)

    monkeypatch.setattr(train_study, "open_farm", without_files)
    monkeypatch.setattr("repast_dist.studies.recorder._checksums", lambda settings: {})
    several = train(*words, "farm.chips=2")
    assert losses(several) == losses(one)
    assert final_arrays(several) == final_arrays(one)


@pytest.mark.slow
def test_the_page_exports_files_that_train(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "onnx.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    (command,) = re.findall(r"^repast-dist (model\.path.*)$", page, re.M)
    example, two = torch.randn(1, 1, 8, 8), torch.randn(2, 1, 8, 8)
    assert len(blocks) == 3
    for block in blocks:
        model = NETWORKS["cnn"][0]()
        Path("net.onnx").unlink(missing_ok=True)
        names = {"torch": torch, "model": model, "example": example, "two_samples": two}
        exec(compile(block, "docs/onnx.md", "exec"), names)
        network, plain = from_onnx("net.onnx").eval(), model.eval()
        torch.testing.assert_close(network(two), plain(two))
        assert "norm.weight" in network.state_dict()
    less = ["train.max_steps=1", "dataset.test_samples=16", "farm.backend=inprocess"]
    assert main([*command.split(), *less, "engine=float64", f"run_root={tmp_path}"]) == 0


class Stop(Exception):
    """Ends a run in the middle."""


def test_a_run_goes_on_with_the_same_file_only(train, tmp_path, monkeypatch):
    path = export(made("mlp"), inputs_of("mlp", 1), tmp_path / "n.onnx")
    words = (*RUN, f"model.path={path}", "farm.chips=1", "farm.checkpoint_every=1")
    whole = train(*words)
    recorded = RunRecorder.steps

    def until_two(self, records, *others):
        if records[-1].step >= 2:
            raise Stop
        recorded(self, records, *others)

    monkeypatch.setattr(RunRecorder, "steps", until_two)
    with pytest.raises(Stop):
        train(*words, root=tmp_path / "stopped")
    monkeypatch.setattr(RunRecorder, "steps", recorded)
    (run,) = (tmp_path / "stopped" / "train").iterdir()
    weights = path.with_name("n.onnx.data")
    before = weights.read_bytes()
    weights.write_bytes(before[:-8] + bytes(8))
    with pytest.raises(RunDirectoryError, match=r"n\.onnx\.data has changed since the run began"):
        resume_study(run, {}, Console(file=io.StringIO()))
    weights.write_bytes(before)
    resume_study(run, {}, Console(file=io.StringIO()))
    assert final_arrays(run) == final_arrays(whole)


def test_a_file_is_planned_like_any_model(tmp_path, capsys):
    path = export(made("cnn"), inputs_of("cnn", 1), tmp_path / "n.onnx")
    words = ["dataset=digits", f"run_root={tmp_path}", f"model.path={path}"]
    assert main(["study=plan", "workload=model", *words]) == 0
    assert main(["study=train", "workload=onnx", f"workload.path={path}", *words[:2]]) == 2
    assert "model.path" in capsys.readouterr().err


# What is refused ------------------------------------------------------------------------------


def file_of(tmp_path, nodes, tensors, inputs=(("x", (1, 4)),), opset=20):
    """Write a graph whose last node's result is the output."""
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs],
        [helper.make_empty_tensor_value_info(nodes[-1].output[0])],
        [numpy_helper.from_array(np.asarray(values, np.float32), name)
         for name, values in tensors.items()],
    )  # fmt: skip
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]), str(path))
    return path


W = {"fc.weight": np.arange(12.0).reshape(4, 3)}
PRODUCT = helper.make_node("MatMul", ["x", "fc.weight"], ["y"])


@pytest.mark.parametrize(
    ("nodes", "tensors", "others", "message"),
    [
        ([PRODUCT], W, {"inputs": [("x", (8, 4))]}, "input x is for batches of 8; valid: an expor"),
        ([PRODUCT], W, {"inputs": [("x", ())]}, "input x is one number"),
        ([PRODUCT], W, {"inputs": [("x", (1, "t", 4))]}, "for one sample, and open otherwise"),
        ([PRODUCT], W, {"opset": 11}, "operators of version 11; valid: .*opset_version=13"),
        ([PRODUCT, helper.make_node("Unique", ["y"], ["z"])], W, {},
         "operator Unique cannot be trained; valid: an export without it"),
        ([helper.make_node("Relu", ["x"], ["y"])], {}, {}, "no weights that can be trained"),
        ([helper.make_node("Sum", ["fc.weight"], ["z"])], W, {}, "depend on no input"),
        ([helper.make_node("Transpose", ["fc.weight"], ["t"]), PRODUCT,
          helper.make_node("MatMul", ["y", "t"], ["z"])], W, {},
         "several weights are made of the same numbers"),
        ([PRODUCT, helper.make_node("ReduceMean", ["y", "a"], ["z"], keepdims=0)],
         W | {"a": [0.0]}, {}, r"two samples at once: .*valid: an export of two samples"),
        ([helper.make_node("GRU", ["x", "w.w", "r.w"], ["", "h"], hidden_size=2)],
         {"w.w": np.ones((1, 6, 4)), "r.w": np.ones((1, 6, 2))}, {"inputs": [("x", (1, 1, 4))]},
         "GRU with linear_before_reset=0 cannot be trained; valid: the module itself"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_one_line(tmp_path, nodes, tensors, others, message):
    path = file_of(tmp_path, nodes, tensors, **others)
    if "a" in tensors:
        model = onnx.load(str(path))
        axis = next(item for item in model.graph.initializer if item.name == "a")
        axis.CopyFrom(numpy_helper.from_array(np.array([0]), "a"))
        onnx.save(model, str(path))
    with pytest.raises(DataError, match=message) as caught:
        from_onnx(path)
    assert "\n" not in str(caught.value)


def applied(name, inputs=("scaled",), **attributes):
    """One operator behind weights that are trained, as nodes."""
    first = helper.make_node("Mul", ["x", "pre.weight"], ["scaled"])
    return [first, helper.make_node(name, list(inputs), ["y"], **attributes)]


SCALED = ("scaled", "", "scales")
HALF = {"coordinate_transformation_mode": "half_pixel"}
LEFT_TOP = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
OPERATORS = {
    "nearest as a file says nothing": (applied("Resize", SCALED), {"scales": [1, 1, 1 / 3, 1 / 3]}),
    "nearest, a part of a pixel": (applied("Resize", SCALED, **LEFT_TOP),
                                   {"scales": [1, 1, 1.7, 1.7]}),
    "linear as a file says nothing": (applied("Resize", SCALED, mode="linear"),
                                      {"scales": [1, 1, 2, 2]}),
    "linear, a part of a pixel": (applied("Resize", SCALED, mode="linear", **HALF),
                                  {"scales": [1, 1, 1.6, 1.6]}),
    "cubic, a part of a pixel": (applied("Resize", SCALED, mode="cubic", **HALF),
                                 {"scales": [1, 1, 1.6, 1.6]}),
    "padding to the same size": (applied("Conv", ("scaled", "c.weight"), auto_pad="SAME_UPPER"),
                                 {"c.weight": np.arange(36).reshape(2, 2, 3, 3) % 5}),
    "the same, dilated": (applied("Conv", ("scaled", "c.weight"), auto_pad="SAME_LOWER",
                                  dilations=[2, 2]),
                          {"c.weight": np.arange(36).reshape(2, 2, 3, 3) % 7}),
    "selu of other slopes": (applied("Selu", alpha=1.5, gamma=2.0), {}),
}  # fmt: skip


@pytest.mark.parametrize("what", OPERATORS)
def test_operators_compute_what_onnx_says(tmp_path, what):
    nodes, tensors = OPERATORS[what]
    weights = {"pre.weight": np.full((2, 1, 1), 1.5)}
    path = file_of(tmp_path, nodes, tensors | weights, [("x", ("n", 2, 6, 6))])
    model = onnx.load(str(path))
    x = np.random.default_rng(0).normal(size=(3, 2, 6, 6)).astype(np.float32)
    (wanted,) = ReferenceEvaluator(model).run(None, {"x": x})
    found = from_onnx(path).eval()(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("nodes", "tensors", "message"), [
    (applied("Resize", SCALED, mode="linear", antialias=1), {"scales": [1, 1, 0.5, 0.5]},
     "Resize with antialias=1"),
    (applied("Resize", SCALED, axes=[2, 3]), {"scales": [2, 2]}, "Resize with axes"),
    (applied("LRN", size=4), {}, "LRN with an even size"),
    (applied("IsInf", detect_negative=0), {}, "IsInf with one sign only"),
    (applied("ArgMax", select_last_index=1), {}, "ArgMax with select_last_index"),
    ([applied("Relu")[0],
      helper.make_node("MaxPool", ["scaled"], ["z", "i"], kernel_shape=[2, 2]),
      helper.make_node("Cast", ["i"], ["y"], to=TensorProto.FLOAT)], {},
     "MaxPool whose result 2 is used"),
])  # fmt: skip
def test_forms_of_operators_that_would_be_others_are_refused(tmp_path, nodes, tensors, message):
    path = file_of(
        tmp_path, nodes, tensors | {"pre.weight": np.full(6, 1.5)}, [("x", ("n", 2, 6, 6))]
    )
    with pytest.raises((DataError, NotImplementedError), match=message):
        from_onnx(path)(torch.ones(3, 2, 6, 6))


def test_damaged_files_are_read_or_refused_in_a_line(tmp_path):
    path = tmp_path / "some.onnx"
    refused = []
    for number in range(60):
        draw = draws("onnx", number)
        content = bytearray(some_network(draw).SerializeToString())
        for _ in range(draw.choice([0, 0, 1, 3])):
            content[draw.randrange(len(content))] = draw.randrange(256)
        path.write_bytes(content)
        try:
            from_onnx(path)
        except DataError as error:
            refused.append(str(error))
    assert 5 < len(refused) < 55
    assert not [text for text in refused if "\n" in text or len(text) > 400]


def test_files_without_their_numbers_are_named(tmp_path):
    path = export(made("mlp"), inputs_of("mlp", 1), tmp_path / "n.onnx")
    for missing in (path.with_name("n.onnx.data"), path):
        missing.unlink(missing_ok=True)
        with pytest.raises(DataError, match=r"n\.onnx: (the numbers of|not a readable)"):
            from_onnx(path)


def test_a_sample_of_another_size_is_named(tmp_path):
    path = export(made("cnn"), inputs_of("cnn", 1), tmp_path / "n.onnx")
    words = ("dataset=fashion_small", "dataset.train_samples=32", f"model.path={path}")
    with pytest.raises(SettingsError, match=r"model\.path: .*sample of shape \(1, 28, 28\)"):
        setup_of(*words)
