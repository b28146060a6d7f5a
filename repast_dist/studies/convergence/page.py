"""Writes the page of ``study=convergence``: a verdict on each claim, then the figures."""

from collections.abc import Sequence

from repast_dist.ground.spec import to_dict
from repast_dist.report.page import KeyFigure, Note
from repast_dist.report.study_page import Chart, StudyPage, StudySection
from repast_dist.report.units import si
from repast_dist.studies.convergence.claims import answer, best_reference, claim_rows
from repast_dist.studies.convergence.tables import (
    DIGITAL,
    FIRST,
    Part,
    Row,
    Rows,
    Run,
    curve_rows,
    summary_rows,
    target_loss,
    target_rows,
    trade_off_rows,
)
from repast_dist.studies.costing import table
from repast_dist.studies.kinds.convergence import ConvergenceStudy
from repast_dist.studies.settings import RunSettings

_UNITS = {
    "time_s": "s",
    "energy_j": "J",
    "time_to_target_s": "s",
    "energy_to_target_j": "J",
    "accuracy": "fraction",
    "test_accuracy": "fraction",
    "diverged": "fraction",
    "missed": "fraction",
}


def convergence_page(
    runs: Sequence[Run], study: ConvergenceStudy, settings: RunSettings
) -> StudyPage:
    """Make the study's page of all runs.

    Parameters
    ----------
    runs : sequence of Run
        All trained points.
    study, settings : ConvergenceStudy, RunSettings
        What was asked, and with which settings.
    """
    parts = {part: [run for run in runs if run.labels["part"] == part] for part in Part}
    damping, epochs = summary_rows(parts[Part.DAMPING]), settings.train.epochs
    targets = target_rows(parts[Part.OPTIMIZERS])
    blocks = summary_rows(parts[Part.BLOCKS])
    tables = {
        "claims": claim_rows(study, damping, targets, epochs),
        "targets": targets,
        "damping": _beside_digital(damping),
        "damping_form": _beside_digital(summary_rows(parts[Part.FORM])),
        "noise": summary_rows(parts[Part.NOISE]),
        "blocks": blocks,
        "trade_off": trade_off_rows(blocks),
        "search": summary_rows(parts[Part.SEARCH]),
        "curves": curve_rows(parts[Part.OPTIMIZERS]),
    }
    best = best_reference(study, damping)
    losses = {row["task"]: target_loss(parts[Part.OPTIMIZERS], row["task"]) for row in targets}
    return StudyPage(
        study="convergence",
        title="Does training converge on these chips?",
        answer=answer(study, damping, targets, epochs),
        tables={name: table(_shown(rows), _UNITS) for name, rows in tables.items() if rows},
        captions=_captions(study, targets),
        key_figures=_key_figures(targets, epochs),
        sections=[
            StudySection("Claims", tables=["claims"]),
            _damping_section(study, settings, best),
            _form_section(tables["damping_form"]),
            _noise_section(study, best),
            _block_section(blocks),
            _optimizer_section(study, settings, targets, losses),
        ],
        notes=[
            Note(
                f"Inversions are what varies; forward products run in {settings.engine.forward}, "
                f"factors in {settings.engine.factor}. Answers that miss their target are used as "
                "they are."
            )
        ],
    )


def _captions(study: ConvergenceStudy, targets: Rows) -> dict[str, str]:
    first_order = list(dict.fromkeys(r["optimizer"] for r in targets if r["order"] == FIRST))
    return {
        "claims": f"Computed from the runs. A method matches {study.reference} if its mean final "
        f"loss is not above {study.reference}'s worst seed, or less than one percent above its "
        "mean.",
        "targets": "Target: the best of the mean final training losses of "
        f"{' and '.join(first_order)}; all from means over seeds, empty where it is missed. Costs "
        "of second order in digital arithmetic are those of solving in the chips' digital units.",
        "search": f"Every optimizer was given {_budget(study)} settings and one seed, not among "
        "the reported ones.",
        "trade_off": "Relative to the largest block; below 1 is better.",
    }


def _damping_section(study: ConvergenceStudy, settings: RunSettings, best: Row) -> StudySection:
    losses = [
        _over_damping("damping", f"{level:.1%} programming noise", level, _reference(study, best))
        for level in study.noise
    ]
    residuals = [
        Chart(
            "line", "damping", f"Residuals, {level:.1%} programming noise",
            x="damping", y="median_residual", series="method",
            where={"noise": level, "arithmetic": "analog"}, log_x=True, log_y=True,
            caption="Median over all solves of a run of the worst right-hand side.",
        )
        for level in study.noise
    ]  # fmt: skip
    return StudySection(
        "Final loss over damping",
        charts=[*losses, *residuals],
        tables=["damping"],
        intro=f"Plain damping, {settings.model.name} on {settings.dataset.name}, factors in "
        f"blocks of up to {settings.soi.block_size}. Bands span the seeds; lower is better; a run "
        "that fails counts with the loss before training.",
    )


