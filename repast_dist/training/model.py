"""Networks: built from settings, described as parameters and as a workload of layer shapes."""

import dataclasses
from collections import Counter

import numpy as np

from repast_dist.ground.errors import SettingsError
from repast_dist.ground.rng import generator
from repast_dist.training import layers as node
from repast_dist.training.layers import Chain, Node, Parameter, Shape
from repast_dist.training.specs import (
    ActivationSpec,
    AttentionSpec,
    ConvSpec,
    DenseSpec,
    FlattenSpec,
    GlobalPoolSpec,
    LayerSpec,
    ModelSpec,
    NormSpec,
    PatchesSpec,
    PoolSpec,
    PositionsSpec,
    ResidualSpec,
    Sharing,
)
from repast_dist.workloads.shapes import LayerShape, Workload

_SPARSE_CONNECTIONS = 15
"""Incoming weights per unit of Martens (2010)."""


@dataclasses.dataclass(frozen=True)
class Model:
    """A network without its weights.

    Attributes
    ----------
    spec : ModelSpec
        The settings it was built from.
    chain : Chain
        The layers.
    parameters : tuple of Parameter
        Everything that is trained, in order of use.
    """

    spec: ModelSpec
    chain: Chain
    parameters: tuple[Parameter, ...]

    @property
    def products(self) -> tuple[Parameter, ...]:
        """Dense and convolution layers: what runs on crossbars."""
        return tuple(p for p in self.parameters if p.kind in ("dense", "conv"))

    @property
    def preconditioned(self) -> tuple[Parameter, ...]:
        """Layers that K-FAC preconditions."""
        return tuple(p for p in self.products if p.preconditioned)


def build_model(spec: ModelSpec) -> Model:
    """Build a network; sizes follow from the input shape.

    Raises
    ------
    SettingsError
        A layer does not fit what comes before it, a name is used twice, or the output does not fit
        the loss.
    """
    builder = _Builder(spec.sharing)
    chain = builder.chain(spec.layers, tuple(spec.input_shape), "model.layers")
    parameters = chain.parameters()
    twice = sorted(n for n, times in Counter(p.name for p in parameters).items() if times > 1)
    if twice:
        raise SettingsError(f"model.layers: names used twice: {', '.join(twice)}")
    if len(chain.output_shape) != 1:
        raise SettingsError(
            f"model.layers: the output {chain.output_shape} is no vector; "
            "end with flatten or global_pool and a dense layer"
        )
    pixels = int(np.prod(spec.input_shape))
    if spec.loss != "cross_entropy" and chain.output_shape != (pixels,):
        raise SettingsError(
            f"model.loss: {spec.loss} reconstructs the input and needs {pixels} outputs, "
            f"got {chain.output_shape[0]}"
        )
    return Model(spec, chain, parameters)


class _Builder:
    """Turns layer settings into nodes and numbers the layers that have no name."""

    def __init__(self, sharing: Sharing) -> None:
        self._sharing = sharing
        self._numbers: Counter[str] = Counter()

    def chain(self, specs: tuple[LayerSpec, ...], shape: Shape, path: str) -> Chain:
        nodes: list[Node] = []
        inner = shape
        for number, spec in enumerate(specs):
            built = self._node(spec, inner, f"{path}[{number}]")
            nodes.append(built)
            inner = built.output_shape
        return Chain(tuple(nodes), shape)

    def _node(self, spec: LayerSpec, shape: Shape, path: str) -> Node:
        match spec:
            case DenseSpec():
                _expect(len(shape) < 3, path, "dense takes features or tokens: put flatten before")
                name = self._name(spec.name, "dense")
                return node.Dense(
                    name,
                    shape,
                    spec.outputs,
                    spec.bias,
                    spec.precondition,
                    spec.sharing or self._sharing,
                )
            case ConvSpec():
                return self._conv(spec, shape, path)
            case ActivationSpec():
                return node.Activation(spec.kind, shape)
            case PoolSpec():
                _expect_image(shape, path, spec.kind)
                fits = shape[1] % spec.size == 0 and shape[2] % spec.size == 0
                _expect(fits, path, f"windows of {spec.size} do not divide {shape[1:]} pixels")
                pool = node.MaxPool if spec.kind == "max_pool" else node.AvgPool
                return pool(spec.size, shape)
            case FlattenSpec():
                return node.Reshape(shape, (int(np.prod(shape)),))
            case GlobalPoolSpec():
                _expect(len(shape) > 1, path, "global_pool takes an image or tokens")
                return node.GlobalPool(shape)
            case NormSpec():
                channels = shape[0] if len(shape) == 3 else shape[-1]
                fits = channels % spec.groups == 0
                _expect(fits, path, f"{spec.groups} groups do not divide {channels} channels")
                return node.Norm(self._name(spec.name, "norm"), shape, spec.groups, spec.epsilon)
            case PatchesSpec():
                _expect_image(shape, path, spec.kind)
                fits = shape[1] % spec.size == 0 and shape[2] % spec.size == 0
                _expect(fits, path, f"patches of {spec.size} do not divide {shape[1:]} pixels")
                return node.Patches(spec.size, shape)
            case PositionsSpec():
                _expect(len(shape) == 2, path, "positions takes tokens: put patches before")
                return node.Positions(self._name(spec.name, "positions"), shape)
            case AttentionSpec():
                return self._attention(spec, shape, path)
            case ResidualSpec():
                return self._residual(spec, shape, path)

    def _conv(self, spec: ConvSpec, shape: Shape, path: str) -> Node:
        _expect_image(shape, path, "conv")
        fits = min(shape[1:]) + 2 * spec.padding >= spec.kernel
        _expect(fits, path, f"a kernel of {spec.kernel} does not fit {shape[1:]} pixels")
        return node.Conv(
            self._name(spec.name, "conv"),
            shape,
            spec.outputs,
            spec.kernel,
            spec.stride,
            spec.padding,
            spec.bias,
            spec.precondition,
            spec.sharing or self._sharing,
        )

    def _attention(self, spec: AttentionSpec, shape: Shape, path: str) -> Node:
        _expect(len(shape) == 2, path, "attention takes tokens: put patches before")
        width = shape[1]
        _expect(width % spec.heads == 0, path, f"{spec.heads} heads do not divide {width} features")
        name = self._name(spec.name, "attention")
        sharing = spec.sharing or self._sharing
        parts = [
            node.Dense(f"{name}.{part}", shape, width, True, spec.precondition, sharing)
            for part in ("query", "key", "value", "output")
        ]
        return node.Attention(parts[0], parts[1], parts[2], parts[3], spec.heads)

    def _residual(self, spec: ResidualSpec, shape: Shape, path: str) -> Node:
        body = self.chain(spec.body, shape, f"{path}.body")
        shortcut = self.chain(spec.shortcut, shape, f"{path}.shortcut")
        fits = body.output_shape == shortcut.output_shape
        _expect(fits, path, f"body gives {body.output_shape}, shortcut {shortcut.output_shape}")
        return node.Residual(body, shortcut)

    def _name(self, given: str, kind: str) -> str:
        if given:
            return given
        self._numbers[kind] += 1
        return f"{kind}{self._numbers[kind]}"


