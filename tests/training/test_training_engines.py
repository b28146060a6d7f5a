"""Engines: what they compute, how far they are from exact, and what decides their errors."""

import dataclasses

import numpy as np
import pytest
from micro_batches import run_micro_batch
from training_networks import float_engine, network, samples

from repast_dist.analog import LOSSLESS, SCHEMES, AdcSpec, DeviceSpec, InvSpec, Reram, VmmSpec
from repast_dist.ground.errors import DataError, InversionError
from repast_dist.network.model import init_weights
from repast_dist.training import engines
from repast_dist.training.engines import Engine, make_engine
from repast_dist.training.optimizers.kfac import Kfac
from repast_dist.training.specs import EngineSpec
from repast_dist.training.step import load_weights

CNN = [{"kind": "conv", "outputs": 3, "kernel": 3, "padding": 1}, {"kind": "relu"},
       {"kind": "flatten"}, {"kind": "dense", "outputs": 3}]  # fmt: skip
ROLES = ("forward", "backward", "gradient", "factor", "inverse")


def engine(arithmetic: str, seed: int = 0, sigma: float = 0.01, **settings: int) -> Engine:
    device = DeviceSpec(
        cell=Reram(bits=4, programming_sigma=sigma, read_sigma=sigma),
        inv_cell=Reram(bits=8, programming_sigma=sigma),
    )
    spec = EngineSpec(**dict.fromkeys(ROLES, arithmetic), **settings)
    return make_engine(
        spec, seed, VmmSpec(device=device), InvSpec(device=device), LOSSLESS, SCHEMES.load({})
    )


def run(used: Engine, micro_batch: int = 0, step: int = 0):
    model = network(CNN)
    inputs, labels, numbers = samples(model)
    loaded = load_weights(model, init_weights(model, 0), used, step)
    return run_micro_batch(loaded, inputs, labels, numbers, micro_batch, Kfac())


def test_fixed_point_products_are_exact_on_their_grid() -> None:
    random = np.random.default_rng(0)
    integers = random.integers(-127, 128, (50, 20)).astype(float)
    rows = random.integers(-127, 128, (30, 50)).astype(float)
    integers[0, 0], rows[0, 0] = 127, 127
    product = engine("fixed", fixed_bits=8).load("forward", integers * 0.5, ("w",))
    np.testing.assert_array_equal(product.multiply(rows * 0.25, ()), rows @ integers / 8)


@pytest.mark.parametrize("bits", [2, 4, None])
@pytest.mark.parametrize("arithmetic", ["fixed", "analog"])
def test_factors_are_driven_by_inputs_of_their_own_bits(arithmetic: str, bits: int | None) -> None:
    """Cells hold what they hold for gradients; what drives them is rounded to a power of two."""
    random = np.random.default_rng(0)
    held = random.integers(-127, 128, (40, 20)).astype(float)
    held[0, 0] = 127
    ideal = dataclasses.replace(
        engine(arithmetic, sigma=0.0, fixed_bits=8),
        vmm=dataclasses.replace(LOSSLESS, weight_bits=8, input_bits=8),
        factor_bits=bits,
    )
    loaded = ideal.load("gradient", held, ("activations", 0, "layer"))
    rows = random.uniform(-0.85, 0.85, (30, 40))
    rows[0, 0] = 0.85
    for role, used in (("gradient", 8), ("factor", 8 if bits is None else bits)):
        step = 2.0 ** np.ceil(np.log2(0.85 / (2 ** (used - 1) - 1)))
        rounded = np.rint(rows / step) * step
        found = loaded.serving(role).multiply(rows, (role,))
        np.testing.assert_allclose(found, rounded @ held, rtol=0, atol=1e-9)
        alone = ideal.load(role, held, ("activations", 0, "layer")).multiply(rows, (role,))
        np.testing.assert_array_equal(alone, found)


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_fixed_point_error_halves_with_every_bit(bits: int) -> None:
    random = np.random.default_rng(0)
    matrix, rows = random.uniform(-1, 1, (64, 32)), random.uniform(-1, 1, (100, 64))
    result = engine("fixed", fixed_bits=bits).load("forward", matrix, ()).multiply(rows, ())
    step = 1.0 / (2 ** (bits - 1) - 1)
    # Inputs up to 1 take the next power of two.
    of_rows = 2.0 ** (2 - bits)
    # Rounding of both operands: each uniform within half a step, variance step^2 / 12.
    expected = np.sqrt(64 * (step**2 + of_rows**2) / 12 / 3)
    assert np.std(result - rows @ matrix) == pytest.approx(expected, rel=0.1)


