"""Residual networks for images of 32 x 32 pixels, which K-FAC libraries are timed on."""

from typing import Literal

from repast_dist.ground.spec import spec
from repast_dist.network.losses import LossShape
from repast_dist.network.operations import ADDITION, FUNCTION
from repast_dist.network.shapes import LayerShape, Workload, digital_shape
from repast_dist.network.tables.base import NETWORKS, NetworkTable
from repast_dist.network.tables.rows import NORM_NOTE, conv, dense, norm, pool

_SAMPLES = 50_000


@NETWORKS.register
@spec
class CifarResNet(NetworkTable):
    """ResNet-18 for CIFAR-10, without the first pooling, and WRN-28-10."""

    name: Literal["resnet18_cifar", "wrn28_10"]

    def workload(self, sequence: int | None = None) -> Workload:
        """Return the rows."""
        return resnet18_cifar() if self.name == "resnet18_cifar" else wrn28_10()


def resnet18_cifar() -> Workload:
    """ResNet-18 whose first convolution is 3 x 3 (github.com/kuangliu/pytorch-cifar)."""
    layers = [conv("conv1", 3, 64, 3, 32, bias=False), norm("conv1.norm", 64, 32)]
    before, size = 64, 32
    for stage, width in enumerate((64, 128, 256, 512), 1):
        for number in range(2):
            name = f"layer{stage}.{number}"
            size //= 2 if stage > 1 and number == 0 else 1
            elements = width * size * size
            layers += [
                conv(f"{name}.conv1", before, width, 3, size, bias=False),
                norm(f"{name}.norm1", width, size),
                conv(f"{name}.conv2", width, width, 3, size, bias=False),
                norm(f"{name}.norm2", width, size, activation=False),
            ]
            if before != width:
                layers += [
                    conv(f"{name}.shortcut", before, width, 1, size, bias=False),
                    norm(f"{name}.shortcut.norm", width, size, activation=False),
                ]
            layers.append(digital_shape(f"{name}.add", elements, (ADDITION + FUNCTION) * elements))
            before = width
    return _cifar("resnet18_cifar", layers, before, size, "He et al., 2016; pytorch-cifar")


def wrn28_10() -> Workload:
    """WRN-28-10 (Zagoruyko and Komodakis, 2016): normalisation comes before convolutions."""
    layers = [conv("conv1", 3, 16, 3, 32, bias=False)]
    before, size = 16, 32
    for stage, width in enumerate((160, 320, 640), 1):
        for number in range(4):
            name = f"block{stage}.{number}"
            read = size
            size //= 2 if stage > 1 and number == 0 else 1
            elements = width * size * size
            layers += [
                norm(f"{name}.norm1", before, read),
                conv(f"{name}.conv1", before, width, 3, size, bias=False),
                norm(f"{name}.norm2", width, size),
                conv(f"{name}.conv2", width, width, 3, size, bias=False),
            ]
            if before != width:
                layers.append(conv(f"{name}.shortcut", before, width, 1, size, bias=False))
            layers.append(digital_shape(f"{name}.add", elements, ADDITION * elements))
            before = width
    layers.append(norm("norm", before, size))
    return _cifar("wrn28_10", layers, before, size, "Zagoruyko and Komodakis, 2016")


def _cifar(name: str, layers: list[LayerShape], width: int, size: int, source: str) -> Workload:
    return Workload(
        name=name,
        layers=(
            *layers,
            pool("average_pool", width, size, 1),
            dense("fc", width, 10, activation=False),
        ),
        input_shape=(3, 32, 32),
        source=source,
        assumptions=(NORM_NOTE,),
        samples_per_epoch=_SAMPLES,
        losses=(LossShape(loss="cross_entropy", rows=1, width=10),),
    )
