"""Prices the reported optimizers on chips of other sizes: what copies of layers are worth there.

A small chip has fewer multiplying arrays the more of it inverts, and passes through the layers take
longer for it; on a large one all layers have the copies that they can use.
"""

from collections.abc import Mapping
from typing import Any

from repast_dist.network.workload import MODEL
from repast_dist.planning.summary import summarise
from repast_dist.studies.case import Point
from repast_dist.studies.costing import planned_step
from repast_dist.studies.frontier.cases import FIRST, SECOND, Cases
from repast_dist.studies.frontier.tables import Row, Rows
from repast_dist.studies.kinds.frontier import FrontierStudy
from repast_dist.studies.settings import RunSettings, changed


def size_rows(
    study: FrontierStudy,
    cases: Cases,
    targets: Rows,
    chosen: Mapping[tuple[str, str, str], Point],
) -> Rows:
    """Return what the target of every task would take on chips of other sizes, all of equal area.

    Nothing is trained anew, since losses do not depend on how many tiles compute them: a planned
    step of each, ``step_s``, over one of the optimizer whose final loss is the target, on its chip
    of that area, times the share of steps that was needed. Optimizers that miss it on all chips are
    left out.

    Parameters
    ----------
    study : FrontierStudy
        Names the sizes.
    cases : Cases
        Has the chips.
    targets : list of dict
        `repast_dist.studies.frontier.tables.target_rows`.
    chosen : mapping
        Task, optimizer and chip that it was tuned on -> what was varied in the best run.
    """
    rows: Rows = []
    for tiles in study.tiles:
        for task in study.tasks:
            own = [row for row in targets if row["task"] == task]
            rival = next(
                row for row in own if row["order"] == FIRST and row["optimizer"] == row["rival"]
            )
            first = _step(cases.sized(task, rival["optimizer"], rival["chip"], tiles, chosen))
            for row in own:
                if row["order"] != SECOND or row["of_steps"] is None:
                    continue
                sized = cases.sized(task, row["optimizer"], row["chip"], tiles, chosen)
                rows.append(_row(row, sized, first))
    return rows


def _step(settings: RunSettings) -> tuple[float, float]:
    """Return seconds and joules of an average step."""
    found = summarise(planned_step(changed(settings, {"workload.name": MODEL})))
    return found.step_s, found.energy_per_sample_j * settings.train.batch_size


def _row(row: Mapping[str, Any], sized: RunSettings, first: tuple[float, float]) -> Row:
    second = _step(sized)
    time, energy = (b / a for a, b in zip(first, second, strict=True))
    return {
        "task": row["task"],
        "area_m2": sized.hardware.area_m2,
        "tiles": sized.chip.tiles,
        "run": f"{row['optimizer']}, {row['chip']}",
        "step_s": second[0],
        "first_order_step_s": first[0],
        "step_time": time,
        "step_energy": energy,
        "of_steps": row["of_steps"],
        "of_time": row["of_steps"] * time,
        "of_energy": row["of_steps"] * energy,
    }
