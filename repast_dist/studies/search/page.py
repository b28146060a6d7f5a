"""The answer of a search in words, on the terminal and as a page."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table as TextTable

from repast_dist.report.axes import Axis
from repast_dist.report.figures import Bars, Group, bars
from repast_dist.report.page import (
    Code,
    Column,
    Figure,
    Frame,
    KeyFigure,
    Note,
    Part,
    Table,
    arrow_table,
)
from repast_dist.report.point_figures import Dimension, Mark, Marks, parallel, place, scatter
from repast_dist.report.study_page import StudyPage, StudySection
from repast_dist.report.units import number, percent, si
from repast_dist.studies.search.designs import DESIGNS, Design
from repast_dist.studies.search.found import Found
from repast_dist.studies.search.goals import is_number
from repast_dist.studies.search.importance import importances

_LONGEST_NAME = 34
_COLUMNS_AT_80 = 2
_DRAWN_LINES = 300

_SHARES = (
    "Shares of the variance over all points that each parameter explains alone (functional "
    "ANOVA); what only several of them explain together is left out before shares are taken."
)


def answer_of(found: Found) -> str:
    """Return the answer in two or three sentences."""
    total, distinct = len(found.records), found.distinct
    text = f"{total:,} points"
    if distinct < total:
        text += f", {distinct:,} of them different"
    if found.goals.constraints:
        text += f"; {len(found.allowed):,} keep the constraints"
    if len(found.goals.objectives) > 1:
        verb = "is" if len(found.front) == 1 else "are"
        text += f", {len(found.front):,} of these {verb} beaten by no other"
    text += ". "
    if not found.best:
        return text + "No point keeps all constraints: " + _nearest(found) + "."
    best = found.best[0]
    if len(found.goals.objectives) == 1:
        return text + f"The best is point {best}: {_compared(found, best)}." + _own_breaks(found)
    gain = found.goals.gain(found.records[best], found.base)
    return text + (
        f"The best of all objectives together is point {best}: {_compared(found, best)}, "
        f"{number(gain)} times as good in the geometric mean." + _own_breaks(found)
    )


def best_table(found: Found) -> TextTable:
    """Return the best designs beside the settings' own, one column each, for 80 columns."""
    numbers = [-1, *found.best[:_COLUMNS_AT_80]]
    table = TextTable(title="Best designs", title_justify="left")
    table.add_column("", overflow="fold")
    for column in numbers:
        heading = found.name(column) + ("" if column < 0 else f"\npoint {column}")
        table.add_column(heading, justify="right", overflow="fold")
    for name in found.space.parameters:
        cells = (_plain(found.values(column).get(name)) for column in numbers)
        table.add_row(escape(_short(name)), *map(escape, cells))
    table.add_section()
    for name in [*found.judged, *_telling(found, numbers)]:
        cells = (shown(found, name, found.record(column).get(name)) for column in numbers)
        table.add_row(escape(_short(name + _goal(found, name))), *map(escape, cells))
    return table


def _telling(found: Found, numbers: Sequence[int]) -> list[str]:
    """Return what was measured of the best alone and differs, but for what is shown already."""

    def column(name: str) -> tuple[Any, ...]:
        return tuple(found.record(number).get(name) for number in numbers)

    finals = dict.fromkeys(n for item in found.finals.values() for n in item if "." in n)
    known = {column(name) for name in found.judged}
    return [name for name in finals if len(set(column(name))) > 1 and column(name) not in known]


def shown(found: Found, column: str, value: Any) -> str:
    """Return a measured value as people read it."""
    if value is None:
        return "-"
    if not is_number(value):
        return str(value)
    unit = found.unit(column)
    return percent(value) if unit == "fraction" else si(value, unit)


