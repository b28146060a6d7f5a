"""Networks that tell the next token: a text in windows, look-ups, causal attention, their loss."""

import bz2
import re
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from micro_batches import run_micro_batch
from training_networks import float_engine, network

import repast_dist as rd
from repast_dist.ground.errors import DataError, SettingsError
from repast_dist.network.model import Model, init_weights
from repast_dist.network.node import Pass
from repast_dist.settings import load_settings
from repast_dist.training.datasets.npz import Npz
from repast_dist.training.datasets.text import SHIPPED, Text
from repast_dist.training.losses import exact_errors, loss_value, sampled_errors
from repast_dist.training.step import load_weights
from repast_dist.training.task import check_task, fisher_passes

ENTRIES, TOKENS = 5, 6
LAYERS = [
    {"kind": "embedding", "entries": ENTRIES, "width": 4},
    {"kind": "positions"},
    {"kind": "residual",
     "body": [{"kind": "norm"}, {"kind": "attention", "heads": 2, "causal": True}]},
    {"kind": "dense", "outputs": ENTRIES},
]  # fmt: skip


def tokens_network(layers: list[dict] = LAYERS) -> Model:
    return network(layers, (1, 1, TOKENS), loss="next_token")


def tokens(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    inputs = random.integers(0, ENTRIES, (count, 1, 1, TOKENS)).astype(np.float32)
    return inputs, random.integers(0, ENTRIES, (count, TOKENS))


def test_gradients_equal_central_differences() -> None:
    model, (inputs, labels) = tokens_network(), tokens(4)
    random = np.random.default_rng(3)
    weights = {
        name: w.astype(np.float64) + 0.1 * random.standard_normal(w.shape)
        for name, w in init_weights(model, 0).items()
    }

    def run(changed: dict[str, np.ndarray]):
        loaded = load_weights(model, changed, float_engine(), 0)
        return run_micro_batch(loaded, inputs, labels, np.arange(4), 0)

    gradients = run(weights).gradients
    assert set(gradients) == set(weights)
    for name, w in weights.items():
        direction = random.standard_normal(w.shape)
        up, down = (run({**weights, name: w + s * direction}).loss_sum for s in (1e-5, -1e-5))
        assert np.vdot(gradients[name], direction) == pytest.approx(
            (up - down) / 2e-5, rel=2e-6, abs=1e-7
        )


@pytest.mark.parametrize("causal", [True, False])
def test_a_later_token_changes_no_earlier_output_of_causal_attention(causal: bool) -> None:
    layers = [dict(layer) for layer in LAYERS]
    layers[2] = {"kind": "residual", "body": [{"kind": "attention", "heads": 2, "causal": causal}]}
    model, (inputs, _) = tokens_network(layers), tokens(3)
    loaded = load_weights(model, init_weights(model, 0), float_engine(), 0)
    calls = (("micro_batch", 0, 0),)
    run = Pass(loaded.weights, loaded.forward, loaded.backward, loaded.engine, calls)
    changed = inputs.copy()
    changed[..., 4] = (changed[..., 4] + 1) % ENTRIES
    before, after = (model.chain.forward(x, run)[0] for x in (inputs, changed))
    moved = np.abs(before - after).max(axis=(0, 2))
    assert (moved[:4] == 0).all() == causal
    assert (moved[4:] > 0).all()


def _fisher_of_the_outputs(outputs: np.ndarray) -> np.ndarray:
    """Hessian of the mean over tokens of the cross entropy, by its formula, (T D, T D)."""
    count, classes = outputs.shape
    hessian = np.zeros((count * classes, count * classes))
    for token, z in enumerate(outputs):
        p = np.exp(z) / np.exp(z).sum()
        part = slice(token * classes, (token + 1) * classes)
        hessian[part, part] = (np.diag(p) - np.outer(p, p)) / count
    return hessian


def test_the_loss_is_the_mean_over_tokens_and_its_fisher_the_hessian() -> None:
    outputs = np.random.default_rng(1).standard_normal((1, 3, 4))
    labels = np.array([[2, 0, 3]])
    value = loss_value("next_token", outputs, outputs, labels)
    p = np.exp(outputs[0]) / np.exp(outputs[0]).sum(axis=1, keepdims=True)
    assert value.total == pytest.approx(-np.log(p[range(3), labels[0]]).mean())
    assert value.correct == pytest.approx((p.argmax(axis=1) == labels[0]).mean())
    np.testing.assert_allclose(value.errors[0], (p - np.eye(4)[labels[0]]) / 3, atol=1e-15)
    hessian = _fisher_of_the_outputs(outputs[0])
    exact = np.array([errors.reshape(-1) for errors in exact_errors("next_token", outputs)])
    np.testing.assert_allclose(exact.T @ exact, hessian, atol=1e-15)
    assert len(exact) == 12
    many = np.repeat(outputs, 20_000, axis=0)
    drawn = sampled_errors("next_token", many, 0, 0, np.arange(20_000)).reshape(20_000, -1)
    # Products of two draws have a standard deviation below 0.1.
    np.testing.assert_allclose(drawn.T @ drawn / 20_000, hessian, atol=5 * 0.1 / 20_000**0.5)


def test_the_exact_fisher_matrix_takes_a_pass_per_token_and_class() -> None:
    assert fisher_passes(tokens_network(), "exact") == TOKENS * ENTRIES


@pytest.mark.slow
def test_windows_of_the_shipped_text_hold_it_whole_and_each_label_is_the_next_character() -> None:
    data = Text(tokens=50).load()
    raw = (files("repast_dist.training.datasets") / "files" / SHIPPED).read_bytes()
    text = bz2.decompress(raw).decode()
    characters = sorted(set(text))
    assert data.classes == len(characters) == 73
    assert data.labels == "tokens"
    assert data.input_shape == (50,)
    assert data.train_inputs.dtype == np.int64

    def spelled(numbers: np.ndarray) -> str:
        return "".join(characters[int(number)] for number in numbers)

    windows = [text[i : i + 51] for i in range(0, len(text) - 50, 50)]
    held_out = round(0.1 * len(windows))
    for part, inputs, labels in (
        (windows[:-held_out], data.train_inputs, data.train_labels),
        (windows[-held_out:], data.test_inputs, data.test_labels),
    ):
        found = [spelled(x) + spelled(y[-1:]) for x, y in zip(inputs, labels, strict=True)]
        assert sorted(found) == sorted(part)
        assert found != part
        np.testing.assert_array_equal(inputs[:, 1:], labels[:, :-1])


def test_texts_of_ones_own_and_what_is_wrong_with_them(tmp_path: Path) -> None:
    path = tmp_path / "text"
    with pytest.raises(DataError, match=r"dataset\.path: .* cannot be read"):
        Text(path=str(path)).load()
    path.write_text("àb" * 40)
    data = Text(path=str(path), tokens=4).load()
    assert data.classes == 2
    assert len(data.train_inputs) + len(data.test_inputs) == 19
    with pytest.raises(DataError, match="80 characters, which is 1 windows of 50"):
        Text(path=str(path), tokens=50).load()
    path.write_bytes(b"\xff\xfe\x00 no UTF-8")
    with pytest.raises(DataError, match="valid: a file of UTF-8 text"):
        Text(path=str(path)).load()
    path.write_text("".join(map(chr, range(5000, 7000))))
    with pytest.raises(DataError, match="2000 different characters; valid: at most 1024"):
        Text(path=str(path)).load()
    with pytest.raises(SettingsError, match=r"dataset\.scaling: .*unit"):
        load_settings(["dataset=text", "dataset.scaling=unit"])


def rule(path: Path, **changes: np.ndarray) -> str:
    """Save sequences in which each token is one more than the one before, modulo 5."""
    starts = np.arange(120)[:, None] * 7
    x = (starts + np.arange(TOKENS)) % ENTRIES
    arrays = {"x_train": x[:80], "x_test": x[80:]}
    arrays |= {name.replace("x_", "y_"): (v + 1) % ENTRIES for name, v in arrays.items()}
    np.savez(path / "rule.npz", **arrays | changes)
    return str(path / "rule.npz")


@pytest.mark.slow
def test_a_network_learns_the_next_token_of_arrays_of_ones_own(tmp_path: Path) -> None:
    layers = (
        f"model.layers=[{{kind: embedding, entries: {ENTRIES}, width: 8}}, {{kind: positions}}, "
        "{kind: residual, body: [{kind: attention, heads: 2, causal: true}]}, "
        f"{{kind: dense, outputs: {ENTRIES}}}]"
    )
    common = ("model=text_gpt", layers, f"model.input_shape=[1,1,{TOKENS}]", "dataset=npz",
              f"dataset.path={rule(tmp_path)}", "dataset.targets=tokens", "dataset.scaling=none",
              "train.batch_size=16", "train.micro_batch_size=8", "farm=inprocess")  # fmt: skip
    run = rd.train(*common, "train.epochs=20", "engine=float64", run_root=tmp_path)
    assert run.result["epochs"][-1]["test_accuracy"] > 0.95
    assert run.result["epochs"][-1]["test_loss"] < 0.5
    steps = [
        rd.train(
            *common, "train.epochs=1", "train.max_steps=2", f"farm.chips={chips}",
            run_root=tmp_path / str(chips),
        ).result["steps"]
        for chips in (1, 3)
    ]  # fmt: skip
    assert [step["loss"] for step in steps[0]] == [step["loss"] for step in steps[1]]


def test_tokens_that_are_none_are_refused(tmp_path: Path) -> None:
    path = rule(tmp_path)
    with pytest.raises(DataError, match=r"dataset\.scaling: standard does not fit tokens"):
        Npz(path=path, targets="tokens", scaling="standard").load()
    for wrong, message in (
        (np.full((80, TOKENS), 0.5), "whole numbers from 0"),
        (np.zeros((80, TOKENS - 1), np.int64), re.escape("valid: (N, T) for both")),
    ):
        path = rule(tmp_path, x_train=wrong)
        with pytest.raises(DataError, match=message):
            Npz(path=path, targets="tokens", scaling="none").load()
    path = rule(tmp_path, y_test=np.full((40, TOKENS), 5))
    with pytest.raises(DataError, match="the test set has class 5"):
        Npz(path=path, targets="tokens", scaling="none").load()


def test_networks_and_data_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    data = Npz(path=rule(tmp_path), targets="tokens", scaling="none").load()
    check_task(tokens_network(), data)
    few = [{**LAYERS[0], "entries": 4}, *LAYERS[1:]]
    with pytest.raises(SettingsError, match=r"entries: 4 for the 5 tokens of npz"):
        check_task(tokens_network(few), data)
    with pytest.raises(SettingsError, match="3 outputs for the 5 tokens"):
        check_task(tokens_network([*LAYERS[:-1], {"kind": "dense", "outputs": 3}]), data)
    classifies = network([{"kind": "flatten"}, {"kind": "dense", "outputs": 5}], (1, 1, TOKENS))
    with pytest.raises(SettingsError, match="cross_entropy does not fit npz, whose labels are tok"):
        check_task(classifies, data)
    with pytest.raises(SettingsError, match="is no vector per token"):
        tokens_network([*LAYERS, {"kind": "flatten"}])
    with pytest.raises(SettingsError, match="it must be the first layer"):
        tokens_network([{"kind": "patches", "size": 1}, *LAYERS])
