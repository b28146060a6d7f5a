"""A topology of one's own: a line of chips, a ring without its closing link."""

from typing import Literal

from repast_dist.ground.spec import spec
from repast_dist.hardware.all_reduce import tree_all_reduce_s
from repast_dist.hardware.topology import TOPOLOGIES, Topology


@TOPOLOGIES.register
@spec
class Line(Topology):
    """Chips in a line.

    Attributes
    ----------
    topology : {"line"}
        The topology's name.
    """

    topology: Literal["line"] = "line"

    def steps(self, chips):
        """Return the way from one end to the other."""
        return chips - 1

    def direct_steps(self, chips):
        """Return the same: the ends are farthest apart."""
        return chips - 1

    def links(self, chips):
        """Return 2."""
        return 2

    def hops(self, chips):
        """Return (P + 1) / 3, the mean distance of two chips of a line."""
        return (chips + 1) / 3

    def all_reduce_algorithms(self):
        """Return a tree's."""
        return (tree_all_reduce_s,)