def search_page(found: Found, designs: Sequence[Design], folder: Path) -> StudyPage:
    """Return the page: front or progress, importances, parallel coordinates, designs, points."""
    tables = {"points": found.points_table(), "designs": found.designs_table()}
    refused = found.refused_table()
    sections = [
        StudySection("What was found", parts=_fronts(found), intro=_how_to_read(found)),
        StudySection("Best designs", parts=[_designs(found)]),
        StudySection("Which parameters matter", parts=_importance_parts(found), intro=_SHARES),
        StudySection("All points at once", parts=[_parallel(found)]),
        StudySection("The best designs as files", parts=_design_parts(designs, folder)),
        StudySection("Points", parts=[_points(found, tables["points"])]),
    ]
    if refused is not None:
        tables["refused"] = refused
        why = "Settings that are not valid together, or for which there is no plan."
        sections.append(
            StudySection("Refused", parts=[arrow_table("Refused points", refused, why, True)])
        )
    return StudyPage(
        study="search",
        title=found.study.question,
        answer=answer_of(found),
        tables=tables,
        sections=sections,
        key_figures=_tiles(found),
        notes=_notes(found),
    )


def _tiles(found: Found) -> list[KeyFigure]:
    tiles = [KeyFigure("points", f"{len(found.records):,}", number=len(found.records))]
    if found.best:
        record = found.records[found.best[0]]
        for name in found.judged:
            own = f"settings' own: {shown(found, name, found.base[name])}"
            unit = found.unit(name)
            tiles.append(KeyFigure(name, shown(found, name, record[name]), own, record[name], unit))
    return tiles


def _notes(found: Found) -> list[Note]:
    notes = []
    if not found.best:
        notes.append(
            Note("No point keeps all constraints; the designs below are none.", level="warning")
        )
    stopped = sum("stopped" in record for record in found.records)
    if stopped:
        notes.append(Note(f"{stopped:,} trainings were stopped early (study.pruning)."))
    spent = sum(record.get("cpu_s", 0.0) for record in found.records if "same_as" not in record)
    kind = found.study.sampler.kind
    same = {
        "grid": "The points do not depend on the seed or on how many workers there are.",
        "random": "The same seed gives the same points, however many workers there are.",
    }.get(
        kind,
        "The same seed gives the same points with one worker; with more, it also matters in which "
        "order they finish.",
    )
    notes.append(Note(f"Points took {number(spent)} s of processor time. {same}"))
    return notes


def _how_to_read(found: Found) -> str:
    goals = ", ".join(f"{name}: {goal}" for name, goal in found.goals.objectives.items())
    limits = ", ".join(f"{name}{_goal(found, name)}" for name in found.goals.constraints)
    text = f"Wanted: {goals}."
    if limits:
        text += f" Constraints: {limits}."
    return text + " Point at a mark to see its settings; click it to have all its figures below."


def _fronts(found: Found) -> list[Part]:
    names = list(found.goals.objectives)
    if len(names) == 1:
        return [_progress(found, names[0])]
    return [_scatter(found, names[0], other) for other in names[1:]]


def _scatter(found: Found, x: str, y: str) -> Figure:
    front = set(found.front)
    allowed = [n for n in found.allowed if n not in front]
    broken = [n for n in found.complete if n not in set(found.allowed)]
    groups = [
        Marks("breaks a constraint", _marks(found, broken, x, y), 4, faint=True),
        Marks("keeps the constraints", _marks(found, allowed, x, y), 0),
        Marks("beaten by no other", _marks(found, found.front, x, y), 1, joined=True),
        Marks("settings' own", _marks(found, [-1], x, y), 2),
    ]
    if not found.goals.constraints:
        groups[1] = Marks("beaten", groups[1].marks, 0, faint=True)
    several = len(found.goals.objectives) > 2
    caption = "The front is that of all objectives, of which two are drawn." if several else ""
    return scatter(
        f"{y} over {x}",
        [group for group in groups if group.marks],
        _axis(found, x),
        _axis(found, y),
        Frame(caption, 460, wide=True),
    )