def _form_section(form: Rows) -> StudySection:
    return StudySection(
        "The other form of damping",
        charts=[
            _over_damping("damping_form", f"pi, {level:.1%} programming noise", level, {})
            for level in dict.fromkeys(row["noise"] for row in form)
        ],
        tables=["damping_form"],
        intro="Damping split between a layer's factors by their traces.",
    )


def _noise_section(study: ConvergenceStudy, best: Row) -> StudySection:
    chart = Chart(
        "line", "noise", f"Damping {best['damping']:g}", x="noise", y="final_loss",
        series="method", band=("low", "high"), log_y=True, references=_reference(study, best),
        where={"arithmetic": "analog"},
        caption="Standard deviation of a cell, relative to the conductance range.",
    )  # fmt: skip
    return StudySection("Programming noise", charts=[chart], tables=["noise"])


def _block_section(blocks: Rows) -> StudySection:
    charts = [
        Chart(
            "line", "trade_off", f"Convergence and cost of blocks, {method}",
            x="block_size", y="relative", series="quantity", where={"method": method},
            log_x=True, log_y=True, caption="Relative to the largest block.",
        )
        for method in dict.fromkeys(row["method"] for row in blocks)
    ]  # fmt: skip
    return StudySection("Block size", charts=charts, tables=["blocks"])


def _optimizer_section(
    study: ConvergenceStudy, settings: RunSettings, targets: Rows, losses: dict[str, float]
) -> StudySection:
    charts = [
        Chart(
            "line", "curves", f"{task}, over {words}", x=column, y="loss",
            series="optimizer", band=("low", "high"), where={"task": task},
            log_x=column != "epoch", log_y=_wide_range(targets, task), references={"target": loss},
        )
        for task, loss in losses.items()
        for words, column in (
            ("epochs", "epoch"), ("simulated time", "time_s"), ("simulated energy", "energy_j"),
        )
    ]  # fmt: skip
    form = to_dict(settings.optimizer).get("damping_form", "plain")
    return StudySection(
        "Optimizers",
        charts=charts,
        tables=["targets", "search", "curves"],
        intro=f"Second order with {form} damping; chips with {study.chip_noise:.1%} programming "
        f"noise. Search budget: {_budget(study)} settings each.",
    )


def _over_damping(name: str, title: str, noise: float, reference: dict[str, float]) -> Chart:
    return Chart(
        "line", name, title, x="damping", y="final_loss", series="method", band=("low", "high"),
        where={"noise": noise}, log_x=True, log_y=True, references=reference, wide=True,
    )  # fmt: skip


def _reference(study: ConvergenceStudy, best: Row) -> dict[str, float]:
    return {f"{study.reference}'s best, damping {best['damping']:g}": best["final_loss"]}


def _budget(study: ConvergenceStudy) -> int:
    return next(iter(study.optimizers.values())).budget


def _wide_range(targets: Rows, task: str) -> bool:
    losses = [row["final_loss"] for row in targets if row["task"] == task]
    return max(losses) > 3 * min(losses)


def _beside_digital(rows: Rows) -> Rows:
    """Repeat digital arithmetic, which no noise touches, beside every noise."""
    digital = [row for row in rows if row["arithmetic"] == DIGITAL]
    analog = [row for row in rows if row["arithmetic"] != DIGITAL]
    levels = dict.fromkeys(row["noise"] for row in analog or digital)
    return [
        item
        for level in levels
        for item in (
            *({**row, "noise": level} for row in digital),
            *(row for row in analog if row["noise"] == level),
        )
    ]


def _shown(rows: Rows) -> Rows:
    """Leave out which part of the study a row is of."""
    return [{key: value for key, value in row.items() if key != "part"} for row in rows]


def _key_figures(targets: Rows, epochs: int) -> list[KeyFigure]:
    return [
        KeyFigure(
            f"epochs: {row['task']}, {row['optimizer']}",
            f"{row['epochs_to_target']} of {epochs}",
            f"to loss {row['target']:.3g}; {si(row['time_to_target_s'], 's')}, "
            f"{si(row['energy_to_target_j'], 'J')}",
            number=row["epochs_to_target"],
        )
        for row in targets
        if row["order"] != FIRST and row["epochs_to_target"] is not None
    ]
