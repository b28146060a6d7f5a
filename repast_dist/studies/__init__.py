"""The questions a user asks: one module per study, chosen by ``study.name``."""

import contextlib
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from repast_dist.ground.errors import RunDirectoryError
from repast_dist.ground.files import ANSWER, POINTS, RESULT, SETTINGS, read_json, write_json
from repast_dist.report.units import percent, si
from repast_dist.studies.run_directory import new_run_directory
from repast_dist.studies.settings import RunSettings, checked_settings


def run_study(settings: RunSettings, console: Console | None = None) -> Path:
    """Run the study the settings name and return the directory it left.

    The module ``repast_dist.studies.<name>`` (dashes as underscores) has a function
    ``run(settings, console)``; modules are imported when they are asked for, so that one study
    does not pay for the others.
    """
    directory: Path = _module(settings).run(settings, console or Console())
    return directory


def resume_study(run_dir: Path, farm: Mapping[str, Any], console: Console | None = None) -> Path:
    """Go on with a run that was stopped.

    Parameters
    ----------
    run_dir : Path
        Its directory.
    farm : mapping
        Settings of ``farm`` to change; nothing else may change, since it would change the result.

    Raises
    ------
    RunDirectoryError
        Not a run directory, in use, or of a study that has nothing to go on with.
    """
    stored = read_json(run_dir / SETTINGS)
    stored["farm"] |= farm
    settings = checked_settings(stored)
    console = console or Console()
    if settings.study.name == "train":
        from repast_dist.studies.train import resume

        return resume(run_dir, settings, console)
    if not (run_dir / POINTS).is_dir():
        raise RunDirectoryError(
            f"{run_dir}: study {settings.study.name} keeps nothing to go on with; run it again"
        )
    directory: Path = _module(settings).run(settings, console, run_dir)
    return directory


def run_sweep(
    settings: Sequence[RunSettings], points: Sequence[Sequence[str]], console: Console | None = None
) -> Path:
    """Run several settings one after the other on one cluster, and compare them.

    Parameters
    ----------
    settings : sequence of RunSettings
        One per point.
    points : sequence of sequence of str
        The overrides of each point, for the table.

    Returns
    -------
    Path
        A folder with one page that compares all runs.
    """
    from repast_dist.farm.cluster import cluster
    from repast_dist.report.compare import write_comparison

    console = console or Console()
    directories = []
    on_ray = [item.farm for item in settings if item.farm.backend == "ray"]
    with cluster(on_ray[0]) if on_ray else contextlib.nullcontext():
        for number, (item, overrides) in enumerate(zip(settings, points, strict=True)):
            title = f"run {number + 1} of {len(settings)}: {' '.join(overrides) or 'defaults'}"
            console.rule(title)
            directories.append(run_study(item, console))
    folder = new_run_directory(Path(settings[0].run_root), "sweep")
    console.print(_sweep_table(points, directories))
    write_json(folder / "sweep.json", {"runs": [str(path) for path in directories]})
    if all(item.study.name == "train" for item in settings):
        page = write_comparison(directories, folder / "compare.html")
        console.print(f"Comparison:    {page}", markup=False, soft_wrap=True)
    return folder


def _module(settings: RunSettings) -> Any:
    return importlib.import_module(f"repast_dist.studies.{settings.study.name.replace('-', '_')}")


def _sweep_table(points: Sequence[Sequence[str]], directories: Sequence[Path]) -> Table:
    table = Table(title="Sweep", title_justify="left")
    # What all points share says nothing.
    shared = set(points[0]).intersection(*points[1:]) if len(points) > 1 else set()
    results = [_outcome(directory) for directory in directories]
    for name in ("settings", *dict.fromkeys(name for result in results for name in result), "run"):
        table.add_column(name, justify="left" if name in ("settings", "run", "answer") else "right")
    for overrides, directory, result in zip(points, directories, results, strict=True):
        chosen = "\n".join(item for item in overrides if item not in shared) or "defaults"
        columns = [str(column.header) for column in table.columns[1:-1]]
        table.add_row(chosen, *(result.get(name, "") for name in columns), directory.name)
    return table


def _outcome(directory: Path) -> dict[str, str]:
    """Return what a sweep shows of a run: column -> text."""
    if (directory / ANSWER).is_file():
        return {"answer": read_json(directory / ANSWER)["answer"]}
    if not (directory / RESULT).is_file():
        return {}
    result = read_json(directory / RESULT)
    epochs, totals = result.get("epochs", []), result.get("totals", {})
    return {
        "test accuracy": percent(epochs[-1]["test_accuracy"]) if epochs else "",
        "test loss": f"{epochs[-1]['test_loss']:.4f}" if epochs else "",
        "simulated time": si(totals.get("time_s"), "s"),
        "energy": si(totals.get("energy_j"), "J"),
    }
