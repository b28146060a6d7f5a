"""Invert real factors with every method."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from annotated_types import MinLen

from repast_dist.ground.numbers import PositiveInt
from repast_dist.ground.spec import spec
from repast_dist.studies.study import (
    STUDIES,
    WORKERS,
    Changes,
    PointStudy,
    Variants,
    refuse_unknown,
)  # fmt: skip

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


@spec
class PublishedInverse:
    """Times of inverting one matrix on another machine, as published.

    Attributes
    ----------
    name, source : str
        What the machine is called, and where its times were published.
    times_s : dict
        Algorithm -> pairs of rows and seconds, ascending. Between them times are interpolated
        over the logarithms of both; a matrix that is smaller takes as long as the smallest.
    """

    name: str
    source: str
    times_s: Annotated[dict[str, Annotated[tuple[tuple[float, float], ...], MinLen(1)]], MinLen(1)]

    def seconds(self, algorithm: str, size: int) -> float:
        """Return the time of inverting a matrix of so many rows."""
        rows, seconds = zip(*self.times_s[algorithm], strict=True)
        return float(np.exp(np.interp(np.log(size), np.log(rows), np.log(seconds))))


@spec
class PrecisionGrid:
    """Values of settings, every combination of which is solved by every method.

    Attributes
    ----------
    settings : dict
        Settings that differ on all of the grid, as dotted path -> value.
    axes : dict
        Dotted path -> values; ``soi.block_size`` cuts blocks from the middle of the network's
        widest factor, one that is narrower is taken whole.
    methods : tuple of str
        Variants that are tried; empty: all.
    """

    axes: Annotated[dict[str, Annotated[tuple[Any, ...], MinLen(1)]], MinLen(1)]
    settings: Changes = dataclasses.field(default_factory=dict)
    methods: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for path in self.settings:
            if path in self.axes:
                raise ValueError(f"settings: {path} is an axis too; valid: one of both")


@STUDIES.register
@spec
class PrecisionStudy(PointStudy):
    """Invert blocks of real K-FAC factors with every method, on better and worse arrays.

    Attributes
    ----------
    variants : dict
        Ways to invert: name -> settings that differ, as dotted path -> value.
    grids : dict
        Name -> settings whose combinations are solved. One over ``optimizer.damping`` and
        ``device.inv_cell.programming_sigma`` is drawn as maps.
    solve : tuple of str
        Grids that are solved; empty: all.
    prices : tuple of str
        Grids whose points are compared by what they cost, beside digital machines.
    gpu : PublishedInverse
        Inversion on a GPU; its power is that of ``baseline``.
    published : PublishedRounds
        Rounds to many bits with cells of few, as published, and ours for the same question.
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
        "components",
        "inversion",
        "soi.block_size",
        "baseline.board_w",
    )
    name: Literal["precision"] = "precision"
    variants: Annotated[Variants, MinLen(1)]
    grids: Annotated[dict[str, PrecisionGrid], MinLen(1)]
    solve: tuple[str, ...] = ()
    prices: tuple[str, ...] = ()
    gpu: PublishedInverse
    published: PublishedRounds
    steps: PositiveInt = 40
    columns: PositiveInt = 16
    max_iterations: PositiveInt = 200

    def __post_init__(self) -> None:
        for name, grid in self.grids.items():
            refuse_unknown(f"grids.{name}.methods", grid.methods, self.variants)
        for path, names in (("solve", self.solve), ("prices", self.prices)):
            for name in names:
                if name not in self.grids:
                    raise ValueError(f"{path}: no grid '{name}'; valid: {', '.join(self.grids)}")

    def answer(self, settings: "RunSettings", run_dir: Path | None, console: "Console") -> Path:
        """Train for the factors, solve every point, and write the page."""
        from repast_dist.studies.precision.answer import run

        return run(self, settings, run_dir, console)
