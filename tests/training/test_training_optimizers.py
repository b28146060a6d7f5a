"""SGD and Adam against independent implementations, schedules, and the reach of K-FAC."""

import itertools
from typing import ClassVar

import numpy as np
import pytest
from training_networks import network

from repast_dist.network.model import init_weights
from repast_dist.training.network import preconditioning_table
from repast_dist.training.optimizers import Optimizer, Update
from repast_dist.training.optimizers.adam import Adam
from repast_dist.training.optimizers.foof import Foof
from repast_dist.training.optimizers.kfac import Kfac
from repast_dist.training.optimizers.sgd import Sgd


def run(spec: Optimizer, gradients: list[np.ndarray], start: np.ndarray) -> np.ndarray:
    weights = {"w": start.astype(np.float32)}
    state = spec.initial_state(weights)
    for step, gradient in enumerate(gradients):
        weights, state = spec.update(
            Update(weights, {"w": gradient}, {}, state, step, len(gradients), frozenset())
        )
    return weights["w"]


def gradients(count: int = 6) -> tuple[np.ndarray, list[np.ndarray]]:
    random = np.random.default_rng(0)
    return random.standard_normal((3, 2)), list(random.standard_normal((count, 3, 2)))


def test_sgd_with_momentum_equals_the_unrolled_sum() -> None:
    """w_T = w_0 - rate sum_t g_t (1 + m + ... + m^(T-1-t))."""
    start, grads = gradients()
    spec = Sgd(learning_rate=0.1, momentum=0.9)
    weight = [(1 - 0.9 ** (len(grads) - t)) / (1 - 0.9) for t in range(len(grads))]
    expected = start - 0.1 * sum(k * g for k, g in zip(weight, grads, strict=True))
    np.testing.assert_allclose(run(spec, grads, start), expected, rtol=1e-5, atol=1e-6)


def test_adam_equals_its_published_recursion() -> None:
    start, grads = gradients()
    first = second = np.zeros_like(start)
    w = start.copy()
    for t, g in enumerate(grads, start=1):
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g**2
        rate = 0.01 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        # The paper's fast form moves epsilon; its size here is too small to be seen.
        w = w - rate * first / (np.sqrt(second) + 1e-12)
    spec = Adam(learning_rate=0.01, epsilon=1e-12)
    np.testing.assert_allclose(run(spec, grads, start), w, rtol=1e-5, atol=1e-6)


def test_a_decay_of_adam_is_adamws_in_float64() -> None:
    """Loshchilov and Hutter 2019, algorithm 2: the decay enters no average."""
    w, grads = gradients()
    spec = Adam(learning_rate=0.02, weight_decay=0.3)
    weights, state = {"w": w.copy()}, spec.initial_state({"w": w})
    first = second = np.zeros_like(w)
    for step, g in enumerate(grads):
        weights, state = spec.update(
            Update(weights, {"w": g}, {}, state, step, len(grads), frozenset())
        )
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g**2
        unbiased, spread = first / (1 - 0.9 ** (step + 1)), second / (1 - 0.999 ** (step + 1))
        w = w * (1 - 0.02 * 0.3) - 0.02 * unbiased / (np.sqrt(spread) + 1e-8)
    np.testing.assert_allclose(weights["w"], w, rtol=1e-9, atol=1e-12)


class Counted(np.ndarray):
    """An array that notes what is done with it."""

    done: ClassVar[list[str]] = []

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):  # type: ignore[no-untyped-def]
        self.done.append(ufunc.__name__)
        plain = [np.asarray(x) for x in inputs]
        kwargs.pop("out", None)
        return np.asarray(getattr(ufunc, method)(*plain, **kwargs)).view(Counted)


def test_adam_is_priced_with_the_operations_that_it_computes() -> None:
    """Every sum but that with epsilon is one operation with the product that it follows."""
    w, (g, *_) = gradients()
    spec = Adam(weight_decay=0.1)
    given = [{"w": x.view(Counted)} for x in (w, g)]
    state = {name: x.view(Counted) for name, x in spec.initial_state({"w": w}).items()}
    Counted.done.clear()
    spec.update(Update(given[0], given[1], {}, state, 0, 1, frozenset()))
    apart = [name for name in Counted.done if name not in ("add", "subtract")]
    assert len(apart) + 1 == spec.update_operations
    assert len(Counted.done) - len(apart) == 5


@pytest.mark.parametrize("spec", [Sgd(weight_decay=0.1), Foof(weight_decay=0.1)])
def test_steps_with_momentum_are_priced_with_the_operations_that_they_compute(spec) -> None:
    """Decay, momentum and step: a product each, and the sum that follows it."""
    w, (g, *_) = gradients()
    weights, given, state = (
        {name: x.view(Counted)} for name, x in (("w", w), ("w", g), ("momentum/w", 0 * w))
    )
    Counted.done.clear()
    directions = given if spec.second_order else {}
    spec.update(Update(weights, given, directions, state, 0, 1, frozenset()))
    assert Counted.done.count("multiply") == spec.update_operations
    assert len(Counted.done) == 2 * spec.update_operations


