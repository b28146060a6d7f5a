"""Trains one point of a study in this process and keeps its curves."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from repast_dist.farm.coordinator import Coordinator
from repast_dist.farm.launch import open_farm
from repast_dist.farm.records import EpochRecord, Event, StepRecord
from repast_dist.farm.setup import TrainingJob, beginning, make_setup
from repast_dist.ground.errors import DataError, InversionError
from repast_dist.studies.measure import Watch
from repast_dist.training.datasets import Dataset
from repast_dist.training.solve_report import SolveReport

_LARGEST = 1e9
"""Losses and residuals beyond it say no more; JSON has no infinity."""


class _Curves:
    """Collects what the study shows of a run; see `repast_dist.farm.coordinator.Recorder`."""

    def __init__(self, watch: Watch | None) -> None:
        self._watch = watch
        self.epochs: list[dict[str, Any]] = []
        self.first_loss: float | None = None
        self.steps_done = 0
        self._time_s = self._energy_j = 0.0
        self._reports: list[SolveReport] = []

    def steps(
        self,
        records: Sequence[StepRecord],
        rows: Sequence[pa.RecordBatch],
        solves: Sequence[SolveReport],
    ) -> None:
        """Add up some steps."""
        if self.first_loss is None:
            self.first_loss = records[0].loss
        self.steps_done += len(records)
        self._time_s += sum(record.time_s for record in records)
        self._energy_j += sum(pc.sum(batch["energy_j"]).as_py() or 0.0 for batch in rows)
        self._reports += solves

    def epoch(self, record: EpochRecord) -> None:
        """Keep an epoch's losses with the simulated time and energy so far."""
        self.epochs.append(
            {
                "epoch": record.epoch,
                "step": record.step,
                "train_loss": _capped(record.train_loss),
                "test_loss": _capped(record.test_loss),
                "test_accuracy": record.test_accuracy,
                "time_s": self._time_s,
                "energy_j": self._energy_j,
            }
        )
        if self._watch is not None:
            self._watch(record.epoch, self.epochs[-1])

    def event(self, event: Event) -> None:
        """Nothing to note: missed targets are counted from the reports."""

    def cut(self) -> None:
        """Nothing is kept on disk."""

    def drop_from(self, step: int) -> None:
        """Nothing is ever lost in one process."""

    def solves(self) -> dict[str, float]:
        """Return what inversions did over the run; nothing for first-order runs."""
        if not self._reports:
            return {}
        residuals = [_capped(report.residual) for report in self._reports]
        return {
            "median_residual": float(np.median(residuals)),
            "worst_residual": float(max(residuals)),
            "missed": float(np.mean([not report.converged for report in self._reports])),
            "rounds": float(np.mean([report.mean_iterations for report in self._reports])),
        }


def convergence_point(
    data: Dataset, job: TrainingJob, watch: Watch | None = None
) -> dict[str, Any]:
    """Train one network and return its curves.

    Parameters
    ----------
    data : Dataset
        Named by ``job.dataset``.
    job : TrainingJob
        All that decides the run.
    watch : callable, optional
        Is told every epoch's figures, and may end the run by `repast_dist.studies.measure.Stopped`.

    Returns
    -------
    dict
        ``epochs``: losses, accuracy, simulated time and energy per epoch; ``first_loss``: of the
        first batch; ``diverged``: None, or what ended training; ``solves``: residuals and rounds.
    """
    setup = make_setup(job, data)
    curves = _Curves(watch)
    diverged = None
    with tempfile.TemporaryDirectory() as folder, open_farm(job.farm, setup) as farm:
        try:
            Coordinator(setup, farm, beginning(setup), curves, Path(folder)).run()
        except (DataError, InversionError) as error:
            diverged = str(error)
    return {
        "epochs": curves.epochs,
        "first_loss": curves.first_loss,
        "steps": curves.steps_done,
        "diverged": diverged,
        "solves": curves.solves(),
    }


def _capped(value: float) -> float:
    return float(min(value, _LARGEST)) if np.isfinite(value) else _LARGEST
