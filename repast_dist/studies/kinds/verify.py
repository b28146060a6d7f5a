"""Check a run directory."""

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
class VerifyStudy(Study):
    """Check a run directory for missing, duplicate and damaged rows.

    Attributes
    ----------
    run : str or None
        The run directory, or the URI of its copy in a store (``storage.uri``).
    """

    reads: ClassVar[tuple[str, ...]] = ()
    name: Literal["verify"] = "verify"
    run: str | None = None

    def ignores(self, settings: "RunSettings") -> Mapping[str, str]:
        """Return settings that have no effect: it makes no run to export."""
        return {"export": NO_RUN, "storage": NOT_COPIED}

    def answer(self, settings: "RunSettings", run_dir: Path | None, console: "Console") -> Path:
        """Check the run and print what is wrong with it."""
        from repast_dist.studies.verify import run

        return run(self, settings, run_dir, console)
