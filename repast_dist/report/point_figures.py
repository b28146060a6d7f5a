"""Figures of points that stand for rows of a table: hover says what they are, a click says more."""

import dataclasses
import math
from collections.abc import Sequence

import plotly.graph_objects as go

from repast_dist.report import palette
from repast_dist.report.axes import Axis
from repast_dist.report.page import Figure, Frame
from repast_dist.report.units import plain_text

_PLAIN = Frame()
_HOVER = "%{text}<extra></extra>"


@dataclasses.dataclass(frozen=True)
class Mark:
    """One point.

    Attributes
    ----------
    x, y : float
        Where it is, in SI units.
    text : sequence of str
        Lines shown beside the pointer.
    row : str
        Name of the table row it stands for; "" for none.
    """

    x: float
    y: float
    text: Sequence[str]
    row: str = ""


@dataclasses.dataclass(frozen=True)
class Marks:
    """Points of one kind.

    Attributes
    ----------
    name : str
        Entry of the legend.
    marks : sequence of Mark
        The points.
    index : int
        Which colour and symbol of the series.
    faint : bool
        Drawn as background.
    joined : bool
        Whether steps join the points, as a front or a record so far.
    """

    name: str
    marks: Sequence[Mark]
    index: int = 0
    faint: bool = False
    joined: bool = False


@dataclasses.dataclass(frozen=True)
class Dimension:
    """One of several level axes below each other.

    Attributes
    ----------
    title : str
        What it is.
    places : sequence of float or None
        Where each line crosses it, from 0 to 1; None: the line has a gap.
    ticks : sequence of (float, str)
        Places that are labelled.
    """

    title: str
    places: Sequence[float | None]
    ticks: Sequence[tuple[float, str]]


def scatter(title: str, groups: Sequence[Marks], x: Axis, y: Axis, frame: Frame = _PLAIN) -> Figure:
    """Draw points over two measured axes; the legend names their kinds."""
    marks = [mark for group in groups for mark in group.marks]
    x_scale, x_title = x.scaled([[mark.x for mark in marks]])
    y_scale, y_title = y.scaled([[mark.y for mark in marks]])
    traces = []
    for group in groups:
        colour = palette.MUTED if group.faint else palette.series(group.index)
        traces.append(
            go.Scatter(
                name=plain_text(group.name),
                mode="lines+markers" if group.joined else "markers",
                x=[mark.x / x_scale for mark in group.marks],
                y=[mark.y / y_scale for mark in group.marks],
                text=[_lines(mark.text) for mark in group.marks],
                customdata=[mark.row or None for mark in group.marks],
                hovertemplate=_HOVER,
                opacity=0.45 if group.faint else 1.0,
                line={"color": colour, "width": 1.5, "shape": "linear"},
                marker={
                    "color": colour,
                    "size": 6 if group.faint else 9,
                    "symbol": palette.MARKERS[group.index % len(palette.MARKERS)],
                },
            )
        )
    layout = {
        "xaxis": x.drawn(x_title, [mark.x / x_scale for mark in marks]),
        "yaxis": y.drawn(y_title, [mark.y / y_scale for mark in marks]),
        "showlegend": len(groups) > 1,
        "hovermode": "closest",
    }
    data = [trace.to_plotly_json() for trace in traces]
    return Figure(title, data, go.Layout(layout).to_plotly_json(), frame)


def parallel(
    title: str, dimensions: Sequence[Dimension], lines: Sequence[Marks], caption: str = ""
) -> Figure:
    """Draw every point as a line down across level axes, one per parameter and figure.

    Parameters
    ----------
    dimensions : sequence of Dimension
        The axes; all have a place for every mark of all `lines`, in their order.
    lines : sequence of Marks
        The points; where their marks are is not read.
    """
    traces, number = [], 0
    for group in lines:
        colour = palette.MUTED if group.faint else palette.series(group.index)
        x: list[float | None] = []
        y: list[float | None] = []
        text: list[str] = []
        rows: list[str | None] = []
        for mark in group.marks:
            x += [*(dimension.places[number] for dimension in dimensions), None]
            y += [*range(len(dimensions)), None]
            text += [_lines(mark.text)] * (len(dimensions) + 1)
            rows += [mark.row or None] * (len(dimensions) + 1)
            number += 1
        traces.append(
            go.Scatter(
                name=group.name,
                mode="lines+markers",
                x=x,
                y=y,
                text=text,
                customdata=rows,
                hovertemplate=_HOVER,
                opacity=0.18 if group.faint else 1.0,
                line={"color": colour, "width": 1.0 if group.faint else 2.0},
                marker={"color": colour, "size": 3 if group.faint else 6},
            )
        )
    ticks = [
        {
            # By this name the page leaves out those that have no room.
            "name": "tick",
            "text": plain_text(label),
            "x": place,
            "y": height,
            "xanchor": "right" if place > 0.8 else "left" if place < 0.2 else "center",
            "yanchor": "bottom",
            "yshift": 2,
            "showarrow": False,
            "font": {"color": palette.INK, "size": 11},
            "bgcolor": palette.faded(palette.PAPER, 0.7),
        }
        for height, dimension in enumerate(dimensions)
        for place, label in dimension.ticks
    ]
    layout = {
        "xaxis": {"visible": False, "range": [-0.02, 1.02], "showgrid": False},
        "yaxis": {
            "tickvals": list(range(len(dimensions))),
            "ticktext": [_wrapped(dimension.title) for dimension in dimensions],
            "range": [len(dimensions) - 0.7, -0.7],
            "showgrid": True,
            "zeroline": False,
        },
        "showlegend": len(lines) > 1,
        "hovermode": "closest",
        "annotations": ticks,
    }
    data = [trace.to_plotly_json() for trace in traces]
    frame = Frame(caption, 110 + 40 * len(dimensions), wide=True)
    return Figure(title, data, go.Layout(layout).to_plotly_json(), frame)


def place(value: float, low: float, high: float, log: bool = False) -> float:
    """Return where a value lies on an axis from `low` (0) to `high` (1)."""
    if high <= low:
        return 0.5
    if log:
        value, low, high = math.log(value), math.log(low), math.log(high)
    return (value - low) / (high - low)


def _lines(lines: Sequence[str]) -> str:
    return "<br>".join(plain_text(line) for line in lines)


def _wrapped(title: str) -> str:
    """Break a dotted path before its last part."""
    before, dot, last = title.rpartition(".")
    return f"{plain_text(before)}{dot}<br>{plain_text(last)}" if dot else plain_text(title)
