"""``study=verify study.run=RUN_DIR``: is everything there, once, and undamaged?"""

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from repast_dist.farm.checkpoint import list_checkpoints, load_checkpoint
from repast_dist.ground.errors import RunDirectoryError
from repast_dist.ground.files import CHECKPOINTS, SUMS, TRACE, changed_since_sealed
from repast_dist.report.console import say
from repast_dist.studies.kinds.verify import VerifyStudy
from repast_dist.studies.run_result import read_result
from repast_dist.studies.settings import RunSettings
from repast_dist.studies.stored import run_to_read
from repast_dist.trace import verify


def run(study: VerifyStudy, settings: RunSettings, run_dir: Path | None, console: Console) -> Path:
    """Check a run directory and print what is wrong with it.

    Raises
    ------
    RunDirectoryError
        Something is missing, duplicate or damaged; each finding was printed.
    """
    run_dir = run_to_read(study.run, settings.run_root, console)
    problems = list(findings(run_dir))
    for problem in problems:
        console.print(problem, markup=False, highlight=False, soft_wrap=True)
    if problems:
        raise RunDirectoryError(f"{run_dir}: {len(problems)} problems found")
    say(
        f"{run_dir}: complete; {len(read_result(run_dir)['steps'])} steps, every chip's rows once, "
        f"{len(list_checkpoints(run_dir / CHECKPOINTS))} good checkpoints",
        console,
    )
    return run_dir


def findings(run_dir: Path) -> Iterator[str]:
    """Yield what is missing, duplicate or changed in the directory of a training run."""
    yield from _seal_findings(run_dir)
    yield from _checkpoint_findings(run_dir)
    # Files that cannot be read are findings like all others.
    try:
        steps = len(read_result(run_dir)["steps"])
        for item in verify(run_dir / TRACE, steps=steps):
            yield f"{item.kind}: {item.where}: {item.message}"
    except RunDirectoryError as error:
        yield f"damaged: {error}"


def _seal_findings(run_dir: Path) -> list[str]:
    if not (run_dir / SUMS).is_file():
        return [f"open: {SUMS} is missing: the run goes on, was killed, or has no page yet"]
    try:
        return changed_since_sealed(run_dir)
    except RunDirectoryError as error:
        return [f"damaged: {error}"]


def _checkpoint_findings(run_dir: Path) -> list[str]:
    problems = []
    for path in list_checkpoints(run_dir / CHECKPOINTS):
        try:
            load_checkpoint(path)
        except RunDirectoryError as error:
            problems.append(f"damaged: {error}")
    return problems