def test_float_solver_reports_the_true_residual() -> None:
    random = np.random.default_rng(0)
    root = random.standard_normal((20, 20))
    block, right = root @ root.T + np.eye(20), random.standard_normal((20, 3))
    solution = float_engine().block_solver(block, ("soi",)).solve(right)
    np.testing.assert_allclose(block @ solution.x, right, atol=1e-10)
    assert solution.residual.max() < 1e-12
    assert solution.converged.all()


def test_fixed_solver_loses_digits_and_says_so() -> None:
    random = np.random.default_rng(0)
    root = random.standard_normal((20, 20))
    block, right = root @ root.T + np.eye(20), random.standard_normal((20, 3))
    residuals = []
    for bits in (8, 16):
        solver = engine("fixed", fixed_inverse_bits=bits).block_solver(block, ("soi",))
        solution = solver.solve(right)
        actual = np.linalg.norm(right - block @ solution.x, axis=0) / np.linalg.norm(right, axis=0)
        np.testing.assert_allclose(solution.residual, actual)
        residuals.append(actual.max())
    assert residuals[0] > 50 * residuals[1]


@pytest.mark.parametrize("arithmetic", ["float64", "analog"])
def test_an_indefinite_block_is_refused(arithmetic: str) -> None:
    with pytest.raises((InversionError, DataError), match="positive definite"):
        engine(arithmetic).block_solver(-np.eye(3), ("soi",))


def test_a_matrix_that_is_not_finite_is_refused_with_its_address() -> None:
    with pytest.raises(DataError, match="weights/3/conv1"):
        float_engine().load("forward", np.array([[np.nan]]), ("weights", 3, "conv1"))


def test_analog_training_quantities_are_near_the_exact_ones() -> None:
    exact, analog = run(float_engine()), run(engine("analog", sigma=0.0))
    assert analog.loss_sum == pytest.approx(exact.loss_sum, rel=0.02)
    for name, gradient in exact.gradients.items():
        error = np.linalg.norm(analog.gradients[name] - gradient) / np.linalg.norm(gradient)
        assert 0 < error < 0.05, name
    for key, factor in exact.factors.items():
        error = np.linalg.norm(analog.factors[key] - factor) / np.linalg.norm(factor)
        assert 0 < error < 0.05, key


def test_analog_results_depend_on_the_address_alone() -> None:
    """Another engine object, or products done before, change nothing: noise has an address."""
    fresh = run(engine("analog"))
    used = engine("analog")
    run(used, micro_batch=1)
    again = run(used)
    np.testing.assert_equal(dataclasses.asdict(again), dataclasses.asdict(fresh))


def test_read_noise_does_not_depend_on_what_an_array_read_before() -> None:
    used = engine("analog")
    product = used.load("forward", np.eye(4), ("weights", 0, "a"))
    rows = np.arange(8.0).reshape(2, 4)
    first = product.multiply(rows, ("x", 0))
    other = product.multiply(rows, ("x", 1))
    np.testing.assert_array_equal(product.multiply(rows, ("x", 0)), first)
    assert not np.array_equal(first, other)


def test_programming_noise_changes_with_step_and_seed() -> None:
    losses = {run(engine("analog", seed), step=step).loss_sum for seed in (0, 1) for step in (0, 1)}
    assert len(losses) == 4


def test_gradient_and_factor_share_one_set_of_programmed_activations(monkeypatch) -> None:
    from repast_dist.training import engines

    addresses = []

    def note(matrix, spec, seed, *address):
        addresses.append(address)
        return program(matrix, spec, seed, *address)

    def note_each(matrices, spec, seed, each):
        addresses.extend(each)
        return program_each(matrices, spec, seed, each)

    program, program_each = engines.program_vmm, engines.program_each
    monkeypatch.setattr(engines, "program_vmm", note)
    monkeypatch.setattr(engines, "program_each", note_each)
    run(engine("analog"))
    assert addresses.count(("activations", 0, "conv1", 0)) == 1
    assert len(addresses) == len(set(addresses))


def test_the_first_layer_has_no_transposed_copy() -> None:
    model = network(CNN)
    loaded = load_weights(model, init_weights(model, 0), float_engine(), 0)
    assert set(loaded.forward) == {"conv1", "dense1"}
    assert set(loaded.backward) == {"dense1"}


