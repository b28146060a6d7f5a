"""The operations of a step: each has a name, a code and a place of its own."""

from repast_dist.ops import OP_NAMES, OPS, Segment, op_rows
from repast_dist.trace.schema import PHASES


def test_no_two_operations_share_a_name_or_a_code():
    assert len(set(OP_NAMES)) == len(OPS)
    assert [op.number for op in OPS] == list(range(len(OPS)))


def test_every_segment_of_a_step_has_operations():
    assert {op.segment for op in OPS} == set(Segment)
    assert [segment.number for segment in Segment] == list(range(len(Segment)))


def test_only_operations_that_communicate_are_collectives():
    assert {op.phase for op in OPS if op.collective} == {"communicate"}


def test_a_row_carries_the_codes_of_its_operation_and_of_its_phase():
    for op in OPS:
        row = op_rows(op, chip=0)
        assert OP_NAMES[row["op"][0]] == op.name
        assert PHASES[row["phase"][0]] == op.phase
