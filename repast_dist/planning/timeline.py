"""Places the rows of a step in time by their dependences.

A step is a sequence of segments. A segment starts when every chip has finished the previous one;
only gradients and factors may be exchanged earlier, with ``partition.overlap_exchange``, and blocks
may be renewed beside whatever else this step and the next ones do, with ``soi.stale``: what does
not end within so many steps, taken to be as long as this one, is waited for. Where layers compute
with older weights (`planning.delays`), the next step begins before this one has ended: once its
samples no longer meet those of this one, and so that no layer needs an update before it is there.
Weights of the next step are then written right before it.

In the first segment samples pass through the layers. Since all samples are equal, sample i leaves
stage s of a pipeline at ``sum of t up to s + i * largest t up to s`` (a flow shop of identical jobs
with unlimited buffers), so a formula gives the schedule; rows of a stage that need the same of its
resources follow each other. In the other segments the rows of a bank run one after the other, and
banks run at the same time.
"""

import dataclasses
from functools import cached_property

import numpy as np

from repast_dist.ops.op import OPS, REDUCE_FACTORS, Resource, Segment
from repast_dist.ops.table import OpTable
from repast_dist.planning.plan import Plan

_SEGMENT = np.array([op.segment.number for op in OPS])
_RESOURCE = np.array([int(op.resource) for op in OPS])
_IS_RENEWAL = np.array([op.renewal or op is REDUCE_FACTORS for op in OPS])
_IS_BACKWARD = np.array([op.backward for op in OPS])


@dataclasses.dataclass(frozen=True)
class Placement:
    """Start of each row in its segment, and the time that chips need.

    Attributes
    ----------
    segment : ndarray
        (rows,) number of each row's `Segment`.
    start_s : ndarray
        (rows,) start after the start of the segment.
    chip_seconds : ndarray
        (chips, segments) time that each of the plan's chips needs for each segment.
    hidden_s : ndarray
        (chips,) time by which a chip can begin to exchange gradients, and then factors, before it
        has finished computing.
    behind_s : ndarray
        (chips, segments) time of what is done beside the next steps.
    stale : int
        Steps that it may take.
    flow_s : ndarray
        (chips,) time for which the samples of a step keep the slowest stage of a chip's replica
        busy.
    reached_s : ndarray
        (chips, delays) time after which a chip's samples reach the first layer that computes with
        weights 0, 1, 2, ... steps older than the newest; infinite where there is none.
    """

    segment: np.ndarray
    start_s: np.ndarray
    chip_seconds: np.ndarray
    hidden_s: np.ndarray
    behind_s: np.ndarray
    stale: int
    flow_s: np.ndarray
    reached_s: np.ndarray

    @cached_property
    def clock(self) -> "Clock":
        """When the segments begin, for all chips."""
        return agree(
            self.chip_seconds,
            self.hidden_s,
            self.behind_s,
            self.stale,
            self.flow_s,
            self.reached_s,
        )

    @property
    def segment_seconds(self) -> np.ndarray:
        """Time that each segment adds to the step."""
        return self.clock.added_s

    @property
    def step_s(self) -> float:
        """Length of the step."""
        return float(self.segment_seconds.sum())

    def absolute_start_s(self) -> np.ndarray:
        """Return the start of every row after the start of the step."""
        starts: np.ndarray = self.clock.begins(0.0)[self.segment] + self.start_s
        return starts


