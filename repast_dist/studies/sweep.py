"""``study=sweep``: variants x axes, one measured row per point, in one table."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from repast_dist.ground.errors import SettingsError
from repast_dist.network.shapes import Workload
from repast_dist.network.workload import MODEL
from repast_dist.report.console import print_table
from repast_dist.report.page import KeyFigure
from repast_dist.report.study_page import Chart, StudyPage, StudySection
from repast_dist.report.units import si
from repast_dist.studies.costing import (
    NETWORKS,
    chosen_workload,
    print_networks,
    size_section,
    size_table,
    table,
    workload_notes,
)
from repast_dist.studies.kinds.sweep import SweepChart, SweepStudy
from repast_dist.studies.output import finish
from repast_dist.studies.points import PointRunner
from repast_dist.studies.search.found import alike
from repast_dist.studies.search.goals import is_number
from repast_dist.studies.settings import RunSettings, in_one_process
from repast_dist.studies.variants import varied


@dataclasses.dataclass(frozen=True)
class SweepPoint:
    """One point: all that decides its row, and nothing of how it is shown."""

    settings: RunSettings


def measured(shared: None, point: SweepPoint) -> dict[str, Any]:
    """Measure one point, here or on a worker."""
    study = point.settings.study
    if not isinstance(study, SweepStudy):
        raise TypeError(f"a sweep's point has study {study.name}")
    return study.measure.record(point.settings)


def sweep_labels(study: SweepStudy) -> list[dict[str, Any]]:
    """Return the labels of every point: its variant, and its value on every axis."""
    return [
        {"variant": variant, **dict(zip(study.axes, values, strict=True))}
        for variant in study.variants or [""]
        for values in itertools.product(*study.axes.values())
    ]


def sweep_points(study: SweepStudy, settings: RunSettings) -> list[SweepPoint]:
    """Return the settings of every point, in the order of `sweep_labels`.

    Raises
    ------
    SettingsError
        A variant or an axis names no setting, or a value is not valid.
    """
    base = dataclasses.replace(
        in_one_process(settings), run_root="", study=SweepStudy(measure=study.measure)
    )
    variants = {
        name: varied(base, changes, f"study.variants.{name}")
        for name, changes in (study.variants or {"": {}}).items()
    }
    points = []
    for labels in sweep_labels(study):
        axes = {name: value for name, value in labels.items() if name != "variant"}
        points.append(SweepPoint(varied(variants[labels["variant"]], axes, "study.axes")))
    return points


def sweep_page(study: SweepStudy, rows: Sequence[dict[str, Any]]) -> StudyPage:
    """Make the page of a sweep.

    Parameters
    ----------
    study : SweepStudy
        What was asked.
    rows : sequence of dict
        Labels and measured columns of every point.

    Raises
    ------
    SettingsError
        ``best`` names no measured number.
    """
    figures = []
    answer = f"{len(rows)} points measured."
    if study.best is not None:
        best = _best(study, rows)
        unit = study.measure.units.get(study.best, "1")
        value = si(best[study.best], unit)
        where = ", ".join(
            f"{name}={best[name]}" for name in ("variant", *study.axes) if best[name] != ""
        )
        answer = f"Of {len(rows)} points {where} has the {study.goal} {study.best}: {value}."
        figures = [KeyFigure(study.best, value, where, number=best[study.best], unit=unit)]
    shown = [drawn for chart in study.charts for drawn in _charts(study, chart, rows)]
    return StudyPage(
        study="sweep",
        title=study.question,
        answer=answer,
        tables={"points": table(rows, study.measure.units)},
        sections=[StudySection("Points", charts=shown, tables=["points"])],
        key_figures=figures,
    )


def run(study: SweepStudy, settings: RunSettings, run_dir: Path | None, console: Console) -> Path:
    """Measure all points, write the table and draw it."""
    points = sweep_points(study, settings)
    runner = PointRunner.of(study, settings, run_dir, console)
    records = runner.records("measuring", measured, points)
    measured_columns = list(dict.fromkeys(name for record in records for name in record))
    unknown = [name for name in study.columns if name not in measured_columns]
    if unknown:
        raise SettingsError(
            f"study.columns: not measured: {', '.join(unknown)}; "
            f"valid: {', '.join(measured_columns)}"
        )
    rows = [
        labels | {name: record.get(name) for name in study.columns or measured_columns}
        for labels, record in zip(_as_columns(sweep_labels(study)), records, strict=True)
    ]
    for number, chart in enumerate(study.charts):
        _check_chart(f"study.charts.{number}", chart, rows)
    page = sweep_page(study, rows)
    networks = _networks(study, points)
    if networks:
        page = dataclasses.replace(
            page,
            tables={**page.tables, NETWORKS: size_table(networks)},
            sections=[*page.sections, size_section()],
            notes=workload_notes(networks),
        )

    def details() -> None:
        print_table(study.question, page.tables["points"], console)
        print_networks(networks, console)

    return finish(page, settings, console, runner.run_dir, details)


def _networks(study: SweepStudy, points: Sequence[SweepPoint]) -> list[Workload]:
    """Return the networks that the points plan, each once."""
    if "workload" not in study.measure.reads:
        return []
    found: dict[str, Workload] = {}
    for point in points:
        asked = point.settings.workload
        key = repr((asked, point.settings.model if asked.name == MODEL else None))
        if key not in found:
            found[key] = chosen_workload(point.settings)
    return list(found.values())


def _best(study: SweepStudy, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    name = str(study.best)
    known = [row for row in rows if is_number(row.get(name))]
    if not known:
        valid = [key for key, value in rows[0].items() if is_number(value)]
        raise SettingsError(f"study.best: no numbers in '{name}'; valid: {', '.join(valid)}")
    choose = min if study.goal == "lowest" else max
    return choose(known, key=lambda row: float(row[name]))


def _as_columns(labels: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the labels as columns hold them: of each all numbers, all yes or no, or all text."""
    columns = {}
    for name in labels[0]:
        values = [item[name] for item in labels]
        truths = all(value is None or isinstance(value, bool) for value in values)
        columns[name] = values if truths else alike(values)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _check_chart(where: str, chart: SweepChart, rows: Sequence[dict[str, Any]]) -> None:
    """Refuse a chart of columns that there are not, or of text where numbers are drawn."""
    measured = [name for name in rows[0] if any(is_number(row[name]) for row in rows)]
    drawn = {"value": chart.value} if chart.kind == "heat_map" else {"y": chart.y}
    if chart.log_x:
        drawn["x"] = chart.x
    shown = {name: getattr(chart, name) for name in ("x", "y", "value", "series")}
    for key, name in shown.items():
        valid = measured if key in drawn else list(rows[0])
        if name not in valid and (name or key in drawn):
            what = "no numbers in" if name in rows[0] else "no column"
            raise SettingsError(f"{where}.{key}: {what} '{name}'; valid: {', '.join(valid)}")


def _charts(study: SweepStudy, chart: SweepChart, rows: Sequence[dict[str, Any]]) -> list[Chart]:
    """Return a chart for each combination of the values that its own columns do not tell apart, so
    that no point covers another.
    """
    names = ("variant", *study.axes)
    shown = (chart.x, chart.y, chart.value, chart.series)
    # Over what is measured, each point has a place of its own.
    others = [name for name in names if name not in shown] if chart.x in names else []
    values_of = {name: list(dict.fromkeys(row[name] for row in rows)) for name in others}
    apart = {name: values for name, values in values_of.items() if len(values) > 1}
    title = chart.title or f"{chart.value or chart.y} over {chart.x}"
    drawn = []
    for values in itertools.product(*apart.values()):
        where = dict(zip(apart, values, strict=True))
        drawn.append(
            Chart(
                chart.kind,
                "points",
                ", ".join([title, *(f"{name}={value}" for name, value in where.items())]),
                x=chart.x,
                y=chart.y,
                value=chart.value,
                series=chart.series,
                where=where,
                log_x=chart.log_x,
                log_y=chart.log_y,
            )
        )
    return drawn
