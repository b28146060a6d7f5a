"""Who reduces what: the pieces of gradients and factors and the order they are summed in.

Sums run over micro-batches in micro-batch order, whoever computed them, so no sum depends on how
many chips there are. A piece of a gradient is what one chip reduces and, if the layer is
preconditioned, solves with its G block: a range of columns of the (in[+1], out) gradient.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from repast_dist.mapping.blocks import SoiBlock

PieceKey = tuple[str, int, int]


@dataclasses.dataclass(frozen=True)
class GradientPiece:
    """Columns ``start:stop`` of a layer's gradient.

    Attributes
    ----------
    layer : str
        Name of the layer, as in the weights.
    start, stop : int
        Range of columns.
    chip : int
        The chip that reduces the piece.
    block : int or None
        Number of the G block the piece is solved with; None: the layer is not preconditioned.
    """

    layer: str
    start: int
    stop: int
    chip: int
    block: int | None = None

    @property
    def key(self) -> PieceKey:
        """What the piece is called in an exchange."""
        return self.layer, self.start, self.stop


@dataclasses.dataclass
class Contribution:
    """What one micro-batch contributes to the pieces and blocks of one host.

    Attributes
    ----------
    micro_batch : int
        Its number, which decides the order of the sum.
    gradients : dict
        Piece key -> (in[+1], stop - start) sums over the micro-batch's samples, float64.
    factors : dict
        Block number -> (n, n) sums over the micro-batch's samples, float64.
    """

    micro_batch: int
    gradients: dict[PieceKey, np.ndarray]
    factors: dict[int, np.ndarray]


def gradient_pieces(
    shapes: Mapping[str, tuple[int, int]],
    blocks: Sequence[SoiBlock],
    block_owner: Sequence[int],
    chips: Sequence[int],
) -> tuple[GradientPiece, ...]:
    """Return the pieces of all gradients: one per G block, else one per layer, in layer order.

    Parameters
    ----------
    shapes : mapping
        Layer -> shape (in[+1], out) of its weights.
    blocks, block_owner : sequence
        The SOI blocks (empty for first-order methods) and the chip that owns each.
    chips : sequence of int
        The chips; layers without blocks go round them.
    """
    pieces: list[GradientPiece] = []
    for number, (layer, (_, columns)) in enumerate(shapes.items()):
        own = [b for b in blocks if b.layer_name == layer and b.factor == "G"]
        if own:
            pieces += [
                GradientPiece(layer, b.start, b.stop, block_owner[b.index], b.index) for b in own
            ]
        else:
            pieces.append(GradientPiece(layer, 0, columns, chips[number % len(chips)]))
    return tuple(pieces)


def sum_in_order(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Add arrays from left to right.

    Parameters
    ----------
    parts : sequence of ndarray
        Arrays of one shape, float64, in micro-batch order; at least one.
    """
    total = parts[0].astype(np.float64, copy=True)
    for part in parts[1:]:
        total += part
    return total
