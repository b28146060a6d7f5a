"""Whatever is typed or read ends in an answer or in an error of few short lines.

Every case is drawn from a generator of its own, keyed by its kind and number, so that a case that
fails can be made again alone. Dear kinds try a tenth of theirs; ``REPAST_FUZZ=full`` tries all.
"""

import contextlib
import functools
import io
import json
import math
import os
import random
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from conftest import final_arrays
from onnx import TensorProto, helper
from rich.console import Console

import repast_dist as rd
from repast_dist.api.runs import open_run
from repast_dist.cli import main
from repast_dist.ground.errors import DataError, FarmError, RepastError
from repast_dist.ground.presets import conf_dir, setting_groups
from repast_dist.network.onnx_file import workload_from_onnx
from repast_dist.report.run_data import load_run
from repast_dist.settings import compose_plain, load_settings
from repast_dist.studies import resume_study, run_study
from repast_dist.studies.multirun import run_sweep
from repast_dist.studies.recorder import RunRecorder
from repast_dist.studies.run_result import read_result
from repast_dist.studies.verify import findings
from repast_dist.trace.writer import read_manifest
from repast_dist.training.datasets import idx

SHARE = 1 if os.environ.get("REPAST_FUZZ") == "full" else 10
LONGEST_LINE, MOST_LINES = 1500, 30


def draws(kind: str, number: int) -> random.Random:
    """Return the generator of one case."""
    return random.Random(f"{kind} {number}")


def few_short_lines(text: str) -> bool:
    lines = text.splitlines()
    return len(lines) <= MOST_LINES and all(len(line) <= LONGEST_LINE for line in lines)


def said(action: Callable[[], object], kind: type[Exception] = RepastError) -> str:
    """Do something; return the error if one of the project's own comes, and nothing otherwise."""
    try:
        action()
    except kind as error:
        return str(error)
    return ""


@contextlib.contextmanager
def case(*what: object) -> Iterator[None]:
    """Say which case it was that failed."""
    try:
        yield
    except Exception as error:
        raise AssertionError(f"case {what}") from error


# Overrides ----------------------------------------------------------------------------------

ODD_VALUES = [
    "null", "true", "-1", "0", "1e999", "-1e400", "nan", "inf", "9" * 400, "''", "[]", "{}",
    "[null]", "x", "[1,[2,[3]]]", "{a:1}", "{a:{b:null}}", "${seed}", "${nothing}",
    "${oc.env:HOME}", "'\\'", "ü☃", "1,2", "range(3)", "choice(a,b)", "glob(*)", "interval(0,1)",
    "1e-320", "0x10", "1_000", "--", "\t", "[" * 40 + "]" * 40, "x" * 3000, "../../etc/passwd",
    "/dev/null", "\\n", "a=b", "???", "!!", "%s", "{0}",
]  # fmt: skip
ODD_CHARACTERS = ["=", ",", "[", "}", "'", '"', "$", "\\", " ", "\n", "ä", "\x00", ".", "@", ":"]


@functools.cache
def paths() -> list[tuple[str, Any]]:
    """Return the dotted path and value of every setting that the defaults show."""

    def leaves(value: Any, path: str) -> list[tuple[str, Any]]:
        if isinstance(value, dict) and value:
            return [
                leaf for name, inner in value.items() for leaf in leaves(inner, f"{path}.{name}")
            ]
        return [(path[1:], value)]

    return leaves(compose_plain([]), "")


