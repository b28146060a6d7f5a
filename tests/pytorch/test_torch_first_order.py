"""The optimizers' updates against PyTorch's own, in float64."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from repast_dist.training.optimizers import Update  # noqa: E402
from repast_dist.training.optimizers.adam import Adam  # noqa: E402
from repast_dist.training.optimizers.sgd import Sgd  # noqa: E402

CASES = {
    "AdamW": (Adam(learning_rate=0.02, weight_decay=0.3), {"lr": 0.02, "weight_decay": 0.3}),
    "Adam": (Adam(learning_rate=0.02), {"lr": 0.02}),
    "SGD": (Sgd(learning_rate=0.02, weight_decay=0.3),
            {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.3}),
}  # fmt: skip


@pytest.mark.parametrize("name", list(CASES))
def test_an_optimizer_updates_as_pytorchs_does(name):
    spec, settings = CASES[name]
    random = np.random.default_rng(0)
    weights = {"w": random.standard_normal((7, 5))}
    theirs = torch.nn.Parameter(torch.from_numpy(weights["w"].copy()))
    optimizer = getattr(torch.optim, name)([theirs], **settings)
    state = spec.initial_state(weights)
    for step in range(20):
        gradient = random.standard_normal((7, 5))
        weights, state = spec.update(
            Update(weights, {"w": gradient}, {}, state, step, 20, frozenset())
        )
        theirs.grad = torch.from_numpy(gradient)
        optimizer.step()
    np.testing.assert_allclose(weights["w"], theirs.detach().numpy(), rtol=1e-9, atol=1e-12)
