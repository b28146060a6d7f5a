"""Rows that the tables of published networks are made of.

What is counted where, and how much, says `repast_dist.network.operations`, as for every other
network.
"""

from repast_dist.network import kinds
from repast_dist.network.losses import LossShape
from repast_dist.network.operations import ADDITION, FUNCTION, POOL
from repast_dist.network.shapes import (
    LayerShape,
    Workload,
    attention_shapes,
    digital_shape,
    normalization_shape,
)

MNIST_SAMPLES = 60_000
NORM_NOTE = "Normalisation runs in the digital units and gets a first-order update."
_IMAGENET_SAMPLES = 1_281_167


def conv(
    name: str,
    channels_in: int,
    channels_out: int,
    kernel: int,
    size: int,
    *,
    bias: bool = True,
) -> LayerShape:
    """Return a square convolution that gives ``size x size`` positions.

    Parameters
    ----------
    name : str
        Name of the layer.
    channels_in, channels_out, kernel, size : int
        Its shape; `size` is the output's edge.
    bias : bool
        It has a bias, and an activation right behind it; without, a normalisation follows.
    """
    return LayerShape(
        name=name,
        kind=kinds.CONV,
        in_features=channels_in * kernel * kernel,
        out_features=channels_out,
        vectors_per_sample=size * size,
        bias=bias,
        elementwise_ops=FUNCTION * channels_out * size * size if bias else 0,
    )


def pool(name: str, channels: int, window: int, size: int) -> LayerShape:
    """Return pooling of ``window x window`` pixels each to ``size x size`` positions."""
    elements = channels * size * size
    return digital_shape(name, elements, POOL * window * window * elements)


def dense(
    name: str,
    inputs: int,
    outputs: int,
    *,
    vectors: int = 1,
    bias: bool = True,
    activation: bool = True,
    preconditioned: bool = True,
) -> LayerShape:
    """Return a dense layer, used for `vectors` vectors per sample."""
    return LayerShape(
        name=name,
        kind=kinds.DENSE,
        in_features=inputs,
        out_features=outputs,
        vectors_per_sample=vectors,
        bias=bias,
        preconditioned=preconditioned,
        elementwise_ops=FUNCTION * outputs * vectors if activation else 0,
    )


def norm(name: str, channels: int, size: int, *, activation: bool = True) -> LayerShape:
    """Return normalisation of ``size x size`` positions, with the activation behind it."""
    elements = channels * size * size
    extra = FUNCTION * elements if activation else 0
    return normalization_shape(name, channels, size * size, extra_ops=extra)


def transformer_block(
    name: str, width: int, heads: int, tokens: int, fused_qkv: bool = False
) -> list[LayerShape]:
    """Return self-attention and its feed-forward network; `heads` products side by side."""
    added = ADDITION * width * tokens
    if fused_qkv:
        inputs = [dense(f"{name}.qkv", width, 3 * width, vectors=tokens, activation=False)]
    else:
        inputs = [
            dense(f"{name}.{part}", width, width, vectors=tokens, activation=False)
            for part in ("query", "key", "value")
        ]
    return [
        *inputs,
        *attention_shapes(name, width, heads, tokens),
        dense(f"{name}.projection", width, width, vectors=tokens, activation=False),
        digital_shape(f"{name}.add1", width * tokens, added),
        normalization_shape(f"{name}.norm1", width, tokens),
        dense(f"{name}.fc1", width, 4 * width, vectors=tokens),
        dense(f"{name}.fc2", 4 * width, width, vectors=tokens, activation=False),
        digital_shape(f"{name}.add2", width * tokens, added),
        normalization_shape(f"{name}.norm2", width, tokens),
    ]


def image_net(name: str, layers: tuple[LayerShape, ...], source: str) -> Workload:
    """Return a network on 224 x 224 images of ImageNet."""
    noted = any(layer.normalizes for layer in layers)
    return Workload(
        name=name,
        layers=layers,
        input_shape=(3, 224, 224),
        source=source,
        assumptions=(NORM_NOTE,) if noted else (),
        samples_per_epoch=_IMAGENET_SAMPLES,
        losses=(LossShape(loss="cross_entropy", rows=1, width=layers[-1].out_features),),
    )


def classifier(inputs: int) -> tuple[LayerShape, ...]:
    """Return the three dense layers that VGG and MSRA networks end with."""
    return (
        dense("fc1", inputs, 4096),
        dense("fc2", 4096, 4096),
        dense("fc3", 4096, 1000, activation=False),
    )
