"""Figures of the pages: records of what is shown go in, Plotly traces and layout come out."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from repast_dist.report import palette
from repast_dist.report.axes import Axis, log_ticks, rule, ticks_at
from repast_dist.report.page import Figure, Frame
from repast_dist.report.units import plain_text, shortened, si, unit_scale

_LONGEST_CURVE = 2000
_MARKED_POINTS = 40
_LABELS_AT_MOST = 16
# Letters of a label beside an axis, and of an entry of the legend, that a phone has room for.
_LONGEST_LABEL, _LONGEST_ENTRY = 28, 42
_PLAIN = Frame()


@dataclasses.dataclass(frozen=True)
class Curve:
    """One curve of a line plot.

    Attributes
    ----------
    name : str
        Entry of the legend.
    x, y : sequence of float
        Values in SI units; None or NaN leaves a gap.
    band : tuple of sequences, optional
        Lower and upper edge around the curve, at its x values.
    faint : sequence of float, optional
        Values at the same x that are drawn thin behind the curve, such as unsmoothed ones.
    joined : bool
        Whether a line joins the points; otherwise each is marked.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    band: tuple[Sequence[float], Sequence[float]] | None = None
    faint: Sequence[float] | None = None
    joined: bool = True


@dataclasses.dataclass(frozen=True)
class Group:
    """Bars of one colour.

    Attributes
    ----------
    name : str
        Entry of the legend; a phase of training has a colour of its own.
    values : sequence of float
        One per label, in SI units.
    colour : str
        Colour of `palette`; "" chooses by name and position.
    texts : sequence of str
        What is written on each bar; empty writes nothing.
    """

    name: str
    values: Sequence[float]
    colour: str = ""
    texts: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Bars:
    """Groups of bars over common labels.

    Attributes
    ----------
    labels : sequence of str
        One per position of bars.
    groups : sequence of Group
        Side by side, or stacked.
    title : str
        What the labels are.
    stacked, horizontal : bool
        Whether the bars of one label are stacked, and whether bars run from left to right.
    """

    labels: Sequence[str]
    groups: Sequence[Group]
    title: str = ""
    stacked: bool = False
    horizontal: bool = False


