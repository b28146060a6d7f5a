"""Inverse fourth roots as sums of inverses, against SciPy's power of a matrix."""

import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
from training_networks import float_engine

from repast_dist.ground.errors import DataError
from repast_dist.training.matrices import EngineUnit
from repast_dist.training.optimizers.rational_roots import (
    error_bound,
    rational_fourth_root,
    rational_terms,
)


def _unit(where: str = "digital") -> EngineUnit:
    return EngineUnit(where, float_engine(), 0, "one")


def _matrix(size: int, least: float, most: float) -> np.ndarray:
    """Return a symmetric matrix with eigenvalues from one number to the other."""
    q, _ = np.linalg.qr(np.random.default_rng(7).standard_normal((size, size)))
    return (q * np.geomspace(least, most, size)) @ q.T


@pytest.mark.parametrize("poles", [1, 2, 3, 5, 8, 12])
@pytest.mark.parametrize(("least", "most"), [(0.03, 1.03), (2.0, 2.0), (1e-4, 3.0), (5.0, 900.0)])
def test_a_root_is_as_near_as_its_bound_says_and_no_nearer(least, most, poles):
    """In the spectral norm, the error is that of the worst eigenvalue."""
    if error_bound(least, most, poles) > 0.1:
        with pytest.raises(DataError, match=rf"{poles} inverses may be off by"):
            rational_fourth_root(_unit(), _matrix(12, least, most), least, most, poles, "root")
        return
    matrix = _matrix(12, least, most)
    found = rational_fourth_root(_unit(), matrix, least, most, poles, "root")
    wanted = scipy.linalg.fractional_matrix_power(matrix, -0.25)
    off = np.linalg.norm(scipy.linalg.sqrtm(scipy.linalg.sqrtm(matrix)) @ (found - wanted), 2)
    bound = error_bound(least, most, poles)
    assert off <= bound + 1e-12
    assert off >= 0.5 * bound - 1e-12


def test_enough_inverses_give_all_digits():
    matrix = _matrix(20, 1e-3, 10.0)
    found = rational_fourth_root(_unit(), matrix, 1e-3, 10.0, 40, "root")
    wanted = scipy.linalg.fractional_matrix_power(matrix, -0.25)
    np.testing.assert_allclose(found, wanted, rtol=1e-11, atol=1e-12)


def test_each_inverse_is_worth_a_constant_factor():
    bounds = [error_bound(0.01, 1.0, poles) for poles in range(4, 12)]
    ratios = np.array(bounds[1:]) / bounds[:-1]
    np.testing.assert_allclose(ratios, ratios[-1], rtol=0.02)
    pole = np.exp(0.75j * np.pi) * 100.0**0.125
    assert ratios[-1] == pytest.approx(abs((1 + pole) / (1 - pole)) ** 2, rel=1e-3)


def test_the_terms_are_those_of_the_integral():
    """Shifts and weights are positive, and the sum is what quadrature makes of the integral."""
    identity, terms = rational_terms(0.5, 2.0, 10)
    assert identity > 0
    assert all(shift > 0 and weight > 0 for shift, weight in terms)
    for value in (0.5, 1.0, 2.0):
        whole, _ = scipy.integrate.quad(lambda s, a=value: s**2 / (s**4 + a), -np.inf, np.inf)
        found = identity + sum(weight / (shift + value) for shift, weight in terms)
        assert found == pytest.approx(np.sqrt(2.0) / np.pi * whole, rel=1e-6)


def test_arrays_and_the_digital_unit_find_the_same_inverse_where_nothing_is_analog():
    matrix = _matrix(9, 0.1, 1.0)
    roots = [
        rational_fourth_root(_unit(where), matrix, 0.1, 1.0, 4, "root")
        for where in ("arrays", "digital")
    ]
    np.testing.assert_allclose(roots[0], roots[1], rtol=1e-12)
    with pytest.raises(DataError, match="not positive definite"):
        _unit().inverse(-matrix, "minus")
