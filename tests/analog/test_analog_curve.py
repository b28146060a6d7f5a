"""Cells whose current is no multiple of the voltage: where circuits with them rest, and what
products with them are.
"""

import dataclasses

import numpy as np
import pytest
from scipy.optimize import root

import repast_dist as rd
from repast_dist.analog import (
    AdcSpec,
    CurveSpec,
    DacSpec,
    DeviceSpec,
    InvSpec,
    OpAmpSpec,
    Reram,
    VmmSpec,
    WireSpec,
    program_inv,
    program_vmm,
)
from repast_dist.analog.arrays.fused import program_fused
from repast_dist.analog.arrays.held import hold, input_load, whole_cell
from repast_dist.analog.arrays.programming import offset_voltages
from repast_dist.analog.specs import VariationSpec
from repast_dist.analog.spice import fused_circuit, inv_circuit, ngspice_installed, run_ngspice
from repast_dist.ground.errors import SettingsError

needs_ngspice = pytest.mark.skipif(not ngspice_installed(), reason="ngspice is not installed")
SWING = 0.5


def _spec(v0=0.25, gain=1e3, **opamp):
    return InvSpec(
        device=DeviceSpec(
            inv_cell=Reram(bits=8, programming_sigma=0.01),
            curve=CurveSpec(v0_volts=v0),
            opamp=OpAmpSpec(gain=gain, offset_v=0.002, input_siemens=1e-6, **opamp),
        ),
        dac_bits=24,
        adc_bits=24,
    )


def _matrix(n, seed=0, condition=20.0):
    random = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(random.normal(size=(n, n)))
    matrix = (basis * np.geomspace(1.0, 1.0 / condition, n)) @ basis.T
    return (matrix + matrix.T) / 2


def _node_equations(matrix, spec, volts, currents):
    """Currents into the inputs of 2n amplifiers, of which each output is an unknown of its own.

    The second n are inverters, of two equal conductances.
    """
    n, opamp, v0 = len(matrix), spec.device.opamp, spec.device.curve.v0_volts
    held, unit = hold(matrix, spec, 1, "a"), whole_cell(matrix)
    inputs = input_load(matrix, spec)
    offsets = [offset_voltages(n, opamp, 1, "a", *what) * SWING for what in ((), ("inverters",))]
    out, inverted = volts[:n], volts[n:]
    at, behind = offsets[0] - out / opamp.gain, offsets[1] - inverted / opamp.gain
    cells = held.positive * v0 * np.sinh((out - at[:, None]) / v0)
    cells += held.negative * v0 * np.sinh((inverted - at[:, None]) / v0)
    into = cells.sum(axis=1) - inputs * at - currents
    return np.concatenate(
        [into, unit * (out - behind) + unit * (inverted - behind) - inputs * behind]
    )


@pytest.mark.parametrize("gain", [1e4, 100.0])
@pytest.mark.parametrize("v0", [0.25, 0.08])
@pytest.mark.parametrize("n", [4, 16])
def test_outputs_rest_where_all_node_equations_hold(n, v0, gain):
    spec, matrix = _spec(v0, gain, swing_v=SWING), _matrix(n)
    array = program_inv(matrix, spec, 1, "a")
    right = np.random.default_rng(1).normal(size=(n, 3))
    reading = array.read(right)
    assert not reading.saturated.any()
    for column in range(3):
        unit = np.abs(right[:, column]).max() / (2**23 - 1)
        volts_per_unit = SWING * array.circuit.drive * array.circuit.scale / unit
        codes = np.rint(right[:, column] / unit) * unit
        out = reading.outputs[:, column] * volts_per_unit
        start = np.concatenate([out, -out])
        found = root(
            lambda v, i=codes * volts_per_unit: _node_equations(matrix, spec, v, i),
            0.9 * start,
            tol=1e-13,
        )
        np.testing.assert_allclose(out, found.x[:n], rtol=0, atol=3e-7 * np.abs(out).max())
    linear = program_inv(matrix, _spec(None, gain, swing_v=SWING), 1, "a").read(right).outputs
    assert np.abs(linear - reading.outputs).max() > 0.01 * np.abs(linear).max()


@needs_ngspice
@pytest.mark.parametrize("v0", [None, 0.2])
@pytest.mark.parametrize("gain", [1e4, 100.0])
@pytest.mark.parametrize("n", [4, 8, 12, 16])
def test_ngspice_finds_the_rest_of_all_amplifiers_too(n, gain, v0):
    random = np.random.default_rng(n)
    spec, right = _spec(v0, gain), random.normal(size=n)
    circuits = [
        inv_circuit(_matrix(n, n), right, spec, 0.4, 1, "a"),
        fused_circuit(random.normal(size=(n, n)), np.ones(n), right, spec, 0.4, 1, "a"),
    ]
    for circuit in circuits:
        solved = run_ngspice(circuit.text)
        atol = 1e-6 * np.abs(solved).max()
        np.testing.assert_allclose(circuit.calculated, solved, rtol=0, atol=atol)


