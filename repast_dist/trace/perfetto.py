"""Exports a trace in the Chrome trace format, which Perfetto opens.

Chips are processes, banks are threads, times are simulated microseconds. A viewer nests the slices
of a thread, so operations that overlap on one bank are put on several threads of that bank. Process
and thread numbers start at 1, since viewers take 0 for the idle process.
"""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np
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
        Most rows to write: those of the first steps, as many as go in whole. Where the first one
        does not, its earliest rows.

    Returns
    -------
    int
        Rows written.
    """
    order = [(name, "ascending") for name in ("start_s", "chip", "bank")]
    rows = _first_steps(table, max_events).sort_by(order).slice(0, max_events)
    aside = path.with_name(path.name + ".tmp")
    with gzip.open(aside, "wt", encoding="utf-8", compresslevel=5) as file:
        _write_events(file, rows)
    aside.replace(path)
    return int(rows.num_rows)


def _first_steps(table: pa.Table, most: int) -> pa.Table:
    """Return the rows of the first steps that are no more than `most` together, or of the first."""
    steps, rows = np.unique(table["step"].to_numpy(), return_counts=True)
    whole = int(np.searchsorted(np.cumsum(rows), most, side="right"))
    if whole == len(steps):
        return table
    return table.filter(pc.less_equal(table["step"], steps[max(whole - 1, 0)]))


def _write_events(file: TextIO, rows: pa.Table) -> None:
    file.write('{"displayTimeUnit":"ns","traceEvents":[\n')
    separator = ""
    for event in _events(rows):
        file.write(separator + json.dumps(event, separators=(",", ":")))
        separator = ",\n"
    file.write("\n]}\n")


def _events(rows: pa.Table) -> Iterator[dict[str, Any]]:
    threads = _Threads()
    for batch in rows.to_batches(max_chunksize=_ROWS_AT_ONCE):
        for row in batch.to_pylist():
            yield _slice(row, threads.place(row))
    yield from threads.names()


class _Threads:
    """Assigns each row to a thread that is free at its start; rows must be sorted by start."""

    def __init__(self) -> None:
        self._lanes: dict[tuple[int, int], list[list[float]]] = {}
        self._count = 0

    def place(self, row: dict[str, Any]) -> int:
        lanes = self._lanes.setdefault((row["chip"], row["bank"]), [])
        start, end = row["start_s"], row["start_s"] + row["duration_s"]
        for lane in lanes:
            # A sum of durations may end a rounding error after the next start.
            if lane[1] <= start + 1e-12 * abs(start):
                lane[1] = end
                return int(lane[0])
        self._count += 1
        lanes.append([self._count, end])
        return self._count

    def names(self) -> Iterator[dict[str, Any]]:
        for chip in sorted({chip for chip, _ in self._lanes}):
            yield _meta("process_name", chip, 0, {"name": f"chip {chip}"})
            yield _meta("process_sort_index", chip, 0, {"sort_index": chip})
        for (chip, bank), lanes in sorted(self._lanes.items()):
            for number, (thread, _) in enumerate(lanes, start=1):
                name = f"bank {bank}" + (f" ({number})" if number > 1 else "")
                yield _meta("thread_name", chip, int(thread), {"name": name})
                order = bank * len(self._lanes) + number
                yield _meta("thread_sort_index", chip, int(thread), {"sort_index": order})


def _slice(row: dict[str, Any], thread: int) -> dict[str, Any]:
    args = {name: row[name] for name in ("step", "energy_j")}
    args |= {n: row[n] for n in ("layer", "block", "micro_batch") if row[n] != NONE}
    args |= {n: row[n] for n in ("adc_conversions", "cell_writes", "link_bytes") if row[n]}
    return {
        "ph": "X",
        "name": row["op"],
        "cat": row["phase"],
        "pid": row["chip"] + 1,
        "tid": thread,
        "ts": row["start_s"] * 1e6,
        "dur": row["duration_s"] * 1e6,
        "args": args,
    }


def _meta(kind: str, chip: int, thread: int, args: dict[str, Any]) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": chip + 1, "tid": thread, "args": args}
