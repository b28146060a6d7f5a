"""Residual connections."""

import dataclasses
import math
from typing import Annotated, Any, Literal

import numpy as np

from repast_dist.ground.spec import spec
from repast_dist.network.layer import LAYERS, Layer, Place
from repast_dist.network.node import Chain, Node, Parameter, Pass, Shape, Sink
from repast_dist.network.operations import ADDITION
from repast_dist.network.shapes import LayerShape, digital_shape


@LAYERS.register
@spec
class ResidualLayer(Layer):
    """Add to the input what the body makes of it.

    Attributes
    ----------
    body : tuple of layer settings
        The branch.
    shortcut : tuple of layer settings
        Applied to the input before the sum; empty: the identity.
    """

    kind: Literal["residual"] = "residual"
    body: tuple[Annotated[Layer, LAYERS.choice()], ...]
    shortcut: tuple[Annotated[Layer, LAYERS.choice()], ...] = ()

    def build(self, shape: Shape, place: Place) -> Node:
        """Return the node."""
        name = place.name("", self.kind)
        body = place.chain(self.body, shape, "body")
        shortcut = place.chain(self.shortcut, shape, "shortcut")
        fits = body.output_shape == shortcut.output_shape
        place.expect(fits, f"body gives {body.output_shape}, shortcut {shortcut.output_shape}")
        return ResidualNode(name, body, shortcut)


@dataclasses.dataclass(frozen=True)
class ResidualNode(Node):
    """shortcut(x) + body(x)."""

    name: str
    body: Chain
    shortcut: Chain

    @property
    def output_shape(self) -> Shape:
        """Shape of one sample's output."""
        return self.body.output_shape

    @property
    def passes_together(self) -> bool:
        """Whether several micro-batches may pass both branches at once."""
        return self.body.passes_together and self.shortcut.passes_together

    def parameters(self) -> tuple[Parameter, ...]:
        """Return the parameters of the body, then of the shortcut."""
        return (*self.body.parameters(), *self.shortcut.parameters())

    def transposed(self, need_input: bool) -> tuple[str, ...]:
        """Return the weights errors pass through."""
        return (*self.body.transposed(need_input), *self.shortcut.transposed(need_input))

    def forward(self, x: np.ndarray, run: Pass) -> tuple[np.ndarray, Any]:
        """Add the two branches."""
        branch, of_body = self.body.forward(x, run)
        straight, of_shortcut = self.shortcut.forward(x, run)
        return branch + straight, (of_body, of_shortcut)

    def backward(
        self, error: np.ndarray, saved: Any, run: Pass, sink: Sink, need_input: bool
    ) -> np.ndarray | None:
        """Go back through both branches."""
        branch = self.body.backward(error, saved[0], run, sink, need_input)
        straight = self.shortcut.backward(error, saved[1], run, sink, need_input)
        return None if branch is None or straight is None else branch + straight

    def rows_of(self, saved: Any) -> dict[str, np.ndarray]:
        """Return the input rows of both branches."""
        return self.body.rows_of(saved[0]) | self.shortcut.rows_of(saved[1])

    def shapes(self) -> tuple[LayerShape, ...]:
        """Return both branches and the addition."""
        size = math.prod(self.output_shape)
        added = digital_shape(self.name, size, ADDITION * size)
        return (*self.body.shapes(), *self.shortcut.shapes(), added)
