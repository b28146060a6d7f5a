"""Vision transformers."""

from typing import Literal

from repast_dist.ground.spec import spec
from repast_dist.network.shapes import Workload, digital_shape, normalization_shape
from repast_dist.network.tables.base import NETWORKS, NetworkTable
from repast_dist.network.tables.rows import dense, image_net, transformer_block


@NETWORKS.register
@spec
class Vit(NetworkTable):
    """ViT-B/16 (Dosovitskiy et al., 2021) and ViT-Ti/16 (Touvron et al., 2021)."""

    name: Literal["vit_b16", "vit_tiny16"]

    def workload(self, sequence: int | None = None) -> Workload:
        """Return the rows."""
        if self.name == "vit_b16":
            return _vit("vit_b16", 768, 12, "Dosovitskiy et al., 2021")
        return _vit("vit_tiny16", 192, 3, "Touvron et al., 2021 (DeiT)")


def _vit(name: str, width: int, heads: int, source: str) -> Workload:
    """Return a vision transformer of 12 blocks on patches of 16 x 16 of 224 x 224 images."""
    tokens = 197
    layers = [
        dense("patches", 3 * 16 * 16, width, vectors=14 * 14, activation=False),
        digital_shape("tokens", width * tokens, width * tokens, parameters=width * (tokens + 1)),
    ]
    for number in range(12):
        layers += transformer_block(f"block{number}", width, heads, tokens)
    layers.append(normalization_shape("norm", width, tokens))
    layers.append(dense("head", width, 1000, activation=False))
    return image_net(name, tuple(layers), source)