def _expect(holds: bool, path: str, message: str) -> None:
    if not holds:
        raise SettingsError(f"{path}: {message}")


def _expect_image(shape: Shape, path: str, kind: str) -> None:
    _expect(len(shape) == 3, path, f"{kind} takes an image (channels, height, width), not {shape}")


def init_weights(model: Model, seed: int) -> dict[str, np.ndarray]:
    """Return fresh weights: name -> (in[+1], out) float32, biases 0.

    Parameters
    ----------
    model : Model
        The network.
    seed : int
        Weights depend on the seed and the layer's name only.
    """
    return {p.name: _initial(p, model.spec.initialisation, seed) for p in model.parameters}


def _initial(parameter: Parameter, initialisation: str, seed: int) -> np.ndarray:
    random = generator(seed, "weights", parameter.name)
    shape = (parameter.inputs, parameter.columns)
    if parameter.kind == "norm":
        return np.stack([np.ones(parameter.columns), np.zeros(parameter.columns)]).astype(
            np.float32
        )
    if parameter.kind == "positions":
        return (random.standard_normal(shape) / np.sqrt(parameter.columns)).astype(np.float32)
    if initialisation == "sparse":
        weights = _sparse(random, *shape)
    else:
        fan = parameter.inputs if initialisation == "he" else sum(shape)
        weights = random.standard_normal(shape) * np.sqrt(2.0 / fan)
    if parameter.bias:
        weights = np.concatenate([weights, np.zeros((1, parameter.columns))])
    return weights.astype(np.float32)


def _sparse(random: np.random.Generator, inputs: int, outputs: int) -> np.ndarray:
    weights = np.zeros((inputs, outputs))
    count = min(_SPARSE_CONNECTIONS, inputs)
    for unit in range(outputs):
        weights[random.choice(inputs, count, replace=False), unit] = random.standard_normal(count)
    return weights


@dataclasses.dataclass(frozen=True)
class PreconditioningRow:
    """How one parameter is treated by K-FAC, and why."""

    name: str
    kind: str
    shape: tuple[int, int]
    positions: int
    preconditioned: bool
    reason: str


def preconditioning_table(model: Model) -> list[PreconditioningRow]:
    """Return one row per parameter, in order of use."""
    return [
        PreconditioningRow(
            p.name,
            p.kind,
            (p.rows, p.columns),
            p.positions,
            p.preconditioned,
            _reason(p),
        )
        for p in model.parameters
    ]


def _reason(parameter: Parameter) -> str:
    if parameter.kind not in ("dense", "conv"):
        return f"{parameter.kind} parameters have no Kronecker factors: plain gradient"
    if not parameter.preconditioned:
        return "precondition is false: plain gradient"
    if parameter.positions > 1:
        return f"K-FAC-{parameter.sharing} over {parameter.positions} positions"
    return "K-FAC"


def workload_from_model(model: Model) -> Workload:
    """Return the network as layer shapes, so that cost and numerics describe the same thing.

    Layers keep the names of their weights; parameters that are added digitally appear as
    normalisation layers or digital operations.
    """
    return Workload(
        name=model.spec.name,
        layers=tuple(_layer_shape(p) for p in model.parameters),
        input_shape=tuple(model.spec.input_shape),
        source="trained in this run",
    )


def _layer_shape(parameter: Parameter) -> LayerShape:
    if parameter.kind in ("dense", "conv"):
        return LayerShape(
            name=parameter.name,
            kind="dense" if parameter.kind == "dense" else "conv",
            in_features=parameter.inputs,
            out_features=parameter.columns,
            vectors_per_sample=parameter.positions,
            bias=parameter.bias,
            preconditioned=parameter.preconditioned,
            factor_vectors_per_sample=1 if parameter.sharing == "reduce" else None,
        )
    count = parameter.rows * parameter.columns
    return LayerShape(
        name=parameter.name,
        kind="normalization" if parameter.kind == "norm" else "elementwise",
        in_features=0,
        out_features=parameter.columns,
        bias=False,
        preconditioned=False,
        parameters=count,
        elementwise_ops=count,
    )
