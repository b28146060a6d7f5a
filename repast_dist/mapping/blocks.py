"""SOI blocks: the diagonal pieces of Kronecker factors that are inverted on their own."""

import dataclasses
import itertools
from collections.abc import Collection
from typing import Literal

from repast_dist.ground.numbers import ceil_div
from repast_dist.network.shapes import Workload


@dataclasses.dataclass(frozen=True)
class SoiBlock:
    """Rows and columns ``start:stop`` of a layer's factor.

    Attributes
    ----------
    index : int
        Number of the block in the workload.
    layer : int
        Number of the layer in the workload.
    layer_name : str
        Its name.
    factor : {"A", "G"}
        A: layer inputs (with the bias as last coordinate); G: gradients of the outputs.
    start, stop : int
        Range of rows of the factor.
    """

    index: int
    layer: int
    layer_name: str
    factor: Literal["A", "G"]
    start: int
    stop: int

    @property
    def size(self) -> int:
        """Rows of the block."""
        return self.stop - self.start

    @property
    def transposed(self) -> bool:
        """Whether it solves columns of the transposed gradient: G stands right of the gradient,
        A left of it.
        """
        return self.factor == "G"

    def right_sides(self, rows: int, columns: int) -> int:
        """Return how many right-hand sides a gradient (rows, columns) is to the block."""
        return rows if self.transposed else columns

    def area(self, first: int, last: int) -> tuple[str, int, int, int, int]:
        """Return where right-hand sides ``first:last`` lie: layer, rows and columns of it."""
        if self.transposed:
            return self.layer_name, first, last, self.start, self.stop
        return self.layer_name, self.start, self.stop, first, last


def soi_blocks(
    workload: Workload, block_size: int, sides: Collection[str] = ("A", "G")
) -> tuple[SoiBlock, ...]:
    """Split the factors of all preconditioned layers into nearly equal blocks.

    Parameters
    ----------
    workload : Workload
        The network.
    block_size : int
        Widest block, at least 1.
    sides : collection of str
        The sides of a gradient that the optimizer solves with.

    Returns
    -------
    tuple of SoiBlock
        In layer order, A before G; sizes within a factor differ by at most one.
    """
    blocks: list[SoiBlock] = []
    for number, layer in enumerate(workload.layers):
        if not layer.preconditioned:
            continue
        for factor, size in (("A", layer.factor_a_size), ("G", layer.factor_g_size)):
            if factor not in sides:
                continue
            for start, stop in even_ranges(size, ceil_div(size, block_size)):
                blocks.append(
                    SoiBlock(len(blocks), number, layer.name, factor, start, stop)  # type: ignore[arg-type]
                )
    return tuple(blocks)


def even_ranges(size: int, parts: int) -> list[tuple[int, int]]:
    """Cut ``range(size)`` into `parts` ranges whose lengths differ by at most one."""
    edges = [size * part // parts for part in range(parts + 1)]
    return list(itertools.pairwise(edges))
