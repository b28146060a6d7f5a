"""Cost a step on growing numbers of chips."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import MinLen

from repast_dist.ground.numbers import PositiveInt
from repast_dist.ground.spec import spec
from repast_dist.network.workload import NetworkName
from repast_dist.studies.study import HARDWARE, STUDIES, WORKERS, PointStudy, model_of_a_plan

if TYPE_CHECKING:
    from rich.console import Console

    from repast_dist.studies.settings import RunSettings


@STUDIES.register
@spec
class ScalingStudy(PointStudy):
    """Cost a step on growing numbers of chips, without training.

    Attributes
    ----------
    chips : tuple of int
        Numbers of chips.
    modes : tuple of {"strong", "weak"}
        Strong keeps the batch, weak the batch per chip.
    networks : tuple of str
        Networks; empty: the one of the settings' ``workload``.
    batch_size, micro_batch_size : int
        Samples per step of all chips (strong) or of one (weak), and per micro-batch.
    """

    reads: ClassVar[tuple[str, ...]] = (*HARDWARE, *WORKERS, "workload", "model")
    name: Literal["scaling"] = "scaling"
    chips: Annotated[tuple[PositiveInt, ...], MinLen(1)]
    modes: Annotated[tuple[Literal["strong", "weak"], ...], MinLen(1)] = ("strong", "weak")
    networks: tuple[NetworkName, ...] = ()
    batch_size: PositiveInt = 256
    micro_batch_size: PositiveInt = 8

    def answer(self, settings: "RunSettings", run_dir: Path | None, console: "Console") -> Path:
        """Cost all points."""
        from repast_dist.studies.scaling.answer import run

        return run(self, settings, run_dir, console)

    def ignores(self, settings: "RunSettings") -> Mapping[str, str]:
        """Return settings that do nothing beside the others, with the reason."""
        chips = {"farm.chips": "the study counts chips itself; valid: study.chips=[1,2,4]"}
        if self.networks:
            own = "the study has networks of its own; valid: study.networks=[]"
            return chips | {"workload": own, "model": own}
        return {**chips, **model_of_a_plan(settings)}
