"""Put the trace rows of all chips on one simulated clock.

Workers price the rows of their chips with starts relative to their segment. All chips begin a
segment of a step at the same time; here the segments get that time, and the static power of a chip
is spread over its rows. Rows of a chip that stands for others are then repeated for these.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from repast_dist.farm.records import ChipCosts
from repast_dist.planning.timeline import agree


def align(
    costs: Sequence[ChipCosts], first: int, clock_s: float
) -> tuple[pa.RecordBatch, list[float]]:
    """Give the rows of some steps their absolute simulated times.

    Parameters
    ----------
    costs : sequence of ChipCosts
        The shares of all workers in the steps.
    first : int
        The first of the steps.
    clock_s : float
        Simulated time at which it starts.

    Returns
    -------
    RecordBatch, list of float
        Rows with absolute starts and full energy, step by step, and chip by chip within a step; the
        time at which each step ends.
    """
    agreed = agree(
        np.concatenate([cost.seconds for cost in costs], axis=1),
        np.concatenate([cost.hidden_s for cost in costs], axis=1),
        np.concatenate([cost.behind_s for cost in costs], axis=1),
        costs[0].stale,
        np.concatenate([cost.flow_s for cost in costs], axis=1),
        np.concatenate([cost.reached_s for cost in costs], axis=1),
    )
    starts, ends = [], []
    for number in range(len(agreed.added_s)):
        starts.append(agreed.step(number).begins(clock_s))
        clock_s = float(starts[-1][-1])
        ends.append(clock_s)
    lengths = agreed.added_s.sum(axis=1)
    placed = [_placed(cost, first, np.stack(starts), lengths) for cost in costs]
    return _of_all_chips(costs, placed), ends


def _placed(cost: ChipCosts, first: int, starts: np.ndarray, step_s: np.ndarray) -> pa.RecordBatch:
    """Return the rows of a worker in time; `starts` (steps, segments + 1), `step_s` (steps,)."""
    rows = cost.rows
    which = rows["step"].to_numpy() - first
    duration = rows["duration_s"].to_numpy()
    # Of every step, chip by chip.
    turn = np.repeat(np.arange(cost.counts.size), cost.counts.ravel())
    busy_s = np.bincount(turn, duration, minlength=cost.counts.size)[turn]
    share = np.divide(duration, busy_s, out=np.zeros(len(duration)), where=busy_s > 0)
    static = cost.static_w * step_s[which] * share
    rows = _with(rows, "static_j", static)
    rows = _with(rows, "energy_j", rows["energy_j"].to_numpy() + static)
    return _with(rows, "start_s", rows["start_s"].to_numpy() + starts[which, cost.segment])


def _of_all_chips(costs: Sequence[ChipCosts], placed: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Return the rows of all chips, also of those that others stand for."""
    whole = pa.Table.from_batches(placed).unify_dictionaries().combine_chunks().to_batches()[0]
    kinds = np.cumsum([0, *(cost.counts.shape[1] for cost in costs)])
    chips = np.concatenate([cost.chips for cost in costs])
    order = np.argsort(chips)
    kind = np.concatenate([first + cost.like for cost, first in zip(costs, kinds, strict=False)])
    chips, kind = chips[order], kind[order]
    counts = np.concatenate([cost.counts for cost in costs], axis=1)
    # Rows lie worker by worker, and step by step within a worker.
    begins = np.concatenate([_begins(cost.counts) for cost in costs], axis=1)
    begins += np.repeat(
        np.cumsum([0, *(cost.rows.num_rows for cost in costs[:-1])]), np.diff(kinds)
    )
    wanted, begin = counts[:, kind].ravel(), begins[:, kind].ravel()
    numbers = np.arange(wanted.sum()) + np.repeat(begin - _before(wanted), wanted)
    rows = whole.take(pa.array(numbers))
    return _with(rows, "chip", np.repeat(np.tile(chips, len(counts)), wanted).astype(np.int32))


def _begins(counts: np.ndarray) -> np.ndarray:
    """Return the number of the first row of every step and chip, (steps, chips)."""
    return _before(counts.ravel()).reshape(counts.shape)


def _before(counts: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.cumsum(counts) - counts
    return found


def _with(rows: pa.RecordBatch, name: str, values: np.ndarray) -> pa.RecordBatch:
    place = rows.schema.get_field_index(name)
    return rows.set_column(place, rows.schema.field(place), pa.array(values))
