"""Stores and reads the cost trace: what every chip did, as Arrow batches and Parquet files."""

from repast_dist.trace.perfetto import export_perfetto
from repast_dist.trace.query import (
    ChipUse,
    PhaseTotal,
    Totals,
    step_times,
    sum_by,
    totals,
)
from repast_dist.trace.reader import read_solves, read_trace, trace_files
from repast_dist.trace.schema import (
    PHASES,
    SCHEMA,
    SOLVE_SCHEMA,
    solve_batch,
    trace_batch,
)
from repast_dist.trace.verify import Finding, verify, whole_steps
from repast_dist.trace.writer import TraceWriter

__all__ = [
    "PHASES",
    "SCHEMA",
    "SOLVE_SCHEMA",
    "ChipUse",
    "Finding",
    "PhaseTotal",
    "Totals",
    "TraceWriter",
    "export_perfetto",
    "read_solves",
    "read_trace",
    "solve_batch",
    "step_times",
    "sum_by",
    "totals",
    "trace_batch",
    "trace_files",
    "verify",
    "whole_steps",
]
