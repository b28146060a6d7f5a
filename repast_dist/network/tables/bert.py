"""BERT."""

from typing import ClassVar, Literal

from repast_dist.ground.spec import spec
from repast_dist.network.shapes import Workload, normalization_shape
from repast_dist.network.tables.base import NETWORKS, NetworkTable
from repast_dist.network.tables.rows import NORM_NOTE, dense, embedding, transformer_block


@NETWORKS.register
@spec
class Bert(NetworkTable):
    """BERT (Devlin et al., 2019)."""

    name: Literal["bert_base", "bert_large"]

    usual_sequence: ClassVar[int | None] = 128

    def workload(self, sequence: int | None = None) -> Workload:
        """Return the rows."""
        return bert(self.name.removeprefix("bert_"), self.tokens(sequence))


def bert(size: str, sequence: int) -> Workload:
    """BERT-base or -large (Devlin et al., 2019) with its pooler, without a task's head."""
    blocks, width, heads = {"base": (12, 768, 12), "large": (24, 1024, 16)}[size]
    layers = [
        embedding("embeddings.word", 30522, width, sequence),
        embedding("embeddings.position", 512, width, sequence),
        embedding("embeddings.type", 2, width, sequence),
        normalization_shape("embeddings.norm", width, sequence),
    ]
    for number in range(blocks):
        layers += transformer_block(f"block{number}", width, heads, sequence)
    layers.append(dense("pooler", width, width))
    return Workload(
        name=f"bert_{size}",
        layers=tuple(layers),
        input_shape=(sequence,),
        source="Devlin et al., 2019",
        assumptions=(f"Sequences of {sequence} tokens.", NORM_NOTE),
    )
