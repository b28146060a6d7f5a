"""Places the rows of a step in time, by their dependences.

A step is a sequence of segments; a segment starts when every chip has finished the one before.
Inside the first segment samples flow through the layers: with equal samples, sample i leaves
stage s of a pipeline at ``sum of t up to s + i * largest t up to s`` (a flow shop of identical
jobs, unlimited buffers), so a formula gives the schedule. Inside the other segments the rows of a
bank run one after the other, and banks run side by side.
"""

import dataclasses

import numpy as np

from repast_dist.hardware.optable import OP, OpTable
from repast_dist.mapping.plan import Plan

SEGMENTS = (
    ("compute", ("reload_weights", "write_operand", "vmm_forward", "elementwise_forward",
                 "write_activations", "vmm_backward", "elementwise_backward", "vmm_gradient",
                 "write_means", "factor_a", "write_errors", "factor_g", "send_activations",
                 "send_errors")),
    ("reduce gradients", ("reduce_gradients",)),
    ("reduce factors", ("reduce_factors",)),
    ("renew and solve G", ("average_factor", "program_block", "solve_g")),
    ("exchange gradients", ("exchange_gradients",)),
    ("solve A", ("solve_a",)),
    ("clip", ("clip",)),
    ("gather updates", ("reduce_scalar", "gather_updates")),
    ("update", ("update",)),
    ("write weights", ("write_weights",)),
)  # fmt: skip
"""Segments of a step, in order, with their operations."""

_SEGMENT = {op: number for number, (_, ops) in enumerate(SEGMENTS) for op in ops}
_BACKWARD = frozenset(
    ("vmm_backward", "elementwise_backward", "vmm_gradient", "write_means", "factor_a",
     "write_errors", "factor_g", "send_errors")
)  # fmt: skip
_RESOURCE = {
    "elementwise_forward": 2, "elementwise_backward": 2,
    "write_activations": 1, "vmm_gradient": 1, "write_means": 1, "factor_a": 1,
    "write_errors": 1, "factor_g": 1,
    "send_activations": 3, "send_errors": 3,
}  # fmt: skip
"""What an operation of the first segment keeps busy: weight arrays (0, the default), activation
arrays (1), digital units (2), links (3)."""

_RESOURCES = 4
_SEGMENT_OF_OP = np.array([_SEGMENT[name] for name in OP])
_RESOURCE_OF_OP = np.array([_RESOURCE.get(name, 0) for name in OP])
_IS_BACKWARD = np.array([name in _BACKWARD for name in OP])


@dataclasses.dataclass(frozen=True)
class Placement:
    """Rows placed inside their segments.

    Attributes
    ----------
    segment : ndarray
        (rows,) segment of each row.
    start_s : ndarray
        (rows,) start, relative to the segment's.
    chip_seconds : ndarray
        (chips, segments) what each of the plan's chips needs for each segment.
    """

    segment: np.ndarray
    start_s: np.ndarray
    chip_seconds: np.ndarray

    @property
    def segment_seconds(self) -> np.ndarray:
        """Length of each segment: that of the slowest chip."""
        seconds: np.ndarray = self.chip_seconds.max(axis=0)
        return seconds

    @property
    def step_s(self) -> float:
        """Length of the step."""
        return float(self.segment_seconds.sum())

    def absolute_start_s(self) -> np.ndarray:
        """Return starts relative to the step's."""
        begins = np.concatenate([[0.0], np.cumsum(self.segment_seconds)])
        starts: np.ndarray = begins[self.segment] + self.start_s
        return starts


def place(plan: Plan, table: OpTable, duration_s: np.ndarray) -> Placement:
    """Place the rows of one step.

    Parameters
    ----------
    plan : Plan
        What made the rows.
    table : OpTable
        Rows of any of the plan's chips, as `step_ops` orders them.
    duration_s : ndarray
        (rows,) how long each takes.
    """
    segment = _SEGMENT_OF_OP[table["op"]]
    start = np.zeros(len(table))
    seconds = np.zeros((plan.work.chips, len(SEGMENTS)))
    computing = np.flatnonzero(segment == 0)
    if len(computing):
        part = table.where(computing)
        start[computing], ends = _flow(plan, part, duration_s[computing])
        np.maximum.at(seconds[:, 0], part["chip"], ends)
    others = np.flatnonzero(segment > 0)
    if len(others):
        part = table.where(others)
        start[others] = _queue(part, segment[others], duration_s[others], seconds)
    return Placement(segment, start, seconds)


