"""``study=report study.run=RUN_DIR``: the page and the answer of a training run, and its seal."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from repast_dist.farm.storage.specs import is_uri
from repast_dist.ground.errors import RunDirectoryError
from repast_dist.ground.files import REPORT, RESULT, seal, unseal
from repast_dist.report.page import write_page
from repast_dist.report.run_data import load_run, without_meaningless
from repast_dist.report.run_report import run_page
from repast_dist.studies.kinds.report import ReportStudy
from repast_dist.studies.output import Figures, write_answer
from repast_dist.studies.run_directory import existing_run, locked
from repast_dist.studies.run_result import read_result
from repast_dist.studies.settings import RunSettings
from repast_dist.studies.stored import brought


def run(study: ReportStudy, settings: RunSettings, run_dir: Path | None, console: Console) -> Path:
    """Write the page of a run that has ended.

    Raises
    ------
    RunDirectoryError
        The run is in use, was killed and can go on, or is damaged.
    StorageError
        It is in a store, which cannot be reached or does not take the page.
    """
    with contextlib.ExitStack() as stack:
        if study.run is not None and is_uri(study.run):
            root = Path(settings.run_root)
            run_dir, _ = stack.enter_context(brought(study.run, root, console, again=True))
        run_dir = existing_run(study.run if run_dir is None else str(run_dir))
        stack.enter_context(locked(run_dir))
        write_run_page(run_dir, standalone=study.standalone)
    console.print(f"Report:        {run_dir / REPORT}", markup=False, soft_wrap=True)
    return run_dir


def write_run_page(run_dir: Path, *, standalone: bool = False) -> None:
    """Write report.html, answer.json and the checksums of a training run that has ended.

    Parameters
    ----------
    run_dir : Path
        Its directory.
    standalone : bool
        As of `write_page`.

    Raises
    ------
    RunDirectoryError
        result.json or the trace is missing or damaged, or the run has not ended.
    OSError
        The disk is full or not writable.
    """
    result = read_result(run_dir)
    if not {"totals", "wear"} <= set(result):
        raise RunDirectoryError(
            f"{run_dir / RESULT}: the run is {result['status']} and has no totals; "
            f"valid: resume={run_dir}"
        )
    unseal(run_dir)
    page = run_page(load_run(run_dir))
    write_page(page, run_dir / REPORT, standalone=standalone)
    write_answer(run_dir, result["study"], page.answer, _figures(result), result["plugins"])
    seal(run_dir)


def _figures(result: Mapping[str, Any]) -> Figures:
    """Return the key figures: those of the last epoch, and what the chips took for all of it."""
    epochs = without_meaningless(result)["epochs"]
    last = epochs[-1] if epochs else {}
    totals = result["totals"]
    figures = {
        "test accuracy": (last.get("test_accuracy"), "fraction"),
        "test squared error": (last.get("test_squared_error"), "1"),
        "test loss": (last.get("test_loss"), "1"),
        "train loss": (last.get("train_loss"), "1"),
        "simulated time": (totals.get("time_s"), "s"),
        "energy": (totals.get("energy_j"), "J"),
        "lifetime": (result["wear"]["lifetime_s"], "s"),
    }
    return {name: (value, unit) for name, (value, unit) in figures.items() if value is not None}
