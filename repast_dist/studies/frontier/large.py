"""Prices published trainings of large networks on the chips of the study."""

from collections.abc import Mapping
from typing import Any

from repast_dist.planning.summary import summarise
from repast_dist.studies.costing import planned_step
from repast_dist.studies.frontier.cases import FIRST, Cases
from repast_dist.studies.frontier.tables import Row, Rows
from repast_dist.studies.kinds.frontier import FrontierStudy, PublishedRun
from repast_dist.studies.settings import RunSettings, changed
from repast_dist.studies.variants import varied


def published_rows(study: FrontierStudy, cases: Cases) -> Rows:
    """Return what published trainings would take on the chips, second order beside first.

    ``of_time`` and ``of_energy`` are of the whole training: what a step takes more, times how many
    fewer there are. ``steps_at_most``: the ratio of steps at which the energy is the same.

    Parameters
    ----------
    study : FrontierStudy
        Names the trainings.
    cases : Cases
        Has the chips.
    """
    rows: Rows = []
    steps: dict[tuple[Any, ...], tuple[float, float]] = {}
    for place, run in enumerate(study.published):
        where = f"study.published.{place}.settings"
        first = _step(steps, _FIRST, run, cases.large_chips[study.first_order_chip], where)
        for chip, settings in cases.large_chips.items():
            second = _step(steps, {}, run, settings, where)
            rows.append(_row(run, chip, first, second))
    return rows


_FIRST: Mapping[str, Any] = {"optimizer": {"method": "sgd"}}
"""Any method that solves with nothing: momentum and Adam differ in a few digital operations."""


def _step(
    known: dict[tuple[Any, ...], tuple[float, float]],
    optimizer: Mapping[str, Any],
    run: PublishedRun,
    settings: RunSettings,
    where: str,
) -> tuple[float, float]:
    """Return seconds and joules of an average step."""
    size = {"train.batch_size": run.batch, "train.micro_batch_size": run.batch}
    changes = {**size, **optimizer, "workload": {"name": run.network}}
    own = changed(varied(settings, run.settings, where), changes)
    key = (repr(own.machine), repr(own.optimizer), repr(own.workload), run.batch)
    if key not in known:
        found = summarise(planned_step(own))
        known[key] = found.step_s, found.energy_per_sample_j * run.batch
    return known[key]


def _row(
    run: PublishedRun, chip: str, first: tuple[float, float], second: tuple[float, float]
) -> Row:
    fewer = run.second_order / run.first_order
    time, energy = (b / a for a, b in zip(first, second, strict=True))
    return {
        "network": run.network,
        "chip": chip,
        "batch": run.batch,
        FIRST: run.first_order,
        "second": run.second_order,
        "step_s": second[0],
        "first_order_step_s": first[0],
        "step_time": time,
        "step_energy": energy,
        "of_time": fewer * time,
        "of_energy": fewer * energy,
        "steps_at_most": 1.0 / energy,
        "source": run.source,
    }
