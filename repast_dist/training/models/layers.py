"""``layers``: a network layer by layer, of the NumPy engine."""

from collections.abc import Callable
from typing import Literal

from repast_dist.ground.spec import spec
from repast_dist.network.model import ModelSpec, build_model
from repast_dist.training.datasets import Dataset
from repast_dist.training.layered import LayeredNetwork
from repast_dist.training.models.base import MODELS, ModelSource


@MODELS.register
@spec
class LayerModel(ModelSpec, ModelSource):
    """A network layer by layer; sizes follow from the input.

    Attributes
    ----------
    source : {"layers"}
        Its layers are settings.
    """

    source: Literal["layers"] = "layers"

    def build(self, data: Callable[[], Dataset], seed: int, samples: int) -> LayeredNetwork:
        """Build the layers; neither data nor micro-batches play a part."""
        return LayeredNetwork(build_model(self), seed)
