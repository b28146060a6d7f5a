"""Points of ``study=scaling``: a network on a number of chips, and what its average step costs."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from repast_dist.hardware.topology import TOPOLOGIES
from repast_dist.network.shapes import Workload
from repast_dist.planning.collectives import dimensions_for
from repast_dist.planning.exchanges import exchanges
from repast_dist.planning.machine import Machine
from repast_dist.planning.owners import balance
from repast_dist.planning.plan import Plan
from repast_dist.planning.summary import StepSummary, summarise


@dataclasses.dataclass(frozen=True)
class ScalingPoint:
    """One point of the study.

    Attributes
    ----------
    workload : Workload
        The network.
    mode : {"strong", "weak"}
        What stays: the batch, or the batch per chip.
    chips : int
        Chips.
    batch, micro_batch : int
        Samples per step of one chip (weak) or of all (strong), and per micro-batch.
    reference : bool
        Whether points with more chips are compared with it.
    """

    workload: Workload
    mode: Literal["strong", "weak"]
    chips: int
    batch: int
    micro_batch: int
    reference: bool = False


def scaling_points(
    workloads: Iterable[Workload],
    modes: Iterable[Literal["strong", "weak"]],
    chips: Sequence[int],
    batch: int,
    micro_batch: int,
) -> list[ScalingPoint]:
    """Return all points, the largest last within a network."""
    return [
        ScalingPoint(workload, mode, count, batch, micro_batch, reference=count == min(chips))
        for workload in workloads
        for mode in modes
        for count in sorted(set(chips))
    ]


def scaling_point(machine: Machine, point: ScalingPoint) -> dict[str, Any]:
    """Cost one point; independent of all others, so points can be spread over workers.

    Returns
    -------
    dict
        A plain record; ``segments`` holds the seconds per segment, and ``sample_s``, of a
        reference, what a further sample adds to the step.
    """
    batch = point.batch * (point.chips if point.mode == "weak" else 1)
    plan = machine.plan(point.workload, point.chips, batch, point.micro_batch)
    step = summarise(plan)
    return {
        "network": point.workload.name,
        "mode": point.mode,
        "chips": point.chips,
        "samples_per_step": step.samples,
        "sample_s": _sample_s(machine, point, step) if point.reference else None,
        "step_s": step.step_s,
        "samples_per_s": step.samples_per_s,
        "energy_per_sample_j": step.energy_per_sample_j,
        "utilisation": step.utilisation,
        "limited_by": step.limiting_segment,
        "link_bytes": step.link_bytes,
        "soi_balance": balance(
            plan.held_costs.per_step_s,
            plan.holdings.chip.tolist(),
            plan.work.chips,
            [plan.blocks[number].factor for number in plan.holdings.block],
        ),
        "working_chips": plan.work.chips,
        "pipeline_stages": plan.allocation.stages,
        "weights_fit": bool(plan.allocation.resident.all()),
        "blocks_fit": bool(plan.places.stays.all()),
        "lifetime_s": step.wear.lifetime_s,
        "peak_power_w": step.peak_power_w,
        "rows": step.rows,
        "segments": step.segment_s,
        "exchanges": _exchange_records(plan, step.step_s),
    }


def _sample_s(machine: Machine, point: ScalingPoint, step: StepSummary) -> float:
    """Return the time that a further sample adds to a step."""
    longer = machine.plan(point.workload, point.chips, 2 * step.samples, point.micro_batch)
    return (summarise(longer).step_s - step.step_s) / step.samples


def _exchange_records(plan: Plan, step_s: float) -> list[dict[str, Any]]:
    """Return collective by dimension: its time, what its busiest link carries, and its share of an
    average step.
    """
    every_step, interval = exchanges(plan, factors_due=False), plan.policy.soi.factor_interval
    dimensions = {d.number: d for d in dimensions_for(plan.hardware.interconnect, plan.work.chips)}
    return [
        {
            "collective": op.name,
            "dimension": number,
            "topology": TOPOLOGIES.name_of(dimensions[number].topology),
            "time_s": cost.time_s,
            "link_bytes": carried,
            "link_busy_s": carried * dimensions[number].link_byte_s,
            "share": cost.time_s / step_s / (1 if op in every_step else interval),
        }
        for op, cost in exchanges(plan, factors_due=True).items()
        for number, carried in cost.link_bytes.items()
    ]


@dataclasses.dataclass(frozen=True)
class ScalingJob:
    """A point and the hardware it is costed on: all that decides its record."""

    machine: Machine
    point: ScalingPoint


def cost_job(shared: None, job: ScalingJob) -> dict[str, Any]:
    """Cost one point, here or on a worker."""
    return scaling_point(job.machine, job.point)
