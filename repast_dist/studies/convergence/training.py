"""Trains one point of a study in this process and keeps its curves."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from repast_dist.farm.records import EpochRecord, StepRecord
from repast_dist.farm.setup import TrainingJob
from repast_dist.studies.in_memory import InMemory, capped, train
from repast_dist.studies.measure import Watch
from repast_dist.training.datasets import Dataset
from repast_dist.training.solve_report import SolveReport


class _Curves(InMemory):
    """Collects what the study shows of a run; see `repast_dist.farm.coordinator.Recorder`."""

    def __init__(self, watch: Watch | None) -> None:
        super().__init__()
        self._watch = watch
        self.epochs: list[dict[str, Any]] = []
        self.first_loss: float | None = None
        self.steps_done = 0
        self._time_s = self._energy_j = 0.0

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
        super().steps(records, rows, solves)

    def epoch(self, record: EpochRecord) -> None:
        """Keep an epoch's losses with the simulated time and energy so far."""
        self.epochs.append(
            {
                "epoch": record.epoch,
                "step": record.step,
                "train_loss": capped(record.train_loss),
                "test_loss": capped(record.test_loss),
                "test_accuracy": record.test_accuracy,
                "time_s": self._time_s,
                "energy_j": self._energy_j,
            }
        )
        if self._watch is not None:
            self._watch(record.epoch, self.epochs[-1])


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
    curves = _Curves(watch)
    diverged = train(data, job, curves)
    return {
        "epochs": curves.epochs,
        "first_loss": curves.first_loss,
        "steps": curves.steps_done,
        "diverged": diverged,
        "solves": curves.solves(),
    }
