"""Writes the page and the tables of a study from Arrow tables and descriptions of charts.

A study computes tables and says what to draw; this module turns it into ``report.html`` and
``tables/*.parquet``. Units come from the tables' field metadata (key ``unit``): "s", "J", "m2",
"B", ...; "fraction" is shown in percent; "1" or nothing is a plain number.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from repast_dist.ground.files import REPORT, replaced
from repast_dist.report import figures, palette
from repast_dist.report.axes import Axis
from repast_dist.report.page import (
    Column,
    Figure,
    Frame,
    KeyFigure,
    Note,
    Page,
    Part,
    Section,
    Table,
    arrow_table,
    settings_tables,
    write_page,
)
from repast_dist.report.units import counted

_FOLD_ABOVE = 25


@dataclasses.dataclass(frozen=True)
class Chart:
    """What to draw of one table.

    Attributes
    ----------
    kind : {"line", "bars", "heat_map", "treemap", "tornado", "bridge"}
        Kind of plot.
    table : str
        Name of the table.
    title, caption : str
        What it shows and how to read it.
    x, y : str
        Column names. line: x and y values. bars: label and value. heat_map: the two axes.
        treemap: group and leaf. tornado: label (x), `band` gives the columns of the low and high
        results, `base` the middle and `axis` the title of the results' axis. bridge: label (x),
        `band` gives the columns of the product before and after, `axis` the title of its axis.
    value : str
        Column of the coloured value (heat_map) or the area (treemap).
    limits : tuple of float, optional
        Values of a heat map's first and last colour, for maps that are to be compared.
    series : str
        Column that separates curves, or bars of one label; "" draws one.
    band : tuple of str
        Columns of the lower and upper edge around a curve, or of the tornado's ends.
    base : float
        The tornado's middle.
    axis : str
        The tornado's axis title.
    where : mapping
        Column -> value that rows must have, for example ``{"method": "fcg"}``.
    log_x, log_y, log_value : bool
        Logarithmic axes or colours.
    joined : bool
        Whether lines join the points of a line plot; otherwise each is marked.
    marked : str
        Beginning of the names of curves whose points are marked, not joined; "": none.
    stacked, horizontal : bool
        For bars.
    references : mapping
        Name -> y value of a line across, such as a published figure.
    wide : bool
        Full width.
    height_px : int
        Height on a wide screen.
    """

    kind: Literal["line", "bars", "heat_map", "treemap", "tornado", "bridge"]
    table: str
    title: str
    x: str
    y: str = ""
    value: str = ""
    limits: tuple[float, float] | None = None
    series: str = ""
    band: tuple[str, str] = ("", "")
    base: float = 1.0
    axis: str = ""
    where: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    log_x: bool = False
    log_y: bool = False
    log_value: bool = False
    joined: bool = True
    marked: str = ""
    stacked: bool = False
    horizontal: bool = False
    references: Mapping[str, float] = dataclasses.field(default_factory=dict)
    caption: str = ""
    wide: bool = False
    height_px: int = 360


@dataclasses.dataclass(frozen=True)
class StudySection:
    """A part of a study's page: charts first, then other parts, then the named tables."""

    title: str
    charts: Sequence[Chart] = ()
    tables: Sequence[str] = ()
    intro: str = ""
    notes: Sequence[Note] = ()
    parts: Sequence[Part] = ()


@dataclasses.dataclass(frozen=True)
class StudyPage:
    """The outcome of a study.

    Attributes
    ----------
    study : str
        Name, as in ``study=NAME``.
    title, answer : str
        Heading, and the result in two sentences with numbers.
    tables : mapping
        Name -> Arrow table; each becomes ``tables/NAME.parquet``.
    sections : sequence of StudySection
        In reading order.
    key_figures, notes : sequences
        Tiles and warnings beside the answer.
    captions : mapping
        Table name -> how to read it.
    settings, versions : mapping
        For repeating the study.
    sources : sequence of (what, source)
        Where constants and published figures come from.
    command : str
        The command that made it.
    """

    study: str
    title: str
    answer: str
    tables: Mapping[str, pa.Table]
    sections: Sequence[StudySection]
    key_figures: Sequence[KeyFigure] = ()
    notes: Sequence[Note] = ()
    captions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    sources: Sequence[tuple[str, str]] = ()
    command: str = ""


def write_study(study: StudyPage, folder: Path) -> Path:
    """Write ``report.html`` and ``tables/*.parquet`` into a folder and return the report."""
    tables = folder / "tables"
    tables.mkdir(parents=True, exist_ok=True)
    for name, table in study.tables.items():
        with replaced(tables / f"{name}.parquet") as aside:
            pq.write_table(table, aside, compression="zstd")
    path = folder / REPORT
    write_page(study_page(study), path)
    return path


