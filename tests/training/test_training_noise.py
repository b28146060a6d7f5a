"""The noise of gradients is measured, and solves get as many bits as it leaves them."""

import json

import numpy as np
import pytest
from micro_batches import run_micro_batch

from repast_dist.farm.peers import NoPeers
from repast_dist.farm.setup import beginning, make_setup
from repast_dist.farm.worker import ChipWorker
from repast_dist.ground.errors import SettingsError
from repast_dist.planning.plan import Plan
from repast_dist.settings import load_settings
from repast_dist.studies.settings import training_job
from repast_dist.trace import read_solves, read_trace
from repast_dist.training.gradient_noise import GradientNoise
from repast_dist.training.sampling import micro_batch_samples

SMALL = (
    "farm.backend=inprocess", "farm.chips=1", "model=digits_mlp", "soi.block_size=40",
    "soi.interval=2", "train.batch_size=32", "train.micro_batch_size=8", "train.max_steps=5",
    "train.epochs=1", "inversion.target_bits=9", "soi.residual_to_noise=0.5",
)  # fmt: skip


def _drawn(gradient: np.ndarray, sigma: float, share: float, steps: int) -> GradientNoise:
    """Batches of four micro-batches of five samples, whose gradients have normal noise."""
    found = GradientNoise(["one"], 4, 5, share, decay=1.0)
    rng = np.random.default_rng(3)
    for _ in range(steps):
        samples = gradient + sigma * rng.standard_normal((4, 5, *gradient.shape))
        squares = [found.squares({"one": one.sum(axis=0)}, ["one"]) for one in samples]
        found.add(
            {"one": float(np.sum(squares)) / 20},
            {"one": float(np.sum(samples.mean(axis=(0, 1)) ** 2))},
        )
    return found


def test_noise_is_that_of_the_mean_of_all_samples():
    gradient = np.random.default_rng(1).standard_normal((30, 20))
    found = _drawn(gradient, sigma=0.7, share=0.25, steps=40)
    noise = 0.7**2 * gradient.size / 20
    expected = np.sqrt(noise / (np.sum(gradient**2) + noise))
    assert found.relative()["one"] == pytest.approx(expected, rel=0.02)
    # A quarter of 0.155 is 2^-4.7.
    assert found.bits(16) == {"one": 5}
    assert found.bits(4) == {"one": 4}


def test_a_gradient_of_noise_alone_asks_for_the_fewest_bits_and_an_unknown_one_for_the_most():
    assert _drawn(np.zeros((30, 20)), sigma=1.0, share=0.9, steps=3).bits(8) == {"one": 2}
    assert _drawn(np.ones((30, 20)), sigma=0.0, share=0.9, steps=3).bits(8) == {"one": 8}
    assert GradientNoise(["one"], 4, 5, 0.5, 0.9).bits(8) == {"one": 8}


def _worker() -> ChipWorker:
    loaded = load_settings([*SMALL, "engine=float64", "engine.inverse=analog"])
    setup = make_setup(training_job(loaded), loaded.dataset.load())
    worker = ChipWorker((0,), setup, NoPeers())
    worker.restore(0, beginning(setup).arrays)
    return worker


def test_noise_of_a_training_is_that_of_gradients_that_are_computed_anew():
    worker = _worker()
    network, data, train = worker._setup.network, worker._setup.data, worker._setup.job.train
    names, expected = worker._setup.measured, []
    for step in range(2):
        loaded = network.load(worker._replica.values, worker._engines[0], step)
        parts = []
        for number in range(4):
            samples = micro_batch_samples(0, len(data.train_inputs), train, step, number)
            inputs, labels = data.batch(samples, 0, step)
            parts.append(run_micro_batch(loaded, inputs, labels, samples, number).gradients)
        for name in names:
            each = [part[name] / 8 for part in parts]
            whole = np.mean(each, axis=0)
            expected.append([np.mean([np.sum(one**2) for one in each]), np.sum(whole**2)])
        worker.advance(step, 1)
    both = np.mean(np.reshape(expected, (2, len(names), 2)), axis=0)
    state = worker.common_state()
    np.testing.assert_allclose(state["noise/squares"], both, rtol=1e-9)
    worker.advance(2, 1)
    asked = {
        block.block.layer_name: block._written.bits for block in worker._second_order.held.values()
    }
    for name, (part, whole) in zip(names, both, strict=True):
        share = 0.5 * np.sqrt((part - whole) / 3 / whole)
        assert asked[name] == np.clip(np.ceil(-np.log2(min(share, 0.5))), 2, 9)


def test_reports_name_the_target_and_what_measuring_takes_is_in_trace_and_plan(train, tmp_path):
    run = train(*SMALL, root=tmp_path)
    solves = read_solves(run).to_pylist()
    first = {row["target_bits"] for row in solves if row["step"] < 2}
    later = {row["target_bits"] for row in solves if row["step"] >= 2}
    assert first == {9}
    assert max(later) < 9
    for row in solves:
        assert not row["converged"] or row["residual"] <= 2.0 ** -row["target_bits"]
    assert any(row["residual"] > 2.0**-9 for row in solves)
    plan = _plan()
    wanted = {(layer, k) for layer in plan.measured_layers for k in range(4)}
    # The first step runs a micro-batch more, for ADC ranges.
    for step in range(1, 5):
        rows = [
            row
            for row in read_trace(run / "trace").to_pylist()
            if row["op"] == "measure_gradient" and row["step"] == step
        ]
        assert {(row["layer"], row["micro_batch"]) for row in rows} == wanted
        for row in rows:
            # A square is a multiplication that is added up: one operation per parameter.
            assert row["digital_ops"] == plan.layers.parameters[row["layer"]]
    result = json.loads((run / "result.json").read_text())
    assert len(result["steps"]) == 5


def _plan() -> Plan:
    loaded = load_settings([*SMALL])
    return make_setup(training_job(loaded), loaded.dataset.load()).plan


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("engine=float64",), r"residual_to_noise=0.5 with engine.inverse=float64.*valid: 0"),
        (("train.micro_batch_size=32",), r"residual_to_noise=0.5 with one micro-batch.*valid: 0"),
    ],
)
def test_noise_is_not_measured_where_it_tells_nothing(settings, message):
    loaded = load_settings([*SMALL, *settings])
    with pytest.raises(SettingsError, match=message):
        make_setup(training_job(loaded), loaded.dataset.load())
