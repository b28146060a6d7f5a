"""Colours that stay apart for colour-blind readers, on light and on dark ground.

Figures name colours by token (``@forward``, ``@series0``, with opacity ``@soi/0.2``); the page
puts in the value for the theme at hand, so one figure serves light, dark and print. The hues are
those of Okabe and Ito (2008) with indigo for their yellow, which is too pale on white; the dark
set keeps the hues and raises the lightness.
"""

from repast_dist.trace.schema import PHASES

_LIGHT = {
    "forward": "#0072b2",
    "backward": "#56b4e9",
    "soi": "#009e73",
    "inversion": "#d55e00",
    "precondition": "#e69f00",
    "update": "#4b3b9b",
    "program": "#cc79a7",
    "communicate": "#767b82",
}
_DARK = {
    "forward": "#4aa3df",
    "backward": "#9ad7fa",
    "soi": "#2fc79a",
    "inversion": "#ff8552",
    "precondition": "#f7bd45",
    "update": "#b3a3ff",
    "program": "#e79fc8",
    "communicate": "#9aa1aa",
}
_SERIES = (
    "forward",
    "inversion",
    "soi",
    "precondition",
    "update",
    "program",
    "backward",
    "communicate",
)
_GROUND = {
    "light": {"ink": "#1b1f24", "muted": "#5b6470", "grid": "#e4e7eb", "paper": "#ffffff"},
    "dark": {"ink": "#e8eaed", "muted": "#a2abb6", "grid": "#333a43", "paper": "#1a1e23"},
}

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
MARKERS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "star", "triangle-down")


def series(index: int) -> str:
    """Return the colour token of the i-th series; after eight they repeat, with other dashes."""
    return f"@series{index % len(_SERIES)}"


def phase(name: str) -> str:
    """Return the colour token of a phase."""
    return f"@{name}" if name in PHASES else "@muted"


def tokens() -> dict[str, dict[str, str]]:
    """Return theme -> token -> colour, for the page."""
    themes = {}
    for theme, colours in (("light", _LIGHT), ("dark", _DARK)):
        numbered = {f"series{i}": colours[name] for i, name in enumerate(_SERIES)}
        themes[theme] = {**colours, **numbered, **_GROUND[theme]}
    return themes
