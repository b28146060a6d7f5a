"""Every counted column, every part and every operation, against prices worked out by hand."""

import dataclasses
import functools
import json
from dataclasses import fields
from types import SimpleNamespace

import numpy as np
import pytest
from hand_prices import (
    AMPLIFIER_W,
    BRAHMS_DAC_J,
    BYTE_J,
    CELL_PASS_J,
    CHIPS,
    CONTROL_W,
    COUNT_J,
    INV_GAIN_J,
    ISAAC_ADC_J,
    ISAAC_DAC_J,
    LINK_J_PER_BYTE,
    MAC_J,
    MAC_LEAK_W,
    NETWORKS,
    PULSE_J,
    RESIDUAL_PER_BANK,
    SAMPLE_HOLD_J,
    SAMPLE_S,
    SHIFT_ADD_J,
    SMALL,
    TILE_LOGIC_W,
    Block,
    Lanes,
    all_reduce,
    arrays_of,
    average,
    both,
    digital,
    factorise,
    joules,
    multiply,
    personal,
    piece_values,
    program,
    residual,
    scatter,
    seconds,
    serial_s,
    solve,
    solve_triangular,
    times,
    up,
    write,
)

from repast_dist.analog import LOSSLESS, SCHEMES, Rows, SolveCounts, prepare
from repast_dist.farm.setup import make_setup
from repast_dist.hardware import PARTS
from repast_dist.network import LayerShape, Workload, kinds
from repast_dist.network.losses import LossShape
from repast_dist.network.shapes import attention_shapes, normalization_shape
from repast_dist.ops import OP_NAMES, op, op_rows, price
from repast_dist.ops.table import LINK, SERIAL
from repast_dist.planning import PartitionSpec, Policy, SoiSpec, StepWork, make_plan, step_ops
from repast_dist.planning.allocation import LayerArrays
from repast_dist.planning.cholesky import factorisation, product, triangular_solves
from repast_dist.planning.matrix_ops import matrix_rows
from repast_dist.planning.solve_costs import cholesky_costs, one_block
from repast_dist.planning.summary import summarise
from repast_dist.settings import load_settings
from repast_dist.trace import read_trace
from repast_dist.trace.schema import COUNTS
from repast_dist.training.optimizers.matrix_unit import Due, Inversion, MatrixWork
from repast_dist.training.optimizers.muon import Muon
from repast_dist.training.optimizers.newton_muon import NewtonMuon
from repast_dist.training.optimizers.shampoo import Shampoo

NEAR = 1e-5

QUICK = ("small", "repast")
chips = pytest.mark.parametrize(
    "chip",
    [
        pytest.param(chip, id=name, marks=() if name in QUICK else pytest.mark.slow)
        for name, chip in CHIPS.items()
    ],
)


CHANGED = {
    "taox": ("chip=small", "device=hp_inv_taox"),
    "ranged": ("chip=small", "chip.residual.adc.range=calibrated"),
    "nulled": ("chip=small", "chip.adc.nulling_passes=3", "chip.residual.adc.nulling_passes=2"),
}


@functools.cache
def hardware_of(chip, network="board"):
    """Return a chip of this page, ours, between chips on a network."""
    asked = CHANGED.get(chip, (f"chip={chip}",))
    return load_settings([*asked, f"interconnect={network}"]).hardware


# Columns and parts --------------------------------------------------------------------------------


@pytest.mark.parametrize("column", [*COUNTS, *SERIAL, *LINK])
@chips
def test_one_of_each_column_costs_what_is_published(chip, column):
    row = {column: 1_000_000}
    serial = {**serial_s(chip), "serial_buffer_words": SAMPLE_S}
    priced = price(op_rows(op.UPDATE, chip=0, **row), hardware_of(chip.name).costs)
    # A column without a price by hand has none in these tables.
    in_energy, in_time = column in COUNT_J, column in serial
    assert in_energy != in_time, f"work out by hand what {column} costs"
    assert priced.energy_j[0] == pytest.approx(1e6 * COUNT_J.get(column, 0.0), rel=NEAR)
    assert priced.duration_s[0] == pytest.approx(1e6 * serial.get(column, 0.0), rel=NEAR)


def _parts(chip):
    """Return name -> (number, joules per action, actions per second at the peak, watts always)."""
    banks, tiles, arrays = chip.banks, chip.tiles, 8 * chip.banks
    inverting = chip.inv_per_bank * banks
    passes, settlings = arrays / chip.pass_s, inverting / chip.convert_s
    # ISAAC: a bit per row in, and one 16-bit result per 16 passes and 8 slices out.
    moved = passes * chip.rows / 8 * (1 + 1 / 8)
    cells = arrays * chip.rows**2 + inverting * 2 * chip.inv_size**2
    per_second = passes * chip.rows**2 + settlings * 2 * chip.inv_size**2
    return {
        "adc": (arrays, ISAAC_ADC_J, passes * chip.pairs, 0),
        "residual_adc": (2 * banks, 4 * ISAAC_ADC_J, 0, 0),
        "dac": (arrays * chip.rows, ISAAC_DAC_J, passes * chip.rows, 0),
        "sample_hold": (arrays * chip.rows, SAMPLE_HOLD_J, passes * chip.rows, 0),
        "shift_add": (4 * banks, SHIFT_ADD_J, passes * chip.pairs, 0),
        "cell": (cells, CELL_PASS_J, per_second, 0),
        "cell_write": (0, PULSE_J, 0, 0),
        "amplifier": (2 * inverting * chip.inv_size, AMPLIFIER_W, 2 * inverting * chip.inv_size, 0),
        "inv_dac": (inverting * chip.inv_size, BRAHMS_DAC_J, settlings * chip.inv_size, 0),
        "inv_adc": (8 * inverting, ISAAC_ADC_J, settlings * chip.inv_size, 0),
        "inv_gain": (8 * inverting, INV_GAIN_J, settlings * chip.inv_size, 0),
        "digital": (16 * tiles, MAC_J, 16 * tiles / SAMPLE_S, MAC_LEAK_W),
        # A byte is written and read.
        "buffer": (65536 * tiles, BYTE_J["buffer"], 2 * moved, 0),
        "bus": (256 * banks, BYTE_J["bus"], moved, 0),
        "register": (banks, BYTE_J["register"], moved, 0),
        "router": (tiles, 2 * BYTE_J["router"], moved, 0),
        "tile_logic": (tiles, 0, 0, TILE_LOGIC_W),
        "control": (tiles, 0, 0, CONTROL_W),
        "link": (4, 10.4 / 4 / 6.4e9, 4 * 6.4e9, 0),
    }


AREAS_UM2 = {
    "adc": 9600 / 8,
    "residual_adc": 4 * 9600 / 8,
    "dac": 170 / 1024,
    "sample_hold": 40 / 1024,
    "shift_add": 240 / 4,
    "cell": 200 / 8 / 128**2,
    "cell_write": 0,
    "amplifier": 100,
    "inv_dac": 438 * 292.44923076923076 / 438,
    "inv_adc": 9600 / 8,
    "inv_gain": 100,
    "digital": 4425.4646153846155,
    "buffer": 83_000 / 65536,
    "bus": 90_000 / 256 / 12,
    "register": 2100 + 770,
    "router": 151_000 / 4,
    "tile_logic": 600 + 60 + 240 + 3200,
    "control": 1000,
    "link": 22.88e6 / 4,
}


