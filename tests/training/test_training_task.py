"""Networks and data sets that do not fit each other, and what a factor update costs."""

import numpy as np
import pytest
from micro_batches import run_micro_batch
from training_networks import float_engine, network, samples, shipped_model

from repast_dist.ground.errors import SettingsError
from repast_dist.network.model import init_weights
from repast_dist.network.node import Chain
from repast_dist.training.datasets.digits import Digits
from repast_dist.training.optimizers.kfac import Kfac
from repast_dist.training.step import load_weights
from repast_dist.training.task import check_task, fisher_passes

FEW = [{"kind": "flatten"}, {"kind": "dense", "outputs": 7}]


def test_a_network_for_other_samples_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"\(1, 28, 28\), dataset digits has \(1, 8, 8\)"):
        check_task(shipped_model("fashion_mlp"), Digits().load())


def test_fewer_outputs_than_classes_are_refused() -> None:
    with pytest.raises(SettingsError, match="7 outputs for the 10 classes of digits"):
        check_task(network(FEW, (1, 8, 8)), Digits().load())


def test_pixel_likelihoods_need_pixels_between_0_and_1() -> None:
    model = shipped_model("digits_autoencoder")
    check_task(model, Digits().load())
    with pytest.raises(SettingsError, match=r"inputs in 0\.\.1.*dataset\.scaling=unit"):
        check_task(model, Digits(scaling="standard").load())


@pytest.mark.parametrize(("fisher", "passes"), [("empirical", 0), ("sampled", 1), ("exact", 7)])
def test_the_fisher_takes_the_backward_passes_it_says(
    fisher: str, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = network(FEW)
    assert fisher_passes(model, fisher) == passes
    count, original = [], Chain.backward

    def counted(self, *arguments, **named):  # type: ignore[no-untyped-def]
        count.append(1)
        return original(self, *arguments, **named)

    monkeypatch.setattr(Chain, "backward", counted)
    inputs, labels, numbers = samples(model)
    loaded = load_weights(model, init_weights(model, 0), float_engine(), 0)
    run_micro_batch(loaded, inputs, labels, numbers, 0, Kfac(fisher=fisher))
    assert len(count) == 1 + passes


def test_reduce_makes_factors_of_one_row_per_sample_in_numerics_and_in_the_workload() -> None:
    tokens = [{"kind": "patches", "size": 2}, {"kind": "dense", "outputs": 4},
              {"kind": "dense", "outputs": 4, "sharing": "expand"}, {"kind": "global_pool"},
              {"kind": "dense", "outputs": 7}]  # fmt: skip
    model = network(tokens, sharing="reduce")
    products = [layer for layer in model.workload.layers if layer.has_weights]
    assert [layer.factor_vectors for layer in products] == [1, 4, 1]
    assert [layer.vectors_per_sample for layer in products] == [4, 4, 1]
    inputs, labels, numbers = samples(model, 3)
    loaded = load_weights(model, init_weights(model, 0), float_engine(), 0)
    factors = run_micro_batch(loaded, inputs, labels, numbers, 0, Kfac()).factors
    ranks = [np.linalg.matrix_rank(factors[f"dense{n}", "A"]) for n in (1, 2, 3)]
    # Three samples: at most three rows under reduce, twelve under expand.
    assert ranks[0] == 3
    assert ranks[1] > 3
