"""Train a network on the farm."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from repast_dist.ground.spec import spec
from repast_dist.studies.study import STUDIES, TRAINING, Study, unread_by_scheme

if TYPE_CHECKING:
    from rich.console import Console

    from repast_dist.studies.settings import RunSettings


@STUDIES.register
@spec
class TrainStudy(Study):
    """Train one network on the farm: accuracy and cost in one run."""

    reads: ClassVar[tuple[str, ...]] = (*TRAINING, "farm")
    name: Literal["train"] = "train"

    def answer(self, settings: "RunSettings", run_dir: Path | None, console: "Console") -> Path:
        """Train into a new run directory, or go on from the newest good checkpoint."""
        from repast_dist.studies.train import run

        return run(self, settings, run_dir, console)

    def ignores(self, settings: "RunSettings") -> Mapping[str, str]:
        """Return settings that do nothing beside the others, with the reason."""
        return {
            "workload": "the settings' model is trained; valid: model=..., model.path=net.onnx "
            "for that of a file, study=plan",
            "farm.study_workers": "it spreads points of studies; valid: farm.chips_per_worker=...",
            **unread_by_scheme(settings),
        }

    def can_resume(self, run_dir: Path) -> bool:
        """Return whether a stopped run left something to go on with."""
        return True
