"""Inverting circuits in time: when they settle, whether they do, and what an early reading is."""

import dataclasses
import os
from pathlib import Path

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
    program_inv,
)
from repast_dist.analog.arrays.fused import program_fused
from repast_dist.analog.arrays.held import hold, regularising_shift
from repast_dist.analog.deflation import find_deflation
from repast_dist.analog.product import Product
from repast_dist.analog.specs import VariationSpec

FACTORS = Path(__file__).parents[1] / "oracles" / "analog" / "factors.npz"


def _inv(sigma=0.01, bits=8, gain=1e4, gbw_hz=1e8, second_pole_hz=None, **more):
    cell = Reram(bits=bits, programming_sigma=sigma, g_on_siemens=35e-6, g_off_siemens=0.5e-6)
    opamp = OpAmpSpec(gain=gain, gbw_hz=gbw_hz, second_pole_hz=second_pole_hz)
    device = DeviceSpec(inv_cell=cell, opamp=opamp)
    return InvSpec(device=device, size=1024, **more)


def _spd(n, condition, seed=0):
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))
    return (q * np.geomspace(1.0, 1.0 / condition, n)) @ q.T


def _factor(condition):
    """Return the A factor of a layer of rectified activations, 256 wide, with damping."""
    stored = np.load(FACTORS)["fashion_cnn/dense1/A/256"]
    matrix = np.zeros((256, 256))
    matrix[np.triu_indices(256)] = stored
    matrix += np.triu(matrix, 1).T
    return matrix + np.linalg.eigvalsh(matrix)[-1] / condition * np.eye(256)


@pytest.mark.parametrize("n", [3, 12, 40, 100])
@pytest.mark.parametrize("condition", [3.0, 100.0, 1e5])
@pytest.mark.parametrize("second_pole_hz", [None, 3e8, 3e7])
def test_the_rate_of_a_loop_is_that_of_its_slowest_eigenvalue(n, condition, second_pole_hz):
    spec = _inv(second_pole_hz=second_pole_hz)
    circuit = program_inv(_spd(n, condition), spec, 2, "x").circuit
    slowest = np.linalg.eigvals(circuit.loop.states.astype(np.float64)).real.min()
    assert circuit.rate == pytest.approx(slowest, rel=0.02, abs=2e-5)


@pytest.mark.parametrize("n", [20, 130])
@pytest.mark.parametrize("second_pole_hz", [None, 2.2e8])
def test_what_is_left_of_states_is_the_exponential_of_their_matrix(n, second_pole_hz):
    """In single precision, for few states and for many, against SciPy in float64."""
    loop = program_inv(_spd(n, 30.0), _inv(second_pole_hz=second_pole_hz), 2, "x").circuit.loop
    for cycles in (0.5, 4.0):
        expected = scipy.linalg.expm(-2.0 * np.pi * cycles * loop.states.astype(np.float64))
        np.testing.assert_allclose(loop.left_of_all(cycles), expected, atol=1e-4)
    early = loop.missing(12.0, loop.left_of_all(4.0))
    np.testing.assert_allclose(early, loop.missing(12.0), atol=1e-4)


@pytest.mark.parametrize("n", [12, 40, 130])
@pytest.mark.parametrize("second_pole_hz", [1e12, 1e14])
def test_an_amplifier_with_a_far_second_pole_settles_as_one_without(n, second_pole_hz):
    rates = [
        program_inv(_spd(n, 50.0), _inv(second_pole_hz=hertz), 2, "x").circuit.rate
        for hertz in (None, second_pole_hz)
    ]
    # Their eigenvalues differ by less than 1e-5; of many states they are found by iteration.
    assert rates[0] == pytest.approx(rates[1], rel=5e-4)


@pytest.mark.parametrize("second_pole_hz", [2e8, 7e8, 1e9, 1e11])
def test_rates_with_near_and_far_poles_are_found_to_a_thousandth(second_pole_hz):
    circuit = program_inv(_spd(60, 50.0), _inv(second_pole_hz=second_pole_hz), 2, "x").circuit
    slowest = np.linalg.eigvals(circuit.loop.states.astype(np.float64)).real.min()
    assert circuit.rate == pytest.approx(slowest, rel=1e-3)


