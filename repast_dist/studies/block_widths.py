"""``study=blocks``: what wider SOI blocks bring to a step of training, and what they cost.

A step along d whose predicted KL divergence is bounded, as ``optimizer.kl_clip`` does (Ba, Grosse
and Martens 2017, section 5), is as long as ``1 / sqrt(<d, F d>)`` allows, and lowers the loss by
its length times ``<g, d>``, to first order, g the gradient and F the damped Fisher matrix. Of all
directions ``F^-1 g`` lowers it most, by ``sqrt(<g, F^-1 g>)``; the share of that which a direction
by inverted blocks reaches is its *progress*. F is the product of both factors of every layer.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from repast_dist.ground.errors import SettingsError
from repast_dist.ground.numbers import ceil_div
from repast_dist.network.workload import MODEL
from repast_dist.planning.blocks import even_ranges
from repast_dist.planning.summary import summarise
from repast_dist.report.console import print_table
from repast_dist.report.page import KeyFigure, Note
from repast_dist.report.study_page import Chart, StudyPage, StudySection
from repast_dist.report.units import si
from repast_dist.studies.costing import planned_step, table
from repast_dist.studies.factors import Factor, factors_of, second_order_of
from repast_dist.studies.kinds.blocks import BlocksStudy
from repast_dist.studies.output import finish
from repast_dist.studies.settings import RunSettings, changed
from repast_dist.training.optimizers import SecondOrder, Side

Row = dict[str, Any]
Layers = Mapping[str, Mapping[Side, Factor]]
"""Layer -> side -> factor."""

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
    factors = factors_of(settings, study.steps)
    page = blocks_page(study, settings, factors, second)

    def details() -> None:
        print_table("Widths", page.tables["widths"], console)

    return finish(page, settings, console, run_dir, details)


def progress(
    layers: Layers, optimizer: SecondOrder, widths: Mapping[tuple[str, Side], int]
) -> float:
    """Return the progress of a step whose factors are cut, of that with whole ones, in (0, 1].

    Parameters
    ----------
    layers : mapping
        Layer -> side -> factor with the last gradient; a side that the optimizer does not have is
        the identity.
    optimizer : SecondOrder
        Damps the factors.
    widths : mapping
        Layer and side -> widest block; factors that are not named are whole.
    """
    along = curved = best = 0.0
    for layer, sides in layers.items():
        some = next(iter(sides.values()))
        gradient = some.gradient if some.kind == "A" else some.gradient.T
        direction, whole = gradient, gradient
        damped = {side: _damped(factor, optimizer) for side, factor in sides.items()}
        for side, matrix in damped.items():
            width = widths.get((layer, side), len(matrix))
            direction = _times(_inverse_of_blocks(matrix, width), direction, side)
            whole = _times(np.linalg.inv(matrix), whole, side)
        image = direction
        for side, matrix in damped.items():
            image = _times(matrix, image, side)
        along += float(np.vdot(gradient, direction))
        curved += float(np.vdot(direction, image))
        best += float(np.vdot(gradient, whole))
    return along / float(np.sqrt(curved * best))


def _damped(factor: Factor, optimizer: SecondOrder) -> np.ndarray:
    damped: np.ndarray = factor.matrix + factor.damping(optimizer) * np.eye(len(factor.matrix))
    return damped


def _times(matrix: np.ndarray, gradient: np.ndarray, side: Side) -> np.ndarray:
    product: np.ndarray = matrix @ gradient if side == "A" else gradient @ matrix
    return product


def _inverse_of_blocks(matrix: np.ndarray, width: int) -> np.ndarray:
    """Return the inverses of the diagonal blocks, (n, n), cut as training cuts them."""
    inverse = np.zeros_like(matrix)
    for start, stop in even_ranges(len(matrix), ceil_div(len(matrix), width)):
        inverse[start:stop, start:stop] = np.linalg.inv(matrix[start:stop, start:stop])
    return inverse


def blocks_page(
    study: BlocksStudy, settings: RunSettings, factors: Sequence[Factor], optimizer: SecondOrder
) -> StudyPage:
    """Return the page of all widths.

    Parameters
    ----------
    study : BlocksStudy
        Names the widths.
    settings : RunSettings
        What a step is planned with.
    factors : sequence of Factor
        Of a short training.
    optimizer : SecondOrder
        Damps them.
    """
    layers: dict[str, dict[Side, Factor]] = {}
    for factor in factors:
        layers.setdefault(factor.layer, {})[factor.kind] = factor
    widest = max(len(factor.matrix) for factor in factors)
    tried = [*sorted({width for width in study.widths if width < widest}), widest]
    rows = [_width_row(width, settings, layers, optimizer) for width in tried]
    whole = rows[-1]
    for row in rows:
        for name, (_, column) in _WORDS.items():
            row[f"{name}_of_progress"] = row[column] / row["progress"] / whole[column]
    best = {name: min(rows, key=lambda row: row[f"{name}_of_progress"]) for name in _WORDS}
    return StudyPage(
        study="blocks",
        title="How wide should blocks be?",
        answer=_answer(best, whole, len(rows)),
        tables={
            "widths": table(rows, _UNITS),
            "factors": table(_factor_rows(tried[:-1], layers, optimizer), _UNITS),
        },
        captions={
            "widths": "Progress: how much of what a step with whole factors lowers the loss by, to "
            "first order and at the same predicted KL divergence, a step makes with blocks of at "
            f"most so many rows, after {study.steps} steps of training in float64. Time and energy "
            "of progress: those of a planned step over its progress, beside whole factors'.",
            "factors": "Progress where this factor alone is cut.",
        },
        key_figures=[
            KeyFigure(
                f"block size of the least {name}",
                f"{row['block_size']:,}",
                f"{row[f'{name}_of_progress']:.2f} of whole factors' for the same progress",
                number=row["block_size"],
            )
            for name, row in best.items()
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


_WORDS = {"time": ("s", "step_s"), "energy": ("J", "energy_j")}
"""What progress takes -> its unit, and the column of a step."""


_CHARTS = (
    ("Progress of a step", "progress"), ("Time of progress", "time_of_progress"),
    ("Energy of progress", "energy_of_progress"),
)  # fmt: skip


def _width_row(width: int, settings: RunSettings, layers: Layers, optimizer: SecondOrder) -> Row:
    cut = {(layer, side): width for layer, sides in layers.items() for side in sides}
    own = changed(settings, {"soi.block_size": width, "workload.name": MODEL})
    plan = planned_step(own)
    cost = summarise(plan)
    return {
        "block_size": width,
        "blocks": len(plan.blocks),
        "progress": progress(layers, optimizer, cut),
        "step_s": cost.step_s,
        "energy_j": cost.energy_per_sample_j * own.train.batch_size,
    }


def _factor_rows(widths: Sequence[int], layers: Layers, optimizer: SecondOrder) -> list[Row]:
    return [
        {
            "layer": layer,
            "factor": side,
            "rows": len(factor.matrix),
            "block_size": width,
            "progress": progress(layers, optimizer, {(layer, side): width}),
        }
        for layer, sides in layers.items()
        for side, factor in sides.items()
        for width in widths
        if width < len(factor.matrix)
    ]


def _answer(best: Mapping[str, Row], whole: Row, count: int) -> str:
    parts = []
    for name, row in best.items():
        unit, column = _WORDS[name]
        blocks = "whole factors" if row is whole else f"blocks of {row['block_size']:,} rows"
        parts.append(
            f"{blocks} take the least {name} for the same progress: "
            f"{row[f'{name}_of_progress']:.2f} of whole factors' ({row['progress']:.2f} of the "
            f"progress in a step of {si(row[column], unit)} instead of {si(whole[column], unit)})"
        )
    return f"Of {count} widths {'; '.join(parts)}."
