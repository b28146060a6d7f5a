"""The key figures of a planned step."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from repast_dist.planning.plan import Plan
    from repast_dist.planning.summary import StepSummary

STEP_UNITS: Mapping[str, str] = {
    "step_s": "s",
    "samples_per_s": "1/s",
    "energy_per_sample_j": "J",
    "utilisation": "fraction",
    "area_m2": "m2",
    "peak_power_w": "W",
    "lifetime_s": "s",
}
"""Units of `step_figures`; ``limited_by`` is text."""


def step_figures(plan: "Plan", step: "StepSummary") -> dict[str, Any]:
    """Return time, energy, area and power of an average step.

    Parameters
    ----------
    plan, step : Plan, StepSummary
        A plan, and its summary.
    """
    return {
        "step_s": step.step_s,
        "samples_per_s": step.samples_per_s,
        "energy_per_sample_j": step.energy_per_sample_j,
        "utilisation": step.utilisation,
        "area_m2": plan.work.machine_chips * plan.hardware.area_m2,
        "peak_power_w": step.peak_power_w,
        "lifetime_s": step.wear.lifetime_s,
        "limited_by": step.limiting_segment,
    }
