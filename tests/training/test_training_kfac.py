"""K-FAC's factors, damping and preconditioning against dense computations and theory."""

import numpy as np
import pytest
from micro_batches import run_micro_batch
from training_networks import float_engine, network, precondition, samples

from repast_dist.network.model import Model, init_weights
from repast_dist.network.node import Pass
from repast_dist.training import kfac
from repast_dist.training.block_state import updated_average
from repast_dist.training.losses import exact_errors, sampled_errors
from repast_dist.training.optimizers.kfac import Kfac
from repast_dist.training.step import MicroBatchResult, load_weights

DENSE = [{"kind": "flatten"}, {"kind": "dense", "outputs": 4}, {"kind": "tanh"},
         {"kind": "dense", "outputs": 3}]  # fmt: skip
CONV = [{"kind": "conv", "outputs": 3, "kernel": 3, "padding": 1}, {"kind": "relu"},
        {"kind": "flatten"}, {"kind": "dense", "outputs": 3}]  # fmt: skip
TOKENS = [{"kind": "patches", "size": 2}, {"kind": "dense", "outputs": 4, "sharing": "SHARING"},
          {"kind": "tanh"}, {"kind": "global_pool"}, {"kind": "dense", "outputs": 3}]  # fmt: skip


def run(model: Model, fisher: str, count: int = 6, seed: int = 0) -> MicroBatchResult:
    inputs, labels, numbers = samples(model, count)
    loaded = load_weights(model, init_weights(model, seed), float_engine(seed), 0)
    return run_micro_batch(loaded, inputs, labels, numbers, 0, Kfac(fisher=fisher))


def per_sample_gradients(model: Model, name: str, count: int = 6) -> np.ndarray:
    """Gradient of each sample's loss by one layer's weights, one sample at a time."""
    inputs, labels, numbers = samples(model, count)
    loaded = load_weights(model, init_weights(model, 0), float_engine(), 0)
    rows = [
        run_micro_batch(loaded, inputs[[n]], labels[[n]], numbers[[n]], 0).gradients[name]
        for n in range(count)
    ]
    return np.stack(rows)


