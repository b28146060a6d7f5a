"""``repast-dist open``: all runs below a folder, on one page with links to theirs."""

import dataclasses
import datetime
import webbrowser
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console

from repast_dist.farm.storage.specs import is_uri
from repast_dist.ground.errors import RunDirectoryError
from repast_dist.ground.files import ANSWER, REPORT, RESULT, SETTINGS, read_json
from repast_dist.ground.plugins import checksums
from repast_dist.report import figures
from repast_dist.report.axes import Axis
from repast_dist.report.console import print_table
from repast_dist.report.page import Column, Frame, Page, Section, Table, write_page
from repast_dist.report.units import number
from repast_dist.studies.differing import differing_settings
from repast_dist.studies.kinds.runs import RunsStudy
from repast_dist.studies.output import write_answer
from repast_dist.studies.settings import RunSettings
from repast_dist.studies.stored import fetch_runs

INDEX = "index.html"
_LOCAL = Path("runs")
"""Where is put what is shown of runs in a store."""

_DEEPEST = 4
_MOST_SETTINGS = 6


@dataclasses.dataclass(frozen=True)
class Found:
    """A run directory.

    Attributes
    ----------
    folder : Path
        Where it is.
    began : datetime
        When its settings were written.
    study, status, answer : str
        What was asked, how it ended, what came out.
    settings : mapping
        All settings.
    size_bytes : int
        Size of all its files.
    epochs : sequence of mapping
        Of a training run: step and losses after each epoch.
    """

    folder: Path
    began: datetime.datetime
    study: str
    status: str
    answer: str
    settings: Mapping[str, Any]
    size_bytes: int
    epochs: Sequence[Mapping[str, Any]]

    @property
    def date(self) -> str:
        """Date and time to the minute."""
        return self.began.strftime("%Y-%m-%d %H:%M")


def run(study: RunsStudy, settings: RunSettings, run_dir: Path | None, console: Console) -> Path:
    """List the runs.

    Raises
    ------
    RunDirectoryError
        There is none.
    StorageError
        They are in a store that cannot be reached.
    """
    stored = is_uri(settings.run_root)
    root = fetch_runs(settings.run_root, _LOCAL) if stored else Path(settings.run_root)
    found = find_runs(root)
    if not found:
        raise RunDirectoryError(
            f"run_root: {settings.run_root} holds no runs; valid: a folder that does"
        )
    differ = _differing(found)
    page = root / INDEX
    shown = runs_page(root, found, differ, study.most_curves)
    write_page(shown, page)
    write_answer(root, study.name, shown.answer, {}, checksums(settings.plugins))
    table = pa.table(
        {
            "began": [run.date for run in found],
            "study": [run.study for run in found],
            "status": [run.status for run in found],
            "what differs": differ,
            "run": [str(run.folder.relative_to(root)) for run in found],
        }
    )
    print_table("Runs, newest first", table, console)
    console.print(f"All runs:      {page}", markup=False, soft_wrap=True)
    if study.browser:
        webbrowser.open(page.resolve().as_uri())
    return root


def find_runs(root: Path) -> list[Found]:
    """Return the runs below a folder, newest first; what is no run, or damaged, is passed over."""
    found = []
    for depth in range(1, _DEEPEST + 1):
        for path in root.glob("/".join(["*"] * depth + [SETTINGS])):
            try:
                found.append(_read(path.parent))
            except (RunDirectoryError, OSError):
                continue
    return sorted(found, key=lambda run: (run.began, str(run.folder)), reverse=True)


def _read(folder: Path) -> Found:
    settings = read_json(folder / SETTINGS)
    trained = read_json(folder / RESULT) if (folder / RESULT).is_file() else {}
    answered = read_json(folder / ANSWER) if (folder / ANSWER).is_file() else {}
    epochs = [epoch for epoch in trained.get("epochs", []) if "test_loss" in epoch]
    ended = "finished" if answered else "not finished"
    return Found(
        folder=folder,
        began=datetime.datetime.fromtimestamp((folder / SETTINGS).stat().st_mtime),
        study=str(answered.get("study") or settings.get("study", {}).get("name", "")),
        status=str(trained.get("status", ended)),
        answer=str(answered.get("answer", "")),
        settings=settings,
        size_bytes=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        epochs=epochs,
    )


def _differing(found: Sequence[Found]) -> list[str]:
    """Return, per run, the settings in which runs of its study differ, in short."""
    of_study: dict[str, list[int]] = defaultdict(list)
    for index, run in enumerate(found):
        of_study[run.study].append(index)
    texts = [""] * len(found)
    for indices in of_study.values():
        differ = differing_settings([{**found[i].settings, "run_root": ""} for i in indices])
        for index, changed in zip(indices, differ, strict=True):
            named = [f"{n.rpartition('.')[2]}={v}" for n, v in changed.items() if v is not None]
            more = (
                f", and {len(named) - _MOST_SETTINGS} more" if len(named) > _MOST_SETTINGS else ""
            )
            texts[index] = ", ".join(named[:_MOST_SETTINGS]) + more
    return texts


def runs_page(root: Path, found: Sequence[Found], differ: Sequence[str], curves: int) -> Page:
    """Return the page of all runs.

    Parameters
    ----------
    root : Path
        Their folder, where the page will be.
    found : sequence of Found
        The runs.
    differ : sequence of str
        The settings in which each differs.
    curves : int
        Of how many training runs losses are drawn.
    """
    columns = [
        Column("began"),
        Column("study"),
        Column("status"),
        Column("what differs"),
        Column("answer"),
        Column("size, kB", number, numeric=True),
        Column("run"),
    ]
    rows = [
        [
            run.date, run.study, run.status, text, run.answer, round(run.size_bytes / 1000),
            str(run.folder.relative_to(root)),
        ]
        for run, text in zip(found, differ, strict=True)
    ]  # fmt: skip
    links = [
        str((run.folder / REPORT).relative_to(root)) if (run.folder / REPORT).is_file() else ""
        for run in found
    ]
    table = Table(
        "Runs", columns, rows, "A click on a date opens the page of the run.", links=links
    )
    parts: list[Any] = [table]
    trained = [(run, text) for run, text in zip(found, differ, strict=True) if run.epochs][:curves]
    if trained:
        drawn = [
            figures.Curve(
                f"{run.date} {text}"[:60],
                [epoch["step"] for epoch in run.epochs],
                [epoch["test_loss"] for epoch in run.epochs],
            )
            for run, text in trained
        ]
        frame = Frame("A click on a name hides its curve.", height_px=420, wide=True)
        axes = Axis("step"), Axis("test loss")
        parts.insert(0, figures.line("Test loss of training runs", drawn, *axes, frame))
    return Page(
        title=f"Runs in {root.resolve().name}",
        subtitle="repast_dist",
        answer=f"{len(found)} runs; the newest began {found[0].date}: {found[0].answer}",
        sections=[Section("Runs", parts)],
    )
