"""Put the trace rows of all chips on one simulated clock.

Chips price their rows with starts relative to their segment. All chips begin a segment of a step
at the same time; here the segments get that time, and the static power of a chip is spread over
its rows.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from repast_dist.farm.records import ChipCost
from repast_dist.planning.timeline import agree


def align(
    chips: Mapping[int, ChipCost], first: int, clock_s: float
) -> tuple[list[pa.RecordBatch], list[float]]:
    """Give the rows of some steps their absolute simulated times.

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
    agreed = agree(
        np.stack([cost.seconds for cost in chips.values()], axis=1),
        np.stack([cost.hidden_s for cost in chips.values()], axis=1),
        np.stack([cost.behind_s for cost in chips.values()], axis=1),
        next(iter(chips.values())).stale,
        np.stack([cost.flow_s for cost in chips.values()], axis=1),
        np.stack([cost.reached_s for cost in chips.values()], axis=1),
    )
    starts, ends = [], []
    for number in range(len(agreed.added_s)):
        starts.append(agreed.step(number).begins(clock_s))
        clock_s = float(starts[-1][-1])
        ends.append(clock_s)
    lengths = agreed.added_s.sum(axis=1)
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
