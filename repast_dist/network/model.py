"""Networks: built from settings, described as parameters and as a workload of layer shapes."""

import dataclasses
import math
from collections import Counter
from functools import cached_property
from typing import Annotated, Literal

import numpy as np

from repast_dist.ground.errors import SettingsError
from repast_dist.ground.numbers import PositiveInt
from repast_dist.ground.rng import generator
from repast_dist.ground.spec import spec
from repast_dist.network.layer import LAYERS, Layer, Place, Sharing
from repast_dist.network.losses import Loss, LossShape
from repast_dist.network.node import Chain, Parameter
from repast_dist.network.shapes import Workload


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
    loss : str
        ``cross_entropy``: softmax classification. ``next_token``: the same for every token of a
        sample, averaged over them. ``pixel_cross_entropy`` and ``squared_error`` reconstruct the
        input: a Bernoulli likelihood per pixel (inputs in 0..1), or half the squared error.
        ``regression``: half the squared error to a data set's numbers.
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
    layers: tuple[Annotated[Layer, LAYERS.choice()], ...]
    loss: Loss = "cross_entropy"
    sharing: Sharing = "expand"
    initialisation: Literal["he", "glorot", "sparse"] = "he"

    def __post_init__(self) -> None:
        if not self.layers:
            raise ValueError("layers: at least one is required")

    @property
    def classifies(self) -> bool:
        """Whether it chooses among classes, so that it has an accuracy."""
        return self.loss in ("cross_entropy", "next_token")


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
        """Parameters that layers multiply by: what runs on crossbars."""
        return tuple(p for p in self.parameters if p.product)

    @property
    def preconditioned(self) -> tuple[Parameter, ...]:
        """Parameters that K-FAC preconditions."""
        return tuple(p for p in self.parameters if p.preconditioned)

    @cached_property
    def workload(self) -> Workload:
        """The network as rows of what its layers compute; products keep their weights' names."""
        *rows, width = self.chain.output_shape
        return Workload(
            name=self.spec.name,
            layers=self.chain.shapes(),
            losses=(LossShape(loss=self.spec.loss, rows=math.prod(rows), width=width),),
            input_shape=tuple(self.spec.input_shape),
            source="trained in this run",
            cuts=tuple(self.chain.cuts),
        )

    def between(self, first: int, last: int) -> "Model":
        """Return the part of the network that has the rows ``first:last`` of the workload, both of
        them among its cuts or its ends.
        """
        chain = self.chain.between(first, last)
        return dataclasses.replace(self, chain=chain, parameters=chain.parameters())


def build_model(spec: ModelSpec) -> Model:
    """Build a network; sizes follow from the input shape.

    Raises
    ------
    SettingsError
        A layer does not fit what comes before it, a name is used twice, or the output does not fit
        the loss.
    """
    chain = Place("model", spec.sharing).chain(spec.layers, tuple(spec.input_shape), "layers")
    parameters = chain.parameters()
    for names in ([p.name for p in parameters], [shape.name for shape in chain.shapes()]):
        twice = sorted(name for name, times in Counter(names).items() if times > 1)
        if twice:
            raise SettingsError(f"model.layers: names used twice: {', '.join(twice)}")
    if spec.loss == "next_token":
        if len(chain.output_shape) != 2:
            raise SettingsError(
                f"model.layers: the output {chain.output_shape} is no vector per token, which "
                "model.loss=next_token takes; end with a dense layer on tokens"
            )
    elif len(chain.output_shape) != 1:
        raise SettingsError(
            f"model.layers: the output {chain.output_shape} is no vector; "
            "end with flatten or global_pool and a dense layer"
        )
    pixels = math.prod(spec.input_shape)
    reconstructs = spec.loss in ("pixel_cross_entropy", "squared_error")
    if reconstructs and chain.output_shape != (pixels,):
        raise SettingsError(
            f"model.loss: {spec.loss} reconstructs the input and needs {pixels} outputs, "
            f"got {chain.output_shape[0]}"
        )
    return Model(spec, chain, parameters)


def init_weights(model: Model, seed: int) -> dict[str, np.ndarray]:
    """Return fresh weights: name -> (in[+1], out) float32, biases 0.

    Parameters
    ----------
    model : Model
        The network.
    seed : int
        Weights depend on the seed and the layer's name only.
    """
    return {
        p.name: p.initialise(
            p, generator(seed, "weights", p.name), model.spec.initialisation
        ).astype(np.float32)
        for p in model.parameters
    }
