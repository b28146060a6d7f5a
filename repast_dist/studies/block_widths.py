"""``study=blocks``: how wide SOI blocks should be, all alike and each factor by itself."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from repast_dist.ground.errors import SettingsError
from repast_dist.network.workload import MODEL
from repast_dist.planning.summary import summarise
from repast_dist.report.console import PointProgress, print_table
from repast_dist.report.page import KeyFigure, Note
from repast_dist.report.study_page import Chart, StudyPage, StudySection
from repast_dist.report.units import si
from repast_dist.studies.block_progress import Progress, Widths
from repast_dist.studies.costing import planned_step, table
from repast_dist.studies.factors import Factor, factors_of, second_order_of
from repast_dist.studies.kinds.blocks import BlocksStudy
from repast_dist.studies.output import finish
from repast_dist.studies.settings import RunSettings, changed
from repast_dist.training.optimizers import SecondOrder, Side

Row = dict[str, Any]

_WORDS = {"time": ("s", "step_s"), "energy": ("J", "energy_j")}
"""What progress takes -> its unit, and the column of a step."""

_MOST_ROUNDS = 4
"""Of going over all factors; two to three leave nothing to gain."""

_UNITS = {"step_s": "s", "energy_j": "J", "progress": "fraction"}


def run(study: BlocksStudy, settings: RunSettings, run_dir: Path | None, console: Console) -> Path:
    """Train for the factors, price every width, and write the page.

    Raises
    ------
    SettingsError
        The optimizer's directions are not those of two inverted factors.
    DataError
        No layer of the model has factors.
    """
    second = second_order_of(settings.optimizer)
    if settings.optimizer.matrices is not None:
        raise SettingsError(
            f"optimizer: directions of {settings.optimizer.name} are not gradients times inverses; "
            "valid: an optimizer whose directions are, such as optimizer=kfac"
        )
    console.print(f"Training {study.steps} steps in float64 for the factors")
    steps = PlannedSteps(settings, factors_of(settings, study.steps), second)
    page = blocks_page(study, steps, console)

    def details() -> None:
        print_table("Widths", page.tables["widths"], console)
        print_table("Each factor by itself", page.tables["by_factor"].drop("settings"), console)

    return finish(page, settings, console, run_dir, details)


class PlannedSteps:
    """What a step takes and brings with blocks of any widths.

    Parameters
    ----------
    settings : RunSettings
        What a step is planned with.
    factors : sequence of Factor
        Of a short training.
    optimizer : SecondOrder
        Damps them.
    """

    def __init__(
        self, settings: RunSettings, factors: Sequence[Factor], optimizer: SecondOrder
    ) -> None:
        self._settings = settings
        layers: dict[str, dict[Side, Factor]] = {}
        for factor in factors:
            layers.setdefault(factor.layer, {})[factor.kind] = factor
        self.rows = {(factor.layer, factor.kind): len(factor.matrix) for factor in factors}
        self.progress = Progress(layers, optimizer)
        self._found: dict[tuple[int, ...], Row] = {}

    def alike(self, width: int) -> Row:
        """Return the row of a step with blocks of at most so many rows."""
        return self.row(dict.fromkeys(self.rows, width))

    def row(self, widths: Widths) -> Row:
        """Return the row of a step with blocks of such widths."""
        cut = {key: min(widths[key], rows) for key, rows in self.rows.items()}
        key = tuple(cut.values())
        if key not in self._found:
            self._found[key] = self._planned(cut)
        return self._found[key]

    def whole(self) -> Row:
        """Return the row of a step with whole factors."""
        return self.row(self.rows)

    def cost(self, goal: str, widths: Widths) -> float:
        """Return the time or energy of progress, of that with whole factors."""
        cost: float = self.row(widths)[f"{goal}_of_progress"]
        return cost

    def settings_of(self, widths: Widths) -> dict[str, Any]:
        """Return the settings that cut factors so."""
        return {
            "soi.block_size": max(self.rows.values()),
            "soi.widths": [
                {"layer": layer, "factor": side, "block_size": widths[layer, side]}
                for (layer, side), rows in self.rows.items()
                if widths[layer, side] < rows
            ],
        }

    def _planned(self, widths: Widths) -> Row:
        own = changed(self._settings, {**self.settings_of(widths), "workload.name": MODEL})
        plan = planned_step(own)
        cost = summarise(plan)
        row = {
            "blocks": len(plan.blocks),
            "progress": self.progress.of(widths),
            "step_s": cost.step_s,
            "energy_j": cost.energy_per_sample_j * own.train.batch_size,
        }
        whole = row if widths == self.rows else self.whole()
        for name, (_, column) in _WORDS.items():
            row[f"{name}_of_progress"] = row[column] / row["progress"] / whole[column]
        return row


def best_by_factor(
    goal: str,
    steps: PlannedSteps,
    widths: Sequence[int],
    begin: int,
    counted: Callable[[], object] = lambda: None,
) -> dict[tuple[str, Side], int]:
    """Join or split the blocks of one factor after the other, the widest first, as the least time
    or energy of progress asks for, until that changes nothing.

    Parameters
    ----------
    goal : {"time", "energy"}
        What shall be least.
    steps : PlannedSteps
        What a step takes and brings.
    widths : sequence of int
        What is tried beside whole factors.
    begin : int
        The width that all factors have at first.
    counted : callable
        Called after every factor of the first round.
    """
    chosen = {key: min(begin, rows) for key, rows in steps.rows.items()}
    order = sorted(steps.rows, key=lambda key: -steps.rows[key])
    for number in range(_MOST_ROUNDS):
        before = dict(chosen)
        for key in order:
            tried = [chosen[key], *(width for width in widths if width < steps.rows[key])]
            costs = {
                width: steps.cost(goal, {**chosen, key: width})
                for width in dict.fromkeys([*tried, steps.rows[key]])
            }
            chosen[key] = min(costs, key=lambda width: costs[width])
            if number == 0:
                counted()
        if chosen == before:
            break
    return chosen


def blocks_page(study: BlocksStudy, steps: PlannedSteps, console: Console) -> StudyPage:
    """Return the page of all widths.

    Parameters
    ----------
    study : BlocksStudy
        Names the widths.
    steps : PlannedSteps
        What a step takes and brings.
    console : rich.console.Console
        Shows how far it is.
    """
    widest = max(steps.rows.values())
    tried = [*sorted({width for width in study.widths if width < widest}), widest]
    rows = [{"block_size": width, **steps.alike(width)} for width in tried]
    best = {name: min(rows, key=lambda row: row[f"{name}_of_progress"]) for name in _WORDS}
    chosen = {}
    with PointProgress("factors", len(_WORDS) * len(steps.rows), console=console) as progress:
        for name, row in best.items():
            chosen[name] = best_by_factor(
                name, steps, tried[:-1], row["block_size"], progress.advance
            )
    by_factor = [
        {
            "least": name,
            **steps.row(widths),
            "settings": " ".join(
                f"'{path}={_written(value)}'" for path, value in steps.settings_of(widths).items()
            ),
        }
        for name, widths in chosen.items()
    ]
    return StudyPage(
        study="blocks",
        title="How wide should blocks be?",
        answer=_answer(best, by_factor, rows[-1], len(rows)),
        tables={
            "widths": table(rows, _UNITS),
            "by_factor": table(by_factor, _UNITS),
            "chosen": table(_chosen_rows(chosen, steps), {}),
            "factors": table(_factor_rows(tried[:-1], steps), _UNITS),
        },
        captions={
            "widths": "Progress: how much of what a step with whole factors lowers the loss by, to "
            "first order and at the same predicted KL divergence, a step makes with blocks of at "
            f"most so many rows, after {study.steps} steps of training in float64. Time and energy "
            "of progress: those of a planned step over its progress, beside whole factors'.",
            "by_factor": "The same where each factor has the width with which progress takes the "
            "least time, or energy: factors were joined and split one after the other until that "
            "changed nothing. A run takes these settings as they stand.",
            "chosen": "The widths of these settings.",
            "factors": "Progress where this factor alone is cut.",
        },
        key_figures=[
            *(
                KeyFigure(
                    f"block size of the least {name}",
                    f"{row['block_size']:,}",
                    f"{row[f'{name}_of_progress']:.2f} of whole factors' for the same progress",
                    number=row["block_size"],
                )
                for name, row in best.items()
            ),
            *(
                KeyFigure(
                    f"{row['least']} of progress, each factor by itself",
                    f"{row[column]:.2f}",
                    f"of whole factors'; {best[row['least']][column]:.2f} with one width for all",
                    number=row[column],
                )
                for row in by_factor
                for column in [f"{row['least']}_of_progress"]
            ),
        ],
        sections=[
            StudySection(
                "What blocks bring, and cost",
                charts=[
                    Chart("line", "widths", title, x="block_size", y=column, log_x=True)
                    for title, column in _CHARTS
                ],
                tables=["widths"],
            ),
            StudySection("Each factor by itself", tables=["by_factor", "chosen"]),
            StudySection("Which factors have couplings", tables=["factors"]),
        ],
        notes=[
            Note(
                "Progress is that of one step by one gradient. That a training with less progress "
                "a step takes as many more steps is an assumption, which the documentation "
                "compares with trainings."
            )
        ],
    )


_CHARTS = (
    ("Progress of a step", "progress"), ("Time of progress", "time_of_progress"),
    ("Energy of progress", "energy_of_progress"),
)  # fmt: skip


def _written(value: object) -> str:
    """Return a value as the command line takes it."""
    return json.dumps(value).replace('"', "").replace(" ", "")


def _chosen_rows(
    chosen: Mapping[str, Mapping[tuple[str, Side], int]], steps: PlannedSteps
) -> list[Row]:
    return [
        {
            "layer": layer,
            "factor": side,
            "rows": rows,
            **{f"least {name}": widths[layer, side] for name, widths in chosen.items()},
        }
        for (layer, side), rows in steps.rows.items()
    ]


def _factor_rows(widths: Sequence[int], steps: PlannedSteps) -> list[Row]:
    return [
        {
            "layer": layer,
            "factor": side,
            "rows": rows,
            "block_size": width,
            "progress": steps.progress.of({(layer, side): width}),
        }
        for (layer, side), rows in steps.rows.items()
        for width in widths
        if width < rows
    ]


def _answer(best: Mapping[str, Row], by_factor: Sequence[Row], whole: Row, count: int) -> str:
    parts = []
    for own in by_factor:
        name = own["least"]
        unit, column = _WORDS[name]
        row = best[name]
        same = row["block_size"] == whole["block_size"]
        blocks = "whole factors" if same else f"blocks of {row['block_size']:,} rows"
        parts.append(
            f"{blocks} take the least {name} for the same progress: "
            f"{row[f'{name}_of_progress']:.2f} of whole factors' ({row['progress']:.2f} of the "
            f"progress in a step of {si(row[column], unit)} instead of {si(whole[column], unit)}), "
            f"and {own[f'{name}_of_progress']:.2f} with a width for each factor"
        )
    return f"Of {count} widths {'; '.join(parts)}."
