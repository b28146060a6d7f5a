"""Trains one point of the study in this process and keeps what every step cost."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from repast_dist.farm.coordinator import Coordinator
from repast_dist.farm.launch import open_farm
from repast_dist.farm.records import EpochRecord, Event, StepRecord
from repast_dist.farm.setup import TrainingJob, beginning, make_setup
from repast_dist.ground.errors import DataError, InversionError
from repast_dist.trace.schema import PHASES
from repast_dist.training.datasets import Dataset
from repast_dist.training.solve_report import SolveReport

_LARGEST = 1e9
"""Losses beyond it say no more; JSON has no infinity."""


class _Steps:
    """Collects what the study shows of a run; see `repast_dist.farm.coordinator.Recorder`."""

    def __init__(self) -> None:
        self.loss: list[float] = []
        self.time_s: list[float] = []
        self.cell_writes: list[int] = []
        self.phases_j: dict[str, list[float]] = {phase: [] for phase in PHASES}
        self.accuracy: float | None = None
        self.test_loss: float | None = None
        self._reports: list[SolveReport] = []

    def steps(
        self,
        records: Sequence[StepRecord],
        rows: Sequence[pa.RecordBatch],
        solves: Sequence[SolveReport],
    ) -> None:
        """Add some steps."""
        first, count = records[0].step, len(records)
        energy, writes = np.zeros((len(PHASES), count)), np.zeros(count)
        for batch in rows:
            step = batch["step"].to_numpy() - first
            phase = batch["phase"].indices.to_numpy()
            np.add.at(energy, (phase, step), batch["energy_j"].to_numpy())
            np.add.at(writes, step, batch["cell_writes"].to_numpy())
        self.loss += [_capped(record.loss) for record in records]
        self.time_s += [record.time_s for record in records]
        self.cell_writes += [round(count) for count in writes.tolist()]
        for phase, values in zip(PHASES, energy.tolist(), strict=True):
            self.phases_j[phase] += values
        self._reports += solves

    def epoch(self, record: EpochRecord) -> None:
        """Keep the last test."""
        self.accuracy, self.test_loss = record.test_accuracy, _capped(record.test_loss)

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
        return {
            "missed": float(np.mean([not report.converged for report in self._reports])),
            "rounds": float(np.mean([report.mean_iterations for report in self._reports])),
        }


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
        energy of every phase and step; ``accuracy``, ``test_loss``: of the last test; ``diverged``:
        None, or what ended training; ``solves``: rounds, and the share that missed its target.
    """
    setup = make_setup(job, data)
    steps, diverged = _Steps(), None
    with tempfile.TemporaryDirectory() as folder, open_farm(job.farm, setup) as farm:
        try:
            Coordinator(setup, farm, beginning(setup), steps, Path(folder)).run()
        except (DataError, InversionError) as error:
            diverged = str(error)
    return {
        "loss": steps.loss,
        "time_s": steps.time_s,
        "cell_writes": steps.cell_writes,
        "phases_j": steps.phases_j,
        "accuracy": steps.accuracy,
        "test_loss": steps.test_loss,
        "diverged": diverged,
        "solves": steps.solves(),
    }


def _capped(value: float) -> float:
    return float(min(value, _LARGEST)) if np.isfinite(value) else _LARGEST
