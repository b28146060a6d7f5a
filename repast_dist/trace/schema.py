"""Declares the columns of the cost trace and of the solve reports, with units in their metadata."""

import enum
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa


class Phase(enum.StrEnum):
    """A phase of a training step, in the order in which a step first enters them."""

    FORWARD = "forward"
    BACKWARD = "backward"
    SOI = "soi"
    INVERSION = "inversion"
    PRECONDITION = "precondition"
    UPDATE = "update"
    PROGRAM = "program"
    COMMUNICATE = "communicate"


PHASES = tuple(phase.value for phase in Phase)
"""Names of the phases, in the order of `Phase`."""

FACTORS = ("A", "G")
RUN_KEY = "repast_dist.settings_sha256"
"""Key of a file's metadata that tells which run its rows are of."""
SCHEMA_VERSION = "2"
NONE = -1
"""Stands for "no such layer, block or micro-batch" in the integer columns."""

_NAME = pa.dictionary(pa.int8(), pa.string())


def _field(name: str, kind: pa.DataType, unit: str, description: str) -> pa.Field:
    return pa.field(name, kind, nullable=False, metadata={"unit": unit, "description": description})


SCHEMA = pa.schema(
    [
        _field("chip", pa.int32(), "1", "chip number"),
        _field("bank", pa.int32(), "1", "bank of the chip"),
        _field("step", pa.int32(), "1", "training step, from 0"),
        _field("phase", _NAME, "", "phase of the step"),
        _field("op", _NAME, "", "operation"),
        _field("layer", pa.int32(), "1", "layer number; -1: none"),
        _field("block", pa.int32(), "1", "SOI block number; -1: none"),
        _field("micro_batch", pa.int32(), "1", "micro-batch number; -1: none"),
        _field("start_s", pa.float64(), "s", "start in simulated time since the run began"),
        _field("duration_s", pa.float64(), "s", "duration in simulated time"),
        _field("energy_j", pa.float64(), "J", "energy"),
        _field("static_j", pa.float64(), "J", "part of the energy that flows whatever is done"),
        _field("crossbar_reads", pa.int64(), "1", "array activations: one pass on one array"),
        _field("cells_read", pa.int64(), "1", "cells driven, summed over passes"),
        _field("dac_conversions", pa.int64(), "1", "digital to analog, multiplying arrays"),
        _field("adc_conversions", pa.int64(), "1", "analog to digital, multiplying arrays"),
        _field("residual_adc_conversions", pa.int64(), "1", "analog to digital, residual products"),
        _field("cell_writes", pa.int64(), "1", "memory cells programmed"),
        _field("write_pulses", pa.int64(), "1", "programming pulses, summed over cells"),
        _field("inv_ops", pa.int64(), "1", "analog inversions: settlings of inverting arrays"),
        _field("amplifier_s", pa.float64(), "s", "time of settlings, summed over amplifiers"),
        _field("inv_dac_conversions", pa.int64(), "1", "digital to analog, inverting arrays"),
        _field("inv_adc_conversions", pa.int64(), "1", "analog to digital, inverting arrays"),
        _field("digital_ops", pa.int64(), "1", "digital arithmetic operations"),
        _field("buffer_bytes", pa.int64(), "B", "bytes read from or written to buffers"),
        _field("link_bytes", pa.int64(), "B", "bytes sent between chips"),
    ],
    metadata={"repast_dist.schema": "trace", "repast_dist.schema_version": SCHEMA_VERSION},
)
"""Schema of the cost trace: one row per operation of one chip in one step."""

COUNTS = SCHEMA.names[SCHEMA.names.index("crossbar_reads") :]
"""Columns that decide the energy of a row: totals over all arrays and units that work. Conversions
of inverting arrays have columns of their own, since their converters differ.
"""

