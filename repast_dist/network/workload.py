"""Which network is costed."""

from pathlib import Path
from typing import Annotated

from annotated_types import Ge

from repast_dist.ground.errors import DataError, SettingsError
from repast_dist.ground.spec import spec
from repast_dist.network.shapes import Workload
from repast_dist.network.tables import NETWORKS, network_table

ONNX, MODEL = "onnx", "model"

NetworkName = Annotated[str, NETWORKS.name()]
"""The name of a network table, checked when settings are loaded."""


@spec
class WorkloadSpec:
    """A network: one of the tables, or a file.

    Attributes
    ----------
    name : str
        A network table, ``onnx`` for a file, or ``model``: the network the settings train.
    path : str
        The ONNX file, for ``onnx``.
    sequence : int or None
        Tokens per sample, for tables of text networks; None: their usual length.
    """

    name: str
    path: str = ""
    sequence: Annotated[int, Ge(1)] | None = None

    def __post_init__(self) -> None:
        valid = [*NETWORKS.names(), ONNX, MODEL]
        if self.name not in valid:
            raise ValueError(f"no network '{self.name}'; valid: {', '.join(valid)}")
        if (self.name == ONNX) != bool(self.path):
            raise ValueError("name=onnx needs path=FILE.onnx, and only onnx takes a path")


def build_workload(spec: WorkloadSpec) -> Workload:
    """Return the layers of a network.

    Raises
    ------
    SettingsError
        The `onnx` package is not installed, the file is missing, a sequence is given for a
        network that takes no text, or the network is that of the model, which its own module
        describes.
    DataError
        The file cannot be read as a network.
    """
    if spec.name == MODEL:
        raise SettingsError("workload.name: 'model' is described by the model, not by a table")
    if spec.name != ONNX:
        return network_table(spec.name, spec.sequence)
    path = Path(spec.path)
    if not path.is_file():
        raise SettingsError(f"workload.path: no file {path}")
    try:
        from repast_dist.network.onnx_file import workload_from_onnx
    except ModuleNotFoundError as error:
        raise SettingsError(
            "workload=onnx needs the onnx package: pip install 'repast-dist[onnx]'"
        ) from error
    workload = workload_from_onnx(path)
    if not workload.macs_per_sample:
        raise DataError(f"{path}: no layer with weights found")
    return workload
