"""The price of writing equals a calculation by hand, pulse by pulse and read by read."""

import numpy as np
import pytest

import repast_dist as rd
from repast_dist.network.tables import network_table
from repast_dist.ops import op, price
from repast_dist.planning import step_ops
from repast_dist.settings import load_settings

PULSES, PULSE_J, PULSE_S, BITS = 8.52, 3.74e-11, 1.0e-6, 3
WAN = ("chip=repast", "device=wan2022", "components=wan2022")


def ceil(a, b):
    return -(-a // b)


@pytest.fixture(scope="module")
def plan():
    return load_settings([*WAN, "inversion=fcg"]).machine.plan(network_table("lenet5"), 1, 8, 8)


@pytest.fixture(scope="module")
def table(plan):
    return step_ops(plan, None, 0, factors_due=True, inverses_due=True)


@pytest.fixture(scope="module")
def unit(plan):
    return {name: part.energy_j for name, part in plan.hardware.costs.parts.items()}


def buffered(unit, size):
    per_byte = unit["buffer"] + unit["bus"] + unit["register"] + 0.5 * unit["router"]
    return size * per_byte


def one_matrix(rows, columns, value_bits, copies):
    """Cells of a matrix, and times that a read drives one of its rows."""
    slices = ceil(value_bits - 1, BITS)
    cells = rows * columns * slices * 2 * copies
    return cells, 2 * rows * ceil(columns * slices, 128) * copies


def test_writing_weights_costs_their_pulses_and_the_reads_between_them(plan, table, unit):
    chip = plan.hardware.chip
    rows = table.of(op.WRITE_WEIGHTS)
    energy = price(rows, plan.hardware.costs).energy_j
    assert len(rows)
    for place, layer in enumerate(rows["layer"]):
        k, m = int(plan.layers.rows[layer]), int(plan.layers.columns[layer])
        copies = int(plan.allocation.copies[layer])
        expected = 0.0
        for shape in [(k, m), (m, k)][: 1 + bool(plan.layers.errors_pass[layer])]:
            cells, drives = one_matrix(*shape, chip.weight_bits, copies)
            read = unit["cell"] + unit["adc"] + unit["sample_hold"] + unit["shift_add"]
            expected += PULSES * (cells * (PULSE_J + read) + drives * unit["dac"])
            expected += buffered(unit, k * m * ceil(chip.input_bits, 8))
        assert energy[place] == pytest.approx(expected, rel=1e-5)


def test_rows_take_their_pulses_and_a_pass_for_each_cell_of_a_pair(plan, table):
    rows = table.of(op.WRITE_WEIGHTS)
    duration = price(rows, plan.hardware.costs).duration_s
    seconds = PULSE_S + 2 * plan.hardware.costs.pass_s
    written = rows["serial_row_pulses"] / PULSES
    np.testing.assert_allclose(written, np.rint(written), rtol=1e-9)
    assert (written >= plan.layers.rows[rows["layer"]].clip(max=256)).all()
    # Passes are whole ones.
    np.testing.assert_allclose(duration, rows["serial_row_pulses"] * seconds, rtol=1e-3)


def test_programming_a_block_costs_the_pulses_of_both_its_arrays(plan, table, unit):
    rows = table.of(op.PROGRAM_BLOCK)
    energy = price(rows, plan.hardware.costs).energy_j
    bits = plan.shapes.product_bits
    assert len(rows) == len(plan.blocks)
    for place, block in enumerate(rows["block"]):
        n, copies = plan.blocks[block].size, int(plan.places.copies[block])
        assert plan.shapes.depth[block] == 0
        cells, _ = one_matrix(n, n, bits, copies)
        inverting = int(plan.shapes.inverting_cells[block]) * copies
        line = ceil(bits - 1, BITS) * n
        shared = unit["sample_hold"]
        # Pulses are whole ones.
        pulses, inv_pulses = round(PULSES * cells), round(PULSES * inverting)
        expected = (
            (pulses + inv_pulses) * (PULSE_J + unit["cell"])
            + pulses * (unit["residual_adc"] + shared + unit["shift_add"])
            + inv_pulses * (unit["inv_adc"] + unit["inv_gain"] + shared)
        )
        expected += ceil(pulses, min(line, 128)) * unit["dac"]
        expected += ceil(inv_pulses, n) * unit["inv_dac"]
        expected += buffered(unit, n * n * ceil(bits, 8))
        assert energy[place] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("pulses", [1.0, 4.0])
def test_without_reads_a_write_costs_its_pulses_alone(pulses):
    changes = {"device.cell.write_pulses": pulses}
    hardware = rd.load_hardware("small", **changes)
    writing = rd.crossbar(np.ones((100, 10)), hardware).program_cost
    g = hardware.geometry
    cells = 100 * 10 * g.slices * 2
    unit = {name: part.energy_j for name, part in hardware.costs.parts.items()}
    expected = pulses * cells * 3.91e-9 / 128 + buffered(unit, 1000 * g.value_bytes)
    assert writing.energy_j == pytest.approx(expected, rel=1e-5)
    assert writing.time_s == pytest.approx(pulses * 100 * 50.88e-9, rel=1e-5)
    assert writing.counts["write_pulses"] == pulses * writing.counts["cell_writes"]
    assert writing.counts.get("adc_conversions", 0) == 0
