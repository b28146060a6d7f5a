"""One clock for all chips: a segment of a step starts when every chip has finished the one before.

Chips price their rows with starts relative to their segment; here the segments get their place in
simulated time, and the power a chip draws whatever it does is spread over its rows.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from repast_dist.farm.ledger import ChipCost


def align(chips: Mapping[int, ChipCost], clock_s: float) -> tuple[list[pa.RecordBatch], float]:
    """Place one step's rows in time.

    Parameters
    ----------
    chips : mapping
        Chip -> its share of the step.
    clock_s : float
        Simulated time at which the step starts.

    Returns
    -------
    list of RecordBatch, float
        Rows with absolute starts and full energy, in chip order; the time at which the step ends.
    """
    seconds = np.max([cost.seconds for cost in chips.values()], axis=0)
    starts = clock_s + np.concatenate([[0.0], np.cumsum(seconds)])
    total_s = float(seconds.sum())
    batches = [_placed(cost, starts, total_s) for _, cost in sorted(chips.items())]
    return batches, float(starts[-1])


def _placed(cost: ChipCost, starts: np.ndarray, step_s: float) -> pa.RecordBatch:
    rows = cost.rows
    duration = rows["duration_s"].to_numpy()
    busy_s = float(duration.sum())
    share = duration / busy_s if busy_s > 0 else np.zeros(len(duration))
    static = cost.static_w * step_s * share
    rows = _with(rows, "static_j", static)
    rows = _with(rows, "energy_j", rows["energy_j"].to_numpy() + static)
    return _with(rows, "start_s", rows["start_s"].to_numpy() + starts[cost.segment])


def _with(rows: pa.RecordBatch, name: str, values: np.ndarray) -> pa.RecordBatch:
    place = rows.schema.get_field_index(name)
    return rows.set_column(place, rows.schema.field(place), pa.array(values))
