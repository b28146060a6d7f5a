"""Sums time and energy of a trace per phase, per chip and per step.

Rows of one chip may overlap, since its banks work at the same time; chips work at the same time,
too. The *busy time* of a chip in a step is the length of the union of its rows' intervals; a
phase's busy time is that of its rows alone. The *time of a phase* in a step is the busy time of the
chip that spends longest in it; the *time of a step* runs from the first start to the last end over
all chips, or until the next step begins, where that is earlier. Energies are added up.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from repast_dist.trace.schema import COUNTS, PHASES, Phase


@dataclasses.dataclass(frozen=True)
class PhaseTotal:
    """Sums over the run for one phase.

    Attributes
    ----------
    time_s : float
        Sum over steps of the slowest chip's busy time in the phase.
    busy_s : float
        Sum over steps and chips of the busy time in the phase (chip-seconds).
    energy_j : float
        Sum over all rows.
    share_time, share_energy : float
        Fraction of the sum over phases.
    """

    time_s: float
    busy_s: float
    energy_j: float
    share_time: float
    share_energy: float


@dataclasses.dataclass(frozen=True)
class ChipUse:
    """Sums over the run for one chip.

    Attributes
    ----------
    compute_s : float
        Busy time in all phases except ``communicate``.
    communicate_s : float
        Busy time in the phase ``communicate`` while the chip does not compute.
    energy_j : float
        Sum over the chip's rows.
    utilisation : float
        `compute_s` divided by the run's time.
    """

    compute_s: float
    communicate_s: float
    energy_j: float
    utilisation: float


@dataclasses.dataclass(frozen=True)
class Totals:
    """Sums over the whole run.

    Attributes
    ----------
    time_s : float
        Sum of the times of all steps, in simulated seconds.
    energy_j : float
        Sum over all rows.
    phases : dict
        Phase name -> `PhaseTotal`, for phases that occur, in the order of `PHASES`.
    chips : dict
        Chip number -> `ChipUse`.
    counts : dict
        Column name -> sum, for the columns of counts and bytes.
    steps : int
        Steps in the trace.
    """

    time_s: float
    energy_j: float
    phases: dict[str, PhaseTotal]
    chips: dict[int, ChipUse]
    counts: dict[str, int]
    steps: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain nested data with text keys, as stored in ``result.json``."""
        plain = dataclasses.asdict(self)
        plain["chips"] = {str(chip): use for chip, use in plain["chips"].items()}
        return plain


def totals(table: pa.Table) -> Totals:
    """Return the sums over a trace: the whole run, its phases and its chips.

    Parameters
    ----------
    table : pyarrow.Table
        Rows with at least chip, step, phase, start_s, duration_s, energy_j.

    Returns
    -------
    Totals
        All sums are zero if there are no rows.
    """
    steps = step_times(table)
    time_s = float(np.sum(steps["time_s"].to_numpy()))
    energy = sum_by(table, ("phase",), ("energy_j",))
    energies = dict(zip(energy["phase"].to_pylist(), energy["energy_j"].to_pylist(), strict=True))
    return Totals(
        time_s=time_s,
        energy_j=float(np.sum(table["energy_j"].to_numpy())),
        phases=_phase_totals(table, energies),
        chips=_chip_use(table, time_s, _overlap(steps)),
        counts={
            name: pc.sum(table[name]).as_py() or 0 for name in COUNTS if name in table.schema.names
        },
        steps=steps.num_rows,
    )


def step_times(table: pa.Table) -> pa.Table:
    """Return step, start_s, end_s, time_s and energy_j, a row per step.

    ``time_s`` is that from the first start to the last end, ``end_s``, or to the start of the next
    step, which may begin before.
    """
    ends = pc.add(table["start_s"], table["duration_s"])
    grouped = (
        table.select(["step", "start_s", "energy_j"])
        .append_column("end_s", ends)
        .group_by("step")
        .aggregate([("start_s", "min"), ("end_s", "max"), ("energy_j", "sum")])
        .sort_by("step")
    )
    start, end = (grouped[name].to_numpy() for name in ("start_s_min", "end_s_max"))
    left = end.copy()
    # The end of a step, a sum of many durations, is rounded otherwise than the next one's start.
    early = start[1:] < end[:-1] - 1e-9 * np.abs(end[:-1])
    left[:-1][early] = start[1:][early]
    return pa.table(
        {
            "step": grouped["step"],
            "start_s": grouped["start_s_min"],
            "end_s": grouped["end_s_max"],
            "time_s": left - start,
            "energy_j": grouped["energy_j_sum"],
        }
    )


def sum_by(table: pa.Table, keys: Sequence[str], values: Sequence[str]) -> pa.Table:
    """Return the sums of `values` per combination of `keys`, under their own names.

    Summing ``duration_s`` adds up overlapping work; for elapsed time see `busy_times`.
    """
    plain = table.select([*keys, *values])
    for name in keys:
        if pa.types.is_dictionary(plain.schema.field(name).type):
            index = plain.schema.get_field_index(name)
            plain = plain.set_column(index, name, plain[name].cast(pa.string()))
    grouped = plain.group_by(list(keys)).aggregate([(name, "sum") for name in values])
    return grouped.rename_columns([*keys, *values]).select([*keys, *values])