@dataclasses.dataclass(frozen=True)
class Grid:
    """Values over two axes.

    Attributes
    ----------
    z : ndarray
        Rows along y, columns along x; NaN stays empty.
    x_values, y_values : sequence
        Positions of the columns and of the rows. Rows are categories; so are columns whose
        positions are text.
    """

    z: np.ndarray
    x_values: Sequence[Any]
    y_values: Sequence[Any]


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One area of a treemap: the group it lies in, its name, and a value of at least 0."""

    group: str
    name: str
    value: float


@dataclasses.dataclass(frozen=True)
class Swing:
    """The result with one input lowered and with it raised."""

    label: str
    low: float
    high: float


def line(title: str, curves: Sequence[Curve], x: Axis, y: Axis, frame: Frame = _PLAIN) -> Figure:
    """Draw curves over a common axis; the points of short ones are marked."""
    scale, y_title = y.scaled([curve.y for curve in curves])
    x_scale, x_title = x.scaled([curve.x for curve in curves])
    traces = [
        trace
        for index, curve in enumerate(curves)
        for trace in _curve(_in_units(curve, x_scale, scale), index)
    ]
    x_axis = {"title": {"text": x_title}, "type": "log" if x.log else "linear"}
    if x.log:
        x_axis |= ticks_at([value for trace in traces for value in trace.x])
    layout = {
        "xaxis": x_axis,
        "yaxis": y.drawn(y_title, [value for trace in traces for value in trace.y], ".2%"),
        "showlegend": len(curves) > 1,
        "hovermode": "x unified" if len(curves) <= 8 else "closest",
    }
    return _figure(title, traces, layout | y.across(scale), frame)


def bars(title: str, content: Bars, value: Axis, frame: Frame = _PLAIN) -> Figure:
    """Draw one bar per label and group; references are marked across upright bars.

    On a logarithmic axis, which has no zero that bars could begin at, each is a mark.
    """
    scale, value_title = value.scaled([group.values for group in content.groups])
    along = "x" if content.horizontal else "y"
    draw = _mark if value.log and not content.stacked else _bar
    traces = [draw(group, index, content, scale) for index, group in enumerate(content.groups)]
    value_axis = value.drawn(value_title, [v for trace in traces for v in trace[along]], ".1%")
    axes = (value_axis, _label_axis(content)) if content.horizontal else (
        _label_axis(content), value_axis)  # fmt: skip
    layout = {
        "barmode": "stack" if content.stacked else "group",
        "scattermode": "group",
        "uniformtext": {"mode": "hide", "minsize": 9},
        "showlegend": len(content.groups) > 1,
        "xaxis": axes[0],
        "yaxis": axes[1],
    }
    return _figure(title, traces, layout | value.across(scale), frame)


def tornado(
    title: str,
    swings: Sequence[Swing],
    base: float,
    result: Axis,
    names: tuple[str, str],
    caption: str = "",
) -> Figure:
    """Draw how far a result moves from `base` when each input is lowered and raised.

    Parameters
    ----------
    swings : sequence of Swing
        One per input, on the scale of `base`; the widest is drawn on top.
    base : float
        Result with all inputs as they are.
    result : Axis
        The result.
    names : tuple of str
        What lowering and raising an input is called.
    """
    widest_first = sorted(swings, key=lambda swing: -abs(swing.high - swing.low))
    labels = [plain_text(swing.label) for swing in widest_first]
    ends = ([swing.low for swing in widest_first], [swing.high for swing in widest_first])
    traces = [
        go.Bar(
            orientation="h",
            name=name,
            y=labels,
            x=[value - base for value in values],
            base=[base] * len(labels),
            customdata=values,
            hovertemplate=f"%{{y}}, {name}: %{{customdata:.4~g}}<extra></extra>",
            marker={"color": palette.series(index)},
        )
        for index, (name, values) in enumerate(zip(names, ends, strict=True))
    ]
    layout = {
        "barmode": "overlay",
        "showlegend": True,
        "xaxis": {"title": {"text": result.title}},
        "yaxis": {"type": "category", "autorange": "reversed"}
        | _short_labels([swing.label for swing in widest_first]),
        "shapes": [rule("x", base)],
    }
    return _figure(title, traces, layout, Frame(caption, 140 + 26 * len(labels), wide=True))


def bridge(title: str, steps: Sequence[Swing], result: Axis, caption: str = "") -> Figure:
    """Draw how factors multiply up: a bar per step from the product before it to that after it, on
    a logarithmic axis.

    Parameters
    ----------
    steps : sequence of Swing
        In order; `low` is the product before the step and `high` that after it.
    result : Axis
        The product.
    """
    traces = [
        go.Scatter(
            # The factor stands right of the bar.
            x=sorted((step.low, step.high)),
            y=[plain_text(step.label)] * 2,
            mode="lines+text",
            line={"width": 15, "color": palette.series(int(step.high < step.low))},
            text=["", f"  x {step.high / step.low:.3g}"],
            textposition="middle right",
            cliponaxis=False,
            showlegend=False,
            hovertemplate=f"{plain_text(step.label)}: x {step.high / step.low:.4g}<br>"
            f"{step.low:.4g} to {step.high:.4g}<extra></extra>",
        )
        for step in steps
    ]
    axis = dataclasses.replace(result, log=True)
    ends = [value for step in steps for value in (step.low, step.high)]
    layout = {
        "showlegend": False,
        "xaxis": axis.drawn(result.title, ends),
        "yaxis": {
            "type": "category",
            "autorange": "reversed",
            "categoryorder": "array",
            "categoryarray": [plain_text(step.label) for step in steps],
        },
        "margin": {"r": 60},
    }
    return _figure(title, traces, layout, Frame(caption, 120 + 34 * len(steps), wide=True))


def heat_map(
    title: str, grid: Grid, x: Axis, y: Axis, colour: Axis, frame: Frame = _PLAIN
) -> Figure:
    """Draw values as colours (cividis: readable with any colour vision, and in grey).

    With a logarithmic `colour` the bar shows powers of ten; fractions fill the whole range from
    0 to 1.
    """
    plain = np.asarray(grid.z, float)
    unit = "" if colour.percent or not colour.unit else f", {colour.unit}"
    name, shown = colour.title + unit, "%{z:.1%}" if colour.percent else "%{z:.4g}"
    bar: dict[str, Any] = {"title": {"text": name, "side": "right"}}
    trace: dict[str, Any] = {"z": plain.tolist()}
    if colour.percent:
        bar["tickformat"] = ".0%"
        trace |= {"zmin": 0.0, "zmax": 1.0}
    elif colour.limits:
        low, high = np.log10(colour.limits) if colour.log else colour.limits
        trace |= {"zmin": float(low), "zmax": float(high)}
    if colour.log:
        shown = "%{customdata:.3g}"
        trace["z"] = np.log10(np.where(plain > 0, plain, np.nan)).tolist()
        trace["customdata"] = plain.tolist()
        ticks = log_ticks([*np.ravel(plain).tolist(), *(colour.limits or ())])
        bar |= ticks | {"tickvals": np.log10(ticks.get("tickvals", [])).tolist()}
    drawn = go.Heatmap(
        trace,
        x=[plain_text(item) if isinstance(item, str) else item for item in grid.x_values],
        y=[plain_text(str(item)) for item in grid.y_values],
        colorbar=bar,
        hoverongaps=False,
        hovertemplate=f"{x.title} %{{x}}<br>{y.title} %{{y}}<br>{name} {shown}<extra></extra>",
    )
    x_axis = {"title": {"text": x.title}, "showgrid": False}
    if any(isinstance(item, str) for item in grid.x_values):
        x_axis["type"] = "category"
    y_axis = {"type": "category", "autorange": "reversed"}
    layout = {"xaxis": x_axis, "yaxis": {"title": {"text": y.title}, "showgrid": False} | y_axis}
    return _figure(title, [drawn], layout, frame)


def treemap(
    title: str, leaves: Sequence[Leaf], unit: str, root: str, frame: Frame = _PLAIN
) -> Figure:
    """Draw areas in two levels; a click on a group zooms in.

    Parameters
    ----------
    leaves : sequence of Leaf
        Values in `unit`; groups that are phases have their colours.
    root : str
        Name of the whole.
    """
    groups: dict[str, float] = {}
    for leaf in leaves:
        groups[leaf.group] = groups.get(leaf.group, 0.0) + leaf.value
    colours = {name: palette.of_name(name, index) for index, name in enumerate(groups)}
    nodes = [("all", "", root, sum(groups.values()), palette.GRID)]
    nodes += [(group, "all", group, value, colours[group]) for group, value in groups.items()]
    nodes += [
        (f"{leaf.group}/{leaf.name}", leaf.group, leaf.name, leaf.value, colours[leaf.group])
        for leaf in leaves
    ]
    ids, parents, labels, values, shades = (list(column) for column in zip(*nodes, strict=True))
    trace = go.Treemap(
        ids=ids,
        parents=parents,
        labels=list(map(plain_text, labels)),
        values=values,
        text=[si(value, unit) for value in values],
        branchvalues="total",
        marker={"colors": shades},
        textinfo="label+text+percent root",
        hovertemplate="%{label}<br>%{text}<br>%{percentRoot:.1%} of all<extra></extra>",
        pathbar={"visible": True},
    )
    return _figure(title, [trace], {"margin": {"l": 0, "r": 0, "t": 24, "b": 0}}, frame)


def gantt(
    title: str,
    segments: Mapping[str, Sequence[tuple[float, float, float, float]]],
    lanes: Mapping[str, tuple[float, float]],
    x_max_s: float,
    frame: Frame = _PLAIN,
) -> Figure:
    """Draw bars over simulated time.

    Parameters
    ----------
    segments : mapping
        Phase -> (start_s, duration_s, centre, height) per bar.
    lanes : mapping
        Label on the y axis -> (lowest, highest) position of its lanes.
    x_max_s : float
        Right end of the time axis, in seconds.
    """
    scale, unit = unit_scale(x_max_s, "s")
    layout = {
        "barmode": "overlay",
        "showlegend": True,
        "xaxis": {
            "title": {"text": f"simulated time in the step, {unit}"},
            "range": [0, x_max_s / scale * 1.005],
        },
        "yaxis": {
            "tickvals": [(low + high) / 2 for low, high in lanes.values()],
            "ticktext": list(lanes),
            "range": [max((high for _, high in lanes.values()), default=0) + 0.6, -0.6],
            "showgrid": False,
            "zeroline": False,
        },
    }
    traces = [_work(kind, items, scale, unit) for kind, items in segments.items()]
    return _figure(title, traces, layout, dataclasses.replace(frame, wide=True))


def _figure(title: str, traces: Sequence[Any], layout: Mapping[str, Any], frame: Frame) -> Figure:
    data = [trace.to_plotly_json() for trace in traces]
    return Figure(title, data, go.Layout(layout).to_plotly_json(), frame)


def _in_units(curve: Curve, x_scale: float, scale: float) -> Curve:
    """Return the curve in the units of the axes, with a number of points that draws fast."""
    drawn = _drawn(curve.y if curve.faint is None else curve.faint)

    def kept(values: Sequence[float], by: float) -> list[float]:
        return [v if (v := values[place]) is None else v / by for place in drawn]

    band = None if curve.band is None else (kept(curve.band[0], scale), kept(curve.band[1], scale))
    return dataclasses.replace(
        curve,
        x=kept(curve.x, x_scale) if x_scale != 1.0 else [curve.x[place] for place in drawn],
        y=kept(curve.y, scale),
        band=band,
        faint=None if curve.faint is None else kept(curve.faint, scale),
    )


def _drawn(values: Sequence[float]) -> Sequence[int]:
    """Return which values of a curve are drawn: of a long one its ends, and the lowest and the
    highest of every few, so that what stands out does so whichever step it falls on.
    """
    if len(values) <= _LONGEST_CURVE:
        return range(len(values))
    known = np.array([np.nan if value is None else value for value in values], float)
    places = {0, len(values) - 1}
    for some in np.array_split(np.arange(len(values)), _LONGEST_CURVE // 2):
        finite = some[np.isfinite(known[some])]
        ends = (
            (finite[known[finite].argmin()], finite[known[finite].argmax()]) if finite.size else ()
        )
        places.update(map(int, ends or some[:1]))
    return sorted(places)


def _curve(curve: Curve, index: int) -> list[Any]:
    """Return the traces of a curve: what lies behind it first."""
    colour = palette.series(index)
    few = len(curve.x) <= _MARKED_POINTS
    behind: dict[str, Any] = {"mode": "lines", "showlegend": False, "hoverinfo": "skip"}
    traces = []
    if curve.band is not None:
        edge = {"color": palette.faded(colour, 0), "width": 0}
        common = behind | {"x": curve.x, "line": edge, "legendgroup": curve.name}
        inside = {"fill": "tonexty", "fillcolor": palette.faded(colour, 0.2)}
        traces += [go.Scatter(common, y=curve.band[0])]
        traces += [go.Scatter(common | inside, y=curve.band[1])]
    if curve.faint is not None:
        thin = {"line": {"color": colour, "width": 1.2}, "opacity": 0.35}
        traces.append(go.Scatter(behind | thin, x=curve.x, y=curve.faint))
    own = go.Scatter(
        mode="lines+markers" if few and curve.joined else "lines" if curve.joined else "markers",
        name=plain_text(shortened(curve.name, _LONGEST_ENTRY)),
        x=curve.x,
        y=curve.y,
        line={
            "color": colour,
            "width": 2.2,
            "dash": palette.DASHES[index % len(palette.DASHES)],
        },
        showlegend=bool(curve.name),
    )
    if few or not curve.joined:
        symbol = palette.MARKERS[index % len(palette.MARKERS)]
        own.marker = {"symbol": symbol, "size": 7, "color": colour}
    return [*traces, own]


def _mark(group: Group, index: int, content: Bars, scale: float) -> Any:
    """Return marks where bars would end, side by side for each label."""
    bar = _bar(dataclasses.replace(group, texts=()), index, content, scale)
    return go.Scatter(
        name=bar.name,
        x=bar.x,
        y=bar.y,
        orientation=bar.orientation,
        mode="markers",
        offsetgroup=str(index),
        marker={
            "color": bar.marker.color,
            "size": 10,
            "symbol": palette.MARKERS[index % len(palette.MARKERS)],
        },
    )


def _bar(group: Group, index: int, content: Bars, scale: float) -> Any:
    labels = list(map(plain_text, content.labels))
    values = [value if value is None else value / scale for value in group.values]
    trace = go.Bar(
        name=plain_text(shortened(group.name, _LONGEST_ENTRY)),
        orientation="h" if content.horizontal else "v",
        x=values if content.horizontal else labels,
        y=labels if content.horizontal else values,
        marker={"color": group.colour or palette.of_name(group.name, index)},
    )
    if group.texts:
        trace.update(text=list(group.texts), textposition="auto", textangle=0)
        trace.insidetextanchor = "middle"
    return trace


def _short_labels(labels: Sequence[str]) -> dict[str, Any]:
    """Return what an axis needs so that long labels leave room for the figure."""
    names = list(dict.fromkeys(labels))
    if all(len(name) <= _LONGEST_LABEL for name in names):
        return {}
    texts = [plain_text(shortened(name, _LONGEST_LABEL)) for name in names]
    return {"tickvals": list(range(len(names))), "ticktext": texts}


def _label_axis(content: Bars) -> dict[str, Any]:
    axis: dict[str, Any] = {"type": "category", "title": {"text": content.title}}
    axis |= _short_labels(content.labels)
    if content.horizontal:
        axis["autorange"] = "reversed"
    elif all(len(label) <= 3 for label in content.labels):
        axis["tickangle"] = 0
        if len(content.labels) > _LABELS_AT_MOST:
            axis["nticks"] = _LABELS_AT_MOST
    return axis


def _work(
    kind: str, items: Sequence[tuple[float, float, float, float]], scale: float, unit: str
) -> Any:
    start, length, centre, height = np.asarray(items, float).T
    return go.Bar(
        orientation="h",
        name=kind,
        base=(start / scale).tolist(),
        x=(length / scale).tolist(),
        y=centre.tolist(),
        width=height.tolist(),
        marker={"color": palette.phase(kind)},
        text=[si(value, "s") for value in length],
        textposition="none",
        hovertemplate=f"{kind}<br>from %{{base:.4g}} {unit}, for %{{text}}<extra></extra>",
    )
