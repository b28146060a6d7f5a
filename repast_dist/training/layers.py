"""Layers as immutable nodes: forward, and backward to the errors of every parameter.

A node holds sizes only. Weights, and who multiplies by them, come with a `Pass`; what a backward
pass finds out goes to a `Sink`. Arrays are (N, ...) with samples first: images (N, C, H, W),
tokens (N, T, D), features (N, D).

A layer with weights stores them as (in[+1], out), the bias as the last row, and sees its input as
rows: (N * S, in), S being the positions of an image or the tokens of a sequence.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from repast_dist.training import functional as f
from repast_dist.training.engines import Product

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One array of weights and how it takes part in training.

    Attributes
    ----------
    name : str
        Key in the weights.
    kind : {"dense", "conv", "norm", "positions"}
        ``dense`` and ``conv`` are crossbar products; the others are added digitally.
    rows, columns : int
        Shape of the array, the bias row included.
    bias : bool
        Whether the last row is a bias.
    positions : int
        Input vectors per sample, S.
    preconditioned : bool
        Whether K-FAC may precondition it.
    sharing : {"expand", "reduce"}
        Treatment of the S positions in the Kronecker factors.
    """

    name: str
    kind: str
    rows: int
    columns: int
    bias: bool
    positions: int
    preconditioned: bool
    sharing: str

    @property
    def inputs(self) -> int:
        """Input features, without the bias."""
        return self.rows - self.bias


@dataclasses.dataclass(frozen=True)
class Pass:
    """What layers need of the outside in one pass over one micro-batch.

    Attributes
    ----------
    weights : mapping
        Name -> (in[+1], out) array; biases and digital parameters are read from here.
    forward, backward : mapping
        Name -> loaded weights (in, out) and their transpose (out, in).
    call : tuple
        Address of this pass, for what varies from product to product (read noise).
    """

    weights: Mapping[str, np.ndarray]
    forward: Mapping[str, Product]
    backward: Mapping[str, Product]
    call: tuple[int | str, ...]


@dataclasses.dataclass
class Sink:
    """What a backward pass collects.

    Attributes
    ----------
    errors : dict
        Name of a dense or conv layer -> (N * S, out) derivative of each sample's loss by the
        layer's outputs.
    direct : dict
        Name of another parameter -> gradient summed over samples.
    """

    errors: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    direct: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)


class Node(Protocol):
    """A layer without state."""

    @property
    def output_shape(self) -> Shape:
        """Shape of one sample's output."""

    def parameters(self) -> tuple[Parameter, ...]:
        """Return the layer's parameters, in order of use."""

    def transposed(self, need_input: bool) -> tuple[str, ...]:
        """Return the weights whose transpose a backward pass multiplies by."""

    def forward(self, x: np.ndarray, run: Pass) -> tuple[np.ndarray, Any]:
        """Return the output and what `backward` and `rows_of` need of this pass."""

    def backward(
        self, error: np.ndarray, saved: Any, run: Pass, sink: Sink, need_input: bool
    ) -> np.ndarray | None:
        """Return the derivative by the input, or None where `need_input` is false."""

    def rows_of(self, saved: Any) -> dict[str, np.ndarray]:
        """Return name -> (N * S, in) inputs of the layer's dense and conv products."""


class Stateless:
    """Parts common to layers without parameters."""

    def parameters(self) -> tuple[Parameter, ...]:
        """Return no parameters."""
        return ()

    def transposed(self, need_input: bool) -> tuple[str, ...]:
        """Return no weights."""
        return ()

    def rows_of(self, saved: Any) -> dict[str, np.ndarray]:
        """Return no rows."""
        return {}


@dataclasses.dataclass(frozen=True)
class Dense:
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
            Parameter(
                self.name,
                "dense",
                self.input_shape[-1] + self.bias,
                self.outputs,
                self.bias,
                positions,
                self.preconditioned,
                self.sharing,
            ),
        )

    def transposed(self, need_input: bool) -> tuple[str, ...]:
        """Return the weights if errors go further back."""
        return (self.name,) if need_input else ()

    def forward(self, x: np.ndarray, run: Pass) -> tuple[np.ndarray, Any]:
        """Multiply; the input rows are kept."""
        rows = x.reshape(-1, self.input_shape[-1])
        y = _affine(self.name, rows, self.bias, run)
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