def an_override(draw: random.Random) -> str:
    """Return something that looks like an override, and seldom is a good one."""
    groups = setting_groups()
    path, value = draw.choice(paths())
    kind = draw.randrange(8)
    if kind == 0:
        group = draw.choice([*groups, "hydra/launcher", "none"])
        text = f"{group}={draw.choice([*groups.get(group, []), *ODD_VALUES])}"
    elif kind == 1:
        depth = draw.randrange(1, path.count(".") + 2)
        text = f"{'.'.join(path.split('.')[:depth])}={draw.choice(ODD_VALUES)}"
    elif kind == 2:
        text = f"{draw.choice(['~', '+', '++', '@', '-'])}{path}={draw.choice(ODD_VALUES)}"
    elif kind == 3:
        text = f"{draw.choice(['~', '~', '', '+'])}{path}"
    elif kind == 4:
        text = f"{path}.{draw.choice(['0', 'x', 'name', '..'])}={draw.choice(ODD_VALUES)}"
    elif kind == 5 and isinstance(value, int | float):
        factor = draw.choice([-1, 0, 1e-12, 0.5, 2, 7, 1e12, 1e300])
        text = f"{path}={value * factor!r}"
    elif kind == 6:
        others = draw.choice(paths())[1]
        text = f"{path}={json.dumps(others)}"
    else:
        text = f"{path}={draw.choice(ODD_VALUES)}"
    if draw.random() < 0.2 and text:
        place = draw.randrange(len(text))
        odd = draw.choice(ODD_CHARACTERS)
        text = text[:place] + odd + text[place + draw.randrange(2) :]
    return text


@pytest.mark.slow
@pytest.mark.parametrize("part", range(5))
def test_overrides_are_taken_or_refused_in_few_short_lines(part, capsys):
    for number in range(part, 2500 // SHARE, 5):
        draw = draws("override", number)
        words = [an_override(draw) for _ in range(draw.choice([1, 1, 1, 2, 3]))]
        flags = draw.choice([["--cfg"], ["--cfg"], ["--cfg", "-m"]])
        with case("override", number, words):
            # What looks like an option is none of ours, as with every command.
            status = main([*flags, *(word.lstrip("-") for word in words)])
            _, errors = capsys.readouterr()
            assert status == (2 if errors else 0), errors
            assert few_short_lines(errors), errors[:3000]
            assert all(line.startswith("repast-dist: error: ") for line in errors.splitlines())


# Runs ---------------------------------------------------------------------------------------


def a_run(draw: random.Random) -> list[str]:
    """Return the settings of a small run that make sense each, and mostly together."""
    pick = draw.choice
    words = [
        f"model={pick(['digits_mlp', 'digits_mlp', 'digits_cnn', 'digits_autoencoder'])}",
        f"optimizer={pick(['kfac', 'sgd', 'adam'])}",
        f"engine={pick(['analog', 'analog', 'float64', 'fixed'])}",
        f"seed={draw.randrange(1000)}",
        f"farm.chips={draw.randrange(1, 5)}",
        "dataset.train_samples=96", "dataset.test_fraction=0.03", "train.epochs=1",
        f"train.batch_size={pick([16, 32])}", f"train.micro_batch_size={pick([8, 16])}",
        f"train.max_steps={pick([1, 2])}",
        f"farm.checkpoint_every={pick([1, 5])}",
        f"soi.block_size={pick([8, 24, 64])}", f"soi.interval={pick([1, 2, 5])}",
    ]  # fmt: skip
    optional = [
        f"inversion={pick(['taylor', 'refine', 'fcg', 'cg', 'single', 'auto'])}",
        f"inversion.target_bits={pick([4, 8, 12, 16])}",
        f"chip.adc.bits={pick([6, 8, 10])}", f"chip.adc.range={pick(['full', 'calibrated'])}",
        f"chip.dac.bits={pick([1, 2])}",
        f"device.cell.programming_sigma={pick([0.0, 0.01, 0.2])}",
        f"device.cell.read_sigma={pick([0.0, 0.02])}",
        f"device.wire.row_ohm={pick([0.0, 2.0])}",
        f"device={pick(['reram', 'wan2022'])}", f"chip={pick(['isaac', 'repast'])}",
        f"partition={pick(['lpt', 'round_robin', 'shared'])}",
        f"optimizer.damping={pick([1e-6, 0.01, 1.0])}",
        f"optimizer.learning_rate={pick([0.001, 0.5, 50.0])}",
    ]  # fmt: skip
    return words + draw.sample(optional, draw.randrange(5))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(5))