def test_adams_first_step_is_the_learning_rate_whatever_the_gradient() -> None:
    start = np.zeros((3, 2))
    spec = Adam(learning_rate=0.01)
    moved = run(spec, [np.array([[1e3, -1e-3], [5, -5], [1, 2]])], start)
    np.testing.assert_allclose(np.abs(moved), 0.01, rtol=1e-4)


def test_weight_decay_leaves_biases_alone() -> None:
    spec = Sgd(learning_rate=0.5, momentum=0.0, weight_decay=0.2)
    weights = {"w": np.ones((3, 2), np.float32)}
    still = {"w": np.zeros((3, 2))}
    state = spec.initial_state(weights)
    new, _ = spec.update(Update(weights, still, {}, state, 0, 1, frozenset({"w"})))
    np.testing.assert_allclose(new["w"], [[0.9, 0.9], [0.9, 0.9], [1.0, 1.0]], rtol=1e-6)


def test_an_update_changes_neither_the_old_weights_nor_the_old_state() -> None:
    spec = Sgd()
    weights = {"w": np.ones((3, 2), np.float32)}
    state = spec.initial_state(weights)
    spec.update(Update(weights, {"w": np.ones((3, 2))}, {}, state, 0, 1, frozenset()))
    assert (weights["w"] == 1).all()
    assert (state["momentum/w"] == 0).all()


def test_kfac_scales_preconditioned_layers_only() -> None:
    spec = Kfac(learning_rate=1.0, momentum=0.0, kl_clip=1e-4)
    weights = {name: np.zeros((2, 2), np.float32) for name in ("layer", "norm")}
    grads = {name: np.ones((2, 2)) for name in weights}
    directions, state = {"layer": np.ones((2, 2))}, spec.initial_state(weights)
    new, _ = spec.update(Update(weights, grads, directions, state, 0, 1, frozenset()))
    np.testing.assert_allclose(new["norm"], -1.0)
    # sum <g, p> = 4, so the scale is sqrt(1e-4 / 4).
    np.testing.assert_allclose(new["layer"], -0.005, rtol=1e-6)


@pytest.mark.parametrize("kl_clip", [None, 0.001])
def test_kfacs_model_predicts_what_a_quadratic_loss_changes_by(kl_clip: float | None) -> None:
    """tr(W^T A W G) / 2 has the gradient A W G, whose direction is W: with momentum and a bound."""
    random = np.random.default_rng(0)
    rows, columns = random.standard_normal((9, 4)), random.standard_normal((9, 3))
    a, g = rows.T @ rows / 9, columns.T @ columns / 9

    def loss(w: np.ndarray) -> float:
        return 0.5 * float(np.vdot(w, a @ w @ g))

    spec = Kfac(learning_rate=0.3, kl_clip=kl_clip, adapt_damping_every=1)
    weights = {"w": random.standard_normal((4, 3))}
    state = spec.initial_state(weights)
    for step in range(5):
        before, w = loss(weights["w"]), weights["w"]
        given = Update(weights, {"w": a @ w @ g}, {"w": w}, state, step, 5, frozenset())
        weights, state = spec.update(given)
        change = loss(weights["w"]) - before
        assert float(state["predicted/loss"][0, 0]) == pytest.approx(change, rel=1e-9)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_schedules_fall_from_the_rate_to_its_final_share(schedule: str) -> None:
    spec = Sgd(schedule=schedule, learning_rate=0.2, final_rate=0.1, warmup_steps=3)
    rates = [spec.learning_rate_at(step, 20) for step in range(20)]
    assert rates[:4] == pytest.approx([0.05, 0.1, 0.15, 0.2])
    assert all(a > b for a, b in itertools.pairwise(rates[3:]))
    assert rates[-1] == pytest.approx(0.02)


def test_the_table_says_which_layers_kfac_treats_and_why_not() -> None:
    model = network([
        {"kind": "conv", "outputs": 4, "kernel": 3}, {"kind": "norm", "groups": 2},
        {"kind": "flatten"}, {"kind": "dense", "outputs": 3, "precondition": False},
    ])  # fmt: skip
    rows = {row.name: row for row in preconditioning_table(model.parameters)}
    assert [rows[n].preconditioned for n in ("conv1", "norm1", "dense1")] == [True, False, False]
    assert "4 positions" in rows["conv1"].reason
    assert "plain gradient" in rows["norm1"].reason
    assert "precondition is false" in rows["dense1"].reason


def test_the_workload_has_the_shapes_and_parameters_of_the_weights() -> None:
    model = network([
        {"kind": "conv", "outputs": 4, "kernel": 3}, {"kind": "norm", "groups": 2},
        {"kind": "flatten"}, {"kind": "dense", "outputs": 3, "bias": False},
    ])  # fmt: skip
    workload = model.workload
    weights = init_weights(model, 0)
    assert workload.parameter_count == sum(w.size for w in weights.values())
    conv, norm, dense = workload.layers
    assert (conv.in_features, conv.out_features, conv.vectors_per_sample) == (18, 4, 4)
    assert (dense.in_features, dense.out_features, dense.factor_a_size) == (16, 3, 16)
    assert not norm.preconditioned
