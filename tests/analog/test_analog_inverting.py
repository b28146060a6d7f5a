"""Inverting arrays and composed solves against SciPy; what diverges says so."""

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from repast_dist.analog import (
    LOSSLESS,
    SCHEMES,
    DeviceSpec,
    InvSpec,
    OpAmpSpec,
    Reram,
    prepare,
    program_inv,
)
from repast_dist.ground.errors import DataError


def _spd(n, condition, seed=0):
    random = np.random.default_rng(seed)
    q, _ = np.linalg.qr(random.normal(size=(n, n)))
    matrix = (q * np.geomspace(1.0, 1.0 / condition, n)) @ q.T
    return (matrix + matrix.T) / 2


def _inv(sigma=0.0, bits=8, **extra):
    cell = Reram(bits=bits, programming_sigma=sigma)
    return InvSpec(device=DeviceSpec(inv_cell=cell, **extra.pop("device", {})), **extra)


def _solve(matrix, right, inv=None, **inversion):
    solver = prepare(matrix, LOSSLESS, inv or _inv(), SCHEMES.load(inversion), 1, "test")
    return solver.solve(right)


def _rounds(method, most):
    """Limit the rounds of those that have any."""
    return {} if method == "single" else {"max_iterations": most}


def test_a_finite_gain_loads_the_diagonal_with_the_row_sums():
    """Steady state of the circuit: (P - k N + diag(row sums of |G|) / a0) v = i, where inverters
    drive the negative cells with k = 1 / (1 + 2 / a0) of the outputs.
    """
    matrix = _spd(12, 5.0)
    cell = Reram(bits=8, g_off_siemens=0.0)
    device = DeviceSpec(inv_cell=cell, opamp=OpAmpSpec(gain=50.0))
    spec = InvSpec(device=device, dac_bits=24, adc_bits=24)
    array = program_inv(matrix, spec)
    right = np.random.default_rng(1).normal(size=(12, 3))
    positive, negative = np.maximum(array.held, 0), np.maximum(-array.held, 0)
    loaded = positive - negative / (1 + 2 / 50.0)
    loaded += np.diag(np.abs(array.held).sum(axis=1)) / 50.0
    np.testing.assert_allclose(array.solve(right), scipy.linalg.solve(loaded, right), rtol=1e-4)


def test_one_analog_step_is_good_to_about_the_bits_of_its_converters():
    matrix = _spd(64, 3.0)
    right = np.random.default_rng(2).normal(size=(64, 5))
    x = program_inv(matrix, _inv()).solve(right)
    exact = scipy.linalg.solve(matrix, right, assume_a="pos")
    error = np.abs(x - exact).max() / np.abs(exact).max()
    assert 2.0**-10 < error < 2.0**-4


def test_a_matrix_larger_than_an_array_is_inverted_by_blocks():
    matrix = _spd(100, 4.0)
    right = np.random.default_rng(3).normal(size=(100, 4))
    spec = InvSpec(device=DeviceSpec(inv_cell=Reram(bits=8)), dac_bits=20, adc_bits=20, size=32)
    array = program_inv(matrix, spec)
    exact = scipy.linalg.solve(matrix, right)
    assert np.abs(array.solve(right) - exact).max() / np.abs(exact).max() < 0.1
    # Four leaves of 25, reached by 3 x 3 applications.
    assert array.inv_ops == 9


@pytest.mark.parametrize("method", ["taylor", "refine", "fcg", "auto"])
def test_composed_schemes_reach_sixteen_bits_on_well_conditioned_blocks(method):
    matrix = _spd(96, 20.0)
    right = np.random.default_rng(4).normal(size=(96, 7))
    solution = _solve(matrix, right, method=method)
    exact = scipy.linalg.solve(matrix, right)
    assert solution.converged.all()
    assert solution.residual.max() <= 2.0**-16
    assert np.linalg.norm(solution.x - exact) / np.linalg.norm(exact) < 20.0 * 2.0**-16


def test_a_series_that_diverges_is_reported_as_not_converged():
    matrix = _spd(128, 1e4)
    right = np.random.default_rng(6).normal(size=(128, 2))
    for method in ("taylor", "refine"):
        solution = _solve(matrix, right, _inv(0.01), method=method)
        assert not solution.converged.any()
        assert (solution.residual > 2.0**-16).all()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 24),
    condition=st.floats(1.0, 1e5),
    scale=st.sampled_from([1e-30, 1e-6, 1.0, 1e8, 1e30]),
    method=st.sampled_from(["single", "taylor", "refine", "fcg", "auto"]),
    sigma=st.sampled_from([0.0, 0.02]),
)
def test_a_residual_is_what_float64_says_it_is(seed, n, condition, scale, method, sigma):
    matrix = _spd(n, condition, seed) * scale
    right = np.random.default_rng(seed).normal(size=(n, 2))
    solution = _solve(matrix, right, _inv(sigma), method=method, **_rounds(method, 30))
    with np.errstate(all="ignore"):
        true = np.linalg.norm(right - matrix @ solution.x, axis=0) / np.linalg.norm(right, axis=0)
    shown = np.where(np.isfinite(true), true, np.inf)
    np.testing.assert_allclose(solution.residual, shown, rtol=1e-6, atol=1e-12)
    assert not (solution.converged & (solution.residual > 2.0**-15)).any()


