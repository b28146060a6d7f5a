"""Optimizers of a user's own train on a farm, and a target accuracy ends training."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import final_arrays
from micro_batches import run_micro_batch
from rich.console import Console

from repast_dist.ground.errors import RunDirectoryError, SettingsError
from repast_dist.network.model import build_model, init_weights
from repast_dist.ops.op import OPS
from repast_dist.planning.ops import step_ops
from repast_dist.settings import load_settings
from repast_dist.studies import resume_study
from repast_dist.studies.costing import planned_step
from repast_dist.studies.settings import training_job
from repast_dist.trace import read_solves, read_trace
from repast_dist.training.engines import make_engine
from repast_dist.training.sampling import micro_batch_samples
from repast_dist.training.step import load_weights

OWN = f"plugins=[{Path(__file__).with_name('own_optimizers.py')}]"
SMALL = ("model=digits_mlp", "train.batch_size=48", "soi.block_size=24", "train.epochs=1",
         "farm.backend=inprocess")  # fmt: skip
ONE_STEP = ("engine=float64", "train.max_steps=1", "soi.block_size=1024", "farm.backend=inprocess",
            "model=digits_mlp")  # fmt: skip


def _own(method):
    return (OWN, "~optimizer", f"+optimizer={{method: {method}, learning_rate: 0.01}}")


@pytest.mark.parametrize(
    "method",
    ["sign", *(pytest.param(m, marks=pytest.mark.slow) for m in ("only_right", "fourth_roots"))],
)
def test_a_users_optimizer_trains_alike_on_any_number_of_chips(train, method):
    runs = [
        train(*SMALL, *_own(method), "train.max_steps=4", "inversion.on_divergence=use",
              f"farm.chips={chips}")
        for chips in (1, 3)
    ]  # fmt: skip
    one, three = (final_arrays(run) for run in runs)
    assert one == three
    sides = set(read_solves(runs[0])["factor"].to_pylist()) if method != "sign" else set()
    assert sides == {"sign": set(), "only_right": {"G"}}.get(method, {"A", "G"})


@pytest.mark.parametrize(
    "method",
    ["adamw", "foof", pytest.param("muon", marks=pytest.mark.slow), "newton_muon", "shampoo"],
)
def test_a_shipped_optimizer_trains_alike_on_any_number_of_chips(train, method):
    options = (*SMALL, f"optimizer={method}", "train.max_steps=4")
    one, three = (train(*options, f"farm.chips={chips}") for chips in (1, 3))
    assert final_arrays(one) == final_arrays(three)
    second = method in ("foof", "newton_muon")
    sides = set(read_solves(one)["factor"].to_pylist()) if second else set()
    assert sides == ({"A"} if second else set())


def test_foof_forms_solves_and_prices_the_moments_of_inputs_alone(train):
    """The rows of the trace are those of the plan, which also prices what is only planned."""
    options = (*SMALL, "optimizer=foof", "train.max_steps=1", "farm.chips=2", "workload=model")
    rows = read_trace(train(*options) / "trace").to_pylist()
    kinds = {row["op"] for row in rows}
    assert {"factor_a", "solve_a", "reduce_factors"} <= kinds
    assert not kinds & {"factor_g", "solve_g", "write_errors", "vmm_fisher", "clip"}
    planned = planned_step(load_settings(list(options)))
    table = step_ops(planned, None, 0, factors_due=True, inverses_due=True)
    named = {number.number: number.name for number in OPS}
    assert {named[int(number)] for number in table["op"]} == kinds


def test_foofs_first_step_is_the_gradient_behind_the_inverse_moment_of_inputs(train):
    """The run against numpy's solve."""
    options = (*ONE_STEP, "optimizer=foof", "optimizer.schedule=constant",
               "optimizer.damping=0.2", "optimizer.learning_rate=0.01")  # fmt: skip
    run_dir = train(*options)
    job = training_job(load_settings(list(options)))
    model, data = build_model(job.model), job.dataset.load()
    weights = init_weights(model, job.seed)
    loaded = load_weights(model, weights, make_engine(job.engine, job.seed), 0)
    name, batch = model.preconditioned[0].name, job.train.batch_size
    gradient, moment = 0.0, 0.0
    for number in range(job.train.micro_batches):
        chosen = micro_batch_samples(job.seed, len(data.train_inputs), job.train, 0, number)
        images, labels = data.train_inputs[chosen], data.train_labels[chosen]
        gradient += run_micro_batch(loaded, images, labels, chosen, number).gradients[name]
        rows = np.hstack([images.reshape(len(chosen), -1), np.ones((len(chosen), 1))])
        moment += rows.T @ rows
    damped = moment / batch + 0.2 * np.eye(len(moment))
    expected = weights[name] - 0.01 * np.linalg.solve(damped, gradient / batch)
    found = np.frombuffer(final_arrays(run_dir)[f"weights/{name}"], np.float32)
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_users_second_order_optimizer_trains_on_two_workers(train):
    options = (
        *SMALL[:4],
        *_own("fourth_roots"),
        "train.max_steps=3",
        "inversion.on_divergence=use",
    )
    alone = train(*options, "farm.backend=inprocess", "farm.chips=1")
    assert final_arrays(train(*options, "farm.chips=2")) == final_arrays(alone)


