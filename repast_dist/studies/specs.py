"""Settings of the studies; ``study.name`` decides which."""

from typing import Annotated, Literal

from annotated_types import Ge
from pydantic import Discriminator

from repast_dist.spec import spec


@spec
class TrainStudy:
    """Train one network on the farm: accuracy and cost in one run."""

    name: Literal["train"] = "train"


@spec
class VerifyStudy:
    """Check a run directory (``run=RUN_DIR``) for missing, duplicate and damaged rows."""

    name: Literal["verify"] = "verify"


@spec
class CompareStudy:
    """Put runs side by side (``runs=[A,B]`` or a folder of runs): settings that differ, results."""

    name: Literal["compare"] = "compare"


@spec
class ExportPerfettoStudy:
    """Write a run's trace (``run=RUN_DIR``) for Perfetto or Chrome: chips as processes.

    Attributes
    ----------
    rows : int
        At most so many rows; the first steps are kept whole.
    """

    name: Literal["export-perfetto"] = "export-perfetto"
    rows: Annotated[int, Ge(1)] = 200_000


StudySpec = Annotated[
    TrainStudy | VerifyStudy | CompareStudy | ExportPerfettoStudy, Discriminator("name")
]
