"""Writes the trace of a run so that a crash at any moment leaves every whole step readable.

A store is a folder of Parquet parts named by their steps, and two files beside it::

    trace/steps-00000000-00000009.parquet   whole parts; nothing else lies in this folder
    trace-open.arrows                       IPC stream of the steps since the last part
    trace-manifest.json                     rows per part, step and chip, chip after chip in runs

Each message of the stream holds whole steps, so everything that can be read from it is whole. A
part is written under another name, synced and renamed; then the manifest is written the same way;
then the stream is deleted.
The folder holds Parquet files only, so DuckDB, Polars and ``pyarrow.dataset`` open it as it is.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from repast_dist.ground.errors import RunDirectoryError
from repast_dist.ground.files import SOLVES, replaced, sha256
from repast_dist.trace.schema import RUN_KEY, SCHEMA, SCHEMA_VERSION, SOLVE_SCHEMA, solve_batch
from repast_dist.trace.stream import Message, OpenStream, stream_messages

ROWS_PER_GROUP = 1 << 17
ROWS_PER_PART = 1 << 22
_PART = re.compile(r"steps-(\d{8})-(\d{8})\.parquet")


class TraceWriter:
    """Writes the cost trace and the solve reports of a run, a few steps at a time.

    Parameters
    ----------
    folder : Path
        The trace folder, for example ``run_dir / "trace"``; solve reports go beside it, into
        ``run_dir / "solves"``.
    n_chips : int
        Chips of the farm; the manifest holds the number of rows of each.
    settings_sha256 : str
        Hash of the run's settings, stored in every part.
    resume_step : int or None
        None starts a new trace. A number continues an existing one at that step: its rows of this
        and later steps are dropped.

    Raises
    ------
    RunDirectoryError
        The folder already holds a trace (when starting), holds none (when resuming), or cannot
        be written.
    """

    def __init__(
        self,
        folder: Path,
        *,
        n_chips: int,
        settings_sha256: str = "",
        resume_step: int | None = None,
    ) -> None:
        extra = {RUN_KEY: settings_sha256, "repast_dist.chips": str(n_chips)}
        self._trace = PartStore(folder, _with_metadata(SCHEMA, extra), n_chips, resume_step)
        self._solves = PartStore(
            folder.parent / SOLVES, _with_metadata(SOLVE_SCHEMA, extra), n_chips, resume_step
        )

    def append(
        self,
        steps: range,
        batches: Iterable[pa.RecordBatch],
        solves: pa.RecordBatch | None = None,
    ) -> None:
        """Add all rows of some steps, in any number of batches (for example one per chip), and the
        solves.

        Raises
        ------
        RunDirectoryError
            A step was already written or has no rows, a row belongs to another step, the schema
            differs, or the disk is full.
        """
        self._trace.append(steps, batches)
        reports = solve_batch([]) if solves is None else solves
        self._solves.append(steps, [reports], every_step=False)

    def sync(self) -> None:
        """Sync all steps so far to the disk; the coordinator calls this at each checkpoint."""
        self._solves.sync()
        self._trace.sync()

    def cut(self) -> None:
        """Write the steps since the last cut as one Parquet part."""
        self._solves.cut()
        self._trace.cut()

    def drop_from(self, step: int) -> None:
        """Remove all rows of `step` and later steps, which are then computed again."""
        self._solves.drop_from(step)
        self._trace.drop_from(step)

    def close(self) -> None:
        """Write the last part; the trace is then complete."""
        self.cut()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class PartStore:
    """A table of a run, stored as Parquet parts, an open stream and a manifest."""

    def __init__(
        self, folder: Path, schema: pa.Schema, n_chips: int, resume_step: int | None
    ) -> None:
        self._folder, self._schema, self._n_chips = folder, schema, n_chips
        self._stream = OpenStream(open_path(folder), schema)
        self._open_rows: dict[int, np.ndarray] = {}
        self._parts: list[dict[str, Any]] = []
        existing = manifest_path(folder).exists()
        if resume_step is None and existing:
            raise RunDirectoryError(f"{folder}: already holds a trace; valid: a new folder")
        if resume_step is not None and not existing:
            raise RunDirectoryError(f"{manifest_path(folder)}: missing, no trace to continue")
        # A store keeps no empty folders: a copy has none where no part was written.
        folder.mkdir(parents=True, exist_ok=True)
        if resume_step is None:
            self._write_manifest()
        else:
            self._parts = read_manifest(folder)["parts"]
            self.drop_from(resume_step)

    def append(
        self, steps: range, batches: Iterable[pa.RecordBatch], every_step: bool = True
    ) -> None:
        if steps.start <= self._last_step():
            raise RunDirectoryError(
                f"{self._folder}: step {steps.start} was written before "
                f"(last: {self._last_step()}); drop it first"
            )
        message = Message(tuple(steps), self._merge(steps, batches, every_step))
        self._stream.append(message)
        self._open_rows |= self._counts(message)
        if _rows(self._open_rows) >= ROWS_PER_PART:
            self.cut()

    def sync(self) -> None:
        if _rows(self._open_rows) >= ROWS_PER_GROUP:
            self.cut()
        else:
            self._stream.sync()

    def cut(self) -> None:
        if not self._open_rows:
            return
        self._stream.close()
        try:
            self._write_part(self._open_rows, stream_batches(open_path(self._folder)))
            self._write_manifest()
        except OSError as error:
            raise RunDirectoryError(f"{self._folder}: cannot write a part, {error}") from error
        self._stream.remove()
        self._open_rows = {}

    def drop_from(self, step: int) -> None:
        self._stream.close()
        after = self._last_part_step()
        kept = [
            _of_steps(message, range(after + 1, step))
            for message in stream_messages(open_path(self._folder))
        ]
        kept = [message for message in kept if message.steps]
        # Whatever moment a crash comes at, no row is only in memory.
        self._stream.rewrite(kept)
        self._open_rows = {s: c for message in kept for s, c in self._counts(message).items()}
        straddling = [p for p in self._parts if p["first_step"] < step <= p["last_step"]]
        self._parts = [p for p in self._parts if p["last_step"] < step]
        for part in straddling:
            old = pq.read_table(self._folder / part["file"], schema=self._schema)
            counts = dict(zip(part["steps"], map(from_runs, part["rows_per_chip"]), strict=True))
            self._write_part(
                {s: c for s, c in counts.items() if s < step},
                old.filter(pc.less(old["step"], step)).to_batches(),
            )
        self._write_manifest()
        self._delete_unlisted()

    def _counts(self, message: Message) -> dict[int, np.ndarray]:
        """Return the number of rows per step, (chips,) each."""
        steps, chips = message.batch["step"].to_numpy(), message.batch["chip"].to_numpy()
        return {
            step: np.bincount(chips[steps == step], minlength=self._n_chips)
            for step in message.steps
        }

    def _merge(
        self, steps: range, batches: Iterable[pa.RecordBatch], every_step: bool
    ) -> pa.RecordBatch:
        """Return one batch of all rows, step by step."""
        tables = []
        for batch in batches:
            if batch.schema != self._schema:
                raise RunDirectoryError(
                    f"{self._folder}: rows of {_named(steps)} do not have the schema's columns"
                )
            tables.append(pa.Table.from_batches([batch]).replace_schema_metadata(None))
        if not tables:
            raise RunDirectoryError(f"{self._folder}: {_named(steps)} has no rows")
        table = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
        of_row = table["step"].to_numpy()
        found = set(np.unique(of_row).tolist())
        if not found <= set(steps):
            raise RunDirectoryError(
                f"{self._folder}: rows of step {min(found - set(steps))} among {_named(steps)}"
            )
        if every_step and found != set(steps):
            raise RunDirectoryError(f"{self._folder}: step {min(set(steps) - found)} has no rows")
        chips = pc.min_max(table["chip"]).as_py() if len(table) else {"min": 0, "max": 0}
        if not 0 <= chips["min"] <= chips["max"] < self._n_chips:
            raise RunDirectoryError(
                f"{self._folder}: chip {chips['max']} in {_named(steps)}; "
                f"valid: 0 to {self._n_chips - 1}"
            )
        if (np.diff(of_row) < 0).any():
            table = table.take(np.argsort(of_row, kind="stable")).combine_chunks()
        columns = [column.combine_chunks() for column in table.columns]
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)

    def _write_part(self, rows: dict[int, np.ndarray], batches: Iterable[pa.RecordBatch]) -> None:
        steps = sorted(rows)
        name = f"steps-{steps[0]:08d}-{steps[-1]:08d}.parquet"
        # Unfinished parts lie beside the folder: other programs read all that is in it.
        with (
            replaced(self._folder / name, within=self._folder.parent) as aside,
            pq.ParquetWriter(aside, self._schema, compression="zstd") as writer,
        ):
            written = 0
            for group in _row_groups(batches):
                writer.write_table(group)
                written += len(group)
            if written != _rows(rows):
                raise RunDirectoryError(
                    f"{self._folder}: {written} rows of steps {steps[0]} to {steps[-1]} are left; "
                    "the disk lost or changed some"
                )
            writer.close()
            digest = sha256(aside)
        self._parts.append(
            {
                "file": name,
                "first_step": steps[0],
                "last_step": steps[-1],
                "rows": _rows(rows),
                "steps": steps,
                "rows_per_chip": [_runs(rows[step]) for step in steps],
                "sha256": digest,
            }
        )

    def _write_manifest(self) -> None:
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "chips": self._n_chips,
            "rows": sum(part["rows"] for part in self._parts),
            "parts": self._parts,
        }
        with replaced(manifest_path(self._folder)) as aside:
            aside.write_text(json.dumps({**manifest, "sha256": _digest(manifest)}))

    def _delete_unlisted(self) -> None:
        listed = {part["file"] for part in self._parts}
        for path in part_paths(self._folder):
            if path.name not in listed:
                path.unlink()

    def _last_part_step(self) -> int:
        return max((int(part["last_step"]) for part in self._parts), default=-1)

    def _last_step(self) -> int:
        return max(self._open_rows, default=self._last_part_step())


def _rows(counts: Mapping[int, np.ndarray]) -> int:
    """Return all rows of some steps."""
    return int(sum(int(of_chips.sum()) for of_chips in counts.values()))


def _runs(counts: np.ndarray) -> list[list[int]]:
    """Return the rows of every chip as runs of chips that have equally many: [rows, chips]."""
    first = np.flatnonzero(np.diff(counts, prepend=-1))
    lengths = np.diff(first, append=len(counts))
    return np.stack([counts[first], lengths], axis=1).tolist()


def from_runs(runs: Sequence[Sequence[int]]) -> np.ndarray:
    """Return the rows of every chip, (chips,), from the runs that a manifest holds."""
    rows, lengths = np.array(runs, np.int64).reshape(-1, 2).T
    return np.repeat(rows, lengths)


def manifest_path(folder: Path) -> Path:
    """Return the path of the manifest of a store."""
    return folder.parent / f"{folder.name}-manifest.json"


def open_path(folder: Path) -> Path:
    """Return the path of the stream that holds the steps since the last part."""
    return folder.parent / f"{folder.name}-open.arrows"


def forget_trace(folder: Path) -> None:
    """Remove a trace and its solve reports, so that a run can begin anew."""
    for store in (folder, folder.parent / SOLVES):
        shutil.rmtree(store, ignore_errors=True)
        manifest_path(store).unlink(missing_ok=True)
        open_path(store).unlink(missing_ok=True)


def part_paths(folder: Path) -> list[Path]:
    """Return the Parquet parts of a store, in the order of their steps."""
    return sorted(path for path in folder.glob("*.parquet") if _PART.fullmatch(path.name))


def part_steps(path: Path) -> tuple[int, int]:
    """Return the first and last step of a part, from its name."""
    match = _PART.fullmatch(path.name)
    if match is None:
        raise RunDirectoryError(f"{path}: not a part of a trace; valid: steps-FIRST-LAST.parquet")
    return int(match[1]), int(match[2])


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a store.

    Raises
    ------
    RunDirectoryError
        The manifest is missing or damaged.
    """
    path = manifest_path(folder)
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
        stored = manifest.pop("sha256")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunDirectoryError(f"{path}: not a readable manifest ({error!r})") from error
    if stored != _digest(manifest):
        raise RunDirectoryError(f"{path}: damaged, its content is not that of its checksum")
    return manifest


def _digest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest).encode()).hexdigest()


def stream_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a stream, up to a message that is not whole."""
    return (message.batch for message in stream_messages(path) if message.batch.num_rows)


def _of_steps(message: Message, steps: range) -> Message:
    """Return the part of a message that belongs to some steps."""
    of_row = message.batch["step"]
    inside = pc.and_(pc.greater_equal(of_row, steps.start), pc.less(of_row, steps.stop))
    return Message(tuple(s for s in message.steps if s in steps), message.batch.filter(inside))


def _row_groups(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    pending: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        pending.append(batch)
        rows += batch.num_rows
        if rows >= ROWS_PER_GROUP:
            yield pa.Table.from_batches(pending).unify_dictionaries()
            pending, rows = [], 0
    if pending:
        yield pa.Table.from_batches(pending).unify_dictionaries()


def _named(steps: range) -> str:
    return f"step {steps[0]}" if len(steps) == 1 else f"steps {steps[0]} to {steps[-1]}"


def _with_metadata(schema: pa.Schema, extra: dict[str, str]) -> pa.Schema:
    known = {key.decode(): value.decode() for key, value in schema.metadata.items()}
    return schema.with_metadata({**known, **extra})
