"""What workers, coordinator, recorder and report tell each other of a run.

Workers answer the coordinator with `WorkerAnswer`; it makes `StepRecord`, `EpochRecord` and `Event`
of the answers, which are kept as JSON in ``result.json`` and in checkpoints.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from repast_dist.training.engines import ClipCount


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


@dataclasses.dataclass(frozen=True)
class SolveReport:
    """What a solve did, for the trace; see `repast_dist.trace.schema.SOLVE_SCHEMA`."""

    step: int
    block: int
    layer: int
    factor: str
    method: str
    iterations: int
    mean_iterations: float
    residual: float
    converged: bool
    action: str
    chip: int
    right_sides: int


def merged(reports: Iterable[SolveReport]) -> list[SolveReport]:
    """Return one report per block, the worst of what its right-hand sides met, in block order."""
    of_block: dict[int, list[SolveReport]] = {}
    for report in reports:
        of_block.setdefault(report.block, []).append(report)
    return [_worst(of_block[block]) for block in sorted(of_block)]


def _worst(reports: Sequence[SolveReport]) -> SolveReport:
    worst = max(reports, key=lambda r: (_SEVERITY[r.action], r.residual, -r.chip))
    right_sides = sum(report.right_sides for report in reports)
    # An exact sum: it must not depend on who solved what.
    rounds = math.fsum(report.mean_iterations * report.right_sides for report in reports)
    return dataclasses.replace(
        worst,
        iterations=max(report.iterations for report in reports),
        mean_iterations=rounds / right_sides if right_sides else 0.0,
        residual=max(report.residual for report in reports),
        converged=all(report.converged for report in reports),
        right_sides=right_sides,
    )


_SEVERITY = {"none": 0, "use": 1, "damp": 2, "fallback": 3}


@dataclasses.dataclass(frozen=True, order=True)
class MicroBatchOutcome:
    """What the forward pass of a micro-batch found.

    Attributes
    ----------
    micro_batch : int
        Its number in the step.
    loss_sum : float
        Sum of the losses of its samples.
    correct : int
        Samples classified right.
    """

    micro_batch: int
    loss_sum: float
    correct: int


@dataclasses.dataclass(frozen=True)
class StepReport:
    """What one worker did in one step.

    Attributes
    ----------
    outcomes : tuple of MicroBatchOutcome
        Of the micro-batches that its chips ran.
    solves : tuple of SolveReport
        What its solves did.
    clipping : tuple of dict
        Per chip, role and layer of a product -> its ADC conversions.
    busy_s : dict
        Part of the step -> wall time the worker computed for.
    """

    outcomes: tuple[MicroBatchOutcome, ...]
    solves: tuple[SolveReport, ...]
    clipping: tuple[Mapping[str, ClipCount], ...]
    busy_s: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class WorkerAnswer:
    """What one worker says about the steps of one call.

    Attributes
    ----------
    chips : dict
        Chip -> what the steps cost it.
    weights : int
        Checksum of the weights after the steps, the same on all workers.
    steps : tuple of StepReport
        Its reports, in the order of the steps.
    """

    chips: Mapping[int, ChipCost]
    weights: int
    steps: tuple[StepReport, ...]


@dataclasses.dataclass(frozen=True)
class StepRecord:
    """One step of the run, over all workers.

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
    """

    step: int
    loss: float
    accuracy: float
    time_s: float
    wall_s: float
    computing_s: float
    clip_rate: float | None = None

    def plain(self) -> dict[str, Any]:
        """Return the record as JSON data, without what is None."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclasses.dataclass(frozen=True)
class EpochRecord:
    """One epoch of the run and the test after it.

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
    """Something that should be known after the run.

    Attributes
    ----------
    step : int
        The step at which it happened.
    kind : str
        ``clipping``, ``divergence``, ``recovery``, ``checkpoint`` or ``resume``.
    message : str
        What happened, in words.
    """

    step: int
    kind: str
    message: str

    def plain(self) -> dict[str, Any]:
        """Return the event as JSON data."""
        return dict(vars(self))
