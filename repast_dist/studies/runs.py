"""``repast-dist open``: all runs below a folder, on one page with links to theirs."""

import contextlib
import dataclasses
import datetime
import time
import webbrowser
from collections import Counter, defaultdict
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
from repast_dist.report.units import counted, number
from repast_dist.studies.differing import differing_settings, told_apart
from repast_dist.studies.kinds.runs import RunsStudy
from repast_dist.studies.output import write_answer
from repast_dist.studies.run_directory import in_use
from repast_dist.studies.settings import RunSettings
from repast_dist.studies.stored import fetch_runs

INDEX = "index.html"
_LOCAL = Path("runs")
"""Where is put what is shown of runs in a store."""

_EVERY_S = 5.0
"""How often the page is written anew while runs go on."""
_RUNNING = "running"

_DEEPEST = 4
_MOST_SETTINGS = 6
_LONGEST_VALUE = 32
_LONGEST_NAME = 42
"""Letters of a curve's name that a legend has room for."""


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
    """List the runs; where a browser shows them, until none of them goes on, or Ctrl-C.

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
        page = root / REPORT
        itself = f"; it is a run itself, and its page is {page}" if page.is_file() else ""
        raise RunDirectoryError(
            f"run_root: {settings.run_root} holds no runs; valid: a folder that does{itself}"
        )
    page = root / INDEX
    live = study.browser and not stored and _goes_on(found)
    shown = _written(root, found, study, live)
    write_answer(root, study.name, shown.answer, {}, checksums(settings.plugins))
    table = pa.table(
        {
            "began": [run.date for run in found],
            "study": [run.study for run in found],
            "status": [run.status for run in found],
            "what differs": _differing(found),
            "run": [str(run.folder.relative_to(root)) for run in found],
        }
    )
    print_table("Runs, newest first", table, console)
    console.print(f"All runs:      {page}", markup=False, soft_wrap=True)
    if study.browser:
        webbrowser.open(page.resolve().as_uri())
    if live:
        console.print("It follows the runs that go on, until they end or Ctrl-C.")
        _follow(root, study)
    return root


def _goes_on(found: Sequence[Found]) -> bool:
    return any(run.status == _RUNNING for run in found)


def _written(root: Path, found: Sequence[Found], study: RunsStudy, live: bool) -> Page:
    shown = runs_page(root, found, _differing(found), study.most_curves)
    shown = dataclasses.replace(shown, refresh_s=_EVERY_S if live else 0.0)
    write_page(shown, root / INDEX)
    return shown


def _follow(root: Path, study: RunsStudy) -> None:
    """Write the page anew while runs go on, and once more when the last has ended."""
    found: Sequence[Found] = []
    try:
        while True:
            time.sleep(_EVERY_S)
            # All may have been deleted meanwhile.
            found = find_runs(root) or found
            if not _goes_on(found):
                break
            _written(root, found, study, live=True)
    except KeyboardInterrupt:
        found = find_runs(root) or found
    if found:
        _written(root, found, study, live=False)


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
    # One that was killed has no time to say so.
    going = in_use(folder)
    ended = "finished" if answered else _RUNNING if going else "not finished"
    status = str(trained.get("status", ended))
    return Found(
        folder=folder,
        began=datetime.datetime.fromtimestamp((folder / SETTINGS).stat().st_mtime),
        study=str(answered.get("study") or settings.get("study", {}).get("name", "")),
        status="stopped" if status == _RUNNING and not going else status,
        answer=str(answered.get("answer", "")),
        settings=settings,
        size_bytes=_size(folder),
        epochs=epochs,
    )


def _size(folder: Path) -> int:
    """Return the bytes of all files; of runs that go on, some are gone before they are counted."""
    size = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            size += file.stat().st_size if file.is_file() else 0
    return size


def _differing(found: Sequence[Found]) -> list[str]:
    """Return, per run, the settings in which runs of its study differ, in short; those whose value
    it shares with the fewest come first.
    """
    of_study: dict[str, list[int]] = defaultdict(list)
    for index, run in enumerate(found):
        of_study[run.study].append(index)
    texts = [""] * len(found)
    for indices in of_study.values():
        differ = differing_settings([{**found[i].settings, "run_root": ""} for i in indices])
        told = told_apart(differ)
        alike = {name: Counter(repr(row[name]) for row in told) for name in told[0]}
        for index, changed in zip(indices, told, strict=True):
            rare = sorted(changed, key=lambda name: alike[name][repr(changed[name])])
            named = [_short(name, changed[name]) for name in rare if changed[name] is not None]
            more = (
                f", and {len(named) - _MOST_SETTINGS} more" if len(named) > _MOST_SETTINGS else ""
            )
            texts[index] = ", ".join(named[:_MOST_SETTINGS]) + more
    return texts


def _short(name: str, value: object) -> str:
    """Return ``key=value`` of a setting; ``chip.name`` is ``chip``, and lists are cut."""
    path = name.removesuffix(".name").rpartition(".")
    text = str(value)
    return f"{path[2]}={text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + '…'}"


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
                f"{run.began:%H:%M} {text}"[:_LONGEST_NAME],
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
        answer=f"{counted(len(found), 'run')}; the newest began {found[0].date}: "
        + (found[0].answer or f"study={found[0].study}, {found[0].status}"),
        sections=[Section("Runs", parts)],
    )
