"""Show what a chip is made of."""

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from repast_dist.ground.spec import spec
from repast_dist.studies.study import STUDIES, Study

if TYPE_CHECKING:
    from rich.console import Console

    from repast_dist.studies.settings import RunSettings


@STUDIES.register
@spec
class ExplainStudy(Study):
    """Print a chip's parts: count, area, power, share and source of each."""

    reads: ClassVar[tuple[str, ...]] = ("chip", "components")
    name: Literal["explain"] = "explain"

    def answer(self, settings: "RunSettings", run_dir: Path | None, console: "Console") -> Path:
        """Explain the chip of the settings."""
        from repast_dist.studies.explain import run

        return run(self, settings, run_dir, console)
