"""A switch: every chip has one link, and reaches every other over it."""

import math
from typing import Literal

from repast_dist.ground.spec import spec
from repast_dist.hardware.topology import TOPOLOGIES, Topology


@TOPOLOGIES.register
@spec
class Switch(Topology):
    """Chips on one switch that never blocks."""

    topology: Literal["switch"] = "switch"

    def steps(self, chips: int) -> float:
        """Return ceil(log2 P): recursive halving or doubling."""
        return math.ceil(math.log2(chips))

    def direct_steps(self, chips: int) -> float:
        """Return ceil(log2 P), as Bruck's algorithm takes."""
        return math.ceil(math.log2(chips))

    def links(self, chips: int) -> int:
        """Return 1."""
        return 1
