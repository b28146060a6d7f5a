"""Dense layers."""

import dataclasses
from typing import Any, ClassVar, Literal

import numpy as np

from repast_dist.ground.spec import spec
from repast_dist.network import kinds
from repast_dist.network.kinds import LayerKind
from repast_dist.network.layer import LAYERS, Place
from repast_dist.network.node import Node, Pass, Shape, Sink
from repast_dist.network.products import ProductLayer, ProductNode


@LAYERS.register
@spec
class DenseLayer(ProductLayer):
    """A dense layer; on tokens (N, T, D) it acts on every token with the same weights."""

    kind: Literal["dense"] = "dense"

    def build(self, shape: Shape, place: Place) -> Node:
        """Return the node."""
        place.expect(len(shape) < 3, "dense takes features or tokens: put flatten before")
        return DenseNode(
            place.name(self.name, "dense"),
            shape,
            self.outputs,
            self.bias,
            self.precondition,
            self.sharing or place.sharing,
        )


@dataclasses.dataclass(frozen=True)
class DenseNode(ProductNode):
    """y = x W + b on features (N, D) or on every token of (N, T, D)."""

    kind: ClassVar[LayerKind] = kinds.DENSE

    @property
    def output_shape(self) -> Shape:
        """Shape of one sample's output."""
        return (*self.input_shape[:-1], self.outputs)

    @property
    def inputs(self) -> int:
        """Input features."""
        return self.input_shape[-1]

    @property
    def positions(self) -> int:
        """Tokens of a sample; 1 for features."""
        return self.input_shape[0] if len(self.input_shape) == 2 else 1

    def forward(self, x: np.ndarray, run: Pass) -> tuple[np.ndarray, Any]:
        """Multiply; the input rows are kept."""
        rows = x.reshape(-1, self.inputs)
        return self.multiplied(rows, run).reshape(len(x), *self.output_shape), rows

    def backward(
        self, error: np.ndarray, saved: Any, run: Pass, sink: Sink, need_input: bool
    ) -> np.ndarray | None:
        """Multiply by the transposed weights."""
        back = self.sent_back(error.reshape(-1, self.outputs), run, sink, need_input)
        return None if back is None else back.reshape(len(error), *self.input_shape)
