"""Optimizers in double precision against published code, and where their products run.

What PyTorch 2.14 computed is stored in ``tests/oracles/optimizers``; the script beside it made it.
"""

from pathlib import Path

import numpy as np
import pytest
from training_networks import float_engine

from repast_dist.training.matrices import Matrices
from repast_dist.training.optimizers import Optimizer, Update
from repast_dist.training.optimizers.adam import Adam
from repast_dist.training.optimizers.matrix_unit import Due
from repast_dist.training.optimizers.muon import Muon
from repast_dist.training.optimizers.sgd import Sgd

FOLDER = Path(__file__).parents[1] / "oracles" / "optimizers"
ORACLES = np.load(FOLDER / "optimizers_oracles.npz", allow_pickle=False)
RATE = float(ORACLES["rate"])
TIGHT = {"rtol": 1e-9, "atol": 1e-12}
SHAPES = ["wide", "tall", "square"]


def problem(shape: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """Weights and gradients in our layout, (inputs, outputs) float64."""
    start, gradients = ORACLES[f"{shape}/start"], ORACLES[f"{shape}/gradients"]
    return start.T.copy(), [gradient.T.copy() for gradient in gradients]


def stepped(optimizer: Optimizer, shape: str, bias: bool = False) -> np.ndarray:
    """Weights after all steps; with `bias` their last row is one."""
    start, gradients = problem(shape)
    rows = len(start) - bias
    weights, biased = {"w": start}, frozenset(["w"] if bias else [])
    state = optimizer.initial_state(weights)
    method = optimizer.matrices
    owners = {} if method is None else {"w": 0}
    held = Matrices(method, owners, {"w": (rows, start.shape[1])}, {0: float_engine()})
    for step, gradient in enumerate(gradients):
        directions = held.directions(step, {"w": gradient[:rows]}, Due())
        given = (weights, {"w": gradient}, directions, state, step, len(gradients), biased)
        weights, state = optimizer.update(Update(*given))
    return weights["w"]


@pytest.mark.parametrize("products", ["arrays", "digital"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("plain", {"nesterov": False}),
        ("original", {"weight_decay": 0.1}),
        ("rms", {"weight_decay": 0.02, "rate_scale": "match_rms_adamw", "momentum": 0.8}),
    ],
)
def test_muon_equals_pytorchs_without_its_rounding(shape, kind, settings, products):
    """Its Newton-Schulz rounds to bfloat16, which the stored steps leave out."""
    found = stepped(Muon(learning_rate=RATE, products=products, **settings), shape)
    np.testing.assert_allclose(found.T, ORACLES[f"{shape}/muon_{kind}"], **TIGHT)


@pytest.mark.parametrize("shape", SHAPES)
def test_adamw_and_sgd_equal_pytorchs(shape):
    adamw = Adam(learning_rate=RATE, weight_decay=0.2, beta1=0.8, beta2=0.95)
    np.testing.assert_allclose(stepped(adamw, shape).T, ORACLES[f"{shape}/adamw"], **TIGHT)
    sgd = Sgd(learning_rate=RATE, momentum=0.9, weight_decay=0.05)
    np.testing.assert_allclose(stepped(sgd, shape).T, ORACLES[f"{shape}/sgd"], **TIGHT)


def test_the_bias_of_a_matrix_follows_adam_at_its_own_rate():
    """The last row is what Adam alone makes of it; the rows before it know nothing of it."""
    optimizer = Muon(learning_rate=RATE, weight_decay=0.3, others=Adam(learning_rate=0.7))
    start, gradients = problem("tall")
    found = stepped(optimizer, "tall", bias=True)
    weights = {"b": start[-1:]}
    state = optimizer.others.initial_state(weights)
    for step, gradient in enumerate(gradients):
        given = (weights, {"b": gradient[-1:]}, {}, state, step, len(gradients), frozenset())
        weights, state = optimizer.others.update(Update(*given))
    np.testing.assert_array_equal(found[-1:], weights["b"])
    assert np.abs(found[:-1] - stepped(optimizer, "tall")[:-1]).max() > 1e-3


def test_newton_schulz_on_arrays_writes_less_and_multiplies_more_than_as_published():
    """Of a matrix m x n, m <= n, a round on arrays writes n m + m^2 numbers for 2 n + m vectors; as
    published it would write m^2 or n m more. The digital unit multiplies 2 m^2 n + m^3 times.
    """
    from repast_dist.training.optimizers.matrix_unit import modelled_work

    m, n = 6, 10
    arrays = modelled_work(Muon(iterations=3), n, m, Due())
    assert sum(rows * columns for rows, columns, _ in arrays.operands) == 3 * (n * m + m * m)
    assert sum(vectors for *_, vectors in arrays.operands) == 3 * (2 * n + m)
    assert not arrays.products
    digital = modelled_work(Muon(iterations=3, products="digital"), m, n, Due())
    assert sum(r * i * c for r, i, c in digital.products) == 3 * (2 * m * m * n + m**3)
    assert not digital.operands