def kronecker_inverse(a: np.ndarray, g: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """(A (x) G)^-1 vec(dW), with the Kronecker product written out."""
    return np.linalg.solve(np.kron(a, g), gradient.reshape(-1)).reshape(gradient.shape)


@pytest.mark.parametrize("layers", [DENSE, CONV], ids=["dense", "conv"])
@pytest.mark.parametrize("form", ["plain", "pi"])
def test_preconditioned_gradient_equals_the_dense_kronecker_solve(
    layers: list[dict], form: str
) -> None:
    model = network(layers)
    result = run(model, "exact")
    for parameter in model.preconditioned:
        a = result.factors[parameter.name, "A"] / result.samples
        g = result.factors[parameter.name, "G"] / result.samples
        gradient = result.gradients[parameter.name] / result.samples
        on_a, on_g = kfac.damping_split(form, 0.03, np.trace(a), len(a), np.trace(g), len(g))
        damped_a, damped_g = a + on_a * np.eye(len(a)), g + on_g * np.eye(len(g))
        np.testing.assert_allclose(
            precondition(gradient, (a, g), (on_a, on_g)),
            kronecker_inverse(damped_a, damped_g, gradient),
            rtol=1e-8,
            atol=1e-12,
        )


def test_block_diagonal_preconditioning_equals_the_dense_solve_with_zeroed_blocks() -> None:
    random = np.random.default_rng(0)
    root_a, root_g = random.standard_normal((7, 7)), random.standard_normal((5, 5))
    a, g = root_a @ root_a.T + np.eye(7), root_g @ root_g.T + np.eye(5)
    gradient = random.standard_normal((7, 5))
    zeroed = []
    for matrix in (a, g):
        block = np.arange(len(matrix)) // 3
        zeroed.append(np.where(block[:, None] == block, matrix, 0.0))
    np.testing.assert_allclose(
        precondition(gradient, (a, g), (0.0, 0.0), width=3),
        kronecker_inverse(*zeroed, gradient),
        rtol=1e-9,
    )


def test_factors_of_a_dense_layer_are_mean_outer_products() -> None:
    model = network(DENSE)
    inputs, _, _ = samples(model, 6)
    rows = np.concatenate([inputs.reshape(6, -1), np.ones((6, 1))], axis=1)
    result = run(model, "empirical")
    expected = sum(np.outer(row, row) for row in rows)
    np.testing.assert_allclose(result.factors["dense1", "A"], expected, atol=1e-12)
    # The bias row of a sample's gradient is the derivative by the layer's output.
    errors = per_sample_gradients(model, "dense1")[:, -1, :]
    expected = sum(np.outer(error, error) for error in errors)
    np.testing.assert_allclose(result.factors["dense1", "G"], expected, atol=1e-12)


def test_one_sample_makes_empirical_kfac_exact_for_a_dense_layer() -> None:
    """With one sample the Fisher block is the outer product of one gradient: A (x) G."""
    model = network(DENSE)
    result = run(model, "empirical", count=1)
    for name in ("dense1", "dense2"):
        gradient = result.gradients[name].reshape(-1)
        kron = np.kron(result.factors[name, "A"], result.factors[name, "G"])
        np.testing.assert_allclose(kron, np.outer(gradient, gradient), atol=1e-12)


@pytest.mark.parametrize("sharing", ["expand", "reduce"])
def test_token_factors_follow_the_expand_and_reduce_definitions(sharing: str) -> None:
    """Expand keeps every token a row; reduce averages inputs and sums errors over the tokens."""
    layers = [{**layer, "sharing": sharing} if "sharing" in layer else layer for layer in TOKENS]
    model = network(layers)
    inputs, _, _ = samples(model, 6)
    result = run(model, "empirical")
    tokens = inputs.reshape(6, 2, 2, 2, 2, 2).transpose(0, 2, 4, 1, 3, 5).reshape(6, 4, 8)
    rows = np.concatenate([tokens, np.ones((6, 4, 1))], axis=2)
    used = rows.mean(axis=1)[:, None] if sharing == "reduce" else rows
    expected = np.einsum("nsi,nsj->ij", used, used) / used.shape[1]
    np.testing.assert_allclose(result.factors["dense1", "A"], expected, atol=1e-12)
    if sharing == "reduce":
        # The bias gradient of a sample sums the errors over the tokens.
        errors = per_sample_gradients(model, "dense1")[:, -1]
        expected = errors.T @ errors
        np.testing.assert_allclose(result.factors["dense1", "G"], expected, atol=1e-12)


def test_reduce_is_exact_for_a_linear_layer_under_mean_pooling() -> None:
    """Mean pooling gives every token the same error, so the Fisher block of a linear network
    equals A (x) G of K-FAC-reduce (Eschenhagen et al. 2023).
    """
    layers = [{"kind": "patches", "size": 2}, {"kind": "dense", "outputs": 4, "sharing": "reduce"},
              {"kind": "global_pool"}, {"kind": "dense", "outputs": 32}]  # fmt: skip
    model = network(layers, loss="squared_error")
    result = run(model, "exact")
    fisher = exact_fisher(model, "dense1")
    kron = np.kron(result.factors["dense1", "A"], result.factors["dense1", "G"]) / 6
    np.testing.assert_allclose(kron, fisher, atol=1e-10)


def exact_fisher(model: Model, name: str, count: int = 6) -> np.ndarray:
    """Fisher block sum_n J_n^T J_n of a squared-error network, J by central differences."""
    inputs, _, _ = samples(model, count)
    weights = {k: v.astype(np.float64) for k, v in init_weights(model, 0).items()}

    def outputs(flat: np.ndarray) -> np.ndarray:
        changed = {**weights, name: flat.reshape(weights[name].shape)}
        loaded = load_weights(model, changed, float_engine(), 0)
        run = Pass(changed, loaded.forward, loaded.backward, loaded.engine, ((),))
        return model.chain.forward(inputs, run)[0]

    flat, step = weights[name].reshape(-1), 1e-4
    columns = []
    for index in range(len(flat)):
        shift = np.zeros_like(flat)
        shift[index] = step
        columns.append((outputs(flat + shift) - outputs(flat - shift)) / (2 * step))
    jacobian = np.stack(columns, axis=-1)
    return np.einsum("nki,nkj->ij", jacobian, jacobian)


@pytest.mark.parametrize("name", ["dense1", "dense2", "dense3"])
def test_kfac_is_exact_on_deep_linear_networks_with_squared_error(name: str) -> None:
    """The errors do not depend on the sample there, so E[aa^T (x) gg^T] = A (x) G."""
    layers = [{"kind": "flatten"}, {"kind": "dense", "outputs": 3}, {"kind": "dense", "outputs": 5},
              {"kind": "dense", "outputs": 8}]  # fmt: skip
    model = network(layers, (2, 2, 2), loss="squared_error")
    result = run(model, "exact")
    kron = np.kron(result.factors[name, "A"], result.factors[name, "G"]) / result.samples
    np.testing.assert_allclose(kron, exact_fisher(model, name), atol=1e-9)


@pytest.mark.parametrize("loss", ["cross_entropy", "pixel_cross_entropy", "squared_error"])
def test_sampled_fisher_tends_to_the_exact_one(loss: str) -> None:
    outputs = np.tile(np.array([[1.0, -0.5, 0.2]]), (20_000, 1))
    exact = sum(e[:1].T @ e[:1] for e in exact_errors(loss, outputs[:1]))
    errors = sampled_errors(loss, outputs, 0, 0, np.arange(len(outputs)))
    sampled = errors.T @ errors / len(outputs)
    # Entries of a mean of 20,000 draws with fourth moments of order 1: four standard errors.
    np.testing.assert_allclose(sampled, exact, atol=4 * 1.5 / np.sqrt(20_000))


def test_sampled_errors_have_mean_zero() -> None:
    """The score has expectation zero under the model's own likelihood."""
    outputs = np.tile(np.array([[1.0, -0.5, 0.2]]), (20_000, 1))
    errors = sampled_errors("cross_entropy", outputs, 0, 0, np.arange(len(outputs)))
    np.testing.assert_allclose(errors.mean(axis=0), 0.0, atol=0.02)


def test_sampled_labels_do_not_depend_on_the_micro_batch() -> None:
    outputs, numbers = np.random.default_rng(0).standard_normal((8, 5)), np.arange(8) * 7
    whole = sampled_errors("cross_entropy", outputs, 3, 11, numbers)
    parts = [sampled_errors("cross_entropy", outputs[i : i + 2], 3, 11, numbers[i : i + 2])
             for i in range(0, 8, 2)]  # fmt: skip
    np.testing.assert_array_equal(whole, np.concatenate(parts))


def test_a_constant_factor_is_its_own_average_from_the_first_update_on() -> None:
    factor, average = np.diag([1.0, 2.0]), None
    for _ in range(50):
        average = updated_average(average, factor, Kfac())
        np.testing.assert_allclose(average.matrix, factor, rtol=1e-14)


def test_warm_up_averages_equally_until_the_limit() -> None:
    values = np.arange(1.0, 11.0)
    average = None
    for value in values:
        average = updated_average(average, np.array([[value]]), Kfac())
    assert average.matrix[0, 0] == pytest.approx(values.mean())
    assert kfac.average_decay(1000, 0.95) == 0.95


def test_damping_leaves_the_running_average_untouched() -> None:
    average = updated_average(None, np.eye(4), Kfac())
    kfac.damped_block(average.matrix, 0, 4, 3.0)
    np.testing.assert_array_equal(average.matrix, np.eye(4))


def test_pi_damping_does_not_see_how_scale_is_split_between_the_factors() -> None:
    random = np.random.default_rng(0)
    root_a, root_g = random.standard_normal((4, 4)), random.standard_normal((3, 3))
    a, g = root_a @ root_a.T, root_g @ root_g.T
    damped = []
    for scale in (1.0, 50.0):
        sa, sg = scale * a, g / scale
        on_a, on_g = kfac.damping_split("pi", 0.1, np.trace(sa), 4, np.trace(sg), 3)
        damped.append(np.kron(sa + on_a * np.eye(4), sg + on_g * np.eye(3)))
    np.testing.assert_allclose(*damped, rtol=1e-12)


def test_pi_damping_multiplies_to_lambda_and_is_even_for_a_silent_layer() -> None:
    on_a, on_g = kfac.damping_split("pi", 0.25, 12.0, 3, 0.1, 2)
    assert on_a * on_g == pytest.approx(0.25)
    assert kfac.damping_split("pi", 0.25, 12.0, 3, 0.0, 2) == (0.5, 0.5)


def test_kl_clip_bounds_the_predicted_divergence_and_never_enlarges() -> None:
    random = np.random.default_rng(0)
    gradient = {"a": random.standard_normal((3, 2)), "b": random.standard_normal((4, 4))}
    direction = {name: 5.0 * value for name, value in gradient.items()}
    scale = kfac.kl_clip_scale(gradient, direction, 0.3, 0.01)
    predicted = sum(np.vdot(gradient[n], scale * direction[n]) * scale for n in gradient) * 0.3**2
    assert predicted == pytest.approx(0.01)
    assert kfac.kl_clip_scale(gradient, direction, 1e-9, 0.01) == 1.0
    assert kfac.kl_clip_scale(gradient, direction, 0.3, None) == 1.0


def test_conventions_that_split_the_scale_otherwise_share_the_product() -> None:
    for convention in ("kfc", "asdl", "curvlinops", "mpd"):
        a, g = kfac.convention_scales(convention, samples=32, positions=49)
        assert a * g == pytest.approx(1.0)
    a, g = kfac.convention_scales("kfac-pytorch", samples=32, positions=49)
    assert a * g == pytest.approx(1 / (32**2 * 49**5))
    with pytest.raises(ValueError, match="kfac-pytorch"):
        kfac.convention_scales("unknown", 1, 1)


def test_conversions_follow_the_formulas_of_the_codes_that_were_read() -> None:
    """Published convolution factors, from patches a and errors of the *mean* loss h = g / N.

    kfac-pytorch (layers/modules.py at 0522793): a / S and h / S, second moments over N S rows.
    MPD-KFAC (kfac/utils.py at 0d627c9): a / S over N; h N S over N S rows.
    """
    random, n, s = np.random.default_rng(0), 5, 9
    a, g = random.standard_normal((n * s, 4)), random.standard_normal((n * s, 3))
    h = g / n
    ours = a.T @ a / (n * s), g.T @ g / n
    theirs = {
        "kfac-pytorch": ((a / s).T @ (a / s) / (n * s), (h / s).T @ (h / s) / (n * s)),
        "mpd": ((a / s).T @ (a / s) / n, (h * n * s).T @ (h * n * s) / (n * s)),
        "kfc": (a.T @ a / n, g.T @ g / (n * s)),
    }
    for convention, factors in theirs.items():
        scales = kfac.convention_scales(convention, n, s)
        for mine, scale, factor in zip(ours, scales, factors, strict=True):
            np.testing.assert_allclose(scale * mine, factor, rtol=1e-12)


@pytest.mark.parametrize("fisher", ["sampled", "empirical"])
def test_diagonal_blocks_alone_are_the_blocks_of_the_whole_factors(fisher: str) -> None:
    model = network(CONV)
    inputs, labels, numbers = samples(model, 6)
    loaded = load_weights(model, init_weights(model, 0), float_engine(), 0)
    whole = run_micro_batch(loaded, inputs, labels, numbers, 0, Kfac(fisher=fisher)).factors
    blocks = {}
    for key, factor in whole.items():
        middle = len(factor) // 2
        blocks[key] = ((0, middle), (middle, len(factor)))
    parts = run_micro_batch(
        loaded, inputs, labels, numbers, 0, Kfac(fisher=fisher), blocks=blocks
    ).factors
    for key, factor in whole.items():
        outside = np.ones(factor.shape, bool)
        for start, stop in blocks[key]:
            cut = slice(start, stop), slice(start, stop)
            np.testing.assert_allclose(parts[key][cut], factor[cut], rtol=1e-13, atol=1e-15)
            outside[cut] = False
        assert not parts[key][outside].any()
