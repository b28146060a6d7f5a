"""Counts and times what chips do with SOI blocks: averaging, programming and solving."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from repast_dist.analog.arrays.inv import piece_values
from repast_dist.analog.arrays.ranges import COUNTED_VECTORS
from repast_dist.analog.schemes.base import added
from repast_dist.ground.numbers import ceil_div
from repast_dist.hardware.geometry import Counts, Geometry, bus_words, whole
from repast_dist.hardware.hardware import Hardware
from repast_dist.hardware.specs import ChipSpec
from repast_dist.ops.pricing import energy_of
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


@dataclasses.dataclass(frozen=True, eq=False)
class BlockWork:
    """What chips do with blocks by model. It is worked out once for all that ask: to give blocks to
    chips, to find them a place, and to make the rows of a step.

    Attributes
    ----------
    shapes : BlockShapes
        The blocks.
    hardware : Hardware
        The chips.
    policy : Policy
        How blocks are solved.
    alike : BlockWork or None
        That of the same blocks with other numbers of arrays per bank for residual products, which
        change neither solves nor preparations.
    """

    shapes: BlockShapes
    hardware: Hardware
    policy: Policy
    alike: "BlockWork | None" = None

    def in_banks(self, products_per_bank: int) -> "BlockWork":
        """Return the work if so many arrays of a bank hold residual products."""
        shapes = dataclasses.replace(self.shapes, products_per_bank=products_per_bank)
        return dataclasses.replace(self, shapes=shapes, alike=self.alike or self)

    @functools.cached_property
    def banks(self) -> np.ndarray:
        """Banks of one copy of each block."""
        return block_banks(self.shapes, self.hardware.chip)

    @functools.cached_property
    def solving(self) -> "Solves":
        """Solves without preparation."""
        return self.alike.solving if self.alike else self._modelled(modelled_solves)

    @functools.cached_property
    def preparing(self) -> "Solves":
        """Preparing each block once."""
        return self.alike.preparing if self.alike else self._modelled(modelled_preparations)

    @functools.cached_property
    def renewing(self) -> "Solves":
        """Both in the same step."""
        if self.alike:
            return self.alike.renewing
        columns = added(self.solving.columns, self.preparing.columns)
        return Solves(self.shapes, columns, self.hardware)

    def _modelled(self, what: Callable[..., Counts]) -> "Solves":
        rounds = self.policy.assumed_rounds
        columns = what(self.shapes, self.policy.inversion, self.hardware, rounds)
        return Solves(self.shapes, columns, self.hardware)

    @functools.cached_property
    def averaging(self) -> Counts:
        """Op-table counts of updating the running averages."""
        return average_counts(self.shapes, self.hardware)

    @functools.cached_property
    def programming(self) -> Counts:
        """Op-table counts of programming one copy."""
        one = np.ones(len(self.shapes), np.int64)
        return program_counts(self.shapes, self.preparing.columns, one, self.hardware)

    @functools.cached_property
    def costs(self) -> BlockCosts:
        """Modelled times on one copy."""
        weights, zero = self.hardware.costs.serial_s, np.zeros(len(self.shapes))
        one, program = np.ones(len(self.shapes), np.int64), self.programming
        solve, prepare = (
            solves.in_turn(one, self.banks) for solves in (self.solving, self.preparing)
        )
        return BlockCosts(
            sum(solve.get(name, 0) * weight for name, weight in weights.items()) + zero,
            sum(
                (prepare.get(name, 0) + program.get(name, 0)) * weight
                for name, weight in weights.items()
            )
            + zero,
            self.policy.soi.interval,
        )

    @functools.cached_property
    def energy_j(self) -> np.ndarray:
        """Modelled energy per step of preparing, programming and solving."""
        one = np.ones(len(self.shapes), np.int64)
        solve, prepare, program = (
            energy_of(counts, self.hardware.costs, len(self.shapes))
            for counts in (
                self.solving.counts(one, self.banks),
                self.preparing.counts(one, self.banks),
                self.programming,
            )
        )
        joules: np.ndarray = solve + (prepare + program) / self.policy.soi.interval
        return joules


def solve_counts(
    shapes: BlockShapes, counts: Counts, copies: np.ndarray, hardware: Hardware
) -> Counts:
    """Return op-table counts of solving, from `SolveCounts` as columns."""
    banks = block_banks(shapes, hardware.chip)
    return Solves(shapes, counts, hardware).counts(copies, banks)


type _Products = tuple[tuple[np.ndarray, np.ndarray, np.ndarray], ...]
"""Numbers, rows and columns of products."""


@dataclasses.dataclass(frozen=True, eq=False)
class Solves:
    """What solves do, whatever copies of the blocks there are, with one entry per block.

    Attributes
    ----------
    shapes : BlockShapes
        The blocks.
    columns : dict
        `SolveCounts` as columns.
    hardware : Hardware
        The chips.
    taken_from : tuple or None
        Solves with other blocks, and the place of each of these among them.
    """

    shapes: BlockShapes
    columns: Counts
    hardware: Hardware
    taken_from: "tuple[Solves, np.ndarray] | None" = None

    def take(self, place: np.ndarray, shapes: BlockShapes) -> "Solves":
        """Return the solves with some blocks, of these shapes."""
        columns = {name: values[place] for name, values in self.columns.items()}
        return Solves(shapes, columns, self.hardware, (self, place))

    def counts(self, copies: np.ndarray, banks: np.ndarray) -> Counts:
        """Return op-table counts with so many copies of blocks, each of which takes some banks;
        both (blocks,).
        """
        rows = {**self._shared, **self.serial.counts(copies, banks)}
        return _factorised(self, rows, copies, banks) if self.factorises else rows

    def in_turn(self, copies: np.ndarray, banks: np.ndarray) -> Counts:
        """Return those of them that decide how long solves take."""
        if self.factorises:
            return self.counts(copies, banks)
        return self.serial.counts(copies, banks)

    @property
    def factorises(self) -> bool:
        """Whether digital units may factorise blocks; not in a plan with arrays, in which every
        solve converges.
        """
        return "factorisations" in self.columns

    @functools.cached_property
    def serial(self) -> "SerialSolves":
        """What decides how long they take."""
        if self.taken_from is not None:
            whole, place = self.taken_from
            return whole.serial.take(place)
        g, spared = self.geometry, self.columns["spared_passes"]
        in_turn = [
            (number, _rows_in_turn(rows, g), spared if place < _WHOLE else np.zeros_like(number))
            for place, (number, rows, _) in enumerate(self._products)
        ]
        return SerialSolves(
            tuple(item for item in in_turn if item[1].any()),
            g.passes,
            self.columns["inv_ops"] - self.columns["beside"],
            self.columns["settling_s"],
            self.columns["digital_ops"],
            self._moved,
            self.hardware.chip,
        )

    @functools.cached_property
    def _shared(self) -> Counts:
        """Op-table counts that do not depend on copies."""
        shapes, counts, g, n = self.shapes, self.columns, self.geometry, self.shapes.size
        inv_ops, in_turn = counts["inv_ops"], counts["inv_ops"] - counts["beside"]
        at_once = np.where(in_turn > 0, inv_ops / np.maximum(in_turn, 1), 1.0)
        driven = _driven_counts(self._products, g, counts["spared_passes"])
        # Products with some of the bits read the cells that hold these.
        spared = counts["spared_slices"] * g.passes
        cells = driven["cells_read"] - spared * n * n * g.columns_per_weight
        converted = driven["residual_adc_conversions"] - spared * ceil_div(n, g.driven_rows) * n
        return {
            **driven,
            # One settling reads one piece, with all its slices and copies.
            "cells_read": cells + sum(number * read for number, _, read in self._settled),
            "residual_adc_conversions": converted,
            "inv_ops": inv_ops,
            # Every amplifier has an inverter behind it.
            "amplifier_s": counts["settling_s"]
            * 2
            * at_once
            * np.where(shapes.fused, shapes.size + shapes.held, shapes.piece),
            "inv_dac_conversions": self._converted_rows,
            "inv_adc_conversions": self._converted_rows,
            "digital_ops": counts["digital_ops"],
            "buffer_bytes": self._moved,
        }

    @functools.cached_property
    def geometry(self) -> Geometry:
        """How products lie on arrays."""
        return self.hardware.product_geometry(self.shapes.product_bits)

    @functools.cached_property
    def _settled(self) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], ...]:
        return _settled(self.shapes, self.columns, self.hardware.chip)

    @functools.cached_property
    def _products(self) -> _Products:
        return tuple(_products(self.shapes, self._settled[0][0], self.columns["vmm_ops"]))

    @functools.cached_property
    def _converted_rows(self) -> np.ndarray:
        """Rows of inverting arrays that are converted."""
        rows: np.ndarray = sum(
            (number * width for number, width, _ in self._settled),
            np.zeros(len(self.shapes), np.int64),
        )
        return rows

    @functools.cached_property
    def _moved(self) -> np.ndarray:
        """Bytes between buffers and arrays."""
        products = self.columns["vmm_ops"] * 2 * self.shapes.size
        words = products + 2 * self._converted_rows + self.columns["moved"]
        moved: np.ndarray = words * self.geometry.value_bytes
        return moved


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
    chip : ChipSpec
        The chip.
    """

    products: _Products
    passes: int
    settlings: np.ndarray
    settling_s: np.ndarray
    operations: np.ndarray
    moved: np.ndarray
    chip: ChipSpec

    def take(self, place: np.ndarray) -> "SerialSolves":
        """Return those of some blocks."""
        return SerialSolves(
            tuple(
                (number[place], groups[place], spared[place])
                for number, groups, spared in self.products
            ),
            self.passes,
            self.settlings[place],
            self.settling_s[place],
            self.operations[place],
            self.moved[place],
            self.chip,
        )

    def counts(self, copies: np.ndarray, banks: np.ndarray) -> Counts:
        """Return op-table counts of what decides times, for copies of the shape (..., blocks), each
        of which takes some banks.
        """
        chip = self.chip
        tiles = ceil_div(copies * banks, chip.banks_per_tile)
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
            "serial_buffer_words": bus_words(self.moved, tiles * chip.bus_bits),
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


