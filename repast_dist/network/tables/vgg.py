"""VGG networks."""

from typing import Literal

from repast_dist.ground.spec import spec
from repast_dist.network.shapes import Workload
from repast_dist.network.tables.base import NETWORKS, NetworkTable
from repast_dist.network.tables.rows import classifier, conv, image_net, pool


@NETWORKS.register
@spec
class Vgg(NetworkTable):
    """VGG networks (Simonyan and Zisserman, 2015)."""

    name: Literal["vgg13", "vgg16", "vgg19"]

    def workload(self, sequence: int | None = None) -> Workload:
        """Return the rows."""
        return vgg(int(self.name.removeprefix("vgg")))


def vgg(depth: int) -> Workload:
    """VGG-13, -16 or -19 (Simonyan and Zisserman, 2015; configurations B, D, E)."""
    repeats = {13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}[depth]
    layers, before, size = [], 3, 224
    for stage, (count, width) in enumerate(zip(repeats, (64, 128, 256, 512, 512), strict=True), 1):
        for number in range(1, count + 1):
            layers.append(conv(f"conv{stage}_{number}", before, width, 3, size))
            before = width
        size //= 2
        layers.append(pool(f"pool{stage}", width, 2, size))
    return image_net(
        f"vgg{depth}",
        (*layers, *classifier(25088)),
        "Simonyan and Zisserman, 2015",
    )
