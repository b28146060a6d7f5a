"""Declares the operations of a training step, counts what they do and prices the counts."""

from repast_dist.ops.op import OP_NAMES, OPS, Collective, Op, Resource, Segment
from repast_dist.ops.pricing import Costs, price
from repast_dist.ops.table import OpTable, concatenate, op_rows, trace_columns

__all__ = [
    "OPS",
    "OP_NAMES",
    "Collective",
    "Costs",
    "Op",
    "OpTable",
    "Resource",
    "Segment",
    "concatenate",
    "op_rows",
    "price",
    "trace_columns",
]