def study_page(study: StudyPage) -> Page:
    """Return the page of a study.

    Raises
    ------
    ValueError
        A chart names a table or a column that is not there.
    """
    sections = [_section(study, section) for section in study.sections]
    sections.append(Section("Settings, sources and versions", _provenance(study)))
    return Page(
        title=study.title,
        subtitle=f"repast_dist · study {study.study}",
        answer=study.answer,
        sections=sections,
        key_figures=study.key_figures,
        notes=study.notes,
    )


def chart_figure(chart: Chart, table: pa.Table) -> Figure:
    """Draw one chart of a table.

    Raises
    ------
    ValueError
        A column is not in the table.
    """
    used = [chart.x, chart.y, chart.value, chart.series, *chart.band, *chart.where]
    missing = [name for name in used if name and name not in table.column_names]
    if missing:
        raise ValueError(
            f"chart '{chart.title}': no column {', '.join(missing)} in table '{chart.table}'; "
            f"valid: {', '.join(table.column_names)}"
        )
    for name, value in chart.where.items():
        table = _with(table, name, value)
    draw = {
        "line": _line,
        "bars": _bars,
        "heat_map": _heat_map,
        "treemap": _treemap,
        "tornado": _tornado,
        "bridge": _bridge,
    }
    return draw[chart.kind](chart, table)


def unit_of(table: pa.Table, column: str) -> str:
    """Return the unit in a column's field metadata, "" if it has none."""
    metadata = table.schema.field(column).metadata or {}
    unit = metadata.get(b"unit", b"").decode()
    return "" if unit == "1" else unit


def axis_title(table: pa.Table, column: str) -> str:
    """Return a column's description, or its name in words without the unit; the path of a setting
    stays as it is typed.
    """
    field = table.schema.field(column)
    description = (field.metadata or {}).get(b"description", b"").decode()
    if description or "." in column:
        return description or column
    words, unit = column.replace("_", " "), unit_of(table, column).lower().replace("1/", "per ")
    return words.removesuffix(f" {unit}") if unit else words


def _line(chart: Chart, table: pa.Table) -> Figure:
    curves = []
    placed = table.filter(pc.is_valid(table[chart.x]))
    lost = table.num_rows - placed.num_rows
    missing = f"{counted(lost, 'row')} without a number of '{chart.x}' not shown." if lost else ""
    chart = dataclasses.replace(chart, caption=" ".join(filter(None, (chart.caption, missing))))
    table = placed
    for name, rows in _split(table, chart.series).items():
        rows = rows.sort_by(chart.x)
        columns = {n: rows[n].to_pylist() for n in (chart.x, chart.y, *chart.band) if n}
        curves.append(
            figures.Curve(
                name or axis_title(table, chart.y),
                columns[chart.x],
                columns[chart.y],
                joined=chart.joined and not (chart.marked and name.startswith(chart.marked)),
                band=(columns[chart.band[0]], columns[chart.band[1]]) if all(chart.band) else None,
            )
        )
    x = Axis(axis_title(table, chart.x), unit_of(table, chart.x), chart.log_x)
    return figures.line(chart.title, curves, x, _value_axis(chart, table), _frame(chart))


def _bars(chart: Chart, table: pa.Table) -> Figure:
    labels = _ordered(table[chart.x])
    groups: list[figures.Group] = []
    for name, rows in _split(table, chart.series).items():
        values = dict(
            zip(map(_text, rows[chart.x].to_pylist()), rows[chart.y].to_pylist(), strict=True)
        )
        shown = [np.nan if (v := values.get(label)) is None else v for label in labels]
        groups.append(figures.Group(name or axis_title(table, chart.y), shown))
    if chart.stacked:
        groups = _largest(groups)
    title = axis_title(table, chart.x)
    content = figures.Bars(labels, groups, title, chart.stacked, chart.horizontal)
    return figures.bars(chart.title, content, _value_axis(chart, table), _frame(chart))


def _largest(groups: Sequence[figures.Group]) -> list[figures.Group]:
    """Return stacked bars without those that are nothing; as many as there are colours, and all
    that are smaller as one.
    """
    sums = {group.name: float(np.nansum(group.values)) for group in groups}
    seen = [group for group in groups if sums[group.name]]
    if len(seen) <= palette.COLOURS:
        return seen
    kept = sorted(sums, key=lambda name: -sums[name])[: palette.COLOURS - 1]
    rest = [group for group in seen if group.name not in kept]
    others = np.nansum([group.values for group in rest], axis=0).tolist()
    return [
        *(group for group in seen if group.name in kept),
        figures.Group(f"{len(rest)} others", others, palette.MUTED),
    ]


def _value_axis(chart: Chart, table: pa.Table) -> Axis:
    return Axis(
        axis_title(table, chart.y),
        unit_of(table, chart.y),
        chart.log_y,
        references=chart.references,
    )


