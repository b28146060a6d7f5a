"""Train a small network as a demonstration in hardware did: epochs to an accuracy, beside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import Gt, Lt, MinLen

from repast_dist.ground.numbers import PositiveInt
from repast_dist.ground.spec import spec
from repast_dist.studies.kinds.convergence import SearchedOptimizer
from repast_dist.studies.study import STUDIES, TRAINING, WORKERS, Changes, PointStudy, Variants

if TYPE_CHECKING:
    from rich.console import Console

    from repast_dist.studies.settings import RunSettings

Accuracy = Annotated[float, Gt(0), Lt(1)]


@spec
class PublishedSaving:
    """By what share fewer epochs a demonstrated optimizer took than another.

    Attributes
    ----------
    rival : str
        The other, by its name among the study's optimizers.
    value : float
        One minus the ratio of epochs.
    source : str
        Where it was published.
    """

    rival: str
    value: float
    source: str


@STUDIES.register
@spec
class DemonstrationStudy(PointStudy):
    """Count the epochs that optimizers take to the same accuracy, some of them on several circuits.

    Every optimizer is tuned with as many settings, by trainings with seeds of their own: best is
    the quickest to the target. It is trained anew with the seeds that are reported, those that
    solve on every circuit.

    Attributes
    ----------
    optimizers : dict
        Optimizers that are compared, by name, each with as many settings to search.
    circuits : dict
        Ways to invert, by name: settings that differ.
    optimizer, circuit : str
        The optimizer and the circuit that are put beside the demonstration.
    tuning : dict
        Settings that differ while an optimizer is tuned, such as arithmetic that is quicker to
        simulate.
    seeds, tuning_seeds : int
        Reported seeds, from the settings' ``seed`` on, and those of tuning, from the next one on.
    target : float
        Share of the test set that is to be told right.
    other_targets : tuple of float
        Shares at which epochs are counted as well, to show how much depends on the target.
    published : tuple of PublishedSaving
        What the demonstration saved.
    """

    reads: ClassVar[tuple[str, ...]] = (*WORKERS, *TRAINING, "farm.chips", "farm.chip_overrides")
    name: Literal["demonstration"] = "demonstration"
    optimizers: Annotated[dict[str, SearchedOptimizer], MinLen(2)]
    circuits: Annotated[Variants, MinLen(1)]
    optimizer: str
    circuit: str
    tuning: Changes
    seeds: PositiveInt = 3
    tuning_seeds: PositiveInt = 1
    target: Accuracy
    other_targets: tuple[Accuracy, ...] = ()
    published: Annotated[tuple[PublishedSaving, ...], MinLen(1)]

    def __post_init__(self) -> None:
        names, circuits = list(self.optimizers), list(self.circuits)
        for field, name, known in (
            ("optimizer", self.optimizer, names),
            ("circuit", self.circuit, circuits),
            *(("published", one.rival, names) for one in self.published),
        ):
            if name not in known:
                raise ValueError(f"{field}: no '{name}'; valid: {', '.join(known)}")
        budgets = {name: searched.budget for name, searched in self.optimizers.items()}
        if len(set(budgets.values())) > 1:
            raise ValueError(
                f"optimizers: searched with {budgets} settings; valid: as many of each, since they "
                "are compared"
            )

    def answer(self, settings: "RunSettings", run_dir: Path | None, console: "Console") -> Path:
        """Tune, train, and write the page."""
        from repast_dist.studies.demonstration.answer import run

        return run(self, settings, run_dir, console)

    def ignores(self, settings: "RunSettings") -> Mapping[str, Any]:
        """Return settings that do nothing beside the others, with the reason."""
        missed = "answers that miss their target are used; valid: study=train"
        of_misses = ("on_divergence", "damp_factor", "damp_tries")
        return {f"inversion.{name}": missed for name in of_misses}
