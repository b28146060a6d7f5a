"""Several settings of a study, one after the other, in one table: ``-m key=a,b``."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console

from repast_dist.farm.cluster import cluster
from repast_dist.ground.files import RESULT, SETTINGS, SWEEP, write_json
from repast_dist.ground.plugins import checksums
from repast_dist.ground.spec import to_dict
from repast_dist.report.compare import write_comparison
from repast_dist.report.console import data_table
from repast_dist.report.study_page import StudyPage, StudySection, write_study
from repast_dist.studies import run_study
from repast_dist.studies.output import Figures, read_figures, write_answer
from repast_dist.studies.run_directory import new_run_directory
from repast_dist.studies.settings import RunSettings


def run_sweep(
    settings: Sequence[RunSettings], points: Sequence[Sequence[str]], console: Console | None = None
) -> Path:
    """Run several settings one after the other on one cluster, and put them into one table.

    Parameters
    ----------
    settings : sequence of RunSettings
        One per point.
    points : sequence of sequence of str
        The overrides of each point, for the headings.

    Returns
    -------
    Path
        A folder with ``sweep.json``, ``tables/sweep.parquet`` and a page: the settings that differ
        and the key figures of every run. Training runs get a page that compares their curves, too.

    Raises
    ------
    KeyboardInterrupt
        Ctrl-C: the runs that had finished are in the table.
    """
    console = console or Console()
    directories: list[Path] = []
    stopped: KeyboardInterrupt | None = None
    on_ray = [item.farm for item in settings if item.farm.backend == "ray" and _uses_farm(item)]
    with cluster(on_ray[0]) if on_ray else contextlib.nullcontext():
        for number, (item, overrides) in enumerate(zip(settings, points, strict=True)):
            title = f"run {number + 1} of {len(settings)}: {' '.join(overrides) or 'defaults'}"
            console.rule(title)
            try:
                directories.append(run_study(item, console))
            except KeyboardInterrupt as interrupt:
                stopped = interrupt
                break
    if stopped is not None:
        if not directories:
            raise stopped
        settings = settings[: len(directories)]
    folder = new_run_directory(Path(settings[0].run_root), "sweep")
    differing = differing_settings([to_dict(item) for item in settings])
    figures = [read_figures(directory) for directory in directories]
    table = sweep_table(differing, figures, directories)
    console.print(data_table("Sweep", table))
    rows = zip(directories, differing, figures, strict=True)
    write_json(
        folder / SWEEP,
        {
            "runs": [str(path) for path in directories],
            "points": [
                {"run": str(path), "settings": changed, "figures": _plain(found)}
                for path, changed, found in rows
            ],
        },
    )
    answer = _page(settings, table)
    plugins = checksums(settings[0].plugins)
    write_json(folder / SETTINGS, to_dict(settings[0]))
    write_answer(folder, answer.study, answer.answer, {}, plugins)
    page = write_study(answer, folder)
    console.print(f"Sweep:         {page}", markup=False, soft_wrap=True)
    if all((directory / RESULT).is_file() for directory in directories):
        page = write_comparison(directories, folder / "compare.html")
        console.print(f"Comparison:    {page}", markup=False, soft_wrap=True)
    if stopped is not None:
        console.print(f"Interrupted after {len(directories)} of {len(points)} runs", markup=False)
        raise stopped
    return folder


def _uses_farm(settings: RunSettings) -> bool:
    return any(name in ("farm", "farm.address") for name in settings.study.reads)


def differing_settings(settings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return, per run, dotted path -> value of the settings that are not the same in all runs."""
    flat = [dict(_leaves(item)) for item in settings]
    names = dict.fromkeys(name for item in flat for name in item)
    first = flat[0]
    differ = [n for n in names if any(item.get(n) != first.get(n) for item in flat)]
    return [{name: item.get(name) for name in differ} for item in flat]


def sweep_table(
    differing: Sequence[Mapping[str, Any]], figures: Sequence[Figures], directories: Sequence[Path]
) -> pa.Table:
    """Return one row per run: the settings that differ, the key figures, the run's name."""
    columns: dict[str, list[Any]] = {}
    units: dict[str, str] = {}
    for name in differing[0]:
        columns[name] = _column([item[name] for item in differing])
    for name in dict.fromkeys(name for item in figures for name in item):
        columns[name] = [item.get(name, (None, ""))[0] for item in figures]
        units[name] = next(item[name][1] for item in figures if name in item)
    columns["run"] = [directory.name for directory in directories]
    plain = pa.table(columns)
    fields = [
        field.with_metadata({"unit": units[field.name]}) if field.name in units else field
        for field in plain.schema
    ]
    return plain.cast(pa.schema(fields))


def _column(values: list[Any]) -> list[Any]:
    """Keep numbers as they are; anything else is shown as text."""
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    return values if numbers else ["" if value is None else str(value) for value in values]


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}.{name}" if path else name)
    else:
        yield path, value


def _plain(figures: Figures) -> list[dict[str, Any]]:
    return [{"name": name, "value": value, "unit": unit} for name, (value, unit) in figures.items()]


def _page(settings: Sequence[RunSettings], table: pa.Table) -> StudyPage:
    names = ", ".join(dict.fromkeys(item.study.name for item in settings))
    return StudyPage(
        study="sweep",
        title=f"Sweep of study {names}",
        answer=f"{len(settings)} runs of study {names}, with the settings that differ.",
        tables={"sweep": table},
        sections=[StudySection("Runs", tables=["sweep"])],
        settings=to_dict(settings[0]),
    )
