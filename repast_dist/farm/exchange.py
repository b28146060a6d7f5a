"""Who reduces what, and the order things are summed in.

Sums over micro-batches follow one fixed binary tree over their numbers, whoever computed them, so
no sum depends on how many chips there are. A host adds up every subtree it has whole and sends
only that. A piece of a gradient is what one chip reduces and, if the layer is preconditioned,
solves with its G block: a range of columns of the (in[+1], out) gradient.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from repast_dist.mapping.blocks import SoiBlock
from repast_dist.training.step import FactorKey

PieceKey = tuple[str, int, int]
TreeNode = tuple[int, int]
"""(level, number) of a sum: level 0 are micro-batches, (l, k) adds (l-1, 2k) and (l-1, 2k+1)."""


@dataclasses.dataclass(frozen=True)
class GradientPiece:
    """Columns ``start:stop`` of a layer's gradient.

    Attributes
    ----------
    layer : str
        Name of the layer, as in the weights.
    start, stop : int
        Range of columns.
    rows : int
        Rows of the gradient, in[+1].
    chip : int
        The chip that reduces the piece.
    block : int or None
        Number of the G block the piece is solved with; None: the layer is not preconditioned.
    """

    layer: str
    start: int
    stop: int
    rows: int
    chip: int
    block: int | None = None

    @property
    def key(self) -> PieceKey:
        """What the piece is called in an exchange."""
        return self.layer, self.start, self.stop


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
    for number, (layer, (rows, columns)) in enumerate(shapes.items()):
        own = [b for b in blocks if b.layer_name == layer and b.factor == "G"]
        if own:
            pieces += [
                GradientPiece(layer, b.start, b.stop, rows, block_owner[b.index], b.index)
                for b in own
            ]
        else:
            pieces.append(GradientPiece(layer, 0, columns, rows, chips[number % len(chips)]))
    return tuple(pieces)


class Parcel:
    """How the pieces and blocks that one host reduces lie in one flat vector.

    One vector travels as one buffer, however many layers there are.

    Parameters
    ----------
    pieces : sequence of GradientPiece
        The host's pieces.
    blocks : sequence of SoiBlock
        The host's blocks; their (n, n) contributions lie behind the gradients.
    """

    def __init__(self, pieces: Sequence[GradientPiece], blocks: Sequence[SoiBlock]) -> None:
        self._pieces, self._blocks = pieces, blocks
        self._gradients_size = sum(p.rows * (p.stop - p.start) for p in pieces)
        self._factors_size = sum(block.size**2 for block in blocks)

    def pack(
        self,
        gradients: Mapping[str, np.ndarray],
        factors: Mapping[FactorKey, np.ndarray],
    ) -> np.ndarray:
        """Return a micro-batch's contributions; without factors only the gradients.

        Parameters
        ----------
        gradients : mapping
            Layer -> (in[+1], out) float64.
        factors : mapping
            (layer, "A" or "G") -> (n, n) float64, or empty.
        """
        vector = np.empty(self._gradients_size + (self._factors_size if factors else 0))
        for key, part in self.gradients(vector).items():
            layer, start, stop = key
            part[:] = gradients[layer][:, start:stop]
        for block, held in zip(self._blocks, self.factors(vector).values(), strict=False):
            cut = slice(block.start, block.stop)
            held[:] = factors[block.layer_name, block.factor][cut, cut]
        return vector

    def gradients(self, vector: np.ndarray) -> dict[PieceKey, np.ndarray]:
        """Return piece key -> (in[+1], stop - start) view of a vector."""
        views, first = {}, 0
        for piece in self._pieces:
            shape = piece.rows, piece.stop - piece.start
            views[piece.key] = vector[first : first + math.prod(shape)].reshape(shape)
            first += math.prod(shape)
        return views

    def factors(self, vector: np.ndarray) -> dict[int, np.ndarray]:
        """Return block number -> (n, n) view of a vector; empty if it holds none."""
        views: dict[int, np.ndarray] = {}
        first = self._gradients_size
        if len(vector) > first:
            for block in self._blocks:
                part = vector[first : first + block.size**2]
                views[block.index] = part.reshape(block.size, block.size)
                first += block.size**2
        return views


class TreeSum:
    """A sum over numbered vectors in the order of one fixed binary tree.

    Vectors may come in any order and partly added up; the result has the same bits.

    Parameters
    ----------
    count : int
        Vectors in the whole sum.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._top = (count - 1).bit_length()
        self.nodes: dict[TreeNode, np.ndarray] = {}

    def add(self, node: TreeNode, vector: np.ndarray) -> None:
        """Take the sum of a subtree; whatever becomes whole is added up at once."""
        level, number = node
        while level < self._top:
            sibling = number ^ 1
            exists = sibling << level < self._count
            if exists and (level, sibling) not in self.nodes:
                break
            if exists:
                vector = _added(self.nodes.pop((level, sibling)), vector)
            level, number = level + 1, number >> 1
        self.nodes[level, number] = vector

    @property
    def total(self) -> np.ndarray:
        """The whole sum.

        Raises
        ------
        KeyError
            Some vectors are missing.
        """
        return self.nodes[self._top, 0]


def _added(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Add into a vector of our own if there is one; a received vector is read-only."""
    for mine, theirs in ((one, other), (other, one)):
        if mine.flags.writeable:
            mine += theirs
            return mine
    return one + other