@dataclasses.dataclass(frozen=True)
class Conv:
    """Two-dimensional convolution as a product of im2col patches with (C * k * k, out) weights."""

    name: str
    input_shape: Shape
    outputs: int
    kernel: int
    stride: int
    padding: int
    bias: bool
    preconditioned: bool
    sharing: str

    @property
    def output_shape(self) -> Shape:
        """Shape of one sample's output."""
        height, width = (
            f.output_size(side, self.kernel, self.stride, self.padding)
            for side in self.input_shape[1:]
        )
        return (self.outputs, height, width)

    def parameters(self) -> tuple[Parameter, ...]:
        """Return the weights."""
        _, height, width = self.output_shape
        return (
            Parameter(
                self.name,
                "conv",
                self.input_shape[0] * self.kernel**2 + self.bias,
                self.outputs,
                self.bias,
                height * width,
                self.preconditioned,
                self.sharing,
            ),
        )

    def transposed(self, need_input: bool) -> tuple[str, ...]:
        """Return the weights if errors go further back."""
        return (self.name,) if need_input else ()

    def forward(self, x: np.ndarray, run: Pass) -> tuple[np.ndarray, Any]:
        """Cut patches and multiply; the patches are kept."""
        rows = f.im2col(x, self.kernel, self.stride, self.padding)
        y = _affine(self.name, rows, self.bias, run)
        channels, height, width = self.output_shape
        return y.reshape(len(x), height, width, channels).transpose(0, 3, 1, 2), rows

    def backward(
        self, error: np.ndarray, saved: Any, run: Pass, sink: Sink, need_input: bool
    ) -> np.ndarray | None:
        """Record the output errors, multiply by the transposed weights and add up the patches."""
        rows = error.transpose(0, 2, 3, 1).reshape(-1, self.outputs)
        sink.errors[self.name] = rows
        if not need_input:
            return None
        columns = run.backward[self.name].multiply(rows, (*run.call, "backward", self.name))
        shape = (len(error), *self.input_shape)
        return f.col2im(columns, shape, self.kernel, self.stride, self.padding)

    def rows_of(self, saved: Any) -> dict[str, np.ndarray]:
        """Return the patches."""
        return {self.name: saved}


def _affine(name: str, rows: np.ndarray, bias: bool, run: Pass) -> np.ndarray:
    y = run.forward[name].multiply(rows, (*run.call, "forward", name))
    return y + run.weights[name][-1].astype(np.float64) if bias else y


_GELU_SLOPE = np.sqrt(2.0 / np.pi)
"""Of the tanh form of GELU (Hendrycks and Gimpel 2016)."""
_GELU_CUBE = 0.044715


def _gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1.0 + np.tanh(_GELU_SLOPE * (x + _GELU_CUBE * x**3)))


def _gelu_slope(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    t = np.tanh(_GELU_SLOPE * (x + _GELU_CUBE * x**3))
    inner = _GELU_SLOPE * (1.0 + 3.0 * _GELU_CUBE * x**2)
    return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t**2) * inner


_FUNCTIONS: dict[
    str,
    tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray, np.ndarray], np.ndarray]],
] = {
    "relu": (lambda x: np.maximum(x, 0.0), lambda x, y: (x > 0).astype(x.dtype)),
    "tanh": (np.tanh, lambda x, y: 1.0 - y**2),
    "sigmoid": (f.sigmoid, lambda x, y: y * (1.0 - y)),
    "gelu": (_gelu, _gelu_slope),
}
"""Function of x, and its slope given x and y."""


@dataclasses.dataclass(frozen=True)
class Activation(Stateless):
    """An elementwise function."""

    function: str
    output_shape: Shape

    def forward(self, x: np.ndarray, run: Pass) -> tuple[np.ndarray, Any]:
        """Apply the function."""
        y = _FUNCTIONS[self.function][0](x)
        return y, (x, y)

    def backward(
        self, error: np.ndarray, saved: Any, run: Pass, sink: Sink, need_input: bool
    ) -> np.ndarray | None:
        """Multiply by the slope."""
        return error * _FUNCTIONS[self.function][1](*saved) if need_input else None


@dataclasses.dataclass(frozen=True)
class MaxPool(Stateless):
    """Maximum of each window; of equal values the first takes the error."""

    size: int
    input_shape: Shape

    @property
    def output_shape(self) -> Shape:
        """Shape of one sample's output."""
        channels, height, width = self.input_shape
        return channels, height // self.size, width // self.size

    def forward(self, x: np.ndarray, run: Pass) -> tuple[np.ndarray, Any]:
        """Take the maximum; where it was is kept."""
        windows = f.windows_of(x, self.size)
        where = windows.argmax(axis=-1)[..., None]
        return np.take_along_axis(windows, where, axis=-1)[..., 0], where

    def backward(
        self, error: np.ndarray, saved: Any, run: Pass, sink: Sink, need_input: bool
    ) -> np.ndarray | None:
        """Send the error where the maximum was."""
        if not need_input:
            return None
        windows = np.zeros((*error.shape, self.size**2))
        np.put_along_axis(windows, saved, error[..., None], axis=-1)
        return f.images_of(windows, self.size)


