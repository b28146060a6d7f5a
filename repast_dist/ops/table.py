"""Holds the op table: what chips did, in counts that are not priced yet.

One row stands for one operation of one chip, for example the forward product of one layer over one
micro-batch. Numeric runs and cost-only runs build the same table from the same plan.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from repast_dist.ops.op import Op
from repast_dist.trace.schema import COUNTS, NONE

IDENTITY = ("chip", "bank", "step", "phase", "op", "layer", "block", "micro_batch")
"""Columns that identify the operation of a row, int32."""

SERIAL = (
    "serial_passes",
    "serial_residual_passes",
    "serial_inv_ops",
    "serial_settling_s",
    "serial_row_pulses",
    "serial_digital_ops",
    "serial_buffer_words",
)
"""Columns that decide a row's duration: what happens one after the other on the busiest array or
unit, int64; mean pulses to rows and seconds of settlings are float64. ``serial_buffer_words``
counts bus transfers of a tile."""

LINK = ("link_s", "link_j")
"""Time and energy on the interconnect, float64, from the formula of the collective."""

_DTYPES = (
    {name: np.int32 for name in IDENTITY}
    | {name: np.int64 for name in (*COUNTS, *SERIAL)}
    | {name: np.float64 for name in ("amplifier_s", "serial_settling_s", "serial_row_pulses")}
    | {name: np.float64 for name in LINK}
)


@dataclasses.dataclass(frozen=True)
class OpTable:
    """Operations as a table: one row each, stored as columns.

    Attributes
    ----------
    columns : dict
        Column name -> (n,) array. All identity columns are there; a count that no row has may
        be absent and is then 0.
    """

    columns: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.columns["op"])

    def __getitem__(self, name: str) -> np.ndarray:
        """Return a column; absent counts are zeros."""
        found = self.columns.get(name)
        return np.zeros(len(self), _DTYPES[name]) if found is None else found

    def of(self, op: Op) -> "OpTable":
        """Return the rows of one operation."""
        return self.where(self["op"] == op.number)

    def where(self, mask: np.ndarray) -> "OpTable":
        """Return the rows that a boolean mask or an index array selects."""
        return OpTable({name: column[mask] for name, column in self.columns.items()})


def op_rows(op: Op, **columns: Any) -> OpTable:
    """Make rows of one operation; scalars are repeated to the length of the arrays.

    Parameters
    ----------
    op : Op
        The operation.
    **columns
        Identity (default: -1, bank and step 0), counts, serial counts and link columns.
    """
    if unknown := columns.keys() - _DTYPES.keys():
        raise ValueError(f"not in the op table: {sorted(unknown)}; valid: {list(_DTYPES)}")
    identity = {"bank": 0, "step": 0, "layer": NONE, "block": NONE, "micro_batch": NONE}
    given = identity | columns | {"op": op.number, "phase": op.phase_number}
    filled = {name: np.asarray(value, _DTYPES[name]) for name, value in given.items()}
    rows = max((len(array) for array in filled.values() if array.ndim), default=1)
    return OpTable(
        {
            name: array if array.shape == (rows,) else np.full(rows, array)
            for name, array in filled.items()
        }
    )


def concatenate(tables: Iterable[OpTable]) -> OpTable:
    """Return one table with the rows of several, in order."""
    parts = [table for table in tables if len(table)]
    if not parts:
        return OpTable({name: np.zeros(0, _DTYPES[name]) for name in IDENTITY})
    present = set().union(*(part.columns for part in parts))
    sizes = [len(part) for part in parts]
    ends = list(itertools.accumulate(sizes))
    columns = {}
    for name, dtype in _DTYPES.items():
        if name in present:
            column = columns[name] = np.zeros(ends[-1], dtype)
            for part, size, end in zip(parts, sizes, ends, strict=True):
                found = part.columns.get(name)
                if found is not None:
                    column[end - size : end] = found
    return OpTable(columns)


def trace_columns(table: OpTable, costs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the columns of the cost trace.

    Parameters
    ----------
    table : OpTable
        Operations.
    costs : mapping
        ``start_s``, ``duration_s`` and ``energy_j`` of each row.
    """
    columns = {name: table[name] for name in (*IDENTITY, *COUNTS)}
    return columns | {name: costs[name] for name in ("start_s", "duration_s", "energy_j")}
