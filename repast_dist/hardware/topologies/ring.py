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
        """Return P - 1: pieces go once round."""
        return chips - 1

    def direct_steps(self, chips: int) -> float:
        """Return P // 2: the farthest chip is half way round."""
        return chips // 2

    def links(self, chips: int) -> int:
        """Return 2."""
        return 2

    def hops(self, chips: int) -> float:
        """Return P / 4: in both directions a byte goes a quarter of the way round on average."""
        return max(1.0, chips / 4.0)

    def all_reduce_algorithms(self) -> tuple[AllReduce, ...]:
        """Return the ring algorithm; the others would cross many links with every message."""
        return (ring_all_reduce_s,)
