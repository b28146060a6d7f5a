"""Where a study's answer goes: tables, page and settings in a new run directory."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from repast_dist.ground.errors import SettingsError
from repast_dist.ground.files import ANSWER, SETTINGS, checked_entries, read_json, write_json
from repast_dist.ground.plugins import checksums
from repast_dist.ground.spec import to_dict
from repast_dist.ground.versions import versions
from repast_dist.report.console import say
from repast_dist.report.study_page import StudyPage, write_study
from repast_dist.studies import stored
from repast_dist.studies.run_directory import new_run_directory
from repast_dist.studies.settings import RunSettings

Figures = dict[str, tuple[float, str]]
"""Name -> value and unit."""


def write_answer(
    folder: Path, study: str, answer: str, figures: Figures, plugins: Mapping[str, str]
) -> None:
    """Write ``answer.json``, which every run leaves.

    Parameters
    ----------
    folder : Path
        The run directory.
    study, answer : str
        Who answers, and the answer in a sentence or two.
    figures : dict
        Key figures: name -> value and unit.
    plugins : mapping
        Plug-in -> checksum.
    """
    listed = [
        {"name": name, "value": value, "unit": unit} for name, (value, unit) in figures.items()
    ]
    data = {"study": study, "answer": answer, "figures": listed, "plugins": dict(plugins)}
    write_json(folder / ANSWER, data)


def read_answer(folder: Path) -> str:
    """Return the answer of a run, in a sentence or two.

    Raises
    ------
    RunDirectoryError
        There is no ``answer.json``, or it is damaged.
    """
    path = folder / ANSWER
    stored = read_json(path)
    checked_entries(path, stored, {"answer": str})
    return str(stored["answer"])


def read_figures(folder: Path) -> Figures:
    """Return the key figures of a run.

    Raises
    ------
    RunDirectoryError
        There is no ``answer.json``, or it is damaged.
    """
    path = folder / ANSWER
    answer = read_json(path)
    checked_entries(path, answer, {"figures": list})
    stored = answer["figures"]
    for item in stored:
        checked_entries(path, item, {"name": str, "value": (int, float), "unit": str})
    return {item["name"]: (item["value"], item["unit"]) for item in stored}


def objective_of(names: Sequence[str], figures: Figures) -> tuple[float, ...]:
    """Return the figures by which runs are judged, each the better the smaller it is.

    Parameters
    ----------
    names : sequence of str
        Key figures; ``"-test accuracy"`` is the better the larger it is.
    figures : dict
        Those of a run.

    Raises
    ------
    SettingsError
        The run has no such figure.
    """
    values = []
    for name in names:
        key = name.removeprefix("-")
        if key not in figures:
            raise SettingsError(
                f"objective: the answer has no figure '{key}'; valid: {', '.join(figures)}"
            )
        values.append(float(figures[key][0]) * (-1.0 if name.startswith("-") else 1.0))
    return tuple(values)


def begin(settings: RunSettings, run_dir: Path | None = None) -> Path:
    """Return the run directory of a study that works through points: a new one, or to go on with.

    Its settings are written first, so that ``resume=RUN_DIR`` can read them.
    """
    if run_dir is not None:
        return run_dir
    folder = new_run_directory(
        Path(settings.run_root),
        settings.study.name,
        lambda aside: write_json(aside / SETTINGS, to_dict(settings)),
    )
    stored.began(folder)
    return folder


def finish(
    page: StudyPage,
    settings: RunSettings,
    console: Console,
    run_dir: Path | None = None,
    details: Callable[[], object] = lambda: None,
) -> Path:
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
    details : callable
        Prints what follows the answer: tables, notes.
    """
    folder = begin(settings, run_dir)
    plugins = checksums(settings.plugins)
    of_plugins = {f"plug-in {name}": f"sha256 {digest}" for name, digest in plugins.items()}
    figures = {
        figure.label: (figure.number, figure.unit)
        for figure in page.key_figures
        if figure.number is not None
    }
    write_answer(folder, page.study, page.answer, figures, plugins)
    report = write_study(
        dataclasses.replace(
            page, settings=to_dict(settings), versions={**versions(), **of_plugins}
        ),
        folder,
    )
    say(page.answer, console)
    details()
    console.print(f"Tables:        {folder / 'tables'}", markup=False, soft_wrap=True)
    console.print(f"Report:        {report}", markup=False, soft_wrap=True)
    return folder
