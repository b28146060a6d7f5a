"""``study=device`` programs cells to many targets and shows them beside what was measured."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from repast_dist.analog.arrays.programming import pair_conductances
from repast_dist.analog.cells.base import Cell
from repast_dist.analog.cells.measured import Measured
from repast_dist.analog.cells.table import Table
from repast_dist.analog.cells.use import CellUse
from repast_dist.analog.specs import DeviceSpec
from repast_dist.report.page import KeyFigure, Note
from repast_dist.report.study_page import Chart, StudyPage, StudySection
from repast_dist.report.units import percent, si
from repast_dist.studies.costing import table
from repast_dist.studies.kinds.device import DeviceStudy
from repast_dist.studies.output import finish
from repast_dist.studies.settings import RunSettings

_UNITS = {
    "time_s": "s",
    "target_siemens": "S",
    "mean_siemens": "S",
    "off_target_siemens": "S",
    "sigma_siemens": "S",
    "read_sigma_siemens": "S",
    "mean_difference": "fraction",
    "sigma_difference": "fraction",
}

Row = dict[str, Any]


def device_page(study: DeviceStudy, device: DeviceSpec, seed: int) -> StudyPage:
    """Return the drawn cells of a device, and how far they are from what was measured.

    Parameters
    ----------
    study : DeviceStudy
        How many cells and targets.
    device : DeviceSpec
        The device; where INV cells are those of the VMM arrays, they are drawn once.
    seed : int
        Of the draws.
    """
    cells = {"multiplying": device.cell}
    if device.inv_cell == device.cell:
        cells = {"all": device.cell}
    else:
        cells["inverting"] = device.inv_cell
    drawn = [
        row for name, cell in cells.items() for row in _drawn(study, name, cell, device.age_s, seed)
    ]
    measured = [row for name, cell in cells.items() for row in _measured(name, cell)]
    compared = list(_compared(drawn, measured, cells))
    tables = {"cells": table([*drawn, *measured], _UNITS)}
    figures = []
    if compared:
        tables["differences"] = table(compared, _UNITS)
        worst = {
            name: max(abs(row[f"{name}_difference"]) for row in compared)
            for name in ("mean", "sigma")
        }
        answer = (
            f"At all {len(compared)} measured points, {study.cells:,} drawn cells have the mean "
            f"that was measured to within {percent(worst['mean'], 2)} of the range, and the spread "
            f"to within {percent(worst['sigma'], 2)}."
        )
        figures = [
            KeyFigure(f"largest difference, {name}", percent(value, 2), number=value,
                      unit="fraction")
            for name, value in worst.items()
        ]  # fmt: skip
    else:
        answer = "The device's cells follow a formula: there is no table to compare with."
    for name, cell in cells.items():
        spread = cell.programming_spread * cell.span_siemens
        figures.append(
            KeyFigure(f"spread, {name} cells", si(spread, "S"), number=spread, unit="S",
                      detail="RMS over the range, when written")
        )  # fmt: skip
    return StudyPage(
        study="device",
        title="What cells hold of what is written",
        answer=answer,
        tables=tables,
        sections=[
            *(_section(name, cell) for name, cell in cells.items()),
            StudySection("All figures", tables=list(reversed(tables))),
        ],
        key_figures=figures,
        notes=[
            Note(f"{name} cells: {text}")
            for name, cell in cells.items()
            if isinstance(cell, Table)
            for text in _assumptions(cell, device.age_s)
        ],
        sources=[("device", device.source)],
    )


def run(study: DeviceStudy, settings: RunSettings, run_dir: Path | None, console: Console) -> Path:
    """Draw cells of the settings' device."""
    page = device_page(study, settings.device, settings.seed)
    return finish(page, settings, console)


