"""Invert real factors with every method."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le, MinLen

from repast_dist.ground.files import POINTS
from repast_dist.ground.numbers import PositiveInt
from repast_dist.ground.spec import spec
from repast_dist.studies.study import STUDIES, WORKERS, Study

if TYPE_CHECKING:
    from rich.console import Console

    from repast_dist.studies.settings import RunSettings


PrecisionMethod = Literal[
    "single", "taylor", "refine_bare", "refine", "fcg", "fcg_sliced", "cg"
]  # fmt: skip


@STUDIES.register
@spec
class PrecisionStudy(Study):
    """Invert blocks of real K-FAC factors with every method, on better and worse arrays.

    Attributes
    ----------
    methods : tuple of str
        As ``inversion.method``; ``refine_bare`` is ``refine`` without regularisation of the array,
        ``fcg_sliced`` is ``fcg`` with two slices per array.
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
    reuse : tuple of str
        Run directories whose finished points are taken over where all that decides a point is the
        same.
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
    methods: Annotated[tuple[PrecisionMethod, ...], MinLen(1)]
    cell_bits: Annotated[tuple[Annotated[int, Ge(1), Le(8)], ...], MinLen(1)]
    programming_sigma: Annotated[tuple[Annotated[float, Ge(0)], ...], MinLen(1)]
    damping: Annotated[tuple[Annotated[float, Gt(0)], ...], MinLen(1)]
    block_sizes: Annotated[tuple[PositiveInt, ...], MinLen(1)]
    steps: PositiveInt = 40
    columns: PositiveInt = 16
    max_iterations: PositiveInt = 200
    reuse: tuple[str, ...] = ()

    def answer(self, settings: "RunSettings", run_dir: Path | None, console: "Console") -> Path:
        """Train for the factors, solve every point, and write the page."""
        from repast_dist.studies.precision import run

        return run(self, settings, run_dir, console)

    def can_resume(self, run_dir: Path) -> bool:
        """Return whether a stopped run left something to go on with."""
        return (run_dir / POINTS).is_dir()
