"""What one chip did in its steps, in rows, seconds and joules.

A chip knows its own rows and how long each segment of a step takes it; `alignment` puts the
segments of all chips on one clock.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from repast_dist.analog import SolveCounts
from repast_dist.farm.job import HostSetup
from repast_dist.farm.specs import chip_speed
from repast_dist.hardware.optable import OPS, trace_columns
from repast_dist.hardware.pricing import price
from repast_dist.mapping.ops import step_ops
from repast_dist.mapping.timeline import place
from repast_dist.trace import trace_batch


@dataclasses.dataclass(frozen=True)
class ChipCost:
    """One chip's share of some steps.

    Attributes
    ----------
    rows : pyarrow.RecordBatch
        Trace rows, step by step; starts count from the start of the row's segment.
    segment : ndarray
        (rows,) int64, the row's segment of its step.
    seconds : ndarray
        (steps, segments) what the chip needs for each.
    static_w : float
        Power the chip draws whatever it does.
    """

    rows: pa.RecordBatch
    segment: np.ndarray
    seconds: np.ndarray
    static_w: float


class ChipLedger:
    """Prices the steps of one chip.

    Parameters
    ----------
    chip : int
        The chip.
    setup : HostSetup
        Plan and settings.
    """

    def __init__(self, chip: int, setup: HostSetup) -> None:
        self._chip, self._plan = chip, setup.plan
        self._place = setup.chips.index(chip)
        self._speed = chip_speed(setup.job.farm, chip)
        self._columns: list[dict[str, np.ndarray]] = []
        self._segments: list[np.ndarray] = []
        self._seconds: list[np.ndarray] = []

    def price(
        self,
        step: int,
        factors_due: bool,
        inverses_due: bool,
        solves: Mapping[int, SolveCounts],
    ) -> None:
        """Add a step, from what the chip's blocks' arrays really did."""
        table = step_ops(
            self._plan,
            self._place,
            step,
            factors_due=factors_due,
            inverses_due=inverses_due,
            solves=solves,
        )
        costs = price(table, self._plan.chip, self._plan.components)
        duration_s = costs.duration_s / self._speed
        placed = place(self._plan, table, duration_s)
        columns = trace_columns(
            table,
            {"start_s": placed.start_s, "duration_s": duration_s, "energy_j": costs.energy_j},
        )
        columns["chip"] = np.full(len(table), self._chip, np.int32)
        self._columns.append(columns)
        self._segments.append(placed.segment)
        self._seconds.append(placed.chip_seconds[self._place])

    def take(self) -> ChipCost:
        """Return the steps added since the last call."""
        columns = {
            name: np.concatenate([part[name] for part in self._columns])
            for name in self._columns[0]
        }
        cost = ChipCost(
            rows=trace_batch(columns, OPS),
            segment=np.concatenate(self._segments),
            seconds=np.stack(self._seconds),
            static_w=self._plan.costs.static_w,
        )
        self.clear()
        return cost

    def clear(self) -> None:
        """Forget the steps added since the last `take`."""
        self._columns, self._segments, self._seconds = [], [], []
