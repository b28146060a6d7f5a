"""Layers as the matrices that crossbars multiply by: what every cost starts from.

A layer with weights is a matrix of ``in_features`` rows (K) and ``out_features`` columns (M) that
``vectors_per_sample`` (S) input vectors per sample are multiplied by. A convolution is written
by its im2col form: K counts input channels x kernel height x kernel width, S counts output
positions. Everything a training step does to a layer follows from K, M and S.
"""

import dataclasses
from collections import Counter
from functools import cached_property
from typing import Annotated

from annotated_types import Ge, MinLen

from repast_dist.ground.numbers import some_of
from repast_dist.ground.spec import spec
from repast_dist.network import kinds
from repast_dist.network.kinds import LayerKind
from repast_dist.network.losses import LossShape
from repast_dist.network.operations import NORMALIZATION, SOFTMAX

Count = Annotated[int, Ge(0)]


@spec
class LayerShape:
    """One layer of a network.

    Attributes
    ----------
    name : str
        Name, unique in the workload.
    kind : LayerKind
        What the layer makes the hardware do.
    in_features : int
        Rows K of the matrix of one group, without the bias: input channels x kernel height x
        kernel width of a convolution.
    out_features : int
        Columns M of the matrix of one group.
    vectors_per_sample : int
        Input vectors S per sample: output positions of a convolution, tokens of a transformer.
    bias : bool
        The layer has a bias of ``groups * out_features`` parameters; its SOI factor A is then one
        wider than ``in_features``.
    preconditioned : bool
        The second-order method treats the layer; others get a first-order update.
    groups : int
        Equal, independent matrices side by side: channels of a depthwise convolution, heads of
        an attention product. Inputs and outputs of a group are its own.
    elementwise_ops : int
        Digital operations per sample that follow the product: activation, pooling, addition,
        normalisation.
    parameters : int or None
        Trainable numbers; None: ``groups * (K * M + M if bias)`` for layers with weights, 0 for
        ``matmul`` and ``elementwise``. Given for layers where the shape does not tell, such as
        normalisation and embeddings.
    factor_vectors_per_sample : int or None
        Rows per sample that the SOI factors are made of; None: ``vectors_per_sample``
        (K-FAC-expand). 1: inputs are averaged and errors summed over the vectors of a sample
        first (K-FAC-reduce).
    trained : bool
        Its weights are trained: written in every step, with gradients.
    shares_weights_with : str
        Name of the layer whose weights are used again; empty: none.
    """

    name: str
    kind: LayerKind
    in_features: Count
    out_features: Count
    vectors_per_sample: Annotated[int, Ge(1)] = 1
    bias: bool = True
    preconditioned: bool = True
    groups: Annotated[int, Ge(1)] = 1
    elementwise_ops: Count = 0
    parameters: Count | None = None
    factor_vectors_per_sample: Annotated[int, Ge(1)] | None = None
    trained: bool = True
    shares_weights_with: str = ""

    def __post_init__(self) -> None:
        if self.has_weights and not (self.in_features and self.out_features):
            raise ValueError(
                f"layer '{self.name}': in_features and out_features of a {self.kind.name} layer "
                f"must be at least 1, got {self.in_features} and {self.out_features}"
            )
        if self.preconditioned and not self.kind.has_factors:
            raise ValueError(
                f"layer '{self.name}': a {self.kind.name} layer has no SOI factors; valid: "
                "preconditioned=False"
            )
        if self.preconditioned and self.groups > 1:
            raise ValueError(f"layer '{self.name}': a layer of several groups has no SOI factors")

    def followed_by(self, operations: int) -> "LayerShape":
        """Return the row with digital operations on its results: functions of one variable."""
        return dataclasses.replace(self, elementwise_ops=self.elementwise_ops + operations)

    @property
    def has_weights(self) -> bool:
        """Weights lie in crossbars."""
        return self.kind.has_weights

    @property
    def operand_written(self) -> bool:
        """The matrix is made of activations, and written anew for every sample."""
        return self.kind.operand_written

    @property
    def normalizes(self) -> bool:
        """It is a normalisation, which gets a first-order update."""
        return self.kind.normalizes

    @property
    def on_crossbars(self) -> bool:
        """Products run on crossbars: with weights, or with activations written for each sample."""
        return self.has_weights or self.operand_written

    @property
    def factor_a_size(self) -> int:
        """Width of the SOI factor A: inputs and, with a bias, the homogeneous coordinate."""
        return self.in_features + int(self.bias)

    @property
    def factor_g_size(self) -> int:
        """Width of the SOI factor G."""
        return self.out_features

    @property
    def factor_vectors(self) -> int:
        """Rows per sample that the SOI factors are made of."""
        given = self.factor_vectors_per_sample
        return self.vectors_per_sample if given is None else given

    @property
    def combines(self) -> bool:
        """Vectors of a sample are combined before they form factors."""
        return self.factor_vectors < self.vectors_per_sample

    def sampled_factor_vectors(self, share: float) -> int:
        """Return the rows per sample that form factors: a share of the vectors, rounded up."""
        return self.factor_vectors if self.combines else some_of(share, self.factor_vectors)

    @property
    def weight_count(self) -> int:
        """Numbers in the matrices, without biases; 0 where there are no weights."""
        if not self.has_weights or self.shares_weights_with:
            return 0
        return self.groups * self.in_features * self.out_features

    @property
    def parameter_count(self) -> int:
        """Trainable numbers, biases included."""
        if self.parameters is not None:
            return self.parameters
        if self.shares_weights_with or not self.has_weights:
            return 0
        return self.weight_count + (self.groups * self.out_features if self.bias else 0)

    @property
    def macs_per_sample(self) -> int:
        """Multiply-accumulate operations of the forward product of one sample, without the bias."""
        if not self.on_crossbars:
            return 0
        return self.groups * self.in_features * self.out_features * self.vectors_per_sample

    @property
    def output_elements_per_sample(self) -> int:
        """Elements of the output of one sample."""
        return self.groups * self.out_features * self.vectors_per_sample


