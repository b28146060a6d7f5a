"""Pooling over windows."""

import dataclasses
import math
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge

from repast_dist.ground.spec import spec
from repast_dist.network import functional as f
from repast_dist.network.layer import LAYERS, Layer, Place
from repast_dist.network.node import Node, Pass, Shape, Sink
from repast_dist.network.operations import POOL
from repast_dist.network.shapes import LayerShape, digital_shape


@LAYERS.register
@spec
class MaxPoolLayer(Layer):
    """Maximum over windows of ``size`` x ``size`` pixels that do not overlap.

    Attributes
    ----------
    size : int
        Edge of a window in pixels; must divide the image.
    """

    kind: Literal["max_pool"] = "max_pool"
    size: Annotated[int, Ge(2)] = 2

    def build(self, shape: Shape, place: Place) -> Node:
        """Return the node."""
        _check(self.kind, self.size, shape, place)
        return MaxPoolNode(place.name("", self.kind), self.size, shape)


@LAYERS.register
@spec
class AvgPoolLayer(Layer):
    """Mean over windows of ``size`` x ``size`` pixels that do not overlap.

    Attributes
    ----------
    size : int
        Edge of a window in pixels; must divide the image.
    """

    kind: Literal["avg_pool"] = "avg_pool"
    size: Annotated[int, Ge(2)] = 2

    def build(self, shape: Shape, place: Place) -> Node:
        """Return the node."""
        _check(self.kind, self.size, shape, place)
        return AvgPoolNode(place.name("", self.kind), self.size, shape)


@dataclasses.dataclass(frozen=True)
class MaxPoolNode(Node):
    """Maximum of each window; of equal values the first takes the error."""

    name: str
    size: int
    input_shape: Shape

    @property
    def output_shape(self) -> Shape:
        """Shape of one sample's output."""
        channels, height, width = self.input_shape
        return channels, height // self.size, width // self.size

    def forward(self, x: np.ndarray, run: Pass) -> tuple[np.ndarray, Any]:
        """Take the maximum; where it was is kept."""
        windows = f.windows_of(x, self.size)
        where = windows.argmax(axis=-1)[..., None]
        return np.take_along_axis(windows, where, axis=-1)[..., 0], where

    def backward(
        self, error: np.ndarray, saved: Any, run: Pass, sink: Sink, need_input: bool
    ) -> np.ndarray | None:
        """Send the error where the maximum was."""
        if not need_input:
            return None
        windows = np.zeros((*error.shape, self.size**2))
        np.put_along_axis(windows, saved, error[..., None], axis=-1)
        return f.images_of(windows, self.size)

    def shapes(self) -> tuple[LayerShape, ...]:
        """Return one operation per element of every window."""
        size = math.prod(self.output_shape)
        return (digital_shape(self.name, size, POOL * size * self.size**2),)


@dataclasses.dataclass(frozen=True)
class AvgPoolNode(Node):
    """Mean of each window."""

    name: str
    size: int
    input_shape: Shape

    @property
    def output_shape(self) -> Shape:
        """Shape of one sample's output."""
        channels, height, width = self.input_shape
        return channels, height // self.size, width // self.size

    def forward(self, x: np.ndarray, run: Pass) -> tuple[np.ndarray, Any]:
        """Take the mean."""
        return f.windows_of(x, self.size).mean(axis=-1), None

    def backward(
        self, error: np.ndarray, saved: Any, run: Pass, sink: Sink, need_input: bool
    ) -> np.ndarray | None:
        """Share the error among the window."""
        if not need_input:
            return None
        shared = np.repeat(error[..., None] / self.size**2, self.size**2, axis=-1)
        return f.images_of(shared, self.size)

    def shapes(self) -> tuple[LayerShape, ...]:
        """Return one operation per element of every window."""
        size = math.prod(self.output_shape)
        return (digital_shape(self.name, size, POOL * size * self.size**2),)


def _check(kind: str, size: int, shape: Shape, place: Place) -> None:
    place.expect_image(shape, kind)
    fits = shape[1] % size == 0 and shape[2] % size == 0
    place.expect(fits, f"windows of {size} do not divide {shape[1:]} pixels")