@dataclasses.dataclass(frozen=True)
class AvgPool(Stateless):
    """Mean of each window."""

    size: int
    input_shape: Shape

    @property
    def output_shape(self) -> Shape:
        """Shape of one sample's output."""
        channels, height, width = self.input_shape
        return channels, height // self.size, width // self.size

    def forward(self, x: np.ndarray, run: Pass) -> tuple[np.ndarray, Any]:
        """Take the mean."""
        return f.windows_of(x, self.size).mean(axis=-1), None

    def backward(
        self, error: np.ndarray, saved: Any, run: Pass, sink: Sink, need_input: bool
    ) -> np.ndarray | None:
        """Share the error among the window."""
        if not need_input:
            return None
        shared = np.repeat(error[..., None] / self.size**2, self.size**2, axis=-1)
        return f.images_of(shared, self.size)


@dataclasses.dataclass(frozen=True)
class GlobalPool(Stateless):
    """Mean over the positions of an image (N, C, H, W) or the tokens of (N, T, D)."""

    input_shape: Shape

    @property
    def _axes(self) -> tuple[int, ...]:
        return (2, 3) if len(self.input_shape) == 3 else (1,)

    @property
    def output_shape(self) -> Shape:
        """Shape of one sample's output."""
        return (self.input_shape[0],) if len(self.input_shape) == 3 else (self.input_shape[1],)

    def forward(self, x: np.ndarray, run: Pass) -> tuple[np.ndarray, Any]:
        """Take the mean."""
        return x.mean(axis=self._axes), None

    def backward(
        self, error: np.ndarray, saved: Any, run: Pass, sink: Sink, need_input: bool
    ) -> np.ndarray | None:
        """Share the error among positions."""
        if not need_input:
            return None
        shape = (len(error), *self.input_shape)
        count = np.prod([shape[axis] for axis in self._axes])
        return np.broadcast_to(np.expand_dims(error / count, self._axes), shape)


@dataclasses.dataclass(frozen=True)
class Reshape(Stateless):
    """The same values in another shape (flatten)."""

    input_shape: Shape
    output_shape: Shape

    def forward(self, x: np.ndarray, run: Pass) -> tuple[np.ndarray, Any]:
        """Change the shape."""
        return x.reshape(len(x), *self.output_shape), None

    def backward(
        self, error: np.ndarray, saved: Any, run: Pass, sink: Sink, need_input: bool
    ) -> np.ndarray | None:
        """Change the shape back."""
        return error.reshape(len(error), *self.input_shape) if need_input else None


