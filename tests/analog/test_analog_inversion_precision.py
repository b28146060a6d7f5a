"""How far composed inversion reaches, on factors of real training and on random matrices."""

from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse.linalg
from scipy.sparse.linalg import cg

from repast_dist.analog import (
    LOSSLESS,
    SCHEMES,
    DeviceSpec,
    InvSpec,
    Reram,
    prepare,
    program_inv,
)
from repast_dist.analog.arrays.held import hold
from repast_dist.analog.deflation import find_deflation
from repast_dist.analog.product import Product

FACTORS = Path(__file__).parents[1] / "oracles" / "analog" / "factors.npz"


def _inv(sigma=0.0, bits=8, size=1024, **more):
    cell = Reram(bits=bits, programming_sigma=sigma)
    return InvSpec(device=DeviceSpec(inv_cell=cell), size=size, **more)


def _solve(matrix, right, inv=None, seed=1, **inversion):
    solver = prepare(matrix, LOSSLESS, inv or _inv(), SCHEMES.load(inversion), seed, "test")
    return solver.solve(right)


def _spd(n, condition, seed=0):
    random = np.random.default_rng(seed)
    q, _ = np.linalg.qr(random.normal(size=(n, n)))
    matrix = (q * np.geomspace(1.0, 1.0 / condition, n)) @ q.T
    return (matrix + matrix.T) / 2


def _rectified(n, condition, seed=0):
    random = np.random.default_rng(seed)
    rows = random.standard_normal((2 * n, n))
    for _ in range(3):
        rows = np.maximum(rows @ random.standard_normal((n, n)), 0)
    factor = rows.T @ rows / len(rows)
    return factor + np.linalg.eigvalsh(factor)[-1] / condition * np.eye(n)


def _factors():
    """Yield name, undamped factor, default damping and gradient of every stored factor."""
    stored = np.load(FACTORS)
    for name in stored.files:
        if name.endswith(("/gradient", "/damping")):
            continue
        gradient = stored[f"{name}/gradient"].astype(np.float64)
        n = len(gradient)
        matrix = np.zeros((n, n))
        matrix[np.triu_indices(n)] = stored[name]
        matrix = matrix + np.triu(matrix, 1).T
        yield name, matrix, float(stored[f"{name}/damping"]), gradient


def _damped_to(matrix, condition):
    largest = np.linalg.eigvalsh(matrix)[-1]
    return matrix + largest / condition * np.eye(len(matrix))


LARGE_FACTORS = ["fashion_mlp/dense1/A/264", "fashion_cnn/dense1/A/256"]


@pytest.mark.parametrize(("sigma", "bits"), [(0.0, 16), (0.01, 14)])
def test_factors_of_the_default_run_are_solved_in_a_few_rounds(sigma, bits):
    for name, matrix, damping, gradient in _factors():
        damped = matrix + damping * np.eye(len(matrix))
        solution = _solve(damped, gradient, _inv(sigma), target_bits=bits)
        assert solution.converged.all(), name
        exact = scipy.linalg.solve(damped, gradient, assume_a="pos")
        error = np.linalg.norm(solution.x - exact) / np.linalg.norm(exact)
        assert error < np.linalg.cond(damped) * 2.0**-bits, name
        assert solution.iterations.max() <= (6 if sigma == 0 else 9), name


@pytest.mark.parametrize("name", LARGE_FACTORS)
@pytest.mark.parametrize(
    ("sigma", "slices", "rounds"), [(0.0, 1, 7), (0.01, 1, 16), (0.0, 2, 6), (0.01, 2, 6)]
)
def test_badly_damped_factors_take_fewer_rounds_than_plain_preconditioning(
    name, sigma, slices, rounds
):
    """Plain flexible conjugate gradients take 16 rounds with ideal arrays and 44 with 1 % noise on
    a factor of rectified activations of this size and condition.
    """
    _, matrix, _, gradient = next(entry for entry in _factors() if entry[0] == name)
    solution = _solve(_damped_to(matrix, 1e4), gradient, _inv(sigma), array_slices=slices)
    assert solution.converged.all()
    assert solution.residual.max() <= 2.0**-16
    assert solution.iterations.max() <= rounds


