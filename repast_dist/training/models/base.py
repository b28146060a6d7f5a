"""The settings of a network that is trained, which say how it is made."""

import abc
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from repast_dist.ground.registry import Registry
from repast_dist.training.datasets import Dataset
from repast_dist.training.network import Network


class ModelSource(abc.ABC):
    """Settings of a network.

    A member adds a tag field ``source: Literal["mine"] = "mine"`` and a field `name`, which reports
    show, and makes the network from its own settings.
    """

    needs_data: ClassVar[bool] = False
    """Whether its shapes follow from the samples of ``dataset``."""

    # Members declare the field; a property at run time would stand in its way.
    if TYPE_CHECKING:

        @property
        def name(self) -> str: ...

    @property
    def code(self) -> tuple[str, ...]:
        """What its settings name of the user's own code, ``module:function`` each."""
        return ()

    @property
    def files(self) -> tuple[Path, ...]:
        """Files that decide what the network is: a run goes on with the same ones only."""
        return ()

    @property
    @abc.abstractmethod
    def classifies(self) -> bool:
        """Whether its loss is that of classes, so that accuracy means something."""

    @abc.abstractmethod
    def build(self, data: Callable[[], Dataset], seed: int, samples: int) -> Network:
        """Make the network.

        Parameters
        ----------
        data : callable
            Returns the data set, for networks whose shapes follow from its samples.
        seed : int
            The run's seed, of which first weights are drawn.
        samples : int
            Samples of a micro-batch.

        Raises
        ------
        SettingsError
            It cannot be made; the message names the setting.
        """


MODELS: Registry[ModelSource] = Registry(
    "model",
    ModelSource,  # type: ignore[type-abstract]
    tag="source",
    home="repast_dist.training.models",
    default="layers",
    implied={"factory": "factory", "path": "onnx"},
)
