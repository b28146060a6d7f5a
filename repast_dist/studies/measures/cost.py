"""Plan a step and price it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from repast_dist.ground.spec import spec
from repast_dist.studies.figures import STEP_UNITS, step_figures
from repast_dist.studies.measure import MEASURES, Measure
from repast_dist.studies.study import HARDWARE

if TYPE_CHECKING:
    from repast_dist.studies.settings import RunSettings


@MEASURES.register
@spec
class CostMeasure(Measure):
    """Time, energy, area and power of an average step of ``workload``; nothing is trained."""

    kind: Literal["cost"] = "cost"
    reads: ClassVar[tuple[str, ...]] = (
        *HARDWARE, "workload", "model", "optimizer", "train.batch_size", "train.micro_batch_size",
        "farm.chips", "farm.chip_overrides",
    )  # fmt: skip
    units: ClassVar[Mapping[str, str]] = STEP_UNITS

    def record(self, settings: "RunSettings") -> dict[str, Any]:
        """Return what a step of the settings costs."""
        from repast_dist.planning.summary import summarise
        from repast_dist.studies.costing import planned_step

        plan = planned_step(settings)
        return step_figures(plan, summarise(plan))
