"""``study=compare study.runs=[A,B]``: settings that differ and results side by side."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from repast_dist.ground.errors import SettingsError
from repast_dist.ground.files import RESULT
from repast_dist.ground.plugins import checksums
from repast_dist.report.compare import (
    comparison_table,
    find_runs,
    load_comparison,
    write_comparison,
)
from repast_dist.report.console import print_table
from repast_dist.report.study_page import StudyPage
from repast_dist.studies.answers_beside import answers_beside
from repast_dist.studies.kinds.compare import CompareStudy
from repast_dist.studies.output import begin, finish, write_answer
from repast_dist.studies.run_table import telling
from repast_dist.studies.settings import RunSettings


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
    """
    runs: list[Path] = []
    for name in study.runs:
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
    console.print(_printed(table.to_pylist()))
    folder = begin(settings, run_dir)
    answer = f"{len(runs)} runs side by side: {', '.join(run.name for run in runs)}."
    write_answer(folder, study.name, answer, {}, checksums(settings.plugins))
    page = write_comparison(runs, folder / "compare.html")
    console.print(f"Comparison:    {page}", markup=False, soft_wrap=True)
    return folder


def _show(page: StudyPage, console: Console) -> None:
    print_table("Runs", telling(page.tables["runs"]), console)
    if "differences" in page.tables:
        print_table("What differs in their tables", page.tables["differences"], console)


def _printed(rows: list[dict[str, object]]) -> Table:
    """One column per run: a terminal is taller than wide."""
    first, *others = rows[0]
    shown = Table(title="Runs", title_justify="left")
    shown.add_column(first)
    for row in rows:
        shown.add_column(_cell(row[first]), justify="right", overflow="fold")
    for name in others:
        shown.add_row(name, *(_cell(row[name]) for row in rows))
    return shown


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
