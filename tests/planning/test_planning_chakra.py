"""Chakra traces, read back with the protobuf package and the published field numbers."""

import pytest

pytest.importorskip("google.protobuf")

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.internal.decoder import _DecodeVarint

from repast_dist.network.tables import network_table
from repast_dist.planning.chakra import chakra_nodes, write_chakra
from repast_dist.settings import load_settings

FIELD = descriptor_pb2.FieldDescriptorProto


def chakra_classes():
    """Build the messages of et_def.proto that we use, from its published field numbers."""
    file = descriptor_pb2.FileDescriptorProto(name="et.proto", package="t", syntax="proto3")

    def message(name, *fields):
        item = file.message_type.add(name=name)
        for field, number, kind, repeated, of in fields:
            label = FIELD.LABEL_REPEATED if repeated else FIELD.LABEL_OPTIONAL
            item.field.add(name=field, number=number, type=kind, label=label, type_name=of or None)

    message(
        "Attribute",
        ("name", 1, FIELD.TYPE_STRING, False, ""),
        ("double_val", 3, FIELD.TYPE_DOUBLE, False, ""),
        ("int64_val", 9, FIELD.TYPE_INT64, False, ""),
        ("bool_val", 27, FIELD.TYPE_BOOL, False, ""),
        ("string_val", 29, FIELD.TYPE_STRING, False, ""),
    )
    message(
        "Metadata",
        ("version", 1, FIELD.TYPE_STRING, False, ""),
        ("attr", 2, FIELD.TYPE_MESSAGE, True, ".t.Attribute"),
    )
    message(
        "Node",
        ("id", 1, FIELD.TYPE_UINT64, False, ""),
        ("name", 2, FIELD.TYPE_STRING, False, ""),
        ("type", 3, FIELD.TYPE_INT32, False, ""),
        ("data_deps", 5, FIELD.TYPE_UINT64, True, ""),
        ("duration_micros", 7, FIELD.TYPE_UINT64, False, ""),
        ("attr", 10, FIELD.TYPE_MESSAGE, True, ".t.Attribute"),
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return [
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"t.{name}"))
        for name in ("Metadata", "Node")
    ]


def read(path):
    metadata_class, node_class = chakra_classes()
    data, place, messages = path.read_bytes(), 0, []
    while place < len(data):
        size, place = _DecodeVarint(data, place)
        kind = node_class if messages else metadata_class
        messages.append(kind.FromString(data[place : place + size]))
        place += size
    return messages[0], messages[1:]


@pytest.fixture(scope="module")
def plan():
    settings = load_settings(["chip=small", "soi.block_size=128"])
    return settings.machine.plan(network_table("lenet5"), 4, 64, 8)


def test_traces_read_back_as_the_nodes_they_were_made_of(plan, tmp_path):
    paths = write_chakra(plan, tmp_path, steps=2)
    assert [path.name for path in paths] == [f"chip.{chip}.et" for chip in range(4)]
    for chip, path in enumerate(paths):
        metadata, nodes = read(path)
        assert {a.name: a.string_val for a in metadata.attr}["workload"] == "lenet5"
        made = chakra_nodes(plan, steps=2)[chip]
        assert [node.name for node in nodes] == [item.name for item in made]
        for node, item in zip(nodes, made, strict=True):
            attributes = {a.name: a for a in node.attr}
            assert attributes["seconds"].double_val == item.seconds
            assert node.duration_micros == max(1, round(item.seconds * 1e6))
            assert list(node.data_deps) == ([node.id - 1] if node.id else [])


def test_every_chip_takes_part_in_the_same_collectives(plan):
    sequences = [
        [(n.collective, n.size_bytes) for n in nodes if n.kind == 7] for nodes in chakra_nodes(plan)
    ]
    assert len(sequences[0]) == 5
    assert all(sequence == sequences[0] for sequence in sequences)


def test_collectives_have_the_bytes_that_each_chip_brings(plan):
    """As ASTRA-sim reads them: a reduce-scatter begins with everything on every chip, an all-gather
    with a share of the result. 61,706 parameters of 4 bytes, on 4 chips.
    """
    given = {n.name.split(": ")[1]: n.size_bytes for n in chakra_nodes(plan)[0] if n.kind == 7}
    network = 4 * sum(layer.parameter_count for layer in plan.workload.layers)
    assert network == 4 * 61_706
    factors = sum(b.size * (b.size + 1) // 2 for b in plan.blocks)
    # The norm of the clip, and ranges of every slice: one number each.
    ranges = given.pop("reduce_scalar")
    assert ranges % 4 == 0
    assert 0 < ranges < 2000
    assert given == {
        "reduce_gradients": network,
        "reduce_factors": 4 * factors,
        "exchange_gradients": network // 4,
        "gather_updates": network // 4,
    }


def test_slow_chips_compute_longer():
    settings = load_settings(["chip=small", "soi.block_size=128"])
    lenet = network_table("lenet5")
    fast, slow = (
        chakra_nodes(settings.machine.plan(lenet, 2, 64, 8, speeds=speeds))[1]
        for speeds in ((1.0, 1.0), (0.5, 0.5))
    )
    assert [n.seconds for n in slow] == pytest.approx([2 * n.seconds for n in fast])
