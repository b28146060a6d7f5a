"""Where a cost study's answer goes: tables, page and settings in a new run directory."""

import dataclasses
import importlib.metadata
from pathlib import Path
from typing import Any

from rich.console import Console

from repast_dist import __version__
from repast_dist.report.study_page import StudyPage, write_study
from repast_dist.spec import to_dict
from repast_dist.studies.run_directory import SETTINGS, new_run_directory, write_json

_PACKAGES = ("numpy", "hwcomponents", "hwcomponents-adc", "hwcomponents-library")


def finish(page: StudyPage, settings: Any, console: Console) -> Path:
    """Write a study's page and tables with the settings that made them, and say where.

    Parameters
    ----------
    page : StudyPage
        The answer.
    settings : RunSettings
        The settings of the run.
    console : Console
        Where the answer and the paths are printed.
    """
    folder = new_run_directory(Path(settings.run_root), page.study)
    plain = to_dict(settings)
    write_json(folder / SETTINGS, plain)
    versions = {"repast-dist": __version__}
    versions |= {name: importlib.metadata.version(name) for name in _PACKAGES}
    report = write_study(dataclasses.replace(page, settings=plain, versions=versions), folder)
    console.print(page.answer, markup=False)
    console.print(f"Tables:        {folder / 'tables'}", markup=False, soft_wrap=True)
    console.print(f"Report:        {report}", markup=False, soft_wrap=True)
    return folder
