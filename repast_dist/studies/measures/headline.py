"""Put a chip beside a GPU and PipeLayer on several networks."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from repast_dist.ground.spec import spec
from repast_dist.studies.kinds.headline import HeadlineStudy
from repast_dist.studies.measure import MEASURES, Measure
from repast_dist.studies.study import HARDWARE

if TYPE_CHECKING:
    from repast_dist.studies.settings import RunSettings


@MEASURES.register
@spec
class HeadlineMeasure(Measure):
    """Speedups and energy savings over a GPU and PipeLayer: geometric means per epoch.

    They are those of ``study=headline`` for one chip, or for as many as the power feeds that the
    paper's ratios imply. ``power_w`` is what they draw in an average step on the network that needs
    most; ``area_m2`` and ``peak_power_w`` are those of one chip.

    Attributes
    ----------
    chips : {"one", "implied power"}
        How many chips there are.
    of : HeadlineStudy
        Networks, batches, PipeLayer and what was published.
    """

    kind: Literal["headline"] = "headline"
    reads: ClassVar[tuple[str, ...]] = (*HARDWARE, "baseline", "epochs")
    units: ClassVar[Mapping[str, str]] = {"power_w": "W", "peak_power_w": "W", "area_m2": "m2"}
    chips: Literal["one", "implied power"] = "one"
    of: HeadlineStudy

    def record(self, settings: "RunSettings") -> dict[str, Any]:
        """Return the ratios, and what the chip takes."""
        from repast_dist.network.workload import named_workload
        from repast_dist.studies.headline.footings import chips_fed, implied_power
        from repast_dist.studies.headline.inputs import HeadlineInputs
        from repast_dist.studies.headline.machines import coster, published_on
        from repast_dist.studies.headline.ratios import geometric_mean

        inputs = HeadlineInputs(
            study=self.of, machine=settings.machine, gpu=settings.gpu, epochs=settings.epochs
        )
        ratios: dict[str, list[float]] = {}
        watts, counts = [], []
        for name in self.of.networks:
            gpu, pipelayer = published_on(inputs, named_workload(name))
            cost, count = coster(inputs, name), 1
            if self.chips != "one":
                power_w = implied_power(self.of.paper) * gpu.energy_j / gpu.step_s
                count = chips_fed(cost, power_w)
            step = cost(count)
            watts.append(step.energy_j / step.step_s)
            counts.append(count)
            for other, machine in (("gpu", gpu), ("pipelayer", pipelayer)):
                faster = machine.step_s / machine.samples * step.samples_per_s
                saving = machine.energy_j / machine.samples / step.energy_per_sample_j
                ratios.setdefault(f"speedup_over_{other}", []).append(faster)
                ratios.setdefault(f"energy_saving_over_{other}", []).append(saving)
        return {
            **{name: geometric_mean(values) for name, values in ratios.items()},
            "area_m2": settings.hardware.area_m2,
            "peak_power_w": settings.hardware.peak_power_w,
            "power_w": max(watts),
            "chips": sum(counts) / len(counts),
        }
