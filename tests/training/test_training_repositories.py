"""Optimizers in double precision against the code of their authors, which no package has.

What it computed is stored in ``tests/oracles/optimizers``; the script beside it made it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from training_networks import float_engine

from repast_dist.analog.schemes.cholesky import Cholesky
from repast_dist.planning.blocks import SoiBlock, even_ranges
from repast_dist.planning.specs import SoiSpec
from repast_dist.training.block_state import BlockState
from repast_dist.training.matrices import Matrices
from repast_dist.training.optimizers import SecondOrder, Update
from repast_dist.training.optimizers.foof import Foof
from repast_dist.training.optimizers.matrix_unit import Due
from repast_dist.training.optimizers.newton_muon import NewtonMuon
from repast_dist.training.optimizers.shampoo import Shampoo
from repast_dist.training.second_order import Preconditioner

FOLDER = Path(__file__).parents[1] / "oracles" / "optimizers"
ORACLES = np.load(FOLDER / "repository_oracles.npz", allow_pickle=False)
TIGHT = {"rtol": 1e-9, "atol": 1e-12}
RATE, STEPS = 0.03, 5
EVERY_SECOND = SoiSpec(interval=2)
GRAFTED = {"momentum": 0.8, "factor_decay": 0.9, "weight_decay": 0.1, "epsilon": 0.02, "rounds": 30}


def preconditioner(
    optimizer: SecondOrder, layers: Mapping[str, int], soi: SoiSpec, parts: int = 1
) -> Preconditioner:
    """Hold the moments of layers of so many inputs, each cut into parts."""
    cuts = [(name, *cut) for name, inputs in layers.items() for cut in even_ranges(inputs, parts)]
    names = list(layers)
    blocks = [
        SoiBlock(number, names.index(name), name, "A", start, stop)
        for number, (name, start, stop) in enumerate(cuts)
    ]
    held = {
        (0, block.index): BlockState(block, 0, float_engine(), Cholesky(), optimizer)
        for block in blocks
    }
    return Preconditioner(optimizer, blocks, soi, held)


def add(solver: Preconditioner, moments: Mapping[str, np.ndarray]) -> None:
    """Average the moments of a step."""
    matrices = {(name, "A"): moment for name, moment in moments.items()}
    parts = {}
    for _, number in solver.held:
        block = solver.held[0, number].block
        cut = slice(block.start, block.stop)
        parts[number] = moments[block.layer_name][cut, cut]
    solver.add(solver.traces(matrices), parts)


@pytest.mark.parametrize("products", ["arrays", "digital"])
@pytest.mark.parametrize(("kind", "parts"), [("o", 1), ("c_fc", 1), ("c_proj", 4)])
def test_newton_muon_equals_its_authors_code_without_its_rounding(kind, parts, products):
    """The moment of the inputs of contractions is four blocks; renewals come every second step."""
    of = {name: ORACLES[f"newton_muon/{kind}/{name}"] for name in ("start", "gradients", "vectors")}
    rate = RATE / 0.2
    optimizer = NewtonMuon(learning_rate=rate, rate_scale="match_rms_adamw", products=products)
    weights = {"w": of["start"].T.copy()}
    shape = weights["w"].shape
    soi = SoiSpec(interval=2, factor_interval=2)
    solver = preconditioner(optimizer, {"w": shape[0]}, soi, parts)
    matrices = Matrices(optimizer.matrices, {"w": 0}, {"w": shape}, {0: float_engine()})
    state: dict[str, np.ndarray] = {}
    for step in range(STEPS):
        if solver.statistics_due(step):
            rows = of["vectors"][step].reshape(-1, shape[0])
            add(solver, {"w": rows.T @ rows / len(rows)})
        if solver.programs(step):
            solver.program(step)
        solved, _ = solver.directions(step, {"w": of["gradients"][step].T})
        directions = matrices.directions(step, solved, Due())
        given = Update(weights, {}, directions, state, step, STEPS, frozenset())
        weights, state = optimizer.update(given)
    np.testing.assert_allclose(weights["w"].T, ORACLES[f"newton_muon/{kind}/weights"], **TIGHT)


def followed(optimizer: SecondOrder, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Weights of layers after all steps, with the gradients and inputs of the authors' run."""
    weights = {name: ORACLES[f"foof/{name}/start"] for name in names}
    solver = preconditioner(optimizer, {n: len(w) for n, w in weights.items()}, EVERY_SECOND)
    state = {f"momentum/{name}": np.zeros_like(w) for name, w in weights.items()}
    for step in range(STEPS):
        rows = {name: ORACLES[f"foof/{name}/rows{step}"] for name in names}
        gradients = {name: ORACLES[f"foof/{name}/gradient{step}"] for name in names}
        add(solver, {name: part.T @ part / len(part) for name, part in rows.items()})
        if solver.programs(step):
            solver.program(step)
        directions, _ = solver.directions(step, gradients)
        given = Update(weights, gradients, directions, state, step, STEPS, frozenset())
        weights, state = optimizer.update(given)
    return weights


