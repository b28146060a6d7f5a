"""Rows that factors are products of, and their running average."""

import numpy as np
import pytest
from micro_batches import run_micro_batch

from repast_dist.network.model import build_model, init_weights
from repast_dist.settings import load_settings
from repast_dist.training.engines import make_engine
from repast_dist.training.factor_rows import updated_rows
from repast_dist.training.optimizers.kfac import Kfac
from repast_dist.training.specs import EngineSpec
from repast_dist.training.step import load_weights

EXACT = EngineSpec(
    **dict.fromkeys(("forward", "backward", "gradient", "factor", "inverse"), "float64")
)


@pytest.mark.parametrize("fisher", ["empirical", "sampled", "exact"])
@pytest.mark.parametrize("sharing", ["expand", "reduce"])
@pytest.mark.parametrize("name", ["digits_mlp", "digits_cnn"])
def test_factors_are_the_products_of_their_rows(name, sharing, fisher):
    model = build_model(load_settings([f"model={name}", f"model.sharing={sharing}"]).model)
    loaded = load_weights(model, init_weights(model, 3), make_engine(EXACT, 3), 0)
    random = np.random.default_rng(4)
    inputs, labels = random.normal(size=(5, *model.spec.input_shape)), random.integers(0, 10, 5)
    kfac = Kfac(fisher=fisher)
    whole = run_micro_batch(loaded, inputs, labels, np.arange(5), 0, kfac)
    keys = set(whole.factors)
    found = run_micro_batch(
        loaded,
        inputs,
        labels,
        np.arange(5),
        0,
        kfac,
        blocks={key: () for key in keys},
        unformed=keys,
    )
    assert found.factors == {}
    assert whole.rows == {}
    passes = {"empirical": 1, "sampled": 1, "exact": 10}[fisher]
    vectors = {shape.name: shape.factor_vectors for shape in model.workload.layers}
    assert found.rows.keys() == keys
    for (layer, side), rows in found.rows.items():
        np.testing.assert_allclose(rows.T @ rows, whole.factors[layer, side], rtol=1e-9, atol=1e-12)
        # What a plan takes them to be.
        assert len(rows) == 5 * vectors[layer] * (passes if side == "G" else 1)


def test_vectors_that_are_drawn_stand_for_all():
    """The rows of a factor are those that were drawn, and its mean over many draws is the whole
    factor: within five times its standard error.
    """
    model = build_model(load_settings(["model=digits_cnn", "model.sharing=expand"]).model)
    loaded = load_weights(model, init_weights(model, 3), make_engine(EXACT, 3), 0)
    random = np.random.default_rng(4)
    inputs, labels = random.normal(size=(5, *model.spec.input_shape)), random.integers(0, 10, 5)
    kfac, numbers = Kfac(fisher="empirical"), np.arange(5)
    whole = run_micro_batch(loaded, inputs, labels, numbers, 0, kfac)
    keys, share = set(whole.factors), 0.3
    drawn = [
        run_micro_batch(loaded, inputs, labels, numbers, n, kfac, unformed=keys, positions=share)
        for n in range(40)
    ]
    vectors = {shape.name: shape.sampled_factor_vectors(share) for shape in model.workload.layers}
    several = {shape.name: shape.factor_vectors > 1 for shape in model.workload.layers}
    for (layer, side), factor in whole.factors.items():
        found = np.array([part.factors[layer, side] for part in drawn])
        for part in drawn:
            rows = part.rows[layer, side]
            assert len(rows) == 5 * vectors[layer]
            np.testing.assert_allclose(rows.T @ rows, part.factors[layer, side], atol=1e-12)
        if not several[layer]:
            np.testing.assert_allclose(found[0], factor, rtol=1e-12)
            continue
        traces = found.trace(axis1=1, axis2=2)
        assert np.ptp(traces) > 0
        error = np.std(traces, ddof=1) / np.sqrt(len(traces))
        assert abs(traces.mean() - np.trace(factor)) < 5 * error
        spread = found.std(axis=0, ddof=1) / np.sqrt(len(found))
        assert (np.abs(found.mean(axis=0) - factor) < 5 * spread + 1e-12).all()
    for part in drawn:
        for name, gradient in whole.gradients.items():
            np.testing.assert_allclose(part.gradients[name], gradient, rtol=1e-9, atol=1e-12)


def _batches(count, rows=4, size=3):
    return np.random.default_rng(1).normal(size=(count, rows, size))


def _formed(batches, optimizer):
    average = None
    for number, rows in enumerate(batches, 1):
        past, present = optimizer.average_weights(number)
        fresh = rows.T @ rows
        average = fresh if average is None else past * average + present * fresh
    return average


@pytest.mark.parametrize("rest", ["scaled", "identity"])
@pytest.mark.parametrize("decay", [0.0, 0.6, 0.95])
def test_rows_of_all_batches_are_the_running_average(rest, decay):
    optimizer, batches, average = Kfac(factor_decay=decay), _batches(7), None
    for rows in batches:
        average = updated_rows(average, rows, 9, optimizer)
    held = average.operator(0.25, rest)
    assert held.rows.shape == (3, 9 * 4)
    expected = _formed(batches, optimizer) + 0.25 * np.eye(3)
    np.testing.assert_allclose(held.formed(), expected, rtol=1e-12)


@pytest.mark.parametrize("count", [3, 4, 30])
@pytest.mark.parametrize("decay", [0.0, 0.6, 0.95])
def test_batches_that_are_left_out_leave_their_trace_or_their_weight(decay, count):
    """What the last three of them have in the average, and what stands for the others."""
    optimizer, batches, average = Kfac(factor_decay=decay), _batches(count), None
    for rows in batches:
        average = updated_rows(average, rows, 3, optimizer)
    whole = _formed(batches, optimizer)
    products = np.array([rows.T @ rows for rows in batches])
    weights = np.ones(1)
    for number in range(2, count + 1):
        past, present = optimizer.average_weights(number)
        weights = np.append(past * weights, present)
    last = np.tensordot(weights[-3:], products[-3:], 1)
    identity = average.operator(0.0, "identity").formed()
    np.testing.assert_allclose(np.trace(identity), np.trace(whole), rtol=1e-12)
    np.testing.assert_allclose(
        identity, last + np.trace(whole - last) / 3 * np.eye(3), rtol=1e-9, atol=1e-12
    )
    scaled = average.operator(0.0, "scaled").formed()
    np.testing.assert_allclose(scaled, last / weights[-3:].sum(), rtol=1e-12)
    left_out = weights[:-3].sum()
    assert average.rest_weight == pytest.approx(left_out)
    assert left_out <= decay**3 + 1e-12
