"""Put published figures beside ours."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Ge, MinLen

from repast_dist.ground.numbers import PositiveInt
from repast_dist.ground.spec import spec
from repast_dist.hardware.components import Quantity
from repast_dist.hardware.specs import ChipSpec
from repast_dist.planning.gpu import GpuSpec, plain_value
from repast_dist.studies.kinds.headline import HeadlineStudy
from repast_dist.studies.published import PublishedFigure
from repast_dist.studies.study import HARDWARE, STUDIES, Study

if TYPE_CHECKING:
    from rich.console import Console

    from repast_dist.studies.settings import RunSettings


@spec
class TrainingLoop:
    """What the training loop of a measurement adds to the steps of its GPU.

    Attributes
    ----------
    host_s : Quantity
        Time per step for which the GPU waits for the host: a loop that reads a result back in every
        step empties the queue of kernels.
    loading_s : Quantity
        Time per sample of loading data, beside the GPU.
    """

    host_s: Quantity
    loading_s: Quantity

    def step_s(self, gpu_s: float, samples: int) -> float:
        """Return how long a step takes that keeps the GPU busy for so long."""
        return max(gpu_s, samples * plain_value(self.loading_s)) + plain_value(self.host_s)


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
    loop : str or None
        Of K-FAC over first order: one of `ValidateStudy.loops`; None: the GPU's own time.
    fitted : bool
        A setting of ours was chosen to meet the figure; otherwise ours owes it nothing.
    tolerance : float or None
        Largest relative difference that counts as agreement; None: shown, not judged.
    """

    kind: Literal[
        "parameters", "macs", "chip power", "chip area", "GPU throughput", "GPU inversion",
        "GPU K-FAC phase", "GPU K-FAC over first order", "placement", "PipeLayer over GTX 1080",
        "collective", "epochs saved",
    ]  # fmt: skip
    subject: str
    batch: PositiveInt = 1
    sequence: PositiveInt | None = None
    interval: PositiveInt = 1
    fisher_passes: Annotated[int, Ge(0)] = 0
    update_passes: Annotated[float, Ge(0)] | None = None
    loop: str | None = None
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
    loops : dict of str to TrainingLoop
        Training loops that were timed, by the names that anchors give them.
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
    loops: dict[str, TrainingLoop] = dataclasses.field(default_factory=dict)
    gpu: str = "v100"
    headline: HeadlineStudy

    def __post_init__(self) -> None:
        if self.gpu not in self.gpus:
            raise ValueError(f"gpu: no '{self.gpu}'; valid: {', '.join(self.gpus) or 'none'}")
        for number, anchor in enumerate(self.anchors):
            if anchor.loop is not None and anchor.loop not in self.loops:
                raise ValueError(
                    f"anchors[{number}].loop: no '{anchor.loop}'; valid: "
                    f"{', '.join(self.loops) or 'none'}"
                )

    def answer(self, settings: "RunSettings", run_dir: Path | None, console: "Console") -> Path:
        """Check every published figure."""
        from repast_dist.studies.validate import run

        return run(self, settings, run_dir, console)
