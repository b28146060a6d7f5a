"""Counts by formula what preparing and solving a SOI block takes, without running it."""

import dataclasses
import math

import numpy as np

from repast_dist.analog.deflation import ROWS_PER_DIRECTION
from repast_dist.analog.inversion import SolveCounts
from repast_dist.analog.specs import InversionSpec
from repast_dist.ground.numbers import ceil_div
from repast_dist.hardware.geometry import array_count
from repast_dist.hardware.hardware import Hardware
from repast_dist.hardware.specs import ChipSpec
from repast_dist.mapping.blocks import SoiBlock

_DIGITAL_PER_ELEMENT = {"single": 2, "taylor": 4, "refine": 5, "fcg": 11, "cg": 11}
"""Digital operations per element of a right-hand side and round, as `analog.schemes` counts; of
``fcg`` without those of deflation and of further conjugate directions.
"""


@dataclasses.dataclass(frozen=True)
class BlockShapes:
    """SOI blocks as columns, one entry each.

    Attributes
    ----------
    size : ndarray
        n.
    right_sides : ndarray
        Right-hand sides per step: the other dimension of the layer's gradient.
    depth : ndarray
        Halvings until a piece fits an inverting array.
    piece : ndarray
        Width of a piece.
    inv_arrays, product_arrays : ndarray
        Inverting arrays, and multiplying arrays of the residual product.
    held : ndarray
        Rows N of the activations or errors of a batch that the block is the product of.
    fused : ndarray of bool
        The arrays hold those rows and their transpose instead of the product: a solve goes
        through both, and so does a residual product.
    product_bits : int
        Fixed-point bits of residual products.
    """

    size: np.ndarray
    right_sides: np.ndarray
    depth: np.ndarray
    piece: np.ndarray
    inv_arrays: np.ndarray
    product_arrays: np.ndarray
    held: np.ndarray
    fused: np.ndarray
    product_bits: int

    def __len__(self) -> int:
        return len(self.size)

    def shared(self, block: np.ndarray, right_sides: np.ndarray) -> "BlockShapes":
        """Return the columns of blocks, each with so many of its right-hand sides."""
        taken = {
            field.name: getattr(self, field.name)[block]
            for field in dataclasses.fields(self)
            if field.name not in ("right_sides", "product_bits")
        }
        return dataclasses.replace(self, right_sides=right_sides, **taken)

    @property
    def factors(self) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """(rows, columns) of the two matrices of a residual product; the second is empty where a
        block is not fused.
        """
        inner = np.where(self.fused, self.held, self.size)
        none = np.where(self.fused, self.held, 0)
        return (self.size, inner), (none, np.where(self.fused, self.size, 0))

    @property
    def inverting_cells(self) -> np.ndarray:
        """Cells of the inverting arrays that hold one copy, both of every pair."""
        used = np.where(self.fused, self.size * self.held, self.piece**2)
        cells: np.ndarray = 2 * self.inv_arrays * used
        return cells

    @property
    def product_values(self) -> np.ndarray:
        """Values of the residual product's matrices."""
        values: np.ndarray = np.where(self.fused, 2 * self.size * self.held, self.size**2)
        return values


def block_shapes(
    blocks: tuple[SoiBlock, ...],
    right_sides: np.ndarray,
    held: np.ndarray,
    hardware: Hardware,
    inversion: InversionSpec,
) -> BlockShapes:
    """Return the columns of blocks, none of them fused.

    Blocks inverted by a single step and on a single array need no products.
    """
    size = np.array([block.size for block in blocks], np.int64)
    depth = np.array([_depth(int(n), hardware.chip.inv.size) for n in size], np.int64)
    return BlockShapes(
        size=size,
        right_sides=right_sides,
        depth=depth,
        piece=ceil_div(size, 2**depth),
        inv_arrays=2**depth * _arrays_per_piece(inversion),
        product_arrays=np.where(
            (inversion.method == "single") & (depth == 0),
            0,
            array_count(hardware.product_geometry(inversion.product_bits), size, size),
        ),
        held=held,
        fused=np.zeros(len(size), bool),
        product_bits=inversion.product_bits,
    )


