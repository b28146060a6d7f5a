"""Vision transformers."""

from typing import Literal

from repast_dist.ground.spec import spec
from repast_dist.network.shapes import Workload, digital_shape, normalization_shape
from repast_dist.network.tables.base import NETWORKS, NetworkTable
from repast_dist.network.tables.rows import dense, image_net, transformer_block


@NETWORKS.register
@spec
class Vit(NetworkTable):
    """ViT-B/16 (Dosovitskiy et al., 2021)."""

    name: Literal["vit_b16"] = "vit_b16"

    def workload(self, sequence: int | None = None) -> Workload:
        """Return the rows."""
        return vit_b16()


def vit_b16() -> Workload:
    """ViT-B/16 on 224 x 224 images (Dosovitskiy et al., 2021)."""
    width, tokens = 768, 197
    layers = [
        dense("patches", 3 * 16 * 16, width, vectors=14 * 14, activation=False),
        digital_shape("tokens", width * tokens, width * tokens, parameters=width * (tokens + 1)),
    ]
    for number in range(12):
        layers += transformer_block(f"block{number}", width, 12, tokens)
    layers.append(normalization_shape("norm", width, tokens))
    layers.append(dense("head", width, 1000, activation=False))
    return image_net("vit_b16", tuple(layers), "Dosovitskiy et al., 2021")
