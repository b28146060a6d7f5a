"""``study=scaling``: how a step grows with chips, on networks, interconnects and placements.

Strong scaling keeps the batch, weak scaling the batch per chip. Nothing is simulated: each point
is a plan and its average step.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console

from repast_dist.hardware.topology import TOPOLOGIES
from repast_dist.network.shapes import Workload
from repast_dist.network.workload import WorkloadSpec, build_workload
from repast_dist.planning.blocks import soi_blocks
from repast_dist.planning.collectives import dimensions_for, links_of
from repast_dist.planning.exchanges import exchanges
from repast_dist.planning.machine import Machine
from repast_dist.planning.owners import balance, block_owners
from repast_dist.planning.plan import Plan
from repast_dist.planning.summary import summarise
from repast_dist.report.console import data_table
from repast_dist.report.page import KeyFigure, Note
from repast_dist.report.study_page import Chart, StudyPage, StudySection
from repast_dist.report.units import si
from repast_dist.studies.costing import chosen_workload, table, workload_notes
from repast_dist.studies.kinds.scaling import ScalingStudy
from repast_dist.studies.output import begin, finish
from repast_dist.studies.points import run_points
from repast_dist.studies.settings import RunSettings

_UNITS = {
    "step_s": "s",
    "samples_per_s": "1/s",
    "efficiency": "fraction",
    "energy_per_sample_j": "J",
    "utilisation": "fraction",
    "link_bytes": "B",
    "link_busy_s": "s",
    "lifetime_s": "s",
    "time_s": "s",
    "share": "fraction",
    "peak_power_w": "W",
}


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
    """

    workload: Workload
    mode: Literal["strong", "weak"]
    chips: int
    batch: int
    micro_batch: int


def scaling_points(
    workloads: Iterable[Workload],
    modes: Iterable[Literal["strong", "weak"]],
    chips: Sequence[int],
    batch: int,
    micro_batch: int,
) -> list[ScalingPoint]:
    """Return all points, the largest last within a network."""
    return [
        ScalingPoint(workload, mode, count, batch, micro_batch)
        for workload in workloads
        for mode in modes
        for count in sorted(set(chips))
    ]


def scaling_point(machine: Machine, point: ScalingPoint) -> dict[str, Any]:
    """Cost one point; independent of all others, so points can be spread over workers.

    Returns
    -------
    dict
        A plain record; ``segments`` holds the seconds per segment.
    """
    batch = point.batch * (point.chips if point.mode == "weak" else 1)
    plan = machine.plan(point.workload, point.chips, batch, point.micro_batch)
    step = summarise(plan)
    return {
        "network": point.workload.name,
        "mode": point.mode,
        "chips": point.chips,
        "samples_per_step": step.samples,
        "step_s": step.step_s,
        "samples_per_s": step.samples_per_s,
        "energy_per_sample_j": step.energy_per_sample_j,
        "utilisation": step.utilisation,
        "limited_by": step.limiting_segment,
        "link_bytes": step.link_bytes,
        "soi_balance": balance(
            plan.held_cost_s,
            plan.holdings.chip.tolist(),
            point.chips,
            [plan.blocks[number].factor for number in plan.holdings.block],
        ),
        "pipeline_stages": plan.allocation.stages,
        "weights_fit": bool(plan.allocation.resident.all()),
        "blocks_fit": not plan.crowded.any(),
        "lifetime_s": step.lifetime_s,
        "peak_power_w": step.peak_power_w,
        "rows": step.rows,
        "segments": step.segment_s,
        "exchanges": _exchange_records(plan, step.step_s),
    }


