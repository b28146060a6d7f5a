"""Layers as immutable nodes: forward, backward to the errors of every parameter, and their cost.

A node holds sizes only. Weights, and who multiplies by them, come with a `Pass`; what a backward
pass finds out goes to a `Sink`. Arrays are (N, ...) with samples first: images (N, C, H, W),
tokens (N, T, D), features (N, D).

A layer with weights stores them as (in[+1], out), the bias as the last row, and sees its input as
rows: (N * S, in), S being the positions of an image or the tokens of a sequence.
"""

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from repast_dist.network.shapes import LayerShape

Shape = tuple[int, ...]
Address = tuple[int | str, ...]
Role = Literal["forward", "backward", "gradient", "factor"]


class Product(Protocol):
    """A loaded matrix (K, M), or a stack of them, (B, K, M); or one of either for each of several
    calls.
    """

    def multiply(self, rows: np.ndarray, call: Address) -> np.ndarray:
        """Return ``rows @ matrix``: (R, K) -> (R, M) float64, or (B, R, K) -> (B, R, M); `call`
        addresses read noise.
        """

    def multiply_each(self, rows: np.ndarray, calls: Sequence[Address]) -> np.ndarray:
        """Return the products of several calls, with the bits of one call after the other: (calls,
        R, K) -> (calls, R, M) float64 by one matrix, or by that of every call; of stacks (calls,
        B, R, K) -> (calls, B, R, M).
        """

    def columns(self, start: int, stop: int) -> "Product":
        """Return the columns ``start:stop`` of the same loaded matrices, which are no stack."""

    def rows(self, count: int) -> "Product":
        """Return the first rows of the same loaded matrices, which are no stack."""

    def serving(self, role: Role) -> "Product":
        """Return the same loaded matrix for products of another role."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trainable:
    """One array of weights and how it takes part in training.

    Attributes
    ----------
    name : str
        Key in the weights.
    kind : str
        Kind of layer it belongs to, for reports.
    rows, columns : int
        Shape of the array, the bias row included.
    bias : bool
        Whether the last row is a bias.
    positions : int
        Input vectors per sample, S.
    sharing : {"expand", "reduce"}
        Treatment of the S positions in the Kronecker factors.
    without_factors : str
        Why K-FAC does not precondition it; empty: it does, which takes a product.
    """

    name: str
    kind: str
    rows: int
    columns: int
    bias: bool = False
    positions: int = 1
    sharing: str = "expand"
    without_factors: str

    @property
    def preconditioned(self) -> bool:
        """Whether K-FAC preconditions it."""
        return not self.without_factors


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parameter(Trainable):
    """An array of weights of a layer.

    Attributes
    ----------
    initialise : callable
        Returns fresh values (rows, columns), given the parameter, a generator and the model's
        initialisation.
    product : bool
        Whether the layer multiplies by it, so that gradients are formed from input rows and
        errors; the gradient of any other is found in the backward pass.
    """

    initialise: "Callable[[Parameter, np.random.Generator, str], np.ndarray]"
    product: bool = False

    @property
    def inputs(self) -> int:
        """Input features, without the bias."""
        return self.rows - self.bias


class Arithmetic(Protocol):
    """Who multiplies by matrices that are made in a pass."""

    def load(self, role: Role, matrix: np.ndarray, address: Address) -> Product:
        """Load a matrix (K, M), or a stack of them, (B, K, M)."""

    def load_each(self, role: Role, matrices: np.ndarray, addresses: Sequence[Address]) -> Product:
        """Load a matrix for each of several calls, (calls, K, M), or a stack, (calls, B, K, M)."""


@dataclasses.dataclass(frozen=True)
class Pass:
    """What layers need of the outside in one pass over a micro-batch, or over several of equal
    size: their samples are then one behind the other.

    Attributes
    ----------
    weights : mapping
        Name -> (in[+1], out) array; biases and digital parameters are read from here.
    forward, backward : mapping
        Name -> loaded weights (in, out) and their transpose (out, in).
    arithmetic : Arithmetic
        Loads matrices that are made in this pass for products.
    calls : tuple of tuple
        Address of this pass for every micro-batch, for what varies from product to product (read
        noise).
    """

    weights: Mapping[str, np.ndarray]
    forward: Mapping[str, Product]
    backward: Mapping[str, Product]
    arithmetic: Arithmetic
    calls: tuple[Address, ...]

    @property
    def call(self) -> Address:
        """Address of a pass over one micro-batch."""
        (call,) = self.calls
        return call

    @property
    def load(self) -> Callable[[Role, np.ndarray, Address], Product]:
        """Loads a matrix for one micro-batch: role, (K, M) or (B, K, M), address."""
        return self.arithmetic.load

    def split(self, values: np.ndarray) -> np.ndarray:
        """Return what samples or rows have, (N, ...), by micro-batch: (calls, N / calls, ...)."""
        return values.reshape(len(self.calls), -1, *values.shape[1:])

    def multiply(self, product: Product, rows: np.ndarray, *what: int | str) -> np.ndarray:
        """Return ``rows @ matrix``, (R, K) -> (R, M), of all micro-batches; `what` follows their
        addresses.
        """
        calls = [(*call, *what) for call in self.calls]
        found = product.multiply_each(self.split(rows), calls)
        return found.reshape(-1, found.shape[2])


@dataclasses.dataclass
class Sink:
    """What a backward pass collects.

    Attributes
    ----------
    errors : dict
        Name of a product with weights -> (N * S, out) derivative of each sample's loss by the
        layer's outputs.
    direct : dict
        Name of another parameter -> gradient summed over samples.
    parts : tuple of Sink
        What takes the `direct` gradients of each micro-batch, where a pass has several.
    """

    errors: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    direct: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    parts: "tuple[Sink, ...]" = ()

    @classmethod
    def of(cls, micro_batches: int) -> "Sink":
        """Return one for a pass over so many micro-batches."""
        return cls(parts=tuple(cls() for _ in range(micro_batches)) if micro_batches > 1 else ())

    @property
    def each(self) -> "tuple[Sink, ...]":
        """What takes the gradients that are summed over the samples of a micro-batch, of each."""
        return self.parts or (self,)


class Node(abc.ABC):
    """A layer without state; what it computes and what that costs stand side by side."""

    pointwise: ClassVar[bool] = False
    """Whether it is a function of each number on its own, which runs where the number is made: its
    operations are counted in the row of the layer before, if there is one."""

    together: ClassVar[bool] = False
    """Whether samples of several micro-batches may pass at once: it multiplies by `Pass.multiply`
    or `Arithmetic.load_each`, treats every sample for itself, and sums what it adds to `direct` for
    each micro-batch alone, as `Sink.each` has them."""

    @property
    def passes_together(self) -> bool:
        """`together` of all that it consists of."""
        return self.together

    @property
    @abc.abstractmethod
    def output_shape(self) -> Shape:
        """Shape of one sample's output."""

    @abc.abstractmethod
    def forward(self, x: np.ndarray, run: Pass) -> tuple[np.ndarray, Any]:
        """Return the output and what `backward` and `rows_of` need of this pass."""

    @abc.abstractmethod
    def backward(
        self, error: np.ndarray, saved: Any, run: Pass, sink: Sink, need_input: bool
    ) -> np.ndarray | None:
        """Return the derivative by the input, or None where `need_input` is false."""

    @abc.abstractmethod
    def shapes(self) -> tuple[LayerShape, ...]:
        """Return everything `forward` computes as rows of a workload, in order.

        A product has the name of its parameter. Nothing is left out but data that only move.
        """

    def parameters(self) -> tuple[Parameter, ...]:
        """Return the layer's parameters, in order of use."""
        return ()

    def transposed(self, need_input: bool) -> tuple[str, ...]:
        """Return the weights whose transpose a backward pass multiplies by."""
        return ()

    def rows_of(self, saved: Any) -> dict[str, np.ndarray]:
        """Return name -> (N * S, in) inputs of the products with weights."""
        return {}