def test_a_loop_with_a_second_pole_solves_the_quadratic_of_every_mode_of_one_without():
    """``s (1 + s / p) + d s / p + k = 0`` for all k of the loop with one pole, d = 1 / a0."""
    gain, pole = 100.0, 0.5
    bare, whole = (
        program_inv(_spd(12, 30.0), _inv(gain=gain, second_pole_hz=hertz), 2, "x").circuit.loop
        for hertz in (None, pole * 1e8)
    )
    modes = np.linalg.eigvals(bare.matrix.astype(np.float64))
    roots = [np.roots([1 / pole, 1 + 1 / (gain * pole), mode]) for mode in modes]
    slowest = -np.concatenate(roots).real.max()
    assert np.linalg.eigvals(whole.states.astype(np.float64)).real.min() == pytest.approx(
        slowest, rel=1e-5
    )


def test_a_slow_second_pole_makes_a_loop_oscillate_that_is_stable_without():
    stable = [
        program_inv(_spd(64, 3.0), _inv(second_pole_hz=hertz), 2, "x").stable
        for hertz in (None, 1e9, 1e6)
    ]
    assert stable == [True, True, False]


def test_a_second_pole_without_a_first_one_is_refused():
    with pytest.raises(ValueError, match="gbw_hz"):
        OpAmpSpec(second_pole_hz=1e8)


@pytest.mark.parametrize("second_pole_hz", [None, 1.5e8, 5e7])
@pytest.mark.parametrize("read_cycles", [2.0, 10.0])
def test_outputs_are_those_of_the_differential_equations_when_they_are_read(
    read_cycles, second_pole_hz
):
    """Every amplifier and inverter integrates the voltage at its input, by SciPy."""
    n, gain = 9, 200.0
    matrix, right = _spd(n, 10.0), np.random.default_rng(1).normal(size=n)
    fine = {"dac_bits": 24, "adc_bits": 24, "read_cycles": read_cycles}
    spec = _inv(gain=gain, second_pole_hz=second_pole_hz, **fine)
    cells = hold(matrix, spec, 3, "x")

    def slope(_, state):
        """Of outputs and inverters, and of the stages that their second poles make them follow."""
        first = state if second_pole_hz is None else state[2 * n :]
        outputs, inverted = state[:n], state[n : 2 * n]
        change = np.empty(2 * n)
        for k in range(n):
            current = cells.positive[k] @ outputs + cells.negative[k] @ inverted - right[k]
            at_input = current / (cells.positive[k].sum() + cells.negative[k].sum())
            change[k] = -2 * np.pi * (at_input + first[k] / gain)
            at_inverter = (outputs[k] + inverted[k]) / 2
            change[n + k] = -2 * np.pi * (at_inverter + first[n + k] / gain)
        if second_pole_hz is None:
            return change
        follows = 2 * np.pi * second_pole_hz / 1e8 * (first - state[: 2 * n])
        return np.concatenate([follows, change])

    start = np.zeros(2 * n if second_pole_hz is None else 4 * n)
    end = scipy.integrate.solve_ivp(slope, (0, read_cycles), start, rtol=1e-10, atol=1e-12).y[
        :n, -1
    ]
    read = program_inv(matrix, spec, 3, "x").solve(right[:, None])[:, 0]
    np.testing.assert_allclose(read, end, rtol=0, atol=1e-6 * np.abs(end).max())


@pytest.mark.parametrize("condition", [3.0, 30.0])
def test_settled_outputs_are_within_half_a_step_of_the_converter(condition):
    settled = program_inv(_spd(24, condition), _inv(), 4, "x")
    cycles = settled.settling_cycles
    lacking = settled.circuit.loop.missing(cycles)
    answers = np.linalg.solve(
        settled.circuit.loop.at_rest, np.random.default_rng(5).normal(size=(24, 200))
    )
    left = np.abs(lacking @ answers).max(axis=0) / np.abs(answers).max(axis=0)
    # The bound is on every mode; modes that are not orthogonal may add up to a little more.
    assert left.max() < 2.0 / 254
    earlier = settled.circuit.loop.missing(cycles / 4)
    assert (np.abs(earlier @ answers).max(axis=0) / np.abs(answers).max(axis=0)).max() > 1.0 / 254


