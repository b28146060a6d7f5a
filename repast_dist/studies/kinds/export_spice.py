"""Write a matrix as circuits for ngspice."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, MinLen

from repast_dist.ground.numbers import PositiveInt
from repast_dist.ground.spec import spec
from repast_dist.studies.study import STUDIES, Study

if TYPE_CHECKING:
    from rich.console import Console

    from repast_dist.studies.settings import RunSettings


@STUDIES.register
@spec
class ExportSpiceStudy(Study):
    """Write a matrix as circuits of programmed arrays for ngspice, with calculated values.

    Attributes
    ----------
    circuits : tuple of {"vmm", "inv", "fused"}
        Arrays that multiply by the matrix, the one that inverts it, and the two that invert it as a
        product of rows without forming the product.
    matrix : {"random", "factor", "file"}
        A random symmetric positive definite one, a block of a damped K-FAC factor, or a file.
    size, condition : int, float
        Rows, and condition number of a random matrix; a factor's block is cut from its middle.
    path : str or None
        Of a ``.npy`` or ``.csv`` file.
    layer, factor : str or None, {"A", "G"}
        Whose factor; None: the first layer's.
    steps : int
        Steps of training, in float64, behind a factor.
    full_scale_v : float
        Largest voltage on rows, and of amplifiers.
    transient : bool
        Beside the circuits that invert, write how they settle: inputs that step up, and the outputs
        once they have settled to half a step of ``chip.inv.adc_bits``. Amplifiers need a
        ``device.opamp.gbw_hz``.
    simulate : bool
        Run ngspice where it is installed and show what it found.
    """

    reads: ClassVar[tuple[str, ...]] = (
        "chip",
        "device",
        "seed",
        "model",
        "dataset",
        "optimizer",
        "train",
    )
    name: Literal["export-spice"] = "export-spice"
    circuits: Annotated[tuple[Literal["vmm", "inv", "fused"], ...], MinLen(1)] = ("vmm", "inv")
    matrix: Literal["random", "factor", "file"] = "random"
    size: PositiveInt = 16
    condition: Annotated[float, Ge(1)] = 100.0
    path: str | None = None
    layer: str | None = None
    factor: Literal["A", "G"] = "A"
    steps: PositiveInt = 10
    full_scale_v: Annotated[float, Gt(0)] = 0.2
    transient: bool = False
    simulate: bool = True

    def __post_init__(self) -> None:
        if (self.matrix == "file") != (self.path is not None):
            raise ValueError("matrix=file needs a path, and only it takes one")

    def answer(self, settings: "RunSettings", run_dir: Path | None, console: "Console") -> Path:
        """Program the matrix, write its circuits, and run them where ngspice is installed."""
        from repast_dist.studies.export_spice import run

        return run(self, settings, run_dir, console)

    def ignores(self, settings: "RunSettings") -> Mapping[str, str]:
        """Return settings that do nothing beside the others, with the reason."""
        if self.matrix == "factor":
            return {}
        reason = f"study.matrix={self.matrix} needs no training; valid: study.matrix=factor"
        return dict.fromkeys(("model", "dataset", "optimizer", "train"), reason)
