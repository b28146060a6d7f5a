"""A training run of a study of many, and what it is shown as."""

import dataclasses
from typing import Any

from repast_dist.farm.setup import TrainingJob
from repast_dist.studies.settings import RunSettings, training_job


@dataclasses.dataclass(frozen=True)
class Case:
    """A run and its labels in tables and figures; several cases may share a run.

    Attributes
    ----------
    settings : RunSettings
        All that decides the run.
    labels : dict
        What it is shown as: its place in the study, ``seed``, and what was varied.
    """

    settings: RunSettings
    labels: dict[str, Any]

    @property
    def job(self) -> TrainingJob:
        """What of the settings decides a training run."""
        return training_job(self.settings)
