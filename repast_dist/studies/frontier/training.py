"""Trains one point of the study in this process and keeps what every step cost."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from repast_dist.farm.records import EpochRecord, StepRecord
from repast_dist.farm.setup import TrainingJob
from repast_dist.ops import OPS, Segment
from repast_dist.studies.in_memory import InMemory, capped, train
from repast_dist.trace.schema import PHASES
from repast_dist.training.datasets import Dataset
from repast_dist.training.solve_report import SolveReport

SEGMENTS = tuple(segment.title for segment in Segment)
"""Parts of a step, which follow each other."""

_SEGMENT_OF = np.array([op.segment.number for op in OPS])


class _Steps(InMemory):
    """Collects what the study shows of a run; see `repast_dist.farm.coordinator.Recorder`."""

    def __init__(self) -> None:
        super().__init__()
        self.loss: list[float] = []
        self.time_s: list[float] = []
        self.cell_writes: list[int] = []
        self.phases_j: dict[str, list[float]] = {phase: [] for phase in PHASES}
        self.segments_s: dict[str, list[float]] = {segment: [] for segment in SEGMENTS}
        self.accuracy: float | None = None
        self.test_loss: float | None = None

    def steps(
        self,
        records: Sequence[StepRecord],
        rows: Sequence[pa.RecordBatch],
        solves: Sequence[SolveReport],
    ) -> None:
        """Add some steps."""
        first, count = records[0].step, len(records)
        energy, writes = np.zeros((len(PHASES), count)), np.zeros(count)
        begins, ends = np.full((2, len(SEGMENTS), count), np.inf)
        ends *= -1
        for batch in rows:
            step = batch["step"].to_numpy() - first
            phase = batch["phase"].indices.to_numpy()
            np.add.at(energy, (phase, step), batch["energy_j"].to_numpy())
            np.add.at(writes, step, batch["cell_writes"].to_numpy())
            segment = _SEGMENT_OF[batch["op"].indices.to_numpy()]
            start_s = batch["start_s"].to_numpy()
            np.minimum.at(begins, (segment, step), start_s)
            np.maximum.at(ends, (segment, step), start_s + batch["duration_s"].to_numpy())
        self.loss += [capped(record.loss) for record in records]
        self.time_s += [record.time_s for record in records]
        self.cell_writes += [round(count) for count in writes.tolist()]
        for phase, values in zip(PHASES, energy.tolist(), strict=True):
            self.phases_j[phase] += values
        spans = np.maximum(ends - begins, 0.0)
        # Samples drain through the last layers after what is drawn of the slowest one.
        spans[Segment.COMPUTE.number] = 0.0
        spans[Segment.COMPUTE.number] = self.time_s[-count:] - spans.sum(axis=0)
        for name, values in zip(SEGMENTS, spans.tolist(), strict=True):
            self.segments_s[name] += values
        super().steps(records, rows, solves)

    def epoch(self, record: EpochRecord) -> None:
        """Keep the last test."""
        self.accuracy, self.test_loss = record.test_accuracy, capped(record.test_loss)


def frontier_point(data: Dataset, job: TrainingJob) -> dict[str, Any]:
    """Train one network and return loss, time, energy and writes of every step.

    Parameters
    ----------
    data : Dataset
        Named by ``job.dataset``.
    job : TrainingJob
        All that decides the run.

    Returns
    -------
    dict
        ``loss``, ``time_s``, ``cell_writes``: of every step, over all chips; ``phases_j``: the
        energy of every phase and step; ``segments_s``: the time from the first to the last
        operation of every part of a step, of the passage through the layers what the others leave
        of the step; ``accuracy``, ``test_loss``: of the last test;
        ``diverged``: None, or what ended training; ``solves``: residuals, rounds, and the share
        that missed its target.
    """
    steps = _Steps()
    diverged = train(data, job, steps)
    return {
        "loss": steps.loss,
        "time_s": steps.time_s,
        "cell_writes": steps.cell_writes,
        "phases_j": steps.phases_j,
        "segments_s": steps.segments_s,
        "accuracy": steps.accuracy,
        "test_loss": steps.test_loss,
        "diverged": diverged,
        "solves": steps.solves(),
    }
