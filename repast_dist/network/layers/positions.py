"""Learned positions of tokens."""

import dataclasses
import math
from typing import Any, ClassVar, Literal

import numpy as np

from repast_dist.ground.spec import spec
from repast_dist.network.layer import LAYERS, Layer, Place
from repast_dist.network.node import Node, Parameter, Pass, Shape, Sink
from repast_dist.network.operations import ADDITION
from repast_dist.network.shapes import LayerShape, digital_shape


@LAYERS.register
@spec
class PositionsLayer(Layer):
    """Add a learned vector per token."""

    kind: Literal["positions"] = "positions"
    name: str = ""

    def build(self, shape: Shape, place: Place) -> Node:
        """Return the node."""
        place.expect(len(shape) == 2, "positions takes tokens: put patches before")
        return PositionsNode(place.name(self.name, "positions"), shape)


@dataclasses.dataclass(frozen=True)
class PositionsNode(Node):
    """Add a learned vector per token."""

    together: ClassVar[bool] = True

    name: str
    input_shape: Shape

    @property
    def output_shape(self) -> Shape:
        """Shape of one sample's output."""
        return self.input_shape

    def parameters(self) -> tuple[Parameter, ...]:
        """Return the vectors, (T, D)."""
        tokens, width = self.output_shape
        return (
            Parameter(
                name=self.name,
                kind="positions",
                rows=tokens,
                columns=width,
                initialise=_initialise,
                without_factors="positions parameters have no Kronecker factors: plain gradient",
            ),
        )

    def forward(self, x: np.ndarray, run: Pass) -> tuple[np.ndarray, Any]:
        """Add."""
        return x + run.weights[self.name].astype(np.float64), None

    def backward(
        self, error: np.ndarray, saved: Any, run: Pass, sink: Sink, need_input: bool
    ) -> np.ndarray | None:
        """Sum the errors over samples."""
        for own, errors in zip(sink.each, run.split(error), strict=True):
            own.direct[self.name] = errors.sum(axis=0)
        return error if need_input else None

    def shapes(self) -> tuple[LayerShape, ...]:
        """Return one addition per element."""
        size = math.prod(self.input_shape)
        return (digital_shape(self.name, size, ADDITION * size, parameters=size),)


def _initialise(
    parameter: Parameter, random: np.random.Generator, initialisation: str
) -> np.ndarray:
    """Return normal numbers of variance 1 / width."""
    shape = (parameter.rows, parameter.columns)
    return random.standard_normal(shape) / np.sqrt(parameter.columns)
