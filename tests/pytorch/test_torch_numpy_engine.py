"""The same network and seed give the same losses through PyTorch and through the NumPy engine."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch_networks import (  # noqa: E402
    DigitsCnn,
    DigitsTransformer,
    load_weights,
    model_of,
    train_like,
)

from repast_dist.ground.errors import SettingsError  # noqa: E402
from repast_dist.settings import load_settings  # noqa: E402
from repast_dist.torch import KFAC, convert  # noqa: E402
from repast_dist.training.optimizers.newton_muon import NewtonMuon  # noqa: E402

STEPS = 4
NETWORKS = {"digits_cnn": DigitsCnn, "digits_transformer": DigitsTransformer}
COMMON = [
    "dataset=digits", "farm=inprocess", "farm.chips=1", f"train.max_steps={STEPS}",
    "train.batch_size=32", "train.micro_batch_size=16", "optimizer.schedule=constant", "seed=3",
    "soi.block_size=40",
]  # fmt: skip


def both(train, name, *overrides):
    """Losses of the NumPy engine and of PyTorch, and both traces' totals."""
    words = [*COMMON, f"model={name}", *overrides]
    run = train(*words)
    steps = json.loads((run / "result.json").read_text())["steps"]
    settings = load_settings(words)
    torch.manual_seed(0)
    network = NETWORKS[name]().double()
    kept = [word for word in words if word.split(".")[0].split("=")[0] in ("engine", "soi", "seed")]
    convert(network, settings.hardware, *kept)
    load_weights(network, model_of(settings), settings.seed)
    method = settings.optimizer
    optimizer = KFAC(network, method=method, lr=method.learning_rate, momentum=method.momentum)
    losses = train_like(settings, network, optimizer, STEPS)
    return [step["loss"] for step in steps], losses, run, optimizer


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("fisher", ["sampled", "exact"])
def test_losses_in_float64_are_equal(train, name, fisher):
    theirs, ours, _, _ = both(train, name, "engine=float64", f"optimizer.fisher={fisher}")
    assert np.ptp(theirs) > 0.01
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)


@pytest.mark.parametrize("name", NETWORKS)
def test_losses_in_fixed_point_are_equal(train, name):
    fixed = [f"engine.{role}=fixed" for role in ("forward", "backward", "gradient", "factor")]
    theirs, ours, _, _ = both(train, name, "engine=float64", *fixed, "engine.fixed_bits=12")
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_losses_on_arrays_are_equal(train, name):
    # Each call sets its ranges: PyTorch's loop cannot run the first micro-batch a second time.
    theirs, ours, _, _ = both(train, name, "chip=small", "chip.adc.calibrated_on=call")
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_a_method_that_updates_whole_matrices_is_left_to_the_farm():
    with pytest.raises(SettingsError, match="which the farm does alone"):
        KFAC(torch.nn.Linear(3, 2), method=NewtonMuon())
