"""Draws for read noise against the normal distribution."""

import numpy as np
import pytest
import scipy

from repast_dist.analog import DeviceSpec, InvSpec, Reram, VmmSpec, program_inv, program_vmm
from repast_dist.analog.arrays.fused import program_fused
from repast_dist.analog.kernels.noise import fill_normal, philox


def _rows(count, columns, key=20):
    out = np.empty((count, columns), np.float32)
    for number in range(count):
        fill_normal(np.uint64(key), number, out[number])
    return out.astype(np.float64)


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (
            (0xFFFFFFFF,) * 4,
            (0xFFFFFFFF, 0xFFFFFFFF),
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_words_are_those_published_with_random123(counter, key, words):
    """Philox4x32-10 of the known-answer vectors of Random123 (kat_vectors)."""
    whole = np.uint64(key[0] | key[1] << 32)
    assert tuple(map(int, philox(*map(np.uint32, counter), whole))) == words


@pytest.mark.parametrize("columns", [1, 2, 3, 5, 8])
def test_a_row_of_any_length_is_filled(columns):
    draws = _rows(2000, columns)
    assert scipy.stats.kstest(draws.ravel(), "norm").pvalue > 0.001


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
    spec = VmmSpec(device=DeviceSpec(cell=Reram(read_sigma=0.02)))
    array = program_vmm(w, spec, 1, "w")
    array.calibrate(x)
    np.testing.assert_array_equal(array.multiply(x).values[:7], array.multiply(x[:7]).values)


def _spd(n, seed):
    root = np.random.default_rng(seed).normal(size=(n, 4 * n))
    return root @ root.T / (4 * n) + 0.2 * np.eye(n)


def _inv_spec(sigma):
    """Fine converters and exact levels: what is left is the read noise."""
    return InvSpec(
        device=DeviceSpec(inv_cell=Reram(bits=8, read_sigma=sigma)), dac_bits=24, adc_bits=24
    )


def test_read_noise_of_an_inversion_equals_noise_drawn_for_every_cell():
    """Outputs against solves with every cell of every pair disturbed (Kolmogorov-Smirnov)."""
    n, sigma, count = 12, 2e-3, 1500
    matrix, random = _spd(n, 0), np.random.default_rng(1)
    array = program_inv(matrix, _inv_spec(sigma), 3, "noise")
    right = random.normal(size=n)
    # Inputs that differ by nothing but their last bits draw independent noise.
    many = right[:, None] * (1.0 + 1e-5 * random.normal(size=(n, count)))
    quiet = np.linalg.solve(array.held, many)
    ours = array.solve(many) - quiet
    swing = sigma * np.abs(matrix).max()
    per_cell = np.empty((n, count))
    for draw in range(count):
        disturbed = array.held + swing * random.normal(size=(2, n, n)).sum(axis=0)
        per_cell[:, draw] = np.linalg.solve(disturbed, many[:, draw]) - quiet[:, draw]
    for k in range(0, n, 3):
        assert scipy.stats.ks_2samp(ours[k], per_cell[k]).pvalue > 0.001


def test_read_noise_of_a_fused_inversion_equals_noise_drawn_for_every_cell():
    n, held, sigma, count = 10, 6, 2e-3, 1500
    random = np.random.default_rng(2)
    rows, diagonal = random.normal(size=(n, held)) / np.sqrt(held), np.full(n, 0.5)
    quiet_array = program_fused(rows, diagonal, _inv_spec(0.0), 3, "noise")
    noisy_array = program_fused(rows, diagonal, _inv_spec(sigma), 3, "noise")
    many = random.normal(size=(n, 1)) * (1.0 + 1e-5 * random.normal(size=(n, count)))
    ours = noisy_array.solve(many) - quiet_array.solve(many)
    swing, shape = sigma * np.abs(rows).max(), (2, 2, n, held)
    per_cell = np.empty((n, count))
    for draw in range(count):
        forth, back = rows + swing * random.normal(size=shape).sum(axis=0)
        clean = np.linalg.solve(rows @ rows.T + np.diag(diagonal), many[:, draw])
        per_cell[:, draw] = np.linalg.solve(forth @ back.T + np.diag(diagonal), many[:, draw])
        per_cell[:, draw] -= clean
    for k in range(0, n, 3):
        assert scipy.stats.ks_2samp(ours[k], per_cell[k]).pvalue > 0.001


def test_read_noise_of_an_inversion_does_not_depend_on_order_or_company():
    array = program_inv(_spd(9, 4), _inv_spec(0.01), 5, "noise")
    right = np.random.default_rng(6).normal(size=(9, 7))
    together = array.solve(right)
    alone = np.hstack([array.solve(right[:, k : k + 1]) for k in (6, 5, 4, 3, 2, 1, 0)])
    # But for the last bits of the linear algebra.
    np.testing.assert_allclose(alone[:, ::-1], together, rtol=1e-6)
    assert not np.allclose(together, np.linalg.solve(array.held, right), rtol=1e-4)