def sample_seconds(plan: Plan, table: OpTable, duration_s: np.ndarray) -> np.ndarray:
    """Return the time of one sample in every stage of every replica's pipeline.

    Returns
    -------
    ndarray
        (replicas, 2 layers): forward stages, then backward stages, last layer first. A stage
        takes as long as its busiest resource.
    """
    stages, replicas = 2 * len(plan.layers), plan.replicas
    stage, replica = _stage(plan, table), _replica(plan, table)
    busy = np.zeros((replicas, stages, _RESOURCES))
    np.add.at(busy, (replica, stage, _RESOURCE_OF_OP[table["op"]]), duration_s)
    samples = samples_of_replicas(plan)
    longest: np.ndarray = busy.max(axis=2) / np.maximum(samples, 1)[:, None]
    return longest


def samples_of_replicas(plan: Plan) -> np.ndarray:
    """Return the samples per step of every replica of the network."""
    replica = np.asarray(plan.micro_batch_owner, np.int64) // plan.allocation.stages
    return np.bincount(replica, minlength=plan.replicas) * plan.work.micro_batch_size


def _flow(plan: Plan, table: OpTable, duration_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the start of each row, and the time its chip's replica needs for the segment."""
    times = sample_seconds(plan, table, duration_s)
    stage, replica = _stage(plan, table), _replica(plan, table)
    earlier = np.asarray(plan.micro_batch_owner, np.int64)
    first_sample = _place_in_turn(earlier)[table["micro_batch"]] * plan.work.micro_batch_size
    through = np.cumsum(times, axis=1)
    before = (through - times)[replica, stage]
    samples = samples_of_replicas(plan)
    if plan.policy.partition.pipelining:
        slowest = np.maximum.accumulate(times, axis=1)
        start = before + first_sample * slowest[replica, stage]
        ends = through[:, -1] + np.maximum(samples - 1, 0) * slowest[:, -1]
    else:
        start = before * plan.work.micro_batch_size + first_sample * through[replica, -1]
        ends = through[:, -1] * samples
    return start, ends[replica]


def _stage(plan: Plan, table: OpTable) -> np.ndarray:
    layer = table["layer"].astype(np.int64)
    backward = 2 * len(plan.layers) - 1 - layer
    return np.where(_IS_BACKWARD[table["op"]], backward, layer)


def _replica(plan: Plan, table: OpTable) -> np.ndarray:
    return table["chip"].astype(np.int64) // plan.allocation.stages


def _place_in_turn(owner: np.ndarray) -> np.ndarray:
    """Return, for every micro-batch, how many its owner runs before it."""
    order = np.argsort(owner, kind="stable")
    first = np.searchsorted(owner[order], owner[order])
    place = np.zeros(len(owner), np.int64)
    place[order] = np.arange(len(owner)) - first
    return place


def _queue(
    table: OpTable, segment: np.ndarray, duration_s: np.ndarray, seconds: np.ndarray
) -> np.ndarray:
    """Let the rows of a bank follow each other; fill in the chips' seconds per segment."""
    bank = np.where(table["bank"] < 0, 0, table["bank"]).astype(np.int64)
    chip = table["chip"].astype(np.int64)
    key = (chip * len(SEGMENTS) + segment) * (int(bank.max()) + 1) + bank
    order = np.argsort(key, kind="stable")
    ran = np.cumsum(duration_s[order])
    begins = ran - duration_s[order]
    first = np.searchsorted(key[order], key[order])
    start = np.zeros(len(key))
    start[order] = begins - begins[first]
    np.maximum.at(seconds, (chip, segment), start + duration_s)
    return start
