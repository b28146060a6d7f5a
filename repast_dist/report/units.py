"""Numbers as people read them: SI prefixes, percentages, counts."""

import html
import math

_PREFIXES = ("f", "p", "n", "µ", "m", "", "k", "M", "G", "T", "P", "E")
_ZERO = _PREFIXES.index("")
_UNPREFIXED = {"", "1", "%", "epochs", "steps"}


def plain_text(text: str) -> str:
    """Return a text that Plotly shows as it is: it would take what stands between < and > for a
    tag, and shows ``&quot;`` as it stands.
    """
    return html.escape(text, quote=False)


def shortened(text: str, longest: int) -> str:
    """Return a text without its beginning where it is too long: names differ at their end."""
    return text if len(text) <= longest else f"…{text[1 - longest :]}"


def counted(count: int, thing: str, several: str = "") -> str:
    """Return how many there are of a thing: "1 chip", "1,024 chips", "2 micro-batches"."""
    return f"{count:,} {thing if count == 1 else several or thing + 's'}"


def si(value: float | None, unit: str, digits: int = 3) -> str:
    """Format with an SI prefix: ``si(1.234e-6, "s")`` is ``"1.23 µs"``.

    Parameters
    ----------
    value : float or None
        None and NaN give a dash.
    unit : str
        Unit after the prefix; unit "1" gets none. The prefix of a squared unit is squared, too:
        a square millimetre, "mm2", is 1e-6 m2.
    digits : int
        Significant digits.
    """
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    scale, shown = unit_scale(abs(value), unit)
    if unit.endswith("2"):
        return f"{number(value / scale, digits)} {shown}"
    if unit in _UNPREFIXED:
        return number(value, digits) + (f" {unit}" if unit not in ("", "1") else "")
    return f"{_significant(value / scale, digits)} {shown}"


def unit_scale(value: float, unit: str) -> tuple[float, str]:
    """Return what to divide values of this size by, and the unit with the prefix that they get.

    "s" may become "ms"; "1/s", "k/s", thousands per second; "m2", "mm2", which is 1e-6 m2.
    """
    if unit in _UNPREFIXED:
        return 1.0, unit
    if unit.endswith("2"):
        # Tens of thousands of a smaller unit read better than a part of a larger one.
        power = min(max(math.ceil(-math.log10(value) / 6), 0), 3) if value else 0
        return 1e-6**power, f"{_PREFIXES[_ZERO - power]}{unit}"
    scale, prefix = si_scale(value)
    return scale, f"{prefix}{unit.removeprefix('1')}"


def si_scale(value: float) -> tuple[float, str]:
    """Return the power of 1000 and its prefix that bring `value` to between 1 and 1000."""
    if value == 0 or not math.isfinite(value):
        return 1.0, ""
    # Rounding first: 999.96e-6 reads as 1.00 m, not as 1000 µ.
    exponent = math.floor(math.log10(float(f"{abs(value):.2e}")) / 3)
    exponent = min(max(exponent, -_ZERO), len(_PREFIXES) - 1 - _ZERO)
    return 1000.0**exponent, _PREFIXES[exponent + _ZERO]


def number(value: float | None, digits: int = 3) -> str:
    """Format a plain number: thousands grouped, tiny and huge ones with a power of ten."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, int) or (
        value == int(value) and abs(value) < 1e15 if math.isfinite(value) else False
    ):
        return f"{int(value):,}" if abs(value) < 1e15 else f"{value:.{digits - 1}e}"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if 1e-3 <= abs(value) < 1e6:
        return _significant(value, digits)
    return f"{value:.{digits - 1}e}"


def percent(value: float | None, digits: int = 1) -> str:
    """Format a fraction: ``percent(0.954)`` is ``"95.4 %"``."""
    if value is None or math.isnan(value):
        return "–"
    return f"{100 * value:.{digits}f} %"


def duration(seconds: float) -> str:
    """Format wall time: ``"48 s"``, ``"3 min 05 s"``, ``"2 h 10 min"``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def large(value: float) -> str:
    """Format a number that may be large: ``"318"``, ``"22.7 million"``, ``"1.25 billion"``."""
    for name, size in (("billion", 1e9), ("million", 1e6)):
        # Rounding first: 999.96 million is a billion.
        if float(f"{value:.2e}") >= size:
            return f"{_significant(value / size, 3)} {name}"
    return number(value)


def lifetime(seconds: float) -> str:
    """Format how long hardware lasts: ``"5.2 h"``, ``"6.75 days"``, ``"1.9 years"``."""
    for name, size in (("years", 365.25 * 86400.0), ("days", 86400.0), ("h", 3600.0)):
        if seconds >= size:
            return f"{_significant(seconds / size, 3)} {name}"
    return duration(seconds)


def _significant(value: float, digits: int) -> str:
    if value == 0:
        return "0"
    # The exponent after rounding: 0.9996 to three digits is 1.00.
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])
    decimals = max(digits - 1 - exponent, 0)
    return f"{value:,.{decimals}f}"
