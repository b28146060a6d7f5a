"""What one chip did in a step, in rows, seconds and joules.

A step has segments that all chips enter together: what comes after an exchange cannot start
before the exchange has ended everywhere. A chip knows its own rows and how long each of its
segments takes; `alignment` puts the segments of all chips on one clock.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from repast_dist.analog import SolveCounts
from repast_dist.farm.job import HostSetup
from repast_dist.hardware.optable import OP, OPS, OpTable, trace_columns
from repast_dist.hardware.pricing import price
from repast_dist.mapping.ops import step_ops
from repast_dist.trace import trace_batch

SEGMENTS = (
    (
        "reload_weights", "write_operand", "vmm_forward", "elementwise_forward",
        "write_activations", "vmm_backward", "elementwise_backward", "vmm_gradient", "factor_a",
        "write_errors", "factor_g", "send_activations", "send_errors",
    ),
    ("reduce_gradients", "reduce_factors"),
    ("average_factor", "program_block", "solve_g"),
    ("exchange_gradients",),
    ("solve_a", "clip"),
    ("reduce_scalar", "gather_updates"),
    ("update", "write_weights"),
)  # fmt: skip
"""Operations of each segment; exchanges have segments of their own."""

_SIDE_BY_SIDE = ("average_factor", "program_block", "solve_g", "solve_a", "write_weights")
"""Operations of different banks that do not wait for each other; all others follow in turn."""


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
        override = setup.job.farm.chip_overrides.get(str(chip))
        self._speed = override.speed if override else 1.0
        self._segment_of = np.zeros(len(OPS), np.int64)
        for number, names in enumerate(SEGMENTS):
            self._segment_of[[OP[name] for name in names]] = number

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
        table = self._in_order(table)
        costs = price(table, self._plan.chip, self._plan.components)
        duration = costs.duration_s / self._speed
        segment = self._segment_of[table["op"]]
        start, seconds = _place_in_segments(table, segment, duration)
        placed = {"start_s": start, "duration_s": duration, "energy_j": costs.energy_j}
        columns = trace_columns(table, placed)
        columns["chip"] = np.full(len(table), self._chip, np.int32)
        rows = trace_batch(columns, OPS)
        return ChipCost(rows, segment, seconds, self._plan.costs.static_w)

    def _in_order(self, table: OpTable) -> OpTable:
        """Put rows in order of execution: segment, micro-batch, operation as listed, layer."""
        segment = self._segment_of[table["op"]]
        listed = {OP[name]: place for names in SEGMENTS for place, name in enumerate(names)}
        turn = np.array([listed[op] for op in range(len(OPS))])[table["op"]]
        backward = np.isin(table["op"], [OP["vmm_backward"], OP["vmm_gradient"]])
        layer = np.where(backward, -table["layer"], table["layer"])
        return table.where(np.lexsort((layer, turn, table["micro_batch"], segment)))


def _place_in_segments(
    table: OpTable, segment: np.ndarray, duration: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return starts within segments and seconds per segment.

    Rows follow each other; those in `_SIDE_BY_SIDE` only follow rows of their own bank.
    """
    start = np.zeros(len(table))
    seconds = np.zeros(len(SEGMENTS))
    parallel = np.isin(table["op"], [OP[name] for name in _SIDE_BY_SIDE])
    for number in range(len(SEGMENTS)):
        inside = segment == number
        free: dict[int, float] = {}
        for bank in np.unique(table["bank"][inside & parallel]):
            rows = np.flatnonzero(inside & parallel & (table["bank"] == bank))
            start[rows] = np.cumsum(duration[rows]) - duration[rows]
            free[int(bank)] = float(duration[rows].sum())
        end = max(free.values(), default=0.0)
        rows = np.flatnonzero(inside & ~parallel)
        start[rows] = end + np.cumsum(duration[rows]) - duration[rows]
        seconds[number] = end + float(duration[rows].sum())
    return start, seconds
