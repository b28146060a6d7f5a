"""Holds the settings of the network between chips."""

from typing import Annotated, Literal

from annotated_types import Ge, Le, MinLen

from repast_dist.ground.numbers import NonNegative
from repast_dist.ground.spec import spec
from repast_dist.hardware.topology import TOPOLOGIES, Topology


@spec
class InterconnectSpec:
    """The network between chips, innermost dimension first.

    Attributes
    ----------
    name : str
        Name of the preset.
    source : str
        Where the figures come from.
    dimensions : tuple of Topology
        One entry per dimension; chips with consecutive numbers are neighbours along the first.
    all_reduce : {"auto", "ring", "halving_doubling", "tree"}
        Algorithm of an all-reduce along one dimension; ``auto``: the ring algorithm on a ring, and
        the fastest one on other topologies.
    element_bytes : int
        Bytes of each number that is exchanged.
    reduce_s_per_byte : float
        Time that a chip takes to add received numbers to its own, per byte.
    """

    name: str = "ring"
    source: str
    dimensions: Annotated[tuple[Annotated[Topology, TOPOLOGIES.choice()], ...], MinLen(1)]
    all_reduce: Literal["auto", "ring", "halving_doubling", "tree"] = "auto"
    element_bytes: Annotated[int, Ge(1), Le(8)] = 4
    reduce_s_per_byte: NonNegative = 0.0

    def __post_init__(self) -> None:
        open_ended = [number for number, d in enumerate(self.dimensions) if d.chips is None]
        if open_ended and open_ended != [len(self.dimensions) - 1]:
            raise ValueError("only the last dimension may leave out chips")
