"""Studies of costs take ONNX files, and say how large networks are and what was assumed."""

import lzma
from pathlib import Path

import pyarrow.parquet as pq
import pytest

pytest.importorskip("onnx")

from repast_dist.cli import main

STORED = Path(__file__).parents[1] / "oracles" / "networks" / "bilstm.torchscript.onnx.xz"
HERE = "farm.backend=inprocess"
PARAMETERS, MACS = 2_372_618, 94_376_960


@pytest.fixture
def network(tmp_path):
    path = tmp_path / "bilstm.onnx"
    path.write_bytes(lzma.decompress(STORED.read_bytes()))
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    "asked",
    [
        ("study=plan", "workload=onnx", "workload.path={path}"),
        ("study=scaling", "workload=onnx", "workload.path={path}", "study.chips=[1]", HERE),
        ("study=scaling", "study.networks=[lenet5,{path}]", "study.chips=[1]", HERE),
        ("study=headline", "study.networks=[{path}]", "study.sensitive=[lenet5]"),
        ("study=sweep", "workload=onnx", "workload.path={path}",
         "study.axes={{farm.chips: [1, 2]}}", "study.charts=[]", HERE),
    ],
)  # fmt: skip
def test_size_reach_and_assumptions_are_printed_and_on_the_page(tmp_path, network, capsys, asked):
    overrides = [item.format(path=network) for item in asked]
    root = tmp_path / "runs"
    assert main(["chip=repast", f"run_root={root}", *overrides]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"bilstm: {PARAMETERS:,} parameters, {MACS:,} MACs and 532,480 digital" in printed
    assert "second order reaches 100.0 % of the parameters and 100.0 % of the MACs" in printed
    assert "Assumed of bilstm: Kronecker factors of recurrent layers take their steps" in printed
    (page,) = root.rglob("report.html")
    assert "Kronecker factors of recurrent layers" in page.read_text()
    rows = pq.read_table(page.parent / "tables" / "networks.parquet").to_pylist()
    row = next(row for row in rows if row["network"] == "bilstm")
    assert (row["parameters"], row["macs"], row["of_parameters"]) == (PARAMETERS, MACS, 1.0)


def test_a_list_of_networks_names_what_is_valid(capsys):
    assert main(["study=scaling", "study.networks=[alexnet]"]) == 2
    assert "an ONNX file: NAME.onnx" in " ".join(capsys.readouterr().err.split())
