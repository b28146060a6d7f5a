"""Settings of layers: the kinds, and how each turns into a node."""

import abc
import dataclasses
from collections import Counter
from typing import Literal

from repast_dist.ground.errors import SettingsError
from repast_dist.ground.registry import Registry
from repast_dist.network.node import Chain, Node, Shape

Sharing = Literal["expand", "reduce"]


class Layer(abc.ABC):
    """Settings of a layer.

    A layer kind is one file: a class with its settings, registered in `LAYERS` and named by a
    field ``kind``, and the `Node` it builds, which computes and says what that costs.
    """

    @abc.abstractmethod
    def build(self, shape: Shape, place: "Place") -> Node:
        """Return the node for samples of a shape, or refuse by ``place.expect``."""


LAYERS: Registry[Layer] = Registry(
    "layer",
    Layer,  # type: ignore[type-abstract]
    tag="kind",
    home="repast_dist.network.layers",
)


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a layer stands in a network.

    Attributes
    ----------
    path : str
        Dotted path of its settings, for messages.
    sharing : {"expand", "reduce"}
        The model's treatment of positions in Kronecker factors.
    numbers : Counter
        How many layers of each kind have been numbered so far.
    """

    path: str
    sharing: Sharing
    numbers: Counter[str] = dataclasses.field(default_factory=Counter)

    def name(self, given: str, kind: str) -> str:
        """Return the given name, or the kind with the next number."""
        if given:
            return given
        self.numbers[kind] += 1
        return f"{kind}{self.numbers[kind]}"

    def expect(self, holds: bool, message: str) -> None:
        """Refuse the layer unless a condition holds.

        Raises
        ------
        SettingsError
            It does not; path and message.
        """
        if not holds:
            raise SettingsError(f"{self.path}: {message}")

    def expect_image(self, shape: Shape, kind: str) -> None:
        """Refuse anything but images.

        Raises
        ------
        SettingsError
            The shape is no (channels, height, width).
        """
        message = f"{kind} takes an image (channels, height, width), not {shape}"
        self.expect(len(shape) == 3, message)

    def chain(self, layers: tuple[Layer, ...], shape: Shape, part: str) -> Chain:
        """Build layers one after the other; `part` names them in the path."""
        nodes: list[Node] = []
        inner = shape
        for number, layer in enumerate(layers):
            where = dataclasses.replace(self, path=f"{self.path}.{part}[{number}]")
            nodes.append(layer.build(inner, where))
            inner = nodes[-1].output_shape
        return Chain(tuple(nodes), shape)