def _blocks(count, seed):
    """Yield random blocks with arrays that are more or less off, and how to solve them."""
    random = np.random.default_rng(seed)
    for number in range(count):
        n = int(random.integers(4, 20))
        rows = random.normal(size=(n, int(random.integers(n // 4 + 1, 2 * n))))
        if number % 2:
            rows = np.maximum(rows, 0.0)
        matrix = rows @ rows.T / rows.shape[1] + 10 ** random.uniform(-5, -2) * np.eye(n)
        inv = _inv(float(random.choice([0.0, 0.01, 0.05])), int(random.integers(3, 9)))
        method = str(random.choice(["single", "refine", "fcg", "taylor"]))
        settings = {"method": method, "target_bits": 10}
        if number % 3:
            settings["array_regularisation"] = float(random.choice([0.0, 0.3]))
        yield number, matrix, inv, SCHEMES.load(settings), random.normal(size=(n, 2))


def _solve_all(count, seed):
    """Check that nothing is solved on unstable arrays, and return how many there were."""
    unstable = 0
    for number, matrix, inv, scheme, right in _blocks(count, seed):
        solver = prepare(matrix, LOSSLESS, inv, scheme, number, "block")
        if number % 10 == 0:
            loop = solver.array.circuit.loop
            slowest = np.linalg.eigvals(loop.matrix.astype(np.float64)).real.min()
            assert abs(slowest) < 1e-5 or solver.stable == (slowest > 0)
        solution = solver.solve(right)
        assert solution.stable == solver.stable
        if not solver.stable:
            unstable += 1
            assert not solution.converged.any()
            assert not solution.usable
            assert not solution.x.any()
            assert solution.counts.inv_ops == 0
            assert solution.counts.settling_s == 0
    return unstable


def test_nothing_is_solved_on_an_unstable_array():
    assert 8 < _solve_all(120, 1) < 100


@pytest.mark.slow
def test_of_many_blocks_none_is_solved_on_an_unstable_array():
    """Of 10,000 with ``REPAST_FUZZ=full``."""
    count = 10_000 if os.environ.get("REPAST_FUZZ") == "full" else 1_500
    assert _solve_all(count, 2) > 0.05 * count


@pytest.mark.parametrize("slices", [1, 2])
@pytest.mark.parametrize("sigma", [0.0, 0.01])
def test_arrays_of_default_settings_are_stable_and_settle_soon(sigma, slices):
    for seed in range(3):
        solver = prepare(
            _factor(1e3),
            LOSSLESS,
            _inv(sigma),
            SCHEMES.load({"array_slices": slices, "array_read_after": "settled"}),
            seed,
            "x",
        )
        assert solver.stable
        assert solver.array.settling_cycles < 120


def test_what_takes_the_place_of_dominant_directions_makes_their_modes_fast():
    matrix = _factor(100.0)
    scaling = 1 / np.sqrt(np.diag(matrix))
    matrix = scaling[:, None] * matrix * scaling
    deflation, _, _ = find_deflation(matrix, Product.of((matrix,), 32, LOSSLESS), 8, 0, "x")
    spec = _inv(0.01, slices=2)
    bare = matrix - deflation.image @ deflation.core @ deflation.image.T
    with_it, without = (
        program_inv(left + 0.02 * np.trace(left) / 256 * np.eye(256), spec, 1, "x").circuit.rate
        for left in (deflation.remainder(matrix), (bare + bare.T) / 2)
    )
    assert with_it > 4 * without > 0


@pytest.mark.parametrize(("sigma", "bits"), [(0.01, 8), (0.0, 8), (0.03, 6)])
@pytest.mark.parametrize("rectified", [True, False])
def test_the_regularisation_is_the_norm_of_the_error_beside_dominant_directions(
    sigma, bits, rectified
):
    matrix = _factor(1e3) if rectified else _spd(256, 10.0)
    spec = _inv(sigma, bits)
    shift = regularising_shift(matrix, 1.0, spec, 7, "x")
    shifted = matrix + shift * np.eye(256)
    error = hold(shifted, spec, 7, "x").matrix - shifted
    # Where cells cannot leave their range, errors have a mean along the dominant directions.
    others = np.linalg.eigh(matrix)[1][:, :-4]
    norm = np.linalg.norm(others.T @ (error + error.T) @ others / 2, 2)
    assert 0.6 * shift < norm < 1.3 * shift


@pytest.mark.parametrize("slices", [1, 2])
def test_conjugate_gradients_make_up_for_an_early_reading(slices):
    matrix, right = _factor(300.0), np.random.default_rng(6).normal(size=(256, 4))

    def rounds(after):
        scheme = SCHEMES.load({"array_read_after": after, "array_slices": slices})
        solution = prepare(matrix, LOSSLESS, _inv(), scheme, 2, "x").solve(right)
        assert solution.converged.all()
        return solution.iterations.mean()

    assert rounds(12.0) <= rounds("settled") + 3
    assert rounds(1.0) > rounds("settled")


def test_settlings_take_the_time_that_is_read_after():
    matrix, right = _spd(30, 10.0), np.random.default_rng(7).normal(size=(30, 5))
    solution = prepare(matrix, LOSSLESS, _inv(), SCHEMES.load({}), 2, "x").solve(right)
    assert solution.counts.settling_s == pytest.approx(solution.counts.inv_ops * 12 / 1e8)
    single = SCHEMES.load({"method": "single"})
    solver = prepare(matrix, LOSSLESS, _inv(), single, 2, "x")
    each = np.log(254) / (2 * np.pi * 1e8 * solver.array.circuit.rate)
    assert solver.solve(right).counts.settling_s == pytest.approx(5 * each)
    at_once = prepare(matrix, LOSSLESS, _inv(gbw_hz=None), single, 2, "x").solve(right)
    assert at_once.counts.settling_s == 0


def test_a_fused_loop_oscillates_without_slower_outer_amplifiers():
    rows = np.maximum(np.random.default_rng(8).normal(size=(64, 64)), 0) / 8
    device = _inv().device
    rates = []
    for compensation in (1.0, 100.0):
        opamp = dataclasses.replace(device.opamp, compensation=compensation)
        spec = dataclasses.replace(_inv(), device=dataclasses.replace(device, opamp=opamp))
        rates.append(program_fused(rows, np.full(64, 0.1), spec, 1, "x").circuit.rate)
    assert rates[0] < 0 < rates[1] < 0.01


def _fused(shared, regularisation, seed):
    """Return a fused block whose cells share deviations, and the mean rounds of a solve with it."""
    random = np.random.default_rng(seed)
    n, held = (int(random.integers(8, 64)) for _ in range(2))
    rows = random.normal(size=(n, n)) @ random.normal(size=(n, held)) / np.sqrt(n)
    if seed % 2:
        rows = np.maximum(rows, 0.0)
    damping = 10 ** random.uniform(-4, -1) * np.sum(rows**2) / held / n
    spec = _inv()
    device = dataclasses.replace(spec.device, variation=VariationSpec(**shared))
    spec = dataclasses.replace(spec, device=device)
    scheme = SCHEMES.load({"method": "fcg", "array_regularisation": regularisation})
    solver = prepare(Rows(rows, damping), LOSSLESS, spec, scheme, seed, "x")
    return solver, solver.solve(random.normal(size=(n, 2))).iterations.mean()


@pytest.mark.slow
@pytest.mark.parametrize("shared", ["array_sigma", "row_sigma", "column_sigma"])
def test_deviations_that_cells_share_leave_fused_circuits_stable(shared):
    """What regularises them knows of single cells alone, and more of it takes more rounds."""
    rounds = []
    for seed in range(12):
        solver, few = _fused({shared: 0.1}, 1.0, seed)
        states = solver.array.circuit.loop.states.astype(np.float64)
        assert np.linalg.eigvals(states).real.min() > 0
        assert solver.stable
        rounds.append((few, _fused({shared: 0.1}, 4.0, seed)[1]))
    few, many = np.mean(rounds, axis=0)
    assert few < 0.9 * many


@pytest.mark.parametrize("shared", ["array_sigma", "row_sigma", "column_sigma"])
@pytest.mark.parametrize("deflated", [True, False])
def test_the_regularisation_knows_of_deviations_that_cells_share(deflated, shared):
    matrix = _spd(256, 10.0)
    if deflated:
        matrix = _factor(1e3)
        product = Product.of((matrix,), 32, LOSSLESS)
        deflation, _, _ = find_deflation(matrix, product, 16, 1, "x")
        matrix = deflation.remainder(matrix)
    plain = _inv(0.003)
    variation = VariationSpec(**{shared: 0.03})
    spec = dataclasses.replace(plain, device=dataclasses.replace(plain.device, variation=variation))
    shift = regularising_shift(matrix, 1.0, spec, 7, "x")
    shifted = matrix + shift * np.eye(256)
    others = np.linalg.eigh(matrix)[1][:, :-4]
    norms = []
    for seed in range(4):
        error = hold(shifted, spec, seed, "x").matrix - shifted
        norms.append(np.linalg.norm(others.T @ (error + error.T) @ others / 2, 2))
    assert 0.6 * shift < np.sqrt(np.mean(np.square(norms))) < 1.3 * shift
    assert shift > 1.2 * regularising_shift(matrix, 1.0, plain, 7, "x")