@pytest.mark.parametrize("part", [part.name for part in PARTS])
@chips
def test_each_part_of_a_chip_has_the_number_power_and_area_of_its_source(chip, part):
    (row,) = (r for r in hardware_of(chip.name).tree if r.component == part)
    number, joule, rate, watt = _parts(chip)[part]
    assert row.count == number
    assert row.energy_j == pytest.approx(joule, rel=NEAR)
    assert row.power_w == pytest.approx(joule * rate + watt * number, rel=NEAR)
    # Table 1 of ISAAC has areas of two or three figures.
    assert row.area_m2 == pytest.approx(AREAS_UM2[part] * 1e-12 * number, rel=8e-3)


@chips
def test_a_chip_draws_its_static_power_as_long_as_a_step_lasts(chip):
    plan = plan_of(chip.name, (FC,))
    summary = summarise(plan)
    assert summary.static_energy_j == pytest.approx(chip.static_w * summary.step_s, rel=NEAR)


# Layers -------------------------------------------------------------------------------------------

FC = LayerShape(name="fc", kind=kinds.DENSE, in_features=300, out_features=50, elementwise_ops=50)
CONVS = (
    LayerShape(
        name="conv1", kind=kinds.CONV, in_features=27, out_features=16, vectors_per_sample=64
    ),
    LayerShape(
        name="conv2",
        kind=kinds.CONV,
        in_features=144,
        out_features=24,
        vectors_per_sample=16,
        elementwise_ops=384,
        factor_vectors_per_sample=1,
    ),
    LayerShape(name="fc", kind=kinds.DENSE, in_features=96, out_features=10),
)
ATTENTION = (
    LayerShape(name="fc", kind=kinds.DENSE, in_features=64, out_features=40),
    *attention_shapes("a", 20, 4, 6),
    LayerShape(
        name="depthwise",
        kind=kinds.DEPTHWISE_CONV,
        in_features=9,
        out_features=1,
        groups=40,
        vectors_per_sample=6,
        preconditioned=False,
    ),
)
WIDE = tuple(
    LayerShape(name=f"fc{n}", kind=kinds.DENSE, in_features=1024, out_features=1024)
    for n in range(3)
)
SAMPLES, BATCHES = 4, 3
"""Samples of a micro-batch, and micro-batches of a step."""


SOI = SoiSpec()


def plan_of(chip, net, count=1, network="board", scheme=None, soi=SOI, **partition):
    policy = Policy(
        soi=soi, partition=PartitionSpec(**partition), inversion=SCHEMES.load(scheme or {})
    )
    work = StepWork(chips=count, micro_batches=BATCHES, micro_batch_size=SAMPLES, fisher_passes=2)
    return make_plan(Workload(name="net", layers=net), hardware_of(chip, network), policy, work)


def table_of(plan, solves=None):
    return step_ops(plan, None, 0, factors_due=True, inverses_due=True, solves=solves)


class LayerByHand:
    """What one layer makes a chip do with a micro-batch."""

    def __init__(self, chip, plan, number):
        self.chip, self.layer, self.first = chip, plan.workload.layers[number], number == 0
        self.has_factors = self.layer.preconditioned
        columns = ((f.name, getattr(plan.allocation, f.name)) for f in fields(LayerArrays))
        self.arrays = SimpleNamespace(**{name: column[number].item() for name, column in columns})
        self.vectors = SAMPLES * self.layer.vectors_per_sample
        self.width = self.layer.in_features + self.layer.bias
        shape = plan.workload.layers[number]
        self.k, self.m, self.groups = shape.in_features, shape.out_features, shape.groups
        self.blocks = [b for b in plan.blocks if b.layer == number]

    def rows(self):
        """Return op -> row of all that it does."""
        weighted, written = self.layer.has_weights, self.layer.operand_written
        found = {
            "vmm_forward": self.weights(self.k, self.m),
            "write_activations": self.inputs(),
            "vmm_gradient": self.gradient(),
        }
        if not self.first:
            found["vmm_backward"] = self.weights(self.m, self.k)
            found["vmm_fisher"] = times(2, found["vmm_backward"])
        if written:
            found["write_operand"] = self.operand()
            found["operand_fisher"] = times(2, found["vmm_gradient"])
        if weighted and not self.arrays.resident:
            found["reload_weights"] = self.written(1)
        if self.elementwise()["digital_ops"]:
            found["elementwise_forward"] = found["elementwise_backward"] = self.elementwise()
            found["elementwise_fisher"] = times(2, self.elementwise())
        return found | (self.factors() if self.has_factors else {})

    def weights(self, rows, columns):
        a = self.arrays
        # Weights that do not stay take turns in fewer arrays.
        turns = up(arrays_of(self.chip, rows, columns, self.groups), a.written)
        return multiply(
            self.chip, self.vectors, rows, columns,
            groups=self.groups, copies=a.copies, tiles=a.weight_tiles,
            repeats=1 if a.resident else turns, stacked=self.layer.operand_written,
        )  # fmt: skip

    def pooled(self, vectors, rows, columns, groups=1):
        """Return the row of products with activations, which may fill their arrays in turn."""
        a = self.arrays
        return multiply(
            self.chip, vectors, rows, columns,
            groups=groups, tiles=a.pool_tiles, repeats=up(a.activations, max(a.pool, 1)),
            stacked=self.layer.operand_written,
        )  # fmt: skip

    def gradient(self):
        """The errors of every output drive the arrays that hold the inputs."""
        held, matrices = self.input_matrices()
        return self.pooled(self.m, held, self.width, matrices)

    def inputs(self):
        held, matrices = self.input_matrices()
        at_once = min(max(self.arrays.pool, 1), self.arrays.pool_banks)
        return write(self.chip, held, self.width, groups=matrices, at_once=at_once)

    def input_matrices(self):
        """Rows and number: attention has a gradient of its own for every sample and head."""
        if self.layer.operand_written:
            return self.layer.vectors_per_sample, self.groups * SAMPLES
        return self.vectors, self.groups

    def held(self, vectors, width):
        return write(self.chip, vectors, width, groups=self.groups, at_once=self.arrays.pool_banks)

    def written(self, copies):
        """Weights, and their transposes where errors pass."""
        at_once = self.arrays.weight_banks
        made = {"groups": self.groups, "copies": copies, "at_once": at_once}
        row = write(self.chip, self.k, self.m, **made)
        return row if self.first else both(row, write(self.chip, self.m, self.k, **made))

    def operand(self):
        """The operand of every sample, and its transpose for the backward pass."""
        made = {"groups": self.groups * SAMPLES, "at_once": self.arrays.weight_banks}
        return both(
            write(self.chip, self.k, self.m, **made), write(self.chip, self.m, self.k, **made)
        )

    def elementwise(self):
        outputs = self.groups * self.m * self.layer.vectors_per_sample
        operations = SAMPLES * (self.layer.elementwise_ops + self.layer.bias * outputs)
        lanes = 16 * self.arrays.weight_tiles
        return digital(operations, 2 * outputs * SAMPLES * self.chip.value_bytes, lanes)

    def factors(self):
        """A and G are products of the vectors held, or of their means, block by block."""
        vectors = SAMPLES * self.layer.factor_vectors
        combined = self.layer.factor_vectors < self.layer.vectors_per_sample
        found = {"write_errors": times(2, self.held(vectors, self.m))}
        if combined:
            found["write_means"] = self.held(vectors, self.width) | {
                "digital_ops": self.vectors * self.width
            }
            found["write_errors"]["digital_ops"] = 2 * self.vectors * self.m
        for factor in ("A", "G"):
            parts = [
                self.pooled(b.stop - b.start, vectors, b.stop - b.start)
                for b in self.blocks
                if b.factor == factor
            ]
            # Blocks work side by side.
            found[f"factor_{factor.lower()}"] = {
                name: (max if name.startswith("serial") else sum)(part[name] for part in parts)
                for name in parts[0]
            }
            a = self.arrays
            total = found[f"factor_{factor.lower()}"]
            tiles = a.pool_tiles
            total["serial_buffer_words"] = up(total["buffer_bytes"], 32 * tiles)
            total["serial_digital_ops"] = up(total["sums"], 16 * tiles)
        return found


