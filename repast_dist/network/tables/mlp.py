"""The multilayer perceptron that K-FAC libraries are timed on."""

from typing import Literal

from repast_dist.ground.spec import spec
from repast_dist.network.losses import LossShape
from repast_dist.network.shapes import Workload
from repast_dist.network.tables.base import NETWORKS, NetworkTable
from repast_dist.network.tables.rows import MNIST_SAMPLES, dense


@NETWORKS.register
@spec
class MlpTable(NetworkTable):
    """Three dense layers for MNIST, the hidden ones 2,048 wide."""

    name: Literal["mlp_2048"] = "mlp_2048"

    def workload(self, sequence: int | None = None) -> Workload:
        """Return the rows."""
        return mlp_2048()


def mlp_2048() -> Workload:
    """Three dense layers (github.com/kazukiosawa/asdl, examples/arxiv_results/models/mlp.py)."""
    return Workload(
        name="mlp_2048",
        layers=(
            dense("fc1", 784, 2048),
            dense("fc2", 2048, 2048),
            dense("fc3", 2048, 10, activation=False),
        ),
        input_shape=(1, 28, 28),
        source="ASDL, examples/arxiv_results/models/mlp.py",
        samples_per_epoch=MNIST_SAMPLES,
        losses=(LossShape(loss="cross_entropy", rows=1, width=10),),
    )
