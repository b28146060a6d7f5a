"""The questions a user asks: a study is chosen by ``study.name`` and answers itself."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from repast_dist.ground.errors import RunDirectoryError
from repast_dist.ground.files import SETTINGS, checked_entries, read_json
from repast_dist.studies.exports import export_run, exporter
from repast_dist.studies.settings import RunSettings, checked_settings


def run_study(settings: RunSettings, console: Console | None = None) -> Path:
    """Run the study the settings name and return the directory it left."""
    return _answered(settings, None, console or Console())


def resume_study(run_dir: Path, farm: Mapping[str, Any], console: Console | None = None) -> Path:
    """Go on with a run that was stopped.

    Parameters
    ----------
    run_dir : Path
        Its directory.
    farm : mapping
        Settings of ``farm`` to change; nothing else may change, since it would change the result.

    Raises
    ------
    RunDirectoryError
        Not a run directory, in use, or of a study that has nothing to go on with.
    """
    if not run_dir.is_dir():
        raise RunDirectoryError(f"resume: no run directory at {run_dir}")
    stored = read_json(run_dir / SETTINGS)
    checked_entries(run_dir / SETTINGS, stored, {"farm": dict})
    stored["farm"] |= farm
    settings = checked_settings(stored)
    if not settings.study.can_resume(run_dir):
        raise RunDirectoryError(
            f"{run_dir}: study {settings.study.name} keeps nothing to go on with; run it again"
        )
    return _answered(settings, run_dir, console or Console())


def _answered(settings: RunSettings, run_dir: Path | None, console: Console) -> Path:
    if settings.export is None:
        return settings.study.answer(settings, run_dir, console)
    # What is missing should be said before a long run.
    exporter(settings.export)
    folder = settings.study.answer(settings, run_dir, console)
    where = export_run(settings.export, folder)
    console.print(f"Exported:      {where}", markup=False, soft_wrap=True)
    return folder
