"""``onnx``: the network of an ONNX file, with its weights."""

import importlib
from pathlib import Path
from typing import Any, Literal

from repast_dist.ground.errors import DataError
from repast_dist.ground.spec import spec
from repast_dist.training.models.base import MODELS
from repast_dist.training.models.modules import ROOM, ModuleModel


@MODELS.register
@spec
class OnnxModel(ModuleModel):
    """The network of an ONNX file as a PyTorch module; ``model.path=net.onnx``.

    Its layers become those of PyTorch, whose products run on the arrays; `docs/onnx.md` says how to
    export, and which operators can be trained.

    Attributes
    ----------
    source : {"onnx"}
        A file holds it.
    path : str
        The file, and beside it the files that hold its weights, if it does not hold them itself.
    weights : {"file", "fresh"}
        Where the first weights come from: the file, or PyTorch's way to begin, by the seed. What
        belongs to no layer, such as tokens, positions and scales, begins as in the file.
    frozen : tuple of str
        Parameters that are not trained, by name or pattern: ``[conv1.*]``.
    """

    source: Literal["onnx"] = "onnx"
    path: str
    weights: Literal["file", "fresh"] = "file"
    frozen: tuple[str, ...] = ()

    def __hash__(self) -> int:
        return hash(repr(self))

    @property
    def origin(self) -> tuple[str, str]:
        """The file."""
        return "model.path", self.path

    @property
    def files(self) -> tuple[Path, ...]:
        """The file, and the one in which PyTorch puts its weights."""
        beside = Path(f"{self.path}.data")
        return (Path(self.path), *([beside] if beside.is_file() else []))

    def make(self) -> Any:
        """Return the file's network."""
        if not Path(self.path).is_file():
            raise DataError(f"model.path: {self.path} is not a file; valid: an ONNX file")
        room = importlib.import_module(f"{ROOM}.onnx")
        return room.from_onnx(self.path, weights=self.weights, frozen=self.frozen)
