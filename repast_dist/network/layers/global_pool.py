"""Pooling over all positions."""

import dataclasses
import math
from typing import Any, ClassVar, Literal

import numpy as np

from repast_dist.ground.spec import spec
from repast_dist.network.layer import LAYERS, Layer, Place
from repast_dist.network.node import Node, Pass, Shape, Sink
from repast_dist.network.operations import POOL
from repast_dist.network.shapes import LayerShape, digital_shape


@LAYERS.register
@spec
class GlobalPoolLayer(Layer):
    """Mean over all positions of an image or all tokens of a sequence."""

    kind: Literal["global_pool"] = "global_pool"

    def build(self, shape: Shape, place: Place) -> Node:
        """Return the node."""
        place.expect(len(shape) > 1, "global_pool takes an image or tokens")
        return GlobalPoolNode(place.name("", self.kind), shape)


@dataclasses.dataclass(frozen=True)
class GlobalPoolNode(Node):
    """Mean over the positions of an image (N, C, H, W) or the tokens of (N, T, D)."""

    together: ClassVar[bool] = True

    name: str
    input_shape: Shape

    @property
    def _axes(self) -> tuple[int, ...]:
        return (2, 3) if len(self.input_shape) == 3 else (1,)

    @property
    def output_shape(self) -> Shape:
        """Shape of one sample's output."""
        return (self.input_shape[0],) if len(self.input_shape) == 3 else (self.input_shape[1],)

    def forward(self, x: np.ndarray, run: Pass) -> tuple[np.ndarray, Any]:
        """Take the mean."""
        return x.mean(axis=self._axes), None

    def backward(
        self, error: np.ndarray, saved: Any, run: Pass, sink: Sink, need_input: bool
    ) -> np.ndarray | None:
        """Share the error among positions."""
        if not need_input:
            return None
        shape = (len(error), *self.input_shape)
        count = np.prod([shape[axis] for axis in self._axes])
        return np.broadcast_to(np.expand_dims(error / count, self._axes), shape)

    def shapes(self) -> tuple[LayerShape, ...]:
        """Return one operation per element of the input."""
        size = math.prod(self.output_shape)
        return (digital_shape(self.name, size, POOL * math.prod(self.input_shape)),)
