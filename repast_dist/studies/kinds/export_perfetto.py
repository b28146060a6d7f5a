"""Write a run's trace for Perfetto."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Ge

from repast_dist.ground.spec import spec
from repast_dist.studies.study import NOT_COPIED, STUDIES, Study

if TYPE_CHECKING:
    from rich.console import Console

    from repast_dist.studies.settings import RunSettings


@STUDIES.register
@spec
class ExportPerfettoStudy(Study):
    """Write a run's trace for Perfetto or Chrome: chips as processes.

    Attributes
    ----------
    run : str or None
        The run directory, or the URI of its copy in a store (``storage.uri``).
    rows : int
        At most so many rows: those of the first steps, as many as go in whole.
    """

    reads: ClassVar[tuple[str, ...]] = ()
    name: Literal["export-perfetto"] = "export-perfetto"
    run: str | None = None
    rows: Annotated[int, Ge(1)] = 200_000

    def ignores(self, settings: "RunSettings") -> Mapping[str, str]:
        """Return settings that have no effect: it makes no run to copy."""
        return {"storage": NOT_COPIED}

    def answer(self, settings: "RunSettings", run_dir: Path | None, console: "Console") -> Path:
        """Write ``trace.perfetto.json.gz`` into the run directory."""
        from repast_dist.studies.export_perfetto import run

        return run(self, settings, run_dir, console)
