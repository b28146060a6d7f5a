"""Images cut into patches."""

import dataclasses
from typing import Any, ClassVar, Literal

import numpy as np

from repast_dist.ground.numbers import PositiveInt
from repast_dist.ground.spec import spec
from repast_dist.network import functional as f
from repast_dist.network.layer import LAYERS, Layer, Place
from repast_dist.network.node import Node, Pass, Shape, Sink
from repast_dist.network.shapes import LayerShape


@LAYERS.register
@spec
class PatchesLayer(Layer):
    """Cut an image into square patches: (N, C, H, W) -> (N, tokens, C * size * size)."""

    kind: Literal["patches"] = "patches"
    size: PositiveInt

    def build(self, shape: Shape, place: Place) -> Node:
        """Return the node."""
        place.expect_image(shape, "patches")
        fits = shape[1] % self.size == 0 and shape[2] % self.size == 0
        place.expect(fits, f"patches of {self.size} do not divide {shape[1:]} pixels")
        return PatchesNode(self.size, shape)


@dataclasses.dataclass(frozen=True)
class PatchesNode(Node):
    """Cut an image into square patches: (N, C, H, W) -> (N, tokens, C * size * size)."""

    together: ClassVar[bool] = True

    size: int
    input_shape: Shape

    @property
    def output_shape(self) -> Shape:
        """Shape of one sample's output."""
        channels, height, width = self.input_shape
        return (height // self.size) * (width // self.size), channels * self.size**2

    def forward(self, x: np.ndarray, run: Pass) -> tuple[np.ndarray, Any]:
        """Cut; patches do not overlap."""
        rows = f.im2col(x, self.size, self.size, 0)
        return rows.reshape(len(x), *self.output_shape), None

    def backward(
        self, error: np.ndarray, saved: Any, run: Pass, sink: Sink, need_input: bool
    ) -> np.ndarray | None:
        """Put the patches back."""
        if not need_input:
            return None
        columns = error.reshape(-1, self.output_shape[1])
        return f.col2im(columns, (len(error), *self.input_shape), self.size, self.size, 0)

    def shapes(self) -> tuple[LayerShape, ...]:
        """Return nothing: data move, nothing is computed."""
        return ()
