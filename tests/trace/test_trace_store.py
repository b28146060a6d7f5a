"""What a trace folder holds after normal runs, crashes and resumes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import polars
import pyarrow as pa
import pytest

from repast_dist.ground.errors import RunDirectoryError
from repast_dist.trace import (
    PHASES,
    SCHEMA,
    TraceWriter,
    read_solves,
    read_trace,
    solve_batch,
    trace_batch,
    trace_files,
    verify,
    whole_steps,
)

N_CHIPS = 3


def chip_rows(step: int, chip: int, rows: int = 4) -> pa.RecordBatch:
    """Rows of one chip in one step: op names differ between chips, as they may in a run."""
    index = np.arange(rows)
    return trace_batch(
        {
            "chip": np.full(rows, chip),
            "bank": index % 2,
            "step": np.full(rows, step),
            "phase": index % len(PHASES),
            "op": index % 2,
            "start_s": step + index * 0.1,
            "duration_s": np.full(rows, 0.1),
            "energy_j": np.full(rows, 2.0**-10),
            "adc_conversions": index,
        },
        ops=["vmm", f"write_{chip}"],
    )


def test_rows_are_those_that_arrow_makes_of_the_numbers() -> None:
    ops = ["vmm", "wärme", ""]
    kinds = {field.name: field.type for field in SCHEMA}
    values = {name: np.arange(6) % 3 for name in SCHEMA.names}
    made = trace_batch(values, ops).to_pydict()
    for name, numbers in values.items():
        names = {"phase": PHASES, "op": ops}.get(name)
        wanted = [names[i] for i in numbers] if names else pa.array(numbers).cast(kinds[name])
        assert made[name] == (wanted if names else wanted.to_pylist())
    assert trace_batch({name: v[:0] for name, v in values.items()}, ops).num_rows == 0
    some = {"chip", "bank", "step", "phase", "op", "start_s", "duration_s", "energy_j"}
    defaults = trace_batch({name: values[name] for name in some}, ops).to_pydict()
    assert defaults["layer"] == defaults["micro_batch"] == [-1] * 6
    assert defaults["adc_conversions"] == defaults["static_j"] == [0] * 6


def test_rows_are_made_without_pandas_which_every_worker_would_import() -> None:
    code = (
        "import sys, numpy as np\n"
        "from repast_dist.trace import SCHEMA, trace_batch\n"
        "trace_batch({name: np.arange(2) % 2 for name in SCHEMA.names}, ['a', 'b'])\n"
        "assert 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def append_steps(writer: TraceWriter, steps: range) -> None:
    for step in steps:
        solves = [
            {
                "step": step,
                "block": 0,
                "layer": 1,
                "factor": "A",
                "method": "fcg",
                "iterations": 7,
                "mean_iterations": 6.5,
                "residual": 1e-5,
                "target_bits": 16,
                "converged": True,
                "stable": True,
                "saturated": False,
                "chip": 0,
            }
        ]
        batches = [chip_rows(step, chip) for chip in range(N_CHIPS)]
        writer.append(range(step, step + 1), batches, solve_batch(solves))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "trace"


def steps_in(folder: Path) -> list[int]:
    return read_trace(folder, ["step"])["step"].to_pylist()


def test_every_column_states_its_unit_and_the_schema_survives_parquet(folder: Path) -> None:
    with TraceWriter(folder, n_chips=N_CHIPS, settings_sha256="abc") as writer:
        append_steps(writer, range(2))
    stored = pa.parquet.read_schema(trace_files(folder)[0])
    assert stored.equals(SCHEMA)
    assert stored.field("energy_j").metadata[b"unit"] == b"J"
    assert stored.field("link_bytes").metadata[b"unit"] == b"B"
    assert all(field.metadata[b"description"] for field in stored)
    assert stored.metadata[b"repast_dist.settings_sha256"] == b"abc"


def test_duckdb_polars_and_pyarrow_open_the_folder_and_agree(folder: Path) -> None:
    with TraceWriter(folder, n_chips=N_CHIPS) as writer:
        append_steps(writer, range(5))
        writer.cut()
        append_steps(writer, range(5, 8))
    expected = 8 * N_CHIPS * 4
    import pyarrow.dataset as ds

    assert ds.dataset(folder).count_rows() == expected
    query = f"select count(*), sum(energy_j) from '{folder}/*.parquet'"
    assert duckdb.sql(query).fetchall() == [(expected, expected * 2.0**-10)]
    frame = polars.scan_parquet(folder).group_by("op").len().collect()
    assert sorted(frame["op"].cast(str)) == ["vmm", "write_0", "write_1", "write_2"]
    assert sum(frame["len"]) == expected


def test_a_writer_killed_in_the_middle_of_a_message_keeps_all_whole_steps(folder: Path) -> None:
    writer = TraceWriter(folder, n_chips=N_CHIPS)
    append_steps(writer, range(4))
    writer.cut()
    append_steps(writer, range(4, 7))
    stream = folder.parent / "trace-open.arrows"
    stream.write_bytes(stream.read_bytes()[:-100])  # no close, and the last message is torn
    assert sorted(set(steps_in(folder))) == [0, 1, 2, 3, 4, 5]
    assert len(steps_in(folder)) == 6 * N_CHIPS * 4


def test_a_part_written_but_not_yet_in_the_manifest_is_not_read_twice(folder: Path) -> None:
    writer = TraceWriter(folder, n_chips=N_CHIPS)
    append_steps(writer, range(3))
    manifest = (folder.parent / "trace-manifest.json").read_bytes()
    stream = (folder.parent / "trace-open.arrows").read_bytes()
    writer.cut()
    (folder.parent / "trace-manifest.json").write_bytes(manifest)
    (folder.parent / "trace-open.arrows").write_bytes(stream)
    assert len(steps_in(folder)) == 3 * N_CHIPS * 4
    resumed = TraceWriter(folder, n_chips=N_CHIPS, resume_step=3)
    append_steps(resumed, range(3, 4))
    resumed.close()
    assert verify(folder, steps=4) == []


@pytest.mark.parametrize("resume_step", [0, 3, 4, 6, 7])
def test_a_run_resumed_at_any_step_ends_with_the_rows_of_an_undisturbed_one(
    tmp_path: Path, resume_step: int
) -> None:
    whole, resumed = tmp_path / "whole" / "trace", tmp_path / "resumed" / "trace"
    with TraceWriter(whole, n_chips=N_CHIPS) as writer:
        append_steps(writer, range(9))
    crashed = TraceWriter(resumed, n_chips=N_CHIPS)
    append_steps(crashed, range(4))
    crashed.cut()
    append_steps(crashed, range(4, 7))
    with TraceWriter(resumed, n_chips=N_CHIPS, resume_step=resume_step) as writer:
        append_steps(writer, range(resume_step, 9))
    order = [(name, "ascending") for name in ("step", "chip", "start_s")]
    assert read_trace(resumed).sort_by(order).equals(read_trace(whole).sort_by(order))
    assert read_solves(resumed.parent)["step"].to_pylist() == list(range(9))
    assert verify(resumed, steps=9) == []


def test_dropping_steps_in_a_live_run_lets_them_be_written_again(folder: Path) -> None:
    with TraceWriter(folder, n_chips=N_CHIPS) as writer:
        append_steps(writer, range(5))
        with pytest.raises(RunDirectoryError, match="step 4 was written before"):
            append_steps(writer, range(4, 5))
        writer.drop_from(2)
        append_steps(writer, range(2, 6))
    assert verify(folder, steps=6) == []


def test_a_new_run_never_overwrites_a_trace(folder: Path) -> None:
    TraceWriter(folder, n_chips=1).close()
    with pytest.raises(RunDirectoryError, match="already holds a trace"):
        TraceWriter(folder, n_chips=1)
    with pytest.raises(RunDirectoryError, match="no trace to continue"):
        TraceWriter(folder.parent / "other", n_chips=1, resume_step=0)


def test_rows_of_another_step_or_of_an_unknown_chip_are_refused(folder: Path) -> None:
    writer = TraceWriter(folder, n_chips=N_CHIPS)
    with pytest.raises(RunDirectoryError, match="rows of step 0 among step 1"):
        writer.append(range(1, 2), [chip_rows(0, 0)])
    with pytest.raises(RunDirectoryError, match="step 2 has no rows"):
        writer.append(range(1, 4), [chip_rows(1, 0), chip_rows(3, 0)])
    with pytest.raises(RunDirectoryError, match="chip 3 in steps 0 to 1; valid: 0 to 2"):
        writer.append(range(2), [chip_rows(0, 1), chip_rows(1, 3)])


def test_steps_that_come_together_chip_by_chip_are_stored_step_by_step(folder: Path) -> None:
    def together(steps: range) -> list[pa.RecordBatch]:
        tables = [
            pa.Table.from_batches([chip_rows(step, chip) for step in steps])
            for chip in range(N_CHIPS)
        ]
        return [table.combine_chunks().to_batches()[0] for table in tables]

    one_by_one = folder.parent / "single" / "trace"
    with TraceWriter(one_by_one, n_chips=N_CHIPS) as writer:
        append_steps(writer, range(7))
    with TraceWriter(folder, n_chips=N_CHIPS) as writer:
        writer.append(range(3), together(range(3)))
        writer.append(range(3, 7), together(range(3, 7)))
        # A cut through the steps of a message keeps those before it.
        writer.drop_from(5)
        writer.append(range(5, 7), together(range(5, 7)))
    assert read_trace(folder).equals(read_trace(one_by_one))
    assert verify(folder, steps=7) == []


def test_verify_names_missing_and_duplicate_rows(folder: Path) -> None:
    with TraceWriter(folder, n_chips=N_CHIPS) as writer:
        append_steps(writer, range(2))
        writer.cut()
        append_steps(writer, range(2, 4))
        writer.cut()
        writer.append(range(4, 5), [chip_rows(4, 0), chip_rows(4, 1)])
    assert [(f.kind, f.where) for f in verify(folder, steps=6)] == [
        ("missing", "chip 2, step 4"),
        ("missing", "step 5"),
    ]
    pa.parquet.write_table(
        pa.Table.from_batches([chip_rows(2, 0)]), folder / "steps-00000002-00000002.parquet"
    )
    kinds = {(f.kind, f.where) for f in verify(folder, steps=5)}
    assert ("unlisted", "steps-00000002-00000002.parquet") in kinds
    assert ("duplicate", "chip 0, step 2") in kinds


@pytest.mark.parametrize("name", ["copy.parquet", ".hidden.parquet", "below/some.parquet"])
def test_verify_names_every_other_table_in_the_folder(folder: Path, name: str) -> None:
    with TraceWriter(folder, n_chips=N_CHIPS) as writer:
        append_steps(writer, range(2))
    (folder / name).parent.mkdir(exist_ok=True)
    shutil.copy(trace_files(folder)[0], folder / name)
    assert [(f.kind, f.where) for f in verify(folder)] == [("unlisted", name)]


@pytest.mark.parametrize("cut", [True, False])
def test_steps_of_another_run_are_none_of_this_one(folder: Path, cut: bool) -> None:
    writer = TraceWriter(folder, n_chips=N_CHIPS, settings_sha256="this")
    append_steps(writer, range(2))
    (writer.cut if cut else writer.sync)()
    assert whole_steps(folder) == whole_steps(folder, "this") == 2
    assert whole_steps(folder, "another") == 0


def test_verify_calls_a_torn_part_damaged(folder: Path) -> None:
    with TraceWriter(folder, n_chips=N_CHIPS) as writer:
        append_steps(writer, range(2))
    part = Path(trace_files(folder)[0])
    part.write_bytes(part.read_bytes()[:-50])
    assert [f.kind for f in verify(folder)] == ["damaged"]
    with pytest.raises(RunDirectoryError, match="cannot be read"):
        read_trace(folder)


def test_the_manifest_counts_rows_per_chip_and_step(folder: Path) -> None:
    with TraceWriter(folder, n_chips=N_CHIPS) as writer:
        writer.append(range(1), [chip_rows(0, 2, rows=5), chip_rows(0, 0, rows=1)])
    manifest = json.loads((folder.parent / "trace-manifest.json").read_text())
    assert manifest["rows"] == 6
    assert manifest["parts"][0]["rows_per_chip"] == [[[1, 1], [0, 1], [5, 1]]]
