"""White noise of amplifiers at their inputs, as outputs have it when they are read."""

import dataclasses

import numpy as np
import pytest
import scipy.linalg

from repast_dist.analog import DeviceSpec, InvSpec, OpAmpSpec, Reram, program_inv
from repast_dist.analog.arrays.fused import program_fused
from repast_dist.analog.arrays.held import hold

NOISE = 2e-8


def _inv(noise=NOISE, read_cycles=None, **opamp):
    given = {"gain": 1e3, "gbw_hz": 1e8, "swing_v": 0.5, "noise_v_per_rthz": noise} | opamp
    cell = Reram(bits=8, programming_sigma=0.01, g_on_siemens=35e-6, g_off_siemens=0.5e-6)
    device = DeviceSpec(inv_cell=cell, opamp=OpAmpSpec(**given))
    return InvSpec(device=device, size=512, read_cycles=read_cycles)


def _spd(n, condition, seed=0):
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))
    return (q * np.geomspace(1.0, 1.0 / condition, n)) @ q.T


def _lyapunov(loop):
    """Return the covariance of outputs, per two-sided density, long after switching on."""
    states, m = 2 * np.pi * loop.states.astype(np.float64), len(loop.matrix)
    entering = np.zeros(len(states))
    entering[-m:] = (2 * np.pi * loop.speed.astype(np.float64)) ** 2
    n = len(loop.load)
    return scipy.linalg.solve_continuous_lyapunov(states, np.diag(entering))[:n, :n]


@pytest.mark.parametrize("second_pole_hz", [None, 2e8, 5e7])
@pytest.mark.parametrize("n", [1, 12, 60])
def test_noise_of_outputs_is_that_of_the_lyapunov_equation(n, second_pole_hz):
    loop = program_inv(_spd(n, 5.0), _inv(second_pole_hz=second_pole_hz), 1, "x").circuit.loop
    root, expected = loop.noise_root(1e3), _lyapunov(loop)
    np.testing.assert_allclose(root @ root.T, expected, rtol=0, atol=1e-3 * expected.max())


def test_noise_of_a_fused_circuit_is_that_of_the_lyapunov_equation():
    rows = np.random.default_rng(3).uniform(size=(12, 5))
    loop = program_fused(rows, np.full(12, 1.0), _inv(second_pole_hz=2e8), 1, "x").circuit.loop
    root, expected = loop.noise_root(3e4), _lyapunov(loop)
    np.testing.assert_allclose(root @ root.T, expected, rtol=0, atol=0.01 * expected.max())


@pytest.mark.parametrize("read_cycles", [0.5, 4.0])
def test_amplifiers_simulated_one_by_one_have_as_much_noise(read_cycles):
    """Every amplifier and inverter integrates its own noise, in volts and seconds."""
    n, steps, runs = 4, 400, 4000
    matrix, spec = _spd(n, 4.0), _inv(read_cycles=read_cycles)
    circuit, cells = program_inv(matrix, spec, 1, "x").circuit, hold(matrix, spec, 1, "x")
    seconds = read_cycles / 1e8 / steps
    random = np.random.default_rng(2)
    state = np.zeros((2 * n, runs))
    for _ in range(steps):
        outputs, inverted = state[:n], state[n:]
        into = (cells.positive @ outputs + cells.negative @ inverted) / cells.load[:, None]
        at_input = np.vstack([into, (outputs + inverted) / 2]) + state / 1e3
        # A density of e^2 to one side of zero is e^2 / 2 to both.
        noise = NOISE * np.sqrt(0.5 / seconds) * random.standard_normal(state.shape)
        state = state - 2 * np.pi * 1e8 * seconds * (at_input + noise)
    simulated = np.cov(state[:n]) / 0.5**2
    root = circuit.amplifier_noise.root
    np.testing.assert_allclose(root @ root.T, simulated, rtol=0, atol=0.08 * simulated.max())


def test_readings_have_this_noise_and_the_same_input_the_same():
    spec = dataclasses.replace(_inv(3e-7), adc_bits=16, dac_bits=16)
    quiet = dataclasses.replace(_inv(0.0), adc_bits=16, dac_bits=16)
    matrix, right = _spd(10, 5.0), np.random.default_rng(1).normal(size=(10, 3000))
    noisy, clean = program_inv(matrix, spec, 1, "x"), program_inv(matrix, quiet, 1, "x")
    assert noisy.circuit.drive == clean.circuit.drive
    full = np.abs(right).max(axis=0) / (2**15 - 1)
    unit = noisy.circuit.scale * noisy.circuit.drive / full
    added = (noisy.solve(right) - clean.solve(right)) * unit
    root = noisy.circuit.amplifier_noise.root
    expected = root @ root.T
    np.testing.assert_allclose(np.cov(added), expected, rtol=0, atol=0.1 * expected.max())
    np.testing.assert_array_equal(noisy.solve(right[:, 5:6]), noisy.solve(right)[:, 5:6])
    other = program_inv(matrix, spec, 2, "x")
    assert other.circuit.amplifier_noise.key != noisy.circuit.amplifier_noise.key


def test_noise_without_volts_is_refused():
    with pytest.raises(ValueError, match="swing_v"):
        OpAmpSpec(gbw_hz=1e8, noise_v_per_rthz=1e-8)
