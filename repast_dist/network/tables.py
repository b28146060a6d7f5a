"""Layer tables of published networks."""

from collections.abc import Callable, Sequence

from repast_dist.network.operations import ADDITION, FUNCTION
from repast_dist.network.shapes import (
    LayerShape,
    Workload,
    attention_shapes,
    digital_shape,
    normalization_shape,
)

IMAGENET_SAMPLES = 1_281_167
MNIST_SAMPLES = 60_000
_NO_BIAS_NOTE = "Normalisation runs in the digital units and gets a first-order update."


def conv(
    name: str,
    channels_in: int,
    channels_out: int,
    kernel: int,
    size: int,
    *,
    bias: bool = True,
    extra_ops: int = 0,
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
    extra_ops : int
        Digital operations that follow, besides the activation's.
    """
    return LayerShape(
        name=name,
        kind="conv",
        in_features=channels_in * kernel * kernel,
        out_features=channels_out,
        vectors_per_sample=size * size,
        bias=bias,
        elementwise_ops=(FUNCTION * channels_out * size * size if bias else 0) + extra_ops,
    )


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
        kind="dense",
        in_features=inputs,
        out_features=outputs,
        vectors_per_sample=vectors,
        bias=bias,
        preconditioned=preconditioned,
        elementwise_ops=FUNCTION * outputs * vectors if activation else 0,
    )


def embedding(name: str, entries: int, features: int, vectors: int) -> LayerShape:
    """Return a look-up table of `entries` rows."""
    return LayerShape(
        name=name,
        kind="embedding",
        in_features=entries,
        out_features=features,
        vectors_per_sample=vectors,
        bias=False,
        preconditioned=False,
        parameters=entries * features,
        elementwise_ops=features * vectors,
    )


def lenet5() -> Workload:
    """LeNet-5 on 32 x 32 images, with full connections in its second convolution."""
    return Workload(
        name="lenet5",
        layers=(
            conv("conv1", 1, 6, 5, 28, extra_ops=4 * 6 * 14 * 14),
            conv("conv2", 6, 16, 5, 10, extra_ops=4 * 16 * 5 * 5),
            dense("fc1", 400, 120),
            dense("fc2", 120, 84),
            dense("fc3", 84, 10, activation=False),
        ),
        input_shape=(1, 32, 32),
        source="LeCun et al., 1998, with full instead of partial connections in conv2",
        samples_per_epoch=MNIST_SAMPLES,
    )


def vgg(depth: int) -> Workload:
    """VGG-13, -16 or -19 (Simonyan and Zisserman, 2015; configurations B, D, E)."""
    repeats = {13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}[depth]
    layers, before, size = [], 3, 224
    for stage, (count, width) in enumerate(zip(repeats, (64, 128, 256, 512, 512), strict=True), 1):
        for number in range(1, count + 1):
            pooled = width * size * size if number == count else 0
            layers.append(conv(f"conv{stage}_{number}", before, width, 3, size, extra_ops=pooled))
            before = width
        size //= 2
    return _image_net(
        f"vgg{depth}",
        (*layers, *_head(25088)),
        "Simonyan and Zisserman, 2015",
    )


def msra(number: int) -> Workload:
    """MSRA-1, -2 or -3: models A, B and C of He et al., 2015 (parametric rectifiers)."""
    count = {1: 5, 2: 6, 3: 6}[number]
    widths = {1: (256, 512, 512), 2: (256, 512, 512), 3: (384, 768, 896)}[number]
    layers = [conv("conv1", 3, 96, 7, 112, extra_ops=96 * 112 * 112)]
    before = 96
    for stage, (width, size) in enumerate(zip(widths, (56, 28, 14), strict=True), 2):
        for place in range(1, count + 1):
            layers.append(conv(f"conv{stage}_{place}", before, width, 3, size))
            before = width
    # Spatial pyramid pooling to 7 x 7, 3 x 3, 2 x 2 and 1 bins.
    pooled = (49 + 9 + 4 + 1) * before
    layers.append(digital_shape("pyramid_pool", pooled, 14 * 14 * before * 4))
    return _image_net(
        f"msra{number}", (*layers, *_head(pooled)), "He et al., 2015 (Delving deep), table 3"
    )


def resnet(depth: int) -> Workload:
    """ResNet-18, -34, -50, -101 or -152 (He et al., 2016), stride in the 3 x 3 convolution."""
    repeats = {
        18: (2, 2, 2, 2),
        34: (3, 4, 6, 3),
        50: (3, 4, 6, 3),
        101: (3, 4, 23, 3),
        152: (3, 8, 36, 3),
    }[depth]
    block = _bottleneck if depth >= 50 else _basic
    layers = [
        conv("conv1", 3, 64, 7, 112, bias=False),
        normalization_shape("conv1.norm", 64, 112 * 112),
        digital_shape("max_pool", 64 * 56 * 56, 9 * 64 * 56 * 56),
    ]
    before, size = 64, 56
    for stage, (count, width) in enumerate(zip(repeats, (64, 128, 256, 512), strict=True), 1):
        for number in range(count):
            stride = 2 if stage > 1 and number == 0 else 1
            added, before = block(f"layer{stage}.{number}", before, width, size, stride)
            layers += added
            size //= stride
    layers.append(digital_shape("average_pool", before, before * size * size))
    layers.append(dense("fc", before, 1000, activation=False))
    return _image_net(f"resnet{depth}", tuple(layers), "He et al., 2016")


def densenet121() -> Workload:
    """DenseNet-121 (Huang et al., 2017), growth 32."""
    growth, size = 32, 56
    layers = [
        conv("conv0", 3, 64, 7, 112, bias=False),
        normalization_shape("norm0", 64, 112 * 112),
        digital_shape("pool0", 64 * 56 * 56, 9 * 64 * 56 * 56),
    ]
    features = 64
    for stage, count in enumerate((6, 12, 24, 16), 1):
        for number in range(1, count + 1):
            name, area = f"block{stage}.{number}", size * size
            layers += [
                normalization_shape(f"{name}.norm1", features, area),
                conv(f"{name}.conv1", features, 4 * growth, 1, size, bias=False),
                normalization_shape(f"{name}.norm2", 4 * growth, area),
                conv(f"{name}.conv2", 4 * growth, growth, 3, size, bias=False),
            ]
            features += growth
        if stage < 4:
            layers += [
                normalization_shape(f"transition{stage}.norm", features, size * size),
                conv(f"transition{stage}.conv", features, features // 2, 1, size, bias=False),
                digital_shape(
                    f"transition{stage}.pool", features // 2 * size * size // 4, features * size
                ),
            ]
            features, size = features // 2, size // 2
    layers.append(normalization_shape("norm5", features, size * size))
    layers.append(digital_shape("average_pool", features, features * size * size))
    layers.append(dense("classifier", features, 1000, activation=False))
    return _image_net("densenet121", tuple(layers), "Huang et al., 2017")


def bert(size: str, sequence: int) -> Workload:
    """BERT-base or -large (Devlin et al., 2019) with its pooler, without a task's head."""
    blocks, width, heads = {"base": (12, 768, 12), "large": (24, 1024, 16)}[size]
    layers = [
        embedding("embeddings.word", 30522, width, sequence),
        embedding("embeddings.position", 512, width, sequence),
        embedding("embeddings.type", 2, width, sequence),
        normalization_shape("embeddings.norm", width, sequence),
    ]
    for number in range(blocks):
        layers += transformer_block(f"block{number}", width, heads, sequence)
    layers.append(dense("pooler", width, width))
    return Workload(
        name=f"bert_{size}",
        layers=tuple(layers),
        input_shape=(sequence,),
        source="Devlin et al., 2019",
        assumptions=(f"Sequences of {sequence} tokens.", _NO_BIAS_NOTE),
    )


def gpt2_small(sequence: int) -> Workload:
    """GPT-2 small (Radford et al., 2019); the output layer shares the word embedding."""
    width = 768
    layers = [
        embedding("embeddings.word", 50257, width, sequence),
        embedding("embeddings.position", 1024, width, sequence),
    ]
    for number in range(12):
        layers += transformer_block(f"block{number}", width, 12, sequence, fused_qkv=True)
    layers.append(normalization_shape("norm", width, sequence))
    layers.append(
        LayerShape(
            name="head",
            kind="dense",
            in_features=width,
            out_features=50257,
            vectors_per_sample=sequence,
            bias=False,
            preconditioned=False,
            shares_weights_with="embeddings.word",
        )
    )
    return Workload(
        name="gpt2_small",
        layers=tuple(layers),
        input_shape=(sequence,),
        source="Radford et al., 2019",
        assumptions=(
            f"Sequences of {sequence} tokens.",
            "The output layer is not preconditioned: its factor G is as wide as the vocabulary.",
            _NO_BIAS_NOTE,
        ),
    )


def vit_b16() -> Workload:
    """ViT-B/16 on 224 x 224 images (Dosovitskiy et al., 2021)."""
    width, tokens = 768, 197
    layers = [
        conv("patches", 3, width, 16, 14),
        digital_shape("tokens", width * tokens, width * tokens, parameters=width * (tokens + 1)),
    ]
    for number in range(12):
        layers += transformer_block(f"block{number}", width, 12, tokens)
    layers.append(normalization_shape("norm", width, tokens))
    layers.append(dense("head", width, 1000, activation=False))
    return _image_net("vit_b16", tuple(layers), "Dosovitskiy et al., 2021")


NETWORKS: dict[str, Callable[[int | None], Workload]] = {
    "lenet5": lambda _: lenet5(),
    "vgg13": lambda _: vgg(13),
    "vgg16": lambda _: vgg(16),
    "vgg19": lambda _: vgg(19),
    "msra1": lambda _: msra(1),
    "msra2": lambda _: msra(2),
    "msra3": lambda _: msra(3),
    "resnet18": lambda _: resnet(18),
    "resnet34": lambda _: resnet(34),
    "resnet50": lambda _: resnet(50),
    "resnet101": lambda _: resnet(101),
    "resnet152": lambda _: resnet(152),
    "densenet121": lambda _: densenet121(),
    "bert_base": lambda sequence: bert("base", sequence or 128),
    "bert_large": lambda sequence: bert("large", sequence or 128),
    "gpt2_small": lambda sequence: gpt2_small(sequence or 1024),
    "vit_b16": lambda _: vit_b16(),
}
"""Name -> table; the argument is the sequence length of a text network, None for its usual one."""


def _image_net(name: str, layers: tuple[LayerShape, ...], source: str) -> Workload:
    noted = any(layer.kind == "normalization" for layer in layers)
    return Workload(
        name=name,
        layers=layers,
        input_shape=(3, 224, 224),
        source=source,
        assumptions=(_NO_BIAS_NOTE,) if noted else (),
        samples_per_epoch=IMAGENET_SAMPLES,
    )


def _head(inputs: int) -> Sequence[LayerShape]:
    return (
        dense("fc1", inputs, 4096),
        dense("fc2", 4096, 4096),
        dense("fc3", 4096, 1000, activation=False),
    )


def _basic(
    name: str, before: int, width: int, size: int, stride: int
) -> tuple[list[LayerShape], int]:
    after = size // stride
    layers = [
        conv(f"{name}.conv1", before, width, 3, after, bias=False),
        normalization_shape(f"{name}.norm1", width, after * after),
        conv(f"{name}.conv2", width, width, 3, after, bias=False),
        normalization_shape(f"{name}.norm2", width, after * after),
    ]
    return layers + _shortcut(name, before, width, size, after), width


def _bottleneck(
    name: str, before: int, width: int, size: int, stride: int
) -> tuple[list[LayerShape], int]:
    after, wide = size // stride, 4 * width
    layers = [
        conv(f"{name}.conv1", before, width, 1, size, bias=False),
        normalization_shape(f"{name}.norm1", width, size * size),
        conv(f"{name}.conv2", width, width, 3, after, bias=False),
        normalization_shape(f"{name}.norm2", width, after * after),
        conv(f"{name}.conv3", width, wide, 1, after, bias=False),
        normalization_shape(f"{name}.norm3", wide, after * after),
    ]
    return layers + _shortcut(name, before, wide, size, after), wide


def _shortcut(name: str, before: int, width: int, size: int, after: int) -> list[LayerShape]:
    area = after * after
    added = [digital_shape(f"{name}.add", width * area, ADDITION * width * area)]
    if before == width and size == after:
        return added
    return [
        conv(f"{name}.shortcut", before, width, 1, after, bias=False),
        normalization_shape(f"{name}.shortcut.norm", width, area),
        *added,
    ]


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