@spec
class Workload:
    """A network as a table of layers, in the order in which they run.

    Attributes
    ----------
    name : str
        Name of the network.
    layers : tuple of LayerShape
        The layers.
    input_shape : tuple of int
        Shape of one sample, channels first; empty if it plays no part.
    source : str
        Where the table comes from.
    assumptions : tuple of str
        What was assumed where the source does not say, one sentence each.
    samples_per_epoch : int or None
        Samples of the data set the network is usually trained on; None: unknown.
    losses : tuple of LossShape
        What its outputs are trained for, at most one per layer; empty: its losses are not priced.
    cuts : tuple of int or None
        Layers before which one tensor is all that goes on, so that another chip may take over;
        None: before any layer. Empty: the network cannot be spread over chips.
    """

    name: str
    layers: Annotated[tuple[LayerShape, ...], MinLen(1)]
    input_shape: tuple[int, ...] = ()
    source: str = ""
    assumptions: tuple[str, ...] = ()
    samples_per_epoch: Annotated[int, Ge(1)] | None = None
    losses: tuple[LossShape, ...] = ()
    cuts: tuple[Annotated[int, Ge(1)], ...] | None = None

    def __post_init__(self) -> None:
        names = [layer.name for layer in self.layers]
        twice = {name for name, times in Counter(names).items() if times > 1}
        if twice:
            raise ValueError(f"workload '{self.name}': layer names used twice: {sorted(twice)}")
        ends = Counter(loss.layer or names[-1] for loss in self.losses)
        if wrong := {name for name, times in ends.items() if times > 1 or name not in names}:
            raise ValueError(
                f"workload '{self.name}': losses of layers that are missing, or have several: "
                f"{sorted(wrong)}"
            )

    def __hash__(self) -> int:
        # Plans of many chips look up what was worked out of a network.
        return hash((self.name, len(self.layers), self.parameter_count))

    @cached_property
    def parameter_count(self) -> int:
        """Trainable numbers of all layers."""
        return sum(layer.parameter_count for layer in self.layers)

    @cached_property
    def macs_per_sample(self) -> int:
        """Multiply-accumulate operations of one sample's forward pass."""
        return sum(layer.macs_per_sample for layer in self.layers)

    @cached_property
    def digital_ops_per_sample(self) -> int:
        """Digital operations of one sample's forward pass."""
        return sum(layer.elementwise_ops for layer in self.layers)

    def loss_of(self, layer: int) -> LossShape | None:
        """Return the loss of a layer's outputs, if it has one."""
        last = self.layers[-1].name
        name = self.layers[layer].name
        return next((loss for loss in self.losses if (loss.layer or last) == name), None)

    @cached_property
    def preconditioned_parameters(self) -> int:
        """Trainable numbers that a second-order method reaches."""
        return sum(layer.parameter_count for layer in self.layers if layer.preconditioned)

    @cached_property
    def preconditioned_macs(self) -> int:
        """Multiply-accumulate operations of the layers that a second-order method reaches."""
        return sum(layer.macs_per_sample for layer in self.layers if layer.preconditioned)


def digital_shape(name: str, elements: int, operations: int, parameters: int = 0) -> LayerShape:
    """Return digital work as a row: pooling, addition, a function; `elements` leave it."""
    return LayerShape(
        name=name,
        kind=kinds.ELEMENTWISE,
        in_features=0,
        out_features=elements,
        bias=False,
        preconditioned=False,
        elementwise_ops=operations,
        parameters=parameters,
    )


def normalization_shape(name: str, features: int, vectors: int, extra_ops: int = 0) -> LayerShape:
    """Return normalisation with a scale and a shift per feature as a row; `extra_ops` follow."""
    return LayerShape(
        name=name,
        kind=kinds.NORMALIZATION,
        in_features=features,
        out_features=features,
        vectors_per_sample=vectors,
        bias=False,
        preconditioned=False,
        parameters=2 * features,
        elementwise_ops=NORMALIZATION * features * vectors + extra_ops,
    )


def embedding_shape(name: str, entries: int, features: int, vectors: int) -> LayerShape:
    """Return a table of `entries` rows, of which `vectors` are looked up per sample, as a row."""
    return LayerShape(
        name=name,
        kind=kinds.EMBEDDING,
        in_features=entries,
        out_features=features,
        vectors_per_sample=vectors,
        bias=False,
        preconditioned=False,
        parameters=entries * features,
        elementwise_ops=features * vectors,
    )


def attention_shapes(name: str, width: int, heads: int, tokens: int) -> tuple[LayerShape, ...]:
    """Return scores with their softmax, and the weighted sum, of self-attention as rows.

    Per head, (tokens, width / heads) queries multiply the keys, and (tokens, tokens) weights the
    values; keys and values are written to the arrays for every sample.
    """
    each = width // heads
    softmax = SOFTMAX * heads * tokens * tokens
    sizes = (("scores", each, tokens, softmax), ("mix", tokens, each, 0))
    return tuple(
        LayerShape(
            name=f"{name}.{part}",
            kind=kinds.MATMUL,
            in_features=inner,
            out_features=outer,
            vectors_per_sample=tokens,
            groups=heads,
            bias=False,
            preconditioned=False,
            elementwise_ops=operations,
        )
        for part, inner, outer, operations in sizes
    )
