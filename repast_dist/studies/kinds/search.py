"""Look for the best design: which settings may change, what is good, what must hold."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Lt, MinLen
from pydantic import Discriminator, Tag

from repast_dist.ground.errors import SettingsError
from repast_dist.ground.numbers import Count, PositiveInt
from repast_dist.ground.spec import spec
from repast_dist.studies.measure import MEASURES, Measure
from repast_dist.studies.sampler import SAMPLERS, Sampler
from repast_dist.studies.study import STUDIES, TRAINING, WORKERS, Changes, Study

if TYPE_CHECKING:
    from rich.console import Console

    from repast_dist.studies.settings import RunSettings

Goal = Literal["lowest", "highest"]


@spec
class Range:
    """The numbers that a setting may have; whole ones for a setting that is a whole number.

    Attributes
    ----------
    low, high : float
        The least and the greatest.
    step : float or None
        Distance of neighbours from `low` on; None: 1 for whole numbers, and any number otherwise.
    log : bool
        Whether each power of ten is as likely as the next.
    levels : int or None
        How many of them a grid tries, evenly spread; None: a grid needs a `step`.
    """

    low: float
    high: float
    step: Annotated[float, Gt(0)] | None = None
    log: bool = False
    levels: Annotated[int, Ge(2)] | None = None

    def __post_init__(self) -> None:
        if self.low >= self.high:
            raise ValueError(f"low={self.low:g} is not below high={self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"low={self.low:g} has no logarithm; valid: above 0, or log=false")
        if self.log and self.step is not None:
            raise ValueError("step and log: a logarithmic range has no even steps; valid: one")


def _form(value: Any) -> str:
    if isinstance(value, Range) or (isinstance(value, Mapping) and "low" in value):
        return "range"
    return "sets" if isinstance(value, Mapping) else "values"


Parameter = Annotated[
    Annotated[tuple[Any, ...], MinLen(1), Tag("values")]
    | Annotated[Range, Tag("range")]
    | Annotated[dict[str, Changes], MinLen(1), Tag("sets")],
    Discriminator(_form),
]
"""A list of values, a range, or named sets of settings that change together."""


@spec
class Limits:
    """Between which values a measured number must lie.

    Attributes
    ----------
    at_least, at_most : float or None
        The least and the greatest; None: none.
    """

    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        if self.at_least is None and self.at_most is None:
            raise ValueError("no limit; valid: at_least=NUMBER, at_most=NUMBER, or both")
        low, high = self.at_least, self.at_most
        if low is not None and high is not None and low > high:
            raise ValueError(f"at_least={low:g} is above at_most={high:g}: nothing is between")

    def excess(self, value: float) -> float:
        """Return by how much a value is outside, as a share of the limit it breaks; 0: it is not.

        A share makes limits of different units comparable.
        """
        found = 0.0
        if self.at_most is not None and value > self.at_most:
            found = (value - self.at_most) / (abs(self.at_most) or 1.0)
        if self.at_least is not None and value < self.at_least:
            found = max(found, (self.at_least - value) / (abs(self.at_least) or 1.0))
        return found


@spec
class Pruning:
    """When a training run is stopped that does worse than others did at the same epoch.

    Attributes
    ----------
    column : str
        What is compared: a measured number that is known after every epoch.
    goal : {"lowest", "highest"}
        Which values of it are good.
    percentile : float
        A run goes on while it is among so many percent of the best: 50 stops below the median.
    after_points : int
        Finished points before any run is stopped.
    after_epochs : int
        Epochs that every run gets.
    """

    column: str
    goal: Goal = "lowest"
    percentile: Annotated[float, Gt(0), Lt(100)] = 50.0
    after_points: PositiveInt = 5
    after_epochs: Count = 1


@STUDIES.register
@spec
class SearchStudy(Study):
    """Search the best designs: parameters, objectives, constraints, and who proposes points.

    Attributes
    ----------
    question : str
        Heading of the page.
    measures : dict
        Name -> what is measured at every point, as in a sweep: ``kind`` cost, train, solve,
        headline, or one of your own. Its numbers are called ``NAME.COLUMN``; no group of settings
        may have this name.
    parameters : dict
        Dotted path of a setting -> the values it may have: a list, or a range ``{low, high}`` with
        ``step``, ``log`` and ``levels``. Or a name of your own -> named sets of settings, dotted
        path -> value, that change together.
    objectives : dict
        Measured number -> ``lowest`` or ``highest``; several give a Pareto front.
    constraints : dict
        Measured number -> ``at_least`` and ``at_most``.
    sampler : Sampler
        Who proposes points: ``kind`` grid, random, tpe, nsga2, cmaes, or one of your own.
    points : int or None
        Points in all; None: every point of a grid.
    pruning : Pruning or None
        When training runs are stopped early; None: never.
    keep : int
        Best designs that are written as files and shown beside the settings' own.
    finals : dict
        Name -> what is measured of these alone: a longer training, more networks.
    """

    name: Literal["search"] = "search"
    reads: ClassVar[tuple[str, ...]] = (
        *WORKERS, *TRAINING, "workload", "baseline", "epochs", "farm.chips", "farm.chip_overrides",
        "search",
    )  # fmt: skip
    question: str = "Design search"
    measures: dict[str, Annotated[Measure, MEASURES.choice()]]
    parameters: dict[str, Parameter]
    objectives: dict[str, Goal]
    constraints: dict[str, Limits] = dataclasses.field(default_factory=dict)
    sampler: Annotated[Sampler, SAMPLERS.choice()]
    points: PositiveInt | None = None
    pruning: Pruning | None = None
    keep: PositiveInt = 4
    finals: dict[str, Annotated[Measure, MEASURES.choice()]] = dataclasses.field(
        default_factory=dict
    )

    def __post_init__(self) -> None:
        twice = sorted(set(self.measures) & set(self.finals))
        if twice:
            raise ValueError(f"finals.{twice[0]}: a measure has this name; valid: another one")
        if self.points is None and self.sampler.needs_points:
            raise ValueError(
                f"points: sampler.kind={self.sampler.kind} never ends by itself; "
                "valid: a number of points"
            )
        self.sampler.check(len(self.objectives))

    def answer(self, settings: "RunSettings", run_dir: Path | None, console: "Console") -> Path:
        """Search, and show what is best."""
        from repast_dist.studies.search.answer import run

        for name in ("parameters", "measures", "objectives"):
            if not getattr(self, name):
                raise SettingsError(
                    f"study.{name}: none is given; valid: search=headline, or a file of your own "
                    "(docs/search.md)"
                )
        for kind, names in (("measures", self.measures), ("finals", self.finals)):
            for name in names:
                if hasattr(settings, name):
                    raise SettingsError(
                        f"study.{kind}.{name}: a group of settings has this name, and its "
                        "figures would be read as settings; valid: another name"
                    )
        return run(self, settings, run_dir, console)

    def ignores(self, settings: "RunSettings") -> Mapping[str, str]:
        """Return what none of the measures reads."""
        measures = [*self.measures.values(), *self.finals.values()]
        reads = {read for measure in measures for read in measure.reads}
        if "model" in reads and settings.model.needs_data:
            reads |= {"dataset", "seed"}
        # It decides which points are proposed, too.
        reads.add("seed")
        unread = [
            name
            for name in (*TRAINING, "workload", "baseline", "epochs")
            if not any(read == name or read.startswith(f"{name}.") for read in reads)
        ]
        kinds = ", ".join(dict.fromkeys(measure.kind for measure in measures))
        return dict.fromkeys(unread, f"measures of kind {kinds} need none of it; valid: another")

    def can_resume(self, run_dir: Path) -> bool:
        """Return whether a stopped run left something to go on with."""
        return True