def check(plan, chip, table, where, row):
    """Compare one row of a table with one worked out by hand: counts, seconds and joules."""
    found = table.where(np.flatnonzero(where))
    assert len(found), "the operation is missing"
    for name in (*COUNTS, *SERIAL, *LINK):
        expected = pytest.approx(row.get(name, 0), rel=NEAR, abs=1e-30)
        assert found[name].tolist() == [expected] * len(found), name
    priced = price(found, plan.hardware.costs)
    assert priced.duration_s.tolist() == pytest.approx([seconds(chip, row)] * len(found), rel=NEAR)
    assert priced.energy_j.tolist() == pytest.approx([joules(row)] * len(found), rel=NEAR)


LAYER_OPS = {
    "reload_weights", "write_operand", "vmm_forward", "elementwise_forward", "write_activations",
    "vmm_backward", "elementwise_backward", "vmm_gradient", "vmm_fisher", "elementwise_fisher",
    "operand_fisher", "write_means", "factor_a", "write_errors", "factor_g",
}  # fmt: skip
NETS = {
    "dense": (FC, dataclasses.replace(FC, name="again", in_features=50)),
    "convolution": CONVS,
    "attention": ATTENTION,
    "reloaded": WIDE,
}


@pytest.mark.parametrize("net", NETS)
@chips
def test_each_operation_of_a_layer_costs_what_a_hand_calculation_says(chip, net):
    layers = NETS[net]
    plan = plan_of(chip.name, layers)
    table = table_of(plan)
    for number in range(len(layers)):
        here = table["layer"] == number
        by_hand = LayerByHand(chip, plan, number).rows()
        done = {OP_NAMES[code] for code in table["op"][here]} & LAYER_OPS
        assert done == set(by_hand)
        for name, row in by_hand.items():
            check(plan, chip, table, here & (table["op"] == OP_NAMES.index(name)), row)
        kept = here & (table["op"] == op.WRITE_WEIGHTS.number)
        assert kept.any() == bool(layers[number].has_weights and plan.allocation.resident[number])
        if kept.any():
            row = LayerByHand(chip, plan, number).written(int(plan.allocation.copies[number]))
            check(plan, chip, table, kept, row)


# SOI blocks ---------------------------------------------------------------------------------------

SIDES = 6


def block_of(chip, plan):
    """Return the figures of the plan's first block, an A block, as it lies on arrays."""
    n, held = int(plan.shapes.size[0]), int(plan.shapes.held[0])
    fused, scheme = bool(plan.shapes.fused[0]), plan.policy.inversion
    diagonal = getattr(scheme, "array_pieces", "nested") == "diagonal"
    block = Block(n, held, fused, 0, 0, diagonal)
    depth = block.depth(chip)
    inverting = 0 if scheme.name == "cg" else block.pieces(chip) * (2 if fused else 1)
    products = [(n, held), (held, n)] if fused else [(n, n)]
    if scheme.name == "single" and not depth:
        products = []
    if scheme.name == "explicit":
        products += [(n, n)]
    if inverting:
        products += schur_couplings(n, depth)
    arrays = sum(_wide(chip, *shape) for shape in products)
    per_bank = plan.allocation.budget.solvers // chip.banks
    inverse = scheme.name == "explicit"
    return Block(n, held, fused, inverting, arrays, diagonal, inverse, max(per_bank, 1))


def _wide(chip, rows, columns):
    """Return the arrays of a matrix of 32-bit products."""
    return up(rows, chip.rows) * up(chip.product_slices * columns, chip.pairs)


