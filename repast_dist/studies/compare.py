"""``study=compare study.runs=[A,B]``: settings that differ and results side by side."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from repast_dist.farm.storage.specs import is_uri
from repast_dist.ground.errors import SettingsError
from repast_dist.ground.files import RESULT
from repast_dist.ground.plugins import checksums
from repast_dist.report import page
from repast_dist.report.compare import (
    comparison_table,
    find_runs,
    load_comparison,
    write_comparison,
)
from repast_dist.report.console import print_table
from repast_dist.report.page import arrow_table
from repast_dist.report.study_page import StudyPage
from repast_dist.studies.answers_beside import answers_beside
from repast_dist.studies.kinds.compare import CompareStudy
from repast_dist.studies.output import begin, finish, write_answer
from repast_dist.studies.run_table import telling
from repast_dist.studies.settings import RunSettings
from repast_dist.studies.stored import fetch_whole_runs


def run(study: CompareStudy, settings: RunSettings, run_dir: Path | None, console: Console) -> Path:
    """Compare runs, print the table and write the page.

    Training runs are compared with their losses and traces, finished or not; runs of other studies,
    and of several, by their key figures and the tables they have in common.

    Raises
    ------
    SettingsError
        Fewer than two runs were named.
    RunDirectoryError
        A run is damaged, or one of another study has not answered.
    StorageError
        A store holds no whole run, or cannot be reached.
    """
    runs: list[Path] = []
    for name in study.runs:
        if is_uri(name):
            runs += fetch_whole_runs(name, settings.run_root, console)
        else:
            runs += find_runs(Path(name))
    if len(runs) < 2:
        raise SettingsError(
            f"study.runs: {len(runs)} runs found, a comparison needs two; "
            "valid: study.runs=[RUN_DIR,RUN_DIR] or study.runs=[FOLDER_OF_RUNS]"
        )
    if not all((folder / RESULT).is_file() for folder in runs):
        beside = answers_beside(runs)
        return finish(beside, settings, console, run_dir, lambda: _show(beside, console))
    table = comparison_table(load_comparison(runs))
    console.print(_printed(arrow_table("Runs", table)))
    folder = begin(settings, run_dir)
    answer = f"{len(runs)} runs side by side: {', '.join(run.name for run in runs)}."
    write_answer(folder, study.name, answer, {}, checksums(settings.plugins))
    comparison = write_comparison(runs, folder / "compare.html")
    console.print(f"Comparison:    {comparison}", markup=False, soft_wrap=True)
    return folder


def _show(beside: StudyPage, console: Console) -> None:
    print_table("Runs", telling(beside.tables["runs"]), console)
    if "differences" in beside.tables:
        print_table("What differs in their tables", beside.tables["differences"], console)


def _printed(table: page.Table) -> Table:
    """One column per run: a terminal is taller than wide."""
    first, *others = table.columns
    shown = Table(title=table.title, title_justify="left")
    shown.add_column(first.name)
    for row in table.rows:
        shown.add_column(first.show(row[0]), justify="right", overflow="fold")
    for number, column in enumerate(others, 1):
        shown.add_row(column.name, *(column.show(row[number]) for row in table.rows))
    return shown
