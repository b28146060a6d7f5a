"""Cuts Kronecker factors into SOI blocks, diagonal blocks that are inverted independently."""

import dataclasses
import functools
import itertools
from collections.abc import Collection, Sequence

import numpy as np

from repast_dist.ground.errors import SettingsError, brief
from repast_dist.ground.numbers import ceil_div
from repast_dist.network.shapes import Workload
from repast_dist.planning.specs import FactorWidth
from repast_dist.training.optimizers import Side
from repast_dist.training.optimizers.matrix_unit import MatrixMethod


@dataclasses.dataclass(frozen=True)
class SoiBlock:
    """A diagonal block of a layer's factor: its rows and columns ``start:stop``.

    Attributes
    ----------
    index : int
        Number of the block in the workload.
    layer : int
        Number of the layer in the workload.
    layer_name : str
        Name of the layer.
    factor : {"A", "G"}
        A: of the layer's inputs, with the bias as last coordinate; G: of the gradients of its
        outputs.
    start, stop : int
        Range of rows of the factor.
    """

    index: int
    layer: int
    layer_name: str
    factor: Side
    start: int
    stop: int

    @property
    def size(self) -> int:
        """Rows of the block."""
        return self.stop - self.start

    @property
    def transposed(self) -> bool:
        """Whether its right-hand sides are columns of the transposed gradient: G multiplies the
        gradient from the right, A from the left.
        """
        return self.factor == "G"

    def right_sides(self, rows: int, columns: int) -> int:
        """Return how many right-hand sides a gradient (rows, columns) has for the block."""
        return rows if self.transposed else columns

    def area(self, first: int, last: int) -> tuple[str, int, int, int, int]:
        """Return which part of the gradient is right-hand sides ``first:last``: layer, rows and
        columns.
        """
        if self.transposed:
            return self.layer_name, first, last, self.start, self.stop
        return self.layer_name, self.start, self.stop, first, last


class SoiBlocks(tuple[SoiBlock, ...]):
    """Blocks of one workload."""

    __slots__ = ()

    def __hash__(self) -> int:
        # Plans of many chips look up what was worked out of them.
        return hash((len(self), *self[:1], *self[-1:]))


def soi_blocks(
    workload: Workload,
    block_size: int,
    sides: Collection[str] = ("A", "G"),
    layers: Collection[int] | None = None,
    widths: Sequence[FactorWidth] = (),
) -> SoiBlocks:
    """Split the factors of all preconditioned layers into nearly equal blocks.

    Parameters
    ----------
    workload : Workload
        The network.
    block_size : int
        Widest block, at least 1.
    sides : collection of str
        The factors, "A" and "G", that the optimizer solves with.
    layers : collection of int, optional
        The layers that have factors; None: all that are preconditioned.
    widths : sequence of FactorWidth
        Factors whose widest block is another.

    Returns
    -------
    SoiBlocks
        Blocks in layer order, A before G; sizes within a factor differ by at most one.

    Raises
    ------
    SettingsError
        `widths` names a factor that is not there.
    """
    numbers = None if layers is None else frozenset(layers)
    return _split(workload, block_size, frozenset(sides), numbers, tuple(widths))


@functools.lru_cache(maxsize=64)
def _split(
    workload: Workload,
    block_size: int,
    sides: frozenset[str],
    layers: frozenset[int] | None,
    widths: tuple[FactorWidth, ...],
) -> SoiBlocks:
    width_of = {(width.layer, width.factor): width.block_size for width in widths}
    seen: list[tuple[str, Side]] = []
    blocks: list[SoiBlock] = []
    for number, layer in enumerate(workload.layers):
        if not layer.preconditioned or (layers is not None and number not in layers):
            continue
        sizes: dict[Side, int] = {"A": layer.factor_a_size, "G": layer.factor_g_size}
        for factor, size in sizes.items():
            if factor not in sides:
                continue
            seen.append((layer.name, factor))
            widest = width_of.get(seen[-1], block_size)
            for start, stop in even_ranges(size, ceil_div(size, widest)):
                blocks.append(SoiBlock(len(blocks), number, layer.name, factor, start, stop))
    unknown = [key for key in width_of if key not in seen]
    if unknown:
        (name, side), *_ = unknown
        valid = ", ".join(f"{factor} of {layer_name}" for layer_name, factor in seen)
        raise SettingsError(
            f"soi.widths: no factor {side} of a layer {brief(name)}; valid: {valid or 'none'}"
        )
    return SoiBlocks(blocks)


@dataclasses.dataclass(frozen=True, eq=False)
class BlockColumns:
    """What of blocks follows from their network, with one entry per block.

    Attributes
    ----------
    size, layer : ndarray
        Width, and number of the layer, int64.
    is_g : ndarray of bool
        Whether it is a block of factor G.
    right_sides : ndarray
        Right-hand sides: a layer's columns (A), or its rows with the bias (G), int64.
    vectors : ndarray
        Rows per sample that the block is the product of, in one pass, int64.
    rows_written : ndarray of bool
        Whether these rows are written only to form their product: errors, and inputs that are
        combined over the vectors of a sample first.
    """

    size: np.ndarray
    layer: np.ndarray
    is_g: np.ndarray
    right_sides: np.ndarray
    vectors: np.ndarray
    rows_written: np.ndarray


@functools.lru_cache(maxsize=16)
def block_columns(workload: Workload, blocks: SoiBlocks, positions: float) -> BlockColumns:
    """Return blocks as columns, of which a share of the positions forms the factors."""
    layers = workload.layers
    layer = np.array([block.layer for block in blocks], np.int64)
    is_g = np.array([block.factor == "G" for block in blocks], bool)
    a_size, g_size, vectors = (
        np.array(column, np.int64)[layer]
        for column in (
            [layer.factor_a_size for layer in layers],
            [layer.factor_g_size for layer in layers],
            [layer.sampled_factor_vectors(positions) for layer in layers],
        )
    )
    combines = np.array([layer.combines for layer in layers], bool)
    columns = BlockColumns(
        size=np.array([block.size for block in blocks], np.int64),
        layer=layer,
        is_g=is_g,
        right_sides=np.where(is_g, a_size, g_size),
        vectors=vectors,
        rows_written=is_g | combines[layer],
    )
    for column in vars(columns).values():
        # Plans share them.
        column.flags.writeable = False
    return columns


def whole_layers(workload: Workload, method: MatrixMethod | None) -> tuple[int, ...]:
    """Return the numbers of the layers whose weights a method updates as whole matrices: those that
    are preconditioned, the last of them only if the method wants it.
    """
    if method is None:
        return ()
    layers = [number for number, layer in enumerate(workload.layers) if layer.preconditioned]
    return tuple(layers if method.output_layer == "matrix" else layers[:-1])


def even_ranges(size: int, parts: int) -> list[tuple[int, int]]:
    """Cut ``range(size)`` into `parts` ranges whose lengths differ by at most one."""
    edges = [size * part // parts for part in range(parts + 1)]
    return list(itertools.pairwise(edges))
