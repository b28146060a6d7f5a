"""Our K-FAC against curvlinops, ASDL and kfac-jax, run on real digits in double precision.

What they computed is stored in ``tests/oracles/kfac``; the script beside it made it.
"""

from pathlib import Path

import numpy as np
import pytest
from micro_batches import run_micro_batch
from training_networks import float_engine, network, precondition

from repast_dist.network.model import Model
from repast_dist.training import kfac
from repast_dist.training.optimizers.kfac import Kfac
from repast_dist.training.step import MicroBatchResult, load_weights

ORACLES = np.load(
    Path(__file__).parents[1] / "oracles" / "kfac" / "kfac_oracles.npz", allow_pickle=False
)
DAMPING = float(ORACLES["damping"])
TIGHT = {"rtol": 1e-9, "atol": 1e-12}


def model_of(case: str) -> Model:
    """The networks of make_oracles.py in our layers."""
    bias, tanh = not case.endswith("nobias"), {"kind": "tanh"}
    name, sharing = case.split("_")[0], case.rpartition("_")[2]
    dense = {"kind": "dense", "bias": bias}
    if name == "mlp":
        layers = [{"kind": "flatten"}, {**dense, "outputs": 12}, tanh, {**dense, "outputs": 10}]
    elif name == "cnn":
        conv = {"kind": "conv", "kernel": 3, "bias": bias}
        layers = [
            {**conv, "outputs": 4, "padding": 1}, tanh, {"kind": "avg_pool"},
            {**conv, "outputs": 5}, tanh, {"kind": "flatten"}, {**dense, "outputs": 10},
        ]  # fmt: skip
    else:
        shared = {"kind": "dense", "sharing": sharing}
        layers = [
            {"kind": "patches", "size": 2}, {**shared, "outputs": 6}, tanh,
            {**shared, "outputs": 7}, tanh, {"kind": "global_pool"},
            {"kind": "dense", "outputs": 10},
        ]  # fmt: skip
    return network(layers, (1, 8, 8))


def ours(weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    """(out, in, ...) weights and (out,) bias of PyTorch as one (in[+1], out) array."""
    rows = weight.reshape(len(weight), -1).T
    return rows if bias is None else np.concatenate([rows, bias[None]])


def oracle(prefix: str, kind: str, index: int) -> np.ndarray:
    """An array of weights, gradients or preconditioned gradients in our layout."""
    key = f"{prefix}/{kind}bias/{index}"
    bias = ORACLES[key] if key in ORACLES.files else None
    return ours(ORACLES[f"{prefix}/{kind}weight/{index}"], bias)


def run(case: str, fisher: str) -> tuple[Model, MicroBatchResult]:
    stored, model = case.removesuffix("_expand").removesuffix("_reduce"), model_of(case)
    weights = {p.name: oracle(stored, "", i) for i, p in enumerate(model.parameters)}
    loaded = load_weights(model, weights, float_engine(), 0)
    inputs, labels = ORACLES[f"{stored}/inputs"], ORACLES[f"{stored}/labels"]
    return model, run_micro_batch(
        loaded, inputs, labels, np.arange(len(labels)), 0, Kfac(fisher=fisher)
    )


def preconditioned(result: MicroBatchResult, name: str, form: str, damping: float) -> np.ndarray:
    a, g = (result.factors[name, kind] / result.samples for kind in ("A", "G"))
    split = kfac.damping_split(form, damping, np.trace(a), len(a), np.trace(g), len(g))
    return precondition(result.gradients[name] / result.samples, (a, g), split)


@pytest.mark.parametrize("case", ["mlp", "cnn", "mlp_nobias", "cnn_nobias", "tokens_expand"])
def test_loss_and_gradients_equal_pytorchs(case: str) -> None:
    model, result = run(case, "empirical")
    stored = case.removesuffix("_expand")
    assert result.loss_sum / result.samples == pytest.approx(float(ORACLES[f"{stored}/loss"]))
    for index, parameter in enumerate(model.parameters):
        gradient = result.gradients[parameter.name] / result.samples
        np.testing.assert_allclose(gradient, oracle(stored, "gradient_", index), **TIGHT)


@pytest.mark.parametrize("fisher", ["exact", "empirical"])
@pytest.mark.parametrize("case", ["mlp", "cnn", "tokens_expand", "tokens_reduce"])
def test_kfac_equals_curvlinops(case: str, fisher: str) -> None:
    """Factors (their split of the scale over positions is ours), plain and pi damping."""
    model, result = run(case, fisher)
    approx = "reduce" if case.endswith("reduce") else "expand"
    prefix = f"{case.removesuffix('_' + approx)}/curvlinops_{fisher}_{approx}"
    for index, parameter in enumerate(model.parameters):
        name = parameter.name
        for kind in ("A", "G"):
            factor = result.factors[name, kind] / result.samples
            np.testing.assert_allclose(factor, ORACLES[f"{prefix}/{kind}/{index}"], **TIGHT)
        for form in ("plain", "pi"):
            np.testing.assert_allclose(
                preconditioned(result, name, form, DAMPING),
                oracle(prefix, f"{form}_", index),
                **TIGHT,
            )


@pytest.mark.parametrize("fisher", ["exact", "empirical"])
@pytest.mark.parametrize("case", ["mlp_nobias", "cnn_nobias"])
def test_kfac_equals_asdl(case: str, fisher: str) -> None:
    model, result = run(case, fisher)
    prefix = f"{case}/asdl_{fisher}"
    for index, parameter in enumerate(model.parameters):
        scales = kfac.convention_scales("asdl", result.samples, parameter.positions)
        for kind, scale in zip(("A", "G"), scales, strict=True):
            factor = scale * result.factors[parameter.name, kind] / result.samples
            np.testing.assert_allclose(factor, ORACLES[f"{prefix}/{kind}/{index}"], **TIGHT)
        np.testing.assert_allclose(
            preconditioned(result, parameter.name, "pi", DAMPING),
            oracle(prefix, "pi_", index),
            **TIGHT,
        )


@pytest.mark.parametrize("fisher", ["exact", "empirical"])
@pytest.mark.parametrize("case", ["mlp", "cnn"])
def test_kfac_equals_kfac_jax(case: str, fisher: str) -> None:
    """Its empirical Fisher is made from the gradient of the mean loss: 1/N of ours, which is
    N times the damping for a preconditioned gradient that is N times as long.
    """
    model, result = run(case, fisher)
    prefix = f"{case}/kfac_jax_{fisher}"
    scale = result.samples if fisher == "empirical" else 1
    for index, parameter in enumerate(model.parameters):
        ours_pi = scale * preconditioned(result, parameter.name, "pi", scale * DAMPING)
        np.testing.assert_allclose(ours_pi, oracle(prefix, "pi_", index), **TIGHT)
        a, g = kfac.convention_scales("kfac-jax", result.samples, parameter.positions)
        factors = [ORACLES[f"{prefix}/factor_{n}/{index}"] for n in (0, 1)]
        expected_a = a * result.factors[parameter.name, "A"] / result.samples
        expected_g = g * result.factors[parameter.name, "G"] / result.samples / scale
        # kfac-jax orders a patch by kernel position, then channel; compare what does not depend
        # on the order of rows.
        np.testing.assert_allclose(
            np.linalg.eigvalsh(factors[0]), np.linalg.eigvalsh(expected_a), rtol=1e-8, atol=1e-12
        )
        np.testing.assert_allclose(factors[1], expected_g, **TIGHT)