def test_runs_that_make_sense_end_or_say_why_not(part, tmp_path):
    ended = tried = 0
    for number in range(part, 200 // SHARE, 5):
        words = a_run(draws("run", number))
        root = tmp_path / str(number)
        ran: list[Path] = []
        with case("run", number, " ".join(words)):
            errors = said(functools.partial(run, [f"run_root={root}", *words], ran))
            assert few_short_lines(errors)
            for run_dir in ran:
                result = read_result(run_dir)
                assert result["status"] == "finished"
                assert all(math.isfinite(step["loss"]) for step in result["steps"])
                assert list(findings(run_dir)) == []
        tried += 1
        ended += len(ran)
        shutil.rmtree(root, ignore_errors=True)
    assert ended > tried / 3


def run(words: list[str], ran: list[Path]) -> None:
    settings = load_settings(["farm.backend=inprocess", *words])
    ran.append(run_study(settings, Console(file=io.StringIO())))


# ONNX ---------------------------------------------------------------------------------------


def some_network(draw: random.Random) -> onnx.ModelProto:
    """Return a small network of the kinds of nodes that files hold."""
    weights = {"k": [4, 3, 3, 3], "w": [64, 10], "b": [10], "s": [4], "g": [10, 5], "r": [2]}
    kept = [
        helper.make_tensor(name, TensorProto.FLOAT, shape, bytes(4 * math.prod(shape)), raw=True)
        for name, shape in weights.items()
        if name != "r"
    ]
    kept.append(helper.make_tensor("r", TensorProto.INT64, [2], [1, 64]))
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("BatchNormalization", ["c", "s", "s", "s", "s"], ["n"]),
        helper.make_node("Relu", ["n"], ["a"]),
        helper.make_node("MaxPool", ["a"], ["p"], kernel_shape=[2, 2], strides=[1, 1]),
        helper.make_node("AveragePool", ["a"], ["q"], kernel_shape=[1, 1]),
        helper.make_node("Reshape", ["q", "r"], ["f"]),
        helper.make_node("Gemm", ["f", "w", "b"], ["d"]),
        helper.make_node("Softmax", ["d"], ["o"]),
        helper.make_node("MatMul", ["o", "g"], ["y"]),
    ]
    entry = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])
    leave = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    model = helper.make_model(helper.make_graph(nodes, "g", [entry], [leave], kept))
    for _ in range(draw.randrange(4)):
        spoil(draw, model.graph)
    return model


def spoil(draw: random.Random, graph: onnx.GraphProto) -> None:
    """Make one thing of a network wrong in the way that exporters and people do."""
    node = draw.choice(graph.node)
    kind = draw.randrange(8)
    if kind == 0 and node.input:
        del node.input[draw.randrange(len(node.input))]
    elif kind == 1:
        node.input.append(draw.choice(["x", "w", "nothing", "y", ""]))
    elif kind == 2 and node.attribute:
        attribute = draw.choice(node.attribute)
        values = [[0, 0], [-1], [2**40] * 2, "two", 1.5, [1, 2, 3], ["a"]]
        other = helper.make_attribute(attribute.name, draw.choice(values))
        empty = onnx.AttributeProto(name=attribute.name)
        attribute.CopyFrom(other if draw.random() < 0.9 else empty)
    elif kind == 3:
        node.op_type = draw.choice(
            ["Conv", "Gemm", "MatMul", "Gather", "Constant", "If", "", "LSTM"]
        )
    elif kind == 4:
        kept = draw.choice(graph.initializer)
        del kept.dims[:]
        kept.dims.extend(draw.choice([[], [0], [-1, 4], [2**40, 2**20], [1] * 9, [3]]))
    elif kind == 5:
        kept = draw.choice(graph.initializer)
        kept.data_type = draw.choice([0, 7, 8, 10, 16, 99])
    elif kind == 6:
        shape = graph.input[0].type.tensor_type.shape
        dim = draw.choice(shape.dim)
        dim.dim_value = draw.choice([0, -1, 2**62, 7])
    else:
        graph.node.append(node)


def test_onnx_files_are_read_or_refused(tmp_path):
    path = tmp_path / "some.onnx"
    for number in range(400):
        draw = draws("onnx", number)
        content = bytearray(some_network(draw).SerializeToString())
        for _ in range(draw.choice([0, 0, 1, 3])):
            content[draw.randrange(len(content))] = draw.randrange(256)
        if draw.random() < 0.1:
            del content[draw.randrange(len(content)) :]
        path.write_bytes(content)
        with case("onnx", number):
            assert few_short_lines(said(functools.partial(workload_from_onnx, path), DataError))


