"""Price what the chips of a worker did in its steps, in rows, seconds and joules.

A worker knows the rows of its own chips and how long they need for each segment of a step; `clock`
puts the segments of all chips on one clock. Chips that run no micro-batch and hold no block or
matrix all do the same, so one of them is priced and stands for all.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from repast_dist.analog import SolveCounts
from repast_dist.farm.records import ChipCosts
from repast_dist.ops import OP_NAMES, OpTable, concatenate, trace_columns
from repast_dist.planning.block_ops import block_rows
from repast_dist.planning.matrix_ops import matrix_owners, matrix_rows
from repast_dist.planning.ops import outer_rows
from repast_dist.planning.plan import Plan
from repast_dist.planning.solves import counted
from repast_dist.planning.timeline import place
from repast_dist.trace import trace_batch
from repast_dist.training.optimizers.matrix_unit import Due, MatrixWork


@dataclasses.dataclass(frozen=True)
class _Priced:
    """Rows of a step with their prices and their segments, of chips that others are like.

    Attributes
    ----------
    columns : dict
        Trace column -> (rows,) array; ``chip`` is the number in the plan.
    segment : ndarray
        (rows,) segment of each.
    seconds : ndarray
        (chips, segments) what each chip needs for each; 0 where it has no rows.
    hidden_s : ndarray
        (chips,) how long before it has computed a chip can begin to exchange gradients.
    behind_s : ndarray
        (chips, segments) what it does beside the next steps.
    stale : int
        Steps that this may take.
    flow_s : ndarray
        (chips,) how long samples keep the slowest stage busy.
    reached_s : ndarray
        (chips, delays) when samples reach the first layer of each delay.
    """

    columns: dict[str, np.ndarray]
    segment: np.ndarray
    seconds: np.ndarray
    hidden_s: np.ndarray
    behind_s: np.ndarray
    stale: int
    flow_s: np.ndarray
    reached_s: np.ndarray


class CostRecorder:
    """Prices the steps of some chips.

    Parameters
    ----------
    chips : sequence of int
        The chips, ascending.
    plan : Plan
        Who does what.
    places : sequence of int
        The chips' numbers in the plan.
    """

    def __init__(self, chips: Sequence[int], plan: Plan, places: Sequence[int]) -> None:
        self._chips, self._plan = np.asarray(chips, np.int64), plan
        place_of = np.asarray(places, np.int64)
        kinds, self._like = alike(plan, place_of)
        self._number_of, self._places = self._chips[kinds], place_of[kinds]
        # The pace of a sample is that of all chips that it passes.
        stages = plan.allocation.stages
        pipelines = np.unique(self._places // stages)
        passed = np.add.outer(pipelines * stages, np.arange(stages)).ravel()
        self._passed = passed[passed < plan.work.chips].tolist()
        self._held = {
            pair: number
            for number, pair in enumerate(
                zip(plan.holdings.chip.tolist(), plan.holdings.block.tolist(), strict=True)
            )
        }
        self._plan_place = dict(zip(self._chips.tolist(), place_of.tolist(), strict=True))
        self._outer: dict[tuple[bool, bool, bool, bool], tuple[_Priced, _Priced]] = {}
        self._steps: list[tuple[int, list[_Priced]]] = []

    def price(
        self,
        step: int,
        factors_due: bool,
        inverses_due: bool,
        solves: Mapping[tuple[int, int], SolveCounts],
        works: Mapping[str, MatrixWork] | None = None,
        calibrated: bool = False,
    ) -> None:
        """Price a step from the counts of what the arrays of the chips' blocks really did, and from
        the work on their matrices.

        Parameters
        ----------
        step : int
            Its number.
        factors_due, inverses_due : bool
            Whether it updated the running averages, and whether it programmed the blocks.
        solves : mapping
            (chip, block) -> counts of programming and solving.
        works : mapping, optional
            Layer -> what was done with its matrix; None: what its shape says.
        calibrated : bool
            Whether it ran its first micro-batch twice, for ADC ranges.
        """
        # Nothing is there that the first step could go on with.
        waits = step == 0
        repeats = self._plan.work.repeats_samples(step)
        kind = factors_due, calibrated, waits, repeats
        if kind not in self._outer:
            # The same in every such step; no segment holds rows of these and of blocks.
            plan = self._plan.calibrating if calibrated else self._plan
            first, last = outer_rows(plan, self._passed, factors_due, repeats=repeats)
            self._outer[kind] = self._priced(first, plan, waits), self._priced(last, plan, waits)
        before, after = self._outer[kind]
        found = {
            self._held[self._plan_place[chip], block]: counts
            for (chip, block), counts in solves.items()
        }
        blocks = block_rows(
            self._plan,
            self._places,
            factors_due,
            inverses_due=inverses_due,
            measured=counted(found, len(self._plan.holdings)),
        )
        soi = self._plan.policy.soi
        due = Due(soi.factors_due(step), soi.inverses_due(step))
        matrices = matrix_rows(self._plan, self._places, due, works, ranging=calibrated)
        between = concatenate([blocks, matrices])
        self._steps.append((step, [before, self._priced(between, self._plan, waits), after]))

    def take(self) -> ChipCosts:
        """Return the steps added since the last call."""
        parts = [part for _, step in self._steps for part in step]
        columns = {
            name: np.concatenate([part.columns[name] for part in parts])
            for name in parts[0].columns
        }
        sizes = [sum(len(part.segment) for part in step) for _, step in self._steps]
        turn = np.repeat(np.arange(len(sizes)), sizes)
        kind = np.searchsorted(self._places, columns["chip"])
        place = turn * len(self._places) + kind
        # Rows are in the order of execution on each chip.
        order = np.argsort(place, kind="stable")
        columns["step"] = np.array([step for step, _ in self._steps])[turn]
        columns["chip"] = self._number_of[kind]
        rows = np.bincount(place, minlength=len(sizes) * len(self._places))
        costs = ChipCosts(
            chips=self._chips,
            like=self._like,
            rows=trace_batch({name: held[order] for name, held in columns.items()}, OP_NAMES),
            counts=rows.reshape(len(sizes), -1),
            segment=np.concatenate([part.segment for part in parts])[order],
            seconds=self._sums("seconds"),
            hidden_s=self._sums("hidden_s"),
            behind_s=self._sums("behind_s"),
            stale=np.array([step[0].stale for _, step in self._steps]),
            # All of that is in the rows of the layers, which come first.
            flow_s=np.stack([step[0].flow_s for _, step in self._steps]),
            reached_s=np.stack([step[0].reached_s for _, step in self._steps]),
            static_w=self._plan.hardware.costs.static_w,
        )
        self.clear()
        return costs

    def clear(self) -> None:
        """Forget the steps added since the last `take`."""
        self._steps = []

    def _sums(self, name: str) -> np.ndarray:
        """Return the sums of an attribute over the parts of each step, (steps, chips, ...)."""
        found: list[Any] = [sum(getattr(part, name) for part in step) for _, step in self._steps]
        return np.stack(found)

    def _priced(self, table: OpTable, plan: Plan, waits: bool) -> _Priced:
        costs = plan.price(table)
        placed = place(plan, table, costs.duration_s, waits=waits)
        mine = np.flatnonzero(np.isin(table["chip"], self._places))
        columns = trace_columns(
            table.where(mine),
            {
                "start_s": placed.start_s[mine],
                "duration_s": costs.duration_s[mine],
                "energy_j": costs.energy_j[mine],
            },
        )
        return _Priced(
            columns,
            placed.segment[mine],
            placed.chip_seconds[self._places],
            placed.hidden_s[self._places],
            placed.behind_s[self._places],
            placed.stale,
            placed.flow_s[self._places],
            placed.reached_s[self._places],
        )


def alike(plan: Plan, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find chips that do the same in every step: those that run no micro-batch and hold no
    block or matrix are alike if they hold the same layers and are equally fast.

    Parameters
    ----------
    plan : Plan
        Who does what.
    places : ndarray
        (chips,) int64, ascending numbers of the chips in the plan.

    Returns
    -------
    ndarray, ndarray
        Indices into `places` of the first chip of each kind, ascending; and the kind of every chip,
        (chips,).
    """
    stages = plan.allocation.stages
    running = np.asarray(plan.micro_batch_owner, np.int64) // stages
    owning = np.union1d(plan.holdings.chip, matrix_owners(plan))
    busy = np.isin(places // stages, running) | np.isin(places, owning)
    speed = plan.chip_speeds[places]
    own = np.where(busy, places, -1)
    key = np.stack([own, np.where(busy, 0, places % stages), np.where(busy, 0.0, speed)], axis=1)
    _, first, kind = np.unique(key, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return first[order], rank[kind.reshape(-1)]
