"""Train every optimizer on chips of equal area: what a loss takes of steps, time and energy."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import Gt, MinLen

from repast_dist.ground.numbers import PositiveInt
from repast_dist.ground.spec import spec
from repast_dist.studies.kinds.search import Parameter
from repast_dist.studies.study import STUDIES, TRAINING, WORKERS, Changes, PointStudy, Variants

if TYPE_CHECKING:
    from rich.console import Console

    from repast_dist.studies.settings import RunSettings

CHIPS_WORK = "chips of equal area are compared, which all work"
"""Why none is switched off (``partition.idle_chips``)."""


@spec
class TunedOptimizer:
    """An optimizer that is compared with others, each tuned with as many settings.

    Attributes
    ----------
    settings : dict
        What makes it: dotted path -> value. They are the first that is tried.
    search : dict
        Further ones are drawn from this: dotted path -> a list or a range ``{low, high}``, or a
        name -> named sets of settings, as in ``study=search``.
    """

    settings: Annotated[Changes, MinLen(1)]
    search: Annotated[dict[str, Parameter], MinLen(1)]


@spec
class PublishedRun:
    """How many steps or epochs a published training took by both kinds of optimizers.

    Attributes
    ----------
    network : str
        The network, as ``workload.name`` has it.
    batch : int
        Samples of a step that is priced.
    first_order, second_order : float
        Steps or epochs to the same quality.
    settings : dict
        What else a step is priced with: dotted path -> value.
    source : str
        Where it was published.
    """

    network: str
    batch: PositiveInt
    first_order: Annotated[float, Gt(0)]
    second_order: Annotated[float, Gt(0)]
    settings: Changes = dataclasses.field(default_factory=dict)
    source: str


@STUDIES.register
@spec
class FrontierStudy(PointStudy):
    """Train with every optimizer on chips of equal area, and compare costs to a common loss.

    Every optimizer is tuned on every task with as many settings, by trainings with a seed of their
    own; the best is trained anew with the seeds that are reported. Those that solve are
    trained on every chip, and tuned on each or on one for all. The target of a task is the lowest
    mean final loss of the others.

    Attributes
    ----------
    tasks : dict
        What is trained, by name: settings that differ.
    optimizers : dict
        Optimizers that are compared, by name.
    chips : dict
        Chips, and the way to invert on each, by name: settings that differ. Each gets as many
        tiles as fit the area of the settings' chip.
    first_order_chip : str
        The one on which optimizers train that solve with nothing.
    tuned_on : str or None
        The chip on which optimizers that solve are tuned for all chips, so that they have no more
        tries than the others; None: on each.
    points : int
        Settings that every optimizer is tuned with.
    tuning : dict
        Settings that differ while an optimizer is tuned, such as arithmetic that is quicker to
        simulate.
    window : int
        Steps over which a loss is averaged before it is compared with a target.
    seeds : int
        Reported seeds, from the settings' ``seed`` on; that of tuning is the next one.
    time_claimed, energy_claimed : float
        Shares of the time and the energy of the best first-order optimizer within which the others
        are claimed to reach its final loss.
    tasks_claimed : int
        On how many tasks.
    saving_claimed : float
        How many times less energy inversion is claimed to take per step on the first chip.
    saving_over : str or None
        Than on this one, which inverts on arrays too; None: nothing is claimed.
    tiles : tuple of int
        Sizes of the settings' chip, in tiles, at which steps are priced too, on chips of its area.
    published : tuple of PublishedRun
        Published trainings of large networks, priced on these chips.
    published_settings : dict
        Settings that differ there, such as a larger chip.
    """

    reads: ClassVar[tuple[str, ...]] = (*WORKERS, *TRAINING, "farm.chips", "farm.chip_overrides")
    name: Literal["frontier"] = "frontier"
    tasks: Annotated[Variants, MinLen(1)]
    optimizers: Annotated[dict[str, TunedOptimizer], MinLen(2)]
    chips: Annotated[Variants, MinLen(1)]
    first_order_chip: str
    tuned_on: str | None = None
    points: PositiveInt = 8
    tuning: Changes = dataclasses.field(default_factory=dict)
    window: PositiveInt = 8
    seeds: PositiveInt = 3
    time_claimed: Annotated[float, Gt(0)] = 0.5
    energy_claimed: Annotated[float, Gt(0)] = 1.0
    tasks_claimed: PositiveInt = 3
    saving_claimed: Annotated[float, Gt(0)] = 5.0
    saving_over: str | None = None
    tiles: tuple[PositiveInt, ...] = ()
    published: tuple[PublishedRun, ...] = ()
    published_settings: Changes = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for field in ("first_order_chip", "tuned_on", "saving_over"):
            name = getattr(self, field)
            if name is not None and name not in self.chips:
                raise ValueError(f"{field}: no chip '{name}'; valid: {', '.join(self.chips)}")

    def answer(self, settings: "RunSettings", run_dir: Path | None, console: "Console") -> Path:
        """Tune, train, and write the page."""
        from repast_dist.studies.frontier.answer import run

        return run(self, settings, run_dir, console)

    def ignores(self, settings: "RunSettings") -> Mapping[str, Any]:
        """Return settings that do nothing beside the others, with the reason."""
        missed = "answers that miss their target are used; valid: study=train"
        of_misses = ("on_divergence", "damp_factor", "damp_tries")
        idle = {"partition.idle_chips": f"{CHIPS_WORK}; valid: none"}
        return {f"inversion.{name}": missed for name in of_misses} | idle
