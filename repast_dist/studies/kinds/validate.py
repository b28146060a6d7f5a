"""Put published figures beside ours."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Ge, MinLen

from repast_dist.ground.spec import spec
from repast_dist.hardware.specs import ChipSpec
from repast_dist.mapping.baselines import GpuSpec, PipeLayerSpec
from repast_dist.studies.study import HARDWARE, STUDIES, Study

if TYPE_CHECKING:
    from rich.console import Console

    from repast_dist.studies.settings import RunSettings


@spec
class Anchor:
    """A published figure.

    Attributes
    ----------
    kind : str
        What it is of; decides how ours is calculated.
    subject : str
        The network, machine or ratio.
    published : float
        The figure.
    unit : str
        Its unit.
    tolerance : float or None
        Largest relative difference that counts as agreement; None: shown, not judged.
    source : str
        Where it was published.
    """

    kind: Literal[
        "parameters", "macs", "chip power", "chip area", "GPU throughput", "placement",
        "PipeLayer over GTX 1080", "paper", "collective",
    ]  # fmt: skip
    subject: str
    published: float
    unit: str = "1"
    tolerance: Annotated[float, Ge(0)] | None = None
    source: str


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
    pipelayer : PipeLayerSpec
        The first-order accelerator by its published peaks.
    pipelayer_chip : ChipSpec
        A chip of its kind, to be costed from the same parts as RePAST's.
    """

    reads: ClassVar[tuple[str, ...]] = (*HARDWARE, "epochs")
    name: Literal["validate"] = "validate"
    anchors: Annotated[tuple[Anchor, ...], MinLen(1)]
    isaac: ChipSpec
    v100: GpuSpec
    a100: GpuSpec
    gtx1080: GpuSpec
    pipelayer: PipeLayerSpec
    pipelayer_chip: ChipSpec

    def answer(self, settings: "RunSettings", run_dir: Path | None, console: "Console") -> Path:
        """Check every published figure."""
        from repast_dist.studies.validate import run

        return run(self, settings, run_dir, console)
