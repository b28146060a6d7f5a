"""Input that is damaged or makes no sense ends in an error of ours, never in a traceback."""

import contextlib
import gzip
from pathlib import Path

import onnx
import pytest
import yaml
from omegaconf import OmegaConf
from onnx import TensorProto, helper

from repast_dist.cli import main
from repast_dist.ground.errors import DataError, RunDirectoryError, SettingsError
from repast_dist.ground.yaml_size import expanded_nodes, interpolated_size
from repast_dist.network.onnx_file import workload_from_onnx
from repast_dist.settings import expand_sweep, load_settings
from repast_dist.studies.run_result import read_result
from repast_dist.training.datasets import idx


@pytest.mark.parametrize(
    "override",
    ["farm=null", "hydra/launcher=[null]", "experiment=" + "x" * 5000, "seed=" + "9" * 5000,
     "~baseline.product_efficiency.points.1", "model=[]", "farm.chips={}", "train=3", "=", "a.b.c",
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


@pytest.mark.parametrize(
    "axis",
    ["range(0,3000000)", "shuffle(range(0,3000000))", "range(0,1,0)", "range(0,1,1e-9)",
     "range(0,1,-1)", "range(nan,1)", "range(0,inf)"],
)  # fmt: skip
def test_an_axis_that_never_ends_or_never_begins_is_refused(axis):
    with pytest.raises(SettingsError, match=r"seed: range\(.*valid: 1 to 10000 values"):
        expand_sweep([f"seed={axis}"])


def test_a_sweep_of_too_many_runs_is_refused_before_it_is_written_out():
    axes = [f"model.layers.{n}=range(5000)" for n in range(4)]
    with pytest.raises(SettingsError, match=r"a sweep of 625000000000000 runs; valid: at most"):
        expand_sweep(axes)


def test_a_yaml_file_whose_aliases_would_fill_the_memory_is_refused(tmp_path):
    lines = ["a0: &a0 [x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "bomb.yaml").write_text("\n".join(lines))
    with pytest.raises(SettingsError, match=r"bomb.yaml: its aliases stand for \d{9} values"):
        load_settings(["model=bomb"], tmp_path)


def chains(value: str, levels: int = 9) -> dict[str, str]:
    """Return settings of which each stands for the next one ten times."""
    each = {f"x{n}": value.replace("NEXT", f"${{x{n + 1}}}") for n in range(levels)}
    return {**each, f"x{levels}": "lol"}


@pytest.mark.parametrize("value", [f"'{'NEXT' * 10}'", "['NEXT'" + ",'NEXT'" * 9 + "]"])
def test_interpolations_that_would_fill_the_memory_are_refused(tmp_path, value):
    bomb = chains(value)
    (tmp_path / "experiment").mkdir()
    lines = ["# @package _global_", *(f"{name}: {text}" for name, text in bomb.items())]
    (tmp_path / "experiment" / "bomb.yaml").write_text("\n".join(lines))
    many = r"^the interpolations .* stand for \d{11} values and characters; valid: at most 100000$"
    with pytest.raises(SettingsError, match=many):
        load_settings(["experiment=bomb"], tmp_path)
    with pytest.raises(SettingsError, match=many):
        load_settings([f"+{name}={text}" for name, text in bomb.items()])


def test_interpolations_are_counted_as_what_they_stand_for():
    for data in (
        {"a": "${b}${b}", "b": "${c.d} and ${c}", "c": {"d": "xy", "e": [1, None, "${.[0]}"]}},
        {"a": {"b": {"c": "${..d}", "e": "${...f}", "g": "${.c}"}, "d": "four"}, "f": [1, "z"]},
        {"a": "${oc.select:b}", "b": ["${b[1]}", 3, {"c": "${oc.env:NO_SUCH,${d}}"}], "d": "d"},
    ):
        plain = OmegaConf.to_container(OmegaConf.create(data), resolve=True)
        assert size_of(plain) <= interpolated_size(data) < 500
    assert interpolated_size({"a": "$b", "c": ["{a}", 3]}) == 0
    assert interpolated_size({"a": "${b}", "b": "${a}"}) > 0


def size_of(data: object) -> int:
    """Return the number of values and characters of plain data."""
    if isinstance(data, dict):
        return 1 + sum(map(size_of, data.values()))
    if isinstance(data, list):
        return 1 + sum(map(size_of, data))
    return 1 + (len(data) if isinstance(data, str) else 0)


def test_an_interpolation_may_stand_for_another_setting():
    assert load_settings(["run_root=out/${model.name}/${seed}", "seed=3"]).run_root.endswith("/3")


def test_aliases_are_counted_as_what_they_stand_for():
    for text in ("a: &x [1, 2, {b: 3}]\nc: *x\nd: [*x, *x]", "&r 1", "- &a [p]\n- *a\n- [*a]"):
        plain = yaml.safe_load(text)
        assert expanded_nodes(text.encode()) == values_in(plain)


def values_in(data: object) -> int:
    if isinstance(data, dict):
        return 1 + sum(1 + values_in(value) for value in data.values())
    return 1 + sum(map(values_in, data)) if isinstance(data, list) else 1


@pytest.mark.parametrize(
    "word",
    ["run_root='/home/j\udcf6rg'", "resume=/home/j\udcf6rg/run", "-m run_root='j\udcf6rg',b"],
)
def test_words_that_are_not_utf_8_are_named(word, capsys):
    assert main(word.split()) == 2
    assert capsys.readouterr().err.endswith("is not UTF-8; valid: text and paths in UTF-8\n")


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
