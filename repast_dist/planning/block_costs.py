"""Counts and times what chips do with SOI blocks: averaging, programming and solving."""

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np

from repast_dist.analog.arrays.inv import piece_values
from repast_dist.analog.arrays.ranges import COUNTED_VECTORS
from repast_dist.ground.numbers import BITS_PER_BYTE, ceil_div
from repast_dist.hardware.geometry import Counts, Geometry, whole
from repast_dist.hardware.hardware import Hardware
from repast_dist.hardware.specs import ChipSpec
from repast_dist.ops.pricing import energy_of, time_per_count
from repast_dist.planning.cholesky import LaneWork, factorisation, triangular_solves
from repast_dist.planning.solves import BlockShapes, modelled_preparations, modelled_solves
from repast_dist.planning.specs import Policy

RANGING_DRIVES = 2
"""Times that arrays of residual products are driven by every vector that sets their ranges."""

_AVERAGE_OPS = 3
"""Digital operations per number of a running average: decay, add, damp."""


@dataclasses.dataclass(frozen=True)
class BlockCosts:
    """Modelled times of blocks on one copy, with one entry per block.

    Attributes
    ----------
    solving_s : ndarray
        Time per step of solving with it.
    renewing_s : ndarray
        Time of preparing and programming it once.
    interval : int
        Steps between inversions.
    """

    solving_s: np.ndarray
    renewing_s: np.ndarray
    interval: int

    @property
    def per_step_s(self) -> np.ndarray:
        """Time per step, if the block is renewed when inverses are due."""
        seconds: np.ndarray = self.solving_s + self.renewing_s / self.interval
        return seconds

    def take(self, place: np.ndarray) -> "BlockCosts":
        """Return the costs of some blocks."""
        return BlockCosts(self.solving_s[place], self.renewing_s[place], self.interval)

    def shared(self, share: np.ndarray) -> "BlockCosts":
        """Return the costs if only a share of the right-hand sides is solved."""
        return dataclasses.replace(self, solving_s=self.solving_s * share)


def block_costs(shapes: BlockShapes, hardware: Hardware, policy: Policy) -> BlockCosts:
    """Return the modelled costs of every block."""
    solving = modelled_solves(shapes, policy.inversion, hardware, policy.assumed_rounds)
    preparing = modelled_preparations(shapes, policy.inversion, hardware, policy.assumed_rounds)
    one = np.ones(len(shapes), np.int64)
    weights = time_per_count(hardware.costs)
    solve = solve_counts(shapes, solving, one, hardware)
    prepare = solve_counts(shapes, preparing, one, hardware)
    program = program_counts(shapes, preparing, one, hardware)
    zero = np.zeros(len(shapes))
    return BlockCosts(
        sum(solve.get(name, 0) * weight for name, weight in weights.items()) + zero,
        sum(
            (prepare.get(name, 0) + program.get(name, 0)) * weight
            for name, weight in weights.items()
        )
        + zero,
        policy.soi.interval,
    )


def block_energy_j(shapes: BlockShapes, hardware: Hardware, policy: Policy) -> np.ndarray:
    """Return the modelled energy per step of preparing, programming and solving every block."""
    soi, size = policy.soi, len(shapes)
    solving = modelled_solves(shapes, policy.inversion, hardware, policy.assumed_rounds)
    preparing = modelled_preparations(shapes, policy.inversion, hardware, policy.assumed_rounds)
    one = np.ones(size, np.int64)
    solve, prepare, program = (
        energy_of(counts, hardware.costs, size)
        for counts in (
            solve_counts(shapes, solving, one, hardware),
            solve_counts(shapes, preparing, one, hardware),
            program_counts(shapes, preparing, one, hardware),
        )
    )
    joules: np.ndarray = solve + (prepare + program) / soi.interval
    return joules


