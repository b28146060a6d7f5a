"""Residual networks."""

from typing import Literal

from repast_dist.ground.spec import spec
from repast_dist.network.operations import ADDITION, FUNCTION
from repast_dist.network.shapes import LayerShape, Workload, digital_shape
from repast_dist.network.tables.base import NETWORKS, NetworkTable
from repast_dist.network.tables.rows import conv, dense, image_net, norm, pool


@NETWORKS.register
@spec
class ResNet(NetworkTable):
    """Residual networks (He et al., 2016)."""

    name: Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]

    def workload(self, sequence: int | None = None) -> Workload:
        """Return the rows."""
        return resnet(int(self.name.removeprefix("resnet")))


def resnet(depth: int) -> Workload:
    """ResNet-18, -34, -50, -101 or -152 (He et al., 2016), stride in the 3 x 3 convolution."""
    repeats = {
        18: (2, 2, 2, 2),
        34: (3, 4, 6, 3),
        50: (3, 4, 6, 3),
        101: (3, 4, 23, 3),
        152: (3, 8, 36, 3),
    }[depth]
    block = _bottleneck if depth >= 50 else _basic
    layers = [
        conv("conv1", 3, 64, 7, 112, bias=False),
        norm("conv1.norm", 64, 112),
        pool("max_pool", 64, 3, 56),
    ]
    before, size = 64, 56
    for stage, (count, width) in enumerate(zip(repeats, (64, 128, 256, 512), strict=True), 1):
        for number in range(count):
            stride = 2 if stage > 1 and number == 0 else 1
            added, before = block(f"layer{stage}.{number}", before, width, size, stride)
            layers += added
            size //= stride
    layers.append(pool("average_pool", before, size, 1))
    layers.append(dense("fc", before, 1000, activation=False))
    return image_net(f"resnet{depth}", tuple(layers), "He et al., 2016")


def _basic(
    name: str, before: int, width: int, size: int, stride: int
) -> tuple[list[LayerShape], int]:
    after = size // stride
    layers = [
        conv(f"{name}.conv1", before, width, 3, after, bias=False),
        norm(f"{name}.norm1", width, after),
        conv(f"{name}.conv2", width, width, 3, after, bias=False),
        norm(f"{name}.norm2", width, after, activation=False),
    ]
    return layers + _shortcut(name, before, width, size, after), width


def _bottleneck(
    name: str, before: int, width: int, size: int, stride: int
) -> tuple[list[LayerShape], int]:
    after, wide = size // stride, 4 * width
    layers = [
        conv(f"{name}.conv1", before, width, 1, size, bias=False),
        norm(f"{name}.norm1", width, size),
        conv(f"{name}.conv2", width, width, 3, after, bias=False),
        norm(f"{name}.norm2", width, after),
        conv(f"{name}.conv3", width, wide, 1, after, bias=False),
        norm(f"{name}.norm3", wide, after, activation=False),
    ]
    return layers + _shortcut(name, before, wide, size, after), wide


def _shortcut(name: str, before: int, width: int, size: int, after: int) -> list[LayerShape]:
    elements = width * after * after
    added = [digital_shape(f"{name}.add", elements, (ADDITION + FUNCTION) * elements)]
    if before == width and size == after:
        return added
    return [
        conv(f"{name}.shortcut", before, width, 1, after, bias=False),
        norm(f"{name}.shortcut.norm", width, after, activation=False),
        *added,
    ]
