"""Calculated currents and voltages against ngspice, run here or stored."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from repast_dist.analog import DeviceSpec, InvSpec, Reram, VmmSpec, WireSpec, program_vmm
from repast_dist.analog.spice import (
    inv_circuit,
    ngspice_installed,
    run_ngspice,
    vmm_circuits,
    vmm_netlist,
)
from repast_dist.ground.errors import DataError

ORACLES = Path(__file__).parents[1] / "oracles" / "analog"
STORED = json.loads((ORACLES / "ngspice.json").read_text())
"""Outputs by ngspice 39 (written by `store_ngspice.py` beside it)."""

_SPEC = importlib.util.spec_from_file_location("store_ngspice", ORACLES / "store_ngspice.py")
cases = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(cases)

needs_ngspice = pytest.mark.skipif(not ngspice_installed(), reason="ngspice is not installed")


def _tolerance(name):
    """Relative to the largest output.

    We read circuits with 24-bit converters. Behind resistive wires, amplifiers of finite gain
    draw current from each other's inputs too, which we leave out. In its transients inputs step
    up within a millionth of the time, which outputs that still move fast are late by. Where cells
    have a curve, ngspice ends its iterations sooner than we do.
    """
    if name.endswith("curved cells"):
        return 1e-6
    if name.endswith("second pole, read early"):
        return 1e-6
    return 3e-4 if name == "inv: all errors" else 2.5e-7


@pytest.mark.parametrize("name", STORED)
def test_circuits_settle_where_ngspice_found_them_to(name):
    for circuit, stored in zip(cases.circuits(*name.split(": ")), STORED[name], strict=True):
        largest = np.max(np.abs(stored))
        np.testing.assert_allclose(circuit.calculated / largest, stored / largest, rtol=0,
                                   atol=_tolerance(name))  # fmt: skip


@needs_ngspice
@pytest.mark.parametrize("name", STORED)
def test_ngspice_finds_them_there_again(name):
    for circuit in cases.circuits(*name.split(": ")):
        solved = run_ngspice(circuit.text)
        atol = _tolerance(name) * np.abs(solved).max()
        np.testing.assert_allclose(circuit.calculated, solved, rtol=0, atol=atol)


@needs_ngspice
def test_products_are_the_currents_of_the_pairs_put_together():
    """The digital result of one drive, from ngspice's currents alone."""
    random = np.random.default_rng(3)
    weights, vector = random.normal(size=(20, 3)), random.choice([-1.0, 1.0], size=20)
    cell = Reram(bits=4, programming_sigma=0.02)
    device = DeviceSpec(cell=cell, wire=WireSpec(row_ohm=2.0, column_ohm=2.0))
    spec = VmmSpec(device=device, rows=32, columns=64)
    volts, step = 0.1, (cell.g_on_siemens - cell.g_off_siemens) / 15
    (circuit,) = vmm_circuits(weights, vector, spec, volts, 1, "w")
    pairs = run_ngspice(circuit.text).reshape(3, 2, 2) / (volts * step)
    product = (pairs[..., 0] - pairs[..., 1]) @ [1.0, 16.0]
    array = program_vmm(weights, spec, 1, "w")
    held = np.einsum("k,ksm->sm", vector, array.planes.astype(float))
    # Cells hold whole steps of 2^-11 of a level: 1e-5 of the largest product that there is.
    np.testing.assert_allclose(held.T @ [1.0, 16.0], product, rtol=1e-5, atol=1e-5 * 20 * 255)


def test_a_netlist_has_every_cell_and_every_wire():
    siemens = np.full((3, 4), 1e-5)
    siemens[1, 2] = 0.0
    text = vmm_netlist(siemens, np.ones(3), WireSpec(row_ohm=1.0, column_ohm=1.0), "t")
    resistors = [line for line in text.splitlines() if line.startswith("r")]
    assert len(resistors) == 11 + 12 + 12


def test_a_matrix_for_two_arrays_is_no_single_circuit():
    with pytest.raises(DataError, match="up to 4"):
        inv_circuit(np.eye(5), np.ones(5), InvSpec(size=4), 0.2)


def test_a_vector_that_does_not_fit_is_refused():
    with pytest.raises(DataError, match="take"):
        vmm_circuits(np.ones((4, 2)), np.ones(3), VmmSpec(), 0.2)
