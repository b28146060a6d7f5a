"""Answers of studies side by side: settings that differ, key figures, and what differs in tables.

Tables of the same name are put beside each other row by row: columns of text and whole numbers that
tell the rows of every run apart say which rows belong together.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from repast_dist.ground.errors import RunDirectoryError
from repast_dist.ground.files import ANSWER, SETTINGS, read_json
from repast_dist.report.compare import run_names
from repast_dist.report.study_page import Chart, StudyPage, StudySection
from repast_dist.studies.differing import differing_settings, told_apart
from repast_dist.studies.output import Figures, read_answer, read_figures
from repast_dist.studies.run_table import run_table

TABLES = "tables"
_MOST_CHARTS = 8
_MOST_ROWS = 2000
# Larger ones are lists, such as one of every cell.
_LARGEST_TABLE = 5000


def answers_beside(run_dirs: Sequence[Path]) -> StudyPage:
    """Return the page that puts the answers of runs of any study side by side.

    Parameters
    ----------
    run_dirs : sequence of Path
        Run directories, at least two.

    Returns
    -------
    StudyPage
        With the table ``runs``, one row per run, and ``differences``, one row per figure of a
        common table that is not the same in all runs.

    Raises
    ------
    RunDirectoryError
        A run has not answered yet, or is damaged.
    """
    for path in run_dirs:
        if not (path / ANSWER).is_file():
            raise RunDirectoryError(f"{path}: has no {ANSWER} yet; valid: resume={path} first")
    settings = [{**read_json(path / SETTINGS), "run_root": ""} for path in run_dirs]
    differing = differing_settings(settings)
    names = run_names(
        run_dirs, {path: [str(item[path]) for item in differing] for path in differing[0]}
    )
    figures = [read_figures(path) for path in run_dirs]
    runs = run_table(told_apart(differing), figures, names)
    tables = {"runs": runs, "settings": run_table(differing, [], names)}
    sections = [StudySection("Runs", _charts(figures, runs), ["runs"])]
    rows = _differences(run_dirs)
    if rows:
        tables["differences"] = _difference_table(rows[:_MOST_ROWS], names)
        intro = (
            "Rows of tables that all runs have, where a number is not the same in all of them; a "
            "run without the row has none."
        )
        if len(rows) > _MOST_ROWS:
            intro += f" The first {_MOST_ROWS:,} of {len(rows):,} numbers."
        sections.append(StudySection("What differs in their tables", (), ["differences"], intro))
    answers = {
        "run": names,
        "answer": [read_answer(path) for path in run_dirs],
        "folder": [str(path) for path in run_dirs],
    }
    sections.append(StudySection("All settings that differ", (), ["settings"]))
    tables["answers"] = pa.table(answers)
    sections.append(StudySection("Their answers", (), ["answers"]))
    studies = dict.fromkeys(str(read_json(path / ANSWER)["study"]) for path in run_dirs)
    return StudyPage(
        study="compare",
        title=f"{len(run_dirs)} runs compared",
        answer=f"{len(run_dirs)} runs of study {', '.join(studies)} side by side: "
        f"{len(differing[0])} settings and {len(rows):,} numbers of their tables differ.",
        tables=tables,
        sections=sections,
    )


def _charts(figures: Sequence[Figures], runs: pa.Table) -> list[Chart]:
    """Return bars of key figures that all runs have and that differ."""
    common = [name for name in figures[0] if all(name in other for other in figures)]
    differ = [name for name in common if len({item[name][0] for item in figures}) > 1]
    return [
        Chart("bars", "runs", name, x="run", y=name, horizontal=True) for name in differ
    ][:_MOST_CHARTS]  # fmt: skip


_Unequal = tuple[str, str, list[float | None]]
"""Row, column and the values of all runs."""


def _differences(run_dirs: Sequence[Path]) -> list[tuple[str, _Unequal]]:
    """Return table and number of what is not the same in all runs in the tables that all have."""
    found: list[tuple[str, _Unequal]] = []
    known = [{path.name for path in (run / TABLES).glob("*.parquet")} for run in run_dirs]
    for file in sorted(set.intersection(*known)):
        tables = [pq.read_table(run / TABLES / file) for run in run_dirs]
        if max(table.num_rows for table in tables) > _LARGEST_TABLE:
            continue
        found += [(file.removesuffix(".parquet"), item) for item in _unequal(tables)]
    return found


def _difference_table(rows: Sequence[tuple[str, _Unequal]], names: Sequence[str]) -> pa.Table:
    """Return one row per number, and a column per run."""
    listed = [[table, row, column, *values] for table, (row, column, values) in rows]
    columns = zip(("table", "row", "column", *names), zip(*listed, strict=True), strict=True)
    kinds = [pa.string()] * 3 + [pa.float64()] * len(names)
    return pa.table(
        {name: pa.array(values, kind) for (name, values), kind in zip(columns, kinds, strict=True)}
    )


def _unequal(tables: Sequence[pa.Table]) -> list[_Unequal]:
    """Return what is not the same in all runs; nothing where rows have no names."""
    common = [
        field.name
        for field in tables[0].schema
        if all(field.name in other.column_names for other in tables)
    ]
    rows = [table.select(common).to_pylist() for table in tables]
    keys = _naming(tables[0].schema, common, rows)
    if not keys:
        return []
    by_name = [{tuple(row[key] for key in keys): row for row in of_run} for of_run in rows]
    unequal = []
    anywhere = dict.fromkeys(itertools.chain.from_iterable(by_name))
    for name, column in itertools.product(anywhere, common):
        values = [_number(of_run.get(name, {}).get(column)) for of_run in by_name]
        if column not in keys and len(set(values)) > 1:
            unequal.append((", ".join(map(str, name)), column, values))
    return unequal


def _naming(
    schema: pa.Schema, common: Sequence[str], rows: Sequence[Sequence[Mapping[str, Any]]]
) -> list[str]:
    """Return the fewest first columns of text and whole numbers that tell all rows apart.

    What a row is of stands in front of what was measured, of which the first is no whole number.
    """
    kinds = (pa.types.is_string, pa.types.is_dictionary, pa.types.is_boolean, pa.types.is_integer)
    telling = [name for name in common if any(is_one(schema.field(name).type) for is_one in kinds)]
    floating = [pa.types.is_floating(schema.field(name).type) for name in common]
    before = common[: floating.index(True)] if any(floating) else common
    labels = [name for name in telling if name in before]
    for names in (labels, telling):
        # Text says what a row is; a count may be a result.
        ordered = sorted(names, key=lambda name: pa.types.is_integer(schema.field(name).type))
        for count in range(1, len(ordered) + 1):
            keys = ordered[:count]
            if all(len({tuple(row[k] for k in keys) for row in of_run}) == len(of_run)
                   for of_run in rows):  # fmt: skip
                return keys
    return []


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        return None
    return float(value)