def schur_couplings(n, depth):
    """Return the couplings of Schur complements of complements' halves, by hand up to quarters."""
    if depth < 2:
        return []
    assert depth == 2
    second = n // 2
    return [(up(second, 2), second // 2), (second // 2, up(second, 2))]


def solved(plan, chip, n, held, fused):
    """Solve with a block like the plan's first, and return all that its scheme counted."""
    random = np.random.default_rng(3)
    rows = np.maximum(random.normal(size=(n, held)), 0)
    hardware, scheme = plan.hardware, plan.policy.inversion
    matrix = Rows(rows, 0.1) if fused else rows @ rows.T / held + 0.1 * np.eye(n)
    solver = prepare(matrix, hardware.residual_spec, hardware.inv_spec, scheme, 3, "test")
    solution = solver.solve(random.normal(size=(n, SIDES)))
    return solver.program_counts, solution.counts


@pytest.mark.parametrize("method", ["fcg", "refine", "single", "taylor", "cg"])
@pytest.mark.parametrize("n", [100, 300])
@chips
def test_programming_and_solving_a_block_cost_what_its_scheme_counted(chip, n, method):
    """300 rows are halved once on arrays of 256, twice on arrays of 128."""
    check_block(chip, n, {"method": method, "target_bits": 12}, fusion="off")


@chips
def test_an_inverse_in_arrays_of_its_own_costs_what_the_scheme_counted(chip):
    scheme = {"method": "explicit", "target_bits": 8, "inverse_from": 0.01}
    check_block(chip, 100, scheme, fusion="off")


@pytest.mark.parametrize("n", [100, 255, 300])
@chips
def test_pieces_of_a_diagonal_cost_what_the_scheme_counted(chip, n):
    """255 rows are two pieces of unequal width on arrays of 128, 300 rows two or three."""
    scheme = {"method": "fcg", "target_bits": 12, "array_pieces": "diagonal"}
    check_block(chip, n, scheme, fusion="off")


@pytest.mark.parametrize(("pieces", "entries"), [("diagonal", 3 * 100**2), ("nested", 300**2)])
def test_what_deflation_leaves_is_formed_for_the_pieces_that_arrays_hold(pieces, entries):
    """300 rows on arrays of 128, from 9 to 8 directions: forming an entry takes an operation per
    direction, and moves as many numbers and two. A search that finds nothing forms none.
    """
    counts = [
        solved(plan_of("small", (FC,), scheme=scheme), SMALL, 300, 48, fused=False)[0]
        for above in (1.01, 1e6)
        for scheme in ({"method": "fcg", "array_pieces": pieces, "deflation_above": above},)
    ]
    assert counts[0].digital_ops - counts[1].digital_ops == 8 * entries
    assert counts[0].moved - counts[1].moved == (8 + 2) * entries


def test_cells_of_a_slice_are_read_before_the_next_is_written():
    """100 rows and columns in pairs: 20,000 cells of the first slice, each read five times, 500
    rows of either cell of a pair. Nothing else is read: pulses are not verified.
    """
    layer = LayerShape(name="fc", kind=kinds.DENSE, in_features=99, out_features=SIDES)
    scheme = {"method": "fcg", "array_slices": 2, "array_read_back": 5}
    plan = plan_of("repast", (layer,), scheme=scheme)
    table, copies = table_of(plan), int(plan.places.copies[0])
    mine = (table["block"] == 0) & (table["op"] == op.PROGRAM_BLOCK.number)
    for name, reads in (
        ("inv_adc_conversions", 5 * 20_000 * copies),
        ("cells_read", 5 * 20_000 * copies),
        ("inv_dac_conversions", 5 * 20_000 // 100 * copies),
        ("serial_residual_passes", 2 * 5 * 100),
    ):
        assert table[name][mine].tolist() == [reads], name


def test_products_with_high_and_low_bits_read_the_slices_that_hold_them():
    """32 bits in cells of four are eight slices; the eight bits of an inverting cell two, the other
    23 six. Each of 18 bits takes three corrections, with the high bits, from converters of eight.
    """
    plan = plan_of("repast", (FC,), scheme={"method": "taylor", "target_bits": 16})
    hardware, scheme = plan.hardware, plan.policy.inversion
    random = np.random.default_rng(3)
    rows = random.normal(size=(40, 80))
    matrix, right = rows @ rows.T / 80 + 0.5 * np.eye(40), random.normal(size=(40, 3))
    right[:, 1] = 0.0
    solver = prepare(matrix, LOSSLESS, hardware.inv_spec, scheme, 3, "test")
    solution = solver.solve(right)
    rounds = solution.iterations
    assert rounds[1] == 0 < 1 < rounds[0]
    spared = 3 * rounds * (8 - 2) + np.maximum(rounds - 1, 0) * (8 - 6)
    assert solution.counts.spared_slices == spared.sum()


@pytest.mark.parametrize("method", ["fcg", "refine", "single", "cg"])
@chips
def test_a_fused_block_costs_what_its_scheme_counted(chip, method):
    check_block(chip, 60, {"method": method, "target_bits": 10}, fusion="on")


@pytest.mark.parametrize("fusion", ["off", "on"])
@pytest.mark.parametrize("method", ["fcg", "cg"])
@chips
def test_passes_that_later_products_leave_out_are_not_paid(chip, method, fusion):
    scheme = {"method": method, "target_bits": 10, "relaxed_products": True}
    assert check_block(chip, 60, scheme, fusion).spared_passes > 0


def check_block(chip, n, scheme, fusion):
    layer = LayerShape(name="fc", kind=kinds.DENSE, in_features=n - 1, out_features=SIDES)
    soi = SoiSpec(block_size=512, fusion=fusion)
    plan = plan_of(chip.name, (layer,), scheme=scheme, soi=soi)
    block = block_of(chip, plan)
    assert block.fused == (fusion == "on")
    programmed, solving = solved(plan, chip, n, block.held, block.fused)
    counts, copies = programmed + solving, int(plan.places.copies[0])
    table = table_of(plan, {0: counts})
    mine = table["block"] == 0
    cells = cells_of(chip, block, plan.policy.inversion.name)
    assert programmed.program_cells == sum(cells)
    row = program(chip, block, *cells, copies)
    check(plan, chip, table, mine & (table["op"] == op.PROGRAM_BLOCK.number), row)
    row = solve(chip, block, counts, copies)
    check(plan, chip, table, mine & (table["op"] == op.SOLVE_A.number), row)
    row, name = average(chip, n, block.banks(chip)), op.AVERAGE_FACTOR
    if block.fused:
        # The rows of 12 samples are put into buffers, as wide as a bus of every tile.
        kept = 12 * n * chip.value_bytes
        words = up(kept, 32 * up(block.banks(chip), chip.banks_per_tile))
        row, name = {"buffer_bytes": kept, "serial_buffer_words": words}, op.KEEP_ROWS
    check(plan, chip, table, mine & (table["op"] == name.number), row)
    return counts


@pytest.mark.parametrize(("n", "halved"), [(100, []), (300, [150, 150, 75, 75, 75, 75])])
def test_setting_the_ranges_of_residual_products_is_paid_when_their_arrays_are_written(n, halved):
    """32 vectors drive every array twice, and every code is counted; halves of 300 rows, and their
    halves, have couplings both ways.
    """
    layer = LayerShape(name="fc", kind=kinds.DENSE, in_features=n - 1, out_features=SIDES)
    soi = SoiSpec(block_size=512)
    scheme = {"method": "fcg", "array_pieces": "nested"}
    plans = [plan_of(name, (layer,), soi=soi, scheme=scheme) for name in ("small", "ranged")]
    tables = [table_of(plan) for plan in plans]
    wide, ranged = (
        table.where(
            np.flatnonzero((table["op"] == op.PROGRAM_BLOCK.number) & (table["block"] == 0))
        )
        for table in tables
    )
    copies = int(plans[1].places.copies[0])
    assert copies == int(plans[0].places.copies[0])
    matrices = [residual(SMALL, 2 * 32, rows, rows, 1) for rows in (n, *halved)]
    codes = sum(matrix["residual_adc_conversions"] for matrix in matrices) * copies
    added = {name: sum(matrix[name] for matrix in matrices) for name in matrices[0]}
    added = {name: k * (1 if name.startswith("serial") else copies) for name, k in added.items()}
    added |= {"digital_ops": codes, "buffer_bytes": 64 * (n + sum(halved)) * 4 * copies}
    for name in (*COUNTS, *SERIAL):
        assert ranged[name][0] - wide[name][0] == added.get(name, 0), name
    joule, second = (
        [getattr(price(rows, plans[0].hardware.costs), what)[0] for rows in (wide, ranged)]
        for what in ("energy_j", "duration_s")
    )
    assert joule[1] - joule[0] == pytest.approx(joules(added), rel=NEAR)
    assert second[1] - second[0] == pytest.approx(seconds(SMALL, added), rel=1e-4)


def test_codes_that_set_ranges_of_residual_products_are_those_that_are_priced(monkeypatch):
    from repast_dist.analog.arrays import vmm
    from repast_dist.analog.product import Product

    seen = []

    def ranges_of(peaks, spec):
        seen.append(peaks.size)
        return np.full(peaks.shape[2], 1e6, np.float32)

    monkeypatch.setattr(vmm, "ranges_of", ranges_of)
    hardware, random = hardware_of("ranged"), np.random.default_rng(0)
    product = Product.of((random.normal(size=(100, 100)),), 32, hardware.residual_spec, 1, "block")
    product.multiply(random.normal(size=(100, 2)))
    assert 2 * sum(seen) == residual(SMALL, 2 * 32, 100, 100, 1)["residual_adc_conversions"]


def cells_of(chip, block, method):
    """Return the multiplying and the inverting cells of one copy, both of all pairs."""
    n, depth = block.n, block.depth(chip)
    values = 2 * n * block.held if block.fused else n * n
    if method == "single" and not depth:
        values = 0
    if method == "explicit":
        values += n * n
    if method != "cg":
        values += sum(rows * columns for rows, columns in schur_couplings(n, depth))
    inverting = 2 * n * block.held + n if block.fused else piece_values(n, block.pieces(chip))
    return 2 * chip.product_slices * values, 0 if method == "cg" else 2 * inverting


def test_forming_the_schur_complement_of_a_halved_block_is_paid_by_the_digital_unit():
    """300 rows on arrays of 256: halves of 150. Scaling takes 2 x 300^2 operations, the Cholesky
    factor of a half 150^3 / 6, the triangular solve 150^3 / 2, the symmetric product as much and a
    half of 150^2. On arrays of 512 no complement is formed.
    """
    plan = plan_of("repast", (FC,), scheme={"method": "single"})
    counts, _ = solved(plan, CHIPS["repast"], 300, 48, fused=False)
    formed = 150**3 // 6 + 150**3 // 2 + 150 * 150 * 151 // 2
    assert counts.digital_ops == 2 * 300**2 + formed


# Cholesky in digital lanes ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chip", "size", "right_sides", "tiles"),
    [(SMALL, 64, 16, 1), (SMALL, 75, 37, 2), (SMALL, 120, 3, 2), (SMALL, 300, 5, 4)],
)
def test_cholesky_costs_what_lanes_do_that_compute_it_word_by_word(chip, size, right_sides, tiles):
    arrays = up(size, chip.rows) * up(size * chip.product_slices, chip.pairs)
    banks = min(up(arrays, RESIDUAL_PER_BANK), chip.banks)
    assert tiles == up(banks, chip.banks_per_tile)
    random = np.random.default_rng(size)
    rows = random.normal(size=(size, 2 * size))
    matrix, right = rows @ rows.T / size, random.normal(size=(size, right_sides))
    factors, solves = Lanes(16, tiles), Lanes(16, tiles)
    left = factorise(matrix, factors)
    np.testing.assert_allclose(left, np.linalg.cholesky(matrix), atol=1e-9)
    answer = solve_triangular(left, right, solves)
    np.testing.assert_allclose(answer, np.linalg.solve(matrix, right), atol=1e-9)
    hardware = hardware_of(chip.name)
    shapes = one_block(size, right_sides, hardware, SCHEMES.load({"method": "cg"}))
    for cost, lanes in zip(cholesky_costs(shapes, hardware), (factors, solves), strict=True):
        row = lanes.row(chip)
        assert {name: count for name, count in cost.counts.items() if count} == row
        assert cost.energy_j == pytest.approx(joules(row), rel=NEAR)
        assert cost.time_s == pytest.approx(seconds(chip, row), rel=NEAR)


@pytest.mark.parametrize("n", [100, pytest.param(300, marks=pytest.mark.slow)])
@chips
def test_a_block_that_the_digital_unit_solves_is_paid_word_by_word(chip, n):
    """Three factorisations, the first two in vain, beside what the array did."""
    layer = LayerShape(name="fc", kind=kinds.DENSE, in_features=n - 1, out_features=SIDES)
    plan = plan_of(
        chip.name,
        (layer,),
        scheme={"method": "fcg", "array_pieces": "nested"},
        soi=SoiSpec(block_size=512),
    )
    block = block_of(chip, plan)
    failed = SolveCounts(inv_ops=9, vmm_ops=30, digital_ops=500, moved=900, settling_s=1e-6)
    fallen = dataclasses.replace(failed, factorisations=3, factored_sides=SIDES)
    copies = int(plan.places.copies[0])
    tiles = block.lanes(chip, copies) // 16
    random = np.random.default_rng(n)
    rows = random.normal(size=(n, 2 * n))
    lanes = Lanes(16, tiles)
    for _ in range(3):
        left = factorise(rows @ rows.T / n, lanes)
    solve_triangular(left, random.normal(size=(n, SIDES)), lanes)
    row = both(solve(chip, block, failed, copies), lanes.row(chip))
    # The bus moves what both ask for.
    row["serial_buffer_words"] = up(row["buffer_bytes"], 32 * tiles)
    table = table_of(plan, {0: fallen})
    mine = (table["block"] == 0) & (table["op"] == op.SOLVE_A.number)
    check(plan, chip, table, mine, row)


class Buffer:
    """A vector in a buffer, which counts the numbers that are read from it or written to it."""

    words = 0

    def __init__(self, values):
        self.values = np.array(values)

    def read(self, k):
        Buffer.words += 1
        return self.values[k]

    def write(self, k, value):
        Buffer.words += 1
        self.values[k] = value


def gradients_word_by_word(matrix, right, rounds, window):
    """Solve by flexible conjugate gradients, sums in registers and vectors in buffers, and return
    the answer with the numbers that moved; products and settlings bring theirs along.
    """
    n, Buffer.words = len(right), 0

    def dot(one, other):
        return sum(one.read(k) * other.read(k) for k in range(n))

    def add(one, factor, other):
        for k in range(n):
            one.write(k, one.read(k) + factor * other.read(k))

    scaling = Buffer(1 / np.sqrt(np.diag(matrix)))
    scaled = scaling.values[:, None] * matrix * scaling.values
    b, residual, x, answer = Buffer(right), Buffer(0 * right), Buffer(0 * right), Buffer(0 * right)
    for k in range(n):
        residual.write(k, b.read(k) * scaling.read(k))
    kept = []
    for _ in range(rounds):
        direction = Buffer(residual.values)
        for old, image, curvature in kept:
            add(direction, -dot(direction, image) / curvature, old)
        image = Buffer(scaled @ direction.values)
        curvature, along = dot(direction, image), dot(direction, residual)
        add(x, along / curvature, direction)
        add(residual, -along / curvature, image)
        assert sum((residual.read(k) / scaling.read(k)) ** 2 for k in range(n)) > 0
        kept = [*kept, (direction, image, curvature)][-window:]
    for k in range(n):
        answer.write(k, x.read(k) * scaling.read(k))
    return answer.values, Buffer.words


@pytest.mark.parametrize(("data", "window"), [({"method": "cg"}, 1), ({"method": "fcg"}, 4)])
def test_vectors_of_conjugate_gradients_move_number_by_number(data, window):
    """Without an array in between; a scheme that has one keeps as many directions as it says."""
    n, rounds = 12, 7
    random = np.random.default_rng(5)
    rows = random.normal(size=(n, 2 * n))
    matrix, right = rows @ rows.T / n + 0.1 * np.eye(n), random.normal(size=(n, 1))
    answer, moved = gradients_word_by_word(matrix, right[:, 0], rounds, window)
    scheme = SCHEMES.load({**data, "max_iterations": rounds, "target_bits": 40, "product_bits": 48})
    hardware = hardware_of(SMALL.name)
    inv = dataclasses.replace(hardware.inv_spec, size=16)
    solution = prepare(matrix, LOSSLESS, inv, scheme, 3, "test").solve(right)
    assert solution.iterations.tolist() == [rounds]
    assert solution.counts.moved == moved
    if data["method"] == "cg":
        np.testing.assert_allclose(solution.x[:, 0], answer, rtol=1e-6)


# Exchanges and updates ----------------------------------------------------------------------------

MLP = (
    LayerShape(name="fc1", kind=kinds.DENSE, in_features=64, out_features=40),
    LayerShape(name="fc2", kind=kinds.DENSE, in_features=40, out_features=10),
)


def exchanged(plan, dimensions, numbers):
    """Return op -> seconds and bytes of a step's exchanges.

    Every number has 4 bytes. A factor of n rows is sent as n (n + 1) / 2 numbers to its owner, and
    the owner of a G block solves n right-hand sides of A's height.
    """
    owned, solves = np.zeros(plan.work.chips), np.zeros(plan.work.chips)
    for block, owner in zip(plan.blocks, plan.block_owner, strict=True):
        layer = plan.workload.layers[block.layer]
        owned[owner] += 4 * block.size * (block.size + 1) / 2
        solves[owner] += 4 * block.size * (layer.in_features + 1) if block.factor == "G" else 0
    assert solves.sum() == 4 * numbers
    total, largest = 4.0 * numbers, solves.max()
    # Two slices each of forward products, gradients and two factors, and of errors but the first's.
    ranges = 2 * (5 * len(plan.workload.layers) - 1)
    gradients = scatter(dimensions, total, largest)
    return {
        "reduce_gradients": gradients,
        "reduce_factors": scatter(dimensions, owned.sum(), owned.max()),
        "exchange_gradients": min(personal(dimensions, total, largest), gradients),
        "reduce_scalar": all_reduce(dimensions, 4.0 * (1 + ranges)),
        "gather_updates": gradients,
    }


@pytest.mark.parametrize(("network", "count"), [("board", 4), ("switch", 4), ("torus", 32)])
def test_exchanges_and_updates_cost_what_a_hand_calculation_says(network, count):
    """Weights are 65 x 40 + 41 x 10 = 3,010 numbers of 4 bytes."""
    plan = plan_of("small", MLP, count=count, network=network)
    table = table_of(plan)
    for name, (time, sent) in exchanged(plan, NETWORKS[network](count), 3010).items():
        rows = table.where(np.flatnonzero(table["op"] == OP_NAMES.index(name)))
        priced = price(rows, plan.hardware.costs)
        assert priced.duration_s.tolist() == pytest.approx([time] * count, rel=NEAR), name
        joule = sent * LINK_J_PER_BYTE / count
        assert priced.energy_j.tolist() == pytest.approx([joule] * count, rel=NEAR), name
    # 3 operations a number to clip what a chip has solved, 3 to update all that it holds.
    lanes = SMALL.tiles * 16
    clip, update = up(3010, count) * 3, 3010 * 3
    check(plan, SMALL, table, table["op"] == op.CLIP.number, digital(clip, 4 * clip, lanes))
    check(plan, SMALL, table, table["op"] == op.UPDATE.number, digital(update, 4 * update, lanes))


@pytest.mark.parametrize(("network", "count"), [("board", 4), ("torus", 32)])
def test_only_what_blocks_solve_is_exchanged_between_them(network, count):
    """A normalisation of 2 x 10 numbers is added up and gathered, but no block solves it."""
    scales = normalization_shape("norm", features=10, vectors=1)
    with_scales = plan_of("small", (*MLP, scales), count=count, network=network)
    without = plan_of("small", MLP, count=count, network=network)
    time, sent = exchanged(without, NETWORKS[network](count), 3010)["exchange_gradients"]
    table = table_of(with_scales)
    priced = price(table.of(op.EXCHANGE_GRADIENTS), with_scales.hardware.costs)
    assert priced.duration_s.tolist() == pytest.approx([time] * count, rel=NEAR)
    joule = sent * LINK_J_PER_BYTE / count
    assert priced.energy_j.tolist() == pytest.approx([joule] * count, rel=NEAR)
    reduced = [table_of(plan).of(op.REDUCE_GRADIENTS) for plan in (with_scales, without)]
    with_more, less = (price(rows, without.hardware.costs).energy_j.sum() for rows in reduced)
    assert with_more > less


def test_nulling_offsets_costs_what_a_hand_calculation_says():
    """16 banks have 6 arrays of weights and inputs and 2 of residual products, 64 pairs each."""
    plan = plan_of("nulled", MLP, count=2)
    table = table_of(plan)
    row = {
        "crossbar_reads": 16 * 6 * 3 + 16 * 2 * 2,
        "adc_conversions": 16 * 6 * 64 * 3,
        "residual_adc_conversions": 16 * 2 * 64 * 2,
        "serial_passes": 3,
        "serial_residual_passes": 2,
    }
    check(plan, SMALL, table, table["op"] == op.NULL_OFFSETS.number, row)
    assert (table["op"] == op.NULL_OFFSETS.number).sum() == 2
    assert not (table_of(plan_of("small", MLP))["op"] == op.NULL_OFFSETS.number).any()


def test_messages_between_the_chips_of_a_pipeline_cost_what_a_hand_calculation_says():
    """fc1 sends 4 samples of 40 numbers of a byte to the next chip, which sends as many back for
    the loss, and as many in each of two passes for the Fisher matrix.
    """
    plan = plan_of("small", MLP, count=2, layers="pipeline")
    table = table_of(plan)
    for name, layer, passes in (("send_activations", 0, 1), ("send_errors", 1, 3)):
        where = table["op"] == OP_NAMES.index(name)
        assert table["layer"][where].tolist() == [layer] * BATCHES
        size = 160 * passes
        time, joule = 1e-6 + size / 12.8e9, size * LINK_J_PER_BYTE
        check(plan, SMALL, table, where, {"link_bytes": size, "link_s": time, "link_j": joule})


@pytest.mark.parametrize(
    ("loss", "value", "drawn", "root"),
    [
        # Per row: exponentials, sum, shares; logarithm, sum, minus one.
        ("cross_entropy", 3 * 20 + 3, 2 * 20 + 2, 20 + 2),
        ("next_token", 3 * (3 * 20 + 3), 3 * (2 * 20 + 2), 20 + 2),
        # The root is that of p (1 - p).
        ("pixel_cross_entropy", 6 * 20, 3 * 20, 3),
        ("regression", 3 * 20, 2 * 20, 1),
    ],
)
def test_a_loss_costs_what_its_formula_says(loss, value, drawn, root):
    """The last layer has 20 outputs, three rows of them per sample if they are tokens."""
    rows = 3 if loss == "next_token" else 1
    last = dataclasses.replace(FC, name="fc2", out_features=20, vectors_per_sample=rows)
    shape = LossShape(loss=loss, rows=rows, width=20)
    net = Workload(name="net", layers=(FC, last), losses=(shape,))
    for passes, per_pass in ((1, drawn), (2, root)):
        policy = Policy(soi=SOI, partition=PartitionSpec(), inversion=SCHEMES.load({}))
        work = StepWork(
            chips=1, micro_batches=BATCHES, micro_batch_size=SAMPLES, fisher_passes=passes
        )
        plan = make_plan(net, hardware_of("small"), policy, work)
        table, lanes = table_of(plan), 16 * int(plan.allocation.weight_tiles[1])
        moved = 2 * SAMPLES * rows * 20 * SMALL.value_bytes
        for name, row in (
            ("loss", digital(SAMPLES * value, moved, lanes)),
            ("loss_fisher", times(passes, digital(SAMPLES * per_pass, moved, lanes))),
        ):
            where = table["op"] == OP_NAMES.index(name)
            assert table["layer"][where].tolist() == [1] * BATCHES
            check(plan, SMALL, table, where, row)


BLOCK_OPS = {"average_factor", "keep_rows", "program_block", "solve_g", "solve_a"}
EXCHANGES = {
    "reduce_gradients", "reduce_factors", "exchange_gradients", "exchange_solved", "reduce_scalar",
    "gather_updates",
}  # fmt: skip
OTHERS = {
    "send_activations", "send_errors", "clip", "update", "null_offsets", "write_weights", "loss",
    "loss_fisher", "measure_gradient",
}  # fmt: skip


MATRIX_OPS = {
    "write_matrix", "vmm_matrix", "multiply_matrix", "combine_matrix", "program_root", "solve_root",
}  # fmt: skip


def _orthogonalised(chip, m, n):
    """Return op -> row of three rounds of Newton-Schulz with a matrix n x m, m <= n, on arrays.

    Two sums of two matrices average the gradient, one norm and one multiple scale it.
    """
    writes, products, sums, moved = {}, {}, (2 + 2 + 1 + 1) * n * m, (3 + 3 + 1 + 2) * n * m
    for _ in range(3):
        for shape in ((n, m), (m, m)):
            writes = both(writes, write(chip, *shape, at_once=chip.banks))
        products = both(products, multiply(chip, m, n, m, tiles=chip.tiles))
        products = both(products, multiply(chip, 2 * n, m, m, tiles=chip.tiles))
        sums, moved = sums + 3 * n * m, moved + 4 * n * m
    words = moved * chip.value_bytes
    combined = digital(sums, words, 16 * chip.tiles)
    combined["serial_buffer_words"] = up(words, 32 * chip.tiles)
    return {"write_matrix": writes, "vmm_matrix": products, "combine_matrix": combined}


@pytest.mark.parametrize("shape", [(20, 12), (12, 20), (300, 40)])
@chips
def test_a_matrix_that_is_orthogonalised_costs_what_a_hand_calculation_says(chip, shape):
    layer = dataclasses.replace(FC, in_features=shape[0], out_features=shape[1])
    base = plan_of(chip.name, (layer,), objective="lifetime")
    muon = Muon(iterations=3, output_layer="matrix")
    work = dataclasses.replace(base.work, sides=(), fisher_passes=0, matrices=muon)
    plan = make_plan(base.workload, base.hardware, base.policy, work)
    table = table_of(plan)
    by_hand = _orthogonalised(chip, min(shape), max(shape))
    assert {OP_NAMES[code] for code in table["op"]} & MATRIX_OPS == set(by_hand)
    for name, row in by_hand.items():
        check(plan, chip, table, table["op"] == OP_NAMES.index(name), row)


def _between_roots(chip, n, m, rounds):
    """Return op -> row of a step of Shampoo with a matrix n x m, on arrays, all of it renewed.

    G' and G are written for L and R, with n and m vectors; in every round a matrix as wide as L, or
    R, is, which takes five times as many vectors; then both roots. Sums of L and R have three
    terms, of G two; three numbers are kept as a matrix of one entry, twice for what they weigh.
    """
    written = [(m, n, n), (n, m, m), (m, m, n), (n, n, m)]
    written += [(size, size, 5 * size) for size in (n, m) for _ in range(rounds)]
    writes, products = {}, {}
    for rows, columns, vectors in written:
        writes = both(writes, write(chip, rows, columns, at_once=chip.banks))
        products = both(products, multiply(chip, vectors, rows, columns, tiles=chip.tiles))
    sums = 3 * (n * n + m * m) + (2 + 1) * n * m + 2 * (2 + 1)
    moved = 4 * (n * n + m * m) + (3 + 2) * n * m + 2 * (2 + 1)
    for size in (n, m):
        # Two norms, a damped matrix, two scaled ones; a round makes a difference, its norm, five
        # sums with products, and a mean with the transpose.
        sums += 4 * size**2 + 2 * size + rounds * ((1 + 1 + 5 * 2 + 2) * size**2 + size)
        moved += 7 * size**2 + rounds * (2 + 1 + 5 * 3 + 3) * size**2
    words = moved * chip.value_bytes
    combined = digital(sums, words, 16 * chip.tiles)
    combined["serial_buffer_words"] = up(words, 32 * chip.tiles)
    return {"write_matrix": writes, "vmm_matrix": products, "combine_matrix": combined}


@pytest.mark.parametrize("shape", [(20, 12), (12, 40)])
@chips
def test_a_matrix_between_its_roots_costs_what_a_hand_calculation_says(chip, shape):
    layer = dataclasses.replace(FC, in_features=shape[0], out_features=shape[1])
    base = plan_of(chip.name, (layer,), objective="lifetime")
    method = Shampoo(rounds=3, output_layer="matrix")
    work = dataclasses.replace(base.work, sides=(), fisher_passes=0, matrices=method)
    plan = make_plan(base.workload, base.hardware, base.policy, work)
    table = table_of(plan)
    for name, row in _between_roots(chip, *shape, 3).items():
        check(plan, chip, table, table["op"] == OP_NAMES.index(name), row)


def _shampoo_plan(chip, method):
    layer = dataclasses.replace(FC, in_features=100, out_features=60)
    base = plan_of(chip.name, (layer,), objective="lifetime", scheme={"method": "fcg"})
    work = dataclasses.replace(base.work, sides=(), fisher_passes=0, matrices=method)
    return make_plan(base.workload, base.hardware, base.policy, work)


@chips
def test_inversions_for_a_root_cost_what_the_scheme_counted(chip):
    """Of 100 and 60 rows, one after the other, each in arrays of its own."""
    plan = _shampoo_plan(chip, Shampoo(roots="inversions", output_layer="matrix"))
    inversions, written, settled = [], {}, {}
    for n in (100, 60):
        programmed, solving = solved(plan, chip, n, 2 * n, fused=False)
        inversions.append(Inversion(n, programmed + solving))
        block = Block(n, 0, False, 1, _wide(chip, n, n), True)
        cells = cells_of(chip, block, "fcg")
        assert programmed.program_cells == sum(cells)
        written = both(written, program(chip, block, *cells, 1))
        settled = both(settled, solve(chip, block, programmed + solving, 1))
    name = plan.workload.layers[0].name
    done = {name: MatrixWork(inversions=tuple(inversions))}
    table = matrix_rows(plan, None, Due(), done)
    check(plan, chip, table, table["op"] == op.PROGRAM_ROOT.number, written)
    check(plan, chip, table, table["op"] == op.SOLVE_ROOT.number, settled)


@chips
def test_grafting_costs_digital_operations_alone(chip):
    """100 x 60 numbers: average squares (3), divide by their roots (4), two norms, and scale the
    direction; and one number that weighs the squares, with its norm.
    """
    tables = [
        table_of(_shampoo_plan(chip, Shampoo(grafting=kind, output_layer="matrix")))
        for kind in ("none", "sgd", "adam")
    ]
    rows = [t.where(np.flatnonzero(t["op"] == op.COMBINE_MATRIX.number)) for t in tables]
    sums = [row["digital_ops"].item() for row in rows]
    moved = [row["buffer_bytes"].item() / chip.value_bytes for row in rows]
    assert sums[1] - sums[0] == (2 + 1) * 6000
    assert sums[2] - sums[1] == (3 + 4) * 6000 + (2 + 1)
    assert moved[1] - moved[0] == (2 + 2) * 6000
    assert moved[2] - moved[1] == (3 + 3) * 6000 + (2 + 1)
    for name in ("cell_writes", "crossbar_reads", "inv_ops"):
        assert tables[2][name].sum() == tables[0][name].sum()


@chips
def test_an_inverse_in_the_digital_unit_costs_a_factor_and_its_solves(chip):
    """Two for each root; a plan with one less has one factorisation less of either."""
    tables = []
    for poles in (1, 2):
        method = Shampoo(roots="inversions", products="digital", poles=poles, output_layer="matrix")
        table = table_of(_shampoo_plan(chip, method))
        tables.append(table.where(np.flatnonzero(table["op"] == op.MULTIPLY_MATRIX.number)))
    one = [tables[1][name] - tables[0][name] for name in ("digital_ops", "buffer_bytes")]
    lanes = 16
    expected = sum(
        np.array([work.operations, work.words * chip.value_bytes])
        for n in (100, 60)
        for work in (
            factorisation(n, lanes, chip.tiles),
            triangular_solves(n, n, lanes, chip.tiles),
        )
    )
    assert np.ravel(one).tolist() == expected.tolist()


@pytest.mark.parametrize(("network", "count"), [("board", 4), ("torus", 32)])
def test_solved_gradients_go_to_the_chips_that_own_matrices(network, count):
    """64 x 40 and 40 x 10 numbers of 4 bytes, each to a chip of its own; biases stay."""
    base = plan_of("small", MLP, count=count, network=network)
    method = NewtonMuon(output_layer="matrix")
    work = dataclasses.replace(
        base.work, sides=method.sides, fisher_passes=0, clips=False, matrices=method
    )
    plan = make_plan(base.workload, base.hardware, base.policy, work)
    assert {(block.layer, block.factor) for block in plan.blocks} == {(0, "A"), (1, "A")}
    table = table_of(plan)
    rows = table.where(np.flatnonzero(table["op"] == op.EXCHANGE_SOLVED.number))
    dimensions, total, largest = NETWORKS[network](count), 4 * 2960, 4 * 2560
    time, sent = min(personal(dimensions, total, largest), scatter(dimensions, total, largest))
    assert len(rows) == count
    priced = price(rows, plan.hardware.costs)
    assert priced.duration_s == pytest.approx(time, rel=NEAR)
    assert priced.energy_j.sum() == pytest.approx(sent * LINK_J_PER_BYTE, rel=NEAR)
    assert not (table_of(base)["op"] == op.EXCHANGE_SOLVED.number).any()


def test_the_last_matrix_of_others_has_no_block():
    base = plan_of("small", MLP)
    work = dataclasses.replace(base.work, sides=("A",), fisher_passes=0, matrices=NewtonMuon())
    plan = make_plan(base.workload, base.hardware, base.policy, work)
    assert {block.layer for block in plan.blocks} == {0}
    formed = table_of(plan)
    assert set(formed["layer"][formed["op"] == op.FACTOR_A.number].tolist()) == {0}


def test_a_product_of_the_digital_unit_fills_parts_of_lanes_by_lanes():
    """20 x 12 by 12 x 40 on two tiles of 16 lanes: six parts, three turns of 12 times 16 clocks.

    Each row of parts reads all of the second factor, and each column of parts all of the first.
    """
    found = product(20, 12, 40, 16, 2)
    assert found.operations == 20 * 12 * 40
    assert found.clocks == 3 * 12 * 16
    assert found.words == 3 * 20 * 12 + 2 * 12 * 40 + 20 * 40


@chips
def test_measuring_noise_costs_what_a_hand_calculation_says(chip):
    """A square per parameter of every micro-batch's gradient, and of the mean one, over all chips;
    two norms travel for each layer, beside that of the clip.
    """
    plain = plan_of(chip.name, MLP, count=4)
    soi = dataclasses.replace(plain.policy.soi, residual_to_noise=0.5)
    policy = dataclasses.replace(plain.policy, soi=soi)
    plan = make_plan(plain.workload, plain.hardware, policy, plain.work)
    table = table_of(plan)
    parameters = [65 * 40, 41 * 10]
    for layer, squares in enumerate(parameters):
        here = (table["layer"] == layer) & (table["op"] == op.MEASURE_GRADIENT.number)
        assert here.sum() == BATCHES
        tiles = int(plan.allocation.weight_tiles[layer])
        row = digital(squares, squares * chip.value_bytes, 16 * tiles)
        check(plan, chip, table, here, row)
    for name, more in (
        ("clip", up(sum(parameters), 4)),
        ("reduce_scalar", 0),
    ):
        rows = [
            t.where(np.flatnonzero(t["op"] == OP_NAMES.index(name)))
            for t in (table, table_of(plain))
        ]
        assert (rows[0]["digital_ops"] - rows[1]["digital_ops"] == more).all()
    assert (rows[0]["link_bytes"] > rows[1]["link_bytes"]).all()
    assert not (table_of(plain)["op"] == op.MEASURE_GRADIENT.number).any()


def test_every_operation_of_a_step_has_a_price_by_hand():
    assert set(OP_NAMES) == LAYER_OPS | BLOCK_OPS | MATRIX_OPS | EXCHANGES | OTHERS


# Steps and runs -----------------------------------------------------------------------------------

RUN = (
    "model=digits_mlp", "train.epochs=1", "train.max_steps=3", "soi.interval=2", "farm.chips=2",
    "farm.backend=inprocess",
)  # fmt: skip


def test_a_run_costs_the_sum_of_its_counts_its_messages_and_its_static_power(train):
    """digits_mlp has 64 x 64, 64 x 32 and 32 x 10 weights with biases: 6,570 numbers."""
    run_dir = train(*RUN)
    result = json.loads((run_dir / "result.json").read_text())
    totals, rows = result["totals"], read_trace(run_dir / "trace")
    counts = {name: rows[name].to_numpy().sum() for name in COUNTS}
    assert totals["counts"] == pytest.approx(counts, rel=NEAR)
    assert totals["energy_j"] == pytest.approx(rows["energy_j"].to_numpy().sum(), rel=NEAR)
    ended = rows["start_s"].to_numpy() + rows["duration_s"].to_numpy()
    assert totals["time_s"] == pytest.approx(ended.max(), rel=NEAR)
    assert totals["time_s"] == pytest.approx(sum(s["time_s"] for s in result["steps"]), rel=NEAR)
    static = 2 * SMALL.static_w * totals["time_s"]
    assert rows["static_j"].to_numpy().sum() == pytest.approx(static, rel=NEAR)
    sent = sum(size for _, size in exchanged(plan_of_run(), NETWORKS["board"](2), 6570).values())
    by_hand = joules(counts) + 3 * sent * LINK_J_PER_BYTE + static
    assert totals["energy_j"] == pytest.approx(by_hand, rel=NEAR)
    for chip in ("0", "1"):
        mine = rows["energy_j"].to_numpy()[rows["chip"].to_numpy() == int(chip)]
        assert totals["chips"][chip]["energy_j"] == pytest.approx(mine.sum(), rel=NEAR)


def plan_of_run():
    from repast_dist.studies.settings import training_job

    settings = load_settings(list(RUN))
    return make_setup(training_job(settings), settings.dataset.load()).plan


def test_the_steps_of_a_run_cost_what_a_hand_calculation_makes_of_their_rows(train):
    """Without counts, a row is links alone; every chip draws static power to the end of a step."""
    run_dir = train(*RUN)
    rows = read_trace(run_dir / "trace").to_pylist()
    result = json.loads((run_dir / "result.json").read_text())
    for number, step in enumerate(result["steps"]):
        mine = [row for row in rows if row["step"] == number]
        worked = sum(joules({name: row[name] for name in COUNTS}) for row in mine)
        links = exchanged(plan_of_run(), NETWORKS["board"](2), 6570)
        spent = worked + sum(size for _, size in links.values()) * LINK_J_PER_BYTE
        spent += 2 * SMALL.static_w * step["time_s"]
        assert sum(row["energy_j"] for row in mine) == pytest.approx(spent, rel=NEAR)


def test_a_planned_step_costs_the_sum_of_its_rows_and_its_static_power():
    plan = plan_of("small", MLP, count=4)
    table, summary = table_of(plan), summarise(plan)
    counts = {name: table[name].sum() for name in COUNTS}
    sent = sum(size for _, size in exchanged(plan, NETWORKS["board"](4), 3010).values())
    by_hand = joules(counts) + sent * LINK_J_PER_BYTE + 4 * SMALL.static_w * summary.step_s
    assert summary.energy_j == pytest.approx(by_hand, rel=NEAR)
    assert sum(summary.phase_energy_j.values()) == pytest.approx(by_hand, rel=NEAR)
    assert sum(summary.segment_s.values()) == pytest.approx(summary.step_s, rel=NEAR)
