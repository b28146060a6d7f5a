"""Which runs ``study=demonstration`` is made of: what optimizers are tuned with, and the best."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from repast_dist.ground.errors import SettingsError
from repast_dist.studies.case import Point, TunedCase
from repast_dist.studies.kinds.demonstration import DemonstrationStudy
from repast_dist.studies.settings import RunSettings, changed, in_one_process
from repast_dist.studies.variants import varied

NO_CIRCUIT = "none"
"""The circuit of optimizers that solve with nothing."""


class Cases:
    """Makes the runs of a study from its settings.

    Parameters
    ----------
    study : DemonstrationStudy
        What is compared.
    settings : RunSettings
        What optimizers and circuits start from.

    Raises
    ------
    SettingsError
        A set of settings names no setting, a value that is not valid, or one that the study does
        not read; or the optimizer beside the demonstration solves with nothing.
    """

    def __init__(self, study: DemonstrationStudy, settings: RunSettings) -> None:
        self._study, self._seed = study, settings.seed
        # The demonstrated circuit is not said to check its answers.
        base = changed(in_one_process(settings), {"inversion.on_divergence": "use"})
        self._optimizers = {
            name: varied(base, searched.settings, f"study.optimizers.{name}.settings")
            for name, searched in study.optimizers.items()
        }
        if self._optimizers[study.optimizer].optimizer.second_order is None:
            solving = [name for name in study.optimizers if self._circuits(name) != [NO_CIRCUIT]]
            raise SettingsError(
                f"study.optimizer: {study.optimizer} solves with nothing; valid: "
                f"{', '.join(solving) or 'an optimizer that solves'}"
            )

    def tuning(self) -> list[TunedCase]:
        """Return every setting that an optimizer is tuned with, on the settings' own circuit."""
        study, first = self._study, self._seed + self._study.seeds
        cases = []
        for name, searched in study.optimizers.items():
            start = varied(self._optimizers[name], study.tuning, "study.tuning")
            for point in _grid(searched.search):
                tried = varied(start, point, f"study.optimizers.{name}.search")
                for seed in range(first, first + study.tuning_seeds):
                    labels = {
                        "optimizer": name, "circuit": NO_CIRCUIT, "seed": seed,
                        "searched": words(point),
                    }  # fmt: skip
                    cases.append(TunedCase(dataclasses.replace(tried, seed=seed), labels, point))
        return cases

    def reported(self, best: Mapping[str, Point]) -> list[TunedCase]:
        """Return the runs that are reported, with all seeds.

        Parameters
        ----------
        best : mapping
            Optimizer -> what was found best of what it was tuned with.
        """
        cases = []
        for name, point in best.items():
            start = changed(self._optimizers[name], point)
            for circuit in self._circuits(name):
                changes = {} if circuit == NO_CIRCUIT else self._study.circuits[circuit]
                own = varied(start, changes, f"study.circuits.{circuit}")
                for seed in range(self._seed, self._seed + self._study.seeds):
                    labels = {
                        "optimizer": name, "circuit": circuit, "seed": seed,
                        "searched": words(point),
                    }  # fmt: skip
                    cases.append(TunedCase(dataclasses.replace(own, seed=seed), labels, point))
        return cases

    def _circuits(self, optimizer: str) -> list[str]:
        """Return the circuits that an optimizer trains on."""
        solves = self._optimizers[optimizer].optimizer.second_order is not None
        return list(self._study.circuits) if solves else [NO_CIRCUIT]


def _grid(search: Mapping[str, tuple[Any, ...]]) -> Iterator[Point]:
    """Yield every combination of the values that are searched."""
    for values in itertools.product(*search.values()):
        yield dict(zip(search, values, strict=True))


def words(point: Mapping[str, Any]) -> str:
    """Return what was varied, in words: the last part of every path and its value."""
    return ", ".join(f"{path.rpartition('.')[2]} {value}" for path, value in point.items())
