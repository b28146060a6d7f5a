"""``study=precision``: how many bits which inversion reaches, on which arrays, at which damping.

A short exact run leaves real K-FAC factors and gradients. Blocks of them are damped, programmed
into arrays of every kind asked for, and solved by every method; each damped block on one kind of
arrays is a point of its own, and is priced by what the arrays did. Nothing is trained with the
answers: the residuals are the result.
"""

from pathlib import Path

from rich.console import Console

from repast_dist.report.console import print_table
from repast_dist.studies.factors import factors_of
from repast_dist.studies.kinds.precision import PrecisionStudy
from repast_dist.studies.output import finish
from repast_dist.studies.points import PointRunner
from repast_dist.studies.precision.page import precision_page
from repast_dist.studies.precision.points import (
    factors_digest,
    few_bit_rows,
    inversions_of,
    precision_cases,
    precision_point,
)
from repast_dist.studies.precision.prices import digital_rows, solved_rows
from repast_dist.studies.settings import RunSettings


def run(
    study: PrecisionStudy, settings: RunSettings, run_dir: Path | None, console: Console
) -> Path:
    """Train for the factors, solve every point, and write the page.

    Raises
    ------
    SettingsError
        A variant or a grid is wrong, or the baseline is no GPU.
    DataError
        The network has no factors, or a block's gradient is zero.
    """
    # A wrong variant, grid or baseline is refused before anything is trained.
    gpu = settings.gpu
    inversions_of(study, settings, study.variants, "study.variants")
    cases = precision_cases(study, settings)
    runner = PointRunner.of(study, settings, run_dir, console)
    console.print(f"Training {study.steps} steps in float64 for the factors")
    factors = factors_of(settings, study.steps)
    digest = factors_digest(study, settings)
    points = [case.point(study, factors, digest) for case in cases]
    # Large blocks take longest, so they come first.
    order = sorted(range(len(points)), key=lambda i: points[i].start - points[i].stop)
    records = dict(
        zip(
            order,
            runner.records("inverting", precision_point, [points[i] for i in order], factors),
            strict=True,
        )
    )
    solved = [records[i] for i in range(len(points))]
    rows = solved_rows(cases, solved)
    digital = digital_rows(study, settings.hardware, gpu, cases, solved)
    page = precision_page(study, rows, digital, few_bit_rows(study, settings))

    def details() -> None:
        for name, title in (("methods", "Methods"), ("prices", "What bits cost")):
            if name in page.tables:
                print_table(title, page.tables[name], console)

    return finish(page, settings, console, runner.run_dir, details)