@dataclasses.dataclass(frozen=True)
class Clock:
    """When the segments of a step begin, or those of each of several steps.

    Attributes
    ----------
    added_s : ndarray
        (..., segments) time that each segment adds to the step.
    early_s : ndarray
        (..., 2) time by which the exchange of gradients begins before the first segment ends, and
        that of factors.
    span_s : ndarray
        (..., segments) time from the beginning of each segment to that of the next; longer than
        what it adds where the next step begins before this one has ended.
    """

    added_s: np.ndarray
    early_s: np.ndarray
    span_s: np.ndarray

    def begins(self, step_s: float) -> np.ndarray:
        """Return the start of each segment, and that of the next step, (segments + 1,), for a step
        that starts at `step_s`.
        """
        begins = step_s + np.concatenate([[0.0], np.cumsum(self.span_s)])
        begins[[Segment.REDUCE_GRADIENTS.number, Segment.REDUCE_FACTORS.number]] -= self.early_s
        if self.added_s.sum() < self.span_s.sum():
            begins[-1] = step_s + self.added_s.sum()
            begins[-2] = begins[-1] - self.span_s[-1]
        return begins

    def step(self, number: int) -> "Clock":
        """Return the clock of one of several steps."""
        return Clock(self.added_s[number], self.early_s[number], self.span_s[number])


def agree(
    chip_seconds: np.ndarray,
    hidden_s: np.ndarray,
    behind_s: np.ndarray | None = None,
    stale: int | np.ndarray = 0,
    flow_s: np.ndarray | None = None,
    reached_s: np.ndarray | None = None,
) -> Clock:
    """Return the clock of a step: a segment ends when the slowest chip has finished it.

    The exchange of gradients, and of factors after it, may begin before the first segment ends, as
    soon as every chip has some to send and does not have to wait for later ones.

    Parameters
    ----------
    chip_seconds : ndarray
        (..., chips, segments) time that each chip needs for each segment.
    hidden_s : ndarray
        (..., chips) time by which a chip can begin to exchange before it has finished computing.
    behind_s : ndarray, optional
        (..., chips, segments) time of what is done beside the next steps, segment after segment.
    stale : int or ndarray
        Steps that it may take, (...).
    flow_s : ndarray, optional
        (..., chips) time for which the samples of a step keep the slowest stage busy.
    reached_s : ndarray, optional
        (..., chips, delays) time after which a chip's samples reach the first layer that computes
        with weights so many steps older than the newest; infinite where there is none.
    """
    added: np.ndarray = chip_seconds.max(axis=-2)
    computed = chip_seconds[..., Segment.COMPUTE.number]
    early = added[..., Segment.COMPUTE.number] - (computed - hidden_s).max(axis=-1)
    gradients = added[..., Segment.REDUCE_GRADIENTS.number].copy()
    of_factors = np.maximum(early - gradients, 0.0)
    added[..., Segment.REDUCE_GRADIENTS.number] -= early - of_factors
    added[..., Segment.REDUCE_FACTORS.number] -= of_factors
    early = np.stack([early, of_factors], axis=-1)
    period = _period(added, flow_s, reached_s)
    if behind_s is not None:
        late = behind_s.max(axis=-2).sum(axis=-1) - stale * period
        added[..., Segment.RENEW_AND_SOLVE_G.number] += np.maximum(late, 0.0)
        period = _period(added, flow_s, reached_s)
    if flow_s is None or not _in_flight(reached_s):
        return Clock(added, early, added)
    return Clock(_shared(added, flow_s.max(axis=-1), period), early, added)


_WRITES = [Segment.UPDATE.number, Segment.WRITE_WEIGHTS.number]
"""Segments in which converters are nulled and arrays of layers written: no sample passes."""


def _period(
    span_s: np.ndarray, flow_s: np.ndarray | None, reached_s: np.ndarray | None
) -> np.ndarray:
    """Return the time from one step to the next, (...), given the lengths of its segments.

    With weights d steps older than the newest, a layer that samples reach after r needs the update
    of a step that takes T in d + 1 steps from its beginning, and r: (d + 1) P >= T - r.
    """
    whole: np.ndarray = span_s.sum(axis=-1)
    if flow_s is None or reached_s is None or not _in_flight(reached_s):
        return whole
    reached = reached_s.min(axis=-2)
    needed = (whole[..., None] - reached) / np.arange(1, reached.shape[-1] + 1)
    passing = flow_s.max(axis=-1) + span_s[..., _WRITES].sum(axis=-1)
    updating = whole - span_s[..., Segment.COMPUTE.number]
    period: np.ndarray = np.maximum(np.maximum(passing, updating), needed.max(axis=-1))
    return period


