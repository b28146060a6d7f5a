"""Records of a run, which workers, coordinator, recorder and report exchange.

Workers answer the coordinator with `WorkerAnswer`; it makes `StepRecord`, `EpochRecord` and `Event`
of the answers, which are kept as JSON in ``result.json`` and in checkpoints.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from repast_dist.training.engines import ClipCount
from repast_dist.training.solve_report import SolveReport


@dataclasses.dataclass(frozen=True)
class ChipCosts:
    """The trace rows and times of the chips of one worker for some steps.

    Chips that do the same are one kind, of which the first chip has the rows. A chip that is like
    no other is a kind of its own.

    Attributes
    ----------
    chips : ndarray
        (chips,) int64 numbers of all chips, ascending.
    like : ndarray
        (chips,) int64 kind of each.
    rows : pyarrow.RecordBatch
        Trace rows of one chip of each kind, step by step and kind by kind; starts count from the
        start of the row's segment.
    counts : ndarray
        (steps, kinds) rows of each.
    segment : ndarray
        (rows,) int64, the row's segment of its step.
    seconds : ndarray
        (steps, kinds, segments) time that a chip needs for each segment.
    hidden_s : ndarray
        (steps, kinds) how long before it has computed a chip can begin to exchange gradients.
    behind_s : ndarray
        (steps, kinds, segments) time of what it does beside the next steps.
    stale : ndarray
        (steps,) steps that this may take.
    flow_s : ndarray
        (steps, kinds) how long samples keep the slowest stage that they pass busy.
    reached_s : ndarray
        (steps, kinds, delays) when samples reach the first layer that computes with weights so many
        steps older than the newest; infinite where there is none.
    static_w : float
        Power a chip draws whatever it does.
    """

    chips: np.ndarray
    like: np.ndarray
    rows: pa.RecordBatch
    counts: np.ndarray
    segment: np.ndarray
    seconds: np.ndarray
    hidden_s: np.ndarray
    behind_s: np.ndarray
    stale: np.ndarray
    flow_s: np.ndarray
    reached_s: np.ndarray
    static_w: float


@dataclasses.dataclass(frozen=True, order=True)
class MicroBatchOutcome:
    """Loss and correct classifications of one micro-batch.

    Attributes
    ----------
    micro_batch : int
        Its number in the step.
    loss_sum : float
        Sum of the losses of its samples.
    correct : float
        Samples classified right, of sequences the share of their tokens.
    """

    micro_batch: int
    loss_sum: float
    correct: float


@dataclasses.dataclass(frozen=True)
class StepReport:
    """The report of one worker on one step.

    Attributes
    ----------
    outcomes : tuple of MicroBatchOutcome
        The outcomes of the micro-batches that its chips ran.
    solves : tuple of SolveReport
        The reports of its solves.
    clipping : tuple of dict
        Per chip, or chips that compute alike, role and layer of a product -> its ADC conversions.
    busy_s : dict
        Part of the step -> wall time the worker computed for.
    damping : float or None
        The damping of the step, where it is adapted.
    """

    outcomes: tuple[MicroBatchOutcome, ...]
    solves: tuple[SolveReport, ...]
    clipping: tuple[Mapping[str, ClipCount], ...]
    busy_s: Mapping[str, float]
    damping: float | None = None


@dataclasses.dataclass(frozen=True)
class WorkerAnswer:
    """The answer of one worker to one call, which may cover several steps.

    Attributes
    ----------
    costs : ChipCosts
        Trace rows and times of its chips.
    weights : int
        Checksum of the weights after the steps, the same on all workers.
    steps : tuple of StepReport
        Its reports, in the order of the steps.
    """

    costs: ChipCosts
    weights: int
    steps: tuple[StepReport, ...]


@dataclasses.dataclass(frozen=True)
class StepRecord:
    """The record of one step of the run, over all workers.

    Attributes
    ----------
    step : int
        Number of the step.
    loss, accuracy : float
        Means over the batch.
    time_s : float
        Simulated time that the step took.
    wall_s : float
        Wall time that it took.
    computing_s : float
        Wall time it would have taken if calls and transfers took none.
    clip_rate : float or None
        Share of the ADC conversions that clipped; None where there are none.
    damping : float or None
        The damping, where it is adapted.
    """

    step: int
    loss: float
    accuracy: float
    time_s: float
    wall_s: float
    computing_s: float
    clip_rate: float | None = None
    damping: float | None = None

    def plain(self) -> dict[str, Any]:
        """Return the record as JSON data, without fields that are None."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclasses.dataclass(frozen=True)
class EpochRecord:
    """The record of one epoch and of the test after it.

    Attributes
    ----------
    epoch : int
        Number of the epoch, from 1.
    step : int
        The first step after it.
    train_loss, train_accuracy : float
        Means over its steps.
    test_loss, test_accuracy, test_squared_error : float
        Means over the test set.
    """

    epoch: int
    step: int
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    test_squared_error: float

    def plain(self) -> dict[str, Any]:
        """Return the record as JSON data."""
        return dict(vars(self))


@dataclasses.dataclass(frozen=True)
class Event:
    """An event of the run that its reader should know of.

    Attributes
    ----------
    step : int
        The step at which it happened.
    kind : str
        ``clipping``, ``divergence``, ``recovery``, ``checkpoint``, ``target`` or ``resume``.
    message : str
        What happened, in words.
    """

    step: int
    kind: str
    message: str

    def plain(self) -> dict[str, Any]:
        """Return the event as JSON data."""
        return dict(vars(self))
