"""Steps of published optimizers in double precision, for `test_training_published.py`.

Run in an environment with PyTorch 2.14::

    python make_oracles.py optimizers_oracles.npz
"""

import sys

import numpy as np
import torch

SHAPES = {"wide": (5, 9), "tall": (11, 4), "square": (6, 6)}
"""Outputs and inputs, as PyTorch stores weights."""

STEPS, RATE = 5, 0.03

MUON = {
    "plain": {"weight_decay": 0.0, "nesterov": False},
    "original": {"weight_decay": 0.1, "adjust_lr_fn": "original"},
    "rms": {"weight_decay": 0.02, "adjust_lr_fn": "match_rms_adamw", "momentum": 0.8},
}
FIRST_ORDER = {
    "adamw": (torch.optim.AdamW, {"weight_decay": 0.2, "betas": (0.8, 0.95)}),
    "sgd": (torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.05}),
}


def problem(shape, seed):
    random = np.random.default_rng(seed)
    return random.standard_normal(shape), random.standard_normal((STEPS, *shape))


def steps(make, start, gradients):
    weights = torch.nn.Parameter(torch.tensor(start))
    optimizer = make([weights])
    for gradient in gradients:
        weights.grad = torch.tensor(gradient)
        optimizer.step()
    return weights.detach().numpy()


def exactly():
    """PyTorch's Muon rounds to bfloat16 before Newton-Schulz; leave that out."""
    torch.Tensor.bfloat16 = lambda tensor: tensor.clone()


def main(path):
    exactly()
    found = {"rate": np.array(RATE)}
    for number, (name, shape) in enumerate(SHAPES.items()):
        start, gradients = problem(shape, number)
        found |= {f"{name}/start": start, f"{name}/gradients": gradients}
        for kind, options in MUON.items():
            found[f"{name}/muon_{kind}"] = steps(
                lambda w, o=options: torch.optim.Muon(w, lr=RATE, **o), start, gradients
            )
        for kind, (made, options) in FIRST_ORDER.items():
            found[f"{name}/{kind}"] = steps(
                lambda w, m=made, o=options: m(w, lr=RATE, **o), start, gradients
            )
    np.savez(path, **found)


if __name__ == "__main__":
    main(sys.argv[1])
