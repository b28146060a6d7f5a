"""Put RePAST beside a GPU and PipeLayer."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import MinLen

from repast_dist.ground.numbers import PositiveInt
from repast_dist.ground.spec import spec
from repast_dist.hardware.specs import ChipSpec
from repast_dist.network.workload import NetworkName
from repast_dist.planning.baselines import PipeLayerSpec
from repast_dist.planning.gpu import GpuScheduleSpec
from repast_dist.studies.published import PublishedRatios
from repast_dist.studies.study import HARDWARE, STUDIES, Study

if TYPE_CHECKING:
    from rich.console import Console

    from repast_dist.studies.settings import RunSettings


@STUDIES.register
@spec
class HeadlineStudy(Study):
    """Compare RePAST with a GPU and PipeLayer on published networks, at several numbers of chips.

    Attributes
    ----------
    networks : tuple of str
        Networks to compare on.
    batch_size, micro_batch_size : int
        Samples per step of one chip and of the GPU, and per micro-batch.
    sensitive : tuple of str
        Networks over which every assumed constant and count is halved and doubled; none: the page
        leaves it out.
    gpu_schedule : GpuScheduleSpec
        What the GPU inverts, and how often.
    gpu_intervals : tuple of int
        Steps between the GPU's inversions that a table shows beside.
    bridge : dict
        Changes of settings, by what they are called, that the page adds one after the other to
        show what the paper's ratios may consist of.
    pipelayer : PipeLayerSpec
        The first-order accelerator by its published peaks.
    pipelayer_chip : ChipSpec
        A chip of its kind, to be costed from the same parts as RePAST's.
    paper : PublishedRatios
        What is published for the chip.
    """

    reads: ClassVar[tuple[str, ...]] = (*HARDWARE, "baseline", "epochs")
    name: Literal["headline"] = "headline"
    networks: Annotated[tuple[NetworkName, ...], MinLen(1)]
    batch_size: PositiveInt = 256
    micro_batch_size: PositiveInt = 8
    sensitive: tuple[NetworkName, ...] = ()
    gpu_schedule: GpuScheduleSpec = GpuScheduleSpec()
    gpu_intervals: tuple[PositiveInt, ...] = (1, 10, 100)
    bridge: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    pipelayer: PipeLayerSpec
    pipelayer_chip: ChipSpec
    paper: PublishedRatios

    def answer(self, settings: "RunSettings", run_dir: Path | None, console: "Console") -> Path:
        """Compare the chip of the settings with a GPU and PipeLayer."""
        from repast_dist.studies.headline.answer import run

        return run(self, settings, run_dir, console)

    def ignores(self, settings: "RunSettings") -> Mapping[str, str]:
        """Return settings that do nothing beside the others, with the reason."""
        networks = "the study has networks of its own; valid: study.networks=[...]"
        return {"workload": networks, "model": networks}