# Files --------------------------------------------------------------------------------------


ODD_BYTES = [
    b"\t", b"\x00", b"\xff\xfe", b": ", b"- ", b"[", b"{", b"&a ", b"*a", b"<<: *a", b"${seed}",
    b"!!python/object:os.system x", b"${", b"null", b"1e999", b"'", b'"', b"\n", b"---\n",
    b"%YAML 9\n",
]  # fmt: skip


def spoiled(draw: random.Random, text: str) -> bytes:
    """Change a text file the way disks, editors and people do."""
    content = bytearray(text.encode())
    for _ in range(draw.randrange(1, 4)):
        place = draw.randrange(len(content) + 1)
        kind = draw.randrange(7)
        if kind == 0:
            del content[place:]
        elif kind == 1 and place < len(content):
            content[place] = draw.randrange(256)
        elif kind == 2:
            content[place:place] = draw.choice(ODD_BYTES)
        elif kind == 3:
            content[place:place] = content[: draw.randrange(len(content) + 1)]
        elif kind == 4:
            lines = content.split(b"\n")
            draw.shuffle(lines)
            content = bytearray(b"\n".join(lines))
        elif kind == 5:
            lines = content.split(b"\n")
            del lines[draw.randrange(len(lines))]
            content = bytearray(b"\n".join(lines))
        else:
            content[place:place] = draw.choice([b"[", b"{a: "]) * draw.choice([5, 3000])
    return bytes(content)


