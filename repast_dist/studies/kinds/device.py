"""Draw a device's cells beside what was measured of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Ge

from repast_dist.ground.spec import spec
from repast_dist.studies.study import STUDIES, Study

if TYPE_CHECKING:
    from rich.console import Console

    from repast_dist.studies.settings import RunSettings


@STUDIES.register
@spec
class DeviceStudy(Study):
    """Program cells of the device to each of many conductances, and compare with its table.

    Attributes
    ----------
    cells : int
        Cells that are drawn for each target and time.
    targets : int
        Targets over the range, beside those that were measured.
    """

    reads: ClassVar[tuple[str, ...]] = ("device", "seed")
    name: Literal["device"] = "device"
    cells: Annotated[int, Ge(100)] = 20_000
    targets: Annotated[int, Ge(2)] = 33

    def answer(self, settings: "RunSettings", run_dir: Path | None, console: "Console") -> Path:
        """Draw cells of the settings' device."""
        from repast_dist.studies.device import run

        return run(self, settings, run_dir, console)
