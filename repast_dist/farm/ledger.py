"""What one chip did in a step, in rows, seconds and joules.

A chip knows its own rows and how long each segment of the step takes it; `alignment` puts the
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
    """One chip's share of a step.

    Attributes
    ----------
    rows : pyarrow.RecordBatch
        Trace rows; starts count from the start of the row's segment.
    segment : ndarray
        (rows,) int64.
    seconds : ndarray
        (segments,) what the chip needs for each.
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

    def price(
        self,
        step: int,
        factors_due: bool,
        inverses_due: bool,
        solves: Mapping[int, SolveCounts],
    ) -> ChipCost:
        """Return the chip's rows of a step, given what its blocks' arrays really did."""
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
        return ChipCost(
            rows=trace_batch(columns, OPS),
            segment=placed.segment,
            seconds=placed.chip_seconds[self._place],
            static_w=self._plan.costs.static_w,
        )
