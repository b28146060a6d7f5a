"""What is trained, as shapes: layer tables of networks, without tensors."""

from repast_dist.workloads.shapes import LayerShape, Workload

__all__ = ["LayerShape", "Workload"]
