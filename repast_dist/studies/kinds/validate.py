"""Put published figures beside ours."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Ge, MinLen

from repast_dist.ground.numbers import PositiveInt
from repast_dist.ground.spec import spec
from repast_dist.hardware.specs import ChipSpec
from repast_dist.planning.gpu import GpuSpec
from repast_dist.studies.kinds.headline import HeadlineStudy
from repast_dist.studies.published import PublishedFigure
from repast_dist.studies.study import HARDWARE, STUDIES, Study

if TYPE_CHECKING:
    from rich.console import Console

    from repast_dist.studies.settings import RunSettings


@spec
class Anchor(PublishedFigure):
    """A published figure, and how far ours may be from it.

    Attributes
    ----------
    kind : str
        What it is of; decides how ours is calculated.
    subject : str
        The network, machine or ratio.
    batch : int
        Samples per step, where the figure depends on it.
    value, unit, source : float, str, str
        The figure, its unit, and where it was published.
    sequence : int or None
        Tokens per sample, of a text network; None: their usual number.
    interval : int
        Of K-FAC on a GPU: steps between updates of factors and inverses.
    fisher_passes : int
        Of K-FAC on a GPU: extra backward passes when factors are updated.
    update_passes : float or None
        Of a GPU's throughput: how often the update reads or writes a number of a parameter; None:
        as momentum does; 0: gradients are only summed.
    fitted : bool
        A setting of ours was chosen to meet the figure; otherwise ours owes it nothing.
    tolerance : float or None
        Largest relative difference that counts as agreement; None: shown, not judged.
    """

    kind: Literal[
        "parameters", "macs", "chip power", "chip area", "GPU throughput", "GPU inversion",
        "GPU K-FAC phase", "GPU K-FAC over first order", "placement", "PipeLayer over GTX 1080",
        "collective",
    ]  # fmt: skip
    subject: str
    batch: PositiveInt = 1
    sequence: PositiveInt | None = None
    interval: PositiveInt = 1
    fisher_passes: Annotated[int, Ge(0)] = 0
    update_passes: Annotated[float, Ge(0)] | None = None
    fitted: bool = False
    tolerance: Annotated[float, Ge(0)] | None = None


@STUDIES.register
@spec
class ValidateStudy(Study):
    """Put every published figure beside ours: published, calculated, difference.

    Attributes
    ----------
    anchors : tuple of Anchor
        The figures.
    isaac : ChipSpec
        The published chip.
    gpus : dict of str to GpuSpec
        GPUs by the names that anchors give them.
    gpu : str
        The one that the means of `headline` compare with.
    headline : HeadlineStudy
        The comparison whose means of one chip are put beside the paper's.
    """

    reads: ClassVar[tuple[str, ...]] = (*HARDWARE, "epochs")
    name: Literal["validate"] = "validate"
    anchors: Annotated[tuple[Anchor, ...], MinLen(1)]
    isaac: ChipSpec
    gpus: dict[str, GpuSpec]
    gpu: str = "v100"
    headline: HeadlineStudy

    def __post_init__(self) -> None:
        if self.gpu not in self.gpus:
            raise ValueError(f"gpu: no '{self.gpu}'; valid: {', '.join(self.gpus) or 'none'}")

    def answer(self, settings: "RunSettings", run_dir: Path | None, console: "Console") -> Path:
        """Check every published figure."""
        from repast_dist.studies.validate import run

        return run(self, settings, run_dir, console)
