"""MSRA networks."""

from typing import Literal

from repast_dist.ground.spec import spec
from repast_dist.network.shapes import Workload, digital_shape
from repast_dist.network.tables.base import NETWORKS, NetworkTable
from repast_dist.network.tables.rows import classifier, conv, image_net, pool


@NETWORKS.register
@spec
class Msra(NetworkTable):
    """MSRA networks (He et al., 2015)."""

    name: Literal["msra1", "msra2", "msra3"]

    def workload(self, sequence: int | None = None) -> Workload:
        """Return the rows."""
        return msra(int(self.name.removeprefix("msra")))


def msra(number: int) -> Workload:
    """MSRA-1, -2 or -3: models A, B and C of He et al., 2015 (parametric rectifiers)."""
    count = {1: 5, 2: 6, 3: 6}[number]
    widths = {1: (256, 512, 512), 2: (256, 512, 512), 3: (384, 768, 896)}[number]
    layers = [conv("conv1", 3, 96, 7, 112), pool("pool1", 96, 2, 56)]
    before = 96
    for stage, (width, size) in enumerate(zip(widths, (56, 28, 14), strict=True), 2):
        for place in range(1, count + 1):
            layers.append(conv(f"conv{stage}_{place}", before, width, 3, size))
            before = width
    # Spatial pyramid pooling to 7 x 7, 3 x 3, 2 x 2 and 1 bins.
    pooled = (49 + 9 + 4 + 1) * before
    layers.append(digital_shape("pyramid_pool", pooled, 14 * 14 * before * 4))
    return image_net(
        f"msra{number}", (*layers, *classifier(pooled)), "He et al., 2015 (Delving deep), table 3"
    )
