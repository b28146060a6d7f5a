"""Show which chip does what in a step."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from repast_dist.ground.spec import spec
from repast_dist.studies.study import HARDWARE, STUDIES, Study, model_of_a_plan, unread_by_scheme

if TYPE_CHECKING:
    from rich.console import Console

    from repast_dist.studies.settings import RunSettings


@STUDIES.register
@spec
class PlanStudy(Study):
    """Print which chip does what in a step and how well SOI work is balanced; nothing is run."""

    reads: ClassVar[tuple[str, ...]] = (
        *HARDWARE, "workload", "model", "optimizer", "train.batch_size", "train.micro_batch_size",
        "farm.chips", "farm.chip_overrides",
    )  # fmt: skip
    name: Literal["plan"] = "plan"

    def answer(self, settings: "RunSettings", run_dir: Path | None, console: "Console") -> Path:
        """Plan a step of the settings."""
        from repast_dist.studies.plan import run

        return run(self, settings, run_dir, console)

    def ignores(self, settings: "RunSettings") -> Mapping[str, str]:
        """Return settings that do nothing beside the others, with the reason."""
        return {**model_of_a_plan(settings), **unread_by_scheme(settings)}