def _progress(found: Found, name: str) -> Figure:
    sign = 1.0 if found.goals.objectives[name] == "lowest" else -1.0
    best: list[int] = []
    for point in found.allowed:
        value = found.records[point][name]
        if not best or sign * value < sign * found.records[best[-1]][name]:
            best.append(point)
    broken = [n for n in found.complete if n not in set(found.allowed)]
    rest = [n for n in found.allowed if n not in set(best)]

    def marks(numbers: Sequence[int]) -> list[Mark]:
        return [Mark(n, found.records[n][name], _text(found, n), f"point-{n}") for n in numbers]

    groups = [
        Marks("breaks a constraint", marks(broken), 4, faint=True),
        Marks("keeps the constraints" if found.goals.constraints else "points", marks(rest), 0),
        Marks("best so far", marks(best), 1, joined=True),
    ]
    own = found.base[name]
    axis = Axis(name, _axis_unit(found, name), references={"settings' own": own})
    return scatter(
        f"{name} by point",
        [group for group in groups if group.marks],
        Axis("point"),
        axis,
        Frame("In the order in which points were proposed.", 420, wide=True),
    )


def _marks(found: Found, numbers: Sequence[int], x: str, y: str) -> list[Mark]:
    return [
        Mark(
            found.record(n)[x],
            found.record(n)[y],
            _text(found, n),
            "" if n < 0 else f"point-{n}",
        )
        for n in numbers
    ]


def _text(found: Found, point: int) -> list[str]:
    record = found.record(point)
    heading = "settings' own" if point < 0 else f"point {point}"
    figures = [f"{name}: {shown(found, name, record.get(name))}" for name in found.judged]
    settings = [f"{name}={_plain(value)}" for name, value in found.values(point).items()]
    return [heading, *figures, *settings]


def _importance_parts(found: Found) -> list[Part]:
    parts: list[Part] = []
    for name in found.goals.objectives:
        weights = importances(found, name)
        if weights is None:
            parts.append(Note(f"{name} does not vary enough to tell which parameters matter."))
            continue
        parts.append(
            bars(
                f"What decides {name}",
                Bars(list(weights), [Group(name, list(weights.values()))], horizontal=True),
                Axis("share of the variance", "fraction", from_zero=True),
                Frame(height_px=120 + 30 * len(weights)),
            )
        )
    return parts


