"""Two-dimensional convolutions."""

import dataclasses
import math
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from annotated_types import Ge

from repast_dist.ground.numbers import PositiveInt
from repast_dist.ground.spec import spec
from repast_dist.network import functional as f
from repast_dist.network import kinds
from repast_dist.network.kinds import LayerKind
from repast_dist.network.layer import LAYERS, Place
from repast_dist.network.node import Node, Pass, Shape, Sink
from repast_dist.network.products import ProductLayer, ProductNode


@LAYERS.register
@spec
class ConvLayer(ProductLayer):
    """A square two-dimensional convolution, computed as a product of im2col patches.

    Attributes
    ----------
    kernel, stride, padding : int
        In pixels.
    """

    kind: Literal["conv"] = "conv"
    kernel: PositiveInt = 3
    stride: PositiveInt = 1
    padding: Annotated[int, Ge(0)] = 0

    def build(self, shape: Shape, place: Place) -> Node:
        """Return the node."""
        place.expect_image(shape, "conv")
        fits = min(shape[1:]) + 2 * self.padding >= self.kernel
        place.expect(fits, f"a kernel of {self.kernel} does not fit {shape[1:]} pixels")
        return ConvNode(
            place.name(self.name, "conv"),
            shape,
            self.outputs,
            self.bias,
            self.precondition,
            self.sharing or place.sharing,
            self.kernel,
            self.stride,
            self.padding,
        )


@dataclasses.dataclass(frozen=True)
class ConvNode(ProductNode):
    """Two-dimensional convolution as a product of im2col patches with (C * k * k, out) weights."""

    kernel: int
    stride: int
    padding: int

    kind: ClassVar[LayerKind] = kinds.CONV

    @property
    def output_shape(self) -> Shape:
        """Shape of one sample's output."""
        height, width = (
            f.output_size(side, self.kernel, self.stride, self.padding)
            for side in self.input_shape[1:]
        )
        return (self.outputs, height, width)

    @property
    def inputs(self) -> int:
        """Numbers in a patch."""
        return self.input_shape[0] * self.kernel**2

    @property
    def positions(self) -> int:
        """Pixels of the output."""
        return math.prod(self.output_shape[1:])

    def forward(self, x: np.ndarray, run: Pass) -> tuple[np.ndarray, Any]:
        """Cut patches and multiply; the patches are kept."""
        rows = f.im2col(x, self.kernel, self.stride, self.padding)
        channels, height, width = self.output_shape
        y = self.multiplied(rows, run).reshape(len(x), height, width, channels)
        return y.transpose(0, 3, 1, 2), rows

    def backward(
        self, error: np.ndarray, saved: Any, run: Pass, sink: Sink, need_input: bool
    ) -> np.ndarray | None:
        """Multiply by the transposed weights and add up the patches."""
        rows = error.transpose(0, 2, 3, 1).reshape(-1, self.outputs)
        columns = self.sent_back(rows, run, sink, need_input)
        if columns is None:
            return None
        shape = (len(error), *self.input_shape)
        return f.col2im(columns, shape, self.kernel, self.stride, self.padding)
