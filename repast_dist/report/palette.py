"""Colours that colour-blind readers can tell apart, on a light and on a dark page.

Figures are drawn in the colours of the light page; on a dark screen the page replaces each of
them by its partner (`dark_partners`), so one figure serves light, dark and print. The hues are
those of Okabe and Ito (2008), with indigo in place of their yellow, which is too pale on white.
The dark set keeps the hues and raises the lightness.
"""

import functools
from typing import Any

from repast_dist.trace.schema import PHASES, Phase

_LIGHT: dict[str, str] = {
    Phase.FORWARD: "#0072b2",
    Phase.BACKWARD: "#56b4e9",
    Phase.SOI: "#009e73",
    Phase.INVERSION: "#d55e00",
    Phase.PRECONDITION: "#e69f00",
    Phase.UPDATE: "#4b3b9b",
    Phase.PROGRAM: "#cc79a7",
    Phase.COMMUNICATE: "#767b82",
}
_DARK: dict[str, str] = {
    Phase.FORWARD: "#4aa3df",
    Phase.BACKWARD: "#9ad7fa",
    Phase.SOI: "#2fc79a",
    Phase.INVERSION: "#ff8552",
    Phase.PRECONDITION: "#f7bd45",
    Phase.UPDATE: "#b3a3ff",
    Phase.PROGRAM: "#e79fc8",
    Phase.COMMUNICATE: "#9aa1aa",
}
_SERIES = (
    Phase.FORWARD,
    Phase.INVERSION,
    Phase.SOI,
    Phase.PRECONDITION,
    Phase.UPDATE,
    Phase.PROGRAM,
    Phase.BACKWARD,
    Phase.COMMUNICATE,
)
COLOURS = len(_SERIES)
"""How many series can be told apart by colour."""
INK, MUTED, GRID, PAPER = "#1b1f24", "#5b6470", "#e4e7eb", "#ffffff"
"""Text, quiet text, grid lines and the page."""

_DARK_GROUND = {INK: "#e8eaed", MUTED: "#a2abb6", GRID: "#333a43", PAPER: "#1a1e23"}

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
MARKERS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "star", "triangle-down")


def series(index: int) -> str:
    """Return the colour of the i-th series; after eight they repeat, with other dashes."""
    return _LIGHT[_SERIES[index % len(_SERIES)]]


def phase(name: str) -> str:
    """Return the colour of a phase."""
    return _LIGHT.get(name, MUTED)


def of_name(name: str, index: int) -> str:
    """Return a phase's own colour, or that of the i-th series for any other name."""
    return phase(name) if name in PHASES else series(index)


def faded(colour: str, opacity: float) -> str:
    """Return a colour with an opacity between 0 and 1."""
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:g})"


def dark_partners() -> dict[str, str]:
    """Return light colour -> the colour that takes its place on a dark page."""
    return {**{_LIGHT[name]: colour for name, colour in _DARK.items()}, **_DARK_GROUND}


@functools.cache
def template() -> dict[str, Any]:
    """Return the Plotly template of all figures; a page carries it once."""
    import plotly.graph_objects as go

    axis = {
        "gridcolor": GRID,
        "linecolor": GRID,
        "zerolinecolor": GRID,
        "automargin": True,
        "tickfont": {"color": MUTED},
        "title": {"font": {"color": MUTED, "size": 13}, "standoff": 8},
    }
    layout = go.Layout(
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={
            "family": "system-ui, -apple-system, Segoe UI, Roboto, DejaVu Sans, sans-serif",
            "size": 12,
            "color": INK,
        },
        colorway=[series(index) for index in range(len(_SERIES))],
        margin={"l": 48, "r": 14, "t": 8, "b": 40},
        bargap=0.25,
        hovermode="closest",
        showlegend=False,
        hoverlabel={"bgcolor": PAPER, "bordercolor": GRID, "font": {"color": INK}},
        legend={
            "orientation": "h",
            "x": 0,
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "traceorder": "normal",
            # A legend does not scroll: the page makes its figure higher.
            "maxheight": 10_000,
            "font": {"color": INK},
        },
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": MUTED, "activecolor": INK},
        xaxis=axis,
        yaxis=axis,
    )
    data = {
        "bar": [go.Bar(marker={"line": {"width": 0}})],
        "heatmap": [go.Heatmap(colorscale="Cividis", colorbar={"thickness": 12})],
        "treemap": [go.Treemap(marker={"line": {"width": 1, "color": PAPER}}, tiling={"pad": 2})],
    }
    made: dict[str, Any] = go.layout.Template(layout=layout, data=data).to_plotly_json()
    return made
