"""Decide which chip reduces and solves what, and in which order sums are formed.

Sums over micro-batches follow one fixed binary tree over their numbers, whoever computed them, so
no sum depends on how many chips there are. A worker adds up every subtree of which it has all
leaves and sends only these sums. A piece is the area of a gradient that one chip reduces and, if
the layer is preconditioned, solves with its G block. A task is the area that a chip then solves
with its A block. Both are areas of the (in[+1], out) gradient.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from repast_dist.planning.blocks import SoiBlock
from repast_dist.planning.holdings import Holdings
from repast_dist.training.network import FactorKey

Area = tuple[str, int, int, int, int]
"""(layer, first row, last row, first column, last column) of a gradient."""
TreeNode = tuple[int, int]
"""(level, number) of a sum: level 0 are micro-batches, (l, k) adds (l-1, 2k) and (l-1, 2k+1)."""
ROWS, LOSS = "rows", "loss"
RowsOf = tuple[str, int, int]
"""(`ROWS`, fused block, micro-batch) whose rows an array of a message holds."""


@dataclasses.dataclass(frozen=True)
class SolveTask:
    """Right-hand sides that one chip solves together with one block.

    Attributes
    ----------
    area : tuple
        Where they lie in the layer's gradient: columns of it for A blocks, rows for G blocks.
    chip : int
        The chip.
    block : int or None
        Number of the block; None: there is none on this side, the values pass as they are.
    """

    area: Area
    chip: int
    block: int | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the area."""
        _, top, bottom, left, right = self.area
        return bottom - top, right - left


def solve_tasks(
    shapes: Mapping[str, tuple[int, int]],
    blocks: Sequence[SoiBlock],
    holdings: Holdings,
    chips: Sequence[int],
    matrices: Mapping[str, tuple[int, int]] | None = None,
) -> tuple[tuple[SolveTask, ...], tuple[SolveTask, ...]]:
    """Return the pieces of all gradients, and the tasks of the A blocks.

    Parameters
    ----------
    shapes : mapping
        Layer -> shape (in[+1], out) of its weights.
    blocks : sequence of SoiBlock
        The SOI blocks; empty for first-order methods.
    holdings : Holdings
        Which of the plan's chips solve what.
    chips : sequence of int
        The chips, in the plan's order; layers without blocks go round them.
    matrices : mapping, optional
        Layer without blocks -> rows of the matrix that a chip updates as a whole, without that of a
        bias, and this chip.
    """
    pieces: list[SolveTask] = []
    tasks: list[SolveTask] = []
    for number in range(len(holdings)):
        block, chip = blocks[holdings.block[number]], chips[holdings.chip[number]]
        for first, last in holdings.ranges[number]:
            task = SolveTask(block.area(first, last), chip, block.index)
            (pieces if block.transposed else tasks).append(task)
    reduced, solved = ({task.area[0] for task in found} for found in (pieces, tasks))
    for number, (layer, (rows, columns)) in enumerate(shapes.items()):
        if layer in reduced:
            continue
        inside, chip = (matrices or {}).get(layer, (rows, chips[number % len(chips)]))
        pieces.append(SolveTask((layer, 0, inside, 0, columns), chip))
        if inside < rows:
            pieces.append(SolveTask((layer, inside, rows, 0, columns), chip))
    # A layer without A blocks is done when its G blocks are.
    only_right = [p for p in pieces if p.block is not None and p.area[0] not in solved]
    tasks += [SolveTask(piece.area, piece.chip) for piece in only_right]
    order = {layer: number for number, layer in enumerate(shapes)}

    def place(task: SolveTask) -> tuple[int, Area]:
        return order[task.area[0]], task.area

    return tuple(sorted(pieces, key=place)), tuple(sorted(tasks, key=place))


def common(one: Area, other: Area) -> Area | None:
    """Return the intersection of two areas, or None if they have none."""
    if one[0] != other[0]:
        return None
    top, left = max(one[1], other[1]), max(one[3], other[3])
    bottom, right = min(one[2], other[2]), min(one[4], other[4])
    return (one[0], top, bottom, left, right) if top < bottom and left < right else None


def within(area: Area, whole: Area) -> tuple[slice, slice]:
    """Return the slices at which an area lies inside an area that contains it."""
    _, top, bottom, left, right = area
    return slice(top - whole[1], bottom - whole[1]), slice(left - whole[3], right - whole[3])


