"""A run directory as an object: what it asked, what it found, and its tables."""

import html
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from repast_dist.api.notebook import facts_html, table_html
from repast_dist.ground.errors import RunDirectoryError
from repast_dist.ground.files import (
    ANSWER,
    REPORT,
    RESULT,
    SETTINGS,
    SOLVES,
    SWEEP,
    TRACE,
    checked_entries,
    read_json,
)
from repast_dist.studies.output import Figures, read_figures
from repast_dist.trace import read_solves, read_trace

TABLES = "tables"


class Run:
    """What a study or a training run left on disk; files are read when they are asked for.

    Parameters
    ----------
    folder : Path
        The run directory.

    Raises
    ------
    RunDirectoryError
        It is not one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not any((folder / name).is_file() for name in (ANSWER, RESULT)):
            raise RunDirectoryError(
                f"{folder}: no finished run; valid: a folder that holds {RESULT} or {ANSWER}"
            )

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All settings of the run, as nested plain data."""
        return read_json(self.folder / SETTINGS)

    @property
    def study(self) -> str:
        """Name of the study."""
        return str(self._entry(self.result, "study"))

    @cached_property
    def result(self) -> dict[str, Any]:
        """Content of ``result.json`` of a training run; of other studies, of ``answer.json``."""
        return read_json(self.folder / (RESULT if self._trained else ANSWER))

    @cached_property
    def answer(self) -> str:
        """The answer in one sentence; empty where a run was stopped before it had one."""
        path = self.folder / ANSWER
        return str(self._entry(read_json(path), "answer")) if path.is_file() else ""

    @property
    def figures(self) -> dict[str, float]:
        """Key figures: name -> number."""
        return {name: value for name, (value, _) in self._figures.items()}

    @property
    def units(self) -> dict[str, str]:
        """Units of the key figures: name -> "s", "J", "fraction", or "1" for a plain number."""
        return {name: unit for name, (_, unit) in self._figures.items()}

    @cached_property
    def _figures(self) -> Figures:
        return read_figures(self.folder) if (self.folder / ANSWER).is_file() else {}

    @cached_property
    def tables(self) -> dict[str, pa.Table]:
        """The tables of a study by name; of a training run ``steps``, ``epochs``, ``trace`` and
        ``solves``. Columns carry their unit in the field's metadata.
        """
        found = {
            path.stem: pq.read_table(path)
            for path in sorted((self.folder / TABLES).glob("*.parquet"))
        }
        if self._trained:
            found |= {name: pa.Table.from_pylist(self.result[name]) for name in ("steps", "epochs")}
        if (self.folder / TRACE).is_dir():
            found["trace"] = read_trace(self.folder / TRACE)
        if (self.folder / SOLVES).is_dir():
            found["solves"] = read_solves(self.folder)
        return found

    @property
    def report(self) -> Path | None:
        """The page of the run; None where it has none."""
        path = self.folder / REPORT
        return path if path.is_file() else None

    def _entry(self, data: dict[str, Any], name: str) -> Any:
        checked_entries(self.folder, data, {name: str})
        return data[name]

    @property
    def _trained(self) -> bool:
        return (self.folder / RESULT).is_file()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.folder)!r}, study={self.study!r})"

    def _repr_html_(self) -> str:
        """Show the answer, the key figures and a link to the page, in a notebook."""
        link = f'<a href="{html.escape(self.report.as_uri())}">report</a>' if self.report else ""
        return f"{facts_html(self.answer, self.figures, self.units)}<p>{link}</p>"


class Sweep(Run):
    """Runs of one study that differ in some settings, and the table of what differs."""

    @cached_property
    def runs(self) -> list[Run]:
        """The runs, in the order of the table's rows."""
        return [open_run(self.folder / run) for run in read_json(self.folder / SWEEP)["runs"]]

    @property
    def table(self) -> pa.Table:
        """One row per run: the settings that differ, the key figures, the name of the run."""
        return self.tables["sweep"]

    def _repr_html_(self) -> str:
        return super()._repr_html_() + table_html(self.table)


def open_run(folder: str | Path) -> Run:
    """Open the run directory of any study; that of a sweep is a `Sweep`.

    Parameters
    ----------
    folder : str or Path
        The directory, for example ``runs/train/2026-01-31_12-00-00``.

    Raises
    ------
    RunDirectoryError
        It is no run directory, or it is damaged.
    """
    path = Path(folder).resolve()
    return Sweep(path) if (path / SWEEP).is_file() else Run(path)
