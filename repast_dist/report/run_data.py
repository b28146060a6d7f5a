"""Reads a run directory for a report: result.json, the trace and the solve reports."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from repast_dist.ground.files import RESULT, TRACE, checked_entries, read_json
from repast_dist.trace.query import Totals, busy_times, phase_codes, step_times, sum_by
from repast_dist.trace.reader import read_solves, read_trace
from repast_dist.trace.schema import PHASES, Phase

HEAT_BINS = 160


@dataclasses.dataclass(frozen=True)
class RunData:
    """The content of a run directory.

    Attributes
    ----------
    folder : Path
        The run directory.
    result : dict
        Content of ``result.json``.
    trace : pyarrow.Table
        The cost trace without the columns that no report shows.
    solves : pyarrow.Table
        Solve reports; no rows for first-order training.
    """

    folder: Path
    result: dict[str, Any]
    trace: pa.Table
    solves: pa.Table


_ENTRIES = {"settings": dict, "epochs": list, "steps": list, "status": str}


def load_run(folder: Path) -> RunData:
    """Read a run directory.

    Raises
    ------
    RunDirectoryError
        result.json or the trace is missing or damaged.
    """
    result = read_json(folder / RESULT)
    checked_entries(folder / RESULT, result, _ENTRIES)
    for name in ("epochs", "steps"):
        for record in result[name]:
            checked_entries(folder / RESULT, record, {"step": int})
    columns = ["chip", "step", "phase", "op", "block", "start_s", "duration_s", "energy_j"]
    return RunData(
        folder=folder,
        result=without_meaningless(result),
        trace=read_trace(folder / TRACE, columns),
        solves=read_solves(folder),
    )


def without_meaningless(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return a result without the figures that have no meaning for its task.

    A network that reconstructs its input has no accuracy, one that classifies no squared error.
    """
    # Of a loss of one's own, its likelihood tells.
    losses = {setting(result, "model.loss", "cross_entropy"), setting(result, "model.likelihood")}
    classifies = bool(losses & {"cross_entropy", "next_token"})
    unwanted = "squared_error" if classifies else "accuracy"
    kept = {
        name: [
            {key: value for key, value in record.items() if unwanted not in key}
            for record in result.get(name, [])
        ]
        for name in ("epochs", "steps")
    }
    return {**result, **kept}


def setting(result: Mapping[str, Any], path: str, default: Any = None) -> Any:
    """Return one setting by dotted path."""
    node: Any = result.get("settings", {})
    for name in path.split("."):
        if not isinstance(node, Mapping) or name not in node:
            return default
        node = node[name]
    return node


def energy_by_component(
    trace: pa.Table, per_count: Mapping[str, Mapping[str, float]]
) -> dict[tuple[str, str], float]:
    """Return (phase, component) -> energy in joules; all of them add up to that of the trace.

    Parameters
    ----------
    trace : pyarrow.Table
        The trace.
    per_count : mapping
        Count -> component -> joules of one, as ``component_energy_j`` of ``result.json``.
        What is left of a row's energy beside its static part went over links between chips.
    """
    counts = [name for name in per_count if name in trace.column_names]
    sums = sum_by(trace, ("phase",), (*counts, "energy_j", "static_j")).to_pylist()
    found: dict[tuple[str, str], float] = {}
    for row in sums:
        phase, left = row["phase"], row["energy_j"] - row["static_j"]
        found[phase, "static"] = row["static_j"]
        for count in counts:
            for component, joules in per_count[count].items():
                part = row[count] * joules
                found[phase, component] = found.get((phase, component), 0.0) + part
                left -= part
        if phase == Phase.COMMUNICATE:
            found[phase, "link"] = left
    return found


@dataclasses.dataclass(frozen=True)
class BlockWork:
    """How the time on SOI blocks is spread over chips.

    Attributes
    ----------
    chips : ndarray
        (chips,) chip numbers, ascending.
    seconds : dict
        Phase -> (chips,) summed durations of the rows that belong to a block.
    bound_s : float
        Lower bound of the busiest chip's time over all assignments of whole blocks: the mean
        over chips or the largest block, whichever is longer.
    """

    chips: np.ndarray
    seconds: dict[str, np.ndarray]
    bound_s: float

    @property
    def busiest_s(self) -> float:
        """Return the time of the chip with the most work."""
        return float(np.max(sum(self.seconds.values(), np.zeros(1))))


