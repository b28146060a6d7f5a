"""Which network is costed."""

import functools
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge
from pydantic import AfterValidator

from repast_dist.ground.errors import DataError, SettingsError
from repast_dist.ground.spec import spec
from repast_dist.network.losses import Loss
from repast_dist.network.shapes import Workload
from repast_dist.network.tables import NETWORKS, network_table

ONNX, MODEL = "onnx", "model"

_SUFFIX = ".onnx"


def _checked(name: str) -> str:
    if name.endswith(_SUFFIX):
        return name
    try:
        NETWORKS.get(name)
    except SettingsError as error:
        raise ValueError(f"{error}, or an ONNX file: NAME{_SUFFIX}") from None
    return name


NetworkName = Annotated[str, AfterValidator(_checked)]
"""The name of a network table, checked when settings are loaded, or of a file, ``net.onnx``."""


def named_workload(name: str) -> Workload:
    """Return the layers of a network table or file, as a study's list of networks names it.

    Raises
    ------
    SettingsError, DataError
        As `build_workload`.
    """
    if not name.endswith(_SUFFIX):
        return build_workload(WorkloadSpec(name=name))
    path = Path(name)
    # Studies ask for a network at every point.
    return _read_file(name, path.stat().st_mtime_ns if path.is_file() else 0)


@functools.lru_cache(maxsize=32)
def _read_file(name: str, changed_ns: int) -> Workload:
    return build_workload(WorkloadSpec(name=ONNX, path=name))


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
        Tokens per sample, for tables of text networks; None: their usual length. Of a file, what
        its open dimensions beside the batch are taken as; None: 1.
    pretraining : bool
        The heads that the network is pre-trained with, for BERT, are part of it.
    batch_axis : int
        Axis of a file's first input that counts samples.
    unknown : {"refuse", "allow"}
        What becomes of a file's operators that hold weights and are not known: the file is refused,
        or they are priced as one digital operation per output element.
    loss : str or None
        What a file's first output is trained for, as ``model.loss``: files do not say. None: its
        loss is not priced.
    """

    name: str
    path: str = ""
    sequence: Annotated[int, Ge(1)] | None = None
    pretraining: bool = False
    batch_axis: Annotated[int, Ge(0)] = 0
    unknown: Literal["refuse", "allow"] = "refuse"
    loss: Loss | None = None

    def __post_init__(self) -> None:
        for field, default in (("batch_axis", 0), ("unknown", "refuse"), ("loss", None)):
            given = getattr(self, field)
            if self.name != ONNX and given != default:
                raise ValueError(f"{field}={given}: only a file has it; valid: name=onnx")
        if self.pretraining and self.name in (ONNX, MODEL):
            raise ValueError(
                f"pretraining=True: {self.name} has its own head; valid with name=bert_base, "
                "bert_large"
            )
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
        return network_table(spec.name, spec.sequence, spec.pretraining)
    path = Path(spec.path)
    if not path.is_file():
        raise SettingsError(f"workload.path: no file {path}")
    try:
        from repast_dist.network.onnx_file import workload_from_onnx
    except ModuleNotFoundError as error:
        raise SettingsError(
            "workload=onnx needs the onnx package: pip install 'repast-dist[onnx]'"
        ) from error
    workload = workload_from_onnx(
        path,
        batch_axis=spec.batch_axis,
        sequence=spec.sequence,
        allow_unknown=spec.unknown == "allow",
        loss=spec.loss,
    )
    if not workload.macs_per_sample:
        raise DataError(f"{path}: no layer with weights found")
    return workload