@dataclasses.dataclass(frozen=True)
class Patches(Stateless):
    """Cut an image into square patches: (N, C, H, W) -> (N, tokens, C * size * size)."""

    size: int
    input_shape: Shape

    @property
    def output_shape(self) -> Shape:
        """Shape of one sample's output."""
        channels, height, width = self.input_shape
        return (height // self.size) * (width // self.size), channels * self.size**2

    def forward(self, x: np.ndarray, run: Pass) -> tuple[np.ndarray, Any]:
        """Cut; patches do not overlap."""
        rows = f.im2col(x, self.size, self.size, 0)
        return rows.reshape(len(x), *self.output_shape), None

    def backward(
        self, error: np.ndarray, saved: Any, run: Pass, sink: Sink, need_input: bool
    ) -> np.ndarray | None:
        """Put the patches back."""
        if not need_input:
            return None
        columns = error.reshape(-1, self.output_shape[1])
        return f.col2im(columns, (len(error), *self.input_shape), self.size, self.size, 0)


@dataclasses.dataclass(frozen=True)
class Positions:
    """Add a learned vector per token."""

    name: str
    output_shape: Shape

    def parameters(self) -> tuple[Parameter, ...]:
        """Return the vectors, (T, D)."""
        tokens, width = self.output_shape
        return (Parameter(self.name, "positions", tokens, width, False, 1, False, "expand"),)

    def transposed(self, need_input: bool) -> tuple[str, ...]:
        """Return no weights."""
        return ()

    def forward(self, x: np.ndarray, run: Pass) -> tuple[np.ndarray, Any]:
        """Add."""
        return x + run.weights[self.name].astype(np.float64), None

    def backward(
        self, error: np.ndarray, saved: Any, run: Pass, sink: Sink, need_input: bool
    ) -> np.ndarray | None:
        """Sum the errors over samples."""
        sink.direct[self.name] = error.sum(axis=0)
        return error if need_input else None

    def rows_of(self, saved: Any) -> dict[str, np.ndarray]:
        """Return no rows."""
        return {}


@dataclasses.dataclass(frozen=True)
class Norm:
    """Group normalisation of images, layer normalisation of tokens and features.

    Weights are (2, channels): the scales, then the shifts.
    """

    name: str
    output_shape: Shape
    groups: int
    epsilon: float

    @property
    def _channels(self) -> int:
        return self.output_shape[0] if len(self.output_shape) == 3 else self.output_shape[-1]

    def _per_channel(self, values: np.ndarray) -> np.ndarray:
        values = values.astype(np.float64)
        return values[:, None, None] if len(self.output_shape) == 3 else values

    def _grouped(self, x: np.ndarray) -> np.ndarray:
        """One row per set of values that is normalised together."""
        if len(self.output_shape) == 3:
            return x.reshape(len(x) * self.groups, -1)
        return x.reshape(-1, self._channels // self.groups)

    def parameters(self) -> tuple[Parameter, ...]:
        """Return scales and shifts."""
        return (Parameter(self.name, "norm", 2, self._channels, True, 1, False, "expand"),)

    def transposed(self, need_input: bool) -> tuple[str, ...]:
        """Return no weights."""
        return ()

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
        sink.direct[self.name] = np.stack([(error * normal).sum(axis=axes), error.sum(axis=axes)])
        if not need_input:
            return None
        scaled = self._grouped(error * self._per_channel(run.weights[self.name][0]))
        rows = self._grouped(normal)
        mean = scaled.mean(axis=1, keepdims=True)
        along = (scaled * rows).mean(axis=1, keepdims=True)
        return ((scaled - mean - rows * along) * inverse).reshape(error.shape)

    def rows_of(self, saved: Any) -> dict[str, np.ndarray]:
        """Return no rows."""
        return {}


@dataclasses.dataclass(frozen=True)
class Attention:
    """Multi-head self-attention on (N, T, D) (Vaswani et al. 2017).

    The projections run where the engine runs layers; scores, softmax and the weighted sum of
    values are digital.
    """

    query: Dense
    key: Dense
    value: Dense
    output: Dense
    heads: int

    @property
    def output_shape(self) -> Shape:
        """Shape of one sample's output."""
        return self.output.output_shape

    @property
    def _projections(self) -> tuple[Dense, Dense, Dense]:
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
        attention = f.softmax(q @ k.swapaxes(2, 3) / np.sqrt(q.shape[-1]))
        y, rows = self.output.forward(self._merge(attention @ v), run)
        return y, ([saved for _, saved in projected], rows, q, k, v, attention)

    def backward(
        self, error: np.ndarray, saved: Any, run: Pass, sink: Sink, need_input: bool
    ) -> np.ndarray | None:
        """Backward through the weighted sum, the softmax and the projections."""
        projected, rows, q, k, v, attention = saved
        merged = self.output.backward(error, rows, run, sink, True)
        assert merged is not None
        mixed = self._split(merged)
        weight = mixed @ v.swapaxes(2, 3)
        score = attention * (weight - (weight * attention).sum(axis=-1, keepdims=True))
        score /= np.sqrt(q.shape[-1])
        errors = (score @ k, score.swapaxes(2, 3) @ q, attention.swapaxes(2, 3) @ mixed)
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

    def _split(self, x: np.ndarray) -> np.ndarray:
        """(N, T, D) -> (N, heads, T, D / heads)."""
        n, tokens, width = x.shape
        return x.reshape(n, tokens, self.heads, width // self.heads).swapaxes(1, 2)

    def _merge(self, x: np.ndarray) -> np.ndarray:
        """Undo `_split`."""
        n, heads, tokens, width = x.shape
        return x.swapaxes(1, 2).reshape(n, tokens, heads * width)


@dataclasses.dataclass(frozen=True)
class Chain:
    """Layers one after the other."""

    nodes: tuple[Node, ...]
    input_shape: Shape

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

    def _needs(self, need_input: bool) -> list[bool]:
        """Whether each layer must hand its error on: something before it has parameters."""
        needs, before = [], need_input
        for node in self.nodes:
            needs.append(before)
            before = before or bool(node.parameters())
        return needs


@dataclasses.dataclass(frozen=True)
class Residual:
    """shortcut(x) + body(x)."""

    body: Chain
    shortcut: Chain

    @property
    def output_shape(self) -> Shape:
        """Shape of one sample's output."""
        return self.body.output_shape

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
