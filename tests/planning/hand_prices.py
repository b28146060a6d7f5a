"""Prices worked out by hand from published figures, for tests to compare the op table with.

Nothing here calls the code whose prices it checks: figures are written down from their sources, and
formulas from what `docs/limits.md` and the publications say that the hardware does. Only decisions
are taken from a plan: how many copies there are, and which arrays and chips do something.
"""

import dataclasses
import itertools
import math

import numpy as np

# Figures of one action, from the sources that conf/components/reram_32nm.yaml names.
ISAAC_ADC_J = 16e-3 / 8 / 1.2e9
"""Eight 8-bit ADCs of a bank take 16 mW at 1.2 GS/s; a bit more doubles it."""
ISAAC_DAC_J = 0.41667e-12
"""4 mW for 1,024 DACs of a bit, each used 9.375 million times a second."""
SAMPLE_HOLD_J = 1.041667e-15
SHIFT_ADD_J = 0.021e-12
CELL_PASS_J = 1.953125e-15
PULSE_J = 3.91e-9 / 128
# 1 V, 100 MHz and 0.37 pF at 370 MHz pF/mA; no slew rate is asked for.
AMPLIFIER_W = 1.0 * 100e6 * 0.37e-12 / (370e6 * 1e-12 / 1e-3)
BRAHMS_DAC_J = 2.2079757511968567e-13
INV_GAIN_J = 1.15e-12
"""4 times 1.2 GHz on 0.1 pF take 1.3 mA at 370 MHz pF/mA, for 1 / 1.2 GHz; and a comparator."""
MAC_J, MAC_LEAK_W = 9.780346196882295e-12, 6.252137522289382e-05
"""A 32-bit multiplier and adder of Aladdin, brought from 40 to 32 nm by hwcomponents."""
BYTE_J = {
    "buffer": 20.45e-12 / 32,
    "bus": 8 * 0.054e-12,
    "register": 1.088889e-12,
    # A byte is written and read and crosses the router once, so half a crossing each.
    "router": 0.5 * 20.74e-12 / 32,
}
TILE_LOGIC_W, CONTROL_W = 2.65e-3, 1e-3
SAMPLE_S = 1 / 1.2e9
CYCLE_S = 100e-9
ROW_PULSE_S = 50.88e-9
SETTLING_S = 12 / 100e6
"""Conjugate gradients read after 12 cycles of amplifiers of 100 MHz."""


RESIDUAL_PER_BANK = 2
"""Multiplying arrays of a bank that hold blocks, so that those of one block take so many banks."""


@dataclasses.dataclass(frozen=True)
class Chip:
    """A chip's figures as conf/chip/ has them; cells hold slices, DACs apply a bit a pass.

    Attributes
    ----------
    name : str
        Name in conf/chip/.
    tiles, banks_per_tile : int
        The hierarchy.
    rows : int
        Rows and physical columns of a multiplying array; 8 arrays a bank, an ADC each.
    bits : int
        Bits of weights and inputs.
    inv_size, inv_per_bank : int
        Rows of an inverting array, and arrays of a bank; 8 ADCs each.
    cell_bits : int
        Bits of a multiplying cell.
    pulses : float
        Programming pulses of a cell, each followed by a read where `verified`.
    """

    name: str
    tiles: int
    banks_per_tile: int
    rows: int
    bits: int
    inv_size: int
    inv_per_bank: int
    cell_bits: int = 4
    pulses: float = 1.0
    verified: bool = False

    @property
    def banks(self):
        return self.tiles * self.banks_per_tile

    @property
    def pairs(self):
        """Pairs of columns, each of which an ADC converts at once."""
        return self.rows // 2

    @property
    def slices(self):
        return up(self.bits - 1, self.cell_bits)

    @property
    def product_slices(self):
        """Slices of the 32-bit values of residual products."""
        return up(31, self.cell_bits)

    @property
    def passes(self):
        return self.bits - 1

    @property
    def value_bytes(self):
        return up(self.bits, 8)

    @property
    def pass_s(self):
        return max(CYCLE_S, self.pairs * SAMPLE_S)

    @property
    def convert_s(self):
        return self.inv_size / 8 * SAMPLE_S

    @property
    def static_w(self):
        return self.tiles * (16 * MAC_LEAK_W + TILE_LOGIC_W + CONTROL_W)


