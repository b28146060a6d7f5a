"""Compares runs: which settings differ between them, and how the results differ."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from repast_dist.ground.errors import RunDirectoryError
from repast_dist.ground.files import ANSWER, RESULT, SETTINGS, SWEEP, TRACE, read_json
from repast_dist.report import figures
from repast_dist.report.axes import Axis
from repast_dist.report.page import (
    Column,
    Figure,
    Frame,
    Note,
    Page,
    Part,
    Section,
    Table,
    arrow_table,
    write_page,
)
from repast_dist.report.run_data import RunData, load_run
from repast_dist.report.units import percent, shortened, si
from repast_dist.trace.query import Totals, step_times, totals
from repast_dist.trace.schema import PHASES

SUMMARY = (
    "run",
    "chips",
    "test_accuracy",
    "test_loss",
    "time_s",
    "energy_j",
    "mean_iterations",
    "solves_converged",
)
"""Columns of `comparison_table` that fit a terminal."""

_NONE = "–"
# Settings that say by themselves what a run is.
_TELLING = (".name", ".method")
_SETTINGS_IN_NAME = 3
_SETTINGS_TRIED = 20
_LONGEST_VALUE = 40
# Their folders say something of other runs.
_OF_OTHERS = ("compare", "report", "runs", "verify")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes
    ----------
    names : sequence of str
        One per run, distinct.
    runs : sequence of RunData
        As read.
    totals : sequence of Totals
        Sums over each run's trace.
    differing : dict
        Dotted path of each setting that is not the same everywhere -> value per run (text).
    """

    names: Sequence[str]
    runs: Sequence[RunData]
    totals: Sequence[Totals]
    differing: dict[str, list[str]]


def find_runs(folder: Path) -> list[Path]:
    """Return the run directories below a folder, or the folder itself if it is one.

    A training run need not have ended; other studies have answered. The folder of a sweep stands
    for its runs.

    Raises
    ------
    RunDirectoryError
        There is none.
    """
    if (folder / RESULT).is_file() or _answered(folder):
        return [folder]
    trained = {
        path.parent for path in folder.glob(f"**/{RESULT}") if (path.parent / TRACE).is_dir()
    }
    answered = {path.parent for path in folder.glob(f"**/{ANSWER}") if _answered(path.parent)}
    if not trained | answered:
        raise RunDirectoryError(
            f"{folder}: no run directory in it (none holds {RESULT} or {ANSWER})"
        )
    return sorted(trained | answered)


def _answered(folder: Path) -> bool:
    """Return whether a folder holds the answer of a study to a question of its own."""
    if not all((folder / name).is_file() for name in (ANSWER, SETTINGS)):
        return False
    return not (folder / SWEEP).exists() and read_json(folder / ANSWER)["study"] not in _OF_OTHERS


def load_comparison(run_dirs: Sequence[Path]) -> Comparison:
    """Read runs and find the settings in which they differ.

    Raises
    ------
    RunDirectoryError
        Fewer than two runs, or one that cannot be read.
    """
    if len(run_dirs) < 2:
        raise RunDirectoryError(f"compare needs at least two runs, got {len(run_dirs)}")
    runs = [load_run(path) for path in run_dirs]
    flat = [_flat(run.result.get("settings", {})) for run in runs]
    paths = sorted(set().union(*flat))
    differing = {
        path: values
        for path in paths
        if len(set(values := [settings.get(path, "not set") for settings in flat])) > 1
    }
    seeds = [str(run.result.get("seed", "")) for run in runs]
    if len(set(seeds)) > 1:
        differing.setdefault("seed", seeds)
    return Comparison(
        names=run_names(run_dirs, differing),
        runs=runs,
        totals=[totals(run.trace) for run in runs],
        differing=differing,
    )