@pytest.mark.parametrize("name", LARGE_FACTORS)
def test_taylor_and_refinement_diverge_where_conjugate_gradients_do_not(name):
    _, matrix, _, gradient = next(entry for entry in _factors() if entry[0] == name)
    damped = _damped_to(matrix, 1e4)
    for method in ("taylor", "refine"):
        solution = _solve(damped, gradient, _inv(0.01), method=method, max_iterations=100)
        # Units that are never active have no gradient.
        assert not solution.converged[gradient.any(axis=0)].any()
    assert _solve(damped, gradient, _inv(0.01), method="fcg").converged.all()


@pytest.mark.parametrize("kind", [_spd, _rectified])
@pytest.mark.parametrize(
    ("n", "condition"), [(32, 10.0), (128, 1e3), pytest.param(256, 1e4, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(("sigma", "bits"), [(0.0, 16), (0.01, 14)])
def test_conjugate_gradients_reach_their_bits(kind, n, condition, sigma, bits):
    _check_bits(kind(n, condition, seed=n), sigma, bits, size=1024)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [_spd, _rectified])
@pytest.mark.parametrize("size", [1024, 256])
@pytest.mark.parametrize(("sigma", "bits"), [(0.0, 16), (0.01, 14)])
def test_conjugate_gradients_reach_their_bits_on_blocks_of_1024(kind, size, sigma, bits):
    # Quarters of a matrix whose eigenvalues are spread evenly say little about it: 400 rounds, more
    # or less by the roundings of the machine's kernels.
    _check_bits(kind(1024, 1e4, seed=3), sigma, bits, size, max_iterations=500)


def _check_bits(matrix, sigma, bits, size, **inversion):
    right = np.random.default_rng(5).normal(size=(len(matrix), 3))
    solution = _solve(matrix, right, _inv(sigma, size=size), target_bits=bits, **inversion)
    true = np.linalg.norm(right - matrix @ solution.x, axis=0) / np.linalg.norm(right, axis=0)
    assert (true <= 2.0**-bits).all()
    assert solution.converged.all()


def test_plain_conjugate_gradients_take_as_many_rounds_as_scipys():
    matrix = _spd(80, 30.0)
    right = np.random.default_rng(6).normal(size=(80, 1))
    # Fewer bits of the products cost rounds: directions are less conjugate.
    solution = _solve(matrix, right, method="cg", equilibrate=False, product_bits=48)
    rounds = []
    scipy.sparse.linalg.cg(matrix, right[:, 0], rtol=2.0**-16, callback=lambda x: rounds.append(1))
    assert abs(int(solution.iterations[0]) - len(rounds)) <= 1
    assert solution.counts.inv_ops == 0
    assert solution.counts.vmm_ops == solution.iterations[0]


@pytest.mark.parametrize("method", ["fcg", "cg"])
def test_later_products_need_fewer_bits_by_what_the_residual_has_shrunk(method):
    """As many rounds, the target met, and passes left out: at most a bit for every halving."""
    settings = {"method": method, "target_bits": 12, "product_bits": 24}
    right = np.random.default_rng(2).standard_normal((60, 12))
    right[:, 3] = 0.0
    matrix = _rectified(60, 300.0)
    whole = _solve(matrix, right, _inv(0.01), **settings)
    fewer = _solve(matrix, right, _inv(0.01), relaxed_products=True, **settings)
    assert fewer.converged.all()
    assert (fewer.iterations <= whole.iterations + 1).all()
    exact = scipy.linalg.solve(matrix, right, assume_a="pos")
    left = np.linalg.norm(right - matrix @ fewer.x, axis=0)
    assert (left <= 2.0**-12 * np.linalg.norm(right, axis=0)).all()
    assert np.linalg.norm(fewer.x - exact) < 2.0**-12 * 300 * np.linalg.norm(exact)
    assert whole.counts.spared_passes == 0
    # A residual above the target has shrunk by fewer than twelve bits.
    rounds = fewer.iterations.sum()
    assert rounds < fewer.counts.spared_passes < 12 * rounds


def test_inversion_earns_most_of_the_rounds_of_plain_conjugate_gradients():
    _, matrix, _, gradient = next(entry for entry in _factors() if entry[0] == LARGE_FACTORS[0])
    damped = _damped_to(matrix, 1e4)
    plain = _solve(damped, gradient, method="cg", deflation=0)
    deflated = _solve(damped, gradient, method="cg")
    ours = _solve(damped, gradient, _inv(0.01), method="fcg")
    assert plain.converged.all()
    assert deflated.converged.all()
    assert deflated.iterations.mean() < plain.iterations.mean() / 1.5
    assert ours.iterations.mean() < plain.iterations.mean() / 4


def test_rounds_without_an_array_are_those_of_scipy_with_the_same_directions_taken_out():
    """SciPy's conjugate gradients in double precision, eigenvectors from LAPACK, on the scaled
    matrix; rounding to product bits and searching by three products cost next to nothing.
    """
    _, matrix, _, gradient = next(entry for entry in _factors() if entry[0] == LARGE_FACTORS[0])
    damped = _damped_to(matrix, 1e3)
    root = 1 / np.sqrt(np.diag(damped))
    scaled = root[:, None] * damped * root
    values, vectors = np.linalg.eigh(scaled)
    basis, core = vectors[:, -8:], np.diag(1 / values[-8:])
    away = np.eye(len(scaled)) - basis @ basis.T
    preconditioner = basis @ core @ basis.T + away / values[:-8].mean()
    rounds = []
    for column in gradient.T:
        taken = []
        cg(scaled, root * column, rtol=2.0**-12, M=preconditioner, callback=taken.append)
        rounds.append(len(taken))
    ours = _solve(damped, gradient, method="cg", target_bits=12)
    assert ours.converged.all()
    assert ours.iterations.mean() == pytest.approx(np.mean(rounds), rel=0.15)


def test_the_first_round_on_the_pieces_of_a_diagonal_is_the_answer_of_split_blocks():
    """Further rounds join them: by how many is how far couplings between pieces are heeded."""
    matrix, right = _rectified(96, 50.0), np.random.default_rng(1).normal(size=(96, 5))
    alone = np.zeros_like(right)
    for start in (0, 32, 64):
        piece = slice(start, start + 32)
        alone[piece] = np.linalg.solve(matrix[piece, piece], right[piece])
    # As long as it lowers the distance to the answer most.
    alone *= (right * alone).sum(axis=0) / (alone * (matrix @ alone)).sum(axis=0)
    plain = {"deflation": 0, "array_regularisation": 0.0, "array_read_after": "settled"}
    rounds = {"max_iterations": 1, "on_divergence": "use", "product_bits": 40}
    solution = _solve(matrix, right, _inv(size=32), method="fcg", **plain, **rounds)
    assert (solution.iterations == 1).all()
    difference = np.linalg.norm(solution.x - alone, axis=0) / np.linalg.norm(alone, axis=0)
    # Converters of the arrays have eight bits.
    assert difference.max() < 2.0**-6
    # Many rounds end at the answer of the whole block.
    joined = np.linalg.solve(matrix, right)
    assert np.linalg.norm(joined - alone) > 0.1 * np.linalg.norm(joined)


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_twenty_four_bits_from_three_bit_cells_in_ten_rounds(bits):
    """HP-INV (Nature Electronics 2025) reaches 24 bits of a 16 x 16 system in about 10 rounds with
    3-bit cells.
    """
    random = np.random.default_rng(9)
    rows = random.normal(size=(64, 16))
    matrix = rows.T @ rows / 64
    right = random.normal(size=(16, 8))
    limits = {"target_bits": 24, "product_bits": 40, "array_slices": 2 if bits == 3 else 1}
    solution = _solve(matrix, right, _inv(bits=bits), method="fcg", **limits)
    assert solution.converged.all()
    assert solution.residual.max() <= 2.0**-24
    assert solution.iterations.max() <= 10


def test_slices_and_copies_make_an_array_more_precise():
    """A second slice multiplies the relative errors; n copies divide noise by sqrt(n)."""
    matrix = _spd(64, 10.0)
    largest = np.abs(matrix).max()

    def error(**more):
        held = program_inv(matrix, _inv(0.01, **more), 3, "x").held
        return float(np.sqrt(np.mean((held - matrix) ** 2))) / largest

    one = error()
    assert error(slices=2) < 0.15 * one
    assert error(slices=3, read_backs=4096) < 0.02 * one
    assert 0.4 * one < error(copies=4) < 0.7 * one
    assert program_inv(matrix, _inv(slices=2, copies=4), 3, "x").cells == 8 * 2 * 64 * 64


@pytest.mark.parametrize(
    ("adc_bits", "read_backs", "read_sigma"), [(8, 16, 0.0), (6, 1, 0.0), (8, 4, 0.02)]
)
def test_what_slices_are_misread_to_hold_is_left(adc_bits, read_backs, read_sigma):
    """By hand: steps of the converter over a cell's range are off by a step over the root of 12,
    readings of cells by their noise, both cells of a pair alike, and a mean by less.
    """
    matrix = _spd(96, 10.0)
    cell = Reram(bits=8, programming_sigma=0.01, read_sigma=read_sigma)
    more = {"slices": 3, "adc_bits": adc_bits, "read_backs": read_backs}
    spec = InvSpec(device=DeviceSpec(inv_cell=cell), size=256, **more)
    held = hold(matrix, spec, 3, "x").matrix
    found = np.sqrt(np.mean((held - matrix) ** 2)) / np.abs(matrix).max()
    step = 1 / (2**adc_bits - 1)
    expected = np.sqrt(2 * (step**2 / 12 + read_sigma**2) / read_backs)
    assert found == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("slices", [1, 2])
@pytest.mark.parametrize(
    "faults", [{"stuck_on_rate": 1e-3}, {"stuck_off_rate": 1e-3}, {"read_sigma": 0.02}]
)
def test_faults_and_read_noise_cost_rounds_but_not_the_answer(faults, slices):
    _, matrix, damping, gradient = next(e for e in _factors() if e[0] == LARGE_FACTORS[0])
    cell = Reram(bits=8, programming_sigma=0.01, **faults)
    inv = InvSpec(device=DeviceSpec(inv_cell=cell), size=256)
    damped = matrix + damping * np.eye(len(matrix))
    faulty = _solve(damped, gradient, inv, array_slices=slices)
    sound = _solve(damped, gradient, _inv(0.01), array_slices=slices)
    assert faulty.converged.all()
    # A cell in a thousand that lacks what it should hold is hardly noticed.
    least = sound.iterations.mean() - (0.5 if "stuck_off_rate" in faults else 0.0)
    assert faulty.iterations.mean() > least


def test_deflation_with_the_exact_inverse_of_what_is_left_is_the_exact_inverse():
    matrix = _rectified(64, 1e3)
    deflation, _, _ = find_deflation(matrix, Product.of((matrix,), 40, LOSSLESS), 4, 0, "test")
    assert deflation is not None
    remainder = deflation.remainder(matrix)
    left = matrix - deflation.image @ deflation.core @ deflation.image.T
    assert np.abs(left @ deflation.basis).max() < 1e-6 * np.abs(left).max(), "nothing of U is left"
    inside = deflation.basis.T @ remainder @ deflation.basis
    np.testing.assert_allclose(inside, 2 * np.trace(left) / 64 * np.eye(4), rtol=1e-6, atol=1e-6)
    assert np.linalg.eigvalsh(remainder)[-1] < 0.2 * np.linalg.eigvalsh(matrix)[-1]
    right = np.random.default_rng(3).normal(size=(64, 2))
    weights, rest = deflation.split(right)
    x = deflation.join(weights, np.linalg.solve(remainder, rest))
    np.testing.assert_allclose(x, np.linalg.solve(matrix, right), rtol=1e-4, atol=1e-4)


def test_blocks_without_dominant_directions_are_left_as_they_are():
    q, _ = np.linalg.qr(np.random.default_rng(7).normal(size=(128, 128)))
    matrix = (q * np.linspace(1.0, 0.01, 128)) @ q.T
    deflation, counts, _ = find_deflation(matrix, Product.of((matrix,), 32, LOSSLESS), 8, 0, "test")
    assert deflation is None
    assert counts.vmm_ops > 0, "looking is not free"


def test_the_operations_of_a_solve_are_those_of_its_rounds():
    _, matrix, _, gradient = next(entry for entry in _factors() if entry[0] == LARGE_FACTORS[0])
    damped = _damped_to(matrix, 1e3)
    solution = _solve(damped, gradient, _inv(0.01))
    assert solution.counts.inv_ops == solution.iterations.sum()
    assert solution.counts.vmm_ops == solution.iterations.sum()
    # Where roundings of the products may have added up, the residual is made sure of.
    hard = _solve(_damped_to(matrix, 1e6), gradient, _inv(0.01))
    assert hard.counts.vmm_ops > hard.counts.inv_ops == hard.iterations.sum()
    refined = _solve(damped, gradient, _inv(), method="refine")
    assert refined.counts.inv_ops == refined.counts.vmm_ops == refined.iterations.sum()


def _suite(count):
    """Yield random blocks, cells and targets."""
    for number in range(count):
        random = np.random.default_rng(1000 + number)
        n = int(random.integers(4, 129))
        condition = 10 ** random.uniform(0.1, 4.5)
        kind = random.choice(["rectified", "geometric", "linear", "outliers"])
        q, _ = np.linalg.qr(random.normal(size=(n, n)))
        values = {
            "geometric": np.geomspace(1, 1 / condition, n),
            "linear": np.linspace(1, 1 / condition, n),
            "outliers": np.where(np.arange(n) < n // 20 + 1, 1, 1 / condition),
        }
        if kind == "rectified":
            matrix = _rectified(n, condition, number)
        else:
            matrix = (q * values[kind] * random.uniform(0.7, 1, n)) @ q.T
        inv = _inv(float(random.choice([0, 0.003, 0.01, 0.02])), int(random.choice([4, 6, 8])))
        target = int(random.choice([4, 6, 8, 14, 16, 20]))
        yield number, (matrix + matrix.T) / 2, random.normal(size=(n, 5)), inv, target


@pytest.mark.slow
def test_auto_takes_the_cheapest_method_that_converges():
    right_choices = cases = 0
    for number, matrix, right, inv, target in _suite(120):
        limits = {"target_bits": target, "product_bits": 40, "seed": number}
        operations = []
        for method in ("single", "taylor", "refine", "fcg"):
            tried = _solve(matrix, right, inv, method=method, **limits)
            if tried.converged.all():
                operations.append(tried.counts.inv_ops + tried.counts.vmm_ops)
        if not operations:
            continue
        chosen = _solve(matrix, right, inv, method="auto", **limits)
        cases += 1
        cheap = chosen.counts.inv_ops + chosen.counts.vmm_ops <= 1.05 * min(operations)
        right_choices += bool(chosen.converged.all()) and cheap
    assert cases >= 100
    assert right_choices >= 0.95 * cases
