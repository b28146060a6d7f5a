"""Sums over a trace against hand-made cases and DuckDB."""

import gzip
import importlib.util
import json
import shutil
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from repast_dist.trace import PHASES, export_perfetto, step_times, sum_by, totals, trace_batch
from repast_dist.trace.query import busy_times

FORWARD, COMMUNICATE = PHASES.index("forward"), PHASES.index("communicate")


def table(rows: list[tuple[int, int, int, int, float, float, float]]) -> pa.Table:
    """Rows of (chip, bank, step, phase, start_s, duration_s, energy_j)."""
    names = ("chip", "bank", "step", "phase", "start_s", "duration_s", "energy_j")
    columns = {
        name: np.array(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)
    }
    columns["op"] = columns["phase"]
    return pa.Table.from_batches([trace_batch(columns, ops=list(PHASES))])


def test_overlapping_banks_count_once_and_the_slowest_chip_sets_the_phase() -> None:
    trace = table(
        [
            (0, 0, 0, FORWARD, 0.0, 4.0, 1.0),
            (0, 1, 0, FORWARD, 1.0, 2.0, 1.0),  # inside the first: no further time
            (0, 1, 0, FORWARD, 3.0, 2.0, 1.0),  # overlaps by one second, ends at 5
            (0, 0, 0, COMMUNICATE, 6.0, 1.0, 3.0),
            (1, 0, 0, FORWARD, 0.0, 2.0, 2.0),
            (1, 0, 0, COMMUNICATE, 6.0, 1.0, 3.0),
            (0, 0, 1, FORWARD, 7.0, 1.0, 1.0),
            (1, 0, 1, FORWARD, 7.0, 3.0, 1.0),
        ]
    )
    total = totals(trace)
    assert total.time_s == 7.0 + 3.0
    assert total.energy_j == 13.0
    assert total.phases["forward"].time_s == 5.0 + 3.0
    assert total.phases["forward"].busy_s == 5.0 + 2.0 + 1.0 + 3.0
    assert total.phases["communicate"].time_s == 1.0
    assert total.phases["communicate"].share_energy == pytest.approx(6 / 13)
    assert total.chips[0].compute_s == 6.0
    assert total.chips[0].utilisation == pytest.approx(0.6)
    assert total.chips[1].communicate_s == 1.0
    assert total.steps == 2


def test_busy_time_of_random_intervals_equals_counting_covered_ticks() -> None:
    random = np.random.default_rng(5)
    rows = [
        (int(random.integers(3)), 0, 0, FORWARD, float(random.integers(60)),
         float(random.integers(9)), 0.0)
        for _ in range(200)
    ]  # fmt: skip
    groups, busy = busy_times(table(rows), ("chip",))
    for chip, seconds in zip(groups["chip"], busy, strict=True):
        covered = {
            tick
            for row in rows
            if row[0] == chip
            for tick in range(int(row[4]), int(row[4] + row[5]))
        }
        assert seconds == len(covered)


def test_sums_by_phase_equal_duckdb(tmp_path: Path) -> None:
    random = np.random.default_rng(6)
    trace = table(
        [
            (int(random.integers(4)), 0, step, int(random.integers(8)), step, 0.5, random.random())
            for step in range(50)
        ]
    )
    ours = sum_by(trace, ("phase", "chip"), ("energy_j",))
    theirs = duckdb.sql("select phase::varchar, chip, sum(energy_j) from trace group by all")
    assert {(r[0], r[1]): pytest.approx(r[2]) for r in theirs.fetchall()} == {
        (r["phase"], r["chip"]): r["energy_j"] for r in ours.to_pylist()
    }


