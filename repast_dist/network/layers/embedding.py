"""Tokens looked up in a table of vectors."""

import dataclasses
import math
from typing import Any, ClassVar, Literal

import numpy as np

from repast_dist.ground.numbers import PositiveInt
from repast_dist.ground.spec import spec
from repast_dist.network.layer import LAYERS, Layer, Place
from repast_dist.network.node import Node, Parameter, Pass, Shape, Sink
from repast_dist.network.shapes import LayerShape, embedding_shape


@LAYERS.register
@spec
class EmbeddingLayer(Layer):
    """Replace each token, a whole number, by a learned vector: (N, ...) -> (N, T, width).

    Attributes
    ----------
    entries : int
        Tokens there are; they are counted from 0.
    width : int
        Numbers per vector.
    name : str
        Name in weights and reports; empty: numbered by the model.
    """

    kind: Literal["embedding"] = "embedding"
    entries: PositiveInt
    width: PositiveInt
    name: str = ""

    def build(self, shape: Shape, place: Place) -> Node:
        """Return the node."""
        first = place.path == "model.layers[0]"
        place.expect(first, "embedding takes the tokens of a sample: it must be the first layer")
        name = place.name(self.name, "embedding")
        return EmbeddingNode(name, math.prod(shape), self.entries, self.width)


@dataclasses.dataclass(frozen=True)
class EmbeddingNode(Node):
    """Look up the vector of each token."""

    together: ClassVar[bool] = True

    name: str
    tokens: int
    entries: int
    width: int

    @property
    def output_shape(self) -> Shape:
        """Shape of one sample's output."""
        return self.tokens, self.width

    def parameters(self) -> tuple[Parameter, ...]:
        """Return the table, (entries, width)."""
        return (
            Parameter(
                name=self.name,
                kind="embedding",
                rows=self.entries,
                columns=self.width,
                initialise=_initialise,
                without_factors="a look-up table has no Kronecker factors: plain gradient",
            ),
        )

    def forward(self, x: np.ndarray, run: Pass) -> tuple[np.ndarray, Any]:
        """Look up."""
        tokens = x.reshape(len(x), self.tokens).astype(np.int64)
        return run.weights[self.name][tokens].astype(np.float64), tokens

    def backward(
        self, error: np.ndarray, saved: Any, run: Pass, sink: Sink, need_input: bool
    ) -> np.ndarray | None:
        """Add up the errors of each token's vector; tokens have no derivative."""
        for own, tokens, errors in zip(sink.each, run.split(saved), run.split(error), strict=True):
            gradient = np.zeros((self.entries, self.width))
            np.add.at(gradient, tokens, errors)
            own.direct[self.name] = gradient
        return None

    def shapes(self) -> tuple[LayerShape, ...]:
        """Return the table."""
        return (embedding_shape(self.name, self.entries, self.width, self.tokens),)


def _initialise(
    parameter: Parameter, random: np.random.Generator, initialisation: str
) -> np.ndarray:
    """Return normal numbers of variance 1 / width."""
    shape = (parameter.rows, parameter.columns)
    return random.standard_normal(shape) / np.sqrt(parameter.columns)
