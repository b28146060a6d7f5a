"""Writes the page of ``study=frontier``: a verdict on each claim, then the figures."""

from collections.abc import Mapping, Sequence
from typing import Any

from repast_dist.report.page import KeyFigure, Note
from repast_dist.report.study_page import Chart, StudyPage, StudySection
from repast_dist.studies.case import Point
from repast_dist.studies.costing import table
from repast_dist.studies.frontier.cases import Cases, inverts_on_arrays
from repast_dist.studies.frontier.claims import claim_rows, holds
from repast_dist.studies.frontier.sizes import size_rows
from repast_dist.studies.frontier.tables import (
    Rows,
    Run,
    change_rows,
    curve_rows,
    part_rows,
    rival_rows,
    target_rows,
    tuning_rows,
)
from repast_dist.studies.kinds.frontier import FrontierStudy
from repast_dist.studies.settings import RunSettings
from repast_dist.training.optimizers import OPTIMIZERS

_UNITS = {
    "time_s": "s",
    "energy_j": "J",
    "dynamic_j": "J",
    "inversion_j_of_a_step": "J",
    "time_s_of_a_step": "s",
    "energy_j_of_a_step": "J",
    "part_s": "s",
    "of_factors_s": "s",
    "step_s": "s",
    "first_order_step_s": "s",
    "accuracy": "fraction",
    "missed": "fraction",
    "area_m2": "m2",
    "peak_power_w": "W",
    "static_power_w": "W",
}

_OF_THE_BEST = (
    "task", "optimizer", "chip", "rival", "target", "final_loss", "of_steps", "of_time",
    "of_energy", "of_dynamic",
)  # fmt: skip
"""Columns of targets that say what the best of a task takes."""

_AXES = (
    ("steps", "step"), ("simulated time", "time_s"), ("simulated energy", "energy_j"),
    ("cell writes", "cell_writes"),
)  # fmt: skip


def frontier_page(
    tuned: Sequence[Run],
    chosen: Mapping[tuple[str, str, str], Point],
    reported: Sequence[Run],
    published: Rows,
    cases: Cases,
    settings: RunSettings,
) -> StudyPage:
    """Make the study's page of all runs.

    Parameters
    ----------
    tuned, reported : sequence of Run
        Runs with which optimizers were tuned, and those that are reported.
    chosen : mapping
        Task, optimizer and chip -> what was varied in the best run.
    published : list of dict
        `repast_dist.studies.frontier.large.published_rows`.
    cases : Cases
        Has the chips.
    settings : RunSettings
        With what was asked.
    """
    study = settings.study
    assert isinstance(study, FrontierStudy)
    static_w = {
        name: own.hardware.costs.static_w * own.farm.chips for name, own in cases.chips.items()
    }
    targets = target_rows(reported, static_w)
    tables = {
        "claims": claim_rows(study, targets),
        "best": [
            {name: row[name] for name in _OF_THE_BEST} for row in _best_of_tasks(study, targets)
        ],
        "targets": targets,
        "rivals": rival_rows(reported, static_w),
        "changes": change_rows(reported, targets, study.time_claimed, study.energy_claimed),
        "parts": part_rows(reported),
        "chips": chip_rows(cases),
        "sizes": size_rows(study, cases, targets, chosen),
        "published": published,
        "tuning": tuning_rows(tuned, chosen),
        "curves": curve_rows(reported),
    }
    return StudyPage(
        study="frontier",
        title="Is an inverting array worth its silicon?",
        answer=answer(study, targets),
        tables={name: table(rows, _UNITS) for name, rows in tables.items() if rows},
        captions=_captions(study),
        key_figures=_key_figures(study, targets),
        sections=[
            StudySection("Claims", tables=["best", "claims"]),
            _cost_section(targets),
            StudySection("Against every first-order optimizer", tables=["rivals"]),
            StudySection("Where the time of a step goes", tables=["parts"]),
            StudySection("What would have to change", tables=["changes"]),
            StudySection("Chips of equal area", tables=["chips"]),
            *_size_sections(tables["sizes"]),
            *([StudySection("Large networks", tables=["published"])] if study.published else []),
            StudySection("Tuning", tables=["tuning"]),
        ],
        notes=[*_notes(study, settings)],
    )


def answer(study: FrontierStudy, targets: Rows) -> str:
    """Say on which tasks a method that inverts on arrays is worth it, and what the best took."""
    best = _best_of_tasks(study, targets)
    won = [row for row in best if holds(study, row)]
    missed = [row for row in best if not holds(study, row)]
    first = (
        f"On {len(won)} of {len(study.tasks)} tasks an optimizer that inverts on arrays reaches "
        f"the best first-order final loss in at most {study.time_claimed:g} of its time and "
        f"{study.energy_claimed:g} of its energy"
    )
    parts = [first + (f": {'; '.join(map(_shares, won))}." if won else ".")]
    if missed:
        parts.append(f"The best on the others: {'; '.join(map(_shares, missed))}.")
    return " ".join(parts)


def _best_of_tasks(study: FrontierStudy, targets: Rows) -> Rows:
    """Return, per task, the best row of what inverts on arrays: one for which the claim holds, if
    there is one.
    """
    inverting = [row for row in targets if row["inverts"]]
    return [
        min(
            (row for row in inverting if row["task"] == task),
            key=lambda row: (not holds(study, row), _judged(row)),
        )
        for task in dict.fromkeys(row["task"] for row in inverting)
    ]