def can_fuse(shapes: BlockShapes, chip: ChipSpec) -> np.ndarray:
    """Return the blocks whose activations fit an inverting array beside their transpose."""
    fits: np.ndarray = (shapes.depth == 0) & (shapes.held <= chip.inv.size)
    return fits


def fuse(shapes: BlockShapes, fused: np.ndarray, hardware: Hardware) -> BlockShapes:
    """Return the columns with some blocks fused: twice the inverting arrays, two products."""
    g = hardware.product_geometry(shapes.product_bits)
    both = array_count(g, shapes.size, shapes.held) + array_count(g, shapes.held, shapes.size)
    both = np.where(shapes.product_arrays > 0, both, 0)
    return dataclasses.replace(
        shapes,
        fused=fused,
        inv_arrays=np.where(fused, 2, 1) * shapes.inv_arrays,
        product_arrays=np.where(fused, both, shapes.product_arrays),
    )


def modelled_counts(
    shapes: BlockShapes,
    inversion: InversionSpec,
    hardware: Hardware,
    iterations: int,
) -> dict[str, np.ndarray]:
    """Return `SolveCounts` per block by formula, for `iterations` rounds per right-hand side.

    One application of an inverse halved d times costs ``3^d`` settlings and ``3^d - 1`` products.
    A round of ``refine`` and ``fcg`` is one application and one product; of ``taylor`` one
    application per slice of the target's bits, each with a product, and two more products;
    ``single`` is one application. ``fcg`` is taken to find dominant directions in every block
    that is not fused.

    Returns
    -------
    dict
        ``inv_ops``, ``vmm_ops``, ``digital_ops``, ``program_cells``: int64 arrays.
    """
    method = "fcg" if inversion.method == "auto" else inversion.method
    rounds = 1 if method == "single" else iterations
    applied, products = _per_round(method, inversion, hardware.chip)
    settlings = 3**shapes.depth
    times = rounds * shapes.right_sides
    slices = ceil_div(inversion.product_bits - 1, hardware.device.cell.bits)
    product_cells = 0 if method == "single" else 2 * shapes.product_values * slices
    inverting_cells = 0 if method == "cg" else shapes.inverting_cells
    elements = times * shapes.size
    return {
        "inv_ops": times * applied * settlings,
        "vmm_ops": times * (applied * (settlings - 1) + products),
        "digital_ops": elements * _digital_per_element(shapes, method, inversion),
        "program_cells": inverting_cells + product_cells,
    }


def counted(counts: dict[int, SolveCounts], blocks: int) -> dict[str, np.ndarray]:
    """Return measured counts as columns; blocks that did nothing are zero."""
    names = [field.name for field in dataclasses.fields(SolveCounts)]
    columns = {name: np.zeros(blocks, np.int64) for name in names}
    for number, item in counts.items():
        for name in names:
            columns[name][number] = getattr(item, name)
    return columns


def _depth(size: int, array: int) -> int:
    return max(0, math.ceil(math.log2(size / array))) if size > array else 0


def _arrays_per_piece(inversion: InversionSpec) -> int:
    return inversion.array_slices * inversion.array_copies


def _digital_per_element(shapes: BlockShapes, method: str, inversion: InversionSpec) -> np.ndarray:
    base = np.full(len(shapes), _DIGITAL_PER_ELEMENT[method], np.int64)
    if method != "fcg":
        return base
    # Nothing can be taken out of what fused arrays hold.
    rank = np.where(
        shapes.fused, 0, np.minimum(inversion.deflation, shapes.size // ROWS_PER_DIRECTION)
    )
    deflating: np.ndarray = np.where(rank > 0, 4 * rank + 2, 0)
    return base + 2 * (inversion.conjugate - 1) + deflating


def _per_round(method: str, inversion: InversionSpec, chip: ChipSpec) -> tuple[int, int]:
    """Return applications of the inverse and products per round."""
    if method in ("single", "cg"):
        return (1, 0) if method == "single" else (0, 1)
    if method != "taylor":
        return 1, 1
    bits = min(chip.inv.dac_bits, chip.inv.adc_bits)
    slices = ceil_div(inversion.target_bits + 2, max(bits - 2, 1))
    return 1 + slices, slices + 2