def _section(name: str, cell: Cell) -> StudySection:
    shown = {"cells": name}
    marked = "measured"
    parts = (
        ("off_target_siemens", "Mean beside the target",
         "How far the mean of many cells is from what was to be written."),
        ("sigma_siemens", "Spread", "Standard deviation over cells."),
    )  # fmt: skip
    charts = [
        Chart(
            "line", "cells", title, x="target_siemens", y=column, series="shown", where=shown,
            marked=marked, caption=f"{caption} Points are measured, lines drawn from the model.",
        )
        for column, title, caption in parts
    ]  # fmt: skip
    model = type(cell).__name__.lower()
    source = cell.table if isinstance(cell, Table) else f"model {model}"
    return StudySection(f"{name.capitalize()} cells: {source}", charts=charts)


def _times(cell: Cell, age_s: float) -> list[float]:
    return sorted({*_table(cell).times, age_s} - {0.0}) if isinstance(cell, Table) else [age_s]


def _drawn(study: DeviceStudy, name: str, cell: Cell, age_s: float, seed: int) -> Iterator[Row]:
    """Yield mean and spread of drawn cells, as arrays program and age them."""
    ends = cell.g_off_siemens, cell.g_on_siemens
    targets = np.linspace(*ends, study.targets)
    if isinstance(cell, Table):
        met = np.array([point.target_siemens for point in _table(cell).rows])
        targets = np.union1d(targets, met[(met >= ends[0]) & (met <= ends[1])])
    top = cell.levels - 1
    for time in _times(cell, age_s):
        for number, target in enumerate(targets.tolist()):
            # Levels need not be whole numbers here: any conductance of the range can be asked for.
            level = (target - cell.g_off_siemens) / cell.span_siemens * top
            held, _ = pair_conductances(
                np.full(study.cells, level), cell, seed, "device", name, number,
                use=CellUse(age_s=time),
            )  # fmt: skip
            siemens = cell.g_off_siemens + held * cell.span_siemens
            yield _row(name, "drawn", time, target, float(siemens.mean()), float(siemens.std()))


def _measured(name: str, cell: Cell) -> Iterator[Row]:
    if isinstance(cell, Table):
        for point in _table(cell).rows:
            yield _row(
                name, "measured", point.time_s, point.target_siemens, point.mean_siemens,
                point.sigma_siemens * cell.sigma_scale,
            )  # fmt: skip


def _row(cells: str, kind: str, time: float, target: float, mean: float, sigma: float) -> Row:
    return {
        "cells": cells,
        "shown": f"{kind}, {si(time, 's')}",
        "kind": kind,
        "time_s": time,
        "target_siemens": target,
        "mean_siemens": mean,
        "off_target_siemens": mean - target,
        "sigma_siemens": sigma,
    }


def _compared(drawn: list[Row], measured: list[Row], cells: dict[str, Cell]) -> Iterator[Row]:
    """Yield drawn less measured, relative to the range, where both are."""
    at = {(row["cells"], row["time_s"], row["target_siemens"]): row for row in drawn}
    for row in measured:
        found = at.get((row["cells"], row["time_s"], row["target_siemens"]))
        if found is not None:
            span = cells[row["cells"]].span_siemens
            yield {
                **{key: row[key] for key in ("cells", "time_s", "target_siemens")},
                **{
                    f"{name}_difference": (found[f"{name}_siemens"] - row[f"{name}_siemens"]) / span
                    for name in ("mean", "sigma")
                },
            }


def _assumptions(cell: Table, age_s: float) -> Iterator[str]:
    held = _table(cell)
    reads = sorted({point.read_sigma_siemens for point in held.rows})
    if len(reads) > 1:
        yield (
            f"read noise from {si(reads[0], 'S')} to {si(reads[-1], 'S')} is drawn with one size, "
            f"{si(cell.read_spread * cell.span_siemens, 'S')}."
        )
    if age_s > held.times[-1]:
        yield (
            f"device.age_s={age_s:g} lies beyond the last measurement at {held.times[-1]:g} s: "
            "cells stay as they were then."
        )


def _table(cell: Table) -> Measured:
    assert cell.measured is not None
    return cell.measured