@pytest.mark.slow
def test_yaml_files_of_ones_own_are_read_or_refused(tmp_path):
    files = sorted(conf_dir().glob("*/*.yaml"))
    for number in range(300 // SHARE):
        draw = draws("yaml", number)
        source = draw.choice(files)
        group = source.parent.name
        folder = tmp_path / str(number) / group
        folder.mkdir(parents=True)
        (folder / "mine.yaml").write_bytes(spoiled(draw, source.read_text()))
        load = functools.partial(load_settings, [f"{group}=mine"], folder.parent)
        with case("yaml", number, source):
            assert few_short_lines(said(load))


ODD_ENTRIES = [
    None, True, -1, 1e999, "", "x", [], {}, [None], {"step": "x"}, "9" * 50, 10**400,
]  # fmt: skip


def spoiled_json(draw: random.Random, data: Any) -> str:
    """Change a JSON file: its text, or one entry somewhere."""
    text = json.dumps(data)
    if draw.random() < 0.3:
        return spoiled(draw, text).decode("latin-1")
    data = json.loads(text)
    node = data
    while isinstance(node, dict | list) and node:
        key = draw.choice(list(node)) if isinstance(node, dict) else draw.randrange(len(node))
        if draw.random() < 0.5 or not isinstance(node[key], dict | list) or not node[key]:
            if draw.random() < 0.3:
                del node[key]
            else:
                node[key] = draw.choice(ODD_ENTRIES)
            break
        node = node[key]
    return json.dumps(data)


PLAIN = (
    "farm.chips=1", "model=digits_mlp", "optimizer=sgd", "engine=float64", "train.batch_size=32",
    "dataset.train_samples=96", "dataset.test_fraction=0.03", "train.epochs=1",
)  # fmt: skip
QUIET = Console(file=io.StringIO())


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run directory."""
    ran: list[Path] = []
    run([*PLAIN, "train.max_steps=2", f"run_root={tmp_path_factory.mktemp('whole')}"], ran)
    return ran[0]


READERS: dict[str, Callable[[Path], object]] = {
    "result.json": read_result,
    "result.json, page": load_run,
    "result.json, verify": lambda run: list(findings(run)),
    "trace-manifest.json": lambda run: read_manifest(run / "trace"),
    "trace-manifest.json, page": load_run,
    "checksums.json": lambda run: list(findings(run)),
    "answer.json": lambda run: open_run(run).figures,
}


@pytest.mark.parametrize("what", READERS)
def test_records_of_a_run_are_read_or_refused(whole, what):
    path = whole / what.partition(",")[0]
    text = path.read_text()
    try:
        for number in range(40):
            path.write_text(spoiled_json(draws(what, number), json.loads(text)))
            with case(what, number):
                assert few_short_lines(said(functools.partial(READERS[what], whole)))
    finally:
        path.write_text(text)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, whole) -> Path:
    """The directory of a run that failed after two of three steps, with a checkpoint at each."""
    recorded = RunRecorder.steps

    def lost(self: RunRecorder, records: Any, *others: Any) -> None:
        recorded(self, records, *others)
        if records[-1].step == 1:
            raise FarmError("lost")

    root = tmp_path_factory.mktemp("stopped")
    words = [*PLAIN, "train.max_steps=3", "farm.checkpoint_every=1", f"run_root={root}"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(RunRecorder, "steps", lost)
        with pytest.raises(FarmError):
            run(words, [])
    return next(root.glob("train/2*"))


RECORDS = (
    "settings.json", "result.json", "trace-manifest.json", "solves-manifest.json",
    "checkpoints/*/state.json", "checkpoints/*/checksums.json", "checksums.json",
)  # fmt: skip


@pytest.mark.slow
def test_a_run_with_damaged_records_goes_on_to_the_same_end_or_says_why_not(stopped, tmp_path):
    found = [path for what in RECORDS for path in sorted(stopped.glob(what))]
    assert len(found) == 9
    resume_study(shutil.copytree(stopped, tmp_path / "undisturbed"), {}, QUIET)
    expected = final_arrays(tmp_path / "undisturbed")
    ended = 0
    for number in range(250 // SHARE):
        draw, directory = draws("resume", number), tmp_path / str(number)
        shutil.copytree(stopped, directory)
        path = directory / draw.choice(found).relative_to(stopped)
        path.write_text(spoiled_json(draw, json.loads(path.read_text())))
        with case("resume", number, path):
            errors = said(functools.partial(resume_study, directory, {}, QUIET))
            assert few_short_lines(errors)
            if not errors:
                ended += 1
                assert final_arrays(directory) == expected
        shutil.rmtree(directory)
    assert 0 < ended < 250 // SHARE


def test_a_damaged_run_is_compared_or_refused(whole, tmp_path):
    damaged = shutil.copytree(whole, tmp_path / "damaged")
    words = ["study=compare", f"study.runs=[{whole},{damaged}]", f"run_root={tmp_path / 'page'}"]
    text = (damaged / "result.json").read_text()
    for number in range(100 // SHARE):
        spoilt = spoiled_json(draws("compare", number), json.loads(text))
        (damaged / "result.json").write_text(spoilt)
        with case("compare", number):
            assert few_short_lines(said(lambda: run_study(load_settings(words), QUIET)))


@pytest.mark.slow
def test_a_sweep_with_damaged_records_goes_on_or_says_why_not(tmp_path):
    points = [
        [*PLAIN, "farm.backend=inprocess", "train.max_steps=1", f"seed={seed}",
         f"run_root={tmp_path / 'sweep'}"] for seed in (0, 1)
    ]  # fmt: skip
    folder = run_sweep([load_settings(words) for words in points], points, QUIET)
    # As it is before the last run.
    (folder / "sweep.json").write_text(
        json.dumps(json.loads((folder / "sweep.json").read_text()) | {"status": "running"})
    )
    for number in range(40 // SHARE):
        draw, copy = draws("sweep", number), tmp_path / str(number)
        shutil.copytree(folder, copy)
        path = copy / draw.choice(["sweep.json", "settings/0001.json", "0001/result.json"])
        path.write_text(spoiled_json(draw, json.loads(path.read_text())))
        with case("sweep", number, path):
            assert few_short_lines(said(functools.partial(rd.resume, copy, quiet=True, jobs=1)))
        shutil.rmtree(copy)


def test_idx_files_are_read_or_refused():
    for number in range(300):
        draw = draws("idx", number)
        content = bytearray(struct.pack(">HBBII", 0, 8, 2, 5, 4) + bytes(20))
        for _ in range(draw.randrange(1, 4)):
            content[draw.randrange(12)] = draw.choice([0, 1, 2, 8, 13, 14, 64, 127, 128, 255])
        if draw.random() < 0.3:
            del content[draw.randrange(len(content)) :]
        read = functools.partial(idx.parse_idx, bytes(content), Path("some"))
        with case("idx", number):
            assert few_short_lines(said(read, DataError))
