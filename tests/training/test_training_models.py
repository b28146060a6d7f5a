"""Networks: what is refused and why, and what the shipped ones are."""

import itertools

import numpy as np
import pytest
import yaml
from micro_batches import run_micro_batch
from training_networks import CONF, float_engine, network, samples, shipped_model

from repast_dist.ground.errors import SettingsError
from repast_dist.ground.spec import load
from repast_dist.network.model import ModelSpec, init_weights
from repast_dist.settings import load_settings
from repast_dist.training.optimizers import OPTIMIZERS
from repast_dist.training.specs import EngineSpec
from repast_dist.training.step import load_weights

MODELS = sorted({path.stem for path in (CONF / "model").glob("*.yaml")} - {"factory", "onnx"})
DENSE = {"kind": "dense", "outputs": 3}


@pytest.mark.parametrize("name", MODELS)
def test_shipped_networks_start_near_the_loss_of_guessing(name: str) -> None:
    """That is ln 10 for ten classes, ln 73 per character, ln 2 per pixel for reconstruction."""
    model = shipped_model(name)
    inputs, labels, numbers = samples(model, 32)
    loaded = load_weights(model, init_weights(model, 0), float_engine(), 0)
    result = run_micro_batch(loaded, 0.5 * inputs, labels, numbers, 0)
    per_unit = 1.0 if model.spec.classifies else np.prod(model.spec.input_shape)
    expected = np.log(model.chain.output_shape[-1] if model.spec.classifies else 2)
    assert result.loss_sum / 32 / per_unit == pytest.approx(expected, rel=0.6)


def test_the_papers_autoencoder_has_its_published_size() -> None:
    """784-1000-500-250-30 and back: 2,837,314 weights and biases (Hinton, Salakhutdinov 2006)."""
    weights = init_weights(shipped_model("fashion_autoencoder"), 0)
    sizes = [784, 1000, 500, 250, 30, 250, 500, 1000, 784]
    expected = sum((a + 1) * b for a, b in itertools.pairwise(sizes))
    assert sum(w.size for w in weights.values()) == expected == 2_837_314


@pytest.mark.parametrize(
    ("group", "cls"),
    [
        ("engine", EngineSpec),
        ("model", ModelSpec),
    ],
)
def test_every_shipped_setting_is_valid(group: str, cls: type) -> None:
    for path in (CONF / group).glob("*.yaml"):
        if path.stem not in ("factory", "onnx"):
            load(cls, yaml.safe_load(path.read_text()), group)


@pytest.mark.slow
def test_every_shipped_optimizer_is_valid() -> None:
    presets = [path.stem for path in (CONF / "optimizer").glob("*.yaml")]
    names = {load_settings([f"optimizer={preset}"]).optimizer.method for preset in presets}
    assert names == set(OPTIMIZERS.names())


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([DENSE], r"model.layers\[0\]: dense takes features or tokens: put flatten before"),
        ([{"kind": "max_pool", "size": 3}, {"kind": "flatten"}, DENSE], "do not divide"),
        ([{"kind": "conv", "outputs": 2, "kernel": 9}], "kernel of 9 does not fit"),
        ([{"kind": "flatten"}, {**DENSE, "name": "a"}, {**DENSE, "name": "a"}], "used twice: a"),
        ([{"kind": "conv", "outputs": 2}], "is no vector"),
        ([{"kind": "flatten"}, {"kind": "attention"}], "attention takes tokens"),
        ([{"kind": "patches", "size": 2}, {"kind": "attention", "heads": 3}],
         "3 heads do not divide 8"),
        ([{"kind": "norm", "groups": 3}, {"kind": "flatten"}, DENSE], "3 groups do not divide 2"),
        ([{"kind": "residual", "body": [{"kind": "conv", "outputs": 5, "kernel": 1}]},
          {"kind": "flatten"}, DENSE], r"body gives \(5, 4, 4\), shortcut \(2, 4, 4\)"),
    ],
)  # fmt: skip
def test_layers_that_do_not_fit_are_named_with_the_reason(layers: list[dict], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        network(layers)


def test_a_reconstruction_needs_as_many_outputs_as_pixels() -> None:
    with pytest.raises(SettingsError, match="needs 32 outputs, got 3"):
        network([{"kind": "flatten"}, DENSE], loss="squared_error")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "convolution"}, "layers"),
        ({"kind": "dense", "outputs": 0}, "outputs"),
        ({"kind": "dense", "outputs": 3, "biass": True}, "biass"),
    ],
)
def test_unknown_or_impossible_layer_settings_are_refused(change: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        network([{"kind": "flatten"}, change])


def test_weights_depend_on_seed_and_layer_name_alone() -> None:
    short = network([{"kind": "flatten"}, {**DENSE, "name": "head"}])
    first = init_weights(short, 5)["head"]
    np.testing.assert_array_equal(first, init_weights(short, 5)["head"])
    assert not np.array_equal(first, init_weights(short, 6)["head"])


@pytest.mark.parametrize(("rule", "variance"), [("he", 2 / 256), ("glorot", 2 / 384)])
def test_initial_weights_have_the_variance_of_their_rule(rule: str, variance: float) -> None:
    layers = [{"kind": "flatten"}, {"kind": "dense", "outputs": 128}]
    weights = init_weights(network(layers, (1, 16, 16), initialisation=rule), 0)["dense1"]
    assert weights[:-1].var() == pytest.approx(variance, rel=0.05)
    assert (weights[-1] == 0).all()


def test_sparse_initialisation_gives_every_unit_fifteen_inputs() -> None:
    layers = [{"kind": "flatten"}, {"kind": "dense", "outputs": 20}]
    weights = init_weights(network(layers, (1, 8, 8), initialisation="sparse"), 0)["dense1"]
    assert (np.count_nonzero(weights[:-1], axis=0) == 15).all()


def test_results_of_one_sample_do_not_depend_on_its_neighbours() -> None:
    """Normalisation and attention never cross samples."""
    for name in ("digits_resnet", "digits_transformer"):
        model = shipped_model(name)
        inputs, labels, numbers = samples(model, 3)
        loaded = load_weights(model, init_weights(model, 0), float_engine(), 0)
        alone = [
            run_micro_batch(loaded, inputs[[n]], labels[[n]], numbers[[n]], 0).loss_sum
            for n in range(3)
        ]
        together = run_micro_batch(loaded, inputs, labels, numbers, 0).loss_sum
        assert together == pytest.approx(sum(alone), rel=1e-12)