def test_steps_that_overlap_take_the_time_from_the_first_start_to_the_last_end() -> None:
    # Chip 1 ends each of three steps while chip 0 begins the next; in the last third both compute.
    rows = [
        row
        for step in range(3)
        for row in (
            (0, 0, step, FORWARD, 2.0 * step, 2.0, 1.0),
            (1, 0, step, FORWARD, 2.0 * step + 0.5, 2.5, 1.0),
        )
    ]
    trace = table(rows)
    steps = step_times(trace)
    assert steps["time_s"].to_pylist() == [2.0, 2.0, 3.0]
    assert steps["end_s"].to_pylist() == [3.0, 5.0, 7.0]
    total = totals(trace)
    assert total.time_s == 7.0
    assert total.chips[0].compute_s == 6.0
    assert total.chips[1].compute_s == 6.5  # Half a second of two steps at once counts once.
    assert max(use.utilisation for use in total.chips.values()) <= 1


def test_an_empty_trace_sums_to_nothing() -> None:
    total = totals(table([(0, 0, 0, FORWARD, 0.0, 1.0, 1.0)]).slice(0, 0))
    assert (total.time_s, total.energy_j, total.phases, total.chips) == (0.0, 0.0, {}, {})


def perfetto_example() -> pa.Table:
    return table(
        [
            (0, 0, 0, FORWARD, 0.0, 2e-6, 1.0),
            (3, 7, 0, COMMUNICATE, 2e-6, 1e-6, 1.0),
            (3, 7, 0, FORWARD, 2.5e-6, 1e-6, 1.0),  # begins before the one above ends
            (3, 7, 1, FORWARD, 5e-6, 1e-6, 1.0),
            (3, 7, 1, FORWARD, 9e-6, 1e-6, 1.0),
        ]
    )


def test_perfetto_export_has_chips_as_processes_and_banks_as_threads(tmp_path: Path) -> None:
    path = tmp_path / "trace.json.gz"
    assert export_perfetto(perfetto_example(), path) == 5
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    processes = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    threads = {
        (e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"
    }
    slices = [
        (processes[e["pid"]], threads[e["pid"], e["tid"]], e["name"], e["ts"], e["dur"])
        for e in events
        if e["ph"] == "X"
    ]
    assert slices == [
        ("chip 0", "bank 0", "forward", 0.0, 2.0),
        ("chip 3", "bank 7", "communicate", 2.0, 1.0),
        ("chip 3", "bank 7 (2)", "forward", 2.5, 1.0),
        ("chip 3", "bank 7", "forward", 5.0, 1.0),
        ("chip 3", "bank 7", "forward", 9.0, 1.0),
    ]
    assert 0 not in processes  # viewers take process 0 for the idle one


@pytest.mark.parametrize(
    ("most", "steps"), [(5, [0, 0, 0, 1, 1]), (4, [0, 0, 0]), (3, [0, 0, 0]), (2, [0, 0])]
)
def test_a_perfetto_export_has_whole_steps_or_the_beginning_of_the_first(
    tmp_path: Path, most: int, steps: list[int]
) -> None:
    path = tmp_path / "trace.json.gz"
    assert export_perfetto(perfetto_example(), path, max_events=most) == len(steps)
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    assert [event["args"]["step"] for event in events if event["ph"] == "X"] == steps


@pytest.mark.skipif(
    shutil.which("trace_processor_shell") is None or importlib.util.find_spec("perfetto") is None,
    reason="needs the perfetto package and trace_processor_shell on the path",
)
def test_perfetto_s_own_trace_processor_reads_the_export(tmp_path: Path) -> None:
    from perfetto.trace_processor import TraceProcessor, TraceProcessorConfig

    path = tmp_path / "trace.json.gz"
    export_perfetto(perfetto_example(), path)
    config = TraceProcessorConfig(bin_path=shutil.which("trace_processor_shell"))
    with TraceProcessor(trace=str(path), config=config) as processor:
        rows = processor.query(
            "select process.name as chip, count(*) as n, sum(dur) as ns from slice "
            "join thread_track on slice.track_id = thread_track.id join thread using (utid) "
            "join process using (upid) group by 1 order by 1"
        )
        assert [(row.chip, row.n, row.ns) for row in rows] == [
            ("chip 0", 1, 2000),
            ("chip 3", 4, 4000),
        ]
