"""What layers with weights on crossbars have in common: settings, parameter, product and shape."""

import abc
import dataclasses
from typing import Any, ClassVar

import numpy as np

from repast_dist.ground.numbers import PositiveInt
from repast_dist.ground.spec import spec
from repast_dist.network.kinds import LayerKind
from repast_dist.network.layer import Layer, Sharing
from repast_dist.network.node import Node, Parameter, Pass, Shape, Sink
from repast_dist.network.shapes import LayerShape

_SPARSE_CONNECTIONS = 15
"""Incoming weights per unit of Martens (2010)."""


@spec
class ProductLayer(Layer):
    """Settings of a layer that multiplies by its weights.

    Attributes
    ----------
    outputs : int
        Output features or channels M.
    name : str
        Name in weights and reports; empty: numbered by the model.
    bias : bool
        Keep a bias as the last row of the weights.
    precondition : bool
        Precondition by K-FAC; False leaves the layer to the plain gradient.
    sharing : {"expand", "reduce"} or None
        Kronecker factors over tokens, or positions of an image, see `Model`; None: as the model
        says.
    """

    outputs: PositiveInt
    name: str = ""
    bias: bool = True
    precondition: bool = True
    sharing: Sharing | None = None


@dataclasses.dataclass(frozen=True)
class ProductNode(Node):
    """A product of input rows with weights, (R, in) -> (R, out).

    A kind of layer says how inputs become rows, and puts the results where its output has them.
    """

    name: str
    input_shape: Shape
    outputs: int
    bias: bool
    preconditioned: bool
    sharing: Sharing

    kind: ClassVar[LayerKind]
    together: ClassVar[bool] = True

    @property
    @abc.abstractmethod
    def inputs(self) -> int:
        """Input features of a row, without the bias."""

    @property
    @abc.abstractmethod
    def positions(self) -> int:
        """Rows per sample, S."""

    def parameters(self) -> tuple[Parameter, ...]:
        """Return the weights."""
        return (self._weights(),)

    def transposed(self, need_input: bool) -> tuple[str, ...]:
        """Return the weights if errors go further back."""
        return (self.name,) if need_input else ()

    def rows_of(self, saved: Any) -> dict[str, np.ndarray]:
        """Return the input rows, which are what a pass keeps."""
        return {self.name: saved}

    def shapes(self) -> tuple[LayerShape, ...]:
        """Return the matrix."""
        return (
            LayerShape(
                name=self.name,
                kind=self.kind,
                in_features=self.inputs,
                out_features=self.outputs,
                vectors_per_sample=self.positions,
                bias=self.bias,
                preconditioned=self.preconditioned,
                factor_vectors_per_sample=1 if self.sharing == "reduce" else None,
            ),
        )

    def multiplied(self, rows: np.ndarray, run: Pass) -> np.ndarray:
        """Return ``rows @ weights + bias``, (R, in) -> (R, out)."""
        y = run.multiply(run.forward[self.name], rows, "forward", self.name)
        return y + run.weights[self.name][-1].astype(np.float64) if self.bias else y

    def sent_back(
        self, errors: np.ndarray, run: Pass, sink: Sink, need_input: bool
    ) -> np.ndarray | None:
        """Record the errors of the outputs and return those of the rows, (R, out) -> (R, in)."""
        sink.errors[self.name] = errors
        if not need_input:
            return None
        return run.multiply(run.backward[self.name], errors, "backward", self.name)

    def _weights(self) -> Parameter:
        return Parameter(
            name=self.name,
            kind=self.kind.name,
            rows=self.inputs + self.bias,
            columns=self.outputs,
            initialise=initial_weights,
            bias=self.bias,
            product=True,
            positions=self.positions,
            sharing=self.sharing,
            without_factors="" if self.preconditioned else "precondition is false: plain gradient",
        )


def initial_weights(
    parameter: Parameter, random: np.random.Generator, initialisation: str
) -> np.ndarray:
    """Return fresh weights, biases 0: (in[+1], out), float64.

    Parameters
    ----------
    parameter : Parameter
        Gives the shape.
    random : Generator
        Drawn from.
    initialisation : {"he", "glorot", "sparse"}
        As in `ModelSpec`.
    """
    shape = (parameter.inputs, parameter.columns)
    if initialisation == "sparse":
        drawn = _sparse(random, *shape)
    else:
        fan = parameter.inputs if initialisation == "he" else sum(shape)
        drawn = random.standard_normal(shape) * np.sqrt(2.0 / fan)
    if parameter.bias:
        drawn = np.concatenate([drawn, np.zeros((1, parameter.columns))])
    return drawn


def _sparse(random: np.random.Generator, inputs: int, outputs: int) -> np.ndarray:
    weights = np.zeros((inputs, outputs))
    count = min(_SPARSE_CONNECTIONS, inputs)
    for unit in range(outputs):
        weights[random.choice(inputs, count, replace=False), unit] = random.standard_normal(count)
    return weights
