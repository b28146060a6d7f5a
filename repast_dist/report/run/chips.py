"""The section on chips: how busy each one is, and what it does in one step."""

import dataclasses
import functools

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from repast_dist.report import figures, palette
from repast_dist.report.axes import Axis
from repast_dist.report.page import Column, Figure, Frame, Note, Part, Table
from repast_dist.report.run_data import (
    ChipKinds,
    RunData,
    activity,
    block_work,
    chip_kinds,
    refresh_steps,
    step_bars,
)
from repast_dist.report.units import counted, number, percent, si
from repast_dist.trace.query import Totals, step_times, sum_by
from repast_dist.trace.schema import PHASES

_GANTT_CHIPS = 24
_MOST_CHIPS = 32
"""Chips that are all shown for themselves."""


def chips(run: RunData, total: Totals) -> list[Part]:
    """Return figures and a table of the chips' time and energy."""
    if not total.chips:
        return []
    kinds = chip_kinds(total, _MOST_CHIPS)
    shown = run
    if kinds.hidden:
        rows = run.trace.filter(pc.is_in(run.trace["chip"], pa.array(kinds.chips, pa.int32())))
        shown = dataclasses.replace(run, trace=rows)
    parts: list[Part] = [
        _utilisation(total, kinds),
        _chip_energy(shown, kinds),
        *_block_balance(run, kinds),
        _activity_map(shown, kinds),
        *_gantts(shown, len(kinds.chips), len(total.chips)),
        _chip_table(total, kinds),
    ]
    if kinds.hidden:
        alike = (
            f"{kinds.hidden:,} of {len(total.chips):,} chips did what another one did: they are "
        )
        parts.insert(0, Note(f"{alike}shown together, as the first of them + how many more."))
    return parts


def _utilisation(total: Totals, kinds: ChipKinds) -> Figure:
    uses = [total.chips[chip] for chip in kinds.chips.tolist()]
    computing = [use.utilisation for use in uses]
    communicating = [use.communicate_s / total.time_s for use in uses]
    waiting = [max(0.0, 1 - a - b) for a, b in zip(computing, communicating, strict=True)]
    groups = [
        figures.Group("computing", computing, palette.series(0)),
        figures.Group("communicating", communicating, palette.phase("communicate")),
        figures.Group("waiting", waiting, palette.GRID),
    ]
    return figures.bars(
        "What each chip does with its time",
        figures.Bars(kinds.labels, groups, "chip", stacked=True),
        Axis("share of the run's time", "fraction"),
        Frame("Waiting: for slower chips, or because the plan gave the chip less work."),
    )


def _chip_energy(run: RunData, kinds: ChipKinds) -> Figure:
    sums = sum_by(run.trace, ("chip", "phase"), ("energy_j",)).to_pylist()
    numbers = sorted({row["chip"] for row in sums})
    joules = {(row["chip"], row["phase"]): row["energy_j"] for row in sums}
    groups = [
        figures.Group(name, [joules.get((chip, name), 0.0) for chip in numbers])
        for name in PHASES
        if any(row["phase"] == name for row in sums)
    ]
    return figures.bars(
        "Energy of each chip by phase",
        figures.Bars(kinds.labels, groups, "chip", stacked=True),
        Axis("energy", "J"),
    )


def _block_balance(run: RunData, kinds: ChipKinds) -> list[Figure]:
    """Compare the time on SOI blocks per chip with the best that an assignment could reach."""
    work = block_work(run.trace)
    if not work.seconds or len(kinds.chips) < 2:
        return []
    over = max(work.busiest_s / work.bound_s - 1, 0.0)
    shown = np.searchsorted(work.chips, kinds.chips)
    caption = (
        "The slowest chip sets the pace. Lower bound: the mean over chips, or the largest block. "
        f"The busiest chip is {percent(over, 0)} above it."
    )
    groups = [figures.Group(name, values[shown].tolist()) for name, values in work.seconds.items()]
    return [
        figures.bars(
            "Work on SOI blocks per chip",
            figures.Bars(kinds.labels, groups, "chip", stacked=True),
            Axis("time", "s", references={"lower bound": work.bound_s}),
            Frame(caption, wide=True),
        )
    ]


def _activity_map(run: RunData, kinds: ChipKinds) -> Figure:
    busy = activity(run.trace)
    names = [f"chip {label}" for label in kinds.labels]
    return figures.heat_map(
        "Computing time of chips over the run",
        figures.Grid(busy.busy, busy.bin_starts.tolist(), names),
        x=Axis("training step"),
        y=Axis(),
        colour=Axis("busy", "fraction"),
        frame=Frame(
            "Bright: the chip computes all the time. Dark: it waits or communicates.",
            min(140 + 26 * busy.chips.size, 620),
            wide=True,
        ),
    )


def _gantts(run: RunData, n_kinds: int, n_chips: int) -> list[Figure]:
    """Show one step that refreshes the second-order information, and one that does not."""
    times = step_times(run.trace)
    steps, seconds = times["step"].to_numpy(), times["time_s"].to_numpy()
    soi = np.isin(steps, refresh_steps(run.trace))
    chosen = []
    for mask, title in (
        (soi, "One step that refreshes the second-order information"),
        (~soi, "One step that reuses it" if soi.any() else "One step"),
    ):
        if mask.any():
            chosen.append((_typical(steps[mask], seconds[mask]), title))
    spans = pc.subtract(times["end_s"], times["start_s"]).to_numpy()
    longest = max((float(spans[steps == step][0]) for step, _ in chosen), default=0.0)
    drawn = min(n_kinds, _GANTT_CHIPS)
    shown = f"{drawn} of {counted(n_chips, 'chip')}" if drawn < n_chips else "all chips"
    caption = f"Work of {shown}, coloured by phase; drag to zoom in, double-click to zoom out."
    if len(chosen) > 1:
        caption += " Both steps share the time axis."
    parts = []
    for step, title in chosen:
        bars = step_bars(run.trace, step, _GANTT_CHIPS)
        frame = Frame(caption, 150 + 44 * len(bars.lanes))
        named = f"{title} (step {step})"
        parts.append(figures.gantt(named, bars.segments, bars.lanes, longest, frame))
    return parts


def _typical(steps: np.ndarray, seconds: np.ndarray) -> int:
    """Return the step whose time is the median."""
    return int(steps[np.argsort(seconds, kind="stable")[(steps.size - 1) // 2]])


def _chip_table(total: Totals, kinds: ChipKinds) -> Table:
    columns = [
        Column("chip", number, True),
        Column("computing", functools.partial(si, unit="s"), True),
        Column("communicating", functools.partial(si, unit="s"), True),
        Column("utilisation", percent, True),
        Column("energy", functools.partial(si, unit="J"), True),
    ]
    uses = [(chip, total.chips[chip]) for chip in kinds.chips.tolist()]
    rows = [
        [chip, use.compute_s, use.communicate_s, use.utilisation, use.energy_j]
        for chip, use in uses
    ]
    if kinds.hidden:
        columns.append(Column("chips alike", number, True))
        for row, size in zip(rows, kinds.sizes.tolist(), strict=True):
            row.append(size)
    return Table("Chips", columns, rows, folded=len(rows) > 8)
