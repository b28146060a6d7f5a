"""Multi-head self-attention."""

import dataclasses
from typing import Any, ClassVar, Literal

import numpy as np

from repast_dist.ground.numbers import PositiveInt
from repast_dist.ground.spec import spec
from repast_dist.network import functional as f
from repast_dist.network.layer import LAYERS, Layer, Place, Sharing
from repast_dist.network.layers.dense import DenseNode
from repast_dist.network.node import Node, Parameter, Pass, Role, Shape, Sink
from repast_dist.network.shapes import LayerShape, attention_shapes


@LAYERS.register
@spec
class AttentionLayer(Layer):
    """Multi-head self-attention; its four projections are dense layers.

    Attributes
    ----------
    heads : int
        Must divide the features.
    name : str
        Name in weights and reports; empty: numbered by the model.
    causal : bool
        Whether a token attends to itself and those before it only.
    precondition, sharing
        For the projections, as in a dense layer.
    """

    kind: Literal["attention"] = "attention"
    heads: PositiveInt = 1
    causal: bool = False
    name: str = ""
    precondition: bool = True
    sharing: Sharing | None = None

    def build(self, shape: Shape, place: Place) -> Node:
        """Return the node."""
        place.expect(len(shape) == 2, "attention takes tokens: put patches before")
        width = shape[1]
        fits = width % self.heads == 0
        place.expect(fits, f"{self.heads} heads do not divide {width} features")
        name = place.name(self.name, "attention")
        sharing = self.sharing or place.sharing
        parts = [
            DenseNode(f"{name}.{part}", shape, width, True, self.precondition, sharing)
            for part in ("query", "key", "value", "output")
        ]
        return AttentionNode(name, parts[0], parts[1], parts[2], parts[3], self.heads, self.causal)


@dataclasses.dataclass(frozen=True)
class AttentionNode(Node):
    """Multi-head self-attention on (N, T, D) (Vaswani et al. 2017).

    The projections are dense layers. Scores and the weighted sum of values are products too: of
    every sample and head, one operand is written to the arrays and the other drives them. The
    softmax between them is digital, and leaves out the tokens that come later where attention is
    causal: arrays multiply by whole operands.
    """

    together: ClassVar[bool] = True

    name: str
    query: DenseNode
    key: DenseNode
    value: DenseNode
    output: DenseNode
    heads: int
    causal: bool

    @property
    def output_shape(self) -> Shape:
        """Shape of one sample's output."""
        return self.output.output_shape

    @property
    def _projections(self) -> tuple[DenseNode, DenseNode, DenseNode]:
        return self.query, self.key, self.value

    def parameters(self) -> tuple[Parameter, ...]:
        """Return the weights of the four projections."""
        return tuple(p for part in (*self._projections, self.output) for p in part.parameters())

    def transposed(self, need_input: bool) -> tuple[str, ...]:
        """Return the output projection, and the others if errors go further back."""
        first = [name for part in self._projections for name in part.transposed(need_input)]
        return (*first, *self.output.transposed(True))

    def forward(self, x: np.ndarray, run: Pass) -> tuple[np.ndarray, Any]:
        """Project, attend, project."""
        projected = [part.forward(x, run) for part in self._projections]
        q, k, v = (self._split(y) for y, _ in projected)
        scores = self._multiply("forward", "scores", q, k.swapaxes(2, 3), run)
        if self.causal:
            scores = np.where(np.tri(scores.shape[-1], dtype=bool), scores, -np.inf)
        attention = f.softmax(scores / np.sqrt(q.shape[-1]))
        mixed = self._multiply("forward", "mix", attention, v, run)
        y, rows = self.output.forward(self._merge(mixed), run)
        return y, ([saved for _, saved in projected], rows, q, k, v, attention)

    def backward(
        self, error: np.ndarray, saved: Any, run: Pass, sink: Sink, need_input: bool
    ) -> np.ndarray | None:
        """Backward through the weighted sum, the softmax and the projections."""
        projected, rows, q, k, v, attention = saved
        merged = self.output.backward(error, rows, run, sink, True)
        assert merged is not None
        mixed = self._split(merged)
        weight = self._multiply("backward", "mix", mixed, v.swapaxes(2, 3), run)
        score = attention * (weight - (weight * attention).sum(axis=-1, keepdims=True))
        score /= np.sqrt(q.shape[-1])
        errors = (
            self._multiply("backward", "scores", score, k, run),
            self._multiply("gradient", "scores", score.swapaxes(2, 3), q, run),
            self._of_operand("mix", attention, mixed, run),
        )
        backs = [
            part.backward(self._merge(e), rows, run, sink, need_input)
            for part, e, rows in zip(self._projections, errors, projected, strict=True)
        ]
        return sum(back for back in backs if back is not None) if need_input else None  # type: ignore[return-value]

    def rows_of(self, saved: Any) -> dict[str, np.ndarray]:
        """Return the input rows of the four projections."""
        projected, rows, *_ = saved
        parts = zip((*self._projections, self.output), (*projected, rows), strict=True)
        return {part.name: item for part, item in parts}

    def shapes(self) -> tuple[LayerShape, ...]:
        """Return the projections and, in between, the two products with the softmax."""
        tokens, width = self.query.input_shape
        return (
            *(shape for part in self._projections for shape in part.shapes()),
            *attention_shapes(self.name, width, self.heads, tokens),
            *self.output.shapes(),
        )

    def _of_operand(
        self, product: str, left: np.ndarray, error: np.ndarray, run: Pass
    ) -> np.ndarray:
        """Return left^T error: the arrays hold what drove the product, errors drive them."""
        back = self._multiply("gradient", product, error.swapaxes(2, 3), left, run)
        return back.swapaxes(2, 3)

    def _multiply(
        self, role: Role, product: str, left: np.ndarray, right: np.ndarray, run: Pass
    ) -> np.ndarray:
        """Return left @ right of every sample and head; `right` is written to the arrays."""
        name = f"{self.name}.{product}"
        # Of every call what it is of, step and number; and what follows these.
        places = [(call[1], name, call[0], call[2]) for call in run.calls]
        rests = [call[3:] for call in run.calls]
        # One after the other, samples in order, with heads in order.
        operands, driving = (
            part.reshape(len(places), -1, *part.shape[2:]) for part in (right, left)
        )
        addresses = [(f"{role}_operand", *place) for place in places]
        loaded = run.arithmetic.load_each(role, operands, addresses)
        calls = [(role, *place, *rest) for place, rest in zip(places, rests, strict=True)]
        result = loaded.multiply_each(driving, calls)
        return result.reshape(*left.shape[:3], right.shape[3])

    def _split(self, x: np.ndarray) -> np.ndarray:
        """(N, T, D) -> (N, heads, T, D / heads)."""
        n, tokens, width = x.shape
        return x.reshape(n, tokens, self.heads, width // self.heads).swapaxes(1, 2)

    def _merge(self, x: np.ndarray) -> np.ndarray:
        """Undo `_split`."""
        n, heads, tokens, width = x.shape
        return x.swapaxes(1, 2).reshape(n, tokens, heads * width)