class Bucket:
    """The layout of one flat vector that holds all pieces and blocks of a stage that one worker
    reduces.

    One vector travels as one buffer, however many layers there are. It begins with the gradients
    and the squared norms of whole ones; where there are factors, the traces of the stage's blocks
    and the worker's blocks follow. A micro-batch that forms none has a shorter vector, which is
    added to the front of longer ones. Rows of fused blocks are not added up: they travel beside it.

    Parameters
    ----------
    pieces : sequence of SolveTask
        The worker's pieces.
    held : sequence of SoiBlock
        The formed blocks that its chips hold; each takes n * n entries of the vector.
    blocks : sequence of SoiBlock
        All blocks of the stage.
    fused : sequence of SoiBlock
        The fused blocks that its chips hold.
    measured : sequence of str
        The stage's layers of which the noise of gradients is measured.
    """

    def __init__(
        self,
        pieces: Sequence[SolveTask],
        held: Sequence[SoiBlock],
        blocks: Sequence[SoiBlock],
        fused: Sequence[SoiBlock] = (),
        measured: Sequence[str] = (),
    ) -> None:
        self._pieces, self._held, self._fused = pieces, held, fused
        self.blocks, self.measured = blocks, measured
        self._first_square = sum(math.prod(piece.shape) for piece in pieces)
        self._first_trace = self._first_square + len(measured)
        self._first_factor = self._first_trace + len(blocks)
        self._size = self._first_factor + sum(block.size**2 for block in held)

    def pack(
        self,
        gradients: Mapping[str, np.ndarray],
        factors: Mapping[FactorKey, np.ndarray],
        traces: np.ndarray | None,
        squares: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return the contributions of a micro-batch as one vector; without factors only gradients.

        Parameters
        ----------
        gradients : mapping
            Layer -> (in[+1], out) float64.
        factors : mapping
            (layer, "A" or "G") -> (n, n) float64 of formed blocks.
        traces : ndarray or None
            (blocks,) float64; None without factors.
        squares : ndarray or None
            (measured,) float64 squared norms of gradients; None where none are measured.
        """
        vector = np.empty(self._first_trace if traces is None else self._size)
        if squares is not None:
            self.squares(vector)[:] = squares
        for area, part in self.gradients(vector).items():
            layer, top, bottom, left, right = area
            part[:] = gradients[layer][top:bottom, left:right]
        if traces is not None:
            self.traces(vector)[:] = traces
            for block, held in zip(self._held, self.factors(vector).values(), strict=True):
                cut = slice(block.start, block.stop)
                held[:] = factors[block.layer_name, block.factor][cut, cut]
        return vector

    def rows(
        self, rows: Mapping[FactorKey, np.ndarray], micro_batch: int
    ) -> dict[RowsOf, np.ndarray]:
        """Return the rows of a micro-batch that the worker's fused blocks take, (R, n) each."""
        return {
            (ROWS, block.index, micro_batch): np.ascontiguousarray(
                rows[block.layer_name, block.factor][:, block.start : block.stop]
            )
            for block in self._fused
        }

    def gathered(
        self, found: Mapping[RowsOf, np.ndarray], micro_batches: Sequence[int]
    ) -> dict[int, np.ndarray]:
        """Return block number -> rows of these micro-batches, one after the other."""
        return {
            block.index: np.concatenate(
                [found[ROWS, block.index, number] for number in micro_batches]
            )
            for block in self._fused
        }

    def gradients(self, vector: np.ndarray) -> dict[Area, np.ndarray]:
        """Return area of a piece -> view of a vector."""
        views, first = {}, 0
        for piece in self._pieces:
            size = math.prod(piece.shape)
            views[piece.area] = vector[first : first + size].reshape(piece.shape)
            first += size
        return views

    def squares(self, vector: np.ndarray) -> np.ndarray:
        """Return the squared norms of gradients of `measured` layers as a view of a vector."""
        return vector[self._first_square : self._first_trace]

    def traces(self, vector: np.ndarray) -> np.ndarray:
        """Return the traces of `blocks` as a view of a vector with factors."""
        return vector[self._first_trace : self._first_factor]

    def factors(self, vector: np.ndarray) -> dict[int, np.ndarray]:
        """Return block number -> (n, n) view of a vector with factors."""
        views: dict[int, np.ndarray] = {}
        first = self._first_factor
        for block in self._held:
            part = vector[first : first + block.size**2]
            views[block.index] = part.reshape(block.size, block.size)
            first += block.size**2
        return views


class TreeSum:
    """A sum over numbered vectors in the order of one fixed binary tree.

    Vectors may come in any order and partly added up; the result has the same bits. What shorter
    ones lack is 0.

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
        """Add the sum of a subtree, and add up every larger subtree that is complete with it."""
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
    """Return the sum of two vectors, as long as the longer one, in place where that is writeable
    (received ones are not).
    """
    longer, shorter = sorted((one, other), key=len, reverse=True)
    if not longer.flags.writeable and len(shorter) == len(longer) and shorter.flags.writeable:
        longer, shorter = shorter, longer
    total = longer if longer.flags.writeable else longer.copy()
    total[: len(shorter)] += shorter
    return total