def test_shampoos_first_step_is_the_gradient_between_inverse_fourth_roots(train):
    """The run against numpy: L and R from the micro-batches' gradients, roots by eigenvalues."""
    options = (*ONE_STEP, *_own("fourth_roots"))
    run_dir = train(*options)
    job = training_job(load_settings(list(options)))
    model, data = build_model(job.model), job.dataset.load()
    weights = init_weights(model, job.seed)
    loaded = load_weights(model, weights, make_engine(job.engine, job.seed), 0)
    parts = []
    for number in range(job.train.micro_batches):
        chosen = micro_batch_samples(job.seed, len(data.train_inputs), job.train, 0, number)
        images, labels = data.train_inputs[chosen], data.train_labels[chosen]
        parts.append(run_micro_batch(loaded, images, labels, chosen, number).gradients)
    name, batch = model.preconditioned[0].name, job.train.batch_size

    def root(matrix):
        values, vectors = np.linalg.eigh(matrix + job.optimizer.damping * np.eye(len(matrix)))
        return vectors @ np.diag(values**-0.25) @ vectors.T

    left = root(sum(part[name] @ part[name].T for part in parts) / batch)
    right = root(sum(part[name].T @ part[name] for part in parts) / batch)
    expected = weights[name] - 0.01 * left @ (sum(p[name] for p in parts) / batch) @ right
    found = np.frombuffer(final_arrays(run_dir)[f"weights/{name}"], np.float32)
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-5, atol=1e-6)


def test_an_optimizer_takes_its_own_settings_only():
    with pytest.raises(SettingsError, match=r"optimizer.beta1: unknown setting.*kl_clip"):
        load_settings(["+optimizer.beta1=0.5"])
    with pytest.raises(SettingsError, match=r"optimizer.damping: unknown setting.*momentum"):
        load_settings(["optimizer=sgd", "+optimizer.damping=0.5"])


@pytest.fixture
def to_target(train):
    """Train four short epochs towards a target that the first of them reaches."""

    def run(*options):
        return train("model=digits_mlp", "engine=float64", "train.epochs=4", "soi.interval=5",
                     "train.target_accuracy=0.5", "farm.backend=inprocess", *options)  # fmt: skip

    return run


def test_training_ends_after_the_epoch_that_reaches_the_target_accuracy(to_target):
    run_dir, three = to_target("farm.chips=1"), to_target("farm.chips=3")
    result = json.loads((run_dir / "result.json").read_text())
    reached = [epoch["test_accuracy"] >= 0.5 for epoch in result["epochs"]]
    assert reached == [False] * (len(reached) - 1) + [True]
    assert len(reached) < 4
    assert result["status"] == "finished"
    (event,) = [item for item in result["events"] if item["kind"] == "target"]
    assert "train.target_accuracy=0.5" in event["message"]
    assert final_arrays(three) == final_arrays(run_dir)
    before = final_arrays(run_dir)
    with pytest.raises(RunDirectoryError, match="the run is finished, there is nothing to resume"):
        resume_study(run_dir, {}, Console(file=io.StringIO()))
    again = json.loads((run_dir / "result.json").read_text())
    assert (again["epochs"], again["steps"]) == (result["epochs"], result["steps"])
    assert [item["kind"] for item in again["events"]].count("target") == 1
    assert final_arrays(run_dir) == before


def test_a_target_accuracy_of_a_network_without_classes_is_refused(train):
    with pytest.raises(SettingsError, match=r"train.target_accuracy=0.5: .* has no accuracy"):
        train("model=fashion_autoencoder_small", "dataset=fashion_1280", "farm.backend=inprocess",
              "train.target_accuracy=0.5")  # fmt: skip


def test_a_test_follows_every_so_many_epochs_and_the_last_one(train):
    """What is trained does not depend on it; a run of four epochs is tested after 3 and 4."""
    options = ("model=digits_mlp", "optimizer=sgd", "engine=float64", "farm.backend=inprocess",
               "train.epochs=4", "dataset.train_samples=256", "train.batch_size=64")  # fmt: skip
    often, rarely = (
        json.loads((train(*options, f"train.test_every={every}") / "result.json").read_text())
        for every in (1, 3)
    )
    assert [record["epoch"] for record in often["epochs"]] == [1, 2, 3, 4]
    assert rarely["epochs"] == [often["epochs"][2], often["epochs"][3]]
    assert [s["loss"] for s in rarely["steps"]] == [s["loss"] for s in often["steps"]]
