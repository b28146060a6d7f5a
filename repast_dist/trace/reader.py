"""Reads the trace and the solve reports of a run that has finished, crashed or is still running."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from repast_dist.ground.errors import RunDirectoryError
from repast_dist.ground.files import SOLVES
from repast_dist.trace.schema import SCHEMA, SOLVE_SCHEMA
from repast_dist.trace.writer import open_path, part_paths, part_steps, stream_batches


def read_trace(
    folder: Path, columns: Sequence[str] | None = None, where: pc.Expression | None = None
) -> pa.Table:
    """Read the cost trace: the Parquet parts, and the whole steps that are not in a part yet.

    Parameters
    ----------
    folder : Path
        The trace folder.
    columns : sequence of str or None
        Columns to read; None reads all.
    where : pyarrow.compute.Expression or None
        Rows to keep, for example ``pc.field("step") == 3``.

    Returns
    -------
    pyarrow.Table
        Columns as in `SCHEMA`.

    Raises
    ------
    RunDirectoryError
        There is no such folder, or a part cannot be read.
    """
    return _read(folder, SCHEMA, columns, where)


def read_solves(
    run_dir: Path, columns: Sequence[str] | None = None, where: pc.Expression | None = None
) -> pa.Table:
    """Read the solve reports of a run directory; see `read_trace`.

    Returns
    -------
    pyarrow.Table
        Columns as in `SOLVE_SCHEMA`; no rows if nothing was solved (first-order training).
    """
    return _read(run_dir / SOLVES, SOLVE_SCHEMA, columns, where)


def trace_files(folder: Path) -> list[str]:
    """Return the paths of the Parquet parts, for DuckDB, Polars or ``pyarrow.dataset``."""
    return [str(path) for path in part_paths(folder)]


def _read(
    folder: Path, schema: pa.Schema, columns: Sequence[str] | None, where: pc.Expression | None
) -> pa.Table:
    # It loads pandas where that is installed; workers, which only write rows, start without.
    import pyarrow.dataset as ds

    if not folder.is_dir():
        raise RunDirectoryError(f"{folder}: no such trace; valid: the trace of a run directory")
    names = None if columns is None else list(columns)
    parts = part_paths(folder)
    last = max((part_steps(path)[1] for path in parts), default=-1)
    tables = []
    if parts:
        try:
            data = ds.dataset([str(path) for path in parts], schema=schema, format="parquet")
            tables.append(data.to_table(columns=names, filter=where))
        except (OSError, pa.ArrowInvalid) as error:
            raise RunDirectoryError(f"{folder}: a part cannot be read ({error})") from error
    # A crash between writing a part and deleting the stream leaves the same steps in both.
    fresh = [b for b in stream_batches(open_path(folder)) if b["step"][0].as_py() > last]
    if fresh or not tables:
        # Schemas in files carry the settings' hash besides; the columns are the same.
        table = pa.Table.from_batches(
            [pa.RecordBatch.from_arrays(b.columns, schema=schema) for b in fresh], schema
        )
        tables.append(ds.dataset(table).to_table(columns=names, filter=where))
    return pa.concat_tables(t.replace_schema_metadata(None) for t in tables).unify_dictionaries()