SMALL = Chip("small", tiles=4, banks_per_tile=4, rows=128, bits=8, inv_size=128, inv_per_bank=2)
REPAST = Chip(
    "repast", tiles=168, banks_per_tile=12, rows=256, bits=16, inv_size=256, inv_per_bank=1
)
TAOX = dataclasses.replace(SMALL, name="taox", cell_bits=3, pulses=8.52, verified=True)
"""chip=small with device=hp_inv_taox: 3 bits a cell, 8.52 pulses with a read each."""
CHIPS = {chip.name: chip for chip in (SMALL, REPAST, TAOX)}


def up(number, divisor):
    """Divide and round up."""
    return -(-int(number) // int(divisor))


# Energy of one count of each column of the op table, and seconds of one serial count --------------

COUNT_J = {
    # A pass of an array is paid by its cells and converters.
    "crossbar_reads": 0.0,
    "cells_read": CELL_PASS_J,
    "dac_conversions": ISAAC_DAC_J,
    "adc_conversions": ISAAC_ADC_J + SAMPLE_HOLD_J + SHIFT_ADD_J,
    # Ten bits: two more than ISAAC's.
    "residual_adc_conversions": 4 * ISAAC_ADC_J + SAMPLE_HOLD_J + SHIFT_ADD_J,
    # A write is paid by its pulses.
    "cell_writes": 0.0,
    "write_pulses": PULSE_J,
    # A settling is paid by its amplifiers, cells and converters.
    "inv_ops": 0.0,
    "amplifier_s": AMPLIFIER_W,
    "inv_dac_conversions": BRAHMS_DAC_J,
    "inv_adc_conversions": ISAAC_ADC_J + SAMPLE_HOLD_J + INV_GAIN_J,
    "digital_ops": MAC_J,
    "buffer_bytes": sum(BYTE_J.values()),
    # Links are paid by `link_j`.
    "link_bytes": 0.0,
    "link_j": 1.0,
}


def serial_s(chip):
    """Return the seconds of one serial count, without those of the buffer's words."""
    return {
        "serial_passes": chip.pass_s,
        "serial_residual_passes": chip.pass_s,
        "serial_inv_ops": chip.convert_s,
        "serial_settling_s": 1.0,
        "serial_row_pulses": ROW_PULSE_S,
        "serial_digital_ops": SAMPLE_S,
        "link_s": 1.0,
    }


def joules(row):
    """Return the energy of a row of counts."""
    return sum(value * COUNT_J[name] for name, value in row.items() if name in COUNT_J)


def seconds(chip, row):
    """Return the duration of a row: the bus feeds arrays and units while they work."""
    each = serial_s(chip)
    worked = sum(row.get(name, 0) * one for name, one in each.items() if name != "link_s")
    return max(worked, row.get("serial_buffer_words", 0) * SAMPLE_S) + row.get("link_s", 0.0)


# Matrices on arrays -------------------------------------------------------------------------------


def arrays_of(chip, rows, columns, groups=1):
    """Return the arrays of matrices; small ones of several groups lie along a diagonal."""
    wide = columns * chip.slices
    if rows <= chip.rows and wide <= chip.pairs:
        return up(groups, min(chip.rows // rows, chip.pairs // wide))
    return groups * up(rows, chip.rows) * up(wide, chip.pairs)


def multiply(
    chip, vectors, rows, columns, *, groups=1, copies=1, tiles=1, repeats=1, stacked=False
):
    """Return the row of multiplying vectors by matrices of weights or activations.

    Every vector drives each row once per bit, on all arrays side by side; each array converts its
    pairs of columns, and the sums of arrays one above the other are added up digitally. Copies
    share the vectors; `repeats` times the arrays are filled one after the other.
    """
    above, beside = up(rows, chip.rows), up(columns * chip.slices, chip.pairs)
    driven = vectors * groups * chip.passes
    moved = vectors * groups * (rows + columns) * chip.value_bytes
    # Each input is compared and shifted; counters of codes set the range of the next step.
    sums = vectors * groups * (columns * (above - 1) + 2 * rows)
    # Those of a stack of matrices count vectors of all of them together.
    some = min(vectors * groups, 32) if stacked else min(vectors, 32) * groups
    counted = some * chip.passes * above * columns * chip.slices
    return {
        "crossbar_reads": vectors * chip.passes * arrays_of(chip, rows, columns, groups),
        "cells_read": driven * rows * 2 * columns * chip.slices,
        "dac_conversions": driven * rows * beside,
        "adc_conversions": driven * above * columns * chip.slices,
        "digital_ops": sums + counted,
        "sums": sums,
        "buffer_bytes": moved,
        "serial_passes": up(vectors, copies) * chip.passes * repeats,
        # A bus of 256 bits and 16 lanes in every tile.
        "serial_buffer_words": up(moved, 32 * tiles),
        "serial_digital_ops": up(sums, 16 * tiles),
    }


def write(chip, rows, columns, *, groups=1, copies=1, at_once=1):
    """Return the row of writing matrices: arrays of a bank one after the other, row by row."""
    together = max(1, min(chip.rows // rows, chip.pairs // (columns * chip.slices)))
    written = min(rows * min(together, groups), chip.rows)
    cells = rows * columns * groups * copies * 2 * chip.slices
    turns = up(arrays_of(chip, rows, columns, groups) * copies, at_once)
    row = {
        "cell_writes": cells,
        "write_pulses": round(cells * chip.pulses),
        "buffer_bytes": rows * columns * groups * chip.value_bytes,
        "serial_row_pulses": turns * written * chip.pulses,
    }
    if not chip.verified:
        return row
    # After a pulse a row is driven for the first cells of all pairs, and again for the second.
    beside = up(columns * chip.slices, chip.pairs)
    driven = round(rows * beside * groups * copies * 2 * chip.pulses)
    return row | {
        "crossbar_reads": driven,
        "dac_conversions": driven,
        "cells_read": row["write_pulses"],
        "adc_conversions": row["write_pulses"],
        "serial_passes": round(turns * written * chip.pulses * 2),
    }


def both(one, other):
    """Return the sum of two rows."""
    return {name: one.get(name, 0) + other.get(name, 0) for name in {**one, **other}}


def times(count, row):
    """Return a row so many times."""
    return {name: count * value for name, value in row.items()}


def digital(operations, moved, lanes):
    """Return the row of digital work."""
    return {
        "digital_ops": operations,
        "buffer_bytes": moved,
        "serial_digital_ops": up(operations, lanes),
    }


# SOI blocks ---------------------------------------------------------------------------------------

_PASSES, _DRIVEN, _WORD = 31, 32, 4
"""Residual products of 32 bits: passes, rows driven at a time, and bytes of a value."""


def residual(chip, vectors, rows, columns, copies, spared=0):
    """Return the row of residual products with one matrix, without buffers, of which so many passes
    are left out, on all copies evenly.
    """
    beside, groups = up(columns * chip.product_slices, chip.pairs), up(rows, _DRIVEN)
    driven = vectors * _PASSES - spared
    one = up(min(rows, chip.rows), _DRIVEN)
    return {
        "crossbar_reads": driven * groups * beside,
        "cells_read": driven * rows * 2 * columns * chip.product_slices,
        "dac_conversions": driven * rows * beside,
        "residual_adc_conversions": driven * groups * columns * chip.product_slices,
        "serial_residual_passes": (up(vectors, copies) * _PASSES - spared // copies) * one,
    }


@dataclasses.dataclass(frozen=True)
class Block:
    """A SOI block of n rows and what holds it.

    Attributes
    ----------
    n, held : int
        Rows, and rows of activations whose product it is.
    fused : bool
        Whether the arrays hold those activations.
    inv_arrays, product_arrays : int
        Arrays of one copy.
    diagonal : bool
        Whether the inverting arrays hold the pieces of its diagonal alone.
    inverse : bool
        Whether multiplying arrays hold its inverse, too.
    per_bank : int
        Multiplying arrays of a bank that hold residual products: plans may keep fewer than may.
    """

    n: int
    held: int
    fused: bool
    inv_arrays: int
    product_arrays: int
    diagonal: bool = False
    inverse: bool = False
    per_bank: int = RESIDUAL_PER_BANK

    def depth(self, chip):
        """Return how often it is halved until a piece fits an inverting array."""
        if self.diagonal:
            return 0
        return max(0, math.ceil(math.log2(self.n / chip.inv_size)))

    def pieces(self, chip):
        return up(self.n, chip.inv_size) if self.diagonal else 2 ** self.depth(chip)

    def piece(self, chip):
        return up(self.n, self.pieces(chip))

    def banks(self, chip):
        """Return the banks that one copy lies in; its arrays are spread over them."""
        inverting = up(self.inv_arrays, chip.inv_per_bank)
        return min(max(inverting, up(self.product_arrays, self.per_bank), 1), chip.banks)

    def lanes(self, chip, copies):
        return 16 * up(self.banks(chip) * copies, chip.banks_per_tile)


def solve(chip, block, counts, copies):
    """Return the row of solving from what the scheme counted.

    An inverse that is halved d times costs 3^d settlings, and the products with two couplings at
    every halving, each as large as one half by the other. Pieces of a diagonal settle at once.
    """
    depth, n, pieces = block.depth(chip), block.n, block.pieces(chip)
    at_once = pieces if block.diagonal else 1
    applied = counts.inv_ops // 3**depth
    parts = [(2 * 3**level * applied, up(n, 2 ** (level + 1))) for level in range(depth)]
    whole = counts.vmm_ops - sum(count for count, _ in parts)
    shapes = [(block.n, block.held), (block.held, block.n)] if block.fused else [(n, n)]
    row = {}
    for count, rows, columns, spared in [
        *((whole, *shape, counts.spared_passes) for shape in shapes),
        *((count, half, half, 0) for count, half in parts),
    ]:
        row = both(row, residual(chip, count, rows, columns, copies, spared))
    # Products with some of the bits leave slices out.
    row["cells_read"] -= counts.spared_slices * _PASSES * n * 2 * n
    row["residual_adc_conversions"] -= counts.spared_slices * _PASSES * up(n, _DRIVEN) * n
    # Pairs of one piece, or of both activations and of the damping.
    pairs = 2 * n * block.held + n if block.fused else piece_values(n, pieces)
    settled = {
        "cells_read": counts.inv_ops * (2 * (pairs // pieces)),
        "inv_ops": counts.inv_ops,
        "inv_dac_conversions": counts.inv_ops * block.piece(chip),
        "inv_adc_conversions": counts.inv_ops * block.piece(chip),
        # As many inverters as amplifiers.
        "amplifier_s": counts.settling_s
        * 2
        * at_once
        * (n + block.held if block.fused else block.piece(chip)),
        "serial_inv_ops": up(counts.inv_ops // at_once, copies),
        "serial_settling_s": counts.settling_s / copies,
    }
    words = 2 * (counts.vmm_ops * n + counts.inv_ops * block.piece(chip)) + counts.moved
    moved = words * _WORD
    lanes = block.lanes(chip, copies)
    work = digital(counts.digital_ops, moved, lanes)
    # The 16 lanes of a tile share a bus of 32 bytes.
    return both(both(row, settled), work | {"serial_buffer_words": up(moved, 2 * lanes)})


def piece_values(n, pieces):
    """Return the entries of n x n blocks along the diagonal, so many of nearly equal width."""
    edges = [n * part // pieces for part in range(pieces + 1)]
    return sum((stop - start) ** 2 for start, stop in itertools.pairwise(edges))


def program(chip, block, multiplying, inverting, copies):
    """Return the row of writing a block's multiplying and inverting cells; all copies at the same
    time, and read after every pulse with the converters of each.
    """
    rows = max(block.piece(chip), min(block.n, chip.rows))
    values = 2 * block.n * block.held if block.fused else (1 + block.inverse) * block.n**2
    arrays = block.inv_arrays + block.product_arrays
    row_pulses = up(arrays, block.banks(chip)) * rows * chip.pulses
    pulses, inv_pulses = (round(cells * copies * chip.pulses) for cells in (multiplying, inverting))
    row = {
        "cell_writes": (multiplying + inverting) * copies,
        "write_pulses": pulses + inv_pulses,
        "buffer_bytes": values * _WORD,
        "serial_row_pulses": row_pulses,
    }
    if not chip.verified:
        return row
    drives = up(pulses, min(block.n * chip.product_slices, chip.pairs))
    inv_drives = up(inv_pulses, block.piece(chip))
    return row | {
        "crossbar_reads": drives + inv_drives,
        "cells_read": pulses + inv_pulses,
        "dac_conversions": drives,
        "residual_adc_conversions": pulses,
        "inv_dac_conversions": inv_drives,
        "inv_adc_conversions": inv_pulses,
        "serial_residual_passes": round(row_pulses * 2),
    }


def average(chip, n, banks):
    """Return the row of decaying, adding to and damping a symmetric running average."""
    return digital(
        3 * n * (n + 1) // 2, 2 * n * n * chip.value_bytes, 16 * up(banks, chip.banks_per_tile)
    )


# Cholesky in digital lanes ------------------------------------------------------------------------


class Lanes:
    """The lanes of some tiles, which do what they are told and count it.

    Attributes
    ----------
    operations, words : int
        Multiplications with their additions, and numbers that crossed the bus.
    clocks : list of int
        Clock of each tile.
    """

    def __init__(self, width, tiles):
        self.width, self.operations, self.words = width, 0, 0
        self.clocks = [0] * tiles

    def step(self, tile, busy):
        """Let some lanes of a tile multiply and add once."""
        assert 0 < busy <= self.width
        self.operations += busy
        self.clocks[tile] += 1

    def wait(self):
        """Let all tiles wait for the slowest."""
        self.clocks = [max(self.clocks)] * len(self.clocks)

    def row(self, chip):
        """Return the row of counts; words have four bytes, and every tile a bus of 32."""
        return {
            "digital_ops": self.operations,
            "buffer_bytes": self.words * _WORD,
            "serial_digital_ops": max(self.clocks),
            "serial_buffer_words": up(self.words * _WORD, 32 * len(self.clocks)),
        }


def edges_of(n, width):
    return [(start, min(start + width, n)) for start in range(0, n, width)]


def factorise(matrix, lanes):
    """Return the Cholesky factor of a matrix, computed word by word as lanes would."""
    left = np.zeros_like(matrix)
    parts = edges_of(len(matrix), lanes.width)
    for number, (start, stop) in enumerate(parts):
        for turn, (top, bottom) in enumerate(parts[number:]):
            # The part on the diagonal first, then those below it on all tiles.
            tile = 0 if turn == 0 else (turn - 1) % len(lanes.clocks)
            sums = matrix[top:bottom, start:stop].copy()
            stored = sums.size if turn else (stop - start) * (stop - start + 1) // 2
            lanes.words += stored
            if turn:
                lanes.words += (stop - start) * (stop - start + 1) // 2
            for k in range(start):
                lanes.words += bottom - top + (stop - start if turn else 0)
                for column in range(start, stop):
                    first = column if turn == 0 else top
                    sums[first - top :, column - start] -= left[first:bottom, k] * left[column, k]
                    lanes.step(tile, bottom - first)
            for column in range(start, stop):
                if turn == 0:
                    root = 1 / np.sqrt(sums[column - start, column - start])
                    for _ in range(8):
                        lanes.step(tile, 1)
                    left[column, column] = 1 / root
                    # The root itself is the pivot times its reciprocal.
                    below = slice(column, bottom)
                else:
                    root, below = 1 / left[column, column], slice(top, bottom)
                left[below, column] = sums[below.start - top :, column - start] * root
                lanes.step(tile, below.stop - below.start)
                for later in range(column + 1, stop):
                    first = later if turn == 0 else top
                    sums[first - top :, later - start] -= (
                        left[first:bottom, column] * left[later, column]
                    )
                    lanes.step(tile, bottom - first)
            lanes.words += stored
            if turn == 0:
                lanes.wait()
        lanes.wait()
    return left


def solve_triangular(left, right, lanes):
    """Return the answer of two triangular solves, computed word by word as lanes would."""
    answer = right.astype(float)
    each = up(right.shape[1], len(lanes.clocks))
    parts = edges_of(len(left), lanes.width)
    for tile, (first, last) in enumerate(edges_of(right.shape[1], each)):
        mine = answer[:, first:last]
        for matrix, order in ((left, parts), (left.T, parts[::-1])):
            for number, (top, bottom) in enumerate(order):
                for _ in range(0, last - first, lanes.width):
                    lanes.words += (bottom - top) * (bottom - top + 1) // 2
                    lanes.words += sum((bottom - top) * (q - p) for p, q in order[:number])
                for p, q in order[:number]:
                    lanes.words += (q - p) * (last - first)
                    for k, side in itertools.product(range(p, q), range(last - first)):
                        mine[top:bottom, side] -= matrix[top:bottom, k] * mine[k, side]
                        lanes.step(tile, bottom - top)
                lanes.words += 2 * (bottom - top) * (last - first)
                inside = range(top, bottom) if matrix is left else range(bottom - 1, top - 1, -1)
                for done, k in enumerate(inside):
                    mine[k] /= matrix[k, k]
                    for begin in range(0, last - first, lanes.width):
                        lanes.step(tile, min(lanes.width, last - first - begin))
                    others = list(inside)[done + 1 :]
                    for side in range(last - first if others else 0):
                        mine[others, side] -= matrix[others, k] * mine[k, side]
                        lanes.step(tile, len(others))
    return answer


# Exchanges ----------------------------------------------------------------------------------------

LINK_J_PER_BYTE = 8 * 50.78e-12
"""HyperTransport: 10.4 W for 4 links of 6.4 GB/s."""


@dataclasses.dataclass(frozen=True)
class Dimension:
    """One dimension of a network: P chips, a ring or a switch, bytes per second of a chip."""

    chips: int
    ring: bool
    rate: float

    @property
    def steps(self):
        """Messages one after the other of a reduce-scatter or all-gather, a microsecond each."""
        return self.chips - 1 if self.ring else math.ceil(math.log2(self.chips))


NETWORKS = {
    "board": lambda chips: [Dimension(chips, True, 12.8e9)],
    "switch": lambda chips: [Dimension(chips, False, 25.6e9)],
    "torus": lambda chips: [Dimension(16, True, 6.4e9), Dimension(chips // 16, True, 6.4e9)],
}


def scatter(dimensions, total, largest):
    """Return seconds of a reduce-scatter or all-gather of uneven pieces, and bytes that all chips
    send together.
    """
    chips, time, sent = math.prod(d.chips for d in dimensions), 0.0, 0.0
    for d in dimensions:
        share = total * (d.chips - 1) / d.chips
        time += d.steps * 1e-6 + max(share, largest) / d.rate
        sent += share * chips
        total /= d.chips
        largest = min(largest, total)
    return time, sent


def personal(dimensions, total, largest):
    """Return seconds of an all-to-all, and bytes times links that they cross."""
    time = crossed = 0.0
    for d in dimensions:
        far = d.chips // 2 if d.ring else math.ceil(math.log2(d.chips))
        # The links between a chip and all chips, itself among them, the shorter way round.
        away = [min(n, d.chips - n) if d.ring else min(n, 1) for n in range(d.chips)]
        leaves = sum(away) / d.chips
        time += far * 1e-6 + largest * leaves / d.rate
        crossed += total * leaves
    return time, crossed


def all_reduce(dimensions, size):
    """Return seconds of a hierarchical all-reduce, and bytes that all chips send together."""
    chips, time, sent = math.prod(d.chips for d in dimensions), 0.0, 0.0
    for d in dimensions[:-1]:
        there = scatter([d], size, size / d.chips)
        time, sent = time + 2 * there[0], sent + 2 * there[1] * chips / d.chips
        size /= d.chips
    last = dimensions[-1]
    share = size * (last.chips - 1) / last.chips
    rounds = 2 * last.steps
    return time + rounds * 1e-6 + 2 * share / last.rate, sent + 2 * share * chips
