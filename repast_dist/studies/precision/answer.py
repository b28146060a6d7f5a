"""``study=precision``: how many bits which inversion reaches, on which arrays, at which damping.

A short exact run leaves real K-FAC factors and gradients. Blocks of them are damped, programmed
into arrays of every kind of cell asked for, and solved by every method; each damped block on one
kind of cell is a point of its own. Nothing is trained with the answers: the residuals are the
result.
"""

from pathlib import Path

from rich.console import Console

from repast_dist.ground.errors import DataError
from repast_dist.report.console import data_table
from repast_dist.studies.factors import capture_factors
from repast_dist.studies.kinds.precision import PrecisionStudy
from repast_dist.studies.output import finish
from repast_dist.studies.points import PointRunner
from repast_dist.studies.precision.page import precision_page
from repast_dist.studies.precision.points import (
    few_bit_rows,
    inversions_of,
    precision_point,
    precision_points,
)
from repast_dist.studies.settings import RunSettings


def run(
    study: PrecisionStudy, settings: RunSettings, run_dir: Path | None, console: Console
) -> Path:
    """Train for the factors, solve every point, and write the page.

    Raises
    ------
    SettingsError
        A variant is wrong.
    DataError
        The network has no factors, or a block's gradient is zero.
    """
    # A wrong variant is refused before anything is trained.
    inversions_of(study, settings, study.variants, "study.variants")
    runner = PointRunner.of(study, settings, run_dir, console)
    console.print(f"Training {study.steps} steps in float64 for the factors")
    factors = capture_factors(
        settings.model,
        settings.dataset,
        settings.optimizer,
        settings.train,
        study.steps,
        settings.seed,
    )
    if not factors:
        raise DataError(f"model {settings.model.name}: no layer has Kronecker factors")
    points = precision_points(study, settings, factors)
    records = runner.records("inverting", precision_point, points, factors)
    rows = [row for record in records for row in record["rows"]]
    page = precision_page(study, rows, few_bit_rows(study, settings))
    console.print(data_table("Methods", page.tables["methods"]))
    return finish(page, settings, console, runner.run_dir)
