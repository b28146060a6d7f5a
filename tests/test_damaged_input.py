"""Input that is damaged or makes no sense ends in an error of ours, never in a traceback."""

import contextlib
import gzip
import json
import random
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from repast_dist.ground.errors import DataError, RepastError, RunDirectoryError, SettingsError
from repast_dist.network.onnx_file import workload_from_onnx
from repast_dist.report.run_data import load_run
from repast_dist.settings import expand_sweep, load_settings
from repast_dist.studies.run_result import read_result
from repast_dist.trace.writer import read_manifest
from repast_dist.training.datasets import idx

RESULT = {
    "study": "train", "settings": {"model": {"loss": "cross_entropy"}}, "settings_sha256": "0",
    "versions": {}, "plugins": {}, "wall_s": 1.0, "status": "running",
    "epochs": [{"step": 1, "epoch": 1}], "steps": [{"step": 0, "loss": 1.0}],
    "events": [{"step": 0, "kind": "resume", "message": "so"}],
}  # fmt: skip
ODD = [None, True, -1, 1e999, "", "x", [], {}, [None], {"step": "x"}, "9" * 50]


def damaged(draw: random.Random, text: str) -> str:
    """Change a JSON file the way disks and people do."""
    kind = draw.randrange(4)
    if kind == 0:
        return text[: draw.randrange(len(text))]
    if kind == 1:
        place = draw.randrange(len(text))
        return text[:place] + chr(draw.randrange(1, 0x250)) + text[place + 1 :]
    if kind == 2:
        return "[" * draw.choice([1, 100_000]) + text
    data = json.loads(text)
    node = data
    while isinstance(node, dict | list) and node:
        key = draw.choice(list(node)) if isinstance(node, dict) else draw.randrange(len(node))
        if draw.random() < 0.5 or not isinstance(node[key], dict | list) or not node[key]:
            if draw.random() < 0.5:
                del node[key]
            else:
                node[key] = draw.choice(ODD)
            break
        node = node[key]
    return json.dumps(data)


@pytest.mark.parametrize("seed", range(3))
def test_damaged_records_of_a_run_are_refused_or_read(tmp_path, seed):
    draw = random.Random(seed)
    manifest = {"chips": 1, "parts": [], "sha256": "0"}
    (tmp_path / "trace").mkdir()
    for _ in range(100):
        (tmp_path / "result.json").write_text(damaged(draw, json.dumps(RESULT)))
        (tmp_path / "trace-manifest.json").write_text(damaged(draw, json.dumps(manifest)))
        for read, where in ((read_result, ""), (load_run, ""), (read_manifest, "trace")):
            with contextlib.suppress(RepastError):
                read(tmp_path / where)


@pytest.mark.parametrize(
    "override",
    ["farm=null", "hydra/launcher=[null]", "experiment=" + "x" * 5000, "seed=" + "9" * 5000,
     "~baseline.inverse_efficiency.points.1", "model=[]", "farm.chips={}", "train=3", "=", "a.b.c",
     "seed=[1,{a:2}]", "seed=${seed}", "seed=${nothing}", "plugins=3",
     "chip.inv=null"],
)  # fmt: skip
def test_overrides_without_meaning_are_refused_in_few_words(override):
    with pytest.raises(SettingsError) as error:
        load_settings([override])
    assert len(str(error.value)) < 3000


def test_an_axis_that_needs_more_than_its_words_is_refused():
    with pytest.raises(SettingsError):
        expand_sweep(["+baseline.utilisation.new=glob(*)"])


@pytest.mark.parametrize(
    "content",
    [b"a: !!python/object:os.system x", b"\tseed: 1", b"\x00\x01\x02", "name: ü".encode("latin-1"),
     b"a: 1\na: 2", b"a: &a [*a]", b"defaults: [evil]", b"a: [1, 2", b"!!binary end", b"3"],
)  # fmt: skip
def test_yaml_files_of_ones_own_that_are_damaged_are_refused(tmp_path, content):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "evil.yaml").write_bytes(content)
    with pytest.raises(SettingsError):
        load_settings(["model=evil"], tmp_path)


def test_a_folder_of_settings_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(SettingsError, match="no folder"):
        load_settings([], tmp_path / "none")


def _model(op: str, inputs: list[list[int]], **attributes: object) -> onnx.ModelProto:
    names = [f"i{number}" for number in range(len(inputs))]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in zip(names, inputs, strict=True)
    ]
    node = helper.make_node(op, names, ["out"], name="bad", **attributes)
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    return helper.make_model(helper.make_graph([node], "g", values, [out]))


MALFORMED = [
    _model("Conv", [[1, 3, 8, 8]]),
    *(
        _model("Conv", [[1, 3, 8, 8], [4, 3, 3, 3]], group=group)
        for group in (0, -1, "two")
    ),
    _model("Conv", [[1, 3, 8, 8], []]),
    _model("Conv", [[1, 3, 8, 8], [4, 3, 3, 3]], kernel_shape=3),
    _model("Conv", [[1, 3, 8, 8], [-4, 3, 0, 3]]),
    _model("MatMul", [[], []]),
    _model("MatMul", [[1, 4], [4, 0]]),
    _model("Gemm", [[1, 4], [4]]),
    _model("Gemm", [[1, 4], [4, 4, 4]]),
    _model("BatchNormalization", [[1, 3, 8, 8]]),
    _model("Constant", []),
    _model("Gather", [[5]]),
]  # fmt: skip


@pytest.mark.parametrize("model", MALFORMED, ids=lambda model: model.graph.node[0].op_type)
def test_onnx_files_that_are_no_networks_are_refused_or_read(tmp_path, model):
    path = tmp_path / "bad.onnx"
    path.write_bytes(model.SerializeToString())
    with contextlib.suppress(DataError):
        workload_from_onnx(path)


def test_changed_bytes_of_an_onnx_file_are_refused_or_read(tmp_path):
    draw = random.Random(3)
    whole = _model("Conv", [[1, 3, 8, 8], [4, 3, 3, 3]], group=1).SerializeToString()
    path = tmp_path / "bad.onnx"
    for _ in range(200):
        content = bytearray(whole)
        for _ in range(draw.randrange(1, 4)):
            content[draw.randrange(len(content))] = draw.randrange(256)
        path.write_bytes(content)
        with contextlib.suppress(DataError):
            workload_from_onnx(path)


@pytest.mark.parametrize(
    "content",
    [bytes([0, 0, 8, 65]) + bytes(4 * 65), bytes([0, 0, 8, 4]) + b"\xff" * 16, b"", b"\0\0\x08"],
)
def test_idx_files_with_impossible_headers_are_refused(content):
    with pytest.raises(DataError):
        idx.parse_idx(content, Path("bad"))


def test_a_packed_file_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(idx, "_MOST_BYTES", 1 << 20)
    (tmp_path / "images.gz").write_bytes(gzip.compress(bytes(1 << 22)))
    with pytest.raises(DataError, match="unpacks to more than"):
        idx.read_idx(tmp_path, "images")


def test_a_deeply_nested_file_is_an_error_of_the_run_directory(tmp_path):
    (tmp_path / "result.json").write_text("[" * 200_000)
    with pytest.raises(RunDirectoryError):
        read_result(tmp_path)
