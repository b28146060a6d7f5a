"""Counts by formula what preparing a SOI block and solving with it take."""

import dataclasses

import numpy as np

from repast_dist.analog.arrays.inv import couplings, couplings_of, piece_values
from repast_dist.analog.schemes.base import Counts, Scheme
from repast_dist.analog.solution import SolveCounts
from repast_dist.ground.numbers import ceil_div
from repast_dist.hardware.geometry import Geometry, array_count
from repast_dist.hardware.hardware import Hardware
from repast_dist.hardware.specs import ChipSpec


@dataclasses.dataclass(frozen=True)
class BlockShapes:
    """The shapes of SOI blocks as columns, with one entry per block.

    Attributes
    ----------
    size : ndarray
        Width n.
    right_sides : ndarray
        Right-hand sides per step, which are the other dimension of the layer's gradient.
    depth : ndarray
        How often the block is halved, with Schur complements, until a piece fits an inverting
        array.
    pieces, piece : ndarray
        Its pieces, and the width of the widest.
    inv_arrays, product_arrays : ndarray
        Inverting arrays, and multiplying arrays for the residual product.
    held : ndarray
        Rows N of the activations or errors of the last batches that a fused block is the product
        of.
    fresh : ndarray
        Those of them that are of one batch.
    fused : ndarray of bool
        Whether the arrays hold those rows and their transpose instead of the product; solves and
        residual products then use both.
    between : ndarray
        Right-hand sides between two writings, of all chips that hold a block.
    scheme : Scheme
        How the blocks are solved.
    products_per_bank : int
        Multiplying arrays of a bank that hold residual products.
    """

    size: np.ndarray
    right_sides: np.ndarray
    depth: np.ndarray
    pieces: np.ndarray
    piece: np.ndarray
    inv_arrays: np.ndarray
    product_arrays: np.ndarray
    held: np.ndarray
    fresh: np.ndarray
    fused: np.ndarray
    between: np.ndarray
    scheme: Scheme
    products_per_bank: int

    def __len__(self) -> int:
        return len(self.size)

    @property
    def product_bits(self) -> int:
        """Fixed-point bits of residual products."""
        return self.scheme.product_bits

    def shared(self, block: np.ndarray, right_sides: np.ndarray) -> "BlockShapes":
        """Return the columns of some blocks with other numbers of right-hand sides."""
        taken = {
            field.name: getattr(self, field.name)[block]
            for field in dataclasses.fields(self)
            if field.name not in ("right_sides", "scheme", "products_per_bank")
        }
        return dataclasses.replace(self, right_sides=right_sides, **taken)

    @property
    def factors(self) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """Rows and columns of the two matrices of a residual product; the second is empty if a
        block is not fused.
        """
        inner = np.where(self.fused, self.held, self.size)
        none = np.where(self.fused, self.held, 0)
        return (self.size, inner), (none, np.where(self.fused, self.size, 0))

    @property
    def inverting_cells(self) -> np.ndarray:
        """Cells of the inverting arrays, both of every pair, and of the damping if a block is
        fused.
        """
        of_fused = 2 * self.size * self.held + self.size
        values = np.where(self.fused, of_fused, piece_values(self.size, self.pieces))
        per_piece = self.inv_arrays // (np.where(self.fused, 2, 1) * self.pieces)
        cells: np.ndarray = 2 * per_piece * values
        return cells

    @property
    def coupling_values(self) -> np.ndarray:
        """Values that multiply the halves of Schur complements, which are no part of a block."""
        return couplings_of(self.size, np.where(self.inv_arrays > 0, self.depth, 0))

    @property
    def inverse_values(self) -> np.ndarray:
        """Values of the inverses that multiplying arrays hold beside the blocks."""
        holds = self.scheme.holds_inverse(self.size, self.between) & ~self.fused
        values: np.ndarray = np.where(holds, self.size**2, 0)
        return values

    @property
    def product_values(self) -> np.ndarray:
        """Values of the matrices of the residual product."""
        values: np.ndarray = np.where(self.fused, 2 * self.size * self.held, self.size**2)
        return values