@dataclasses.dataclass(frozen=True)
class Chain(Node):
    """Layers one after the other."""

    nodes: tuple[Node, ...]
    input_shape: Shape

    @property
    def passes_together(self) -> bool:
        """Whether several micro-batches may pass all layers at once."""
        return all(node.passes_together for node in self.nodes)

    @property
    def output_shape(self) -> Shape:
        """Shape of one sample's output."""
        return self.nodes[-1].output_shape if self.nodes else self.input_shape

    def parameters(self) -> tuple[Parameter, ...]:
        """Return all parameters in order."""
        return tuple(p for node in self.nodes for p in node.parameters())

    def transposed(self, need_input: bool) -> tuple[str, ...]:
        """Return the weights errors pass through."""
        needs = self._needs(need_input)
        return tuple(
            name
            for node, need in zip(self.nodes, needs, strict=True)
            for name in node.transposed(need)
        )

    def forward(self, x: np.ndarray, run: Pass) -> tuple[np.ndarray, Any]:
        """Apply all layers."""
        saved = []
        for node in self.nodes:
            x, kept = node.forward(x, run)
            saved.append(kept)
        return x, saved

    def backward(
        self, error: np.ndarray, saved: Any, run: Pass, sink: Sink, need_input: bool
    ) -> np.ndarray | None:
        """Go back as far as parameters, or the caller, need."""
        back: np.ndarray | None = error
        steps = list(zip(self.nodes, saved, self._needs(need_input), strict=True))
        for node, kept, need in reversed(steps):
            if back is None:
                break
            back = node.backward(back, kept, run, sink, need)
        return back if need_input else None

    def rows_of(self, saved: Any) -> dict[str, np.ndarray]:
        """Return the input rows of all layers."""
        rows: dict[str, np.ndarray] = {}
        for node, kept in zip(self.nodes, saved, strict=True):
            rows |= node.rows_of(kept)
        return rows

    @property
    def cuts(self) -> dict[int, int]:
        """Row of `shapes` -> number of the layer that begins with it, for all layers but the first
        that have rows of their own. One tensor is all that passes between such a layer and those
        before it.
        """
        found: dict[int, int] = {}
        rows = 0
        for number, node in enumerate(self.nodes):
            own = len(node.shapes())
            if not own or (node.pointwise and rows):
                continue
            if rows:
                found[rows] = number
            rows += own
        return found

    def between(self, first: int, last: int) -> "Chain":
        """Return the layers that have the rows ``first:last`` of `shapes`; both are `cuts` or the
        chain's ends.
        """
        numbers = self.cuts
        start, stop = numbers.get(first, 0), numbers.get(last, len(self.nodes))
        shape = self.nodes[start - 1].output_shape if start else self.input_shape
        return Chain(self.nodes[start:stop], shape)

    def _needs(self, need_input: bool) -> list[bool]:
        """Whether each layer must hand its error on: something before it has parameters."""
        needs, before = [], need_input
        for node in self.nodes:
            needs.append(before)
            before = before or bool(node.parameters())
        return needs

    def shapes(self) -> tuple[LayerShape, ...]:
        """Return the rows of all layers; functions are part of the row that they follow."""
        rows: list[LayerShape] = []
        for node in self.nodes:
            own = node.shapes()
            if node.pointwise and rows:
                rows[-1] = rows[-1].followed_by(sum(row.elementwise_ops for row in own))
            else:
                rows += own
        return tuple(rows)
