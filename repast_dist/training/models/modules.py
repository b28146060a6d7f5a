"""What settings of all PyTorch modules have in common."""

import abc
import importlib
from collections.abc import Callable
from typing import Any, ClassVar, Literal

from repast_dist.ground.errors import SettingsError
from repast_dist.ground.spec import spec
from repast_dist.training.datasets import Dataset
from repast_dist.training.models.base import ModelSource
from repast_dist.training.network import Network

LOSSES = ("cross_entropy", "pixel_cross_entropy", "squared_error", "regression")
"""Losses that have a name; their formulas are those of the NumPy engine."""

ROOM = "repast_dist.torch"
"""PyTorch is imported by this name: only where it is asked for, and above this room."""

_EXTRAS = {"torch": "torch", "safetensors": "torch", "onnx": "onnx"}
"""Package -> the extra that installs it."""


@spec
class ModuleModel(ModelSource):
    """A PyTorch module that is trained.

    Attributes
    ----------
    classes : str or None
        Further classes of modules that run on the arrays, ``module:name`` of a mapping from
        PyTorch's class to a `repast_dist.torch.Converted`.
    name : str
        Shown in reports; empty: where it comes from.
    loss : str
        ``cross_entropy`` (classes or tokens), ``pixel_cross_entropy`` or ``squared_error`` (of the
        inputs), ``regression``; or a function of one's own, ``module:function``, which returns the
        mean loss of a micro-batch, given outputs and labels.
    likelihood : {"cross_entropy", "binary_cross_entropy", "squared_error"} or None
        What a loss of one's own is the negative log-likelihood of, a mean over its terms, for
        ``optimizer.fisher=sampled`` and ``exact``.
    device : {"cpu", "cuda"}
        Where workers keep the module and compute what does not run on the arrays, and products
        whose arithmetic is ``float64``. A GPU rounds otherwise than the processor.
    """

    needs_data: ClassVar[bool] = True

    classes: str | None = None
    name: str = ""
    loss: str = "cross_entropy"
    likelihood: Literal["cross_entropy", "binary_cross_entropy", "squared_error"] | None = None
    device: Literal["cpu", "cuda"] = "cpu"

    def __post_init__(self) -> None:
        if self.loss not in LOSSES and ":" not in self.loss:
            raise ValueError(f"loss: '{self.loss}'; valid: {', '.join(LOSSES)}, or module:function")
        if self.likelihood is not None and self.loss in LOSSES:
            raise ValueError(
                f"likelihood: that of {self.loss} is known; valid: null, or a loss of one's own"
            )
        if not self.name:
            object.__setattr__(self, "name", self.origin[1])

    def __hash__(self) -> int:
        return hash(repr(self))

    @property
    @abc.abstractmethod
    def origin(self) -> tuple[str, str]:
        """The setting that says where the module comes from, and its value."""

    @property
    def where(self) -> str:
        """The same as messages begin with it."""
        return ": ".join(self.origin)

    @property
    def code(self) -> tuple[str, ...]:
        """The functions and the mapping that it names."""
        return tuple(name for name in (self.loss, self.classes or "") if ":" in name)

    @property
    def classifies(self) -> bool:
        """Whether its loss is that of classes."""
        return "cross_entropy" in (self.loss, self.likelihood)

    @abc.abstractmethod
    def make(self) -> Any:
        """Return the module, a `torch.nn.Module`."""

    def build(self, data: Callable[[], Dataset], seed: int, samples: int) -> Network:
        """Make the module, and see what it computes of the first samples."""
        try:
            room = importlib.import_module(f"{ROOM}.farm")
            made: Network = room.module_network(self, data(), seed, samples)
        except ModuleNotFoundError as error:
            if error.name not in _EXTRAS:
                raise
            raise SettingsError(
                f"{self.origin[0]}: {error.name} is not installed; valid: "
                f"pip install 'repast-dist[{_EXTRAS[error.name]}]', or a model of layers such as "
                "model=digits_cnn"
            ) from None
        return made