def _shares(row: Mapping[str, Any]) -> str:
    """Say in a few words what a target took, or that it was missed."""
    who = f"{row['task']} ({row['optimizer']}, {row['chip']})"
    if row["of_time"] is None:
        return f"{who} misses it, with {row['final_loss']:.3g} for {row['target']:.3g}"
    return f"{who} {row['of_time']:.2f} of {row['rival']}'s time, {row['of_energy']:.2f} of energy"


def _judged(row: Mapping[str, Any]) -> tuple[bool, float]:
    """Order rows by time to the target, those that miss it by their loss."""
    if row["of_time"] is None:
        return True, float(row["final_loss"])
    return False, float(row["of_time"])


def chip_rows(cases: Cases) -> Rows:
    """Return what the compared chips consist of."""
    return [
        {
            "chip": name,
            "tiles": own.chip.tiles,
            "area_m2": own.hardware.area_m2,
            "multiplying_arrays": own.chip.vmm_arrays,
            "of_these_residual": own.chip.residual_arrays,
            "inverting_arrays": own.chip.inv_arrays,
            "peak_power_w": own.hardware.peak_power_w,
            "static_power_w": own.hardware.costs.static_w,
            "inversion": own.inversion.name,
            "inverts": inverts_on_arrays(own),
        }
        for name, own in cases.chips.items()
    ]


def _cost_section(targets: Rows) -> StudySection:
    losses = {row["task"]: row["target"] for row in targets}
    charts = [
        Chart(
            "line", "curves", f"{task}, over {words}", x=column, y="loss", series="optimizer",
            band=("low", "high"), where={"task": task}, log_x=column != "step", log_y=True,
            references={"target": loss},
        )
        for task, loss in losses.items()
        for words, column in _AXES
    ]  # fmt: skip
    return StudySection(
        "What a loss costs",
        charts=charts,
        tables=["targets", "curves"],
        intro="Training loss, averaged over the last steps; bands span the seeds. Optimizers that "
        "solve are named with the chip they train on.",
    )


def _size_sections(sizes: Rows) -> list[StudySection]:
    charts = [
        Chart(
            "line", "sizes", f"{task}: a step beside the rival's", x="area_m2", y="step_time",
            series="run", where={"task": task}, log_x=True,
        )
        for task in dict.fromkeys(row["task"] for row in sizes)
    ]  # fmt: skip
    return [StudySection("Chips of other sizes", charts=charts, tables=["sizes"])] if sizes else []


def _captions(study: FrontierStudy) -> dict[str, str]:
    return {
        "claims": "Computed from the runs.",
        "best": "Of every task the quickest optimizer and chip that invert on arrays, of those "
        "for which the claim holds, if any; relative to the optimizer whose loss is the target.",
        "targets": "Target: the lowest mean final training loss of the optimizers that solve with "
        f"nothing, each the mean of the last {study.window} steps. Time, energy and cell writes: "
        "until a seed's loss is at the target first, means over the seeds; empty where a seed "
        "misses it. Relative to all that the optimizer took whose final loss is the target. "
        "Dynamic: without the power that flows whatever is done, which small networks on large "
        "chips pay for.",
        "rivals": "To the mean final loss of each optimizer that solves with nothing, relative to "
        "all that it took.",
        "changes": "At the steps that were needed: how much longer than the rival's a step may "
        "take, and how much more energy, for the claim to hold, and what it takes, averaged over "
        "the run. Then the energy to the target beside the rival's if applying inverses, forming "
        "factors, or all writing of cells cost nothing, and the time if renewing and solving, or "
        "forming factors, took none.",
        "parts": "Time of the parts of an average step, which follow each other; and how much of "
        "the passage through the layers is for forming factors, against steps that form none.",
        "chips": "As many tiles as fit the area of the settings' chip.",
        "sizes": "Nothing is trained here: planned steps on chips of other sizes, all of the same "
        "area, beside those of the optimizer whose final loss is the target, times the share of "
        "its steps that was needed.",
        "published": "Nothing is trained here: published steps or epochs to the same quality, "
        "times what a step takes on these chips by the cost model; first order on "
        f"{study.first_order_chip}. At most so many of first order's steps for the same energy.",
        "tuning": f"Every optimizer has {study.points} settings per task"
        + (" and chip" if study.tuned_on is None else "")
        + ": its own, and others drawn at random, trained with a seed that is not reported. "
        "Chosen: the quickest to the lowest loss that any first-order run ends at, or the lowest "
        "loss.",
    }


def _notes(study: FrontierStudy, settings: RunSettings) -> list[Note]:
    engine = settings.engine
    sides = ", ".join(
        f"{name} {getattr(engine, name)}"
        for name in ("forward", "backward", "gradient", "factor", "inverse")
    )
    tuning = ", ".join(f"{path}={value}" for path, value in study.tuning.items()) or "nothing"
    notes = [
        Note(f"Arithmetic of reported runs: {sides}; a chip may change that of its inversion."),
        Note(f"Tuning runs differ by: {tuning}."),
    ]
    compared = {
        tuned.settings.get("optimizer", {}).get("method", tuned.settings.get("optimizer.method"))
        for tuned in study.optimizers.values()
    }
    if left := [name for name in OPTIMIZERS.names() if name not in compared]:
        notes.append(Note(f"Optimizers that are not compared: {', '.join(left)}."))
    return notes


def _key_figures(study: FrontierStudy, targets: Rows) -> list[KeyFigure]:
    return [
        KeyFigure(
            f"time: {row['task']}, {row['optimizer']}, {row['chip']}",
            f"{row['of_time']:.2f} of {row['rival']}'s",
            f"to loss {row['target']:.3g}; {row['of_energy']:.2f} of its energy",
            number=row["of_time"],
        )
        for row in _best_of_tasks(study, targets)
        if row["of_time"] is not None
    ]