def test_foof_equals_published_code():
    """Averages begin with the identity and are divided by the weights of what came."""
    settings = {"learning_rate": RATE, "momentum": 0.8, "factor_decay": 0.9, "damping": 0.05}
    found = followed(Foof(averaging="unbiased", first_moment=1.0, **settings), ["0", "1"])
    for name, weights in found.items():
        np.testing.assert_allclose(weights, ORACLES[f"foof/{name}/weights"], **TIGHT)
    # What the average begins with counts.
    others = followed(Foof(averaging="unbiased", **settings), ["0"])
    assert np.abs(others["0"] - found["0"]).max() > 1e-3


@pytest.mark.parametrize("products", ["arrays", "digital"])
@pytest.mark.parametrize("shape", ["wide", "tall", "square"])
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("rounds", {"momentum": 0.8, "factor_decay": 0.9, "weight_decay": 0.1, "epsilon": 0.02,
                    "rounds": 7}),
        ("sums", {"factor_decay": 1.0, "epsilon": 0.5, "rounds": 30}),
        ("eigenvalues", {"momentum": 0.0, "factor_decay": 0.95, "epsilon": 0.01, "rounds": 30}),
        ("eigenvalues", {"momentum": 0.0, "factor_decay": 0.95, "epsilon": 0.01,
                         "roots": "inversions", "poles": 30}),
        ("sums", {"factor_decay": 1.0, "epsilon": 0.5, "roots": "inversions", "poles": 24}),
        ("grafted sgd", GRAFTED | {"grafting": "sgd"}),
        ("grafted adam", GRAFTED | {"grafting": "adam", "grafting_decay": 0.95,
                                    "grafting_epsilon": 0.01}),
    ],
)  # fmt: skip
def test_shampoo_equals_metas(shape, kind, settings, products):
    """Roots after few rounds, of sums, and those that eigenvalues give."""
    optimizer = Shampoo(learning_rate=1 / 32, ridge=0.0, products=products, **settings)
    weights = {"w": ORACLES[f"shampoo/{shape}/start"].T.copy()}
    gradients = ORACLES[f"shampoo/{shape}/gradients"]
    owned = {"w": weights["w"].shape}
    matrices = Matrices(optimizer.matrices, {"w": 0}, owned, {0: float_engine()})
    for step, gradient in enumerate(gradients):
        directions = matrices.directions(step, {"w": gradient.T}, Due())
        given = Update(weights, {}, directions, {}, step, STEPS, frozenset())
        weights, _ = optimizer.update(given)
    np.testing.assert_allclose(weights["w"].T, ORACLES[f"shampoo/{shape}/{kind}"], **TIGHT)


def test_roots_serve_until_they_are_due_again():
    """By eigenvalues in NumPy: roots of the first step's averages, the second step's gradient."""
    optimizer = Shampoo(momentum=0.0, factor_decay=0.9, epsilon=0.1, ridge=0.3, rounds=40)
    first, second = np.random.default_rng(5).standard_normal((2, 6, 4))

    def root(moment):
        added = 0.1 + 0.3 * np.linalg.norm(moment)
        values, vectors = np.linalg.eigh(moment + added * np.eye(len(moment)))
        return (vectors * values**-0.25) @ vectors.T

    matrices = Matrices(optimizer, {"w": 0}, {"w": (6, 4)}, {0: float_engine()})
    matrices.directions(0, {"w": first}, Due())
    found = matrices.directions(1, {"w": second}, Due(averages=True, inverses=False))["w"]
    np.testing.assert_allclose(found, root(first @ first.T) @ second @ root(first.T @ first))
    mean = (0.9 * first @ first.T + second @ second.T) / 1.9
    found = matrices.directions(2, {"w": second}, Due(averages=False, inverses=True))["w"]
    of_columns = (0.9 * first.T @ first + second.T @ second) / 1.9
    np.testing.assert_allclose(found, root(mean) @ second @ root(of_columns))


def test_an_unbiased_average_is_the_weighted_mean_of_what_came():
    optimizer, moments = Foof(averaging="unbiased", factor_decay=0.7), [3.0, -1.0, 8.0]
    average = 0.0
    for update, moment in enumerate(moments, start=1):
        past, present = optimizer.average_weights(update)
        average = past * average + present * moment
    weights = 0.7 ** np.arange(3)[::-1]
    assert average == pytest.approx(float(weights @ moments / weights.sum()))


def test_an_average_that_forgets_what_it_begins_with_is_refused():
    with pytest.raises(ValueError, match="averaging=unbiased"):
        Foof(first_moment=1.0)
