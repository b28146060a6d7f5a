"""Which runs ``study=convergence`` is made of: named sets of settings and values of its axes."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from repast_dist.ground.errors import SettingsError
from repast_dist.ground.spec import to_dict
from repast_dist.studies.case import Case
from repast_dist.studies.convergence.tables import DIGITAL, FIRST, Part
from repast_dist.studies.kinds.convergence import ConvergenceStudy
from repast_dist.studies.settings import RunSettings, changed, in_one_process
from repast_dist.studies.variants import varied
from repast_dist.training.optimizers import OPTIMIZERS

AXES = {
    "damping": "optimizer.damping",
    "form": "optimizer.damping_form",
    "rate": "optimizer.learning_rate",
    "block_size": "soi.block_size",
    "seed": "seed",
}
"""Column of the tables -> the setting whose values it holds; others are shown by their path."""

_COLUMNS = {path: column for column, path in AXES.items()}


class Cases:
    """Makes the runs of a study from its settings.

    Parameters
    ----------
    study : ConvergenceStudy
        What is varied.
    settings : RunSettings
        What the variants, tasks and optimizers start from.

    Raises
    ------
    SettingsError
        A variant, a task or an optimizer names no setting, a value that is not valid, or one that
        the study does not read; the message names it.
    """

    def __init__(self, study: ConvergenceStudy, settings: RunSettings) -> None:
        self._study, self._first_seed = study, settings.seed
        # A chip that cannot check its answers uses them; what that does is the question.
        self._base = changed(in_one_process(settings), {"inversion.on_divergence": "use"})
        self._methods = {name: self._variant(self._base, name) for name in study.variants}
        self._optimizers = {
            (task, name): varied(on_task, optimizer.settings, f"study.optimizers.{name}.settings")
            for task, changes in study.tasks.items()
            for on_task in [varied(self._base, changes, f"study.tasks.{task}")]
            for name, optimizer in study.optimizers.items()
        }
        self._refuse_wrong_orders()

    def damping(self) -> list[Case]:
        """Return every method at every damping, per programming noise and form, with all seeds."""
        study = self._study
        plain = self._over_methods(
            Part.DAMPING, study.methods, study.noise, {"damping": study.damping}, form="plain"
        )
        pi = self._over_methods(
            Part.FORM,
            study.pi_methods,
            (study.chip_noise,),
            {"damping": study.pi_damping},
            form="pi",
        )
        return [*plain, *pi]

    def axes(self, damping: float) -> list[Case]:
        """Return noise and block size, each alone, at a damping."""
        study, at = self._study, {"damping": (damping,)}
        noise = self._over_methods(Part.NOISE, study.methods, study.noise_levels, at, form="plain")
        blocks = self._over_methods(
            Part.BLOCKS,
            study.block_methods,
            (study.chip_noise,),
            at | {"block_size": study.block_sizes},
            form="plain",
        )
        return [*noise, *blocks]

    def search(self) -> list[Case]:
        """Return the searched settings of every optimizer on every task, with the search's seed."""
        study = self._study
        seed = self._first_seed + study.seeds
        searched = dict.fromkeys(
            _column(path) for optimizer in study.optimizers.values() for path in optimizer.search
        )
        cases: list[Case] = []
        for (task, name), settings in self._optimizers.items():
            start = settings
            if settings.optimizer.second_order:
                start = self._variant(settings, study.reference)
            labels = {"part": Part.SEARCH, "task": task, "optimizer": name}
            for point in _product(study.optimizers[name].search):
                found = labels | searched | {_column(path): point[path] for path in point}
                case = Case(changed(start, point | {"seed": seed}), found | {"seed": seed})
                cases.append(case)
        return cases

    def optimizers(self, best: Sequence[Mapping[str, Any]]) -> list[Case]:
        """Return the best settings of every optimizer with the reported seeds; on chips too.

        Parameters
        ----------
        best : sequence of mapping
            Labels of the best searched case per task and optimizer.
        """
        study = self._study
        cases: list[Case] = []
        for found in best:
            name, task = found["optimizer"], found["task"]
            settings = self._optimizers[task, name]
            point = {path: found[_column(path)] for path in study.optimizers[name].search}
            labels = {"part": Part.OPTIMIZERS, "task": task, "optimizer": name}
            labels |= {
                column: value
                for column, value in found.items()
                if column not in (*labels, "seed", "final_loss")
            }
            if not settings.optimizer.second_order:
                labels |= {"order": FIRST, "arithmetic": DIGITAL}
                cases += self._seeds(settings, point, labels)
                continue
            for method in (study.reference, *study.chip_methods):
                inverting = self._variant(settings, method)
                noise = _noise(inverting, study.chip_noise) if _on_arrays(inverting) else {}
                shown = {"optimizer": f"{name}, {method}", "order": "second"}
                shown["arithmetic"] = _arithmetic(inverting)
                cases += self._seeds(inverting, point | noise, labels | shown)
        return cases

    def _refuse_wrong_orders(self) -> None:
        if not self._base.optimizer.second_order:
            name = OPTIMIZERS.name_of(self._base.optimizer)
            raise SettingsError(
                f"optimizer: {name} inverts nothing, and ways to invert are what is compared; "
                "valid: a second-order optimizer"
            )
        if all(settings.optimizer.second_order for settings in self._optimizers.values()):
            raise SettingsError(
                "study.optimizers: the target is the loss of a first-order optimizer; include one"
            )

    def _over_methods(
        self,
        part: Part,
        methods: Sequence[str],
        noise: Sequence[float],
        axes: Mapping[str, Sequence[Any]],
        *,
        form: str,
    ) -> Iterator[Case]:
        """Yield every point of the axes; noise is one of them for methods on arrays."""
        for method in methods:
            settings = self._methods[method]
            levels = noise if _on_arrays(settings) else (None,)
            for level, values in itertools.product(levels, _product(axes)):
                labels: dict[str, Any] = {"part": part, "method": method}
                labels |= {"arithmetic": _arithmetic(settings), "noise": level or 0.0, **values}
                changes = {AXES[column]: value for column, value in values.items()}
                changes[AXES["form"]] = form
                if level is not None:
                    changes |= _noise(settings, level)
                one = method in self._study.one_seed
                yield from self._seeds(settings, changes, labels, count=1 if one else None)

    def _seeds(
        self,
        settings: RunSettings,
        changes: Mapping[str, Any],
        labels: Mapping[str, Any],
        count: int | None = None,
    ) -> Iterator[Case]:
        start = changed(settings, changes)
        for seed in range(self._first_seed, self._first_seed + (count or self._study.seeds)):
            yield Case(dataclasses.replace(start, seed=seed), {**labels, "seed": seed})

    def _variant(self, settings: RunSettings, name: str) -> RunSettings:
        return varied(settings, self._study.variants[name], f"study.variants.{name}")


def _column(path: str) -> str:
    return _COLUMNS.get(path, path)


def _product(axes: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """Yield every combination of the values of axes."""
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def _on_arrays(settings: RunSettings) -> bool:
    """Return whether arrays invert, so that programming noise is felt."""
    return settings.engine.inverse == "analog"


def _noise(settings: RunSettings, level: float) -> dict[str, Any]:
    """Return the change that gives inverting cells, of any model, a programming error."""
    cell = settings.device.inv_cell.with_programming_sigma(level)
    return {"device.inv_cell": to_dict(cell)}


def _arithmetic(settings: RunSettings) -> str:
    return "analog" if _on_arrays(settings) else DIGITAL