def _in_flight(reached_s: np.ndarray | None) -> bool:
    """Whether a step may begin before the one before it has ended."""
    return reached_s is not None and reached_s.shape[-1] > 1


def _shared(span_s: np.ndarray, flow_s: np.ndarray, period_s: np.ndarray) -> np.ndarray:
    """Return what each segment adds to a step: samples that pass, and writing, count in full; what
    is left of the period is shared out in proportion to the length of everything else.
    """
    kept = np.zeros_like(span_s)
    kept[..., Segment.COMPUTE.number] = flow_s
    kept[..., _WRITES] = span_s[..., _WRITES]
    others = span_s - kept
    waited = period_s - kept.sum(axis=-1)
    total = others.sum(axis=-1)
    share = np.divide(waited, total, out=np.ones_like(total), where=total > 0)
    added: np.ndarray = kept + others * share[..., None]
    return added


def place(
    plan: Plan,
    table: OpTable,
    duration_s: np.ndarray,
    *,
    waits: bool = False,
    stands_for: np.ndarray | None = None,
) -> Placement:
    """Place the rows of one step.

    Parameters
    ----------
    plan : Plan
        The plan that the rows belong to.
    table : OpTable
        Rows of any of the plan's chips, as `step_ops` orders them.
    duration_s : ndarray
        (rows,) duration of each row.
    waits : bool
        Whether the step waits for its new inverses, as there are no old ones.
    stands_for : ndarray, optional
        (rows,) micro-batches that each row of the first segment stands for, if the table has the
        rows of one of each replica alone; None: one.
    """
    segment = _SEGMENT[table["op"]]
    start = np.zeros(len(table))
    seconds, behind_s = np.zeros((2, plan.work.chips, len(Segment)))
    drain, flow_s = np.zeros((2, plan.work.chips))
    reached_s = np.full((plan.work.chips, int(plan.delays.max()) + 1), np.inf)
    computing = np.flatnonzero(segment == Segment.COMPUTE.number)
    if len(computing):
        part = table.where(computing)
        spent = duration_s[computing]
        if stands_for is not None:
            spent = spent * stands_for[computing]
        flow, replica = _flow(plan, part, spent), _replica(plan, part)
        start[computing] = flow.start_s
        np.maximum.at(seconds[:, Segment.COMPUTE.number], part["chip"], flow.ends_s[replica])
        drain[part["chip"]] = flow.drain_s[replica]
        flow_s[part["chip"]] = flow.busy_s[replica]
        reached_s[part["chip"]] = flow.reached_s[replica]
    stale = 0 if waits else plan.policy.soi.stale
    beside = np.zeros(len(table), bool)
    if stale:
        # Blocks that take turns are written in every step, which cannot be put off.
        beside = _IS_RENEWAL[table["op"]] & (_turn(plan, table) == 0)
    for rows, filled in (
        ((segment != Segment.COMPUTE.number) & ~beside, seconds),
        (beside, behind_s),
    ):
        place = np.flatnonzero(rows)
        if len(place):
            part = table.where(place)
            turn = _turn(plan, part)
            start[place] = _queue(part, segment[place], turn, duration_s[place], filled)
    hidden_s = _hidden(plan, drain, seconds)
    return Placement(segment, start, seconds, hidden_s, behind_s, stale, flow_s, reached_s)


