"""Settings of the studies; ``study.name`` decides which."""

from typing import Literal

from repast_dist.spec import spec


@spec
class TrainStudy:
    """Train one network on the farm."""

    name: Literal["train"] = "train"


StudySpec = TrainStudy