def _factorised(solves: Solves, rows: Counts, copies: np.ndarray, banks: np.ndarray) -> Counts:
    """Return op-table counts with those of the Cholesky factorisations that took the place of
    arrays.
    """
    chip, counts = solves.hardware.chip, solves.columns
    place = np.flatnonzero(counts["factorisations"] + counts["factored_sides"])
    tiles = ceil_div(copies * banks, chip.banks_per_tile)
    columns = solves.shapes.size, tiles, counts["factorisations"], counts["factored_sides"]
    # Many blocks are alike.
    cases, case = np.unique(
        np.stack([column[place] for column in columns], axis=1), axis=0, return_inverse=True
    )
    done = [cholesky_work(n, own, times, sides, chip) for n, own, times, sides in cases.tolist()]
    operations, clocks, words = np.zeros((3, len(solves.shapes)), np.int64)
    for name, more in (("operations", operations), ("clocks", clocks), ("words", words)):
        of_case = np.array([getattr(one, name) for one in done], np.int64)
        more[place] = of_case[case.reshape(-1)]
    moved = rows["buffer_bytes"] + words * solves.geometry.value_bytes
    return rows | {
        "digital_ops": rows["digital_ops"] + operations,
        "serial_digital_ops": rows["serial_digital_ops"] + clocks,
        "buffer_bytes": moved,
        "serial_buffer_words": bus_words(moved, tiles * chip.bus_bits),
    }


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
        "serial_buffer_words": bus_words(kept, tiles * chip.bus_bits),
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
