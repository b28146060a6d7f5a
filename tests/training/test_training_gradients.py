"""Gradients of every layer and loss against central differences of the loss."""

import numpy as np
import pytest
from micro_batches import run_micro_batch
from training_networks import float_engine, network, samples

from repast_dist.network.functional import col2im, im2col
from repast_dist.network.model import Model, init_weights
from repast_dist.training.engines import Engine
from repast_dist.training.step import load_weights

CONV = {"kind": "conv", "outputs": 3, "kernel": 3, "padding": 1}
HEAD = [{"kind": "flatten"}, {"kind": "dense", "outputs": 3}]
TOKENS = [{"kind": "patches", "size": 2}, {"kind": "dense", "outputs": 4}]
POOLED = [{"kind": "global_pool"}, {"kind": "dense", "outputs": 3}]

NETWORKS = {
    "conv": [CONV, {"kind": "relu"}, {**CONV, "stride": 2, "padding": 0, "bias": False}, *HEAD],
    "max pool": [CONV, {"kind": "max_pool"}, *HEAD],
    "mean pool": [CONV, {"kind": "avg_pool"}, *HEAD],
    "global pool": [CONV, {"kind": "tanh"}, *POOLED],
    "tanh and sigmoid": [{"kind": "flatten"}, {"kind": "dense", "outputs": 6}, {"kind": "tanh"},
                         {"kind": "dense", "outputs": 5}, {"kind": "sigmoid"},
                         {"kind": "dense", "outputs": 3}],
    "group norm": [{**CONV, "outputs": 4}, {"kind": "norm", "groups": 2}, {"kind": "relu"}, *HEAD],
    "layer norm on features": [{"kind": "flatten"}, {"kind": "dense", "outputs": 6},
                               {"kind": "norm"}, {"kind": "dense", "outputs": 3}],
    "residual": [CONV, {"kind": "residual", "body": [{"kind": "relu"}, CONV]}, *HEAD],
    "residual with shortcut": [
        {"kind": "residual", "body": [CONV, {"kind": "relu"}, CONV],
         "shortcut": [{"kind": "conv", "outputs": 3, "kernel": 1}]}, *HEAD],
    "transformer": [
        *TOKENS, {"kind": "positions"},
        {"kind": "residual", "body": [{"kind": "norm"}, {"kind": "attention", "heads": 2}]},
        {"kind": "residual", "body": [{"kind": "norm"}, {"kind": "dense", "outputs": 8},
                                      {"kind": "gelu"}, {"kind": "dense", "outputs": 4}]},
        *POOLED],
}  # fmt: skip


def perturbed(model: Model) -> dict[str, np.ndarray]:
    """Weights with no zeros, double precision so that differences are not rounded away."""
    random = np.random.default_rng(3)
    return {
        name: w.astype(np.float64) + 0.1 * random.standard_normal(w.shape)
        for name, w in init_weights(model, 0).items()
    }


def assert_gradients_match(model: Model, engine: Engine, targets: np.ndarray | None = None) -> None:
    inputs, labels, numbers = samples(model)
    labels = labels if targets is None else targets
    weights = perturbed(model)

    def loss(changed: dict[str, np.ndarray]) -> float:
        loaded = load_weights(model, changed, engine, 0)
        return run_micro_batch(loaded, inputs, labels, numbers, 0).loss_sum

    loaded = load_weights(model, weights, engine, 0)
    gradients = run_micro_batch(loaded, inputs, labels, numbers, 0).gradients
    assert set(gradients) == set(weights)
    random, step = np.random.default_rng(4), 1e-5
    for name, w in weights.items():
        for _ in range(3):
            direction = random.standard_normal(w.shape)
            up = loss({**weights, name: w + step * direction})
            down = loss({**weights, name: w - step * direction})
            expected = (up - down) / (2 * step)
            assert np.vdot(gradients[name], direction) == pytest.approx(
                expected, rel=2e-6, abs=1e-7
            )


@pytest.mark.parametrize("layers", NETWORKS.values(), ids=NETWORKS)
def test_gradients_equal_central_differences(layers: list[dict]) -> None:
    assert_gradients_match(network(layers), float_engine())


@pytest.mark.parametrize("loss", ["pixel_cross_entropy", "squared_error"])
def test_gradients_of_reconstruction_losses_equal_central_differences(loss: str) -> None:
    layers = [{"kind": "flatten"}, {"kind": "dense", "outputs": 5}, {"kind": "tanh"},
              {"kind": "dense", "outputs": 16}]  # fmt: skip
    assert_gradients_match(network(layers, (1, 4, 4), loss=loss), float_engine())


def test_gradients_of_a_regression_equal_central_differences() -> None:
    layers = [{"kind": "flatten"}, {"kind": "dense", "outputs": 5}, {"kind": "tanh"},
              {"kind": "dense", "outputs": 3}]  # fmt: skip
    targets = np.random.default_rng(5).standard_normal((12, 3))
    model = network(layers, (1, 4, 4), loss="regression")
    count = len(samples(model)[0])
    assert_gradients_match(model, float_engine(), targets[:count])


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 0), (2, 2, 0), (1, 1, 0)]
)
def test_col2im_is_the_adjoint_of_im2col(kernel: int, stride: int, padding: int) -> None:
    random = np.random.default_rng(0)
    images = random.standard_normal((2, 3, 7, 6))
    columns = im2col(images, kernel, stride, padding)
    other = random.standard_normal(columns.shape)
    back = col2im(other, images.shape, kernel, stride, padding)
    assert np.vdot(columns, other) == pytest.approx(np.vdot(images, back))


def test_im2col_products_equal_scipy_correlation() -> None:
    from scipy.signal import correlate2d

    random = np.random.default_rng(0)
    images, kernels = random.standard_normal((2, 3, 6, 6)), random.standard_normal((4, 3, 3, 3))
    product = im2col(images, 3, 1, 1) @ kernels.reshape(4, -1).T
    ours = product.reshape(2, 6, 6, 4).transpose(0, 3, 1, 2)
    for n in range(2):
        for m in range(4):
            expected = sum(correlate2d(images[n, c], kernels[m, c], "same") for c in range(3))
            np.testing.assert_allclose(ours[n, m], expected, atol=1e-12)