def block_shapes(
    size: np.ndarray,
    right_sides: np.ndarray,
    fresh: np.ndarray,
    hardware: Hardware,
    scheme: Scheme,
    held_batches: int = 1,
    interval: int = 1,
) -> BlockShapes:
    """Return the shapes of blocks of these widths, none of them fused, which are renewed once in so
    many steps.

    With a scheme without residual products, blocks that fit one array need no multiplying arrays.
    """
    g = hardware.product_geometry(scheme.product_bits)
    array = hardware.chip.inv.size
    widths, width = np.unique(size, return_inverse=True)
    depth_of_width = np.array([scheme.depth(n, array) for n in widths.tolist()], np.int64)
    depth = depth_of_width[width]
    pieces = np.array([scheme.pieces(n, array) for n in widths.tolist()], np.int64)[width]
    between = right_sides * interval
    return BlockShapes(
        size=size,
        right_sides=right_sides,
        depth=depth,
        pieces=pieces,
        piece=ceil_div(size, pieces),
        inv_arrays=pieces * scheme.arrays_per_piece,
        product_arrays=np.where(
            scheme.uses_products | (depth > 0),
            array_count(g, size, size),
            0,
        )
        + _coupling_arrays(g, widths, depth_of_width)[width] * scheme.uses_array
        + array_count(g, size, size) * scheme.holds_inverse(size, between),
        held=held_batches * fresh,
        fresh=fresh,
        fused=np.zeros(len(size), bool),
        between=between,
        scheme=scheme,
        products_per_bank=hardware.chip.residual.arrays_per_bank,
    )


def _coupling_arrays(g: Geometry, size: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Return the multiplying arrays of couplings that are no part of a block."""
    arrays = np.zeros(len(size), np.int64)
    for place in np.flatnonzero(depth > 1):
        shapes = couplings(int(size[place]), int(depth[place]))
        arrays[place] = sum(int(array_count(g, rows, columns)) for rows, columns in shapes)
    return arrays


def can_fuse(shapes: BlockShapes, chip: ChipSpec) -> np.ndarray:
    """Return a mask of the blocks whose activations and their transpose fit inverting arrays."""
    fits: np.ndarray = (shapes.pieces == 1) & (shapes.held <= chip.inv.size)
    return fits


def fuse(shapes: BlockShapes, fused: np.ndarray, hardware: Hardware) -> BlockShapes:
    """Return the columns with some blocks fused, which take twice the inverting arrays and two
    products.
    """
    if not fused.any():
        return shapes
    g = hardware.product_geometry(shapes.product_bits)
    both = array_count(g, shapes.size, shapes.held) + array_count(g, shapes.held, shapes.size)
    both = np.where(shapes.product_arrays > 0, both, 0)
    return dataclasses.replace(
        shapes,
        fused=fused,
        inv_arrays=np.where(fused, 2, 1) * shapes.inv_arrays,
        product_arrays=np.where(fused, both, shapes.product_arrays),
    )


def modelled_solves(
    shapes: BlockShapes, scheme: Scheme, hardware: Hardware, iterations: int
) -> Counts:
    """Return the counts of solving if every right-hand side takes so many rounds."""
    rounds = np.full(len(shapes), scheme.rounds(iterations), np.int64)
    counts = scheme.solve_counts(shapes, rounds, hardware.inv_spec)
    spared = counts["spared_passes"] // hardware.chip.residual.dac_bits
    return counts | {"spared_passes": spared}


def modelled_preparations(
    shapes: BlockShapes, scheme: Scheme, hardware: Hardware, iterations: int
) -> Counts:
    """Return the counts of preparing blocks: scaling, deflation, trials with so many rounds per
    right-hand side, and written cells.
    """
    cell, inv = hardware.device.cell, hardware.inv_spec
    return scheme.program_counts(shapes, cell, inv, trials=scheme.expected_trials(iterations, inv))


def counted(counts: dict[int, SolveCounts], blocks: int) -> dict[str, np.ndarray]:
    """Return measured counts as columns; blocks that did nothing are zero."""
    columns = {
        field.name: np.zeros(blocks, np.float64 if field.type is float else np.int64)
        for field in dataclasses.fields(SolveCounts)
    }
    for number, item in counts.items():
        for name in columns:
            columns[name][number] = getattr(item, name)
    return columns
