"""``study=demonstration``: the epochs that a demonstration in hardware saved, and ours.

Every optimizer is tuned with as many settings by seeds of their own; what is best trains anew with
the reported seeds, optimizers that solve on every circuit.
"""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from repast_dist.ground.files import write_json
from repast_dist.report.console import print_table
from repast_dist.studies.case import TunedCase
from repast_dist.studies.convergence.training import convergence_point
from repast_dist.studies.demonstration.cases import Cases
from repast_dist.studies.demonstration.page import demonstration_page
from repast_dist.studies.demonstration.stored import CURVES, curves
from repast_dist.studies.demonstration.tables import Run, best_points
from repast_dist.studies.kinds.demonstration import DemonstrationStudy
from repast_dist.studies.output import finish
from repast_dist.studies.points import PointRunner
from repast_dist.studies.settings import RunSettings


def run(
    study: DemonstrationStudy, settings: RunSettings, run_dir: Path | None, console: Console
) -> Path:
    """Tune, train every run, and write the page and the curves.

    Raises
    ------
    SettingsError
        An optimizer or a circuit cannot be had; nothing has been trained then.
    """
    cases = Cases(study, settings)
    data = settings.dataset.load()
    runner = PointRunner.of(study, settings, run_dir, console)

    def trained(title: str, of: Sequence[TunedCase]) -> list[Run]:
        records = runner.records(title, convergence_point, [case.job for case in of], data)
        return [
            Run(case.labels, case.changes, record)
            for case, record in zip(of, records, strict=True)
        ]  # fmt: skip

    tuned = trained("tuning", cases.tuning())
    best = best_points(tuned, study.target)
    reported = trained("training", cases.reported(best))
    page = demonstration_page(study, settings, data.source, tuned, best, reported)
    write_json(runner.run_dir / CURVES, curves(study, data.source, reported))

    def details() -> None:
        print_table("Epochs saved", page.tables["savings"], console)

    return finish(page, settings, console, runner.run_dir, details)
