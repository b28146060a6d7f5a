"""Plan a step and price it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from repast_dist.ground.spec import spec
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
    units: ClassVar[Mapping[str, str]] = {
        "step_s": "s",
        "samples_per_s": "1/s",
        "energy_per_sample_j": "J",
        "utilisation": "fraction",
        "area_m2": "m2",
        "peak_power_w": "W",
        "lifetime_s": "s",
    }

    def record(self, settings: "RunSettings") -> dict[str, Any]:
        """Return what a step of the settings costs."""
        from repast_dist.mapping.summary import summarise
        from repast_dist.studies.costing import planned_step

        step = summarise(planned_step(settings))
        return {
            "step_s": step.step_s,
            "samples_per_s": step.samples_per_s,
            "energy_per_sample_j": step.energy_per_sample_j,
            "utilisation": step.utilisation,
            "area_m2": settings.farm.chips * settings.hardware.area_m2,
            "peak_power_w": step.peak_power_w,
            "lifetime_s": step.lifetime_s,
            "limited_by": step.limiting_segment,
        }
