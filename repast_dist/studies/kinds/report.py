"""Write the page of a run anew."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from repast_dist.ground.spec import spec
from repast_dist.studies.study import NOT_COPIED, STUDIES, Study

if TYPE_CHECKING:
    from rich.console import Console

    from repast_dist.studies.settings import RunSettings


@STUDIES.register
@spec
class ReportStudy(Study):
    """Write the report of a training run anew, for example after a disk was full.

    Attributes
    ----------
    run : str or None
        The run directory, or the URI of its copy in a store (``storage.uri``).
    standalone : bool
        Have the plotting library in the page (4.5 MB), so that the page can be sent.
    """

    reads: ClassVar[tuple[str, ...]] = ()
    name: Literal["report"] = "report"
    run: str | None = None
    standalone: bool = False

    def ignores(self, settings: "RunSettings") -> Mapping[str, str]:
        """Return settings that have no effect: it makes no run to copy."""
        return {"storage": NOT_COPIED}

    def answer(self, settings: "RunSettings", run_dir: Path | None, console: "Console") -> Path:
        """Write report.html and answer.json into the run directory."""
        from repast_dist.studies.run_page import run

        return run(self, settings, run_dir, console)
