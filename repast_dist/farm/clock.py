"""One clock for all chips: a segment of a step starts when every chip has finished the one before.

Chips price their rows with starts relative to their segment; here the segments get their place in
simulated time, and the power a chip draws whatever it does is spread over its rows.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from repast_dist.farm.records import ChipCost


def align(
    chips: Mapping[int, ChipCost], first: int, clock_s: float
) -> tuple[list[pa.RecordBatch], list[float]]:
    """Place the rows of some steps in time.

    Parameters
    ----------
    chips : mapping
        Chip -> its share of the steps.
    first : int
        The first of the steps.
    clock_s : float
        Simulated time at which it starts.

    Returns
    -------
    list of RecordBatch, list of float
        Rows with absolute starts and full energy, in chip order; the time at which each step ends.
    """
    seconds = np.max([cost.seconds for cost in chips.values()], axis=0)
    starts, ends = [], []
    for segments in seconds:
        starts.append(clock_s + np.concatenate([[0.0], np.cumsum(segments)]))
        clock_s = float(starts[-1][-1])
        ends.append(clock_s)
    lengths = seconds.sum(axis=1)
    batches = [_placed(cost, first, np.stack(starts), lengths) for _, cost in sorted(chips.items())]
    return batches, ends


def _placed(cost: ChipCost, first: int, starts: np.ndarray, step_s: np.ndarray) -> pa.RecordBatch:
    """Return a chip's rows in time; `starts` (steps, segments + 1), `step_s` (steps,)."""
    rows = cost.rows
    which = rows["step"].to_numpy() - first
    duration = rows["duration_s"].to_numpy()
    busy_s = np.bincount(which, duration, minlength=len(step_s))[which]
    share = np.divide(duration, busy_s, out=np.zeros(len(duration)), where=busy_s > 0)
    static = cost.static_w * step_s[which] * share
    rows = _with(rows, "static_j", static)
    rows = _with(rows, "energy_j", rows["energy_j"].to_numpy() + static)
    return _with(rows, "start_s", rows["start_s"].to_numpy() + starts[which, cost.segment])


def _with(rows: pa.RecordBatch, name: str, values: np.ndarray) -> pa.RecordBatch:
    place = rows.schema.get_field_index(name)
    return rows.set_column(place, rows.schema.field(place), pa.array(values))