def _frame(chart: Chart) -> Frame:
    return Frame(chart.caption, chart.height_px, chart.wide)


def _heat_map(chart: Chart, table: pa.Table) -> Figure:
    # Settings are categories: 0.001, 0.01, 0.1 are three columns of equal width.
    xs, ys = _ordered(table[chart.x]), _ordered(table[chart.y])
    z = np.full((len(ys), len(xs)), np.nan)
    columns = (table[name].to_pylist() for name in (chart.x, chart.y, chart.value))
    for x, y, value in zip(*columns, strict=True):
        z[ys.index(_text(y)), xs.index(_text(x))] = np.nan if value is None else value
    return figures.heat_map(
        chart.title,
        figures.Grid(z, xs, ys),
        x=Axis(axis_title(table, chart.x)),
        y=Axis(axis_title(table, chart.y)),
        colour=Axis(
            axis_title(table, chart.value),
            unit_of(table, chart.value),
            chart.log_value,
            limits=chart.limits,
        ),
        frame=_frame(chart),
    )


def _treemap(chart: Chart, table: pa.Table) -> Figure:
    columns = (table[name].to_pylist() for name in (chart.x, chart.y, chart.value))
    leaves = [figures.Leaf(str(x), str(y), v) for x, y, v in zip(*columns, strict=True) if v]
    unit, root = unit_of(table, chart.value), axis_title(table, chart.value)
    return figures.treemap(chart.title, leaves, unit, root, _frame(chart))


def _tornado(chart: Chart, table: pa.Table) -> Figure:
    columns = (table[name].to_pylist() for name in (chart.x, *chart.band))
    low, high = (name.replace("_", " ") for name in chart.band)
    return figures.tornado(
        chart.title,
        [figures.Swing(str(label), *ends) for label, *ends in zip(*columns, strict=True)],
        base=chart.base,
        result=Axis(chart.axis),
        names=(low, high),
        caption=chart.caption,
    )


def _bridge(chart: Chart, table: pa.Table) -> Figure:
    columns = (table[name].to_pylist() for name in (chart.x, *chart.band))
    steps = [figures.Swing(str(label), *ends) for label, *ends in zip(*columns, strict=True)]
    return figures.bridge(chart.title, steps, Axis(chart.axis), caption=chart.caption)


def _split(table: pa.Table, column: str) -> dict[str, pa.Table]:
    """Return the rows of each series, in order of appearance."""
    if not column:
        return {"": table}
    return {
        _label(table, column, value): _with(table, column, value)
        for value in pc.unique(table[column]).to_pylist()
    }


def _with(table: pa.Table, column: str, value: Any) -> pa.Table:
    """Return the rows that have a value, or none where it is None."""
    if value is None:
        return table.filter(pc.is_null(table[column]))
    return table.filter(pc.equal(table[column], pa.scalar(value)))


def _label(table: pa.Table, column: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"{axis_title(table, column)} {_text(value)}"


def _ordered(column: pa.ChunkedArray) -> list[str]:
    """Return distinct values as text: numbers by size, names as they appear."""
    values = pc.unique(column).to_pylist()
    if not pa.types.is_string(column.type) and not pa.types.is_dictionary(column.type):
        values = sorted(values, key=lambda value: (value is not None, value))
    return [_text(value) for value in values]


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _section(study: StudyPage, section: StudySection) -> Section:
    parts: list[Part] = list(section.notes)
    for chart in section.charts:
        parts.append(chart_figure(chart, _table_named(study, chart.table, chart.title)))
    parts += section.parts
    for name in section.tables:
        table = _table_named(study, name, section.title)
        caption = study.captions.get(name, "")
        folded = table.num_rows > _FOLD_ABOVE
        parts.append(arrow_table(name.replace("_", " ").capitalize(), table, caption, folded))
    return Section(section.title, parts, section.intro)


def _table_named(study: StudyPage, name: str, where: str) -> pa.Table:
    if name not in study.tables:
        raise ValueError(f"'{where}': no table '{name}'; valid: {', '.join(study.tables)}")
    return study.tables[name]


def _provenance(study: StudyPage) -> list[Part]:
    facts = [["command", study.command]] if study.command else []
    facts += [[f"{name} version", version] for name, version in study.versions.items()]
    parts: list[Part] = []
    if facts:
        parts.append(Table("How it was made", [Column("what"), Column("value")], facts))
    if study.sources:
        parts.append(
            Table("Sources", [Column("figure"), Column("source")], [list(s) for s in study.sources])
        )
    if study.settings:
        parts += settings_tables(study.settings)
    names = ", ".join(f"tables/{name}.parquet" for name in study.tables)
    parts.append(Note(f"Every number of this page lies in {names}."))
    return parts
