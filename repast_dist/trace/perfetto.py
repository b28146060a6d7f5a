"""Exports a trace in the Chrome trace format, which Perfetto opens.

Chips are processes, banks are threads, times are simulated microseconds.
"""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.compute as pc

from repast_dist.trace.schema import NONE

MAX_EVENTS = 200_000
_ROWS_AT_ONCE = 1 << 14


def export_perfetto(table: pa.Table, path: Path, *, max_events: int = MAX_EVENTS) -> int:
    """Write trace rows as a gzipped Chrome trace; open it at ui.perfetto.dev.

    Parameters
    ----------
    table : pyarrow.Table
        Trace rows, all columns of the schema.
    path : Path
        Output file, usually ``trace.json.gz``.
    max_events : int
        Rows written at most: the first ones by time; the rest is left out.

    Returns
    -------
    int
        Events written.
    """
    rows = table.sort_by([("start_s", "ascending"), ("chip", "ascending")]).slice(0, max_events)
    aside = path.with_name(path.name + ".tmp")
    with gzip.open(aside, "wt", encoding="utf-8", compresslevel=5) as file:
        _write_events(file, rows)
    aside.replace(path)
    return int(rows.num_rows)


def _write_events(file: TextIO, rows: pa.Table) -> None:
    file.write('{"displayTimeUnit":"ns","traceEvents":[\n')
    separator = ""
    for event in _events(rows):
        file.write(separator + json.dumps(event, separators=(",", ":")))
        separator = ",\n"
    file.write("\n]}\n")


def _events(rows: pa.Table) -> Iterator[dict[str, Any]]:
    pairs = rows.group_by(["chip", "bank"]).aggregate([]).sort_by("chip")
    for chip in pc.unique(pairs["chip"]).to_pylist():
        yield _name("process_name", chip, 0, f"chip {chip}")
        yield {
            "ph": "M",
            "name": "process_sort_index",
            "pid": chip,
            "tid": 0,
            "args": {"sort_index": chip},
        }
    for pair in pairs.to_pylist():
        yield _name("thread_name", pair["chip"], pair["bank"], f"bank {pair['bank']}")
    for batch in rows.to_batches(max_chunksize=_ROWS_AT_ONCE):
        for row in batch.to_pylist():
            yield _slice(row)


def _slice(row: dict[str, Any]) -> dict[str, Any]:
    args = {name: row[name] for name in ("step", "energy_j")}
    args |= {n: row[n] for n in ("layer", "block", "micro_batch") if row[n] != NONE}
    args |= {n: row[n] for n in ("adc_conversions", "cell_writes", "link_bytes") if row[n]}
    return {
        "ph": "X",
        "name": row["op"],
        "cat": row["phase"],
        "pid": row["chip"],
        "tid": row["bank"],
        "ts": row["start_s"] * 1e6,
        "dur": row["duration_s"] * 1e6,
        "args": args,
    }


def _name(kind: str, chip: int, bank: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": chip, "tid": bank, "args": {"name": name}}
