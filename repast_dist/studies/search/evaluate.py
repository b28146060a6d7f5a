"""Measures one point of a search, here or on a worker."""

import dataclasses
from collections.abc import Mapping
from time import process_time as processor_s
from typing import Any

from repast_dist.ground.errors import FarmError, RepastError
from repast_dist.studies.kinds.search import Pruning
from repast_dist.studies.measure import Measure, Stopped
from repast_dist.studies.settings import RunSettings
from repast_dist.studies.variants import varied


@dataclasses.dataclass(frozen=True)
class SearchPoint:
    """One point.

    Attributes
    ----------
    number : int
        Which one it is.
    changes : mapping
        Settings that differ from those of the search: dotted path -> value.
    curves : tuple
        Epoch -> number compared, of runs that have ended.
    """

    number: int
    changes: Mapping[str, Any]
    curves: tuple[dict[int, float], ...] = ()


@dataclasses.dataclass(frozen=True)
class Shared:
    """What all points of a search have in common.

    Attributes
    ----------
    settings : RunSettings
        The settings that points differ from.
    measures : mapping
        Name -> measure.
    pruning : Pruning or None
        When training runs are stopped.
    """

    settings: RunSettings
    measures: Mapping[str, Measure]
    pruning: Pruning | None = None


def measured_point(shared: Shared, point: SearchPoint) -> dict[str, Any]:
    """Return the figures of a point, named ``MEASURE.COLUMN``, and ``cpu_s``, processor time.

    Settings that are not valid together, and a design that a measure refuses, give ``refused``
    with the reason. A training that was stopped gives ``stopped``; one that may be stopped, its
    ``curve``.
    """
    began = processor_s()
    record: dict[str, Any] = {}
    watch = None if shared.pruning is None else _Watch(shared.pruning, point.curves)
    try:
        settings = varied(shared.settings, point.changes, "point")
        for name, measure in shared.measures.items():
            if watch is None:
                found = measure.record(settings)
            else:
                watch.measure = name
                found = measure.watched(settings, watch)
            record |= {f"{name}.{column}": value for column, value in found.items()}
    except Stopped:
        record["stopped"] = True
    except FarmError:
        raise
    except RepastError as error:
        record["refused"] = str(error).splitlines()[0].removeprefix("point: ")
    if watch is not None:
        record["curve"] = sorted(watch.curve.items())
    return record | {"cpu_s": processor_s() - began}


class _Watch:
    """Stops a training that does worse, at its epoch, than those that have ended did."""

    def __init__(self, pruning: Pruning, curves: tuple[dict[int, float], ...]) -> None:
        self.measure = ""
        self.curve: dict[int, float] = {}
        self._pruning = pruning
        self._trial = _history_of(pruning, curves)

    def __call__(self, epoch: int, found: Mapping[str, Any]) -> None:
        """Note the figures of an epoch.

        Raises
        ------
        Stopped
            They are worse than those of others.
        """
        name, _, column = self._pruning.column.partition(".")
        value = found.get(column)
        if name != self.measure or value is None:
            return
        self.curve[epoch] = float(value)
        self._trial.report(float(value), epoch)
        if self._trial.should_prune():
            raise Stopped


def _history_of(pruning: Pruning, curves: tuple[dict[int, float], ...]) -> Any:
    """Return a trial of Optuna beside those that have ended."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="minimize" if pruning.goal == "lowest" else "maximize",
        pruner=optuna.pruners.PercentilePruner(
            pruning.percentile,
            n_startup_trials=pruning.after_points,
            n_warmup_steps=pruning.after_epochs,
        ),
    )
    for curve in curves:
        if curve:
            last = curve[max(curve)]
            study.add_trial(optuna.trial.create_trial(value=last, intermediate_values=curve))
    return study.ask()