def sample_seconds(plan: Plan, table: OpTable, duration_s: np.ndarray) -> np.ndarray:
    """Return the time that one sample takes in every pipeline stage of every replica.

    Returns
    -------
    ndarray
        (replicas, 2 layers): forward stages, then backward stages, last layer first. A stage
        takes as long as its busiest resource.
    """
    stages, replicas = 2 * len(plan.layers), plan.replicas
    stage, replica = _stage(plan, table), _replica(plan, table)
    busy = np.zeros((replicas, stages, len(Resource)))
    np.add.at(busy, (replica, stage, _RESOURCE[table["op"]]), duration_s)
    samples = samples_of_replicas(plan)
    longest: np.ndarray = busy.max(axis=2) / np.maximum(samples, 1)[:, None]
    return longest


def samples_of_replicas(plan: Plan) -> np.ndarray:
    """Return the samples per step of every replica of the network."""
    replica = np.asarray(plan.micro_batch_owner, np.int64) // plan.allocation.stages
    return np.bincount(replica, minlength=plan.replicas) * plan.work.micro_batch_size


@dataclasses.dataclass(frozen=True)
class _Flow:
    """How samples pass through the layers.

    Attributes
    ----------
    start_s : ndarray
        (rows,) start of each row.
    ends_s, busy_s : ndarray
        (replicas,) time until the last sample has left, and for which the slowest stage is busy.
    drain_s : ndarray
        (replicas,) how long before the end there is the first gradient of a layer.
    reached_s : ndarray
        (replicas, delays) as in `Placement`.
    """

    start_s: np.ndarray
    ends_s: np.ndarray
    busy_s: np.ndarray
    drain_s: np.ndarray
    reached_s: np.ndarray


def _flow(plan: Plan, table: OpTable, duration_s: np.ndarray) -> _Flow:
    """Return when samples are where.

    A layer's gradient is complete when the last sample has left its backward stage, so gradients
    get complete while the pipeline drains (without pipelining, during nearly the whole backward
    pass of a micro-batch).
    """
    times = sample_seconds(plan, table, duration_s)
    stage, replica = _stage(plan, table), _replica(plan, table)
    earlier = np.asarray(plan.micro_batch_owner, np.int64)
    first_sample = _place_in_turn(earlier)[table["micro_batch"]] * plan.work.micro_batch_size
    through = np.cumsum(times, axis=1)
    before = (through - times)[replica, stage]
    samples = samples_of_replicas(plan)
    drain = times[:, len(plan.layers) + 1 :].sum(axis=1)
    if plan.policy.partition.pipelining:
        slowest = np.maximum.accumulate(times, axis=1)
        start = before + first_sample * slowest[replica, stage]
        ends = through[:, -1] + np.maximum(samples - 1, 0) * slowest[:, -1]
        busy = samples * slowest[:, -1]
        together = 1
    else:
        start = before * plan.work.micro_batch_size + first_sample * through[replica, -1]
        ends = busy = through[:, -1] * samples
        together = plan.work.micro_batch_size
    # What keeps the same resource of a stage busy takes its turn there, as the stage's time says.
    taken = (replica * times.shape[1] + stage) * len(Resource) + _RESOURCE[table["op"]]
    turns = taken * len(plan.micro_batch_owner) + table["micro_batch"]
    start = start + _one_after_the_other(turns, duration_s)
    reached = np.full((plan.replicas, int(plan.delays.max()) + 1), np.inf)
    trained = np.flatnonzero(plan.layers.parameters)
    np.minimum.at(reached.T, plan.delays[trained], together * (through - times)[:, trained].T)
    return _Flow(start, ends, busy, together * drain, reached)


