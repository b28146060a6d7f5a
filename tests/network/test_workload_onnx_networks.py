"""Real networks as both of torch's exporters write them, against torch's own counts.

`oracles/networks/export_networks.py` stored the graphs, without weights, and the counts.
"""

import json
import lzma
from pathlib import Path

import pytest

pytest.importorskip("onnx")

from repast_dist.network import kinds
from repast_dist.network.tables import network_table
from repast_dist.network.workload import WorkloadSpec, build_workload

ORACLES = Path(__file__).parents[1] / "oracles" / "networks"
COUNTS = json.loads((ORACLES / "counts.json").read_text())
FILES = sorted(path.name.removesuffix(".onnx.xz") for path in ORACLES.glob("*.onnx.xz"))


def read(tmp_path, stored):
    """Return the network of a stored graph."""
    path = tmp_path / f"{stored.partition('.')[0]}.onnx"
    path.write_bytes(lzma.decompress((ORACLES / f"{stored}.onnx.xz").read_bytes()))
    axis = COUNTS[path.stem]["batch_axis"]
    return build_workload(WorkloadSpec(name="onnx", path=str(path), batch_axis=axis))


@pytest.mark.slow
@pytest.mark.parametrize("stored", FILES)
def test_parameters_and_multiplications_are_those_that_torch_counts(tmp_path, stored):
    workload, expected = read(tmp_path, stored), COUNTS[stored.partition(".")[0]]
    assert workload.parameter_count == pytest.approx(expected["parameters"], rel=1e-3)
    assert workload.macs_per_sample == pytest.approx(expected["macs"], rel=1e-3)
    assert not [note for note in workload.assumptions if "not known" in note]


def test_both_exporters_are_tried_on_all_networks():
    """An exporter cannot write some; which, is stored."""
    missing = {
        name: [e for e in ("dynamo", "torchscript") if f"{name}.{e}" not in FILES]
        for name in COUNTS
    }
    assert missing == {name: count["not_exported"] for name, count in COUNTS.items()}
    assert len(COUNTS) >= 18
    assert sum(map(len, missing.values())) <= 1


@pytest.mark.parametrize(
    ("stored", "table", "sequence", "pretraining"),
    [
        ("gpt2_small.dynamo", "gpt2_small", 128, False),
        ("vit_b16.dynamo", "vit_b16", None, False),
        ("bert_pretraining.dynamo", "bert_base", 128, True),
    ],
)
def test_built_in_networks_are_the_exported_ones(tmp_path, stored, table, sequence, pretraining):
    """Parameters and multiplications by torch, the file and our own table."""
    built_in = network_table(table, sequence, pretraining)
    expected = COUNTS[stored.partition(".")[0]]
    assert built_in.parameter_count == expected["parameters"]
    assert built_in.macs_per_sample == expected["macs"]
    exported = read(tmp_path, stored)
    assert exported.preconditioned_macs == built_in.preconditioned_macs


def test_layers_have_the_names_of_their_modules(tmp_path):
    names = {layer.name for layer in read(tmp_path, "unet.dynamo").layers}
    assert {"down1.0", "up2", "head", "down1.2.relu"} & names == {"down1.0", "up2", "head"}
    names = {layer.name for layer in read(tmp_path, "transformer_encoder.torchscript").layers}
    assert {
        "layers.0.self_attn.in_proj",
        "layers.3.linear2",
        "layers.0.self_attn.MatMul_1",
    } <= names


def test_experts_are_groups_and_recurrent_weights_lie_in_crossbars(tmp_path):
    layers = {layer.name: layer for layer in read(tmp_path, "mixture_of_experts.dynamo").layers}
    # All experts' inputs are the same: one wide matrix. Their outputs have inputs of their own.
    up, down = layers["einsum"], layers["einsum_3"]
    assert (up.groups, up.in_features, up.out_features) == (1, 64, 4 * 256)
    assert (down.groups, down.in_features, down.out_features) == (4, 256, 64)
    assert {(row.kind, row.vectors_per_sample) for row in (up, down)} == {(kinds.DENSE, 32)}
    layers = {layer.name: layer for layer in read(tmp_path, "bilstm.dynamo").layers}
    states = layers["cells.l1.states.reverse"]
    assert (states.in_features, states.out_features, states.vectors_per_sample) == (256, 1024, 40)
    assert states.preconditioned
