"""Plot builders: arrays in, a `Figure` of plain Plotly data out."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from repast_dist.report import palette
from repast_dist.report.page import Figure
from repast_dist.report.units import si, si_scale

_LONGEST_CURVE = 2000
_TICKS_AT_VALUES = 13
_LABELS_AT_MOST = 16


def line(
    title: str,
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    x: str,
    y: str,
    unit: str = "",
    x_unit: str = "",
    bands: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None = None,
    faint: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None = None,
    log_x: bool = False,
    log_y: bool = False,
    points: bool = False,
    percent: bool = False,
    from_zero: bool = False,
    references: Mapping[str, float] | None = None,
    caption: str = "",
    wide: bool = False,
    height_px: int = 340,
) -> Figure:
    """Draw curves over a common axis.

    Parameters
    ----------
    curves : mapping
        Name -> (x values, y values); None or NaN leaves a gap.
    x, y : str
        Axis titles.
    unit, x_unit : str
        Units of the y and x values; the axes get fitting SI prefixes.
    bands : mapping, optional
        Curve name -> (lower, upper) at the curve's x values.
    faint : mapping, optional
        Curve name -> (x, y) drawn thin behind the curve of that name, such as unsmoothed values.
    log_x, log_y : bool
        Logarithmic axes.
    points : bool
        Mark the points; for few values.
    percent : bool
        Values are fractions, shown in percent.
    from_zero : bool
        The y axis starts at zero.
    references : mapping, optional
        Name -> y value of a horizontal line, such as a published figure or a target.
    """
    data: list[dict[str, Any]] = []
    scale, y = _scaled_axis(y, unit, [ys for _, ys in curves.values()])
    x_scale, x = _scaled_axis(x, x_unit, [xs for xs, _ in curves.values()])
    for index, (name, (plain_xs, ys)) in enumerate(curves.items()):
        xs = _divided(plain_xs, x_scale) if x_unit else plain_xs
        colour = palette.series(index)
        if bands and name in bands:
            low, high = (_divided(edge, scale) for edge in bands[name])
            data += _band(xs, low, high, colour=colour, name=name)
        if faint and name in faint:
            thin_x, thin_y = faint[name]
            thin = _curve("", thin_x, _divided(thin_y, scale), colour, opacity=0.35, width=1.2)
            data.append(thin)
        trace = _curve(name, xs, _divided(ys, scale), colour)
        trace["line"]["dash"] = palette.DASHES[index % len(palette.DASHES)]
        if points:
            trace["mode"] = "lines+markers"
            trace["marker"] = {
                "symbol": palette.MARKERS[index % len(palette.MARKERS)],
                "size": 7,
                "color": colour,
            }
        data.append(trace)
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": x}, "type": "log" if log_x else "linear"},
        "yaxis": {"title": {"text": y}, "type": "log" if log_y else "linear"},
        "showlegend": len(curves) > 1,
        "hovermode": "x unified" if len(curves) <= 8 else "closest",
    }
    if from_zero:
        layout["yaxis"]["rangemode"] = "tozero"
    if references:
        layout |= _reference_lines(references, scale, log_y)
    if log_x:
        layout["xaxis"] |= _x_ticks([value for trace in data for value in trace["x"]])
    if log_y:
        layout["yaxis"] |= _log_ticks([y for trace in data for y in trace["y"]])
    if percent:
        layout["yaxis"] |= {"tickformat": ".0%", "hoverformat": ".2%"}
    elif not log_y:
        layout["yaxis"] |= {"hoverformat": ".4~g"}
    return Figure(title, data, layout, caption, height_px, wide)


def bars(
    title: str,
    labels: Sequence[str],
    groups: Mapping[str, Sequence[float]],
    *,
    y: str,
    unit: str = "",
    x: str = "",
    colours: Mapping[str, str] | None = None,
    stacked: bool = False,
    horizontal: bool = False,
    percent: bool = False,
    log_y: bool = False,
    texts: Mapping[str, Sequence[str]] | None = None,
    references: Mapping[str, float] | None = None,
    caption: str = "",
    wide: bool = False,
    height_px: int = 340,
) -> Figure:
    """Draw one bar per label and group, side by side or stacked.

    Parameters
    ----------
    labels : sequence of str
        One per bar position.
    groups : mapping
        Group name -> value per label.
    y, x : str
        Title of the value axis and of the label axis.
    unit : str
        Unit of the values; the axis gets a fitting SI prefix.
    colours : mapping, optional
        Group name -> colour token.
    texts : mapping, optional
        Group name -> text on each bar.
    references : mapping, optional
        Name -> value of a line across (vertical bars only).
    """
    data = []
    scale, y = _scaled_axis(y, unit, list(groups.values()))
    for index, (name, plain) in enumerate(groups.items()):
        values = _divided(plain, scale)
        colour = (colours or {}).get(name, palette.series(index))
        axes = {"x": values, "y": labels} if horizontal else {"x": labels, "y": values}
        trace: dict[str, Any] = {
            "type": "bar",
            "name": name,
            "orientation": "h" if horizontal else "v",
            "marker": {"color": colour, "line": {"width": 0}},
            **{key: list(value) for key, value in axes.items()},
        }
        if texts and name in texts:
            trace |= {"text": list(texts[name]), "textposition": "auto", "textangle": 0}
            trace["insidetextanchor"] = "middle"
        data.append(trace)
    value_axis: dict[str, Any] = {"title": {"text": y}, "type": "log" if log_y else "linear"}
    if log_y:
        along = "x" if horizontal else "y"
        value_axis |= _log_ticks([value for trace in data for value in trace[along]])
    if percent:
        value_axis |= {"tickformat": ".0%", "hoverformat": ".1%"}
    elif not log_y:
        value_axis |= {"hoverformat": ".4~g"}
    label_axis: dict[str, Any] = {"type": "category", "title": {"text": x}}
    if horizontal:
        label_axis["autorange"] = "reversed"
    elif all(len(label) <= 3 for label in labels):
        label_axis["tickangle"] = 0
        if len(labels) > _LABELS_AT_MOST:
            label_axis["nticks"] = _LABELS_AT_MOST
    layout = {
        "barmode": "stack" if stacked else "group",
        "bargap": 0.25,
        "uniformtext": {"mode": "hide", "minsize": 9},
        "showlegend": len(groups) > 1,
        "xaxis": value_axis if horizontal else label_axis,
        "yaxis": label_axis if horizontal else value_axis,
    }
    if references:
        layout |= _reference_lines(references, scale, log_y)
    return Figure(title, data, layout, caption, height_px, wide)


def tornado(
    title: str,
    labels: Sequence[str],
    low: Sequence[float],
    high: Sequence[float],
    *,
    base: float,
    x: str,
    low_name: str,
    high_name: str,
    caption: str = "",
) -> Figure:
    """Draw how far a result moves from `base` when each input is lowered and raised.

    Parameters
    ----------
    labels : sequence of str
        One per input; the widest swing is drawn on top.
    low, high : sequence of float
        Result with the input lowered and raised, on the scale of `base`.
    base : float
        Result with all inputs as they are.
    """
    order = sorted(range(len(labels)), key=lambda i: -abs(high[i] - low[i]))
    names = [labels[i] for i in order]
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": name,
            "y": names,
            "x": [values[i] - base for i in order],
            "base": [base] * len(order),
            "customdata": [values[i] for i in order],
            "hovertemplate": f"%{{y}}, {name}: %{{customdata:.4~g}}<extra></extra>",
            "marker": {"color": colour, "line": {"width": 0}},
        }
        for name, values, colour in ((low_name, low, "@series0"), (high_name, high, "@series1"))
    ]
    layout = {
        "barmode": "overlay",
        "bargap": 0.25,
        "showlegend": True,
        "xaxis": {"title": {"text": x}},
        "yaxis": {"type": "category", "autorange": "reversed"},
        "shapes": [_rule("x", base)],
    }
    return Figure(title, data, layout, caption, 140 + 26 * len(names), wide=True)


def heat_map(
    title: str,
    z: np.ndarray,
    *,
    x_values: Sequence[Any],
    y_values: Sequence[Any],
    x: str,
    y: str,
    value: str,
    log: bool = False,
    percent: bool = False,
    limits: tuple[float, float] | None = None,
    caption: str = "",
    wide: bool = False,
    height_px: int = 320,
) -> Figure:
    """Draw a matrix as colours (cividis: readable with any colour vision, and in grey).

    Parameters
    ----------
    z : ndarray
        Rows along y, columns along x; NaN stays empty.
    value : str
        Title of the colour bar.
    log : bool
        Colour by the logarithm; the bar shows powers of ten.
    limits : tuple of float, optional
        Values of the first and the last colour, so that several maps can be compared.
    """
    shown = np.asarray(z, float)
    text = "%{z:.1%}" if percent else "%{z:.4g}"
    bar: dict[str, Any] = {"title": {"text": value, "side": "right"}, "thickness": 12}
    if percent:
        bar["tickformat"] = ".0%"
    if log:
        text = "%{customdata:.3g}"
        shown = np.log10(np.where(shown > 0, shown, np.nan))
        ticks = _log_ticks([*np.ravel(z).tolist(), *(limits or ())])
        bar |= ticks | {"tickvals": np.log10(ticks.get("tickvals", [])).tolist()}
    trace: dict[str, Any] = {
        "type": "heatmap",
        "z": shown.tolist(),
        "x": list(x_values),
        "y": [str(item) for item in y_values],
        "colorscale": "Cividis",
        **_colour_range(limits, log),
        "colorbar": bar,
        "hoverongaps": False,
        "hovertemplate": f"{x} %{{x}}<br>{y} %{{y}}<br>{value} {text}<extra></extra>",
    }
    if log:
        trace["customdata"] = np.asarray(z, float).tolist()
    if percent:
        trace |= {"zmin": 0.0, "zmax": 1.0}
    layout = {
        "xaxis": {"title": {"text": x}, "showgrid": False},
        "yaxis": {
            "title": {"text": y},
            "type": "category",
            "autorange": "reversed",
            "showgrid": False,
        },
    }
    return Figure(title, [trace], layout, caption, height_px, wide)


def treemap(
    title: str,
    leaves: Sequence[tuple[str, str, float]],
    *,
    unit: str,
    root: str,
    colours: Mapping[str, str] | None = None,
    caption: str = "",
    wide: bool = False,
    height_px: int = 400,
) -> Figure:
    """Draw areas in two levels; a click on a group zooms in.

    Parameters
    ----------
    leaves : sequence of (group, name, value)
        Values in `unit`, at least 0.
    root : str
        Name of the whole.
    colours : mapping, optional
        Group -> colour token.
    """
    groups: dict[str, float] = {}
    for group, _, value in leaves:
        groups[group] = groups.get(group, 0.0) + value
    tokens = {
        group: (colours or {}).get(group, palette.series(index))
        for index, group in enumerate(groups)
    }
    total = sum(groups.values())
    nodes = [("", "", root, total, "@grid")]
    nodes += [(group, "", group, value, tokens[group]) for group, value in groups.items()]
    nodes += [
        (f"{group}/{name}", group, name, value, tokens[group]) for group, name, value in leaves
    ]
    trace = {
        "type": "treemap",
        "ids": [node[0] or "all" for node in nodes],
        "parents": ["" if not node[0] else node[1] or "all" for node in nodes],
        "labels": [node[2] for node in nodes],
        "values": [node[3] for node in nodes],
        "text": [si(node[3], unit) for node in nodes],
        "branchvalues": "total",
        "marker": {"colors": [node[4] for node in nodes], "line": {"width": 1, "color": "@paper"}},
        "textinfo": "label+text+percent root",
        "hovertemplate": "%{label}<br>%{text}<br>%{percentRoot:.1%} of all<extra></extra>",
        "pathbar": {"visible": True},
        "tiling": {"pad": 2},
    }
    layout = {"margin": {"l": 0, "r": 0, "t": 24, "b": 0}}
    return Figure(title, [trace], layout, caption, height_px, wide)


def gantt(
    title: str,
    segments: Mapping[str, Sequence[tuple[float, float, float, float]]],
    *,
    lanes: Mapping[str, tuple[float, float]],
    colours: Mapping[str, str],
    x_max_s: float,
    caption: str = "",
    height_px: int = 360,
) -> Figure:
    """Draw bars over simulated time.

    Parameters
    ----------
    segments : mapping
        Kind (legend entry) -> (start_s, duration_s, centre, height) per bar.
    lanes : mapping
        Label on the y axis -> (lowest, highest) position of its lanes.
    colours : mapping
        Kind -> colour token.
    x_max_s : float
        Right end of the time axis, in seconds.
    """
    scale, prefix = si_scale(x_max_s)
    data = []
    for kind, items in segments.items():
        start, length, centre, height = np.asarray(items, float).T
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": kind,
                "base": (start / scale).tolist(),
                "x": (length / scale).tolist(),
                "y": centre.tolist(),
                "width": height.tolist(),
                "marker": {"color": colours[kind], "line": {"width": 0}},
                "text": [si(value, "s") for value in length],
                "textposition": "none",
                "hovertemplate": f"{kind}<br>from %{{base:.4g}} {prefix}s, for %{{text}}"
                "<extra></extra>",
            }
        )
    layout = {
        "barmode": "overlay",
        "showlegend": True,
        "xaxis": {"title": {"text": f"simulated time in the step, {prefix}s"},
                  "range": [0, x_max_s / scale * 1.005]},
        "yaxis": {
            "tickvals": [(low + high) / 2 for low, high in lanes.values()],
            "ticktext": list(lanes),
            "range": [max((high for _, high in lanes.values()), default=0) + 0.6, -0.6],
            "showgrid": False,
            "zeroline": False,
        },
    }  # fmt: skip
    return Figure(title, data, layout, caption, height_px, wide=True)


def _reference_lines(references: Mapping[str, float], scale: float, log: bool) -> dict[str, Any]:
    """Draw named values across; on a logarithmic axis a text's place is its value's logarithm."""
    return {
        "shapes": [_rule("y", value / scale) for value in references.values()],
        "annotations": [
            {
                "text": name,
                "x": 1,
                "xref": "paper",
                "xanchor": "right",
                "y": math.log10(value / scale) if log else value / scale,
                "yanchor": "bottom",
                "showarrow": False,
                "font": {"color": "@ink", "size": 11},
                "bgcolor": "@paper/0.8",
            }
            for name, value in references.items()
        ],
    }


def _rule(axis: str, value: float) -> dict[str, Any]:
    """Draw a dotted line across the whole plot at one value of an axis."""
    other = "x" if axis == "y" else "y"
    return {
        "type": "line",
        f"{axis}0": value,
        f"{axis}1": value,
        f"{other}0": 0,
        f"{other}1": 1,
        f"{other}ref": "paper",
        "line": {"color": "@ink", "width": 1.5, "dash": "dot"},
    }


def _scaled_axis(title: str, unit: str, values: Sequence[Sequence[float]]) -> tuple[float, str]:
    """Return the power of 1000 to divide values by, and the axis title with its prefix."""
    if not unit:
        return 1.0, title
    known = [abs(v) for series in values for v in series if v is not None and math.isfinite(v)]
    scale, prefix = si_scale(max(known, default=0.0))
    return scale, f"{title}, {prefix}{unit}"


def _divided(values: Sequence[float], scale: float) -> list[float]:
    return [value if value is None else value / scale for value in values]


def _colour_range(limits: tuple[float, float] | None, log: bool) -> dict[str, float]:
    if limits is None:
        return {}
    low, high = np.log10(limits) if log else limits
    return {"zmin": float(low), "zmax": float(high)}


def _log_ticks(values: Sequence[float]) -> dict[str, Any]:
    """Ticks at 1, 2, 5 within a few decades, at whole powers of ten over more."""
    known = [v for v in values if v is not None and math.isfinite(v) and v > 0]
    if not known:
        return {}
    low, high = math.floor(math.log10(min(known))), math.ceil(math.log10(max(known)))
    narrow = math.log10(max(known) / min(known)) <= 2.5
    stride = 1 if narrow else -(-(high - low) // 8)
    ticks = [
        digit * 10.0**power
        for power in range(low - (low % stride), high + 1, stride)
        for digit in ((1, 2, 5) if narrow else (1,))
    ]
    return {"tickmode": "array", "tickvals": ticks, "ticktext": [_tick_text(t) for t in ticks]}


def _x_ticks(values: Sequence[float]) -> dict[str, Any]:
    """Ticks at the values themselves when they are few and round, such as 1, 2, 4, 8 chips."""
    distinct = sorted(set(values))
    round_ones = all(float(f"{value:.4g}") == value for value in distinct)
    if len(distinct) > _TICKS_AT_VALUES or not round_ones:
        return _log_ticks(values)
    return {
        "tickmode": "array",
        "tickvals": distinct,
        "ticktext": [_tick_text(value) for value in distinct],
    }


def _tick_text(value: float) -> str:
    if 1e-3 <= value < 1e5:
        return f"{value:,.10g}"
    digit, exponent = f"{value:.0e}".split("e")
    return f"{'' if digit == '1' else digit + '·'}10<sup>{int(exponent)}</sup>"


def _curve(
    name: str,
    xs: Sequence[float],
    ys: Sequence[float],
    colour: str,
    opacity: float = 1.0,
    width: float = 2.2,
) -> dict[str, Any]:
    stride = max(1, -(-len(xs) // _LONGEST_CURVE))
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": list(xs)[::stride],
        "y": list(ys)[::stride],
        "opacity": opacity,
        "line": {"color": colour, "width": width},
        "showlegend": bool(name),
        **({} if name else {"hoverinfo": "skip"}),
    }


def _band(
    xs: Sequence[float], low: Sequence[float], high: Sequence[float], *, colour: str, name: str
) -> list[dict[str, Any]]:
    edge = {"color": f"{colour}/0", "width": 0}
    common = {"type": "scatter", "mode": "lines", "x": list(xs), "line": edge, "showlegend": False,
              "hoverinfo": "skip", "legendgroup": name}  # fmt: skip
    return [
        {**common, "y": list(low)},
        {**common, "y": list(high), "fill": "tonexty", "fillcolor": f"{colour}/0.2"},
    ]
