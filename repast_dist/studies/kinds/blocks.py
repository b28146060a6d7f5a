"""Ask how wide SOI blocks should be."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import MinLen

from repast_dist.ground.numbers import PositiveInt
from repast_dist.ground.spec import spec
from repast_dist.studies.study import HARDWARE, STUDIES, Study

if TYPE_CHECKING:
    from rich.console import Console

    from repast_dist.studies.settings import RunSettings


@STUDIES.register
@spec
class BlocksStudy(Study):
    """Tell what wider SOI blocks bring to a step of training, and what they cost.

    Each factor also gets a width of its own, as ``soi.widths`` takes them.

    A short training in float64 leaves factors and a gradient. Of every width it is computed how
    much of the progress of whole factors a step makes whose factors are cut into blocks, and a step
    is planned: what it takes, over that share, is what progress takes.

    Attributes
    ----------
    widths : tuple of int
        Values of ``soi.block_size`` that are compared; whole factors are too.
    steps : int
        Steps of training behind the factors.
    """

    reads: ClassVar[tuple[str, ...]] = (
        "seed", "train", "model", "dataset", "optimizer", *HARDWARE, "farm.chips",
        "farm.chip_overrides",
    )  # fmt: skip
    name: Literal["blocks"] = "blocks"
    widths: Annotated[tuple[PositiveInt, ...], MinLen(1)]
    steps: PositiveInt = 20

    def answer(self, settings: "RunSettings", run_dir: Path | None, console: "Console") -> Path:
        """Train for the factors, price every width, and write the page."""
        from repast_dist.studies.block_widths import run

        return run(self, settings, run_dir, console)

    def ignores(self, settings: "RunSettings") -> dict[str, str]:
        """Return settings that do nothing beside the others, with the reason."""
        why = "all of study.widths are tried; valid: study.widths=[...]"
        return dict.fromkeys(("soi.block_size", "soi.widths"), why)
