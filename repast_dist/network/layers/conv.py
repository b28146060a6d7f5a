"""Two-dimensional convolutions."""

import dataclasses
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge

from repast_dist.ground.numbers import PositiveInt
from repast_dist.ground.spec import spec
from repast_dist.network import functional as f
from repast_dist.network.layer import LAYERS, Layer, Place, Sharing
from repast_dist.network.node import Node, Parameter, Pass, Shape, Sink
from repast_dist.network.products import affine, product_shape, weights
from repast_dist.network.shapes import LayerShape


@LAYERS.register
@spec
class ConvLayer(Layer):
    """A square two-dimensional convolution, computed as a product of im2col patches.

    Attributes
    ----------
    outputs : int
        Output channels M.
    kernel, stride, padding : int
        In pixels.
    name, bias, precondition, sharing
        As in `DenseLayer`; the positions of the output image take the place of tokens.
    """

    kind: Literal["conv"] = "conv"
    outputs: PositiveInt
    kernel: PositiveInt = 3
    stride: PositiveInt = 1
    padding: Annotated[int, Ge(0)] = 0
    name: str = ""
    bias: bool = True
    precondition: bool = True
    sharing: Sharing | None = None

    def build(self, shape: Shape, place: Place) -> Node:
        """Return the node."""
        place.expect_image(shape, "conv")
        fits = min(shape[1:]) + 2 * self.padding >= self.kernel
        place.expect(fits, f"a kernel of {self.kernel} does not fit {shape[1:]} pixels")
        return ConvNode(
            place.name(self.name, "conv"),
            shape,
            self.outputs,
            self.kernel,
            self.stride,
            self.padding,
            self.bias,
            self.precondition,
            self.sharing or place.sharing,
        )


@dataclasses.dataclass(frozen=True)
class ConvNode(Node):
    """Two-dimensional convolution as a product of im2col patches with (C * k * k, out) weights."""

    name: str
    input_shape: Shape
    outputs: int
    kernel: int
    stride: int
    padding: int
    bias: bool
    preconditioned: bool
    sharing: str

    @property
    def output_shape(self) -> Shape:
        """Shape of one sample's output."""
        height, width = (
            f.output_size(side, self.kernel, self.stride, self.padding)
            for side in self.input_shape[1:]
        )
        return (self.outputs, height, width)

    def parameters(self) -> tuple[Parameter, ...]:
        """Return the weights."""
        _, height, width = self.output_shape
        return (
            weights(
                self.name,
                "conv",
                self.input_shape[0] * self.kernel**2,
                self.outputs,
                height * width,
                bias=self.bias,
                preconditioned=self.preconditioned,
                sharing=self.sharing,
            ),
        )

    def transposed(self, need_input: bool) -> tuple[str, ...]:
        """Return the weights if errors go further back."""
        return (self.name,) if need_input else ()

    def forward(self, x: np.ndarray, run: Pass) -> tuple[np.ndarray, Any]:
        """Cut patches and multiply; the patches are kept."""
        rows = f.im2col(x, self.kernel, self.stride, self.padding)
        y = affine(self.name, rows, self.bias, run)
        channels, height, width = self.output_shape
        return y.reshape(len(x), height, width, channels).transpose(0, 3, 1, 2), rows

    def backward(
        self, error: np.ndarray, saved: Any, run: Pass, sink: Sink, need_input: bool
    ) -> np.ndarray | None:
        """Record the output errors, multiply by the transposed weights and add up the patches."""
        rows = error.transpose(0, 2, 3, 1).reshape(-1, self.outputs)
        sink.errors[self.name] = rows
        if not need_input:
            return None
        columns = run.backward[self.name].multiply(rows, (*run.call, "backward", self.name))
        shape = (len(error), *self.input_shape)
        return f.col2im(columns, shape, self.kernel, self.stride, self.padding)

    def rows_of(self, saved: Any) -> dict[str, np.ndarray]:
        """Return the patches."""
        return {self.name: saved}

    def shapes(self) -> tuple[LayerShape, ...]:
        """Return the matrix of the im2col form."""
        (parameter,) = self.parameters()
        return (product_shape(parameter, "conv"),)
