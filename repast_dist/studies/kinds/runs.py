"""List all runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from repast_dist.ground.spec import spec
from repast_dist.studies.study import NO_RUN, NOT_COPIED, STUDIES, Study

if TYPE_CHECKING:
    from rich.console import Console

    from repast_dist.studies.settings import RunSettings


@STUDIES.register
@spec
class RunsStudy(Study):
    """List all runs below ``run_root`` on a page: what was asked, what came out, what differs.

    ``repast-dist open [FOLDER]`` is short for it. The folder may be a prefix of a store.

    Attributes
    ----------
    browser : bool
        Open the page in a browser.
    most_curves : int
        How many of the newest training runs have their losses in one figure.
    """

    reads: ClassVar[tuple[str, ...]] = ()
    name: Literal["runs"] = "runs"
    browser: bool = False
    most_curves: int = 20

    def ignores(self, settings: "RunSettings") -> Mapping[str, str]:
        """Return settings that have no effect: it makes no run to export."""
        return {"export": NO_RUN, "storage": NOT_COPIED}

    def answer(self, settings: "RunSettings", run_dir: Path | None, console: "Console") -> Path:
        """Write ``index.html`` into the folder of all runs."""
        from repast_dist.studies.runs import run

        return run(self, settings, run_dir, console)
