"""Writes the page of ``study=scaling``: throughput, what limits it, placement and links."""

from collections.abc import Sequence
from typing import Any

from repast_dist.network.shapes import Workload
from repast_dist.planning.machine import Machine
from repast_dist.report.page import KeyFigure, Note
from repast_dist.report.study_page import Chart, StudyPage, StudySection
from repast_dist.report.units import si
from repast_dist.studies.costing import (
    NETWORKS,
    size_section,
    size_table,
    table,
    workload_notes,
)
from repast_dist.studies.scaling.placement import placement_rows

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

Row = dict[str, Any]
Rows = list[Row]

_KEPT = {
    "strong": "The batch stays the same; chips without a micro-batch only help with inversion.",
    "weak": "The batch per chip stays the same, the SOI blocks too: each chip gets fewer of them.",
}


def scaling_page(
    machine: Machine, points: Sequence[Row], workloads: Sequence[Workload]
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
    left_out = ["segments", "exchanges", "sample_s"]
    if machine.policy.partition.idle_chips == "none":
        left_out.append("working_chips")
    records = [_with_efficiency(point, points, left_out) for point in points]
    carried = _exchange_rows(points)
    chips = sorted({point["chips"] for point in points})
    first = workloads[0].name
    modes = list(dict.fromkeys(point["mode"] for point in points))
    largest = max(records, key=lambda record: (record["chips"], record["efficiency"]))
    return StudyPage(
        study="scaling",
        title="Chips and what limits them",
        key_figures=_key_figures(largest),
        answer=f"{largest['network']} on {largest['chips']:,} chips ({largest['mode']} scaling) "
        f"processes {largest['samples_per_s']:,.0f} samples/s at {largest['efficiency']:.0%} "
        f"efficiency; the step is limited by '{largest['limited_by']}'.",
        tables={
            "points": table(records, _UNITS),
            NETWORKS: size_table(workloads),
            "segments": table(_segment_rows(points), _UNITS),
            **({"exchanges": table(carried, _UNITS)} if carried else {}),
            "placement": table(
                placement_rows(workloads, machine, chips), {"efficiency": "fraction"}
            ),
        },
        sections=[
            *(_mode_section(mode, first) for mode in modes),
            _placement_section(first),
            *_link_sections(bool(carried), first, modes),
            StudySection("All points", tables=["points", "segments"]),
            size_section(),
        ],
        sources=[("interconnect", machine.hardware.interconnect.source)],
        notes=[
            *_notes(records),
            *map(Note, idle_chips(machine, points)),
            *workload_notes(workloads),
        ],
    )


def idle_chips(machine: Machine, points: Sequence[Row]) -> list[str]:
    """Return a line on chips that are switched off, where they may be."""
    if machine.policy.partition.idle_chips == "none":
        return []
    fewer = [
        f"{point['working_chips']:,} of {point['chips']:,} ({point['network']}, {point['mode']})"
        for point in points
        if point["working_chips"] < point["chips"]
    ]
    who = f"only so many chips work: {', '.join(fewer)}" if fewer else "all chips work"
    return [f"With partition.idle_chips=auto {who}."]


def _segment_rows(points: Sequence[Row]) -> Rows:
    return [
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


def _exchange_rows(points: Sequence[Row]) -> Rows:
    return [
        {
            **{name: point[name] for name in ("network", "mode", "chips")},
            **item,
            "collective": item["collective"].replace("_", " "),
        }
        for point in points
        for item in point["exchanges"]
    ]


def _mode_section(mode: str, network: str) -> StudySection:
    curves = [
        Chart(
            "line", "points", title, x="chips", y=column, series="network", where={"mode": mode},
            log_x=True, log_y=log,
        )
        for title, column, log in (
            ("Throughput", "samples_per_s", True),
            ("Efficiency: the fewest chips' time for the same step, per chip", "efficiency", False),
            ("Energy per sample", "energy_per_sample_j", True),
        )
    ]  # fmt: skip
    shares = Chart(
        "bars", "segments", f"Where the time goes: {network}", x="chips", y="share",
        series="segment", where={"mode": mode, "network": network}, stacked=True,
    )  # fmt: skip
    return StudySection(f"{mode.capitalize()} scaling", charts=[*curves, shares], intro=_KEPT[mode])


def _placement_section(network: str) -> StudySection:
    chart = Chart(
        "line", "placement", f"Balance of inversion work: {network}", x="chips", y="efficiency",
        series="placement", where={"network": network}, log_x=True,
    )  # fmt: skip
    return StudySection(
        "Placement of SOI work",
        charts=[chart],
        tables=["placement"],
        intro="Mean work over the busiest chip's. Whole layers by cost n^3, as K-FAC libraries "
        "place them, against blocks by modelled cost.",
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
            intro="Each collective takes its time once per step, that of factors once per "
            "soi.factor_interval steps (shares of the average step); its bytes go over the busiest "
            "link of every dimension of the network, which is busy for link_busy of that time.",
        )
    ]


def _notes(records: Sequence[dict[str, Any]]) -> list[Note]:
    """Say what a reader would stumble over."""
    notes = []
    if any(record["efficiency"] > 1.005 for record in records):
        notes.append(
            Note(
                "Efficiency above 100 %: with more chips, each has more arrays per block and "
                "layer. Where few chips cannot hold all (columns weights_fit, blocks_fit), weights "
                "or blocks are written more often."
            )
        )
    return notes


def _key_figures(largest: dict[str, Any]) -> list[KeyFigure]:
    where = f"{largest['network']}, {largest['chips']:,} chips, {largest['mode']}"
    return [
        KeyFigure(label, shown(largest[name]), where, number=largest[name], unit=unit)
        for label, name, unit, shown in (
            ("throughput", "samples_per_s", "1/s", lambda value: si(value, "1/s")),
            ("efficiency", "efficiency", "fraction", "{:.0%}".format),
            ("energy per sample", "energy_per_sample_j", "J", lambda value: si(value, "J")),
        )
    ]


def _with_efficiency(
    point: dict[str, Any], points: Sequence[dict[str, Any]], left_out: Sequence[str]
) -> dict[str, Any]:
    """Add the efficiency: the time that the fewest chips take for the same samples, over the time
    taken, per chip. Chips that are switched off count.
    """
    alike = [p for p in points if (p["network"], p["mode"]) == (point["network"], point["mode"])]
    first = min(alike, key=lambda p: p["chips"])
    further = point["samples_per_step"] - first["samples_per_step"]
    chip_s = (first["step_s"] + further * first["sample_s"]) * first["chips"]
    record = {name: value for name, value in point.items() if name not in left_out}
    return record | {"efficiency": chip_s / (point["step_s"] * point["chips"])}