def comparison_table(comparison: Comparison) -> pa.Table:
    """Return one row per run: accuracy, losses, cost and inversion figures, with units.

    Missing values (a run without epochs or solves) are null.
    """
    rows = [
        _outcome(name, run, total)
        for name, run, total in zip(
            comparison.names, comparison.runs, comparison.totals, strict=True
        )
    ]
    fields = [
        ("run", pa.string(), ""),
        ("chips", pa.int64(), "1"),
        ("steps", pa.int64(), "1"),
        ("test_accuracy", pa.float64(), "fraction"),
        ("best_test_accuracy", pa.float64(), "fraction"),
        ("test_loss", pa.float64(), "1"),
        ("time_s", pa.float64(), "s"),
        ("energy_j", pa.float64(), "J"),
        ("time_per_step_s", pa.float64(), "s"),
        ("energy_per_step_j", pa.float64(), "J"),
        ("utilisation", pa.float64(), "fraction"),
        ("mean_iterations", pa.float64(), "1"),
        ("worst_residual", pa.float64(), "1"),
        ("solves_converged", pa.float64(), "fraction"),
        ("wall_s", pa.float64(), "s"),
    ]
    schema = pa.schema([pa.field(n, kind, metadata={"unit": unit}) for n, kind, unit in fields])
    return pa.Table.from_pylist(rows, schema)


def write_comparison(run_dirs: Sequence[Path], path: Path) -> Path:
    """Write the page that compares runs; see `load_comparison` for errors."""
    write_page(comparison_page(load_comparison(run_dirs)), path)
    return path


def comparison_page(comparison: Comparison) -> Page:
    """Return the page that compares runs."""
    table = comparison_table(comparison)
    return Page(
        title=f"{len(comparison.runs)} runs compared",
        subtitle="repast_dist · compare",
        answer=_answer(comparison, table),
        notes=_unfinished(comparison),
        sections=[
            Section(
                "Results and settings",
                [arrow_table("Results", table), _settings(comparison), _folders(comparison)],
            ),
            Section("Convergence", _curves(comparison)),
            Section("Cost", _costs(comparison)),
        ],
    )


def _answer(comparison: Comparison, table: pa.Table) -> str:
    rows = table.to_pylist()
    tested = [row for row in rows if row["test_accuracy"] is not None]
    sentences = []
    if tested:
        best, worst = (pick(tested, key=lambda row: row["test_accuracy"]) for pick in (max, min))
        sentences.append(
            f"Final test accuracy runs from {percent(worst['test_accuracy'])} ({worst['run']}) "
            f"to {percent(best['test_accuracy'])} ({best['run']})."
        )
    fast, slow = (pick(rows, key=lambda row: row["time_s"]) for pick in (min, max))
    frugal, hungry = (pick(rows, key=lambda row: row["energy_j"]) for pick in (min, max))
    sentences.append(
        f"Simulated time runs from {si(fast['time_s'], 's')} ({fast['run']}) to "
        f"{si(slow['time_s'], 's')} ({slow['run']}), energy from {si(frugal['energy_j'], 'J')} "
        f"({frugal['run']}) to {si(hungry['energy_j'], 'J')} ({hungry['run']})."
    )
    return " ".join(sentences)


def _unfinished(comparison: Comparison) -> list[Note]:
    return [
        Note(f"{name} did not finish: {run.result.get('status')}.", "warning")
        for name, run in zip(comparison.names, comparison.runs, strict=True)
        if run.result.get("status") != "finished"
    ]


def _outcome(name: str, run: RunData, total: Totals) -> dict[str, Any]:
    epochs = run.result.get("epochs", [])
    last = epochs[-1] if epochs else {}
    accuracies = [e["test_accuracy"] for e in epochs if e.get("test_accuracy") is not None]
    solves = run.solves.num_rows
    use = [chip.utilisation for chip in total.chips.values()]
    iterations = run.solves["mean_iterations"].to_numpy()
    return {
        "run": name,
        "chips": len(total.chips),
        "steps": total.steps,
        "test_accuracy": last.get("test_accuracy"),
        "best_test_accuracy": max(accuracies, default=None),
        "test_loss": last.get("test_loss"),
        "time_s": total.time_s,
        "energy_j": total.energy_j,
        "time_per_step_s": total.time_s / total.steps if total.steps else None,
        "energy_per_step_j": total.energy_j / total.steps if total.steps else None,
        "utilisation": sum(use) / len(use) if use else None,
        "mean_iterations": float(iterations.mean()) if solves else None,
        "worst_residual": float(run.solves["residual"].to_numpy().max()) if solves else None,
        "solves_converged": float(run.solves["converged"].to_numpy(zero_copy_only=False).mean())
        if solves
        else None,
        "wall_s": run.result.get("wall_s"),
    }


def _settings(comparison: Comparison) -> Part:
    if not comparison.differing:
        return Note("All settings are the same.")
    columns = [Column("setting"), *(Column(name) for name in comparison.names)]
    rows = [[path, *values] for path, values in comparison.differing.items()]
    return Table("Settings that differ", columns, rows, "All other settings are the same.")


