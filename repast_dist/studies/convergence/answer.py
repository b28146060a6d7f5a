"""``study=convergence``: does training on these chips converge, and what does a target cost?

Every point trains one network with the parts of the farm, all chips in one worker process, and
stores its curves. The points differ in the optimizer, the arithmetic of the inversions, programming
noise, damping and the width of the blocks; the other products of K-FAC runs stay as
``engine`` says. An inversion that misses its target is used as it is, as in hardware that cannot
check its answers: the study asks what that does to training.

Optimizers are compared at equal search budgets: every one gets as many settings, tried with a
seed of its own; the best is trained anew with the seeds that are reported.
"""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from repast_dist.report.console import print_table
from repast_dist.studies.case import Case
from repast_dist.studies.convergence.cases import Cases
from repast_dist.studies.convergence.page import convergence_page
from repast_dist.studies.convergence.tables import Part, Run, best_settings
from repast_dist.studies.convergence.training import convergence_point
from repast_dist.studies.kinds.convergence import ConvergenceStudy
from repast_dist.studies.output import finish
from repast_dist.studies.points import PointRunner
from repast_dist.studies.settings import RunSettings


def run(
    study: ConvergenceStudy, settings: RunSettings, run_dir: Path | None, console: Console
) -> Path:
    """Search, train every point, and write the page.

    Raises
    ------
    SettingsError
        A variant, a task or an optimizer cannot be had; nothing has been trained then.
    """
    cases = Cases(study, settings)
    over_damping = cases.damping()
    runner = PointRunner.of(study, settings, run_dir, console)
    data = settings.dataset.load()

    def train(title: str, cases: Sequence[Case]) -> list[Run]:
        records = runner.records(title, convergence_point, [case.job for case in cases], data)
        return [Run(case.labels, record) for case, record in zip(cases, records, strict=True)]

    searched = train("searching settings", cases.search())
    best = best_settings(searched, ("task", "optimizer"))
    compared = train("comparing optimizers", cases.optimizers(best))
    damped = train("training over damping", over_damping)
    exact = [
        item
        for item in damped
        if (item.labels["part"], item.labels["method"]) == (Part.DAMPING, study.reference)
    ]
    (reference,) = best_settings(exact, ("method",))
    axes = train("training over noise and blocks", cases.axes(reference["damping"]))
    page = convergence_page([*searched, *compared, *damped, *axes], study, settings)

    def details() -> None:
        print_table("Claims", page.tables["claims"], console)

    return finish(page, settings, console, runner.run_dir, details)
