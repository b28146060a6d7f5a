"""Trains one point of a study in this process and keeps in memory what the study shows of it."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from repast_dist.farm.coordinator import Coordinator
from repast_dist.farm.launch import open_farm
from repast_dist.farm.records import EpochRecord, Event, StepRecord
from repast_dist.farm.setup import TrainingJob, beginning, make_setup
from repast_dist.ground.errors import DataError, InversionError
from repast_dist.training.datasets import Dataset
from repast_dist.training.solve_report import SolveReport

_LARGEST = 1e9
"""Losses and residuals beyond it say no more; JSON has no infinity."""


class InMemory:
    """Keeps what inversions did; see `repast_dist.farm.coordinator.Recorder`.

    Attributes
    ----------
    reports : list of SolveReport
        Of all solves of the run.
    """

    def __init__(self) -> None:
        self.reports: list[SolveReport] = []

    def steps(
        self,
        records: Sequence[StepRecord],
        rows: Sequence[pa.RecordBatch],
        solves: Sequence[SolveReport],
    ) -> None:
        """Keep the reports of some steps."""
        self.reports += solves

    def epoch(self, record: EpochRecord) -> None:
        """Nothing to keep of an epoch."""

    def event(self, event: Event) -> None:
        """Nothing to note: missed targets are counted from the reports."""

    def cut(self) -> None:
        """Nothing is kept on disk."""

    def saved(self) -> None:
        """Nobody goes on from a checkpoint."""

    def drop_from(self, step: int) -> None:
        """Nothing is ever lost in one process."""

    def solves(self) -> dict[str, float]:
        """Return what inversions did over the run; nothing for first-order runs."""
        if not self.reports:
            return {}
        residuals = [capped(report.residual) for report in self.reports]
        return {
            "median_residual": float(np.median(residuals)),
            "worst_residual": float(max(residuals)),
            "missed": float(np.mean([not report.converged for report in self.reports])),
            "rounds": float(np.mean([report.mean_iterations for report in self.reports])),
        }


def train(data: Dataset, job: TrainingJob, kept: InMemory) -> str | None:
    """Train one network, and return what ended training before its time, or None.

    Parameters
    ----------
    data : Dataset
        Named by ``job.dataset``.
    job : TrainingJob
        All that decides the run.
    kept : InMemory
        What the run is kept in.
    """
    setup = make_setup(job, data)
    with tempfile.TemporaryDirectory() as folder, open_farm(setup.job.farm, setup) as farm:
        try:
            Coordinator(setup, farm, beginning(setup), kept, Path(folder)).run()
        except (DataError, InversionError) as error:
            return str(error)
    return None


def capped(value: float) -> float:
    """Return a loss or a residual, or the largest that is told apart."""
    return float(min(value, _LARGEST)) if np.isfinite(value) else _LARGEST
