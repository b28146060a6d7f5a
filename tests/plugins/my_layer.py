"""A layer kind of one's own: softplus with a sharpness."""

import dataclasses
import math
from typing import Annotated, Literal

import numpy as np
from annotated_types import Gt

from repast_dist.ground.spec import spec
from repast_dist.network.layer import LAYERS, Layer
from repast_dist.network.node import Node
from repast_dist.network.shapes import digital_shape


@LAYERS.register
@spec
class Softplus(Layer):
    """``log(1 + exp(k x)) / k``.

    Attributes
    ----------
    kind : {"softplus"}
        The layer's name.
    sharpness : float
        k.
    """

    kind: Literal["softplus"] = "softplus"
    sharpness: Annotated[float, Gt(0)] = 2.0

    def build(self, shape, place):
        """Return the node."""
        return SoftplusNode(place.name("", "softplus"), self.sharpness, shape)


@dataclasses.dataclass(frozen=True)
class SoftplusNode(Node):
    """What a softplus computes and what that takes."""

    name: str
    sharpness: float
    input_shape: tuple

    @property
    def output_shape(self):
        """Shape of one sample's output."""
        return self.input_shape

    def forward(self, x, run):
        """Apply the function."""
        return np.logaddexp(0.0, self.sharpness * x) / self.sharpness, x

    def backward(self, error, saved, run, sink, need_input):
        """Multiply by the slope, a sigmoid."""
        return error / (1.0 + np.exp(-self.sharpness * saved)) if need_input else None

    def shapes(self):
        """Return three operations per element."""
        size = math.prod(self.input_shape)
        return (digital_shape(self.name, size, 3 * size),)
