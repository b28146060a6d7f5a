"""Densely connected networks."""

from typing import Literal

from repast_dist.ground.spec import spec
from repast_dist.network.shapes import Workload
from repast_dist.network.tables.base import NETWORKS, NetworkTable
from repast_dist.network.tables.rows import conv, dense, image_net, norm, pool


@NETWORKS.register
@spec
class DenseNet(NetworkTable):
    """DenseNet-121 (Huang et al., 2017)."""

    name: Literal["densenet121"] = "densenet121"

    def workload(self, sequence: int | None = None) -> Workload:
        """Return the rows."""
        return densenet121()


def densenet121() -> Workload:
    """DenseNet-121 (Huang et al., 2017), growth 32."""
    growth, size = 32, 56
    layers = [
        conv("conv0", 3, 64, 7, 112, bias=False),
        norm("norm0", 64, 112),
        pool("pool0", 64, 3, 56),
    ]
    features = 64
    for stage, count in enumerate((6, 12, 24, 16), 1):
        for number in range(1, count + 1):
            name = f"block{stage}.{number}"
            layers += [
                norm(f"{name}.norm1", features, size),
                conv(f"{name}.conv1", features, 4 * growth, 1, size, bias=False),
                norm(f"{name}.norm2", 4 * growth, size),
                conv(f"{name}.conv2", 4 * growth, growth, 3, size, bias=False),
            ]
            features += growth
        if stage < 4:
            layers += [
                norm(f"transition{stage}.norm", features, size),
                conv(f"transition{stage}.conv", features, features // 2, 1, size, bias=False),
                pool(f"transition{stage}.pool", features // 2, 2, size // 2),
            ]
            features, size = features // 2, size // 2
    layers.append(norm("norm5", features, size))
    layers.append(pool("average_pool", features, size, 1))
    layers.append(dense("classifier", features, 1000, activation=False))
    return image_net("densenet121", tuple(layers), "Huang et al., 2017")
