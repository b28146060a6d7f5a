"""What is trained: layers that compute and say what that costs, tables of networks, files."""

from repast_dist.network import kinds
from repast_dist.network.shapes import LayerShape, Workload

__all__ = ["LayerShape", "Workload", "kinds"]