def solve_counts(
    shapes: BlockShapes, counts: Counts, copies: np.ndarray, hardware: Hardware
) -> Counts:
    """Return op-table counts of solving, from `SolveCounts` as columns."""
    chip, g = hardware.chip, hardware.product_geometry(shapes.product_bits)
    inv_ops, vmm_ops, n = counts["inv_ops"], counts["vmm_ops"], shapes.size
    digital = _digital_work(shapes, counts, copies, chip)
    in_turn = inv_ops - counts["beside"]
    at_once = np.where(in_turn > 0, inv_ops / np.maximum(in_turn, 1), 1.0)
    settled = _settled(shapes, counts, chip)
    converted_rows = sum(number * width for number, width, _ in settled)
    moved = (vmm_ops * 2 * n + 2 * converted_rows + digital["words"]) * g.value_bytes
    products = tuple(_products(shapes, settled[0][0], vmm_ops))
    driven = _driven_counts(products, g, counts["spared_passes"])
    serial = SerialSolves.moving(shapes, counts, products, moved, hardware).counts(copies)
    # Products with some of the bits read the cells that hold these.
    spared = counts["spared_slices"] * g.passes
    cells = driven["cells_read"] - spared * n * n * g.columns_per_weight
    converted = driven["residual_adc_conversions"] - spared * ceil_div(n, g.driven_rows) * n
    serial["serial_digital_ops"] = digital["clocks"]
    return {
        **driven,
        **serial,
        # One settling reads one piece, with all its slices and copies.
        "cells_read": cells + sum(number * read for number, _, read in settled),
        "residual_adc_conversions": converted,
        "inv_ops": inv_ops,
        # Every amplifier has an inverter behind it.
        "amplifier_s": counts["settling_s"]
        * 2
        * at_once
        * np.where(shapes.fused, shapes.size + shapes.held, shapes.piece),
        "inv_dac_conversions": converted_rows,
        "inv_adc_conversions": converted_rows,
        "digital_ops": digital["operations"],
        "buffer_bytes": moved,
    }


type _Products = tuple[tuple[np.ndarray, np.ndarray, np.ndarray], ...]
"""Numbers, rows and columns of products."""


