"""Inversion of a matrix times its transpose in one loop, against SciPy on the formed matrix."""

import numpy as np
import pytest
import scipy.linalg

from repast_dist.analog import (
    LOSSLESS,
    SCHEMES,
    DeviceSpec,
    InvSpec,
    OpAmpSpec,
    Reram,
    Rows,
    prepare,
)
from repast_dist.analog.arrays.fused import program_fused
from repast_dist.ground.errors import DataError


def _inv(sigma=0.0, bits=8, size=256, gain=None, converters=8):
    cell = Reram(bits=bits, programming_sigma=sigma, g_off_siemens=0.0)
    device = DeviceSpec(inv_cell=cell, opamp=OpAmpSpec(gain=gain, compensation=400.0))
    return InvSpec(device=device, size=size, dac_bits=converters, adc_bits=converters)


def _rows(n, held, seed=0):
    return np.maximum(np.random.default_rng(seed).normal(size=(n, held)) + 0.3, 0.0)


def _solve(rows, damping, right, inv=None, **inversion):
    spec = SCHEMES.load(inversion)
    return prepare(Rows(rows, damping), LOSSLESS, inv or _inv(), spec, 1, "test").solve(right)


def _exact(rows, damping, right):
    formed = rows @ rows.T / rows.shape[1] + damping * np.eye(len(rows))
    return scipy.linalg.solve(formed, right, assume_a="pos")


@pytest.mark.parametrize(("n", "held"), [(64, 16), (64, 200), (1, 3), (200, 1)])
@pytest.mark.parametrize("sigma", [0.0, 0.01])
@pytest.mark.parametrize("damping", [0.1, 0.01])
def test_the_loop_solves_with_the_product_it_never_forms(n, held, sigma, damping):
    rows = _rows(n, held)
    right = np.random.default_rng(2).normal(size=(n, 4))
    solution = _solve(rows, damping, right, _inv(sigma))
    exact = _exact(rows, damping, right)
    condition = np.linalg.cond(rows @ rows.T / held + damping * np.eye(n))
    assert solution.converged.all()
    error = np.linalg.norm(solution.x - exact) / np.linalg.norm(exact)
    assert error < condition * 2.0**-16


def test_read_noise_and_dead_inputs_are_survived():
    """No activity at all leaves the damping alone."""
    cell = Reram(bits=8, programming_sigma=0.01, read_sigma=0.01)
    inv = InvSpec(device=DeviceSpec(inv_cell=cell))
    right = np.random.default_rng(7).normal(size=(48, 3))
    assert _solve(_rows(48, 30), 0.05, right, inv).converged.all()
    silent = _solve(np.zeros((48, 30)), 0.05, right, inv)
    np.testing.assert_allclose(silent.x, right / 0.05, rtol=1e-3, atol=1e-3)


def test_refinement_works_with_the_loop_where_damping_is_large():
    rows = _rows(60, 30)
    right = np.random.default_rng(3).normal(size=(60, 2))
    solution = _solve(rows, 1.0, right, method="refine")
    assert solution.converged.all()
    np.testing.assert_allclose(solution.x, _exact(rows, 1.0, right), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("scale", [1e-140, 1e-3, 1e140])
def test_the_size_of_activations_does_not_matter(scale):
    """(s a) (s a)' / N + s^2 lambda: the same rounds, and x over s^2."""
    rows = _rows(40, 20)
    right = np.random.default_rng(6).normal(size=(40, 2))
    one = _solve(rows, 0.1, right)
    other = _solve(scale * rows, scale**2 * 0.1, right)
    assert other.converged.all()
    np.testing.assert_allclose(other.x * scale**2, one.x, rtol=1e-3, atol=1e-3)


def test_one_settling_is_as_good_as_cells_and_converters():
    rows = _rows(40, 200)
    right = np.random.default_rng(4).normal(size=(40, 3))
    x = _solve(rows, 1.0, right, method="single").x
    exact = _exact(rows, 1.0, right)
    error = np.abs(x - exact).max() / np.abs(exact).max()
    assert 2.0**-11 < error < 2.0**-3


def test_finite_gain_loads_both_stages_of_the_loop():
    """Nodes of the circuit in units of a whole cell u, which is the feedback of the middle
    amplifiers m and of the inverters w behind them, that drive the positive cells of a:
    ``(1 + (1 + sum|a'|) / g) m = -a' x``, ``m + (1 + 2 / g) w = 0``,
    ``a w + (d + load / g) x = b``.
    """
    rows, diagonal, gain = _rows(6, 4), np.full(6, 0.5), 50.0
    array = program_fused(rows, diagonal, _inv(gain=gain, converters=24))
    unit = np.abs(rows).max()
    held = np.rint(rows / unit * 255) / 255 * unit
    n, m = held.shape
    circuit = np.zeros((n + 2 * m, n + 2 * m))
    x, middle, inverted = slice(0, n), slice(n, n + m), slice(n + m, n + 2 * m)
    load = np.abs(held).sum(axis=1) * unit + diagonal
    circuit[x, x] = np.diag(diagonal + load / gain)
    circuit[x, inverted] = held
    circuit[middle, x] = held.T
    circuit[middle, middle] = np.diag(1 + (1 + np.abs(held).sum(axis=0) / unit) / gain)
    circuit[inverted, middle] = np.eye(m)
    circuit[inverted, inverted] = np.eye(m) * (1 + 2 / gain)
    right = np.random.default_rng(5).normal(size=(n, 2))
    expected = np.linalg.solve(circuit, np.vstack([right, np.zeros((2 * m, 2))]))[:n]
    np.testing.assert_allclose(array.solve(right), expected, rtol=1e-5, atol=1e-5)


def test_fusing_saves_cells_where_few_rows_are_held():
    rows = _rows(128, 16)
    fused = prepare(Rows(rows, 0.1), LOSSLESS, _inv(), SCHEMES.load({"method": "single"}), 0)
    assert fused.program_counts.program_cells == 2 * (2 * 128 * 16 + 128)
    assert fused.program_counts.program_cells < 2 * 128 * 128


@pytest.mark.parametrize(
    ("rows", "damping", "settings", "message"),
    [
        (np.zeros((0, 3)), 0.1, {}, "finite matrix"),
        (np.full((2, 2), np.nan), 0.1, {}, "finite matrix"),
        (np.ones((2, 2)), 0.0, {}, "positive damping"),
        (np.ones((2, 2)), 0.1, {"method": "taylor"}, "taylor"),
        (np.ones((2, 300)), 0.1, {}, "arrays of 300"),
    ],
)
def test_what_cannot_be_fused_is_refused(rows, damping, settings, message):
    with pytest.raises(DataError, match=message):
        prepare(Rows(rows, damping), LOSSLESS, _inv(), SCHEMES.load(settings))
