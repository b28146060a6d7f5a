"""One clock for all chips: a segment of a step starts when every chip has finished the one before.

Chips price their rows with starts relative to their segment; here the segments get their place in
simulated time.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

ChipCost = tuple[pa.RecordBatch, np.ndarray, np.ndarray]
"""Trace rows, segment of each row (rows,), seconds the chip needs per segment (segments,)."""


def align(chips: Mapping[int, ChipCost], clock_s: float) -> tuple[list[pa.RecordBatch], float]:
    """Place one step's rows in time.

    Parameters
    ----------
    chips : mapping
        Chip -> its rows, their segments and its seconds per segment.
    clock_s : float
        Simulated time at which the step starts.

    Returns
    -------
    list of RecordBatch, float
        Rows with absolute starts, in chip order; the time at which the step ends.
    """
    seconds = np.max([item[2] for item in chips.values()], axis=0)
    starts = clock_s + np.concatenate([[0.0], np.cumsum(seconds)])
    batches = [_shifted(rows, starts[segments]) for _, (rows, segments, _) in sorted(chips.items())]
    return batches, float(starts[-1])


def _shifted(rows: pa.RecordBatch, offsets: np.ndarray) -> pa.RecordBatch:
    place = rows.schema.get_field_index("start_s")
    starts = rows.column(place).to_numpy(zero_copy_only=False) + offsets
    return rows.set_column(place, rows.schema.field(place), pa.array(starts))
