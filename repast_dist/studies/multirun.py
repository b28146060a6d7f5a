"""Several settings of a study, in one table: ``-m key=a,b``.

Runs go on side by side, each in a process of its own, as far as there are processors for them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console

from repast_dist.ground.errors import RepastError, RunDirectoryError, Stopped
from repast_dist.ground.files import REPORT, RESULT
from repast_dist.ground.plugins import checksums
from repast_dist.ground.presets import setting_groups
from repast_dist.ground.spec import to_dict
from repast_dist.report.compare import write_comparison
from repast_dist.report.console import print_table
from repast_dist.report.study_page import StudyPage, StudySection, write_study
from repast_dist.report.units import counted
from repast_dist.studies.differing import differing_settings, told_apart
from repast_dist.studies.output import Figures, objective_of, read_figures, write_answer
from repast_dist.studies.run_directory import locked, new_run_directory
from repast_dist.studies.run_table import run_table, telling
from repast_dist.studies.settings import RunSettings
from repast_dist.studies.sweep_runs import do_missing
from repast_dist.studies.sweep_state import SweepPoint, SweepState


def run_sweep(
    settings: Sequence[RunSettings],
    points: Sequence[Sequence[str]],
    console: Console | None = None,
    jobs: int | None = None,
) -> Path:
    """Run several settings on one cluster, and put them into one table.

    Parameters
    ----------
    settings : sequence of RunSettings
        One per point.
    points : sequence of sequence of str
        The overrides of each point, for the headings.
    console : Console, optional
        Where the runs are shown.
    jobs : int, optional
        How many runs at a time; None: as many as this machine has processors for.

    Returns
    -------
    Path
        A folder with the runs, ``sweep.json``, ``tables/sweep.parquet`` and a page: the settings
        that differ and the key figures of every run. Training runs get a page that compares their
        curves, too.

    Raises
    ------
    KeyboardInterrupt, RepastError
        Ctrl-C, or a run failed: the runs that had finished are in the table, and `resume_sweep`
        goes on.
    """
    root = Path(settings[0].run_root)
    folder = new_run_directory(root, "sweep", lambda it: SweepState.begin(it, settings, points))
    with locked(folder):
        _go_on(SweepState.read(folder, {}), {}, console or Console(), jobs)
    return folder


def resume_sweep(
    folder: Path,
    farm: Mapping[str, Any] | None = None,
    console: Console | None = None,
    jobs: int | None = None,
) -> Path:
    """Go on with a sweep that was stopped: finished runs are kept, one under way is resumed.

    Parameters
    ----------
    folder : Path
        The sweep's folder.
    farm : mapping, optional
        Settings of ``farm`` to change in the runs that are not finished.
    console, jobs
        As in `run_sweep`.

    Raises
    ------
    RunDirectoryError
        It is in use, damaged, or finished.
    KeyboardInterrupt, RepastError
        As `run_sweep`.
    """
    with locked(folder):
        state = SweepState.read(folder, farm or {})
        if len(state.finished) == len(state.points) and (folder / REPORT).is_file():
            raise RunDirectoryError(f"{folder}: the sweep is finished, there is nothing to resume")
        _go_on(state, farm or {}, console or Console(), jobs)
    return folder


def _go_on(state: SweepState, farm: Mapping[str, Any], console: Console, jobs: int | None) -> None:
    """Do the runs that are missing, and show all."""
    stopped: BaseException | None = None
    # What has been computed is worth a table, whatever comes between.
    try:
        do_missing(state, farm, console, jobs)
    except (KeyboardInterrupt, RepastError, OSError) as error:
        stopped = error
    hint = f"resume={state.folder} goes on"
    try:
        if state.finished:
            show_sweep(state, console)
    except OSError as error:
        if stopped is None:
            raise RunDirectoryError(f"{state.folder}: {error}; {hint}") from error
    all_done = len(state.finished) == len(state.points)
    if stopped is None or (all_done and isinstance(stopped, KeyboardInterrupt)):
        return
    done = f"{len(state.finished)} of {len(state.points)} runs"
    console.print(
        f"Stopped after {done}. Go on with: repast-dist resume={state.folder}",
        markup=False,
        soft_wrap=True,
    )
    if isinstance(stopped, KeyboardInterrupt):
        raise Stopped from stopped
    raise stopped


def show_sweep(state: SweepState, console: Console) -> None:
    """Write the tables and pages of a sweep's finished runs, and print the table."""
    folder, points = state.folder, state.finished
    objective = points[0].settings.objective
    if objective:
        # The sort is stable: equal runs stay in their order.
        points.sort(key=lambda point: objective_of(objective, read_figures(point.run)))
    settings = [point.settings for point in points]
    directories = [point.run for point in points]
    differing = differing_settings([to_dict(item) for item in settings])
    figures = [read_figures(directory) for directory in directories]
    names = [directory.name for directory in directories]
    table = run_table(differing, figures, names)
    title = f"Sweep, best {' and '.join(objective)} first" if objective else "Sweep"
    told = telling(run_table(told_apart(differing, _choices(points)), figures, names))
    print_table(title, told, console)
    rows = zip(directories, differing, figures, strict=True)
    state.table = [
        {"run": state.relative(path), "settings": changed, "figures": _plain(found)}
        for path, changed, found in rows
    ]
    state.save()
    answer = _page(settings, told, table, len(state.points))
    plugins = checksums(settings[0].plugins)
    write_answer(folder, answer.study, answer.answer, {}, plugins)
    page = write_study(answer, folder)
    console.print(f"Sweep:         {page}", markup=False, soft_wrap=True)
    if len(directories) > 1 and all((run / RESULT).is_file() for run in directories):
        page = write_comparison(directories, folder / "compare.html")
        console.print(f"Comparison:    {page}", markup=False, soft_wrap=True)


def _choices(points: Sequence[SweepPoint]) -> list[dict[str, str]]:
    """Return, per point, the options of groups that its overrides choose."""
    words = [[word.lstrip("+").partition("=") for word in point.overrides] for point in points]
    groups = setting_groups()
    return [{key: value for key, _, value in item if key in groups} for item in words]


def _plain(figures: Figures) -> list[dict[str, Any]]:
    return [{"name": name, "value": value, "unit": unit} for name, (value, unit) in figures.items()]


def _page(
    settings: Sequence[RunSettings], told: pa.Table, table: pa.Table, asked: int
) -> StudyPage:
    more = set(table.column_names) - set(told.column_names)
    names = ", ".join(dict.fromkeys(item.study.name for item in settings))
    done = len(settings)
    count = counted(done, "run") if done == asked else f"{done:,} of {asked:,} runs, those done,"
    return StudyPage(
        study="sweep",
        title=f"Sweep of study {names}",
        answer=f"{count} of study {names}, with the settings that differ.",
        tables={"runs": told, "sweep": table},
        sections=[
            StudySection("Runs", tables=["runs"]),
            *([StudySection("All that differs", tables=["sweep"])] if more else []),
        ],
        settings=to_dict(settings[0]),
    )
