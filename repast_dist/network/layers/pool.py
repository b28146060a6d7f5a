"""Pooling over windows."""

import abc
import dataclasses
import math
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from annotated_types import Ge

from repast_dist.ground.spec import spec
from repast_dist.network import functional as f
from repast_dist.network.layer import LAYERS, Layer, Place
from repast_dist.network.node import Node, Pass, Shape, Sink
from repast_dist.network.operations import POOL
from repast_dist.network.shapes import LayerShape, digital_shape


@spec
class WindowLayer(Layer):
    """Settings of a layer that makes one number of every window of pixels.

    Attributes
    ----------
    size : int
        Edge of a window in pixels; must divide the image.
    """

    size: Annotated[int, Ge(2)] = 2

    def checked(self, kind: str, shape: Shape, place: Place) -> tuple[str, int, Shape]:
        """Return the fields of the node; windows that do not divide the image are refused."""
        place.expect_image(shape, kind)
        fits = shape[1] % self.size == 0 and shape[2] % self.size == 0
        place.expect(fits, f"windows of {self.size} do not divide {shape[1:]} pixels")
        return place.name("", kind), self.size, shape


@LAYERS.register
@spec
class MaxPoolLayer(WindowLayer):
    """Maximum over windows of ``size`` x ``size`` pixels that do not overlap."""

    kind: Literal["max_pool"] = "max_pool"

    def build(self, shape: Shape, place: Place) -> Node:
        """Return the node."""
        return MaxPoolNode(*self.checked(self.kind, shape, place))


@LAYERS.register
@spec
class AvgPoolLayer(WindowLayer):
    """Mean over windows of ``size`` x ``size`` pixels that do not overlap."""

    kind: Literal["avg_pool"] = "avg_pool"

    def build(self, shape: Shape, place: Place) -> Node:
        """Return the node."""
        return AvgPoolNode(*self.checked(self.kind, shape, place))


@dataclasses.dataclass(frozen=True)
class WindowNode(Node):
    """One number of every window of pixels; windows do not overlap."""

    together: ClassVar[bool] = True

    name: str
    size: int
    input_shape: Shape

    @property
    def output_shape(self) -> Shape:
        """Shape of one sample's output."""
        channels, height, width = self.input_shape
        return channels, height // self.size, width // self.size

    @abc.abstractmethod
    def spread(self, error: np.ndarray, saved: Any) -> np.ndarray:
        """Return the errors of every window's pixels, (N, C, H', W') -> (..., size * size)."""

    def backward(
        self, error: np.ndarray, saved: Any, run: Pass, sink: Sink, need_input: bool
    ) -> np.ndarray | None:
        """Put the errors of the windows together."""
        return f.images_of(self.spread(error, saved), self.size) if need_input else None

    def shapes(self) -> tuple[LayerShape, ...]:
        """Return one operation per element of every window."""
        size = math.prod(self.output_shape)
        return (digital_shape(self.name, size, POOL * size * self.size**2),)


@dataclasses.dataclass(frozen=True)
class MaxPoolNode(WindowNode):
    """Maximum of each window; of equal values the first takes the error."""

    def forward(self, x: np.ndarray, run: Pass) -> tuple[np.ndarray, Any]:
        """Take the maximum; where it was is kept."""
        windows = f.windows_of(x, self.size)
        where = windows.argmax(axis=-1)[..., None]
        return np.take_along_axis(windows, where, axis=-1)[..., 0], where

    def spread(self, error: np.ndarray, saved: Any) -> np.ndarray:
        """Send the error where the maximum was."""
        windows = np.zeros((*error.shape, self.size**2))
        np.put_along_axis(windows, saved, error[..., None], axis=-1)
        return windows


@dataclasses.dataclass(frozen=True)
class AvgPoolNode(WindowNode):
    """Mean of each window."""

    def forward(self, x: np.ndarray, run: Pass) -> tuple[np.ndarray, Any]:
        """Take the mean."""
        return f.windows_of(x, self.size).mean(axis=-1), None

    def spread(self, error: np.ndarray, saved: Any) -> np.ndarray:
        """Share the error among the window."""
        return np.repeat(error[..., None] / self.size**2, self.size**2, axis=-1)
