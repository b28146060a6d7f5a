"""Prints to the terminal: progress while a run goes on, tables when it ends."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
)
from rich.table import Table

from repast_dist.report.page import arrow_table
from repast_dist.report.run.wear import wear_line
from repast_dist.report.run_data import without_meaningless
from repast_dist.report.units import duration, number, percent, si
from repast_dist.trace.schema import PHASES
from repast_dist.trace.verify import Finding

_PLAIN_EVERY_S = 5.0


def say(text: str, console: Console) -> None:
    """Print a sentence: in lines of whole words on a terminal, in one line elsewhere."""
    seen = console.is_terminal or console.is_jupyter
    console.print(text, markup=False, highlight=False, soft_wrap=not seen)


class _Progress:
    """Updates one line in place on a terminal; in a log file or a pipe it prints a plain line every
    few seconds and one at the end.
    """

    def __init__(self, name: str, total: int, done: int, console: Console | None) -> None:
        self._console = console or Console()
        self._name, self._total, self._first = name, total, done
        self._started = self._printed = time.monotonic()
        self._counting_since: float | None = None
        self._live: Progress | None = None
        self._task = TaskID(0)

    def __enter__(self) -> Self:
        self._started = self._printed = time.monotonic()
        if self._console.is_terminal:
            self._live = Progress(
                TextColumn(self._name),
                MofNCompleteColumn(),
                BarColumn(),
                TextColumn("{task.description}"),
                TextColumn("{task.fields[left]}"),
                console=self._console,
            )
            self._live.start()
            self._task = self._live.add_task("", total=self._total, completed=self._first, left="")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def message(self, text: str) -> None:
        """Print one line without disturbing the display, for example an event or an epoch."""
        say(text, self._live.console if self._live is not None else self._console)

    def _show(self, done: int, text: str = "") -> None:
        if self._counting_since is None:
            # The time before the first one is done is that of starting processes, too.
            self._counting_since, self._first = time.monotonic(), done
        if self._live is not None:
            self._live.update(
                self._task, completed=done, description=text, left=self._left_text(done)
            )
        elif done >= self._total or time.monotonic() - self._printed >= _PLAIN_EVERY_S:
            self._printed = time.monotonic()
            self._print_plain(done, text)

    def _print_plain(self, done: int, text: str) -> None:
        parts = [f"{self._name} {done}/{self._total}", text]
        if done >= self._total:
            parts.append(f"took {duration(time.monotonic() - self._started)}")
        parts.append(self._left_text(done))
        say("  ".join(filter(None, parts)), self._console)

    def _left_text(self, done: int) -> str:
        if self._counting_since is None or not self._first < done < self._total:
            return ""
        return f"about {duration(self._left_s(done, time.monotonic() - self._counting_since))} left"

    def _left_s(self, done: int, spent_s: float) -> float:
        """Return the seconds that are left, from those since counting began."""
        return spent_s / (done - self._first) * (self._total - done)


class RunProgress(_Progress):
    """Shows step, loss, accuracy, chips and the time left, tests included.

    Parameters
    ----------
    total_steps : int
        Steps of the whole run.
    chips : int
        Chips of the farm.
    first_step : int
        Steps already done, when a run is resumed.
    tests : int
        Tests that are to come.
    test_steps : float
        What a test takes, in steps: a first guess, until one has been seen.
    console : rich.console.Console, optional
        Where to write; None is standard output.
    """

    def __init__(
        self,
        total_steps: int,
        chips: int,
        *,
        first_step: int = 0,
        tests: int = 0,
        test_steps: float = 0.0,
        console: Console | None = None,
    ) -> None:
        super().__init__("step", total_steps, first_step, console)
        self._chips = chips
        self._tests, self._test_steps = tests, test_steps
        self._tested, self._test_s = 0, 0.0
        self._last = time.monotonic()

    def tested(self) -> None:
        """Count a test, which has taken the time since the last step."""
        self._tested += 1
        self._test_s += time.monotonic() - self._last
        self._last = time.monotonic()

    def _left_s(self, done: int, spent_s: float) -> float:
        step_s = (spent_s - self._test_s) / (done - self._first)
        test_s = self._test_s / self._tested if self._tested else self._test_steps * step_s
        return step_s * (self._total - done) + test_s * max(0, self._tests - self._tested)

    def update(
        self,
        steps_done: int,
        *,
        loss: float,
        accuracy: float | None = None,
        chips: int | None = None,
    ) -> None:
        """Show the progress after `steps_done` steps; give `chips` when their number changed."""
        self._last = time.monotonic()
        self._chips = chips if chips is not None else self._chips
        text = f"loss {number(loss)}"
        if accuracy is not None:
            text += f"  accuracy {percent(accuracy)}"
        self._show(steps_done, f"{text}  {self._chips} chip{'s' if self._chips != 1 else ''}")


class PointProgress(_Progress):
    """Shows how many points of a study are done and the time left.

    Parameters
    ----------
    title : str
        What is computed.
    total, done : int
        Points, and how many of them were there already.
    console : rich.console.Console, optional
        Where to write; None is standard output.
    """

    def __init__(
        self, title: str, total: int, *, done: int = 0, console: Console | None = None
    ) -> None:
        super().__init__(title, total, done, console)
        self._done = done

    def __enter__(self) -> Self:
        super().__enter__()
        if self._done:
            self.message(f"{self._name}: {self._done} of {self._total} points are there already")
        return self

    def advance(self) -> None:
        """Count one more point."""
        self.reach(self._done + 1)

    def reach(self, done: int) -> None:
        """Show that so many points are done."""
        self._done = done
        self._show(self._done)


def print_summary(result: Mapping[str, Any], console: Console | None = None) -> None:
    """Print time and energy per phase of a finished run, accuracy, and the life of the cells.

    Parameters
    ----------
    result : mapping
        Content of ``result.json``; ``totals`` as of `repast_dist.trace.Totals.to_dict`.
    """
    console = console or Console()
    console.print(phase_table(result["totals"]))
    for line in (outcome(result), _wear_line(result)):
        if line:
            say(line, console)


def _wear_line(result: Mapping[str, Any]) -> str:
    record = result.get("wear")
    return wear_line(record) if record and record["first"] else ""


def phase_table(totals: Mapping[str, Any]) -> Table:
    """Return the table of simulated time and energy per phase."""
    table = Table(title="Simulated cost per phase", title_justify="left")
    table.add_column("phase")
    for name in ("time", "share", "energy", "share"):
        table.add_column(name, justify="right")
    phases = totals["phases"]
    for name in [*PHASES, *(key for key in phases if key not in PHASES)]:
        if name in phases:
            phase = phases[name]
            table.add_row(
                name,
                si(phase["time_s"], "s"),
                percent(phase["share_time"]),
                si(phase["energy_j"], "J"),
                percent(phase["share_energy"]),
            )
    table.add_section()
    table.add_row("run", si(totals["time_s"], "s"), "", si(totals["energy_j"], "J"), "")
    return table


def print_table(title: str, table: pa.Table, console: Console) -> None:
    """Print an Arrow table; units come from the field metadata (``unit``).

    On a terminal it fits: text that is too long is cut from the left, since names differ at their
    end, columns that have no room and rows beyond the first are counted below. In a file or a
    pipe all of it is there.

    Parameters
    ----------
    title : str
        What it shows.
    table : Table
        The page has the same one.
    console : Console
        Where.
    """
    shown = arrow_table(title, table)
    rows = [
        [column.show(value) for value, column in zip(row, shown.columns, strict=True)]
        for row in shown.rows
    ]
    columns = [
        _TextColumn(column.name, [row[n] for row in rows], column.numeric)
        for n, column in enumerate(shown.columns)
    ]
    left_out = []
    if console.is_terminal:
        whole, count = columns, len(rows)
        columns = [column.first(_MOST_ROWS) for column in _fitted(columns, console.width)]
        left_out += [f"{count - _MOST_ROWS} more rows"] if count > _MOST_ROWS else []
        gone = [column.name for column in whole[len(columns) :]]
        left_out += [f"columns {', '.join(gone)}"] if gone else []
    text = Table(
        title=escape(title),
        title_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    for column in columns:
        text.add_column(
            escape(column.name),
            justify="right" if column.numeric else "left",
            width=column.width,
        )
    for cells in zip(*(column.cells for column in columns), strict=True):
        text.add_row(*map(escape, cells))
    seen = console.is_terminal or console.is_jupyter
    to = console if seen else Console(file=console.file, width=_WIDEST, quiet=console.quiet)
    to.print(text, crop=False)
    if left_out:
        console.print(f"On the page: {'; '.join(left_out)}.", markup=False)


# What a terminal shows of a long table, and how wide one may be in a file.
_MOST_ROWS = 30
_WIDEST = 10_000
_SHORTEST_TEXT = 10
_GAP = 2


@dataclasses.dataclass(frozen=True)
class _TextColumn:
    """A column as text."""

    name: str
    cells: list[str]
    numeric: bool

    @property
    def width(self) -> int:
        """Characters that the values and the longest word of the heading take."""
        return max(map(len, [*self.cells, *self.name.split()]), default=0)

    def first(self, count: int) -> Self:
        """Return the column with its first values."""
        return dataclasses.replace(self, cells=self.cells[:count])

    @property
    def least(self) -> int:
        """Characters that it cannot do without: numbers are never cut."""
        return max(map(len, self.cells), default=0) if self.numeric else 0

    def cut(self, width: int) -> Self:
        """Return the column with text, also in the heading, that is cut from the left."""
        cells = self.cells if self.numeric else [_cut(cell, width) for cell in self.cells]
        name = " ".join(_cut(word, width) for word in self.name.split())
        return dataclasses.replace(self, name=name, cells=cells)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else "…" + text[len(text) - width + 1 :]


def _fitted(columns: Sequence[_TextColumn], width: int) -> list[_TextColumn]:
    """Return columns that fit: the longest text is cut first, then the last columns left out."""
    kept = list(columns)
    while kept:
        over = sum(column.width + _GAP for column in kept) - 1 - width
        if over <= 0:
            break
        can = [c for c in kept if c.width > max(c.least, _SHORTEST_TEXT)]
        if not can:
            kept.pop()
            continue
        longest = max(can, key=lambda column: column.width)
        second = max((c.width for c in can if c is not longest), default=0)
        target = max(longest.width - over, _SHORTEST_TEXT, longest.least, second - 1)
        kept[kept.index(longest)] = longest.cut(min(target, longest.width - 1))
    return kept


def findings_table(findings: Sequence[Finding]) -> Table:
    """Return what `repast_dist.trace.verify` found, one row each."""
    plural = "" if len(findings) == 1 else "s"
    table = Table(title=f"{len(findings)} fault{plural} in the trace", title_justify="left")
    for name in ("kind", "where", "what"):
        table.add_column(name)
    for finding in findings:
        table.add_row(finding.kind, escape(finding.where), escape(finding.message))
    return table


def outcome(result: Mapping[str, Any]) -> str:
    """Return one line on how the training ended, or nothing before the first epoch."""
    epochs = without_meaningless(result)["epochs"]
    if not epochs:
        return ""
    last = epochs[-1]
    accuracy = last.get("test_accuracy")
    text = f"epoch {last['epoch']}: test loss {number(last['test_loss'])}"
    if accuracy is not None:
        text += f", test accuracy {percent(accuracy, 2)}"
    if "wall_s" in result:
        text += f", simulated in {duration(result['wall_s'])}"
    return text
