"""What objects show in a notebook; all text is escaped."""

import html
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

_MOST_ROWS = 20


def facts_html(heading: str, facts: Mapping[str, Any], units: Mapping[str, str]) -> str:
    """Return a heading and a table of names, values and units."""
    rows = "".join(_row([name, value, _unit(units.get(name, ""))]) for name, value in facts.items())
    return f"<p>{html.escape(heading)}</p><table>{rows}</table>"


def table_html(table: pa.Table) -> str:
    """Return the first rows of an Arrow table, with units in the heading."""
    names = [f"{field.name} {_unit(unit_of(field))}".strip() for field in table.schema]
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    rows = "".join(_row(row.values()) for row in table.slice(0, _MOST_ROWS).to_pylist())
    left = table.num_rows - _MOST_ROWS
    more = f"<p>and {left:,} more rows</p>" if left > 0 else ""
    return f"<table><tr>{head}</tr>{rows}</table>{more}"


def unit_of(field: pa.Field) -> str:
    """Return the unit of a column, or nothing."""
    return (field.metadata or {}).get(b"unit", b"").decode()


def _row(values: Any) -> str:
    return "<tr>" + "".join(f"<td>{html.escape(_shown(value))}</td>" for value in values) + "</tr>"


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _unit(unit: str) -> str:
    return "" if unit == "1" else unit
