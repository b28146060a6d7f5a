"""A ring: every chip has a link to each neighbour."""

from typing import Literal

from repast_dist.ground.spec import spec
from repast_dist.hardware.all_reduce import AllReduce, ring_all_reduce_s
from repast_dist.hardware.topology import TOPOLOGIES, Topology


@TOPOLOGIES.register
@spec
class Ring(Topology):
    """Chips in a ring, with a link each way."""

    topology: Literal["ring"] = "ring"

    def steps(self, chips: int) -> float:
        """Return P - 1: every piece goes round the ring once."""
        return chips - 1

    def direct_steps(self, chips: int) -> float:
        """Return P // 2: the farthest chip is half way round the ring."""
        return chips // 2

    def links(self, chips: int) -> int:
        """Return 2."""
        return 2

    def hops(self, chips: int) -> float:
        """Return floor(P^2 / 4) / (P - 1): the mean distance of two chips the shorter way round the
        ring.
        """
        return (chips**2 // 4) / (chips - 1)

    def crossed(self, apart: int) -> int:
        """Return how far they are apart."""
        return apart

    def all_reduce_algorithms(self) -> tuple[AllReduce, ...]:
        """Return the ring algorithm: messages of the others would cross many links."""
        return (ring_all_reduce_s,)
