"""Invert real factors with every method."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le, MinLen

from repast_dist.ground.numbers import PositiveInt
from repast_dist.ground.spec import spec
from repast_dist.studies.study import STUDIES, WORKERS, PointStudy, Variants

if TYPE_CHECKING:
    from rich.console import Console

    from repast_dist.studies.settings import RunSettings


@spec
class PublishedRounds:
    """A published solve with cells of few bits, and the ways of ours that answer it.

    Attributes
    ----------
    name, source : str
        What it is called, and where it was published.
    size, cell_bits : int
        Rows of its systems, bits of its cells.
    target_bits, rounds : int
        Bits of the answer, and rounds it takes.
    variants : dict
        Name -> settings that differ, as dotted path -> value.
    """

    name: str
    source: str
    size: PositiveInt
    cell_bits: PositiveInt
    target_bits: PositiveInt
    rounds: PositiveInt
    variants: Variants


@STUDIES.register
@spec
class PrecisionStudy(PointStudy):
    """Invert blocks of real K-FAC factors with every method, on better and worse arrays.

    Attributes
    ----------
    variants : dict
        Ways to invert: name -> settings that differ, as dotted path -> value.
    published : PublishedRounds
        Rounds to many bits with cells of few, as published, and ours for the same question.
    cell_bits : tuple of int
        Bits of the cells of inverting arrays.
    programming_sigma : tuple of float
        Programming errors of these cells, relative to the conductance range.
    damping : tuple of float
        Values of ``optimizer.damping``.
    block_sizes : tuple of int
        Blocks are cut from the middle of the network's widest factor; one that is narrower than a
        size is taken whole.
    steps : int
        Steps of training, in float64, behind the factors.
    columns : int
        Right-hand sides: columns of the last gradient that are not zero, at most.
    max_iterations : int
        Rounds after which a method is given up.
    """

    reads: ClassVar[tuple[str, ...]] = (
        *WORKERS,
        "seed",
        "model",
        "dataset",
        "optimizer",
        "train",
        "chip",
        "device",
        "inversion",
    )
    name: Literal["precision"] = "precision"
    variants: Annotated[Variants, MinLen(1)]
    published: PublishedRounds
    cell_bits: Annotated[tuple[Annotated[int, Ge(1), Le(8)], ...], MinLen(1)]
    programming_sigma: Annotated[tuple[Annotated[float, Ge(0)], ...], MinLen(1)]
    damping: Annotated[tuple[Annotated[float, Gt(0)], ...], MinLen(1)]
    block_sizes: Annotated[tuple[PositiveInt, ...], MinLen(1)]
    steps: PositiveInt = 40
    columns: PositiveInt = 16
    max_iterations: PositiveInt = 200

    def answer(self, settings: "RunSettings", run_dir: Path | None, console: "Console") -> Path:
        """Train for the factors, solve every point, and write the page."""
        from repast_dist.studies.precision.answer import run

        return run(self, settings, run_dir, console)
