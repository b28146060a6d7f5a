"""Elementwise functions."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import numpy as np

from repast_dist.ground.spec import spec
from repast_dist.network import functional as f
from repast_dist.network.layer import LAYERS, Layer, Place
from repast_dist.network.node import Node, Pass, Shape, Sink
from repast_dist.network.operations import FUNCTION
from repast_dist.network.shapes import LayerShape, digital_shape


@LAYERS.register
@spec
class ActivationLayer(Layer):
    """An elementwise function."""

    kind: Literal["relu", "tanh", "sigmoid", "gelu"]

    def build(self, shape: Shape, place: Place) -> Node:
        """Return the node."""
        return ActivationNode(place.name("", self.kind), self.kind, shape)


@dataclasses.dataclass(frozen=True)
class ActivationNode(Node):
    """An elementwise function."""

    pointwise: ClassVar[bool] = True
    together: ClassVar[bool] = True

    name: str
    function: str
    input_shape: Shape

    @property
    def output_shape(self) -> Shape:
        """Shape of one sample's output."""
        return self.input_shape

    def forward(self, x: np.ndarray, run: Pass) -> tuple[np.ndarray, Any]:
        """Apply the function."""
        y = _FUNCTIONS[self.function][0](x)
        return y, (x, y)

    def backward(
        self, error: np.ndarray, saved: Any, run: Pass, sink: Sink, need_input: bool
    ) -> np.ndarray | None:
        """Multiply by the slope."""
        return error * _FUNCTIONS[self.function][1](*saved) if need_input else None

    def shapes(self) -> tuple[LayerShape, ...]:
        """Return one operation per element."""
        size = math.prod(self.input_shape)
        return (digital_shape(self.name, size, FUNCTION * size),)


_GELU_SLOPE = np.sqrt(2.0 / np.pi)
"""Of the tanh form of GELU (Hendrycks and Gimpel 2016)."""
_GELU_CUBE = 0.044715


def _gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1.0 + np.tanh(_GELU_SLOPE * (x + _GELU_CUBE * x**3)))


def _gelu_slope(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    t = np.tanh(_GELU_SLOPE * (x + _GELU_CUBE * x**3))
    inner = _GELU_SLOPE * (1.0 + 3.0 * _GELU_CUBE * x**2)
    return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t**2) * inner


_FUNCTIONS: dict[
    str,
    tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray, np.ndarray], np.ndarray]],
] = {
    "relu": (lambda x: np.maximum(x, 0.0), lambda x, y: (x > 0).astype(x.dtype)),
    "tanh": (np.tanh, lambda x, y: 1.0 - y**2),
    "sigmoid": (f.sigmoid, lambda x, y: y * (1.0 - y)),
    "gelu": (_gelu, _gelu_slope),
}
"""Function of x, and its slope given x and y."""
