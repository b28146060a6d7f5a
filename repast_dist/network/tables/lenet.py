"""LeNet-5."""

from typing import Literal

from repast_dist.ground.spec import spec
from repast_dist.network.losses import LossShape
from repast_dist.network.shapes import Workload
from repast_dist.network.tables.base import NETWORKS, NetworkTable
from repast_dist.network.tables.rows import MNIST_SAMPLES, conv, dense, pool


@NETWORKS.register
@spec
class LeNet(NetworkTable):
    """LeNet-5 (LeCun et al., 1998)."""

    name: Literal["lenet5"] = "lenet5"

    def workload(self, sequence: int | None = None) -> Workload:
        """Return the rows."""
        return lenet5()


def lenet5() -> Workload:
    """LeNet-5 on 32 x 32 images, with full connections in its second convolution."""
    return Workload(
        name="lenet5",
        layers=(
            conv("conv1", 1, 6, 5, 28),
            pool("pool1", 6, 2, 14),
            conv("conv2", 6, 16, 5, 10),
            pool("pool2", 16, 2, 5),
            dense("fc1", 400, 120),
            dense("fc2", 120, 84),
            dense("fc3", 84, 10, activation=False),
        ),
        input_shape=(1, 32, 32),
        source="LeCun et al., 1998, with full instead of partial connections in conv2",
        samples_per_epoch=MNIST_SAMPLES,
        losses=(LossShape(loss="cross_entropy", rows=1, width=10),),
    )
