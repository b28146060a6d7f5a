"""Which runs ``study=frontier`` is made of: tasks, optimizers, and chips of equal area."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from repast_dist.ground.errors import SettingsError
from repast_dist.ground.rng import words
from repast_dist.planning.idle import refuse_idle_chips
from repast_dist.studies.case import Point, TunedCase
from repast_dist.studies.kinds.frontier import CHIPS_WORK, FrontierStudy
from repast_dist.studies.search.proposals import optuna_module
from repast_dist.studies.search.space import Space
from repast_dist.studies.settings import RunSettings, changed, in_one_process
from repast_dist.studies.variants import varied

FIRST, SECOND = "first", "second"
"""Order of optimizers: those that solve with nothing, and those that solve."""


class Cases:
    """Makes the runs of a study from its settings.

    Parameters
    ----------
    study : FrontierStudy
        What is compared.
    settings : RunSettings
        What tasks, optimizers and chips start from.

    Raises
    ------
    SettingsError
        A set of settings names no setting, a value that is not valid, or one that the study does
        not read; or chips may be switched off; or all optimizers are of one order, so that there is
        nothing to compare; or no chip inverts on arrays, or all do.
    """

    def __init__(self, study: FrontierStudy, settings: RunSettings) -> None:
        self._study, self._seed = study, settings.seed
        # A chip that cannot check its answers uses them; what that does is part of the question.
        self._base = changed(in_one_process(settings), {"inversion.on_divergence": "use"})
        refuse_idle_chips(self._base.partition, CHIPS_WORK)
        self.chips = self._of_equal_area(self._base)
        self._optimizers = {
            (task, name): varied(on_task, tuned.settings, f"study.optimizers.{name}.settings")
            for task, changes in study.tasks.items()
            for on_task in [varied(self._base, changes, f"study.tasks.{task}")]
            for name, tuned in study.optimizers.items()
        }
        self._refuse_nothing_to_compare()

    @cached_property
    def large_chips(self) -> dict[str, RunSettings]:
        """The same chips as large as published trainings are priced on."""
        where = "study.published_settings"
        return self._of_equal_area(varied(self._base, self._study.published_settings, where))

    def tasks(self) -> Iterator[tuple[str, RunSettings]]:
        """Yield every task and settings that have its data."""
        for task in self._study.tasks:
            yield task, self._optimizers[task, next(iter(self._study.optimizers))]

    def tuning(self, task: str) -> list[TunedCase]:
        """Return what every optimizer is tuned with on a task, on each of its chips or on one for
        all of them (``study.tuned_on``): its own settings, then drawn ones.

        Draws depend on the seed, the optimizer and the number of the point, not on what other
        points gave, so that any number of workers trains the same ones.
        """
        study = self._study
        cases = []
        for name, chip in dict.fromkeys(
            (name, self._tuned_on(task, name, chip)) for name, chip in self._trained(task)
        ):
            tuned = study.optimizers[name]
            start = varied(self._on_chip(task, name, chip), study.tuning, "study.tuning")
            space = Space.of(tuned.search, start, f"study.optimizers.{name}.search")
            for point in [{}, *_drawn(space, study.points - 1, self._seed, name)]:
                settings = changed(start, {**point, "seed": self._seed + study.seeds})
                labels = self._labels(task, name, chip)
                labels |= {"seed": settings.seed, "tuned": _words(point)}
                cases.append(TunedCase(settings, labels, point))
        return cases

    def reported(self, task: str, best: Mapping[tuple[str, str], Point]) -> list[TunedCase]:
        """Return the runs that are reported of a task, with all seeds.

        Parameters
        ----------
        task : str
            The task.
        best : mapping
            Optimizer and chip that it was tuned on -> what was found best of what was tried.
        """
        cases = []
        for name, chip in self._trained(task):
            point = best[name, self._tuned_on(task, name, chip)]
            start = changed(self._on_chip(task, name, chip), point)
            labels = self._labels(task, name, chip) | {"tuned": _words(point)}
            for seed in range(self._seed, self._seed + self._study.seeds):
                settings = dataclasses.replace(start, seed=seed)
                cases.append(TunedCase(settings, {**labels, "seed": seed}, dict(point)))
        return cases

    def sized(
        self,
        task: str,
        optimizer: str,
        chip: str,
        tiles: int,
        best: Mapping[tuple[str, str, str], Point],
    ) -> RunSettings:
        """Return what is reported of an optimizer on a chip, with the area that the settings' own
        chip has with so many tiles.

        Parameters
        ----------
        task, optimizer, chip : str
            Which one.
        tiles : int
            Tiles of the settings' own chip.
        best : mapping
            Task, optimizer and chip that it was tuned on -> what was found best.
        """
        point = best[task, optimizer, self._tuned_on(task, optimizer, chip)]
        settings = changed(self._on_chip(task, optimizer, chip), point)
        area_m2 = changed(self._base, {"chip.tiles": tiles}).hardware.area_m2
        return changed(settings, {"chip.tiles": tiles_in(settings, area_m2)})

    def _trained(self, task: str) -> Iterator[tuple[str, str]]:
        """Yield every optimizer with the chips that it trains on."""
        for name in self._study.optimizers:
            first = self._order(task, name) == FIRST
            for chip in [self._study.first_order_chip] if first else self._study.chips:
                yield name, chip

    def _order(self, task: str, optimizer: str) -> str:
        return _order(self._optimizers[task, optimizer])

    def _tuned_on(self, task: str, optimizer: str, chip: str) -> str:
        """Return the chip whose tuning serves an optimizer on a chip."""
        first = self._order(task, optimizer) == FIRST
        return chip if first else self._study.tuned_on or chip

    def _labels(self, task: str, optimizer: str, chip: str) -> dict[str, Any]:
        order = self._order(task, optimizer)
        inverts = order == SECOND and inverts_on_arrays(self.chips[chip])
        return {
            "task": task, "optimizer": optimizer, "order": order, "chip": chip, "inverts": inverts,
        }  # fmt: skip

    def _on_chip(self, task: str, optimizer: str, chip: str) -> RunSettings:
        """Return an optimizer's settings on one of the chips; its inversion is the chip's."""
        settings = self._optimizers[task, optimizer]
        on_chip = varied(settings, self._study.chips[chip], f"study.chips.{chip}")
        return changed(on_chip, {"chip.tiles": self.chips[chip].chip.tiles})

    def _of_equal_area(self, base: RunSettings) -> dict[str, RunSettings]:
        """Return settings with each of the chips, as large as that of the given settings."""
        chips = {}
        for name, changes in self._study.chips.items():
            settings = varied(base, changes, f"study.chips.{name}")
            tiles = tiles_in(settings, base.hardware.area_m2)
            chips[name] = changed(settings, {"chip.tiles": tiles})
        return chips

    def _refuse_nothing_to_compare(self) -> None:
        orders = {_order(settings) for settings in self._optimizers.values()}
        if len(orders) < 2:
            raise SettingsError(
                f"study.optimizers: all are of {orders.pop()} order; valid: some of each, since "
                "those that solve are compared with the best of the others"
            )
        if len({inverts_on_arrays(chip) for chip in self.chips.values()}) < 2:
            raise SettingsError(
                "study.chips: with inverting arrays on all or on none there is nothing to compare; "
                "valid: some chips that invert on arrays, and some that do not"
            )


def inverts_on_arrays(settings: RunSettings) -> bool:
    """Return whether inverting arrays solve on a chip, by itself or as a part of a method."""
    return settings.engine.inverse == "analog" and settings.inversion.uses_array


def tiles_in(settings: RunSettings, area_m2: float) -> int:
    """Return the tiles with which a chip is as large as an area, or as little smaller as it can be.

    Parameters
    ----------
    settings : RunSettings
        With the chip.
    area_m2 : float
        The area.

    Raises
    ------
    SettingsError
        A single tile is larger.
    """
    one, two = (changed(settings, {"chip.tiles": n}).hardware.area_m2 for n in (1, 2))
    tiles = math.floor((area_m2 - one) / (two - one) * (1 + 1e-12)) + 1
    if tiles < 1:
        raise SettingsError(
            f"study.chips: a tile takes {one:.3g} m2, all chips have {area_m2:.3g} m2; valid: "
            "smaller tiles, or a larger chip"
        )
    return tiles


def _drawn(space: Space, count: int, seed: int, optimizer: str) -> Iterator[Point]:
    """Yield random points of a space as changes of settings."""
    optuna = optuna_module()
    study, distributions = optuna.create_study(), space.distributions()
    for number in range(count):
        key = int(words(1, seed, "frontier", optimizer, number)[0] >> 1)
        study.sampler = optuna.samplers.RandomSampler(seed=key)
        yield space.changes(study.ask(distributions).params)


def _order(settings: RunSettings) -> str:
    return SECOND if settings.optimizer.second_order else FIRST


def _words(point: Mapping[str, Any]) -> str:
    """Return what was varied, in words: the last part of every path and its value."""
    parts = [
        f"{path.rpartition('.')[2]} {value:.3g}" if isinstance(value, float) else
        f"{path.rpartition('.')[2]} {value}"
        for path, value in point.items()
    ]  # fmt: skip
    return ", ".join(parts) or "as preset"