SOLVE_SCHEMA = pa.schema(
    [
        _field("step", pa.int32(), "1", "training step, from 0"),
        _field("block", pa.int32(), "1", "SOI block number"),
        _field("layer", pa.int32(), "1", "layer number"),
        _field("factor", _NAME, "", "Kronecker factor: A (inputs) or G (gradients)"),
        _field("method", _NAME, "", "inversion method that gave the answer"),
        _field("iterations", pa.int32(), "1", "iterations of the slowest right-hand side"),
        _field("mean_iterations", pa.float64(), "1", "iterations, mean over right-hand sides"),
        _field("residual", pa.float64(), "1", "largest relative residual |b - A x| / |b|"),
        _field("target_bits", pa.int32(), "1", "the target: a residual of 2^-target_bits"),
        _field("converged", pa.bool_(), "", "every right-hand side reached the target"),
        _field("stable", pa.bool_(), "", "the amplifiers of its arrays come to rest"),
        _field("saturated", pa.bool_(), "", "an output went beyond the amplifiers' swing"),
        _field("action", _NAME, "", "what the divergence policy did: none, use, damp, fallback"),
        _field("chip", pa.int32(), "1", "chip that solved the block"),
    ],
    metadata={"repast_dist.schema": "solves", "repast_dist.schema_version": SCHEMA_VERSION},
)
"""Schema of the solve reports: one row per SOI block and step."""


def trace_batch(columns: Mapping[str, Any], ops: Sequence[str]) -> pa.RecordBatch:
    """Make a record batch of trace rows from arrays.

    Parameters
    ----------
    columns : mapping
        Column name -> array of n values in the column's type. ``phase`` holds indices into
        `PHASES` and ``op`` indices into `ops`. Where they are absent, layer, block and micro_batch
        are -1 and counts are 0.
    ops : sequence of str
        Names of the operations, at most 127.

    Raises
    ------
    ValueError
        A column is not in the schema, or one without a default is missing.
    """
    unknown = set(columns) - set(SCHEMA.names)
    if unknown:
        raise ValueError(f"not in the trace: {sorted(unknown)}; valid: {SCHEMA.names}")
    rows = len(columns["chip"])
    arrays = []
    for field in SCHEMA:
        if field.name in ("phase", "op"):
            names = PHASES if field.name == "phase" else ops
            codes = _numbers(columns[field.name], pa.int8())
            arrays.append(pa.DictionaryArray.from_arrays(codes, _texts(tuple(names))))
        elif field.name in columns:
            arrays.append(_numbers(columns[field.name], field.type))
        else:
            arrays.append(_numbers(np.full(rows, _default(field)), field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def _numbers(values: Any, kind: pa.DataType) -> pa.Array:
    """Return numbers as an Arrow array, which shares their memory.

    `pyarrow.array` would first import pandas where that is installed: a quarter of a second in
    every worker, which needs nothing of it.
    """
    held = np.ascontiguousarray(values, kind.to_pandas_dtype())
    return pa.Array.from_buffers(kind, len(held), [None, pa.py_buffer(held)])


@functools.cache
def _texts(texts: tuple[str, ...]) -> pa.StringArray:
    """Return texts as an Arrow array, as `_numbers` does."""
    encoded = [text.encode() for text in texts]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    return pa.StringArray.from_buffers(
        len(texts), pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))
    )


def solve_batch(rows: Iterable[Mapping[str, Any]]) -> pa.RecordBatch:
    """Make a record batch of solve reports from one mapping per solve, keyed as `SOLVE_SCHEMA`.

    ``action`` may be left out: "none".
    """
    filled = [{"action": "none", **row} for row in rows]
    arrays = [
        pa.array([row[field.name] for row in filled], _plain(field.type)).cast(field.type)
        for field in SOLVE_SCHEMA
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=SOLVE_SCHEMA)


def _default(field: pa.Field) -> int:
    if field.name in ("layer", "block", "micro_batch"):
        return NONE
    if field.type == pa.int64() or field.name in ("static_j", "amplifier_s"):
        return 0
    raise ValueError(f"trace rows need the column '{field.name}'")


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind
