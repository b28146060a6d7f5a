"""Train over methods, noise, damping, blocks and optimizers."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, MinLen

from repast_dist.ground.numbers import PositiveInt
from repast_dist.ground.spec import spec
from repast_dist.studies.study import (
    STUDIES,
    TRAINING,
    WORKERS,
    Changes,
    PointStudy,
    Variants,
    refuse_unknown,
)

if TYPE_CHECKING:
    from rich.console import Console

    from repast_dist.studies.settings import RunSettings


PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
PositiveFloats = Annotated[tuple[PositiveFloat, ...], MinLen(1)]
NonNegativeFloats = Annotated[tuple[NonNegativeFloat, ...], MinLen(1)]


@spec
class SearchedOptimizer:
    """An optimizer that is compared with others, each at the best of as many settings.

    Attributes
    ----------
    settings : dict
        What makes it: dotted path -> value; empty: the settings' own optimizer.
    search : dict
        Dotted path -> values that are tried; every combination.
    """

    settings: Changes = dataclasses.field(default_factory=dict)
    search: Annotated[dict[str, Annotated[tuple[Any, ...], MinLen(1)]], MinLen(1)]

    @property
    def budget(self) -> int:
        """Number of settings tried."""
        return math.prod(len(values) for values in self.search.values())


@STUDIES.register
@spec
class ConvergenceStudy(PointStudy):
    """Train with every optimizer and every way to invert; convergence and cost to a target.

    Variants, tasks and optimizers are sets of settings: dotted path -> value, as on the command
    line. A variant that inverts on arrays is trained at every programming error, any other one
    once.

    Attributes
    ----------
    variants : dict
        Ways to invert, by name: settings that differ.
    reference : str
        The variant that the others are compared with.
    methods : tuple of str
        Variants compared over plain damping.
    damping : tuple of float
        Values of plain damping.
    noise : tuple of float
        Programming errors of inverting cells at which all dampings are tried.
    pi_methods, pi_damping : tuples
        The same for the other form of damping, at `chip_noise`.
    noise_levels : tuple of float
        Programming errors tried at the reference's best plain damping.
    block_methods, block_sizes : tuples
        Widths of blocks tried there, by these variants.
    claimed_worse : tuple of str
        Variants that are said to train worse than the reference; of all others it is said that
        they train as well.
    tasks : dict
        What optimizers are compared on, by name: settings that differ. Inversions are compared on
        the settings as they are.
    optimizers : dict
        Optimizers that are compared, by name. What is searched is tried with one seed that is not
        among the reported ones, by second-order optimizers with the reference.
    chip_methods : tuple of str
        Variants with which second-order optimizers are compared too, with what is best for the
        reference.
    chip_noise : float
        Programming error of the inverting cells there, over block sizes and under pi.
    seeds : int
        Reported seeds, from the settings' ``seed`` on.
    one_seed : tuple of str
        Variants that are tried with the first of them only, since they take long.
    """

    reads: ClassVar[tuple[str, ...]] = (*WORKERS, *TRAINING, "farm.chips", "farm.chip_overrides")
    name: Literal["convergence"] = "convergence"
    variants: Annotated[Variants, MinLen(1)]
    reference: str
    methods: tuple[str, ...]
    damping: PositiveFloats
    noise: NonNegativeFloats
    pi_methods: Annotated[tuple[str, ...], MinLen(1)]
    pi_damping: PositiveFloats
    noise_levels: NonNegativeFloats
    block_methods: Annotated[tuple[str, ...], MinLen(1)]
    block_sizes: Annotated[tuple[PositiveInt, ...], MinLen(1)]
    claimed_worse: tuple[str, ...] = ()
    tasks: Annotated[Variants, MinLen(1)]
    optimizers: Annotated[dict[str, SearchedOptimizer], MinLen(1)]
    chip_methods: tuple[str, ...]
    chip_noise: NonNegativeFloat = 0.01
    seeds: PositiveInt = 3
    one_seed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for kind in (
            "methods", "pi_methods", "block_methods", "chip_methods", "claimed_worse", "one_seed",
        ):  # fmt: skip
            refuse_unknown(kind, getattr(self, kind), self.variants)
        if self.reference not in self.methods:
            raise ValueError(
                f"methods: '{self.reference}' is what the others are compared with, include it"
            )
        budgets = {name: optimizer.budget for name, optimizer in self.optimizers.items()}
        if len(set(budgets.values())) > 1:
            tried = ", ".join(f"{count} of {name}" for name, count in budgets.items())
            raise ValueError(f"optimizers: search budgets differ: {tried}; valid: as many each")

    def answer(self, settings: "RunSettings", run_dir: Path | None, console: "Console") -> Path:
        """Search, train every point, and write the page."""
        from repast_dist.studies.convergence.answer import run

        return run(self, settings, run_dir, console)

    def ignores(self, settings: "RunSettings") -> Mapping[str, str]:
        """Return settings that do nothing beside the others, with the reason."""
        missed = "answers that miss their target are used; valid: study=train"
        of_misses = ("on_divergence", "damp_factor", "damp_tries")
        return {f"inversion.{name}": missed for name in of_misses}
