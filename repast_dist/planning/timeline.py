"""Places the rows of a step in time by their dependences.

A step is a sequence of segments. A segment starts when every chip has finished the previous one;
only the exchange of gradients may begin earlier, with ``partition.overlap_exchange``, and blocks
may be renewed beside whatever else this step and the next ones do, with ``soi.stale``: what does
not end within so many steps, taken to be as long as this one, is waited for. In the first
segment samples pass through the layers. Since all samples are equal, sample i leaves stage s of a
pipeline at ``sum of t up to s + i * largest t up to s`` (a flow shop of identical jobs with
unlimited buffers), so a formula gives the schedule. In the other segments the rows of a bank run
one after the other, and banks run at the same time.
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
        (chips,) time by which a chip can begin to exchange gradients before it has finished
        computing.
    behind_s : ndarray
        (chips, segments) time of what is done beside the next steps.
    stale : int
        Steps that it may take.
    """

    segment: np.ndarray
    start_s: np.ndarray
    chip_seconds: np.ndarray
    hidden_s: np.ndarray
    behind_s: np.ndarray
    stale: int

    @cached_property
    def clock(self) -> "Clock":
        """When the segments begin, for all chips."""
        return agree(self.chip_seconds, self.hidden_s, self.behind_s, self.stale)

    @property
    def segment_seconds(self) -> np.ndarray:
        """Time that each segment adds to the step."""
        return self.clock.added_s

    @property
    def step_s(self) -> float:
        """Length of the step."""
        return float(self.segment_seconds.sum())

    @property
    def overlap_s(self) -> np.ndarray:
        """Time that each chip computes and exchanges gradients at once, (chips,)."""
        computed = self.chip_seconds[:, Segment.COMPUTE.number]
        exchanged_from = self.clock.begins(0.0)[Segment.REDUCE_GRADIENTS.number]
        overlap: np.ndarray = np.maximum(computed - exchanged_from, 0.0)
        return overlap

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
        (...) time by which the exchange of gradients begins before the first segment ends.
    """

    added_s: np.ndarray
    early_s: np.ndarray

    def begins(self, step_s: float) -> np.ndarray:
        """Return the start of each segment and the end of the last, (segments + 1,), for a step
        that starts at `step_s`.
        """
        begins = step_s + np.concatenate([[0.0], np.cumsum(self.added_s)])
        begins[Segment.REDUCE_GRADIENTS.number] -= self.early_s
        return begins

    def step(self, number: int) -> "Clock":
        """Return the clock of one of several steps."""
        return Clock(self.added_s[number], self.early_s[number])


def agree(
    chip_seconds: np.ndarray,
    hidden_s: np.ndarray,
    behind_s: np.ndarray | None = None,
    stale: int | np.ndarray = 0,
) -> Clock:
    """Return the clock of a step: a segment ends when the slowest chip has finished it.

    The exchange of gradients may begin before the first segment ends, as soon as every chip has
    gradients to send and does not have to wait for later ones.

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
    """
    added: np.ndarray = chip_seconds.max(axis=-2)
    computed = chip_seconds[..., Segment.COMPUTE.number]
    early = added[..., Segment.COMPUTE.number] - (computed - hidden_s).max(axis=-1)
    added[..., Segment.REDUCE_GRADIENTS.number] -= early
    if behind_s is not None:
        late = behind_s.max(axis=-2).sum(axis=-1) - stale * added.sum(axis=-1)
        added[..., Segment.RENEW_AND_SOLVE_G.number] += np.maximum(late, 0.0)
    return Clock(added, early)


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
    drain = np.zeros(plan.work.chips)
    computing = np.flatnonzero(segment == Segment.COMPUTE.number)
    if len(computing):
        part = table.where(computing)
        spent = duration_s[computing]
        if stands_for is not None:
            spent = spent * stands_for[computing]
        start[computing], ends, drains = _flow(plan, part, spent)
        np.maximum.at(seconds[:, Segment.COMPUTE.number], part["chip"], ends)
        drain[part["chip"]] = drains
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
    return Placement(segment, start, seconds, _hidden(plan, drain, seconds), behind_s, stale)


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


def _flow(
    plan: Plan, table: OpTable, duration_s: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return, per row: its start, the time that its chip's replica needs for the segment, and how
    long before the end the replica has the first gradient of a layer.

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
    else:
        start = before * plan.work.micro_batch_size + first_sample * through[replica, -1]
        ends = through[:, -1] * samples
        drain = drain * plan.work.micro_batch_size
    return start, ends[replica], drain[replica]


def _hidden(plan: Plan, drain_s: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Return the time by which each chip can begin to exchange gradients before it has finished
    computing, which is while the backward pass drains. The share of the first layer comes last and
    never overlaps.
    """
    parameters = plan.layers.parameters
    trained = np.flatnonzero(parameters)
    if not plan.policy.partition.overlap_exchange or not len(trained):
        return np.zeros(plan.work.chips)
    earlier_share = 1.0 - float(parameters[trained[0]] / parameters.sum())
    hidden: np.ndarray = np.minimum(
        drain_s, seconds[:, Segment.REDUCE_GRADIENTS.number] * earlier_share
    )
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
    key = taken * (int(bank.max()) + 1) + bank
    order = np.argsort(key, kind="stable")
    ran = np.cumsum(duration_s[order])
    begins = ran - duration_s[order]
    first = np.searchsorted(key[order], key[order])
    start = np.zeros(len(key))
    start[order] = begins - begins[first]
    if turns > 1:
        longest = np.zeros((seconds.size, turns))
        np.maximum.at(longest.ravel(), taken, start + duration_s)
        # Blocks that stay are turn 0; they begin with the first turn.
        longest[:, 0] = 0.0
        start += (np.cumsum(longest, axis=1) - longest).ravel()[taken]
    np.maximum.at(seconds, (chip, segment), start + duration_s)
    return start
