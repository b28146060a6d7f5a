"""Describes how the chips along one dimension of the network are connected."""

import abc
from typing import Annotated

from annotated_types import Gt

from repast_dist.ground.numbers import NonNegative, PositiveInt
from repast_dist.ground.registry import Registry
from repast_dist.ground.spec import spec
from repast_dist.hardware.all_reduce import ALGORITHMS, AllReduce


@spec
class Topology(abc.ABC):
    """One dimension of the network between chips.

    A topology of your own derives from this class, has a field ``topology: Literal["my_name"] =
    "my_name"``, returns how many messages follow each other and how many links carry them, and is
    registered with `TOPOLOGIES`.

    Attributes
    ----------
    chips : int or None
        Chips along this dimension; None: as many as are left.
    latency_s : float
        Time of an empty message between neighbours.
    bandwidth_bytes_per_s : float
        Bandwidth of one chip along this dimension, in each direction.
    energy_j_per_bit : float
        Energy to move one bit over one link.
    """

    chips: PositiveInt | None = None
    latency_s: NonNegative = 1e-6
    bandwidth_bytes_per_s: Annotated[float, Gt(0)] = 6.4e9
    energy_j_per_bit: NonNegative = 5e-11

    @abc.abstractmethod
    def steps(self, chips: int) -> float:
        """Return how many messages follow each other in a reduce-scatter or all-gather among P
        chips.
        """

    @abc.abstractmethod
    def direct_steps(self, chips: int) -> float:
        """Return how many messages follow each other until P chips have all sent to all others."""

    @abc.abstractmethod
    def links(self, chips: int) -> int:
        """Return the links that one chip has along this dimension; they share its bandwidth."""

    def hops(self, chips: int) -> float:
        """Return the mean number of links between a chip and another, which a byte of an all-to-all
        crosses; 1 unless overridden.
        """
        return 1.0

    def crossed(self, apart: int) -> int:
        """Return the links between two chips whose numbers are so far apart along this dimension; 1
        unless overridden. If all of them send so far at the same time, so many messages share one.
        """
        return 1

    def all_reduce_algorithms(self) -> tuple[AllReduce, ...]:
        """Return the algorithms from which ``interconnect.all_reduce=auto`` takes the fastest."""
        return tuple(ALGORITHMS.values())


TOPOLOGIES: Registry[Topology] = Registry(
    "topology",
    Topology,  # type: ignore[type-abstract]
    tag="topology",
    home="repast_dist.hardware.topologies",
    default="ring",
)
"""Topologies by the name of ``interconnect.dimensions.<n>.topology``."""