def test_micro_batches_add_up_to_the_batch() -> None:
    model = network(CNN)
    inputs, labels, numbers = samples(model, 6)
    loaded = load_weights(model, init_weights(model, 0), float_engine(), 0)
    whole = run_micro_batch(loaded, inputs, labels, numbers, 0, Kfac())
    parts = [
        run_micro_batch(loaded, inputs[p], labels[p], numbers[p], i, Kfac())
        for i, p in enumerate((slice(0, 2), slice(2, 6)))
    ]
    assert sum(p.loss_sum for p in parts) == pytest.approx(whole.loss_sum)
    for name, value in whole.gradients.items():
        np.testing.assert_allclose(sum(p.gradients[name] for p in parts), value, atol=1e-12)
    for key, value in whole.factors.items():
        np.testing.assert_allclose(sum(p.factors[key] for p in parts), value, atol=1e-12)


def test_evaluation_equals_the_loss_of_a_micro_batch() -> None:
    model = network(CNN)
    inputs, labels, numbers = samples(model, 7)
    loaded = load_weights(model, init_weights(model, 0), float_engine(), 0)
    result = run_micro_batch(loaded, inputs, labels, numbers, 0)
    total = loaded.evaluate(inputs, labels, chunk=3)
    assert (total.samples, total.correct) == (7, result.correct)
    assert total.loss_sum == pytest.approx(result.loss_sum)


def test_a_diverged_network_stops_with_advice() -> None:
    model = network(CNN)
    inputs, labels, numbers = samples(model)
    weights = {k: np.full_like(v, 1e38) for k, v in init_weights(model, 0).items()}
    loaded = load_weights(model, weights, float_engine(), 4)
    with np.errstate(all="ignore"), pytest.raises(DataError, match=r"step 4.*learning_rate"):
        run_micro_batch(loaded, inputs * 1e300, labels, numbers, 2)


def test_lossless_ideal_arrays_compute_the_fixed_point_result() -> None:
    """Ideal cells and a lossless ADC leave only the rounding of the operands."""
    spec = EngineSpec(**dict.fromkeys(ROLES, "analog"))
    ideal = VmmSpec(adc=AdcSpec(range="lossless"), weight_bits=8, input_bits=8)
    lossless = make_engine(spec, 0, ideal, InvSpec(), LOSSLESS, SCHEMES.load({}))
    digital = engine("fixed", fixed_bits=8)
    random = np.random.default_rng(0)
    matrix, rows = random.standard_normal((30, 6)), random.standard_normal((9, 30))
    results = [e.load("forward", matrix, ()).multiply(rows, ()) for e in (lossless, digital)]
    np.testing.assert_allclose(*results, rtol=1e-12)


@pytest.mark.parametrize(
    ("role", "per_step", "step", "writes"),
    [("forward", 1.0, 0, 1), ("forward", 1.0, 9, 10), ("gradient", 8.0, 9, 80)],
)
def test_arrays_wear_as_often_as_the_plan_writes_them(monkeypatch, role, per_step, step, writes):
    seen, program_vmm = [], engines.program_vmm

    def programming(matrix, spec, *address):
        seen.append(spec.use.writes)
        return program_vmm(matrix, spec, *address)

    monkeypatch.setattr(engines, "program_vmm", programming)
    cell = Reram(endurance_sigma=0.5)
    vmm = VmmSpec(device=DeviceSpec(cell=cell))
    schedule = engines.Schedule(weights=1.0, activations=8.0)
    engine = make_engine(EngineSpec(), 1, vmm, InvSpec(), vmm, SCHEMES.load({}), schedule)
    engine.load(role, np.eye(3), ("w", step, "layer"))
    assert seen == [writes]


@pytest.mark.parametrize(("interval", "step", "writes"), [(1, 4, 5), (10, 0, 1), (10, 30, 4)])
def test_inverting_arrays_wear_at_every_renewal(monkeypatch, interval, step, writes):
    seen = []
    monkeypatch.setattr(
        engines,
        "prepare",
        lambda block, vmm, inv, *rest, **_: seen.append((vmm.use.writes, inv.use.writes)),
    )
    device = DeviceSpec(inv_cell=Reram(endurance_sigma=0.5))
    vmm, inv = VmmSpec(device=device), InvSpec(device=device)
    schedule = engines.Schedule(inverses=1 / interval, products=1 / interval)
    engine = make_engine(EngineSpec(), 1, vmm, inv, vmm, SCHEMES.load({}), schedule)
    engine.block_solver(np.eye(3), ("soi", step, 0))
    assert seen == [(writes, writes)]