def busy_times(table: pa.Table, keys: Sequence[str]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the length of the union of the rows' intervals, per combination of integer `keys`.

    Parameters
    ----------
    table : pyarrow.Table
        Rows with `keys`, start_s and duration_s; "phase" counts as its index in `PHASES`.
    keys : sequence of str
        Columns that make up a group.

    Returns
    -------
    (dict, ndarray)
        Key name -> values per group; busy seconds per group (float64).
    """
    codes = [phase_codes(table) if key == "phase" else table[key].to_numpy() for key in keys]
    start = table["start_s"].to_numpy()
    if start.size == 0:
        return {key: np.empty(0, np.int64) for key in keys}, np.empty(0)
    order = np.lexsort([start, *reversed(codes)])
    sorted_codes = [code[order] for code in codes]
    start, end = start[order], start[order] + table["duration_s"].to_numpy()[order]
    first = np.ones(order.size, bool)
    first[1:] = np.any([code[1:] != code[:-1] for code in sorted_codes], axis=0)
    covered_to = _running_max(end, first)
    previous = np.empty_like(covered_to)
    previous[1:] = covered_to[:-1]
    previous[first] = start[first]
    added = np.maximum(end - np.maximum(start, previous), 0.0)
    edges = np.flatnonzero(first)
    groups = {key: code[edges] for key, code in zip(keys, sorted_codes, strict=True)}
    return groups, np.add.reduceat(added, edges)


def phase_codes(table: pa.Table) -> np.ndarray:
    """Return the index in `PHASES` of every row's phase (int64)."""
    column = table["phase"]
    if pa.types.is_dictionary(column.type):
        column = column.cast(pa.string())
    return pc.index_in(column, pa.array(PHASES)).to_numpy().astype(np.int64)


def _phase_totals(table: pa.Table, energies: Mapping[str, float]) -> dict[str, PhaseTotal]:
    groups, busy = busy_times(table, ("step", "phase", "chip"))
    time_s, busy_s = np.zeros(len(PHASES)), np.zeros(len(PHASES))
    if busy.size:
        changed = np.diff(groups["step"]) | np.diff(groups["phase"])
        edges = np.flatnonzero(np.r_[True, changed != 0])
        np.add.at(time_s, groups["phase"][edges], np.maximum.reduceat(busy, edges))
        np.add.at(busy_s, groups["phase"], busy)
    all_time, all_energy = float(time_s.sum()), float(sum(energies.values()))
    return {
        name: PhaseTotal(
            time_s=float(time_s[index]),
            busy_s=float(busy_s[index]),
            energy_j=energies[name],
            share_time=float(time_s[index]) / all_time if all_time else 0.0,
            share_energy=energies[name] / all_energy if all_energy else 0.0,
        )
        for index, name in enumerate(PHASES)
        if name in energies
    }


def _overlap(steps: pa.Table) -> bool:
    """Return whether steps begin before the ones before them have ended."""
    spans = pc.subtract(steps["end_s"], steps["start_s"]).to_numpy()
    return bool((steps["time_s"].to_numpy() < spans).any())


def _chip_use(table: pa.Table, time_s: float, overlap: bool) -> dict[int, ChipUse]:
    compute = table.filter(pc.not_equal(table["phase"].cast(pa.string()), Phase.COMMUNICATE.value))
    compute_s, all_s = _busy_per_chip(compute, overlap), _busy_per_chip(table, overlap)
    energy = sum_by(table, ("chip",), ("energy_j",)).sort_by("chip")
    return {
        chip: ChipUse(
            compute_s=compute_s.get(chip, 0.0),
            communicate_s=all_s[chip] - compute_s.get(chip, 0.0),
            energy_j=energy_j,
            utilisation=compute_s.get(chip, 0.0) / time_s if time_s else 0.0,
        )
        for chip, energy_j in zip(
            energy["chip"].to_pylist(), energy["energy_j"].to_pylist(), strict=True
        )
    }


def _busy_per_chip(table: pa.Table, overlap: bool) -> dict[int, float]:
    """Return the busy time of each chip; in two steps at once, if they overlap, it counts once."""
    groups, busy = busy_times(table, ("chip",) if overlap else ("chip", "step"))
    chips, place = np.unique(groups["chip"], return_inverse=True)
    # One by one, so that chips that do the same have the same bits.
    seconds = np.bincount(place, busy, minlength=len(chips))
    return dict(zip(chips.tolist(), seconds.tolist(), strict=True))


def _running_max(values: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Return the running maximum, which starts again where `first` is True, exactly (by ranks)."""
    order = np.argsort(values, kind="stable")
    ranks = np.empty(values.size, np.int64)
    ranks[order] = np.arange(values.size)
    group = np.cumsum(first) - 1
    highest = np.maximum.accumulate(ranks + group * values.size)
    return values[order][highest - group * values.size]
