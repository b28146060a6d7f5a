"""Networks of dense layers over tokens and over channels."""

from typing import Literal

from repast_dist.ground.spec import spec
from repast_dist.network.operations import ADDITION
from repast_dist.network.shapes import Workload, digital_shape, normalization_shape
from repast_dist.network.tables.base import NETWORKS, NetworkTable
from repast_dist.network.tables.rows import dense, image_net


@NETWORKS.register
@spec
class Mixer(NetworkTable):
    """MLP-Mixer B/16 (Tolstikhin et al., 2021)."""

    name: Literal["mixer_b16"] = "mixer_b16"

    def workload(self, sequence: int | None = None) -> Workload:
        """Return the rows."""
        return mixer_b16()


def mixer_b16() -> Workload:
    """MLP-Mixer B/16 on 224 x 224 images (Tolstikhin et al., 2021)."""
    width, tokens = 768, 14 * 14
    layers = [dense("patches", 3 * 16 * 16, width, vectors=tokens, activation=False)]
    for number in range(12):
        name = f"block{number}"
        # One layer multiplies the tokens of every channel, the other the channels of every token.
        for part, inner, hidden, vectors in (
            ("tokens", tokens, 384, width),
            ("channels", width, 3072, tokens),
        ):
            layers += [
                normalization_shape(f"{name}.{part}.norm", width, tokens),
                dense(f"{name}.{part}.fc1", inner, hidden, vectors=vectors),
                dense(f"{name}.{part}.fc2", hidden, inner, vectors=vectors, activation=False),
                digital_shape(f"{name}.{part}.add", width * tokens, ADDITION * width * tokens),
            ]
    layers.append(normalization_shape("norm", width, tokens))
    layers.append(dense("head", width, 1000, activation=False))
    return image_net("mixer_b16", tuple(layers), "Tolstikhin et al., 2021")
