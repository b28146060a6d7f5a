"""``study=frontier``: is an inverting array worth its silicon?

Every optimizer is tuned on every task with as many settings by a seed of its own, those that solve
on every chip; what is best trains anew with the reported seeds. Chips have the same area.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from repast_dist.report.console import print_table
from repast_dist.studies.case import Point, TunedCase
from repast_dist.studies.frontier.cases import Cases
from repast_dist.studies.frontier.large import published_rows
from repast_dist.studies.frontier.page import frontier_page
from repast_dist.studies.frontier.tables import Run, best_points
from repast_dist.studies.frontier.training import frontier_point
from repast_dist.studies.kinds.frontier import FrontierStudy
from repast_dist.studies.output import finish
from repast_dist.studies.points import PointRunner
from repast_dist.studies.settings import RunSettings


def run(
    study: FrontierStudy, settings: RunSettings, run_dir: Path | None, console: Console
) -> Path:
    """Tune, train every point, and write the page.

    Raises
    ------
    SettingsError
        A task, an optimizer or a chip cannot be had; nothing has been trained then.
    """
    cases = Cases(study, settings)
    published = published_rows(study, cases)
    to_tune = {task: cases.tuning(task) for task in study.tasks}
    runner = PointRunner.of(study, settings, run_dir, console)
    tuned: list[Run] = []
    reported: list[Run] = []
    chosen: dict[tuple[str, str, str], Point] = {}
    for task, of_task in cases.tasks():
        data = of_task.dataset.load()

        def trained(title: str, cases: Sequence[TunedCase], data: Any = data) -> list[Run]:
            jobs = [case.job for case in cases]
            records = runner.records(title, frontier_point, jobs, data)
            return [
                Run(case.labels, case.changes, record, study.window)
                for case, record in zip(cases, records, strict=True)
            ]

        found = trained(f"tuning on {task}", to_tune[task])
        best = best_points(found)
        chosen |= {(task, *key): point for key, point in best.items()}
        tuned += found
        reported += trained(f"training on {task}", cases.reported(task, best))
    page = frontier_page(tuned, chosen, reported, published, cases, settings)

    def details() -> None:
        print_table("The best on arrays that invert", page.tables["best"], console)

    return finish(page, settings, console, runner.run_dir, details)
