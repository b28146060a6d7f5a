"""What decides how many chips the headline compares: names of the footings, and their numbers."""

from collections.abc import Callable

from repast_dist.hardware.hardware import Hardware
from repast_dist.planning.gpu import GpuSpec
from repast_dist.planning.summary import StepSummary
from repast_dist.studies.published import PublishedRatios

IMPLIED = "implied power"
"""As many chips as the power feeds that the paper's ratios imply."""
ONE = "one chip"
POWER = "GPU's power"
"""As many as the GPU's power feeds."""
AREA = "GPU's die"
"""As many as have no more area than the GPU's die, at least one."""
REACHED = "paper's speed"
"""As many as reach the paper's speedup over the GPU."""

_MOST_CHIPS = 4096
_REFINEMENTS = 4


def implied_power(paper: PublishedRatios) -> float:
    """Return the power of the paper's machine over its GPU's.

    Energy is power times time, so that the ratio of powers is the speedup over the energy saving.
    This is exact for geometric means over networks; which means the paper took is not known.
    """
    return paper.speedup_over_gpu.value / paper.energy_saving_over_gpu.value


def chips_on_die(gpu: GpuSpec, hardware: Hardware) -> int:
    """Return how many chips have no more area than the GPU's die together, at least one."""
    return max(1, int((gpu.die_m2.value or 0.0) / hardware.area_m2))


def chips_fed(cost: Callable[[int], StepSummary], power_w: float) -> int:
    """Return how many chips a power feeds at what they draw in an average step; their draw
    depends a little on how many share the SOI blocks, so the answer is refined a few times.
    """
    chips = 1
    for _ in range(_REFINEMENTS):
        step = cost(chips)
        each = step.energy_j / step.step_s / chips
        chips = min(_MOST_CHIPS, max(1, int(power_w / each)))
    return chips


def chips_to_reach(cost: Callable[[int], StepSummary], wanted: float) -> int | None:
    """Return the smallest power of two of chips with that throughput; None: not up to 4,096."""
    chips = 1
    while chips <= _MOST_CHIPS:
        if cost(chips).samples_per_s >= wanted:
            return chips
        chips *= 2
    return None
