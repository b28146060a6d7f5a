"""Weights with an offset: against exact integers, cell by cell, and against pairs of cells."""

import dataclasses

import numpy as np
import pytest

from repast_dist.analog import (
    AdcSpec,
    DacSpec,
    DeviceSpec,
    Reram,
    VmmSpec,
    WireSpec,
    program_vmm,
)
from repast_dist.analog.arrays.planes import physical_arrays
from repast_dist.analog.arrays.wires import transfer_matrix
from repast_dist.analog.cells.ideal import Ideal
from repast_dist.analog.specs import VariationSpec
from repast_dist.analog.spice import vmm_circuits
from repast_dist.ground.errors import SettingsError
from repast_dist.hardware import product_counts, write_counts
from repast_dist.settings import load_settings

LOSSLESS = AdcSpec(range="lossless")
# Too little to matter, but products are then those of digits, passes and tiles.
NEARLY = Reram(bits=2, read_sigma=1e-12)


def _spec(cell=NEARLY, **others):
    device = others.pop("device", DeviceSpec(cell=cell))
    return VmmSpec(**{"adc": LOSSLESS, "device": device, "differential": False, **others})


def _matrices(rows=70, columns=9, vectors=5, seed=1):
    random = np.random.default_rng(seed)
    return random.normal(size=(rows, columns)), random.normal(size=(vectors, rows))