def _folders(comparison: Comparison) -> Table:
    rows = [
        [name, str(run.folder), str(run.result.get("command", ""))]
        for name, run in zip(comparison.names, comparison.runs, strict=True)
    ]
    return Table(
        "Where they lie", [Column("run"), Column("folder"), Column("command")], rows, folded=True
    )


def _curves(comparison: Comparison) -> list[Part]:
    parts: list[Part] = []
    for axis, unit, cumulative in (
        ("training step", "", None),
        ("simulated time", "s", "time_s"),
        ("simulated energy", "J", "energy_j"),
    ):
        curves = []
        for name, run in zip(comparison.names, comparison.runs, strict=True):
            epochs = [e for e in run.result.get("epochs", []) if e.get("test_loss") is not None]
            if epochs:
                losses = [epoch["test_loss"] for epoch in epochs]
                curves.append(figures.Curve(name, _spent(run, epochs, cumulative), losses))
        if curves:
            parts.append(_loss_curves(curves, Axis(axis, unit)))
    return parts


def _loss_curves(curves: Sequence[figures.Curve], spent: Axis) -> Figure:
    log = all(loss > 0 for curve in curves for loss in curve.y)
    title, frame = f"Test loss over {spent.title}", Frame(wide=not spent.unit)
    return figures.line(title, curves, spent, Axis("test loss", log=log), frame)


def _spent(run: RunData, epochs: Sequence[Mapping[str, Any]], column: str | None) -> list[float]:
    """Return the steps, seconds or joules that a run had spent by the end of each epoch."""
    if column is None:
        return [float(epoch["step"]) for epoch in epochs]
    steps = step_times(run.trace)
    spent = np.concatenate([[0.0], np.cumsum(steps[column].to_numpy())])
    # An epoch's record carries the number of steps done by its end.
    done = np.searchsorted(steps["step"].to_numpy(), [epoch["step"] for epoch in epochs])
    return [float(amount) for amount in spent[done]]


def _costs(comparison: Comparison) -> list[Part]:
    names = list(comparison.names)
    parts: list[Part] = []
    for title, attribute, unit in (
        ("Simulated time by phase", "time_s", "s"),
        ("Simulated energy by phase", "energy_j", "J"),
    ):
        groups = [
            figures.Group(
                phase,
                [
                    getattr(total.phases[phase], attribute) if phase in total.phases else 0.0
                    for total in comparison.totals
                ],
            )
            for phase in PHASES
            if any(phase in total.phases for total in comparison.totals)
        ]
        parts.append(
            figures.bars(
                title,
                figures.Bars(names, groups, stacked=True, horizontal=True),
                Axis(title.lower().removesuffix(" by phase"), unit),
                Frame(height_px=160 + 34 * len(names), wide=True),
            )
        )
    return parts


def run_names(run_dirs: Sequence[Path], differing: Mapping[str, Sequence[str]]) -> list[str]:
    """Return names of runs that tell them apart: the fewest settings that do; else their folders.

    Parameters
    ----------
    run_dirs : sequence of Path
        The runs.
    differing : mapping
        Dotted path of each setting that is not the same everywhere -> value per run, as text.
    """
    paths = sorted(differing, key=lambda path: (not path.endswith(_TELLING), path))
    for count in range(1, _SETTINGS_IN_NAME + 1):
        for chosen in itertools.combinations(paths[:_SETTINGS_TRIED], count):
            names = [
                ", ".join(_short(path, differing[path][run]) for path in chosen)
                for run in range(len(run_dirs))
            ]
            if len(set(names)) == len(run_dirs):
                return names
    folders = [path.resolve().name for path in run_dirs]
    if len(set(folders)) == len(folders):
        return folders
    return [f"{number}: {name}" for number, name in enumerate(folders, start=1)]


def _short(path: str, value: str) -> str:
    """Return ``chips=4`` for a number; a name or method speaks for itself."""
    value = shortened(value, _LONGEST_VALUE)
    return value if path.endswith(_TELLING) else f"{path.rpartition('.')[2]}={value}"


def _flat(node: Any, path: str = "") -> dict[str, str]:
    if isinstance(node, Mapping) and node:
        flat: dict[str, str] = {}
        for key, value in node.items():
            flat |= _flat(value, f"{path}.{key}" if path else str(key))
        return flat
    return {path: _NONE if node is None else str(node)}
