"""What is told of a run: curves, key figures, settings."""

import dataclasses
import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from repast_dist.ground.files import ANSWER, RESULT, SETTINGS, read_json
from repast_dist.report.run_data import without_meaningless
from repast_dist.studies.differing import leaves
from repast_dist.studies.output import Figures, read_answer, read_figures
from repast_dist.studies.run_result import read_result

_OF_STEPS = ("loss", "accuracy", "clip_rate")
_OF_EPOCHS = ("train_loss", "train_accuracy", "test_loss", "test_accuracy", "test_squared_error")


@dataclasses.dataclass(frozen=True)
class Point:
    """One point of a curve.

    Attributes
    ----------
    curve : str
        Its curve, such as ``step/loss`` or ``epoch/test_accuracy``.
    step : int
        Training steps done before it.
    value : float
        In SI units.
    at_s : float
        When it was computed, in seconds since 1970.
    """

    curve: str
    step: int
    value: float
    at_s: float


@dataclasses.dataclass(frozen=True)
class RunCurves:
    """A run as it is exported.

    Attributes
    ----------
    folder : Path
        The run directory.
    study, answer : str
        What was asked, and the answer in a sentence or two.
    figures : dict
        Key figures: name -> value and unit.
    settings : dict
        Dotted path -> value.
    points : list of Point
        Of all curves; empty of a study that does not train.
    status : str
        How it ended: ``finished``, or ``interrupted``.
    began_s, ended_s : float
        When it began and ended, in seconds since 1970.
    """

    folder: Path
    study: str
    answer: str
    figures: Figures
    settings: dict[str, Any]
    points: list[Point]
    status: str
    began_s: float
    ended_s: float


def read_curves(run_dir: Path) -> RunCurves:
    """Read what is exported of a run.

    Raises
    ------
    RunDirectoryError
        It has not answered, or is damaged.
    """
    trained = read_result(run_dir) if (run_dir / RESULT).is_file() else None
    if trained is None:
        status, points = "finished", []
        began_s, ended_s = ((run_dir / name).stat().st_mtime for name in (SETTINGS, ANSWER))
    else:
        status, points = trained["status"], _training(trained)
        began_s, ended_s = (_seconds(trained[name]) for name in ("started", "finished"))
    return RunCurves(
        folder=run_dir.resolve(),
        study=str(read_json(run_dir / ANSWER)["study"]),
        answer=read_answer(run_dir),
        figures=read_figures(run_dir),
        settings=dict(leaves(read_json(run_dir / SETTINGS))),
        points=points,
        status=status,
        began_s=began_s,
        ended_s=ended_s,
    )


def _seconds(when: str) -> float:
    return datetime.datetime.fromisoformat(when).timestamp()


def _training(trained: Mapping[str, Any]) -> list[Point]:
    """Return the curves of a training run; a run that was resumed counts as if it never stopped."""
    result = without_meaningless(trained)
    at_s = _seconds(result["started"])
    points, done_at, simulated_s = [], {}, 0.0
    for record in result["steps"]:
        at_s += record["wall_s"]
        simulated_s += record["time_s"]
        done_at[record["step"] + 1] = at_s
        values = {name: record.get(name) for name in _OF_STEPS} | {"simulated_s": simulated_s}
        points += [
            Point(f"step/{name}", record["step"] + 1, value, at_s)
            for name, value in values.items()
            if value is not None
        ]
    for record in result["epochs"]:
        step = record["step"]
        points += [
            Point(f"epoch/{name}", step, record[name], done_at.get(step, at_s))
            for name in _OF_EPOCHS
            if name in record
        ]
    return points
