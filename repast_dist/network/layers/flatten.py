"""Flattening."""

import dataclasses
import math
from typing import Any, ClassVar, Literal

import numpy as np

from repast_dist.ground.spec import spec
from repast_dist.network.layer import LAYERS, Layer, Place
from repast_dist.network.node import Node, Pass, Shape, Sink
from repast_dist.network.shapes import LayerShape


@LAYERS.register
@spec
class FlattenLayer(Layer):
    """All features of a sample in one row."""

    kind: Literal["flatten"] = "flatten"

    def build(self, shape: Shape, place: Place) -> Node:
        """Return the node."""
        return FlattenNode(shape)


@dataclasses.dataclass(frozen=True)
class FlattenNode(Node):
    """The same values in one row."""

    together: ClassVar[bool] = True

    input_shape: Shape

    @property
    def output_shape(self) -> Shape:
        """Shape of one sample's output."""
        return (math.prod(self.input_shape),)

    def forward(self, x: np.ndarray, run: Pass) -> tuple[np.ndarray, Any]:
        """Change the shape."""
        return x.reshape(len(x), *self.output_shape), None

    def backward(
        self, error: np.ndarray, saved: Any, run: Pass, sink: Sink, need_input: bool
    ) -> np.ndarray | None:
        """Change the shape back."""
        return error.reshape(len(error), *self.input_shape) if need_input else None

    def shapes(self) -> tuple[LayerShape, ...]:
        """Return nothing: data move, nothing is computed."""
        return ()
