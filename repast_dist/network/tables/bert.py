"""BERT."""

from typing import ClassVar, Literal

from repast_dist.ground.spec import spec
from repast_dist.network import kinds
from repast_dist.network.losses import LossShape
from repast_dist.network.shapes import LayerShape, Workload, embedding_shape, normalization_shape
from repast_dist.network.tables.base import NETWORKS, NetworkTable
from repast_dist.network.tables.rows import NORM_NOTE, dense, transformer_block

_VOCABULARY = 30522


@NETWORKS.register
@spec
class Bert(NetworkTable):
    """BERT (Devlin et al., 2019).

    Attributes
    ----------
    name : {"bert_base", "bert_large"}
        Its size.
    pretraining : bool
        With the heads it is pre-trained with: every token's word is predicted, and whether the
        second sentence follows the first.
    """

    name: Literal["bert_base", "bert_large"]
    pretraining: bool = False

    usual_sequence: ClassVar[int | None] = 128

    def workload(self, sequence: int | None = None) -> Workload:
        """Return the rows."""
        return bert(self.name.removeprefix("bert_"), self.tokens(sequence), self.pretraining)


def bert(size: str, sequence: int, pretraining: bool = False) -> Workload:
    """BERT-base or -large (Devlin et al., 2019) with its pooler, and the heads of pre-training."""
    blocks, width, heads = {"base": (12, 768, 12), "large": (24, 1024, 16)}[size]
    layers = [
        embedding_shape("embeddings.word", _VOCABULARY, width, sequence),
        embedding_shape("embeddings.position", 512, width, sequence),
        embedding_shape("embeddings.type", 2, width, sequence),
        normalization_shape("embeddings.norm", width, sequence),
    ]
    for number in range(blocks):
        layers += transformer_block(f"block{number}", width, heads, sequence)
    layers.append(dense("pooler", width, width))
    assumptions = [f"Sequences of {sequence} tokens.", NORM_NOTE]
    losses = []
    if pretraining:
        layers += _heads(width, sequence)
        losses += [
            LossShape(loss="next_token", rows=sequence, width=_VOCABULARY, layer="words.output"),
            LossShape(loss="cross_entropy", rows=1, width=2, layer="sentences"),
        ]
        assumptions.append(
            "The output layer over the vocabulary, which shares the word embedding, is not "
            "preconditioned, and predicts all tokens, masked or not."
        )
    else:
        assumptions.append(
            "BERT without a task's head and loss; workload.pretraining=true adds those of "
            "pre-training."
        )
    return Workload(
        name=f"bert_{size}",
        layers=tuple(layers),
        input_shape=(sequence,),
        source="Devlin et al., 2019",
        assumptions=tuple(assumptions),
        losses=tuple(losses),
    )


def _heads(width: int, sequence: int) -> list[LayerShape]:
    return [
        dense("words.transform", width, width, vectors=sequence),
        normalization_shape("words.norm", width, sequence),
        LayerShape(
            name="words.output",
            kind=kinds.DENSE,
            in_features=width,
            out_features=_VOCABULARY,
            vectors_per_sample=sequence,
            bias=True,
            preconditioned=False,
            parameters=_VOCABULARY,
            shares_weights_with="embeddings.word",
        ),
        dense("sentences", width, 2, activation=False),
    ]
