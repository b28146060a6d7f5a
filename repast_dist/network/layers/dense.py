"""Dense layers."""

import dataclasses
from typing import Any, Literal

import numpy as np

from repast_dist.ground.numbers import PositiveInt
from repast_dist.ground.spec import spec
from repast_dist.network.layer import LAYERS, Layer, Place, Sharing
from repast_dist.network.node import Node, Parameter, Pass, Shape, Sink
from repast_dist.network.products import affine, product_shape, weights
from repast_dist.network.shapes import LayerShape


@LAYERS.register
@spec
class DenseLayer(Layer):
    """A dense layer; on tokens (N, T, D) it acts on every token with the same weights.

    Attributes
    ----------
    outputs : int
        Output features M.
    name : str
        Name in weights and reports; empty: numbered by the model.
    bias : bool
        Keep a bias as the last row of the weights.
    precondition : bool
        Precondition by K-FAC; False leaves the layer to the plain gradient.
    sharing : {"expand", "reduce"} or None
        Kronecker factors over tokens, see `Model`; None: as the model says.
    """

    kind: Literal["dense"] = "dense"
    outputs: PositiveInt
    name: str = ""
    bias: bool = True
    precondition: bool = True
    sharing: Sharing | None = None

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
class DenseNode(Node):
    """y = x W + b on features (N, D) or on every token of (N, T, D)."""

    name: str
    input_shape: Shape
    outputs: int
    bias: bool
    preconditioned: bool
    sharing: str

    @property
    def output_shape(self) -> Shape:
        """Shape of one sample's output."""
        return (*self.input_shape[:-1], self.outputs)

    def parameters(self) -> tuple[Parameter, ...]:
        """Return the weights."""
        positions = self.input_shape[0] if len(self.input_shape) == 2 else 1
        return (
            weights(
                self.name,
                "dense",
                self.input_shape[-1],
                self.outputs,
                positions,
                bias=self.bias,
                preconditioned=self.preconditioned,
                sharing=self.sharing,
            ),
        )

    def transposed(self, need_input: bool) -> tuple[str, ...]:
        """Return the weights if errors go further back."""
        return (self.name,) if need_input else ()

    def forward(self, x: np.ndarray, run: Pass) -> tuple[np.ndarray, Any]:
        """Multiply; the input rows are kept."""
        rows = x.reshape(-1, self.input_shape[-1])
        y = affine(self.name, rows, self.bias, run)
        return y.reshape(len(x), *self.output_shape), rows

    def backward(
        self, error: np.ndarray, saved: Any, run: Pass, sink: Sink, need_input: bool
    ) -> np.ndarray | None:
        """Record the output errors and multiply by the transposed weights."""
        rows = error.reshape(-1, self.outputs)
        sink.errors[self.name] = rows
        if not need_input:
            return None
        back = run.backward[self.name].multiply(rows, (*run.call, "backward", self.name))
        return back.reshape(len(error), *self.input_shape)

    def rows_of(self, saved: Any) -> dict[str, np.ndarray]:
        """Return the input rows."""
        return {self.name: saved}

    def shapes(self) -> tuple[LayerShape, ...]:
        """Return the matrix."""
        (parameter,) = self.parameters()
        return (product_shape(parameter, "dense"),)
