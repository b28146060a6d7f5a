"""Writes a plan as Chakra traces, one per chip, so that ASTRA-sim can replay its communication.

The format (MLCommons Chakra, ``et_def.proto``) is a file of length-delimited protobuf messages: a
`GlobalMetadata`, then `Node`s. Only the few fields that a replay reads are written, and they are
encoded here, so no protobuf runtime or generated code is needed.
"""

import dataclasses
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from repast_dist.ground.errors import SettingsError
from repast_dist.ops.op import Collective, Op, Segment
from repast_dist.planning.exchanges import exchanges
from repast_dist.planning.ops import step_ops
from repast_dist.planning.plan import Plan
from repast_dist.planning.timeline import place

SCHEMA_VERSION = "0.0.4"

COMPUTE_NODE, COLLECTIVE_NODE = 4, 7
_COMM_TYPE = {
    Collective.ALL_REDUCE: 0,
    Collective.ALL_GATHER: 2,
    Collective.ALL_TO_ALL: 6,
    Collective.REDUCE_SCATTER: 7,
}
"""The schema's ``CollectiveCommType``."""

_VARINT, _FIXED64, _BYTES = 0, 1, 2


@dataclasses.dataclass(frozen=True)
class ChakraNode:
    """One node of a trace.

    Attributes
    ----------
    number : int
        Identifier of the node.
    name : str
        Text that describes it.
    kind : int
        `COMPUTE_NODE` or `COLLECTIVE_NODE`.
    after : int or None
        The node before it, for which it waits; None: it is the first of its chip.
    seconds : float
        Duration in this package's model.
    collective : int
        ``CollectiveCommType`` of a collective.
    size_bytes : int
        Bytes that each chip contributes to a collective.
    """

    number: int
    name: str
    kind: int
    after: int | None
    seconds: float
    collective: int = 0
    size_bytes: int = 0


def write_chakra(plan: Plan, folder: Path, steps: int = 1, ticks_per_s: float = 1e6) -> list[Path]:
    """Write ``chip.<number>.et`` for every chip of a plan.

    Parameters
    ----------
    plan : Plan
        The plan.
    folder : Path
        Folder for the files; it is made if it does not exist.
    steps : int
        Number of steps to write.
    ticks_per_s : float
        Unit of the durations, which are whole numbers; ASTRA-sim reads them as microseconds (1e6).
        The attribute ``seconds`` always has the exact time.

    Returns
    -------
    list of Path
        The files, in chip order.

    Raises
    ------
    SettingsError
        Steps of the plan begin before the ones before them have ended.
    """
    if plan.delays.any():
        raise SettingsError(
            "partition.stages_in_flight, partition.update_delay: nodes of one step follow those of "
            "the step before; valid: stages_in_flight=1, update_delay=0"
        )
    folder.mkdir(parents=True, exist_ok=True)
    nodes = chakra_nodes(plan, steps)
    paths = []
    for chip in range(plan.work.chips):
        path = folder / f"chip.{chip}.et"
        messages = [_metadata(plan, chip), *(_node(n, ticks_per_s) for n in nodes[chip])]
        path.write_bytes(b"".join(_varint(len(message)) + message for message in messages))
        paths.append(path)
    return paths


def chakra_nodes(plan: Plan, steps: int = 1) -> list[list[ChakraNode]]:
    """Return the nodes of every chip: its computation between exchanges, and the exchanges."""
    found: list[list[ChakraNode]] = [[] for _ in range(plan.work.chips)]
    for step in range(steps):
        due = plan.work.renews and plan.policy.soi.factors_due(step)
        renewed = plan.work.renews and plan.policy.soi.inverses_due(step)
        table = step_ops(plan, None, step, factors_due=due, inverses_due=renewed)
        placed = place(plan, table, plan.price(table).duration_s)
        given = {op: round(cost.given_bytes) for op, cost in exchanges(plan, due).items()}
        for chip in range(plan.work.chips):
            for item in _step_nodes(placed.chip_seconds[chip], given, step):
                number = len(found[chip])
                after = number - 1 if number else None
                found[chip].append(dataclasses.replace(item, number=number, after=after))
    return found


def _step_nodes(seconds: np.ndarray, given: dict[Op, int], step: int) -> Iterator[ChakraNode]:
    for segment in Segment:
        took = float(seconds[segment.number])
        collectives = [op for op, size in given.items() if size and op.segment is segment]
        for op in collectives:
            assert op.collective
            yield ChakraNode(
                0,
                f"step {step}: {op.name}",
                COLLECTIVE_NODE,
                None,
                took / len(collectives),
                _COMM_TYPE[op.collective],
                given[op],
            )
        if not collectives and took > 0:
            yield ChakraNode(0, f"step {step}: {segment.title}", COMPUTE_NODE, None, took)


def _metadata(plan: Plan, chip: int) -> bytes:
    facts = {"workload": plan.workload.name, "chip": plan.hardware.chip.name, "rank": str(chip)}
    attributes = [_field(2, _BYTES, _text_attribute(*item)) for item in facts.items()]
    return _field(1, _BYTES, SCHEMA_VERSION.encode()) + b"".join(attributes)


def _node(node: ChakraNode, ticks_per_s: float) -> bytes:
    ticks = max(1, round(node.seconds * ticks_per_s))
    parts = [
        _field(1, _VARINT, node.number),
        _field(2, _BYTES, node.name.encode()),
        _field(3, _VARINT, node.kind),
    ]
    if node.after is not None:
        # Repeated integers are packed in proto3.
        parts.append(_field(5, _BYTES, _varint(node.after)))
    parts.append(_field(7, _VARINT, ticks))
    parts.append(_field(10, _BYTES, _flag_attribute("is_cpu_op", False)))
    parts.append(_field(10, _BYTES, _double_attribute("seconds", node.seconds)))
    if node.kind == COLLECTIVE_NODE:
        parts.append(_field(10, _BYTES, _integer_attribute("comm_type", node.collective)))
        parts.append(_field(10, _BYTES, _integer_attribute("comm_size", node.size_bytes)))
    return b"".join(parts)


def _text_attribute(name: str, value: str) -> bytes:
    return _field(1, _BYTES, name.encode()) + _field(29, _BYTES, value.encode())


def _integer_attribute(name: str, value: int) -> bytes:
    return _field(1, _BYTES, name.encode()) + _field(9, _VARINT, value)


def _flag_attribute(name: str, value: bool) -> bytes:
    return _field(1, _BYTES, name.encode()) + _field(27, _VARINT, int(value))


def _double_attribute(name: str, value: float) -> bytes:
    return _field(1, _BYTES, name.encode()) + _field(3, _FIXED64, value)


def _field(number: int, wire: int, value: int | float | bytes) -> bytes:
    """Encode one protobuf field: its key, and a varint, a double, or a length and bytes."""
    key = _varint(number << 3 | wire)
    if isinstance(value, bytes):
        return key + _varint(len(value)) + value
    if wire == _FIXED64:
        return key + struct.pack("<d", value)
    return key + _varint(int(value))


def _varint(value: int) -> bytes:
    """Encode a non-negative integer, seven bits a byte, least significant first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