@needs_ngspice
def test_netlists_hold_what_used_cells_do():
    """Cells that have aged, are warm and share deviations are in the circuits as in the arrays."""
    spec = _spec(0.25, 1e4)
    cell = Reram(
        bits=8, programming_sigma=0.01, drift_exponent=0.02, drift_start_s=1e-6,
        flicker_sigma=0.002, temperature_on_per_k=-0.001,
    )  # fmt: skip
    variation = VariationSpec(array_sigma=0.02, row_sigma=0.01, column_sigma=0.01, die_sigma=0.01)
    device = dataclasses.replace(
        spec.device, inv_cell=cell, variation=variation, age_s=10.0, temperature_k=320.0
    )
    spec, random = dataclasses.replace(spec, device=device), np.random.default_rng(3)
    right, rows = random.normal(size=8), random.normal(size=(8, 5))
    for circuit in (
        inv_circuit(_matrix(8), right, spec, 0.3, 1, "a"),
        fused_circuit(rows, np.ones(8), right, spec, 0.3, 1, "a"),
    ):
        solved = run_ngspice(circuit.text)
        atol = 1e-6 * np.abs(solved).max()
        np.testing.assert_allclose(circuit.calculated, solved, rtol=0, atol=atol)


@needs_ngspice
def test_curve_and_wires_together_are_right_to_a_fraction_of_what_wires_do():
    """Wires are those of small voltages: the larger outputs are, the less that holds."""
    spec, matrix = _spec(0.25, 1e4), _matrix(16)
    right = np.random.default_rng(2).normal(size=16)
    wired = dataclasses.replace(
        spec, device=dataclasses.replace(spec.device, wire=WireSpec(row_ohm=2.0, column_ohm=2.0))
    )
    share = {}
    for volts in (0.1, 0.4):
        circuit = inv_circuit(matrix, right, wired, volts, 1, "a")
        solved = run_ngspice(circuit.text)
        without = inv_circuit(matrix, right, spec, volts, 1, "a").calculated
        share[volts] = np.abs(circuit.calculated - solved).max() / np.abs(without - solved).max()
    assert share[0.1] < 0.25
    assert share[0.1] < share[0.4] < 1.0


def test_a_flat_curve_is_that_of_linear_cells():
    matrix, right = _matrix(12), np.random.default_rng(1).normal(size=(12, 4))
    flat, linear = (
        program_inv(matrix, _spec(v0, swing_v=SWING), 1, "a").read(right).outputs
        for v0 in (1e3, None)
    )
    np.testing.assert_allclose(flat, linear, rtol=0, atol=1e-6 * np.abs(linear).max())


def test_an_answer_depends_on_no_other_right_hand_side():
    matrix = _matrix(12)
    array = program_inv(matrix, dataclasses.replace(_spec(swing_v=SWING), adc_bits=8), 1, "a")
    right = np.random.default_rng(1).normal(size=(12, 40))
    apart = np.hstack([array.read(column[:, None]).outputs for column in right.T])
    np.testing.assert_array_equal(array.read(right).outputs, apart)


def test_what_needs_more_than_the_swing_is_reported():
    matrix = _matrix(12)
    array = program_inv(matrix, _spec(swing_v=SWING), 1, "a")
    hard = dataclasses.replace(array.circuit, drive=array.circuit.drive * 64)
    right = np.random.default_rng(1).normal(size=(12, 4))
    assert dataclasses.replace(array, circuit=hard).read(right).saturated.all()
    assert not array.read(right).saturated.any()


def test_fused_circuits_with_curved_cells_are_read():
    random = np.random.default_rng(4)
    rows, right = random.normal(size=(9, 5)), random.normal(size=(9, 6))
    spec = _spec(0.25, 1e4, swing_v=SWING)
    curved = program_fused(rows, np.ones(9), spec, 1, "f").read(right)
    linear = dataclasses.replace(spec, device=dataclasses.replace(spec.device, curve=CurveSpec()))
    straight = program_fused(rows, np.ones(9), linear, 1, "f").read(right)
    assert not curved.saturated.any()
    difference = np.abs(curved.outputs - straight.outputs).max() / np.abs(straight.outputs).max()
    assert 1e-4 < difference < 0.3


def _vmm(bits, v0=0.25, **device):
    return VmmSpec(
        device=DeviceSpec(cell=Reram(bits=4), curve=CurveSpec(v0_volts=v0), **device),
        dac=DacSpec(bits=bits),
        adc=AdcSpec(range="lossless"),
        rows=32,
        input_bits=9,
    )


def test_inputs_of_one_bit_see_one_voltage():
    random = np.random.default_rng(5)
    weights, inputs = random.normal(size=(40, 6)), random.normal(size=(10, 40))
    curved, linear = (
        program_vmm(weights, _vmm(1, v0), 1, "w").multiply(inputs).values for v0 in (0.1, None)
    )
    np.testing.assert_array_equal(curved, linear)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_digits_between_are_answered_as_the_curve_says(bits):
    """One cell of the largest level: a pass carries the current of its voltage over a full one."""
    spec = dataclasses.replace(_vmm(bits), adc=AdcSpec(range="full", bits=16))
    array = program_vmm(np.ones((1, 1)), spec, 1, "w")
    top, full = 2**bits - 1, 0.2 / 0.25
    values = np.arange(-255, 256)
    weights = array.integers[0, 0]
    codes = array.multiply_codes(values[:, None].astype(np.float64)).values[:, 0] / weights
    expected = np.zeros(len(values))
    for number in range(8 // bits):
        digit = (np.abs(values) >> (bits * number)) & top
        expected += 2 ** (bits * number) * top * np.sinh(full * digit / top) / np.sinh(full)
    step = 2**8 * top / 2**15
    np.testing.assert_allclose(codes, np.sign(values) * expected, rtol=0, atol=step)


def test_curved_inverting_cells_need_volts():
    hardware = rd.load_hardware(chip="small", device="reram", **{"device.curve.v0_volts": 0.25})
    with pytest.raises(SettingsError, match="swing_v"):
        _ = hardware.inv_spec
