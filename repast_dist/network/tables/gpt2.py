"""GPT-2."""

from typing import ClassVar, Literal

from repast_dist.ground.spec import spec
from repast_dist.network import kinds
from repast_dist.network.losses import LossShape
from repast_dist.network.shapes import LayerShape, Workload, embedding_shape, normalization_shape
from repast_dist.network.tables.base import NETWORKS, NetworkTable
from repast_dist.network.tables.rows import NORM_NOTE, transformer_block


@NETWORKS.register
@spec
class Gpt2(NetworkTable):
    """GPT-2 small (Radford et al., 2019)."""

    name: Literal["gpt2_small"] = "gpt2_small"

    usual_sequence: ClassVar[int | None] = 1024

    def workload(self, sequence: int | None = None) -> Workload:
        """Return the rows."""
        return gpt2_small(self.tokens(sequence))


def gpt2_small(sequence: int) -> Workload:
    """GPT-2 small (Radford et al., 2019); the output layer shares the word embedding."""
    width = 768
    layers = [
        embedding_shape("embeddings.word", 50257, width, sequence),
        embedding_shape("embeddings.position", 1024, width, sequence),
    ]
    for number in range(12):
        layers += transformer_block(f"block{number}", width, 12, sequence, fused_qkv=True)
    layers.append(normalization_shape("norm", width, sequence))
    layers.append(
        LayerShape(
            name="head",
            kind=kinds.DENSE,
            in_features=width,
            out_features=50257,
            vectors_per_sample=sequence,
            bias=False,
            preconditioned=False,
            shares_weights_with="embeddings.word",
        )
    )
    return Workload(
        name="gpt2_small",
        layers=tuple(layers),
        input_shape=(sequence,),
        source="Radford et al., 2019",
        assumptions=(
            f"Sequences of {sequence} tokens.",
            "The output layer is not preconditioned: its factor G is as wide as the vocabulary.",
            NORM_NOTE,
        ),
        losses=(LossShape(loss="next_token", rows=sequence, width=50257),),
    )