def block_work(trace: pa.Table) -> BlockWork:
    """Return how the time on SOI blocks is spread over the chips of a trace."""
    rows = trace.filter(pc.greater_equal(trace["block"], 0))
    chips = np.unique(trace["chip"].to_numpy())
    sums = sum_by(rows, ("chip", "phase", "block"), ("duration_s",)).to_pylist()
    seconds = {name: np.zeros(chips.size) for name in PHASES}
    blocks: dict[int, float] = {}
    for row in sums:
        seconds[row["phase"]][np.searchsorted(chips, row["chip"])] += row["duration_s"]
        blocks[row["block"]] = blocks.get(row["block"], 0.0) + row["duration_s"]
    mean = sum(blocks.values()) / max(chips.size, 1)
    bound = max(mean, max(blocks.values(), default=0.0))
    worked = {name: values for name, values in seconds.items() if values.any()}
    return BlockWork(chips, worked, bound)


@dataclasses.dataclass(frozen=True)
class ChipKinds:
    """Chips that did the same, so that one of them is shown for all.

    Attributes
    ----------
    chips : ndarray
        (kinds,) number of the first chip of each, ascending.
    sizes : ndarray
        (kinds,) chips of each.
    """

    chips: np.ndarray
    sizes: np.ndarray

    @property
    def labels(self) -> list[str]:
        """Names of the kinds."""
        pairs = zip(self.chips.tolist(), self.sizes.tolist(), strict=True)
        return [f"{chip}" if size == 1 else f"{chip} +{size - 1:,}" for chip, size in pairs]

    @property
    def hidden(self) -> int:
        """Chips that are not shown."""
        return int(self.sizes.sum()) - len(self.sizes)


def chip_kinds(total: Totals, most: int) -> ChipKinds:
    """Return which chips did the same, by their times and energies to nine digits; of no more than
    `most` chips, each is shown for itself.
    """
    chips = np.array(sorted(total.chips), np.int64)
    if len(chips) <= most:
        return ChipKinds(chips, np.ones(len(chips), np.int64))
    kinds: dict[tuple[str, ...], list[int]] = {}
    for chip in chips.tolist():
        use = total.chips[chip]
        key = tuple(f"{x:.8e}" for x in (use.compute_s, use.communicate_s, use.energy_j))
        kinds.setdefault(key, []).append(chip)
    firsts = np.array([same[0] for same in kinds.values()])
    return ChipKinds(firsts, np.array([len(same) for same in kinds.values()]))


@dataclasses.dataclass(frozen=True)
class Activity:
    """How busy each chip was over the run.

    Attributes
    ----------
    bin_starts : ndarray
        (bins,) first step of each bin.
    chips : ndarray
        (chips,) chip numbers.
    busy : ndarray
        (chips, bins) computing time over elapsed time, 0 to 1.
    """

    bin_starts: np.ndarray
    chips: np.ndarray
    busy: np.ndarray


def activity(trace: pa.Table) -> Activity:
    """Return the busy fraction of every chip in bins of equally many steps."""
    times = step_times(trace)
    steps = times["step"].to_numpy()
    compute = trace.filter(pc.not_equal(trace["phase"].cast(pa.string()), Phase.COMMUNICATE.value))
    groups, busy_s = busy_times(compute, ("chip", "step"))
    chips = np.unique(trace["chip"].to_numpy())
    bins = min(HEAT_BINS, steps.size)
    bin_of_step = np.arange(steps.size) * bins // max(steps.size, 1)
    elapsed = np.bincount(bin_of_step, times["time_s"].to_numpy(), minlength=bins)
    busy = np.zeros((chips.size, bins))
    rows = np.searchsorted(chips, groups["chip"])
    np.add.at(busy, (rows, bin_of_step[np.searchsorted(steps, groups["step"])]), busy_s)
    starts = steps[np.searchsorted(bin_of_step, np.arange(bins))] if bins else steps
    # Work of steps that overlap may take longer than it is until the next step begins.
    return Activity(starts, chips, np.minimum(busy / np.where(elapsed > 0, elapsed, 1.0), 1.0))


