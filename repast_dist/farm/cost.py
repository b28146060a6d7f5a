"""Price what one chip did in its steps, in rows, seconds and joules.

A chip knows its own rows and how long it needs for each segment of a step; `clock` puts the
segments of all chips on one clock.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from repast_dist.analog import SolveCounts
from repast_dist.farm.records import ChipCost
from repast_dist.ops import OP_NAMES, OpTable, concatenate, price, trace_columns
from repast_dist.planning.block_ops import block_rows
from repast_dist.planning.matrix_ops import matrix_rows
from repast_dist.planning.ops import outer_rows
from repast_dist.planning.plan import Plan
from repast_dist.planning.timeline import place
from repast_dist.trace import trace_batch
from repast_dist.training.optimizers.matrix_unit import Due, MatrixWork


@dataclasses.dataclass(frozen=True)
class _Priced:
    """The rows of a step with their prices and their segments.

    Attributes
    ----------
    columns : dict
        Trace column -> (rows,) array.
    segment : ndarray
        (rows,) segment of each.
    seconds : ndarray
        (segments,) what the chip needs for each; 0 where it has no rows.
    hidden_s : float
        How long before it has computed the chip can begin to exchange gradients.
    behind_s : ndarray
        (segments,) what it does beside the next steps.
    stale : int
        Steps that this may take.
    flow_s : float
        How long samples keep the slowest stage busy.
    reached_s : ndarray
        (delays,) when samples reach the first layer of each delay.
    """

    columns: dict[str, np.ndarray]
    segment: np.ndarray
    seconds: np.ndarray
    hidden_s: float
    behind_s: np.ndarray
    stale: int
    flow_s: float
    reached_s: np.ndarray


class CostRecorder:
    """Prices the steps of one chip.

    Parameters
    ----------
    chip : int
        The chip.
    plan : Plan
        Who does what.
    place : int
        The chip's number in the plan.
    """

    def __init__(self, chip: int, plan: Plan, place: int) -> None:
        self._chip, self._plan, self._place = chip, plan, place
        # The pace of a sample is that of all chips that it passes.
        stages = plan.allocation.stages
        first = place // stages * stages
        self._pipeline = list(range(first, first + stages))
        self._outer: dict[tuple[bool, bool, bool], tuple[_Priced, _Priced]] = {}
        self._steps: list[tuple[int, list[_Priced]]] = []

    def price(
        self,
        step: int,
        factors_due: bool,
        inverses_due: bool,
        solves: Mapping[int, SolveCounts],
        works: Mapping[str, MatrixWork] | None = None,
        calibrated: bool = False,
    ) -> None:
        """Price a step from the counts of what the arrays of the chip's blocks really did, and from
        the work on its matrices.

        A step in which ranges were `calibrated` ran its first micro-batch twice.
        """
        # Nothing is there that the first step could go on with.
        waits = step == 0
        kind = factors_due, calibrated, waits
        if kind not in self._outer:
            # The same in every such step; no segment holds rows of these and of blocks.
            plan = self._plan.calibrating if calibrated else self._plan
            first, last = outer_rows(plan, self._pipeline, factors_due)
            self._outer[kind] = self._priced(first, plan, waits), self._priced(last, plan, waits)
        before, after = self._outer[kind]
        blocks = block_rows(
            self._plan, self._place, factors_due, inverses_due=inverses_due, solves=solves
        )
        soi = self._plan.policy.soi
        due = Due(soi.factors_due(step), soi.inverses_due(step))
        matrices = matrix_rows(self._plan, self._place, due, works, ranging=calibrated)
        between = concatenate([blocks, matrices])
        self._steps.append((step, [before, self._priced(between, self._plan, waits), after]))

    def take(self) -> ChipCost:
        """Return the steps added since the last call."""
        parts = [part for _, step in self._steps for part in step]
        columns = {
            name: np.concatenate([part.columns[name] for part in parts])
            for name in parts[0].columns
        }
        counts = [sum(len(part.segment) for part in step) for _, step in self._steps]
        columns["step"] = np.repeat([step for step, _ in self._steps], counts)
        columns["chip"] = np.full(len(columns["step"]), self._chip)
        cost = ChipCost(
            rows=trace_batch(columns, OP_NAMES),
            segment=np.concatenate([part.segment for part in parts]),
            seconds=np.stack([sum(part.seconds for part in step) for _, step in self._steps]),
            hidden_s=np.array([sum(part.hidden_s for part in step) for _, step in self._steps]),
            behind_s=np.stack([sum(part.behind_s for part in step) for _, step in self._steps]),
            stale=np.array([step[0].stale for _, step in self._steps]),
            # All of that is in the rows of the layers, which come first.
            flow_s=np.array([step[0].flow_s for _, step in self._steps]),
            reached_s=np.stack([step[0].reached_s for _, step in self._steps]),
            static_w=self._plan.hardware.costs.static_w,
        )
        self.clear()
        return cost

    def clear(self) -> None:
        """Forget the steps added since the last `take`."""
        self._steps = []

    def _speed_of(self, chip: np.ndarray) -> np.ndarray:
        """Return the relative speed of the plan's chips."""
        speeds = self._plan.work.speeds
        return np.array(speeds)[chip] if speeds else np.ones(len(chip))

    def _priced(self, table: OpTable, plan: Plan, waits: bool) -> _Priced:
        costs = price(table, plan.hardware.costs)
        duration_s = costs.duration_s / self._speed_of(table["chip"])
        placed = place(plan, table, duration_s, waits=waits)
        mine = np.flatnonzero(table["chip"] == self._place)
        columns = trace_columns(
            table.where(mine),
            {
                "start_s": placed.start_s[mine],
                "duration_s": duration_s[mine],
                "energy_j": costs.energy_j[mine],
            },
        )
        return _Priced(
            columns,
            placed.segment[mine],
            placed.chip_seconds[self._place],
            float(placed.hidden_s[self._place]),
            placed.behind_s[self._place],
            placed.stale,
            float(placed.flow_s[self._place]),
            placed.reached_s[self._place],
        )
