"""Put published figures beside ours."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Ge, MinLen

from repast_dist.ground.numbers import PositiveInt
from repast_dist.ground.spec import spec
from repast_dist.hardware.specs import ChipSpec
from repast_dist.planning.baselines import GpuSpec
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
    tolerance : float or None
        Largest relative difference that counts as agreement; None: shown, not judged.
    """

    kind: Literal[
        "parameters", "macs", "chip power", "chip area", "GPU throughput", "placement",
        "PipeLayer over GTX 1080", "collective",
    ]  # fmt: skip
    subject: str
    batch: PositiveInt = 1
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
    v100, a100, gtx1080 : GpuSpec
        GPUs with published throughputs.
    headline : HeadlineStudy
        The comparison whose means of one chip are put beside the paper's.
    """

    reads: ClassVar[tuple[str, ...]] = (*HARDWARE, "epochs")
    name: Literal["validate"] = "validate"
    anchors: Annotated[tuple[Anchor, ...], MinLen(1)]
    isaac: ChipSpec
    v100: GpuSpec
    a100: GpuSpec
    gtx1080: GpuSpec
    headline: HeadlineStudy

    def answer(self, settings: "RunSettings", run_dir: Path | None, console: "Console") -> Path:
        """Check every published figure."""
        from repast_dist.studies.validate import run

        return run(self, settings, run_dir, console)
