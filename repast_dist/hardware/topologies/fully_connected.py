"""Fully connected: every chip has a link to every other."""

from typing import Literal

from repast_dist.ground.spec import spec
from repast_dist.hardware.all_reduce import AllReduce, direct_all_reduce_s
from repast_dist.hardware.topology import TOPOLOGIES, Topology


@TOPOLOGIES.register
@spec
class FullyConnected(Topology):
    """Chips with a link to every other; the links share a chip's bandwidth."""

    topology: Literal["fully_connected"] = "fully_connected"

    def steps(self, chips: int) -> float:
        """Return 1: every chip sends to all others at once."""
        return 1

    def direct_steps(self, chips: int) -> float:
        """Return 1."""
        return 1

    def links(self, chips: int) -> int:
        """Return P - 1."""
        return chips - 1

    def all_reduce_algorithms(self) -> tuple[AllReduce, ...]:
        """Return the direct algorithm: two messages, whatever P is."""
        return (direct_all_reduce_s,)
