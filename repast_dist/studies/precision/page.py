"""Writes the page of ``study=precision``: what bits cost, maps of bits and rounds, grids."""

from collections.abc import Sequence
from typing import Any

from repast_dist.report.page import KeyFigure, Note
from repast_dist.report.study_page import Chart, StudyPage, StudySection
from repast_dist.studies.costing import table
from repast_dist.studies.kinds.precision import PrecisionStudy
from repast_dist.studies.precision.chapter import Chapter
from repast_dist.studies.precision.maps import mapped_grid, maps_chapter
from repast_dist.studies.precision.price_page import price_chapter, size_chapter
from repast_dist.studies.precision.prices import COLUMNS, UNITS, differs
from repast_dist.studies.precision.tables import method_rows

Rows = list[dict[str, Any]]


def precision_page(study: PrecisionStudy, rows: Rows, digital: Rows, few_bits: Rows) -> StudyPage:
    """Make the study's page of solved points.

    Parameters
    ----------
    study : PrecisionStudy
        What was asked.
    rows, digital, few_bits : list of dict
        Of `solved_rows`, `digital_rows` and `few_bit_rows`.
    """
    chapters = _chapters(study, rows, digital)
    return StudyPage(
        study="precision",
        title="How many bits which inversion reaches, and what they cost",
        answer=" ".join(chapter.answer for chapter in chapters if chapter.answer)
        or f"{len(rows)} solves; the tables say how many bits each reached at what price.",
        tables={name: values for chapter in chapters for name, values in chapter.tables.items()}
        | {"points": table(rows, UNITS), "three_bit_cells": table(few_bits, {})},
        captions={name: text for chapter in chapters for name, text in chapter.captions.items()}
        | {
            "three_bit_cells": f"Relative residual 2^-{study.published.target_bits} of "
            f"{study.published.size} x {study.published.size} systems, cells without noise."
        },
        key_figures=_key_figures(rows),
        sections=[
            *(section for chapter in chapters for section in chapter.sections),
            _published_section(study),
            StudySection("All points", tables=["points"]),
        ],
        sources=[
            ("taylor", "RePAST, arXiv 2210.15255"),
            (
                "refine without regularisation; 24 bits in about 10 rounds",
                "HP-INV, Nature Electronics 2025",
            ),
            ("two slices", "Song et al., Science 383 (2024), 903"),
            (f"inversion on {study.gpu.name}", study.gpu.source),
        ],
        notes=[
            Note(
                "Read-back of what the first slice holds is taken to be exact; a reader that is "
                "not adds its own error to the second slice."
            )
        ],
    )


def _chapters(study: PrecisionStudy, rows: Rows, digital: Rows) -> list[Chapter]:
    chapters = []
    for sizes, chapter in ((False, price_chapter), (True, size_chapter)):
        grids = {
            name
            for name in study.solve or study.grids
            if name in study.prices and ("soi.block_size" in study.grids[name].axes) == sizes
        }
        mine = [row for row in rows if row["grid"] in grids]
        blocks = {(row["block_size"], row["damping"]) for row in mine}
        others = [row for row in digital if (row["block_size"], row["damping"]) in blocks]
        if mine:
            chapters.append(chapter(mine, others, study.columns))
    mapped = mapped_grid(study)
    for name in study.solve or study.grids:
        mine = [row for row in rows if row["grid"] == name]
        chapters.append(
            maps_chapter(mine) if name == mapped else Chapter([_grid_section(study, name, mine)])
        )
    return chapters


def _grid_section(study: PrecisionStudy, name: str, rows: Rows) -> StudySection:
    """Return bits, energy and time over the first axis, at every value of the others."""
    first, *others = (COLUMNS.get(path, path) for path in study.grids[name].axes)
    log = all(isinstance(row[first], int | float) and row[first] > 0 for row in rows)
    charts = [
        Chart(
            "line", "points", f"{title}{_at(where)}", x=first, y=column, series="method",
            where={"grid": name} | where, log_x=log, log_y=column != "bits",
        )
        for where in _values(rows, others)
        for title, column in (("Bits", "bits"), ("Energy", "energy_j"), ("Time", "time_s"))
    ]  # fmt: skip
    return StudySection(
        name.replace("_", " ").capitalize(), charts=charts,
        intro="Bits of the worst right-hand side; energy and time with programming.",
    )  # fmt: skip


def _values(rows: Rows, columns: Sequence[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for row in rows:
        values = {name: row[name] for name in columns}
        if values not in found:
            found.append(values)
    return found


def _at(where: dict[str, Any]) -> str:
    return "".join(f", {differs(*item)}" for item in where.items())


def _published_section(study: PrecisionStudy) -> StudySection:
    published = study.published
    return StudySection(
        f"{published.target_bits} bits with {published.cell_bits}-bit cells",
        tables=["three_bit_cells"],
        intro=f"Beside the published figure: {published.source}. Its matrices are not published, "
        "ours are sample covariances.",
    )


def _key_figures(rows: Sequence[dict[str, Any]]) -> list[KeyFigure]:
    return [
        KeyFigure(
            f"{row['method']} reaches the target",
            f"{row['converged']:.0%}",
            "of all points",
            number=row["converged"],
            unit="fraction",
        )
        for row in method_rows(rows)
    ]
