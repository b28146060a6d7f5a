"""Train over methods, noise, damping, blocks and optimizers."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, MinLen

from repast_dist.ground.files import POINTS
from repast_dist.ground.numbers import PositiveInt
from repast_dist.ground.spec import spec
from repast_dist.mapping.specs import SoiSpec
from repast_dist.network.model import ModelSpec
from repast_dist.studies.study import STUDIES, WORKERS, Study
from repast_dist.training.optimizers.adam import Adam
from repast_dist.training.optimizers.kfac import Kfac
from repast_dist.training.optimizers.sgd import Sgd
from repast_dist.training.specs import TrainSpec

if TYPE_CHECKING:
    from rich.console import Console

    from repast_dist.studies.settings import RunSettings


TrainingMethod = Literal["float64", "fixed8", "fixed16", "single", "taylor", "refine", "fcg"]
PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]


@STUDIES.register
@spec
class ConvergenceStudy(Study):
    """Train with every optimizer and every way to invert; convergence and cost to a target.

    Attributes
    ----------
    train, soi, kfac : TrainSpec, SoiSpec, Kfac
        What takes the place of the settings' ``train``, ``soi`` and ``optimizer``.
    methods : tuple of str
        Ways to invert, compared over plain damping: ``float64``; ``fixed8`` and ``fixed16``, where
        block and inverse are rounded to so many bits; or on arrays, as ``inversion.method``.
    damping : tuple of float
        Values of plain damping.
    noise : tuple of float
        Programming errors of inverting cells at which all dampings are tried.
    pi_methods, pi_damping : tuples
        The same for the other form of damping, at `chip_noise`.
    noise_levels : tuple of float
        Programming errors tried at float64's best plain damping.
    block_methods, block_sizes : tuples
        Widths of blocks tried there, by these ways to invert.
    sgd, adam : Sgd, Adam
        The first-order optimizers; their rates are searched.
    sgd_rates, adam_rates : tuple of float
        What is searched, with one seed that is not among the reported ones.
    kfac_rates, kfac_damping : tuples of float
        The same for K-FAC in float64, with the form of damping of ``kfac``: every pair.
    chip_methods : tuple of str
        K-FAC on chips beside the optimizers, with what is best for K-FAC in float64.
    chip_noise : float
        Programming error of the inverting cells there, over block sizes and under pi.
    autoencoder : ModelSpec
        The second task, on the same data.
    seeds : int
        Reported seeds, from the settings' ``seed`` on.
    one_seed : tuple of str
        Ways to invert that are tried with the first of them only, since they take long.
    reuse : tuple of str
        Run directories whose finished points are taken over where all that decides a point is the
        same.
    """

    reads: ClassVar[tuple[str, ...]] = (
        *WORKERS,
        "farm.chips",
        "farm.chip_overrides",
        "seed",
        "model",
        "dataset",
        "engine",
        "device",
        "chip",
        "components",
        "interconnect",
        "partition",
        "inversion",
    )
    name: Literal["convergence"] = "convergence"
    train: TrainSpec
    soi: SoiSpec
    kfac: Kfac
    methods: Annotated[tuple[TrainingMethod, ...], MinLen(1)]
    damping: Annotated[tuple[PositiveFloat, ...], MinLen(1)]
    noise: Annotated[tuple[NonNegativeFloat, ...], MinLen(1)]
    pi_methods: Annotated[tuple[TrainingMethod, ...], MinLen(1)]
    pi_damping: Annotated[tuple[PositiveFloat, ...], MinLen(1)]
    noise_levels: Annotated[tuple[NonNegativeFloat, ...], MinLen(1)]
    block_methods: Annotated[tuple[TrainingMethod, ...], MinLen(1)]
    block_sizes: Annotated[tuple[PositiveInt, ...], MinLen(1)]
    sgd: Sgd
    adam: Adam
    sgd_rates: Annotated[tuple[PositiveFloat, ...], MinLen(1)]
    adam_rates: Annotated[tuple[PositiveFloat, ...], MinLen(1)]
    kfac_rates: Annotated[tuple[PositiveFloat, ...], MinLen(1)]
    kfac_damping: Annotated[tuple[PositiveFloat, ...], MinLen(1)]
    chip_methods: tuple[TrainingMethod, ...]
    chip_noise: NonNegativeFloat = 0.01
    autoencoder: ModelSpec
    seeds: PositiveInt = 3
    one_seed: tuple[TrainingMethod, ...] = ()
    reuse: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if "float64" not in self.methods:
            raise ValueError("methods: float64 is what the others are compared with, include it")
        searched = len(self.kfac_rates) * len(self.kfac_damping)
        if not len(self.sgd_rates) == len(self.adam_rates) == searched:
            raise ValueError(
                f"search budgets differ: {len(self.sgd_rates)} sgd_rates, {len(self.adam_rates)} "
                f"adam_rates, {searched} pairs of kfac_rates and kfac_damping; valid: as many each"
            )

    def answer(self, settings: "RunSettings", run_dir: Path | None, console: "Console") -> Path:
        """Search, train every point, and write the page."""
        from repast_dist.studies.convergence import run

        return run(self, settings, run_dir, console)

    def ignores(self, settings: "RunSettings") -> Mapping[str, str]:
        """Return settings that do nothing beside the others, with the reason."""
        missed = "answers that miss their target are used; valid: study=train"
        of_misses = ("on_divergence", "damp_factor", "damp_tries")
        return {f"inversion.{name}": missed for name in of_misses} | {
            name: f"the study has its own; valid: study.{own}"
            for name, own in (("train", "train"), ("soi", "soi"), ("optimizer", "kfac, sgd, adam"))
        }

    def can_resume(self, run_dir: Path) -> bool:
        """Return whether a stopped run left something to go on with."""
        return (run_dir / POINTS).is_dir()