@pytest.mark.parametrize("bits", [(8, 8), (7, 5), (2, 2), (16, 16), (31, 8), (32, 8)])
@pytest.mark.parametrize("cell_bits", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("dac_bits", [1, 3])
def test_products_are_those_of_the_integers(bits, cell_bits, dac_bits):
    weights, inputs = _matrices()
    weight_bits, input_bits = bits
    spec = _spec(
        dataclasses.replace(NEARLY, bits=cell_bits),
        dac=DacSpec(bits=min(dac_bits, input_bits - 1)),
        weight_bits=weight_bits,
        input_bits=input_bits,
        rows=32,
        columns=8,
    )
    array = program_vmm(weights, spec)
    assert array.planes.shape[1] == -(-weight_bits // cell_bits)
    assert array.planes.min() >= 0
    random = np.random.default_rng(2)
    top = 2 ** (input_bits - 1) - 1
    codes = random.integers(-top, top, size=(5, 70), endpoint=True)
    product = array.multiply_codes(codes)
    np.testing.assert_array_equal(product.values, codes @ array.integers)
    stack = program_vmm(np.stack([weights, -weights]), spec)
    both = stack.multiply(np.stack([inputs, inputs])).values
    np.testing.assert_array_equal(both[0], -both[1])
    np.testing.assert_array_equal(both[0], array.multiply(inputs).values)


def test_without_errors_nothing_tells_an_offset_from_pairs():
    weights, inputs = _matrices()
    offset = _spec(Ideal(bits=2))
    pairs = dataclasses.replace(offset, differential=True)
    assert offset.exact
    found = [program_vmm(weights, spec).multiply(inputs).values for spec in (offset, pairs)]
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize(
    "device",
    [
        DeviceSpec(cell=Reram(bits=2, programming_sigma=0.02)),
        DeviceSpec(
            cell=Reram(bits=2, programming_sigma=0.02, stuck_off_rate=0.05, stuck_on_rate=0.02)
        ),
        DeviceSpec(cell=Reram(bits=2), variation=VariationSpec(array_sigma=0.05, row_sigma=0.03)),
        DeviceSpec(cell=Reram(bits=2), variation=VariationSpec(column_sigma=0.05)),
        DeviceSpec(
            cell=Reram(bits=2, programming_sigma=0.02),
            variation=VariationSpec(array_sigma=0.05, column_sigma=0.03),
            wire=WireSpec(row_ohm=1.0, column_ohm=2.0),
        ),
    ],
    ids=["programming", "stuck", "rows", "columns", "wires"],
)
def test_an_array_conducts_what_its_columns_conduct_less_the_references(device):
    """The currents of the physical arrays, cell by cell or through the whole circuit, put together
    with what is taken off by hand.
    """
    weights, _ = _matrices()
    spec = _spec(device=device, rows=32, columns=8, dac=DacSpec(bits=1))
    array, cell = program_vmm(weights, spec, 3, "here"), device.cell
    step = cell.span_siemens / (cell.levels - 1)
    held = np.zeros((70, 9 * spec.slices))
    for one in physical_arrays(weights, spec, 3, "here"):
        left = one.first_column // spec.columns * spec.weight_columns
        rows = slice(one.first_row, one.first_row + len(one.siemens))
        seen = one.siemens
        if not device.wire.ideal:
            seen = transfer_matrix(seen, device.wire)
        part = (seen[:, :-1] - seen[:, -1:]) / step
        held[rows, left : left + part.shape[1]] = part
    np.testing.assert_allclose(
        array.planes.swapaxes(1, 2).reshape(70, -1), held, atol=2e-4 * held.max()
    )
    codes = np.random.default_rng(4).integers(-127, 127, size=(3, 70), endpoint=True)
    worth = 4.0 ** np.tile(np.arange(spec.slices), 9)
    expected = (codes @ held * worth).reshape(3, 9, -1).sum(axis=2)
    expected -= 128 * codes.sum(axis=1)[:, None]
    # Lossless converters round every current to a level.
    found = array.multiply_codes(codes).values
    level = np.sqrt(7 * 3 / 12) * 2.0**6 * 64
    assert np.abs(found - expected).max() < 4 * level


def test_errors_of_references_are_common_to_the_columns_of_an_array():
    weights = np.zeros((64, 7))
    cell = Reram(bits=4, programming_sigma=0.02)
    spec = _spec(cell, rows=64, columns=8)
    planes = program_vmm(weights, spec, 5, "here").planes[:, 0]
    # Of 14 slices, seven lie beside each column of references.
    assert spec.slices == 2
    errors = program_vmm(weights, spec, 5, "here").planes.swapaxes(1, 2).reshape(64, 14)
    errors = errors - np.tile([0.0, 8.0], 7)
    correlation = np.corrcoef(errors.T)
    same, other = correlation[0, 1:7], correlation[0, 7:]
    assert planes.shape == (64, 7)
    assert same.mean() > 0.35
    assert abs(other.mean()) < 0.15


def test_read_noise_is_that_of_a_cell_and_its_reference():
    weights, _ = _matrices(rows=64)
    sigma = 0.01
    spec = _spec(Reram(bits=4, read_sigma=sigma), dac=DacSpec(bits=1), input_bits=2, rows=64)
    wide = dataclasses.replace(spec, adc=AdcSpec(range="full", bits=16))
    array = program_vmm(weights, wide)
    codes = np.ones((4000, 64), int)
    values = array.multiply_codes(codes).values
    spread = values.std(axis=0).mean()
    assert spread == pytest.approx(np.sqrt(2 * 64) * sigma * 15 * np.hypot(1, 16), rel=0.05)


def test_a_netlist_names_weights_slices_and_references():
    weights, inputs = _matrices(rows=20, columns=3)
    spec = _spec(rows=20, columns=8)
    first, second = vmm_circuits(weights, inputs[0], spec, 0.2)
    assert first.labels[:2] == ("weight 0 slice 0", "weight 0 slice 1")
    assert first.labels[-1] == second.labels[-1] == "references"
    assert second.labels[0] == "weight 1 slice 3"
    assert len(first.labels) == 8
    assert len(second.labels) == 6
    shares = np.concatenate([one.calculated[:-1] - one.calculated[-1] for one in (first, second)])
    step = spec.device.cell.span_siemens / 3
    volts = 0.2 * inputs[0] / np.abs(inputs[0]).max()
    integers = program_vmm(weights, spec).integers
    worth = 4.0 ** np.tile(np.arange(4), 3)
    found = (shares / step * worth).reshape(3, 4).sum(axis=1) - 128 * volts.sum()
    np.testing.assert_allclose(found, volts @ integers, rtol=1e-9)


@pytest.mark.parametrize(("rows", "columns"), [(64, 20), (200, 40), (128, 130)])
def test_conversions_and_operations_are_those_that_are_priced(rows, columns):
    hardware = load_settings(["chip=small", "chip.vmm.differential=false"]).hardware
    g, spec = hardware.geometry, hardware.vmm_spec
    weights, inputs = _matrices(rows, columns, vectors=6)
    array = program_vmm(weights, spec)
    counts = product_counts(g, 6, rows, columns)
    assert array.multiply(inputs).conversions == counts["adc_conversions"]
    arrays = physical_arrays(weights, spec)
    cells = sum(one.siemens.size for one in arrays)
    assert write_counts(g, rows, columns, 1, 1)["cell_writes"] == cells
    assert counts["cells_read"] == 6 * spec.passes * cells
    tiles = -(-rows // g.rows)
    assert len(arrays) == tiles * -(-columns * g.slices // g.weight_columns)
    # Sums of the inputs and of row tiles, steps of inputs, one subtraction for every result.
    assert counts["digital_ops"] == 6 * (rows + columns + columns * (tiles - 1) + 2 * rows)


def test_cells_that_make_up_for_stuck_ones_need_pairs():
    hardware = load_settings(
        ["chip=small", "chip.vmm.differential=false", "device.cell.write_verify=true",
         "device.cell.mapped_around=true"]
    ).hardware  # fmt: skip
    with pytest.raises(SettingsError, match=r"mapped_around=true.*no pairs; valid: false"):
        _ = hardware.vmm_spec
