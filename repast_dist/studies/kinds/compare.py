"""Put runs side by side."""

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from repast_dist.ground.spec import spec
from repast_dist.studies.study import STUDIES, Study

if TYPE_CHECKING:
    from rich.console import Console

    from repast_dist.studies.settings import RunSettings


@STUDIES.register
@spec
class CompareStudy(Study):
    """Put runs of any study side by side: settings that differ, results.

    Attributes
    ----------
    runs : tuple of str
        Run directories, or folders of them; or URIs of stored runs, or of prefixes of them.
    """

    reads: ClassVar[tuple[str, ...]] = ()
    name: Literal["compare"] = "compare"
    runs: tuple[str, ...] = ()

    def answer(self, settings: "RunSettings", run_dir: Path | None, console: "Console") -> Path:
        """Compare the runs, print the table and write the page."""
        from repast_dist.studies.compare import run

        return run(self, settings, run_dir, console)