@dataclasses.dataclass(frozen=True, eq=False)
class SerialSolves:
    """What decides how long solves take with any numbers of copies, one entry per block: what is
    done in turn is shared by copies. No block is factorised by digital units.

    Attributes
    ----------
    products : tuple of tuple of ndarray
        Of each kind of products their number, the groups of rows that an array drives one after
        the other, and passes that are left out.
    passes : int
        Passes of a product.
    settlings, settling_s : ndarray
        Settlings that are not beside others, and their time.
    operations : ndarray
        Digital operations.
    moved : ndarray
        Bytes between buffers and arrays.
    banks : ndarray
        Banks of one copy.
    chip : ChipSpec
        The chip.
    """

    products: _Products
    passes: int
    settlings: np.ndarray
    settling_s: np.ndarray
    operations: np.ndarray
    moved: np.ndarray
    banks: np.ndarray
    chip: ChipSpec

    @classmethod
    def of(cls, shapes: BlockShapes, counts: Counts, hardware: Hardware) -> "SerialSolves":
        """Work out what solves with `SolveCounts` as columns do in turn."""
        settled = _settled(shapes, counts, hardware.chip)
        converted_rows = sum(number * width for number, width, _ in settled)
        vmm_ops = counts["vmm_ops"]
        moved = vmm_ops * 2 * shapes.size + 2 * converted_rows + counts["moved"]
        products = tuple(_products(shapes, settled[0][0], vmm_ops))
        moved = moved * hardware.product_geometry(shapes.product_bits).value_bytes
        return cls.moving(shapes, counts, products, moved, hardware)

    @classmethod
    def moving(
        cls,
        shapes: BlockShapes,
        counts: Counts,
        products: _Products,
        moved: np.ndarray,
        hardware: Hardware,
    ) -> "SerialSolves":
        """Work out what solves do in turn that make these products and move so many bytes."""
        g, spared = hardware.product_geometry(shapes.product_bits), counts["spared_passes"]
        in_turn = [
            (number, _rows_in_turn(rows, g), spared if place < _WHOLE else np.zeros_like(number))
            for place, (number, rows, _) in enumerate(products)
        ]
        return cls(
            tuple(item for item in in_turn if item[1].any()),
            g.passes,
            counts["inv_ops"] - counts["beside"],
            counts["settling_s"],
            counts["digital_ops"],
            moved,
            block_banks(shapes, hardware.chip),
            hardware.chip,
        )

    def counts(self, copies: np.ndarray) -> Counts:
        """Return op-table counts of what decides times, for copies of the shape (..., blocks)."""
        chip = self.chip
        tiles = ceil_div(copies * self.banks, chip.banks_per_tile)
        passes = np.zeros_like(copies)
        for number, groups, spared in self.products:
            passes += _in_turn(number, groups, spared, copies, self.passes)
        return {
            "serial_residual_passes": passes,
            "serial_inv_ops": ceil_div(self.settlings, copies),
            "serial_settling_s": self.settling_s / copies,
            "serial_digital_ops": ceil_div(
                self.operations, np.maximum(1, chip.digital_lanes * tiles)
            ),
            "serial_buffer_words": ceil_div(self.moved, tiles * (chip.bus_bits // BITS_PER_BYTE)),
        }


def _rows_in_turn(rows: np.ndarray, g: Geometry) -> np.ndarray:
    """Return the groups of rows that an array drives one after the other; arrays work side by
    side.
    """
    return ceil_div(np.minimum(rows, g.rows), g.driven_rows)


def _in_turn(
    number: np.ndarray,
    groups: np.ndarray,
    spared: np.ndarray | int,
    copies: np.ndarray,
    passes: int,
) -> np.ndarray:
    """Return the passes that copies make one after the other of so many products."""
    in_turn: np.ndarray = (ceil_div(number, copies) * passes - spared // copies) * groups
    return in_turn


_WHOLE = 2
"""The first products, of which those with a formed block are one, and those of a fused one two."""


def _driven_counts(
    products: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]],
    g: Geometry,
    spared_passes: np.ndarray | int = 0,
) -> Counts:
    """Return the counts of products with their number, rows and columns, without those that
    decide times. Those with whole blocks leave out some passes.
    """
    reads = cells = dac = adc = np.zeros(1, np.int64)
    for place, (number, rows, columns) in enumerate(products):
        spared = spared_passes if place < _WHOLE else 0
        driven = number * g.passes - spared
        column_tiles = ceil_div(columns * g.slices, g.weight_columns)
        groups = ceil_div(rows, g.driven_rows)
        reads = reads + driven * groups * column_tiles
        cells = cells + driven * rows * columns * g.slices * g.columns_per_weight
        dac = dac + driven * rows * column_tiles
        adc = adc + driven * groups * columns * g.slices
    return {
        "crossbar_reads": reads,
        "cells_read": cells,
        "dac_conversions": dac,
        "residual_adc_conversions": adc,
    }


def _digital_work(
    shapes: BlockShapes, counts: Counts, copies: np.ndarray, chip: ChipSpec
) -> Counts:
    """Return operations, clocks and moved numbers of the digital units, (blocks,) each: of scalar
    operations, and of the Cholesky factorisations that took the place of arrays.
    """
    operations, words = counts["digital_ops"], counts["moved"]
    clocks = ceil_div(operations, digital_lanes(shapes, copies, chip))
    work = {"operations": operations, "clocks": clocks, "words": words}
    if "factorisations" not in counts:
        return work  # A plan with arrays, in which every solve converges.
    place = np.flatnonzero(counts["factorisations"] + counts["factored_sides"])
    tiles = ceil_div(copies * block_banks(shapes, chip), chip.banks_per_tile)
    columns = shapes.size, tiles, counts["factorisations"], counts["factored_sides"]
    # Many blocks are alike.
    cases, case = np.unique(
        np.stack([column[place] for column in columns], axis=1), axis=0, return_inverse=True
    )
    done = [cholesky_work(n, own, times, sides, chip) for n, own, times, sides in cases.tolist()]
    for name, held in work.items():
        of_case = np.array([getattr(one, name) for one in done], np.int64)
        more = np.zeros(len(shapes), np.int64)
        more[place] = of_case[case.reshape(-1)]
        work[name] = held + more
    return work


def cholesky_work(
    size: int, tiles: int, factorisations: int, right_sides: int, chip: ChipSpec
) -> LaneWork:
    """Return what the lanes of the tiles that hold one block do to factorise it so many times, and
    to solve with the factors; see `repast_dist.planning.cholesky`.
    """
    lanes = max(1, chip.digital_lanes)
    work = factorisation(size, lanes, tiles) * factorisations
    return work + triangular_solves(size, right_sides, lanes, tiles) if right_sides else work


def _settled(
    shapes: BlockShapes, counts: Counts, chip: ChipSpec
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], ...]:
    """Return settlings, the width of an array and the cells that it reads, with all slices and
    copies: of nested halves or whole blocks, and of the pieces of a diagonal.
    """
    n, pieces = shapes.size, ceil_div(shapes.size, chip.inv.size)
    beside = counts["beside"]
    of_diagonal = beside + np.where(pieces > 1, beside // np.maximum(pieces - 1, 1), 0)
    nested = counts["inv_ops"] - of_diagonal
    cells = shapes.inverting_cells // shapes.pieces
    # A choice by trial may hold either in the arrays that are there for the halves.
    held = 2 * shapes.inv_arrays // np.maximum(shapes.pieces, 1)
    piece = held * (piece_values(n, pieces) // pieces)
    return (nested, shapes.piece, cells), (of_diagonal, ceil_div(n, pieces), piece)


def _products(
    shapes: BlockShapes, nested: np.ndarray, vmm_ops: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield products with their number, rows and columns: with whole blocks, and with the couplings
    of halves, two of them for every time that a matrix is inverted by halves.
    """
    applied = np.where(shapes.depth > 0, nested // 3**shapes.depth, 0)
    whole = vmm_ops - applied * (3**shapes.depth - 1)
    for rows, columns in shapes.factors:
        yield whole, rows, columns
    for level in range(int(shapes.depth.max(initial=0))):
        half = ceil_div(shapes.size, 2 ** (level + 1))
        yield np.where(level < shapes.depth, 2 * 3**level * applied, 0), half, half


def program_counts(
    shapes: BlockShapes, counts: Counts, copies: np.ndarray, hardware: Hardware
) -> Counts:
    """Return op-table counts of programming blocks; copies are written at the same time.

    Inverting and multiplying arrays of a block are written together, and where their cells need
    different numbers of pulses, the larger one decides the time. Rows are read between pulses as in
    `repast_dist.hardware.geometry.write_counts`, inverting arrays with converters of their own.
    """
    chip, g = hardware.chip, hardware.product_geometry(shapes.product_bits)
    multiplying = _product_cells(shapes, counts, g) * copies
    inverting = counts["program_cells"] * copies - multiplying
    # Of all copies the same cells hold their level.
    multiplying = multiplying - counts.get("kept_cells", np.zeros_like(copies)) * copies
    inv_cell = hardware.device.inv_cell
    pulses = np.maximum(
        np.where(multiplying > 0, g.pulses, 0.0),
        np.where(inverting > 0, inv_cell.write_pulses, 0.0),
    )
    arrays = shapes.inv_arrays + shapes.product_arrays
    at_once = block_banks(shapes, chip) * chip.written_arrays_per_bank
    rows = np.maximum(shapes.piece, np.minimum(shapes.size, g.rows))
    row_pulses = ceil_div(arrays, at_once) * rows * pulses
    # Reads of a slice before the next is written: a row of both cells of a pair at a time.
    back, back_arrays = map(shapes.scheme.read_back, (inverting, shapes.inv_arrays))
    back = back * shapes.scheme.read_backs
    back_rows = ceil_div(back_arrays, at_once) * shapes.piece * shapes.scheme.read_backs
    writing = {
        "cell_writes": multiplying + inverting,
        "write_pulses": whole(multiplying * g.pulses) + whole(inverting * inv_cell.write_pulses),
        "buffer_bytes": (shapes.product_values + shapes.inverse_values) * g.value_bytes,
        "serial_row_pulses": row_pulses,
    } | _read_counts(shapes, multiplying, inverting, row_pulses, (back, back_rows), hardware)
    ranging = _ranging_counts(shapes, multiplying > 0, copies, hardware)
    return writing | {name: writing.get(name, 0) + values for name, values in ranging.items()}


def _ranging_counts(
    shapes: BlockShapes, multiplies: np.ndarray, copies: np.ndarray, hardware: Hardware
) -> Counts:
    """Return the counts of setting calibrated ranges of residual products: vectors drive the arrays
    of every copy twice, first with converters that span everything, then with ranges as far as
    currents were found to reach, and counters beside them count codes.
    """
    chip, g = hardware.chip, hardware.product_geometry(shapes.product_bits)
    if chip.residual.adc is None or chip.residual.adc.range != "calibrated":
        return {}
    vectors = np.where(multiplies, RANGING_DRIVES * COUNTED_VECTORS, 0)
    matrices = [(vectors, *shape) for shape in shapes.factors]
    for level in range(int(shapes.depth.max(initial=0))):
        half, pairs = ceil_div(shapes.size, 2 ** (level + 1)), 2 * 2**level
        matrices.append((np.where(level < shapes.depth, pairs * vectors, 0), half, half))
    inverses = np.where(shapes.inverse_values > 0, vectors, 0)
    matrices.append((inverses, shapes.size, shapes.size))
    counts = {name: values * copies for name, values in _driven_counts(matrices, g).items()}
    taken = sum(number * rows for number, rows, _ in matrices)
    one = np.ones_like(copies)
    in_turn = (
        _in_turn(number, _rows_in_turn(rows, g), 0, one, g.passes) for number, rows, _ in matrices
    )
    return counts | {
        "serial_residual_passes": sum(in_turn),
        "digital_ops": counts["residual_adc_conversions"],
        "buffer_bytes": taken * copies * g.value_bytes,
    }


def _product_cells(shapes: BlockShapes, counts: Counts, g: Geometry) -> np.ndarray:
    """Return those of the programmed cells of one copy that are in multiplying arrays."""
    values = shapes.product_values + shapes.coupling_values + shapes.inverse_values
    held = np.where(shapes.product_arrays > 0, values, 0)
    cells: np.ndarray = np.minimum(held * g.slices * g.columns_per_weight, counts["program_cells"])
    return cells


def _read_counts(
    shapes: BlockShapes,
    multiplying: np.ndarray,
    inverting: np.ndarray,
    row_pulses: np.ndarray,
    back: tuple[np.ndarray, np.ndarray],
    hardware: Hardware,
) -> Counts:
    """Return the counts of the reads that follow pulses, and of cells and rows that are read back;
    every one takes a pass.
    """
    device, g = hardware.device, hardware.product_geometry(shapes.product_bits)
    read = whole(multiplying * g.pulses) * g.verified
    verified = whole(inverting * device.inv_cell.write_pulses) * device.inv_cell.write_verify
    inv_read = verified + back[0]
    if not (read.any() or inv_read.any()):
        return {}
    drives = ceil_div(read, np.minimum(shapes.size * g.slices, g.weight_columns))
    inv_drives = ceil_div(inv_read, shapes.piece)
    verifying = np.where(read + verified > 0, whole(row_pulses * g.columns_per_weight), 0)
    return {
        "crossbar_reads": drives + inv_drives,
        "cells_read": read + inv_read,
        "dac_conversions": drives,
        "residual_adc_conversions": read,
        "inv_dac_conversions": inv_drives,
        "inv_adc_conversions": inv_read,
        "serial_residual_passes": verifying + back[1] * g.columns_per_weight,
    }


def average_counts(shapes: BlockShapes, hardware: Hardware) -> Counts:
    """Return op-table counts of updating the running averages of blocks; of fused ones, whose older
    rows shrink by their scale alone, new rows are put into buffers.
    """
    chip, n, value_bytes = hardware.chip, shapes.size, hardware.geometry.value_bytes
    operations = np.where(shapes.fused, 0, average_ops(n))
    kept = np.where(shapes.fused, n * shapes.fresh * value_bytes, 0)
    one = np.ones(len(shapes), np.int64)
    tiles = ceil_div(block_banks(shapes, chip), chip.banks_per_tile)
    return {
        "digital_ops": operations,
        "buffer_bytes": np.where(shapes.fused, kept, 2 * n**2 * value_bytes),
        "serial_digital_ops": ceil_div(operations, digital_lanes(shapes, one, chip)),
        "serial_buffer_words": ceil_div(kept, tiles * (chip.bus_bits // BITS_PER_BYTE)),
    }


def average_ops(size: np.ndarray) -> np.ndarray:
    """Return the digital operations of updating symmetric running averages of these widths."""
    ops: np.ndarray = size * (size + 1) // 2 * _AVERAGE_OPS
    return ops


def block_banks(shapes: BlockShapes, chip: ChipSpec) -> np.ndarray:
    """Return the banks over which one copy of each block is spread: those that hold it, or those of
    the tiles whose digital lanes it takes.
    """
    per_bank = max(chip.inv.arrays_per_bank, 1)
    wanted = np.maximum(
        ceil_div(shapes.inv_arrays, per_bank),
        ceil_div(shapes.product_arrays, max(shapes.products_per_bank, 1)),
    )
    lanes = shapes.scheme.digital_tiles * chip.banks_per_tile
    return np.clip(np.maximum(wanted, lanes), 1, chip.banks)


def digital_lanes(shapes: BlockShapes, copies: np.ndarray, chip: ChipSpec) -> np.ndarray:
    """Return the digital lanes of the tiles that hold the copies of each block."""
    tiles = ceil_div(copies * block_banks(shapes, chip), chip.banks_per_tile)
    return np.maximum(1, chip.digital_lanes * tiles)
