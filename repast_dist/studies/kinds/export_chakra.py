"""Write a step as Chakra traces."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Ge

from repast_dist.ground.numbers import PositiveInt
from repast_dist.ground.spec import spec
from repast_dist.studies.study import HARDWARE, STUDIES, Study, model_of_a_plan

if TYPE_CHECKING:
    from rich.console import Console

    from repast_dist.studies.settings import RunSettings


@STUDIES.register
@spec
class ExportChakraStudy(Study):
    """Write the plan of a step as Chakra execution traces, one per chip, for ASTRA-sim.

    Attributes
    ----------
    chips, batch_size, micro_batch_size : int
        The step that is planned.
    steps : int
        Steps in a trace.
    ticks_per_s : float
        Chakra's durations are whole numbers, by custom microseconds; more ticks keep shorter
        operations apart.
    """

    reads: ClassVar[tuple[str, ...]] = (*HARDWARE, "workload", "model")
    name: Literal["export-chakra"] = "export-chakra"
    chips: PositiveInt = 16
    batch_size: PositiveInt = 256
    micro_batch_size: PositiveInt = 8
    steps: PositiveInt = 1
    ticks_per_s: Annotated[float, Ge(1)] = 1e6

    def answer(self, settings: "RunSettings", run_dir: Path | None, console: "Console") -> Path:
        """Plan a step of the settings' workload and write traces and plan."""
        from repast_dist.studies.export_chakra import run

        return run(self, settings, run_dir, console)

    def ignores(self, settings: "RunSettings") -> Mapping[str, str]:
        """Return settings that do nothing beside the others, with the reason."""
        chips = {"farm.chips": "valid: study.chips=..."}
        return {**chips, **model_of_a_plan(settings)}
