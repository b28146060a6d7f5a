"""One table of several runs: the settings that differ and the key figures."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from repast_dist.studies.output import Figures


def run_table(
    differing: Sequence[Mapping[str, Any]], figures: Sequence[Figures], names: Sequence[str]
) -> pa.Table:
    """Return one row per run.

    Parameters
    ----------
    differing : sequence of mapping
        Per run: dotted path -> value of the settings that differ.
    figures : sequence of dict
        Key figures of each run.
    names : sequence of str
        What the runs are called, in the last column.
    """
    columns: dict[str, list[Any]] = {}
    units: dict[str, str] = {}
    for name in differing[0]:
        columns[name] = _column([item[name] for item in differing])
    for name in dict.fromkeys(name for item in figures for name in item):
        columns[name] = [item.get(name, (None, ""))[0] for item in figures]
        units[name] = next(item[name][1] for item in figures if name in item)
    columns["run"] = list(names)
    plain = pa.table(columns)
    fields = [
        field.with_metadata({"unit": units[field.name]}) if field.name in units else field
        for field in plain.schema
    ]
    return plain.cast(pa.schema(fields))


def telling(table: pa.Table) -> pa.Table:
    """Return a table without the figures that are the same in all of several runs."""
    if table.num_rows < 2:
        return table
    differ = [name for name in table.column_names if len(set(table[name].to_pylist())) > 1]
    return table.select(differ)


def _column(values: list[Any]) -> list[Any]:
    """Keep numbers as they are; anything else is shown as text."""
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    return values if numbers else ["" if value is None else str(value) for value in values]
