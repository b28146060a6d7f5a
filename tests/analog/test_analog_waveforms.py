"""Waveforms of inverting circuits against ngspice, run here or stored."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from repast_dist.analog.spice import ngspice_installed

ORACLES = Path(__file__).parents[1] / "oracles" / "analog"
STORED = np.load(ORACLES / "waveforms.npz")
"""By ngspice 39 (written by `store_ngspice.py` beside it)."""

_SPEC = importlib.util.spec_from_file_location("store_ngspice", ORACLES / "store_ngspice.py")
cases = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(cases)

GBW_HZ = 1e8


def _calculated(circuit, loop, seconds):
    """Return outputs, (times, n), of a circuit that is at its calculated values in the end."""
    return np.array([circuit.calculated - loop.missing(s * GBW_HZ) @ circuit.calculated
                     for s in seconds])  # fmt: skip


def _settled_after(circuit, loop, share, about):
    """Return when all outputs are within a share of the largest for good, on a fine grid."""
    seconds = about * np.linspace(0.98, 1.02, 41)
    return cases.settled_after(
        np.append(seconds, np.inf),
        np.vstack([_calculated(circuit, loop, seconds), circuit.calculated]),
        share,
    )


def _compare(name, times, outputs, settled):
    circuit, loop, share = cases.wave(name)
    calculated, largest = _calculated(circuit, loop, times), np.abs(outputs[-1]).max()
    np.testing.assert_allclose(calculated, outputs, rtol=0, atol=1e-3 * largest)
    assert np.ptp(outputs, axis=0).max() > 0.8 * largest
    assert _settled_after(circuit, loop, share, settled) == pytest.approx(settled, rel=0.01)


@pytest.mark.parametrize("name", cases.WAVES)
def test_outputs_move_and_settle_as_ngspice_found(name):
    stored = (STORED[f"{name}/{what}"] for what in ("times", "outputs", "settled"))
    _compare(name, *(values if values.ndim else float(values) for values in stored))


@pytest.mark.skipif(not ngspice_installed(), reason="ngspice is not installed")
@pytest.mark.parametrize("name", ["inv 16, second pole", "fused 16, second pole"])
def test_ngspice_finds_them_move_so_again(name):
    circuit, _, share = cases.wave(name)
    times, outputs = cases.run_wave(circuit.text)
    picked = slice(None, None, 100)
    settled = cases.settled_after(times, outputs, share)
    _compare(name, times[picked], outputs[picked], settled)
