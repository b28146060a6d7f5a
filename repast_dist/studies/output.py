"""Where a study's answer goes: tables, page and settings in a new run directory."""

import dataclasses
import importlib.metadata
from pathlib import Path
from typing import Any

from rich.console import Console

from repast_dist import __version__
from repast_dist.ground.plugins import checksums
from repast_dist.ground.spec import to_dict
from repast_dist.report.study_page import StudyPage, write_study
from repast_dist.studies.run_directory import ANSWER, SETTINGS, new_run_directory, write_json

_PACKAGES = ("numpy", "hwcomponents", "hwcomponents-adc", "hwcomponents-library")


def begin(settings: Any, run_dir: Path | None = None) -> Path:
    """Return the run directory of a study that works through points: a new one, or to go on with.

    Its settings are written first, so that ``resume=RUN_DIR`` can read them.
    """
    if run_dir is not None:
        return run_dir
    folder = new_run_directory(Path(settings.run_root), settings.study.name)
    write_json(folder / SETTINGS, to_dict(settings))
    return folder


def finish(page: StudyPage, settings: Any, console: Console, run_dir: Path | None = None) -> Path:
    """Write a study's page and tables with the settings that made them, and say where.

    Parameters
    ----------
    page : StudyPage
        The answer.
    settings : RunSettings
        The settings of the run.
    console : Console
        Where the answer and the paths are printed.
    run_dir : Path, optional
        What `begin` returned; None makes a new one.
    """
    folder = begin(settings, run_dir)
    plain = to_dict(settings)
    versions = {"repast-dist": __version__}
    versions |= {name: importlib.metadata.version(name) for name in _PACKAGES}
    plugins = checksums(settings.plugins)
    versions |= {f"plug-in {name}": f"sha256 {digest}" for name, digest in plugins.items()}
    figures = {figure.label: figure.value for figure in page.key_figures}
    write_json(
        folder / ANSWER,
        {"study": page.study, "answer": page.answer, "figures": figures, "plugins": plugins},
    )
    report = write_study(dataclasses.replace(page, settings=plain, versions=versions), folder)
    console.print(page.answer, markup=False)
    console.print(f"Tables:        {folder / 'tables'}", markup=False, soft_wrap=True)
    console.print(f"Report:        {report}", markup=False, soft_wrap=True)
    return folder
