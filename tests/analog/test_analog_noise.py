"""Draws for read noise against the normal distribution."""

import numpy as np
import pytest
import scipy.stats

from repast_dist.analog import CellSpec, DeviceSpec, VmmSpec, program_vmm
from repast_dist.analog.noise import fill_normal, row_key


def _rows(count, columns, key=20):
    out = np.empty((count, columns), np.float32)
    for number in range(count):
        fill_normal(np.uint64(row_key(np.uint64(key), number)), out[number])
    return out.astype(np.float64)


def test_draws_are_standard_normal():
    draws = _rows(4000, 257)
    assert scipy.stats.kstest(draws.ravel(), "norm").pvalue > 0.001
    # Sums of squares see the tails, and dependence within a row.
    assert scipy.stats.kstest((draws**2).sum(axis=1), "chi2", args=(257,)).pvalue > 0.001


@pytest.mark.parametrize("lag", [1, 2, 128])
def test_draws_within_and_between_rows_are_uncorrelated(lag):
    draws = _rows(3000, 256, key=3)
    bound = 4.0 / np.sqrt(draws.size)
    for function in (np.asarray, np.square):
        values = function(draws) - function(draws).mean()
        along = np.mean(values[:, lag:] * values[:, :-lag]) / values.var()
        across = np.mean(values[lag:] * values[:-lag]) / values.var()
        assert abs(along) < bound * 1.5
        assert abs(across) < bound * 1.5


def test_read_noise_does_not_depend_on_how_many_rows_follow():
    random = np.random.default_rng(0)
    w, x = random.normal(size=(40, 30)), random.normal(size=(3000, 40))
    x[0, 0] = 10.0
    spec = VmmSpec(device=DeviceSpec(cell=CellSpec(read_sigma=0.02)))
    array = program_vmm(w, spec, 1, "w")
    array.calibrate(x)
    np.testing.assert_array_equal(array.multiply(x)[:7], array.multiply(x[:7]))