def _exchange_records(plan: Plan, step_s: float) -> list[dict[str, Any]]:
    """Return collective by dimension: its time, and what its busiest link carries."""
    dimensions = {d.number: d for d in dimensions_for(plan.hardware.interconnect, plan.work.chips)}
    return [
        {
            "collective": op.name,
            "dimension": number,
            "topology": TOPOLOGIES.name_of(dimensions[number].topology),
            "time_s": cost.time_s,
            "link_bytes": carried,
            "link_busy_s": carried
            * links_of(dimensions[number])
            / dimensions[number].topology.bandwidth_bytes_per_s,
            "share": cost.time_s / step_s,
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


def scaling(
    machine: Machine, points: Sequence[dict[str, Any]], workloads: Sequence[Workload]
) -> StudyPage:
    """Make the study's page of costed points.

    Parameters
    ----------
    machine : Machine
        What was costed.
    points : sequence of dict
        Records of `scaling_point`.
    workloads : sequence of Workload
        The networks in them.
    """
    records = [_with_efficiency(point, points) for point in points]
    segments = [
        {
            "network": point["network"],
            "mode": point["mode"],
            "chips": str(point["chips"]),
            "segment": name,
            "time_s": seconds,
            "share": seconds / point["step_s"],
        }
        for point in points
        for name, seconds in point["segments"].items()
    ]
    carried = [
        {name: point[name] for name in ("network", "mode", "chips")} | item
        for point in points
        for item in point["exchanges"]
    ]
    networks = [workload.name for workload in workloads]
    chips = sorted({point["chips"] for point in points})
    placement = placement_rows(workloads, machine, chips)
    largest = max(records, key=lambda record: (record["chips"], record["efficiency"]))
    modes = list(dict.fromkeys(point["mode"] for point in points))
    return StudyPage(
        study="scaling",
        title="Chips and what limits them",
        key_figures=_key_figures(largest),
        answer=f"{largest['network']} on {largest['chips']:,} chips ({largest['mode']} scaling) "
        f"processes {largest['samples_per_s']:,.0f} samples/s at {largest['efficiency']:.0%} "
        f"efficiency; the step is limited by '{largest['limited_by']}'.",
        tables={
            "points": table(records, _UNITS),
            "segments": table(segments, _UNITS),
            **({"exchanges": table(carried, _UNITS)} if carried else {}),
            "placement": table(placement, {"efficiency": "fraction"}),
        },
        sections=[
            StudySection(
                f"{mode.capitalize()} scaling",
                charts=[
                    Chart(
                        "line",
                        "points",
                        title,
                        x="chips",
                        y=column,
                        series="network",
                        where={"mode": mode},
                        log_x=True,
                        log_y=log,
                    )
                    for title, column, log in (
                        ("Throughput", "samples_per_s", True),
                        ("Efficiency", "efficiency", False),
                        ("Energy per sample", "energy_per_sample_j", True),
                    )
                ]
                + [
                    Chart(
                        "bars",
                        "segments",
                        f"Where the time goes: {networks[0]}",
                        x="chips",
                        y="share",
                        series="segment",
                        where={"mode": mode, "network": networks[0]},
                        stacked=True,
                    )
                ],
                intro="The batch stays the same; chips without a micro-batch only help with "
                "inversion."
                if mode == "strong"
                else "The batch per chip stays the same.",
            )
            for mode in modes
        ]
        + [
            StudySection(
                "Placement of SOI work",
                charts=[
                    Chart(
                        "line",
                        "placement",
                        f"Balance of inversion work: {networks[0]}",
                        x="chips",
                        y="efficiency",
                        series="placement",
                        where={"network": networks[0]},
                        log_x=True,
                    )
                ],
                tables=["placement"],
                intro="Mean work over the busiest chip's. Whole layers by cost n^3, as K-FAC "
                "libraries place them, against blocks by modelled cost.",
            ),
            *_link_sections(bool(carried), networks[0], modes),
            StudySection("All points", tables=["points", "segments"]),
        ],
        sources=[("interconnect", machine.hardware.interconnect.source)],
        notes=[*_notes(records), *workload_notes(workloads)],
    )


def _link_sections(there: bool, network: str, modes: Sequence[str]) -> list[StudySection]:
    """Show what links carry; one chip has none."""
    if not there:
        return []
    return [
        StudySection(
            "Between chips",
            charts=[
                Chart(
                    "bars",
                    "exchanges",
                    f"Collectives of {network}, {mode} scaling",
                    x="chips",
                    y="share",
                    series="collective",
                    where={"mode": mode, "network": network, "dimension": 0},
                    stacked=True,
                )
                for mode in modes
            ],
            tables=["exchanges"],
            intro="Each collective takes its time once per step (shares of the step); its bytes "
            "go over the busiest link of every dimension of the network, which is busy for "
            "link_busy of that time.",
        )
    ]


def _notes(records: Sequence[dict[str, Any]]) -> list[Note]:
    """Say what a reader would stumble over."""
    notes = []
    if any(record["efficiency"] > 1.005 for record in records):
        notes.append(
            Note(
                "Efficiency above 100 %: with few chips the SOI blocks or the weights do not fit "
                "their arrays and are written again and again (columns blocks_fit, weights_fit)."
            )
        )
    return notes


def placement_rows(
    workloads: Sequence[Workload], machine: Machine, chips: Sequence[int]
) -> list[dict[str, Any]]:
    """Return the balance of inversion work: whole factors and split blocks, with cost n^3."""
    rows = []
    for workload in workloads:
        for count in chips:
            for label, efficiency in _placements(workload, machine.policy.soi.block_size, count):
                rows.append(
                    {
                        "network": workload.name,
                        "chips": count,
                        "placement": label,
                        "efficiency": efficiency,
                    }
                )
    return rows


def _placements(workload: Workload, block_size: int, chips: int) -> list[tuple[str, float]]:
    widest = max(
        (max(layer.factor_a_size, layer.factor_g_size) for layer in workload.layers), default=1
    )
    found = []
    for label, size, strategy in (
        ("whole layers (n^3)", max(widest, 1), "layer"),
        ("blocks, round robin", block_size, "round_robin"),
        ("blocks, longest first", block_size, "lpt"),
    ):
        blocks = soi_blocks(workload, size)
        work = np.array([float(block.size) ** 3 for block in blocks])
        owner = block_owners(blocks, work, chips, strategy)  # type: ignore[arg-type]
        kinds = [block.factor for block in blocks]
        found.append((label, balance(work, owner, chips, kinds)))
    return found


def _key_figures(largest: dict[str, Any]) -> list[KeyFigure]:
    where = f"{largest['network']}, {largest['chips']:,} chips, {largest['mode']}"
    return [
        KeyFigure(label, shown(largest[name]), where, number=largest[name], unit=unit)
        for label, name, unit, shown in (
            ("samples/s", "samples_per_s", "1/s", "{:,.0f}".format),
            ("efficiency", "efficiency", "fraction", "{:.0%}".format),
            ("energy per sample", "energy_per_sample_j", "J", lambda value: si(value, "J")),
        )
    ]


def _with_efficiency(point: dict[str, Any], points: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Add throughput per chip relative to the smallest count of chips."""
    alike = [p for p in points if (p["network"], p["mode"]) == (point["network"], point["mode"])]
    first = min(alike, key=lambda p: p["chips"])
    per_chip = point["samples_per_s"] / point["chips"]
    record = {name: value for name, value in point.items() if name not in ("segments", "exchanges")}
    return record | {"efficiency": per_chip / (first["samples_per_s"] / first["chips"])}


def run(study: ScalingStudy, settings: RunSettings, run_dir: Path | None, console: Console) -> Path:
    """Cost all points of the settings."""
    machine = settings.machine
    if study.networks:
        workloads = [build_workload(WorkloadSpec(name=name)) for name in study.networks]
    else:
        workloads = [chosen_workload(settings)]
    points = scaling_points(
        workloads, study.modes, study.chips, study.batch_size, study.micro_batch_size
    )
    folder = begin(settings, run_dir)
    records = run_points(
        cost_job,
        # The largest points take longest: first, so that no worker waits for the last one.
        [ScalingJob(machine, point) for point in points][::-1],
        run_dir=folder,
        farm=settings.farm,
        console=console,
        title="costing",
        reuse=study.reuse,
    )[::-1]
    page = scaling(machine, records, workloads)
    shown = page.tables["points"].select(
        ["network", "mode", "chips", "step_s", "samples_per_s", "efficiency",
         "energy_per_sample_j", "limited_by"]
    )  # fmt: skip
    console.print(data_table("Scaling", shown))
    return finish(page, settings, console, folder)
