"""Train a network and take its last epoch."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from repast_dist.ground.numbers import PositiveInt
from repast_dist.ground.spec import spec, to_dict
from repast_dist.studies.measure import MEASURES, Measure, Watch
from repast_dist.studies.study import TRAINING

if TYPE_CHECKING:
    from repast_dist.studies.settings import RunSettings

_LOSSES = ("train_loss", "test_loss", "test_accuracy")
_exact: dict[str, dict[str, Any]] = {}
"""Figures of trainings in float64, by all that decides them."""


@MEASURES.register
@spec
class TrainMeasure(Measure):
    """Loss, accuracy, simulated time and energy of a training run; all chips in one process.

    Attributes
    ----------
    seeds : int
        Trainings with this many seeds, from ``seed`` on, of which the means are taken.
    beside_float64 : bool
        Whether the same trainings in float64 are put beside, as ``loss_over_float64`` (training
        loss) and ``accuracy_under_float64``.
    """

    kind: Literal["train"] = "train"
    reads: ClassVar[tuple[str, ...]] = (*TRAINING, "farm.chips", "farm.chip_overrides")
    units: ClassVar[Mapping[str, str]] = {
        "test_accuracy": "fraction",
        "accuracy_under_float64": "fraction",
        "time_s": "s",
        "energy_j": "J",
        "missed": "fraction",
    }
    seeds: PositiveInt = 1
    beside_float64: bool = False

    def record(self, settings: "RunSettings") -> dict[str, Any]:
        """Train, and return the figures of the last epoch and of all solves."""
        return self.watched(settings, lambda epoch, found: None)

    def watched(self, settings: "RunSettings", watch: Watch) -> dict[str, Any]:
        """Train as `record` does, and tell the losses of every epoch of the first seed."""
        seeds = [dataclasses.replace(settings, seed=settings.seed + n) for n in range(self.seeds)]
        runs = [_trained(own, watch if n == 0 else None) for n, own in enumerate(seeds)]
        means = _means(runs)
        if self.beside_float64:
            exact = _means([_trained_exactly(own) for own in seeds])
            means |= {
                "loss_over_float64": _difference(means["train_loss"], exact["train_loss"]),
                "accuracy_under_float64": _difference(
                    exact["test_accuracy"], means["test_accuracy"]
                ),
            }
        return means


def _trained(settings: "RunSettings", watch: Watch | None = None) -> dict[str, Any]:
    """Train once."""
    from repast_dist.studies.convergence.training import convergence_point
    from repast_dist.studies.settings import training_job

    found = convergence_point(settings.dataset.load(), training_job(settings), watch)
    last = found["epochs"][-1] if found["epochs"] else {}
    solves = ("missed", "median_residual", "rounds")
    return {
        **{name: last.get(name) for name in (*_LOSSES, "time_s", "energy_j")},
        "steps": found["steps"],
        **{name: found["solves"].get(name) for name in solves},
        "ended": found["diverged"] or "",
    }


def _trained_exactly(settings: "RunSettings") -> dict[str, Any]:
    """Train once in float64; what is known is not trained again, whatever the chip."""
    from repast_dist.training.specs import EngineSpec

    engine = EngineSpec(
        forward="float64", backward="float64", gradient="float64", factor="float64",
        inverse="float64",
    )  # fmt: skip
    parts = ("seed", "train", "model", "dataset", "optimizer", "soi")
    data = to_dict(settings)
    key = json.dumps([data[name] for name in parts], sort_keys=True)
    if key not in _exact:
        _exact[key] = _trained(dataclasses.replace(settings, engine=engine))
    return _exact[key]


def _means(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the means of numbers that all runs have, and the first reason why one ended."""
    if len(runs) == 1:
        return dict(runs[0])
    ended = next((run["ended"] for run in runs if run["ended"]), "")
    columns = {name: [run[name] for run in runs] for name in runs[0] if name != "ended"}
    return {
        **{
            name: None if None in values else sum(values) / len(values)
            for name, values in columns.items()
        },
        "ended": ended,
    }


def _difference(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first - second
