"""Settings of what is trained, on which data, by which method and in which arithmetic."""

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import Discriminator

from repast_dist.ground.spec import spec

PositiveInt = Annotated[int, Ge(1)]
Fraction = Annotated[float, Ge(0), Lt(1)]
Sharing = Literal["expand", "reduce"]


@spec
class DenseSpec:
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
        Kronecker factors over tokens, see `ModelSpec`; None: as the model says.
    """

    kind: Literal["dense"] = "dense"
    outputs: PositiveInt
    name: str = ""
    bias: bool = True
    precondition: bool = True
    sharing: Sharing | None = None


@spec
class ConvSpec:
    """A square two-dimensional convolution, computed as a product of im2col patches.

    Attributes
    ----------
    outputs : int
        Output channels M.
    kernel, stride, padding : int
        In pixels.
    name, bias, precondition, sharing
        As in `DenseSpec`; the positions of the output image take the place of tokens.
    """

    kind: Literal["conv"] = "conv"
    outputs: PositiveInt
    kernel: PositiveInt = 3
    stride: PositiveInt = 1
    padding: Annotated[int, Ge(0)] = 0
    name: str = ""
    bias: bool = True
    precondition: bool = True
    sharing: Sharing | None = None


@spec
class ActivationSpec:
    """An elementwise function."""

    kind: Literal["relu", "tanh", "sigmoid", "gelu"]


@spec
class PoolSpec:
    """Maximum or mean over windows of ``size`` x ``size`` pixels that do not overlap."""

    kind: Literal["max_pool", "avg_pool"]
    size: Annotated[int, Ge(2)] = 2


@spec
class FlattenSpec:
    """All features of a sample in one row."""

    kind: Literal["flatten"] = "flatten"


@spec
class GlobalPoolSpec:
    """Mean over all positions of an image or all tokens of a sequence."""

    kind: Literal["global_pool"] = "global_pool"


@spec
class NormSpec:
    """Normalisation of each sample on its own, with a scale and a shift per channel.

    On images: group normalisation over ``groups`` groups of channels; on tokens or features:
    layer normalisation (one group). Statistics never cross samples, so results do not depend on
    how a batch is split into micro-batches.

    Attributes
    ----------
    groups : int
        Groups of channels; must divide the channels.
    epsilon : float
        Added to the variance.
    name : str
        Name in weights and reports; empty: numbered by the model.
    """

    kind: Literal["norm"] = "norm"
    groups: PositiveInt = 1
    epsilon: Annotated[float, Gt(0)] = 1e-5
    name: str = ""


@spec
class PatchesSpec:
    """Cut an image into square patches: (N, C, H, W) -> (N, tokens, C * size * size)."""

    kind: Literal["patches"] = "patches"
    size: PositiveInt


@spec
class PositionsSpec:
    """Add a learned vector per token."""

    kind: Literal["positions"] = "positions"
    name: str = ""


@spec
class AttentionSpec:
    """Multi-head self-attention; its four projections are dense layers.

    Attributes
    ----------
    heads : int
        Must divide the features.
    name : str
        Name in weights and reports; empty: numbered by the model.
    precondition, sharing
        For the projections, as in `DenseSpec`.
    """

    kind: Literal["attention"] = "attention"
    heads: PositiveInt = 1
    name: str = ""
    precondition: bool = True
    sharing: Sharing | None = None


@spec
class ResidualSpec:
    """Add to the input what the body makes of it.

    Attributes
    ----------
    body : tuple of layer settings
        The branch.
    shortcut : tuple of layer settings
        Applied to the input before the sum; empty: the identity.
    """

    kind: Literal["residual"] = "residual"
    body: tuple["LayerSpec", ...]
    shortcut: tuple["LayerSpec", ...] = ()


LayerSpec = Annotated[
    DenseSpec
    | ConvSpec
    | ActivationSpec
    | PoolSpec
    | FlattenSpec
    | GlobalPoolSpec
    | NormSpec
    | PatchesSpec
    | PositionsSpec
    | AttentionSpec
    | ResidualSpec,
    Discriminator("kind"),
]


@spec
class ModelSpec:
    """A network, layer by layer; sizes follow from the input.

    Attributes
    ----------
    name : str
        Shown in reports.
    input_shape : tuple of int
        Channels, height, width of one sample.
    layers : tuple of layer settings
        Applied in order.
    loss : {"cross_entropy", "pixel_cross_entropy", "squared_error"}
        ``cross_entropy``: softmax classification. The other two reconstruct the input: a
        Bernoulli likelihood per pixel (inputs in 0..1), or half the squared error.
    sharing : {"expand", "reduce"}
        Kronecker factors of layers that use their weights at several positions or tokens:
        ``expand`` makes every one a row; ``reduce`` makes one row per sample, inputs averaged and
        gradients summed over them, which takes fewer rows (Eschenhagen et al. 2023).
    initialisation : {"he", "glorot", "sparse"}
        Normal with variance 2 / in or 2 / (in + out); or 15 weights per unit from a standard
        normal (Martens 2010, used for deep autoencoders).
    """

    name: str
    input_shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    layers: tuple[LayerSpec, ...]
    loss: Literal["cross_entropy", "pixel_cross_entropy", "squared_error"] = "cross_entropy"
    sharing: Sharing = "expand"
    initialisation: Literal["he", "glorot", "sparse"] = "he"

    def __post_init__(self) -> None:
        if not self.layers:
            raise ValueError("layers: at least one is required")


@spec
class DatasetSpec:
    """The data and their split.

    Attributes
    ----------
    name : {"digits", "fashion_small", "fashion_mnist", "mnist", "cifar10"}
        ``digits``: 1,797 of 8x8 from scikit-learn. ``fashion_small``: 10,000 + 2,000 of 28x28,
        shipped. The others are read from files in `folder`.
    folder : str
        Where the files of data sets that are not shipped lie.
    test_fraction : float
        Share of samples held out; only for ``digits``, the others have their own split.
    split_seed : int
        Seed of that split; apart from the run's seed, so that runs compare on the same test set.
    scaling : {"unit", "standard"}
        Pixels in 0..1; or shifted and scaled to mean 0 and variance 1 over the training set.
    train_samples : int or None
        Use only the first so many training samples; None: all.
    """

    name: Literal["digits", "fashion_small", "fashion_mnist", "mnist", "cifar10"] = "digits"
    folder: str = "data"
    test_fraction: Annotated[float, Gt(0), Lt(1)] = 0.2
    split_seed: Annotated[int, Ge(0)] = 0
    scaling: Literal["unit", "standard"] = "unit"
    train_samples: PositiveInt | None = None


@spec
class OptimizerSpec:
    """How weights are updated.

    Attributes
    ----------
    method : {"kfac", "sgd", "adam"}
        K-FAC; gradient descent with momentum; Adam.
    learning_rate : float
        Of the first step after the warm-up.
    schedule : {"constant", "linear", "cosine"}
        Course of the learning rate down to ``final_rate`` times its value.
    final_rate : float
        Share of the learning rate that is left at the last step.
    warmup_steps : int
        Steps over which the rate rises linearly.
    momentum : float
        Heavy-ball momentum of K-FAC and SGD.
    weight_decay : float
        Added to the (preconditioned) direction as ``weight_decay * w``; biases are left out.
    adam_beta1, adam_beta2, adam_epsilon : float
        Adam (Kingma and Ba 2015).
    damping : float
        K-FAC's lambda.
    damping_form : {"plain", "pi"}
        ``plain`` adds lambda to both factors. ``pi`` adds pi sqrt(lambda) to A and
        sqrt(lambda) / pi to G, pi = sqrt((tr A / dim A) / (tr G / dim G)) (Martens and Grosse
        2015, section 6.3); only A (x) G matters then, not how its scale is split.
    fisher : {"sampled", "exact", "empirical"}
        Output gradients that make G: of one label drawn from the model per sample; of all labels
        weighted by their probability; of the true label.
    factor_decay : float
        Limit of the running average's decay; step k uses min(1 - 1/k, factor_decay).
    kl_clip : float or None
        Bound on the step's predicted KL divergence; None: no bound.
    """

    method: Literal["kfac", "sgd", "adam"] = "kfac"
    learning_rate: Annotated[float, Gt(0)] = 0.1
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    final_rate: Annotated[float, Ge(0), Le(1)] = 0.0
    warmup_steps: Annotated[int, Ge(0)] = 0
    momentum: Fraction = 0.9
    weight_decay: Annotated[float, Ge(0)] = 0.0
    adam_beta1: Fraction = 0.9
    adam_beta2: Fraction = 0.999
    adam_epsilon: Annotated[float, Gt(0)] = 1e-8
    damping: Annotated[float, Gt(0)] = 0.1
    damping_form: Literal["plain", "pi"] = "pi"
    fisher: Literal["sampled", "exact", "empirical"] = "sampled"
    factor_decay: Fraction = 0.95
    kl_clip: Annotated[float, Gt(0)] | None = 0.01


Arithmetic = Literal["float64", "fixed", "analog"]


@spec
class EngineSpec:
    """Which arithmetic does which product.

    Attributes
    ----------
    forward, backward : {"float64", "fixed", "analog"}
        Layer products with the weights and with their transpose.
    gradient : {"float64", "fixed", "analog"}
        Weight gradients: activations by errors.
    factor : {"float64", "fixed", "analog"}
        Kronecker factors: activations by activations, errors by errors.
    inverse : {"float64", "fixed", "analog"}
        Solves with the damped SOI blocks. ``fixed`` rounds the damped block and its inverse.
    fixed_bits : int
        Bits, sign included, of each operand of a ``fixed`` product, on a scale of its own
        largest magnitude; sums are exact.
    fixed_inverse_bits : int
        Bits of the damped block and of its inverse in a ``fixed`` solve.
    """

    forward: Arithmetic = "analog"
    backward: Arithmetic = "analog"
    gradient: Arithmetic = "analog"
    factor: Arithmetic = "analog"
    inverse: Arithmetic = "analog"
    fixed_bits: Annotated[int, Ge(2), Le(24)] = 16
    fixed_inverse_bits: Annotated[int, Ge(2), Le(32)] = 16

    def uses_analog(self) -> bool:
        """Whether any operation runs on crossbars."""
        return "analog" in (self.forward, self.backward, self.gradient, self.factor, self.inverse)
