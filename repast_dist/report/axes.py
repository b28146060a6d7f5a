"""Axes of figures: titles with units, ticks, formats, and lines across the plot."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from repast_dist.ground.numbers import ceil_div
from repast_dist.report import palette
from repast_dist.report.units import unit_scale

_TICKS_AT_VALUES = 13
_MOST_DECADES = 8
_NARROW_DECADES = 2.5
_FRACTION_OF_A_DECADE = 0.7


@dataclasses.dataclass(frozen=True)
class Axis:
    """What the values along an axis, or behind a colour, are.

    Attributes
    ----------
    title : str
        The quantity, in words.
    unit : str
        SI unit of the values; the axis gets a fitting prefix. "fraction" is shown in percent;
        "" stands for plain numbers.
    log : bool
        The axis is logarithmic.
    from_zero : bool
        A linear axis starts at zero.
    limits : tuple of float, optional
        First and last value of a colour scale, so that several maps can be compared.
    references : mapping
        Name -> value that is marked across the plot, such as a published figure or a target.
    """

    title: str = ""
    unit: str = ""
    log: bool = False
    from_zero: bool = False
    limits: tuple[float, float] | None = None
    references: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def percent(self) -> bool:
        """Whether the values are fractions, shown in percent."""
        return self.unit == "fraction"

    def scaled(self, values: Sequence[Sequence[float]]) -> tuple[float, str]:
        """Return the power of 1000 to divide values by, and the title with unit and prefix."""
        if not self.unit or self.percent:
            return 1.0, self.title
        known = [abs(v) for series in values for v in series if v is not None and math.isfinite(v)]
        scale, unit = unit_scale(max(known, default=0.0), self.unit)
        return scale, f"{self.title}, {unit}"

    def drawn(self, title: str, values: Sequence[float], exact: str = ".4~g") -> dict[str, Any]:
        """Return the Plotly axis of measured values.

        Parameters
        ----------
        title : str
            Title with the unit, as returned by `scaled`.
        values : sequence of float
            All values on the axis, in the axis' unit.
        exact : str
            How a value is written beside the pointer.
        """
        axis: dict[str, Any] = {"title": {"text": title}, "type": "log" if self.log else "linear"}
        if self.from_zero:
            axis["rangemode"] = "tozero"
        if self.log:
            axis |= log_ticks(values)
        if self.percent:
            return axis | {"tickformat": ".0%", "hoverformat": exact}
        return axis if self.log else axis | {"hoverformat": ".4~g"}

    def across(self, scale: float) -> dict[str, Any]:
        """Return the layout entries that mark the references of a vertical axis."""
        if not self.references:
            return {}
        values = {name: value / scale for name, value in self.references.items()}
        return {
            "shapes": [rule("y", value) for value in values.values()],
            # On a logarithmic axis a text is placed by the logarithm of its value.
            "annotations": [
                _label(name, math.log10(value) if self.log else value)
                for name, value in values.items()
            ],
        }


def rule(axis: str, value: float) -> dict[str, Any]:
    """Return a dotted line across the whole plot at one value of the axis "x" or "y"."""
    other = "x" if axis == "y" else "y"
    return {
        "type": "line",
        f"{axis}0": value,
        f"{axis}1": value,
        f"{other}0": 0,
        f"{other}1": 1,
        f"{other}ref": "paper",
        "line": {"color": palette.INK, "width": 1.5, "dash": "dot"},
    }


def log_ticks(values: Sequence[float]) -> dict[str, Any]:
    """Return ticks at 1, 2, 5 within a few decades, at whole powers of ten over more.

    Less than a decade gets ticks at even distances, so that there are several of them.
    """
    known = [v for v in values if v is not None and math.isfinite(v) and v > 0]
    if not known:
        return {}
    low, high = math.floor(math.log10(min(known))), math.ceil(math.log10(max(known)))
    decades = math.log10(max(known) / min(known))
    if decades < _FRACTION_OF_A_DECADE:
        return _ticks(_even(min(known), max(known)))
    narrow = decades <= _NARROW_DECADES
    stride = 1 if narrow else max(1, ceil_div(high - low, _MOST_DECADES))
    return _ticks(
        [
            digit * 10.0**power
            for power in range(low - (low % stride), high + 1, stride)
            for digit in ((1, 2, 5) if narrow else (1,))
        ]
    )


def ticks_at(values: Sequence[float]) -> dict[str, Any]:
    """Return ticks at the values when they are few and round, such as 1, 2, 4, 8 chips."""
    distinct = sorted(set(values))
    round_ones = all(float(f"{value:.4g}") == value for value in distinct)
    if len(distinct) > _TICKS_AT_VALUES or not round_ones:
        return log_ticks(values)
    return _ticks(distinct)


def _even(low: float, high: float) -> list[float]:
    """Return round numbers at even distances that cover a range of positive numbers."""
    rough = (high - low or high) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    distance = next(power * digit for digit in (1, 2, 5, 10) if power * digit >= rough)
    first, last = math.floor(low / distance), math.ceil(high / distance)
    return [float(f"{k * distance:.6g}") for k in range(max(first, 1), last + 1)]


def _ticks(values: Sequence[float]) -> dict[str, Any]:
    texts = [_tick_text(value) for value in values]
    return {"tickmode": "array", "tickvals": list(values), "ticktext": texts}


def _tick_text(value: float) -> str:
    if 1e-3 <= value < 1e5:
        return f"{value:,.10g}"
    digit, exponent = f"{value:.0e}".split("e")
    return f"{'' if digit == '1' else digit + '·'}10<sup>{int(exponent)}</sup>"


def _label(text: str, height: float) -> dict[str, Any]:
    return {
        "text": text,
        "x": 1,
        "xref": "paper",
        "xanchor": "right",
        "y": height,
        "yanchor": "bottom",
        "showarrow": False,
        "font": {"color": palette.INK, "size": 11},
        "bgcolor": palette.faded(palette.PAPER, 0.8),
    }
