"""``study=verify study.run=RUN_DIR``: is everything there, once, and undamaged?"""

from pathlib import Path

from rich.console import Console

from repast_dist.farm.checkpoint import list_checkpoints, load_checkpoint
from repast_dist.ground.errors import RunDirectoryError
from repast_dist.ground.files import CHECKPOINTS, RESULT, TRACE, read_json
from repast_dist.studies.kinds.verify import VerifyStudy
from repast_dist.studies.run_directory import existing_run
from repast_dist.studies.settings import RunSettings
from repast_dist.trace import verify


def run(study: VerifyStudy, settings: RunSettings, run_dir: Path | None, console: Console) -> Path:
    """Check a run directory and print what is wrong with it.

    Raises
    ------
    RunDirectoryError
        Something is missing, duplicate or damaged; each finding was printed.
    """
    run_dir = existing_run(study.run)
    result = read_json(run_dir / RESULT)
    problems = [str(finding) for finding in _trace_findings(run_dir, result)]
    problems += _checkpoint_findings(run_dir)
    for problem in problems:
        console.print(problem, markup=False, highlight=False, soft_wrap=True)
    steps = len(result["steps"])
    if problems:
        raise RunDirectoryError(f"{run_dir}: {len(problems)} problems found")
    console.print(
        f"{run_dir}: complete; {steps} steps, every chip's rows once, "
        f"{len(list_checkpoints(run_dir / CHECKPOINTS))} good checkpoints",
        markup=False,
        highlight=False,
    )
    return run_dir


def _trace_findings(run_dir: Path, result: dict[str, list[object]]) -> list[str]:
    found = verify(run_dir / TRACE, steps=len(result["steps"]))
    return [f"{item.kind}: {item.where}: {item.message}" for item in found]


def _checkpoint_findings(run_dir: Path) -> list[str]:
    problems = []
    for path in list_checkpoints(run_dir / CHECKPOINTS):
        try:
            load_checkpoint(path)
        except RunDirectoryError as error:
            problems.append(f"damaged: {error}")
    return problems