def refresh_steps(trace: pa.Table) -> np.ndarray:
    """Return the steps that write SOI blocks into their arrays (ascending)."""
    programs = pc.equal(trace["phase"].cast(pa.string()), Phase.PROGRAM.value)
    of_block = pc.greater_equal(trace["block"], 0)
    return np.unique(trace["step"].filter(pc.and_(programs, of_block)).to_numpy())


@dataclasses.dataclass(frozen=True)
class StepBars:
    """Bars of one step for a Gantt chart.

    Attributes
    ----------
    segments : dict
        Phase -> list of (start_s since the step's start, duration_s, centre, height).
    lanes : dict
        Chip label -> (lowest, highest) position.
    """

    segments: dict[str, list[tuple[float, float, float, float]]]
    lanes: dict[str, tuple[float, float]]


def step_bars(trace: pa.Table, step: int, max_chips: int) -> StepBars:
    """Return the bars of one step; adjoining work of one phase on one chip is one bar.

    Of more than `max_chips` chips, evenly spaced ones are taken, the first and last among them.
    Phases that overlap on a chip (on different banks) get lanes of their own.
    """
    rows = trace.filter(pc.equal(trace["step"], step))
    chips = np.unique(rows["chip"].to_numpy())
    if chips.size > max_chips:
        chips = chips[np.linspace(0, chips.size - 1, max_chips).astype(int)]
    origin = float(np.min(rows["start_s"].to_numpy()))
    segments: dict[str, list[tuple[float, float, float, float]]] = {}
    lanes: dict[str, tuple[float, float]] = {}
    for position, chip in enumerate(chips):
        mine = rows.filter(pc.equal(rows["chip"], int(chip)))
        pieces = _merged(mine)
        placed, n_lanes = _lanes(pieces)
        for (code, start, end), lane in zip(pieces, placed, strict=True):
            centre = position + (lane + 0.5) / n_lanes * 0.86 - 0.43
            bar = (start - origin, end - start, centre, 0.8 * 0.86 / n_lanes)
            segments.setdefault(PHASES[code], []).append(bar)
        lanes[f"chip {chip}"] = (position - 0.43, position + 0.43)
    return StepBars({name: segments[name] for name in PHASES if name in segments}, lanes)


def _merged(rows: pa.Table) -> list[tuple[int, float, float]]:
    """Return (phase code, start, end) with touching rows of one phase merged, by start."""
    codes, starts = phase_codes(rows), rows["start_s"].to_numpy()
    ends = starts + rows["duration_s"].to_numpy()
    pieces: list[tuple[int, float, float]] = []
    for code in np.unique(codes):
        order = np.flatnonzero(codes == code)
        order = order[np.argsort(starts[order], kind="stable")]
        reach = np.maximum.accumulate(ends[order])
        # Rounding of a sum of many durations must not split what is one piece of work.
        slack = 1e-9 * np.abs(reach[:-1])
        new = np.flatnonzero(np.r_[True, starts[order][1:] > reach[:-1] + slack])
        last = np.r_[new[1:], order.size] - 1
        pieces += zip([int(code)] * new.size, starts[order][new], reach[last], strict=True)
    return sorted(pieces, key=lambda piece: (piece[1], piece[0]))


def _lanes(pieces: list[tuple[int, float, float]]) -> tuple[list[int], int]:
    """Put each piece into the first lane that is free at its start."""
    free_at: list[float] = []
    placed = []
    for _, start, end in pieces:
        lane = next(
            (i for i, free in enumerate(free_at) if free <= start + 1e-9 * abs(start)),
            len(free_at),
        )
        if lane == len(free_at):
            free_at.append(end)
        free_at[lane] = end
        placed.append(lane)
    return placed, max(len(free_at), 1)
