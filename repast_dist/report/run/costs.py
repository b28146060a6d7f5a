"""The section on cost: simulated time and energy by phase, operation, component and step."""

import functools

from repast_dist.ground.files import TRACE
from repast_dist.report import figures
from repast_dist.report.axes import Axis
from repast_dist.report.page import Column, Figure, Frame, Part, Table
from repast_dist.report.run.wear import wear
from repast_dist.report.run_data import RunData, energy_by_component
from repast_dist.report.units import percent, si
from repast_dist.trace import read_trace
from repast_dist.trace.query import Totals, step_times, sum_by
from repast_dist.trace.schema import PHASES

_SMALLEST_WRITTEN_SHARE = 0.04


def costs(run: RunData, total: Totals) -> list[Part]:
    """Return figures and tables of where the simulated time and energy go."""
    if not total.phases:
        return []
    trees = [_operation_tree(run), *_component_tree(run)]
    return [_phase_shares(total), _phase_table(total), *trees, *wear(run), *_step_costs(run)]


def _phase_shares(total: Totals) -> Figure:
    groups = []
    for name, phase in total.phases.items():
        shares = [phase.share_time, phase.share_energy]
        written = [percent(s, 0) if s >= _SMALLEST_WRITTEN_SHARE else "" for s in shares]
        groups.append(figures.Group(name, shares, texts=written))
    return figures.bars(
        "Share of each phase",
        figures.Bars(["time", "energy"], groups, stacked=True, horizontal=True),
        Axis("share", "fraction"),
        Frame(height_px=230, wide=True),
    )


def _operation_tree(run: RunData) -> Figure:
    by_op = sum_by(run.trace, ("phase", "op"), ("energy_j",)).to_pylist()
    by_op.sort(key=lambda row: (PHASES.index(row["phase"]), -row["energy_j"]))
    return figures.treemap(
        "Energy by phase and operation",
        [
            figures.Leaf(row["phase"], _words(row["op"]), row["energy_j"])
            for row in by_op
            if row["energy_j"] > 0
        ],
        "J",
        "all energy",
        Frame("Areas are proportional to energy. Click a phase to look inside.", 400, wide=True),
    )


def _component_tree(run: RunData) -> list[Figure]:
    per_count = run.result.get("component_energy_j")
    if not per_count:
        return []
    needed = ["phase", "energy_j", "static_j", *per_count]
    joules = energy_by_component(read_trace(run.folder / TRACE, needed), per_count)
    components: dict[str, float] = {}
    for (_, component), value in joules.items():
        components[component] = components.get(component, 0.0) + value
    largest_first = sorted(joules.items(), key=lambda item: -components[item[0][1]])
    caption = (
        "Which parts of the chips the energy goes to. Static: what flows whatever a chip does. "
        "Link: between chips."
    )
    return [
        figures.treemap(
            "Energy by component and phase",
            [
                figures.Leaf(_words(component), phase, value)
                for (phase, component), value in largest_first
                if value > 0
            ],
            "J",
            "all energy",
            Frame(caption, 400, wide=True),
        )
    ]


def _phase_table(total: Totals) -> Table:
    columns = [
        Column("phase"),
        Column("time", functools.partial(si, unit="s"), True),
        Column("share of time", percent, True),
        Column("chip-seconds busy", functools.partial(si, unit="s"), True),
        Column("energy", functools.partial(si, unit="J"), True),
        Column("share of energy", percent, True),
    ]
    rows = [
        [name, p.time_s, p.share_time, p.busy_s, p.energy_j, p.share_energy]
        for name, p in total.phases.items()
    ]
    return Table(
        "Phases",
        columns,
        rows,
        "Phases may overlap on a chip and chips wait for each other, so the times need not add up "
        f"to the run's {si(total.time_s, 's')}.",
    )


def _step_costs(run: RunData) -> list[Figure]:
    steps = step_times(run.trace)
    x, step = steps["step"].to_pylist(), Axis("training step")
    return [
        figures.line(
            "Simulated time of each step",
            [figures.Curve("time", x, steps["time_s"].to_pylist())],
            step,
            Axis("time", "s", from_zero=True),
            Frame("Steps that write refreshed SOI blocks into their arrays stand out."),
        ),
        figures.line(
            "Energy of each step",
            [figures.Curve("energy", x, steps["energy_j"].to_pylist())],
            step,
            Axis("energy", "J", from_zero=True),
        ),
    ]


def _words(op: str) -> str:
    return op.replace("_", " ")
