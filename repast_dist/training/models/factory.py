"""``factory``: a PyTorch module that a function of the user's own returns."""

import importlib
from collections.abc import Callable
from dataclasses import field
from typing import ClassVar, Literal

from repast_dist.ground.errors import SettingsError
from repast_dist.ground.spec import spec
from repast_dist.training.datasets import Dataset
from repast_dist.training.models.base import MODELS, ModelSource
from repast_dist.training.network import Network

Argument = str | int | float | bool | None
LOSSES = ("cross_entropy", "pixel_cross_entropy", "squared_error", "regression")
"""Losses that have a name; their formulas are those of the NumPy engine."""

_ROOM = "repast_dist.torch"


@MODELS.register
@spec
class FactoryModel(ModelSource):
    """A PyTorch module that a function of one's own returns; ``model.factory=my_lab:make_model``.

    Its products run on the arrays as `docs/pytorch.md` says, all else in float64. Its first weights
    are those that the function gives it; what it draws depends on the seed.

    Attributes
    ----------
    source : {"factory"}
        A function makes it.
    factory : str
        The function or class, ``module:function`` or ``folder/my_lab.py:function``. The module is
        called with (N, ...) inputs.
    arguments : dict
        Arguments of the function by name.
    classes : str or None
        Further classes of modules that run on the arrays, ``module:name`` of a mapping from
        PyTorch's class to a `repast_dist.torch.Converted`.
    name : str
        Shown in reports; empty: the factory.
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

    source: Literal["factory"] = "factory"
    factory: str
    arguments: dict[str, Argument] = field(default_factory=dict)
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
            object.__setattr__(self, "name", self.factory)

    def __hash__(self) -> int:
        return hash(repr(self))

    @property
    def code(self) -> tuple[str, ...]:
        """The functions and the mapping that it names."""
        names = (self.factory, self.loss, self.classes or "")
        return tuple(name for name in names if ":" in name)

    @property
    def classifies(self) -> bool:
        """Whether its loss is that of classes."""
        return "cross_entropy" in (self.loss, self.likelihood)

    def build(self, data: Callable[[], Dataset], seed: int, samples: int) -> Network:
        """Call the function, and see what the module computes of the first samples."""
        try:
            # By its name: PyTorch is imported only where it is asked for, and above this room.
            room = importlib.import_module(f"{_ROOM}.farm")
        except ModuleNotFoundError as error:
            if error.name not in ("torch", "safetensors"):
                raise
            raise SettingsError(
                f"model.factory: {error.name} is not installed; valid: "
                "pip install 'repast-dist[torch]', or a model of layers such as model=digits_cnn"
            ) from None
        made: Network = room.module_network(self, data(), seed, samples)
        return made