def _hidden(plan: Plan, drain_s: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Return the time by which each chip can begin to exchange before it has finished computing,
    which is while the backward pass drains. The shares of the first layer, in gradients and in
    factors, come last and never overlap.
    """
    parameters = plan.layers.parameters
    trained = np.flatnonzero(parameters)
    if not plan.policy.partition.overlap_exchange or not len(trained):
        return np.zeros(plan.work.chips)
    gradients = seconds[:, Segment.REDUCE_GRADIENTS.number]
    earlier = gradients * (1.0 - float(parameters[trained[0]] / parameters.sum()))
    if plan.blocks:
        numbers = plan.factor_numbers
        last = numbers[[block.layer == trained[0] for block in plan.blocks]].sum()
        factors = seconds[:, Segment.REDUCE_FACTORS.number] * (1.0 - float(last / numbers.sum()))
        earlier = earlier + factors
    hidden: np.ndarray = np.minimum(drain_s, earlier)
    return hidden


def _stage(plan: Plan, table: OpTable) -> np.ndarray:
    layer = table["layer"].astype(np.int64)
    backward = 2 * len(plan.layers) - 1 - layer
    return np.where(_IS_BACKWARD[table["op"]], backward, layer)


def _replica(plan: Plan, table: OpTable) -> np.ndarray:
    return table["chip"].astype(np.int64) // plan.allocation.stages


def _place_in_turn(owner: np.ndarray) -> np.ndarray:
    """Return, for every micro-batch, how many others its owner runs before it."""
    order = np.argsort(owner, kind="stable")
    first = np.searchsorted(owner[order], owner[order])
    place = np.zeros(len(owner), np.int64)
    place[order] = np.arange(len(owner)) - first
    return place


def _turn(plan: Plan, table: OpTable) -> np.ndarray:
    """Return the turn of each row's SOI block on its chip; 0 for what takes no turns."""
    turn = np.zeros(len(table), np.int64)
    of_blocks = np.flatnonzero(table["block"] >= 0)
    if len(of_blocks) and plan.places.turn.any():
        held = plan.holdings.chip * len(plan.blocks) + plan.holdings.block
        order = np.argsort(held)
        rows = table["chip"][of_blocks].astype(np.int64) * len(plan.blocks)
        found = np.searchsorted(held[order], rows + table["block"][of_blocks])
        turn[of_blocks] = plan.places.turn[order[found]]
    return turn


def _queue(
    table: OpTable,
    segment: np.ndarray,
    turn: np.ndarray,
    duration_s: np.ndarray,
    seconds: np.ndarray,
) -> np.ndarray:
    """Return starts so that the rows of a bank follow each other, and turns of blocks, too; fill in
    chips' seconds per segment.
    """
    bank = np.where(table["bank"] < 0, 0, table["bank"]).astype(np.int64)
    chip = table["chip"].astype(np.int64)
    turns = int(turn.max()) + 1
    taken = (chip * len(Segment) + segment) * turns + turn
    start = _one_after_the_other(taken * (int(bank.max()) + 1) + bank, duration_s)
    if turns > 1:
        longest = np.zeros((seconds.size, turns))
        np.maximum.at(longest.ravel(), taken, start + duration_s)
        # Blocks that stay are turn 0; they begin with the first turn.
        longest[:, 0] = 0.0
        start += (np.cumsum(longest, axis=1) - longest).ravel()[taken]
    np.maximum.at(seconds, (chip, segment), start + duration_s)
    return start


def _one_after_the_other(key: np.ndarray, duration_s: np.ndarray) -> np.ndarray:
    """Return when each row begins if rows of a key follow each other from 0; they are added up one
    by one, so that rows of other keys change no bit.
    """
    order = np.argsort(key, kind="stable")
    first = np.flatnonzero(np.diff(key[order], prepend=-1))
    size = np.diff(first, append=len(key))
    spent, begins = duration_s[order], np.zeros(len(key))
    if len(first) <= size.max():
        for begin, count in zip(first.tolist(), size.tolist(), strict=True):
            begins[begin + 1 : begin + count] = np.cumsum(spent[begin : begin + count - 1])
    else:
        for place in range(1, int(size.max())):
            row = first[size > place] + place
            begins[row] = begins[row - 1] + spent[row - 1]
    start = np.empty(len(key))
    start[order] = begins
    return start
