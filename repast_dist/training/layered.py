"""Networks of the NumPy engine: layers of `network/`, driven by `training.step`."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from repast_dist.network.model import Model, init_weights
from repast_dist.network.node import Parameter
from repast_dist.network.shapes import Workload
from repast_dist.training.datasets import Dataset
from repast_dist.training.engines import Engine
from repast_dist.training.network import (
    Values,
)
from repast_dist.training.optimizers import Fisher
from repast_dist.training.second_order import under
from repast_dist.training.step import (
    LoadedModel,
    load_weights,
)
from repast_dist.training.task import check_task, fisher_passes

_WEIGHTS = "weights"


@dataclasses.dataclass(frozen=True)
class LayeredNetwork:
    """A network of the NumPy engine; see `repast_dist.training.network.Network`.

    Attributes
    ----------
    model : Model
        Its layers.
    seed : int
        The run's seed, of which its first weights are drawn.
    """

    model: Model
    seed: int

    @property
    def name(self) -> str:
        """Its name in reports."""
        return self.model.spec.name

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Everything that is trained, in order of use."""
        return self.model.parameters

    @property
    def running(self) -> dict[str, tuple[int, int]]:
        """Nothing: no layer keeps running values."""
        return {}

    @property
    def layered(self) -> bool:
        """It consists of the package's own layers."""
        return True

    @property
    def undivided(self) -> str:
        """Why it cannot be cut, if it cannot."""
        return "" if self.workload.cuts else "it has one layer with work only"

    @property
    def workload(self) -> Workload:
        """Rows of what its layers compute."""
        return self.model.workload

    def initial(self) -> dict[str, np.ndarray]:
        """Return fresh weights, (in[+1], out) float32."""
        return init_weights(self.model, self.seed)

    def fisher_passes(self, fisher: Fisher) -> int:
        """Return the number of backward passes for the Fisher matrix beside that of the loss."""
        return fisher_passes(self.model, fisher)

    def check(self, data: Dataset) -> None:
        """Check that it can learn a data set; see `check_task`."""
        check_task(self.model, data)

    def load(
        self, values: Values, engine: Engine, step: int, with_backward: bool = True
    ) -> LoadedModel:
        """Load all weights into the arithmetic of a step."""
        return load_weights(self.model, values, engine, step, with_backward)

    def part(self, first: int, last: int) -> "LayeredPart":
        """Return the layers that have some rows of the workload."""
        return LayeredPart(self.model.between(first, last), first > 0)

    def to_state(self, values: Values) -> dict[str, np.ndarray]:
        """Return the weights under the names ``weights/...``."""
        return {f"{_WEIGHTS}/{name}": value for name, value in values.items()}

    def from_state(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the weights in a checkpoint's arrays."""
        return under(_WEIGHTS, arrays)


@dataclasses.dataclass(frozen=True)
class LayeredPart:
    """Successive layers of a network; see `repast_dist.training.network.Part`.

    Attributes
    ----------
    model : Model
        The layers.
    behind : bool
        Whether there are layers before them.
    """

    model: Model
    behind: bool

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """What of them is trained, in order of use."""
        return self.model.parameters

    @property
    def running(self) -> tuple[str, ...]:
        """Nothing: no layer keeps running values."""
        return ()

    def load(self, values: Values, engine: Engine, step: int) -> LoadedModel:
        """Load their weights into the arithmetic of a step."""
        return load_weights(self.model, values, engine, step, behind=self.behind)
