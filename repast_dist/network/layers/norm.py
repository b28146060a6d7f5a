"""Normalisation of each sample on its own."""

import dataclasses
import math
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from annotated_types import Gt

from repast_dist.ground.numbers import PositiveInt
from repast_dist.ground.spec import spec
from repast_dist.network.layer import LAYERS, Layer, Place
from repast_dist.network.node import Node, Parameter, Pass, Shape, Sink
from repast_dist.network.shapes import LayerShape, normalization_shape


@LAYERS.register
@spec
class NormLayer(Layer):
    """Normalisation of each sample on its own, with a scale and a shift per channel.

    On images: group normalisation over ``groups`` groups of channels; on tokens or features:
    layer normalisation (one group). Statistics never cross samples, so results do not depend on
    how a batch is split into micro-batches.

    Attributes
    ----------
    groups : int
        Groups of channels; must divide the channels.
    epsilon : float
        Added to the variance.
    name : str
        Name in weights and reports; empty: numbered by the model.
    """

    kind: Literal["norm"] = "norm"
    groups: PositiveInt = 1
    epsilon: Annotated[float, Gt(0)] = 1e-5
    name: str = ""

    def build(self, shape: Shape, place: Place) -> Node:
        """Return the node."""
        channels = shape[0] if len(shape) == 3 else shape[-1]
        fits = channels % self.groups == 0
        place.expect(fits, f"{self.groups} groups do not divide {channels} channels")
        return NormNode(place.name(self.name, "norm"), shape, self.groups, self.epsilon)


@dataclasses.dataclass(frozen=True)
class NormNode(Node):
    """Group normalisation of images, layer normalisation of tokens and features.

    Weights are (2, channels): the scales, then the shifts.
    """

    together: ClassVar[bool] = True

    name: str
    input_shape: Shape
    groups: int
    epsilon: float

    @property
    def output_shape(self) -> Shape:
        """Shape of one sample's output."""
        return self.input_shape

    @property
    def _channels(self) -> int:
        return self.input_shape[0] if len(self.input_shape) == 3 else self.input_shape[-1]

    def _per_channel(self, values: np.ndarray) -> np.ndarray:
        values = values.astype(np.float64)
        return values[:, None, None] if len(self.input_shape) == 3 else values

    def _grouped(self, x: np.ndarray) -> np.ndarray:
        """One row per set of values that is normalised together."""
        if len(self.input_shape) == 3:
            return x.reshape(len(x) * self.groups, -1)
        return x.reshape(-1, self._channels // self.groups)

    def parameters(self) -> tuple[Parameter, ...]:
        """Return scales and shifts."""
        return (
            Parameter(
                name=self.name,
                kind="norm",
                rows=2,
                columns=self._channels,
                bias=True,
                initialise=_initialise,
                without_factors="norm parameters have no Kronecker factors: plain gradient",
            ),
        )

    def forward(self, x: np.ndarray, run: Pass) -> tuple[np.ndarray, Any]:
        """Normalise, scale and shift."""
        rows = self._grouped(x)
        centred = rows - rows.mean(axis=1, keepdims=True)
        inverse = 1.0 / np.sqrt((centred**2).mean(axis=1, keepdims=True) + self.epsilon)
        normal = (centred * inverse).reshape(x.shape)
        scale, shift = (self._per_channel(row) for row in run.weights[self.name])
        return normal * scale + shift, (normal, inverse)

    def backward(
        self, error: np.ndarray, saved: Any, run: Pass, sink: Sink, need_input: bool
    ) -> np.ndarray | None:
        """Gradients of scale and shift, and the error through mean and variance."""
        normal, inverse = saved
        axes = (0, 2, 3) if error.ndim == 4 else tuple(range(error.ndim - 1))
        parts = zip(sink.each, run.split(error * normal), run.split(error), strict=True)
        for own, scales, shifts in parts:
            own.direct[self.name] = np.stack([scales.sum(axis=axes), shifts.sum(axis=axes)])
        if not need_input:
            return None
        scaled = self._grouped(error * self._per_channel(run.weights[self.name][0]))
        rows = self._grouped(normal)
        mean = scaled.mean(axis=1, keepdims=True)
        along = (scaled * rows).mean(axis=1, keepdims=True)
        return ((scaled - mean - rows * along) * inverse).reshape(error.shape)

    def shapes(self) -> tuple[LayerShape, ...]:
        """Return the operations per feature and position."""
        positions = math.prod(self.input_shape) // self._channels
        return (normalization_shape(self.name, self._channels, positions),)


def _initialise(
    parameter: Parameter, random: np.random.Generator, initialisation: str
) -> np.ndarray:
    """Return scales of 1 and shifts of 0."""
    return np.stack([np.ones(parameter.columns), np.zeros(parameter.columns)])