def _parallel(found: Found) -> Figure:
    chosen = found.best if len(found.goals.objectives) == 1 else found.front
    rest = [n for n in found.complete if n not in set(chosen)]
    drawn = rest[:: max(1, -(-len(rest) // _DRAWN_LINES))]
    some = (
        f" Of {len(rest):,} other points {len(drawn):,} are drawn."
        if len(drawn) < len(rest)
        else ""
    )
    rest = drawn
    numbers = [*rest, *chosen]
    dimensions = [_of_parameter(found, name, numbers) for name in found.space.parameters]
    dimensions += [_of_figure(found, name, numbers) for name in found.judged]
    lines = [
        Marks("other points", [Mark(0, 0, _text(found, n), f"point-{n}") for n in rest], 0, True),
        Marks("best", [Mark(0, 0, _text(found, n), f"point-{n}") for n in chosen], 1),
    ]
    caption = (
        "Each line is a point; below its parameters are what it is judged by. Where the lines of "
        "the best come together, the value matters." + some
    )
    shown_lines = [line for line in lines if line.marks]
    return parallel("Parameters and figures", dimensions, shown_lines, caption)


def _of_parameter(found: Found, name: str, numbers: Sequence[int]) -> Dimension:
    if not found.space.is_ordered(name):
        names = [_plain(value) for value in found.space.named(name)]
        at = {text: place(k, 0, len(names) - 1) for k, text in enumerate(names)}
        places = [at[_plain(found.values(n)[name])] for n in numbers]
        return Dimension(name, places, [(height, text) for text, height in at.items()])
    log = found.space.is_log(name)
    return _dimension(name, [found.values(n)[name] for n in numbers], number, log)


def _of_figure(found: Found, name: str, numbers: Sequence[int]) -> Dimension:
    values = [found.records[n][name] for n in numbers]
    return _dimension(name, values, lambda value: shown(found, name, value), False)


def _dimension(name: str, values: Sequence[Any], show: Any, log: bool) -> Dimension:
    low, high = min(values), max(values)
    places = [place(value, low, high, log) for value in values]
    ticks = [(0.0, show(low)), (1.0, show(high))] if high > low else [(0.5, show(low))]
    return Dimension(name, places, ticks)


def _design_parts(designs: Sequence[Design], folder: Path) -> list[Part]:
    parts: list[Part] = []
    for item in designs:
        command = f"repast-dist --config-dir {folder / DESIGNS} " + " ".join(item.overrides)
        files = "\n\n".join(f"# {path}\n{text}" for path, text in item.files.items())
        parts.append(Code(item.name.replace("_", " "), f"{command}\n\n{files}".rstrip()))
    return parts


def _designs(found: Found) -> Table:
    """Return the best designs as columns beside the settings' own."""
    numbers = [-1, *found.best]
    headings = [
        found.name(n).replace("_", " ") + ("" if n < 0 else f", point {n}") for n in numbers
    ]
    rows: list[list[str]] = [
        [name, *(_plain(found.values(n).get(name)) for n in numbers)]
        for name in found.space.parameters
    ]
    rows += [
        [
            name + _goal(found, name),
            *(shown(found, name, found.record(n).get(name)) for n in numbers),
        ]
        for name in [*found.judged, *_telling(found, numbers)]
    ]
    caption = (
        "The settings' own design is what the search started from; it need not keep the "
        "constraints, nor lie among the values that were tried."
    )
    columns = [Column("setting or figure"), *map(Column, headings)]
    return Table("Settings and figures", columns, rows, caption)


def _points(found: Found, points: Any) -> Part:
    table = arrow_table("All points", points, "A click on a heading sorts.", folded=True)
    rows = [f"point-{n}" for n in range(len(found.records))]
    return dataclasses.replace(table, row_ids=rows)


def _compared(found: Found, point: int) -> str:
    record = found.records[point]
    return ", ".join(
        f"{name} {shown(found, name, record[name])} (settings' own: "
        f"{shown(found, name, found.base[name])})"
        for name in found.goals.objectives
    )


def _own_breaks(found: Found) -> str:
    """Return a sentence on the constraints that the settings' own design does not keep, if any."""
    broken = [name for name, it in found.goals.excesses(found.base).items() if it]
    values = ", ".join(
        f"{name} {shown(found, name, found.base[name])}, not{_goal(found, name)}" for name in broken
    )
    return f" The settings' own design does not keep the constraints: {values}." if broken else ""


def _nearest(found: Found) -> str:
    excess = {n: sum(found.goals.excesses(found.records[n]).values()) for n in found.complete}
    nearest = min(excess, key=lambda n: excess[n])
    broken = [name for name, it in found.goals.excesses(found.records[nearest]).items() if it]
    values = ", ".join(
        f"{name} {shown(found, name, found.records[nearest][name])}, not{_goal(found, name)}"
        for name in broken
    )
    return f"point {nearest} is nearest, with {values}"


def _goal(found: Found, name: str) -> str:
    if name in found.goals.constraints:
        limits = found.goals.constraints[name]
        low, high = limits.at_least, limits.at_most
        text = f" >= {shown(found, name, low)}" if low is not None else ""
        return text + (f" <= {shown(found, name, high)}" if high is not None else "")
    return ""


def _axis(found: Found, name: str) -> Axis:
    return Axis(name, _axis_unit(found, name))


def _axis_unit(found: Found, name: str) -> str:
    unit = found.unit(name)
    return "" if unit == "1" else unit


def _plain(value: Any) -> str:
    if value is None:
        return "-"
    if is_number(value):
        return number(value, 4)
    if isinstance(value, Mapping | list | tuple):
        return str(value)
    return str(value)


def _short(name: str) -> str:
    """Cut a name from the left: its end tells more."""
    return name if len(name) <= _LONGEST_NAME else "…" + name[-_LONGEST_NAME + 1 :]
