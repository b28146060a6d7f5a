"""Writes the page of ``study=demonstration``: published savings beside ours, then the curves."""

from collections.abc import Mapping, Sequence

from repast_dist.report.page import KeyFigure, Note
from repast_dist.report.study_page import Chart, StudyPage, StudySection
from repast_dist.report.units import percent
from repast_dist.studies.case import Point
from repast_dist.studies.costing import table
from repast_dist.studies.demonstration.stored import data_name
from repast_dist.studies.demonstration.tables import (
    Row,
    Rows,
    Run,
    curve_rows,
    saving_rows,
    target_rows,
    tuning_rows,
)
from repast_dist.studies.kinds.demonstration import DemonstrationStudy
from repast_dist.studies.settings import RunSettings

_UNITS = dict.fromkeys(
    ("target", "last_accuracy", "test_accuracy", "saving", "published"), "fraction"
)
_SHARES = _UNITS | dict.fromkeys(("lowest", "highest"), "fraction")


def demonstration_page(
    study: DemonstrationStudy,
    settings: RunSettings,
    source: str,
    tuned: Sequence[Run],
    best: Mapping[str, Point],
    reported: Sequence[Run],
) -> StudyPage:
    """Make the study's page of all runs.

    Parameters
    ----------
    study : DemonstrationStudy
        What was asked.
    settings : RunSettings
        What runs start from.
    source : str
        Where the data come from.
    tuned, reported : sequence of Run
        Runs with which optimizers were tuned, and those that are reported.
    best : mapping
        Optimizer -> what was varied in the best run.
    """
    savings = saving_rows(study, reported)
    targets = target_rows(reported, (study.target, *study.other_targets))
    tables = {
        "savings": table(savings, _SHARES),
        "targets": table(targets, _UNITS),
        "curves": table(curve_rows(reported), _SHARES),
        "tuning": table(tuning_rows(tuned, dict(best), study.target), _UNITS),
    }
    beside = [row for row in savings if row["published"] is not None]
    return StudyPage(
        study="demonstration",
        title="Epochs of a demonstration in hardware, and ours",
        answer=_answer(study, beside, targets, source),
        tables=tables,
        captions=_captions(study),
        key_figures=[
            KeyFigure(
                f"epochs saved against {row['rival']}",
                percent(row["saving"]),
                f"published: {percent(row['published'])}",
                number=row["saving"],
            )
            for row in beside
            if row["saving"] is not None
        ],
        sections=[
            StudySection("Epochs saved", tables=["savings"]),
            StudySection(
                "Epochs to an accuracy",
                charts=[
                    Chart(
                        "line", "curves", "Test accuracy", x="epoch", y="test_accuracy",
                        series="trained", band=("lowest", "highest"),
                        references={"target": study.target},
                    ),
                    Chart("line", "curves", "Training loss", x="epoch", y="train_loss",
                          series="trained", log_y=True),
                ],
                tables=["targets", "curves"],
                intro="Means over the seeds; bands span them. Medians of epochs are in the table.",
            ),
            StudySection("Tuning", tables=["tuning"]),
        ],
        notes=[Note(f"Data: {source}."), *_notes(study, settings)],
        sources=[(f"published saving over {one.rival}", one.source) for one in study.published],
    )  # fmt: skip


def _answer(study: DemonstrationStudy, beside: Rows, targets: Rows, source: str) -> str:
    """Say what was saved and what the demonstration saved."""
    parts = [_against(row) for row in beside]
    own = next(
        row
        for row in targets
        if (row["optimizer"], row["circuit"], row["target"])
        == (study.optimizer, study.circuit, study.target)
    )
    epochs = "never" if own["epochs"] is None else f"in {own['epochs']:.2f} epochs"
    return (
        f"{study.optimizer} on {study.circuit} reaches {percent(study.target)} of the test set "
        f"{epochs}: {'; '.join(parts)}. Data: {data_name(source)}."
    )


def _against(row: Row) -> str:
    published = f"published {percent(row['published'])}"
    if row["saving"] is None:
        return f"of {row['rival']} most seeds miss the target ({published})"
    return (
        f"{percent(row['saving'])} fewer than {row['rival']} "
        f"({percent(row['lowest'])} to {percent(row['highest'])}; {published})"
    )


def _captions(study: DemonstrationStudy) -> dict[str, str]:
    budget = next(iter(study.optimizers.values())).budget
    return {
        "savings": "One minus the ratio of median epochs to the target; lowest and highest of the "
        "seeds with which both reach it, each against the rival's run with the same seed. "
        "Published: what the demonstration saved, on data and with a network of which less is "
        "known than we had to choose.",
        "targets": "Epochs until the test after them first reaches the target, between two tests "
        "by linear interpolation; median, lowest and highest of the seeds, empty where it is one "
        "that misses the target.",
        "tuning": f"Every optimizer has {budget} settings, each trained with {study.tuning_seeds} "
        "seeds that are not reported. Chosen: what misses the target with the fewest of them, and "
        "of these the quickest to it in the mean.",
    }


def _notes(study: DemonstrationStudy, settings: RunSettings) -> list[Note]:
    tuning = ", ".join(f"{path}={value}" for path, value in study.tuning.items()) or "nothing"
    return [
        Note(
            f"Inverting arrays of {settings.chip.inv.size} rows, cells of "
            f"{settings.device.inv_cell.bits} bits; blocks of {settings.soi.block_size} rows. "
            f"Forward and backward: {settings.engine.forward}, {settings.engine.backward}."
        ),
        Note(f"Tuning runs differ by: {tuning}."),
    ]
