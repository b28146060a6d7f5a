"""A training run of a study of many, and what it is shown as."""

import dataclasses
from typing import Any

from repast_dist.farm.setup import TrainingJob
from repast_dist.studies.settings import RunSettings, training_job

Point = dict[str, Any]
"""What was varied: dotted path -> value."""


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


@dataclasses.dataclass(frozen=True)
class TunedCase(Case):
    """A run with settings that were searched.

    Attributes
    ----------
    settings : RunSettings
        All that decides the run.
    labels : dict
        What it is shown as, with what was varied in words.
    changes : dict
        What was varied: dotted path -> value.
    """

    changes: Point


@dataclasses.dataclass(frozen=True)
class TrainedCase:
    """What became of a case.

    Attributes
    ----------
    labels : dict
        Of its `TunedCase`.
    changes : dict
        What was varied: dotted path -> value.
    record : dict
        What training found.
    """

    labels: dict[str, Any]
    changes: Point
    record: dict[str, Any]