def test_a_zero_right_hand_side_has_the_zero_answer():
    solution = _solve(_spd(8, 3.0), np.zeros((8, 2)), method="fcg")
    assert not solution.x.any()
    assert solution.converged.all()


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.zeros((0, 0)), "at least 1x1"),
        (np.ones((2, 3)), "square"),
        (np.array([[1.0, np.nan], [np.nan, 1.0]]), "finite"),
        (np.array([[1.0, 0.5], [0.2, 1.0]]), "symmetric"),
        (np.array([[1.0, 0.0], [0.0, 0.0]]), "positive definite"),
    ],
)
def test_matrices_that_cannot_be_solved_with_are_refused(matrix, message):
    with pytest.raises(DataError, match=message):
        prepare(matrix, LOSSLESS, _inv(), SCHEMES.load({}))


@pytest.mark.parametrize("method", ["single", "taylor", "refine", "fcg", "cg", "auto"])
def test_one_by_one_and_no_right_hand_sides_are_solved(method):
    solution = _solve(np.array([[4.0]]), np.array([[2.0, -6.0]]), method=method, target_bits=6)
    np.testing.assert_allclose(solution.x, [[0.5, -1.5]], rtol=2.0**-6)
    assert solution.converged.all()
    none = _solve(_spd(5, 3.0), np.zeros((5, 0)), method=method)
    assert none.x.shape == (5, 0)
    assert none.counts.inv_ops == 0


@pytest.mark.parametrize("right", [np.ones(4), np.ones((3, 1)), np.full((4, 1), np.inf)])
def test_right_hand_sides_that_do_not_fit_are_refused(right):
    with pytest.raises(DataError, match="right-hand sides"):
        _solve(_spd(4, 2.0), right)


@pytest.mark.parametrize("method", ["taylor", "refine", "fcg", "auto"])
def test_blocks_over_several_arrays_are_solved_by_any_method(method):
    matrix = _spd(120, 8.0)
    right = np.random.default_rng(12).normal(size=(120, 3))
    solution = _solve(matrix, right, _inv(size=32), method=method)
    assert solution.converged.all()
    exact = scipy.linalg.solve(matrix, right, assume_a="pos")
    assert np.linalg.norm(solution.x - exact) / np.linalg.norm(exact) < 8.0 * 2.0**-16
    # Two halvings: nine settlings for every application.
    assert solution.counts.inv_ops % 9 == 0


def test_a_matrix_whose_halves_cannot_be_separated_is_refused():
    matrix = np.ones((8, 8))
    with pytest.raises(DataError, match="singular"):
        _solve(matrix, np.ones((8, 1)), _inv(size=4), method="single")


def test_a_rank_deficient_matrix_never_gives_a_converged_wrong_answer():
    random = np.random.default_rng(8)
    half = random.normal(size=(20, 10))
    matrix = half @ half.T
    right = random.normal(size=(20, 3))
    solution = _solve(matrix, right, method="fcg")
    assert not solution.converged.any()


def _extremes(n=24):
    random = np.random.default_rng(11)

    def moments(rows):
        x = random.normal(size=(n, rows))
        return x @ x.T

    lopsided = random.normal(size=(n, n))
    return {
        "identity": np.eye(n),
        "ones": np.ones((n, n)),
        "nearly ones": np.ones((n, n)) + 1e-12 * np.eye(n),
        "rank 5": moments(5),
        "rank 1": moments(1),
        "wide": np.diag(np.geomspace(1e-100, 1e100, n)),
        "wider": np.diag(np.geomspace(1e-200, 1e200, n)),
        "huge": moments(50) * 1e300,
        "tiny": moments(50) * 1e-300,
        "denormal": moments(50) * 1e-310,
        "indefinite": lopsided + lopsided.T + 6 * np.eye(n),
        "one by one": np.array([[1e-320]]),
    }


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("method", ["single", "taylor", "refine", "fcg", "cg", "auto"])
@pytest.mark.parametrize("equilibrate", [True, False])
@pytest.mark.parametrize("name", list(_extremes()))
def test_extreme_matrices_never_give_a_wrong_answer_that_claims_to_be_right(
    name, equilibrate, method
):
    """Checked in extended precision, whose range holds every product."""
    matrix = _extremes()[name]
    n = len(matrix)
    device = {"opamp": OpAmpSpec(gain=1e4, offset_v=1e-3)}
    for size in (256, 8):
        for scale in (0.0, 1e-300, 1.0, 1e300):
            right = scale * np.random.default_rng(13).normal(size=(n, 2))
            settings = {"method": method, "equilibrate": equilibrate, **_rounds(method, 40)}
            try:
                solution = _solve(matrix, right, _inv(0.01, size=size, device=device), **settings)
            except DataError:
                continue
            x = solution.x[:, solution.converged].astype(np.longdouble)
            wide = right[:, solution.converged].astype(np.longdouble)
            left = np.sqrt(np.sum((wide - matrix.astype(np.longdouble) @ x) ** 2, axis=0))
            assert (left <= 2.0**-15.999 * np.sqrt(np.sum(wide**2, axis=0))).all()
