"""Run curvlinops on an attention block, an LSTM cell and a depthwise network, and store the result.

Needs an environment of its own, apart from the project's::

    pip install torch==2.14.1 curvlinops-for-pytorch==3.0.1
    python make_torch_oracles.py

Writes ``torch_oracles.npz`` beside this script: names are ``case/what/...``. The networks are made
of layers that curvlinops knows: projections of attention and gates of the cell are linear layers.
"""

from pathlib import Path

import curvlinops
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

SAMPLES, CLASSES, DAMPING = 16, 5, 0.03


class Attention(nn.Module):
    """Self-attention of two heads over six tokens, their mean, a head."""

    inputs = (SAMPLES, 6, 8)

    def __init__(self):
        super().__init__()
        self.query, self.key, self.value, self.output = (nn.Linear(8, 8) for _ in range(4))
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x):
        q, k, v = (
            part(x).view(*x.shape[:2], 2, 4).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        weights = torch.softmax(q @ k.transpose(2, 3) / 2.0, dim=-1)
        return self.head(self.output((weights @ v).transpose(1, 2).flatten(2)).mean(dim=1))


class Cell(nn.Module):
    """One step of an LSTM from inputs, a hidden and a cell state, and a head."""

    inputs = (SAMPLES, 4 + 6 + 6)

    def __init__(self):
        super().__init__()
        self.ih, self.hh = nn.Linear(4, 24), nn.Linear(6, 24)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x):
        x, hidden, cell = x.split([4, 6, 6], dim=1)
        i, f, g, o = (self.ih(x) + self.hh(hidden)).chunk(4, dim=1)
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
        return self.head(torch.sigmoid(o) * torch.tanh(cell))


class Depthwise(nn.Module):
    """A depthwise convolution, a pointwise one, a head; the first has no Kronecker factors."""

    inputs = (SAMPLES, 4, 6, 6)

    def __init__(self):
        super().__init__()
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.pointwise = nn.Conv2d(4, 6, 1)
        self.head = nn.Linear(54, CLASSES)

    def forward(self, x):
        x = torch.tanh(self.pointwise(torch.tanh(self.depthwise(x))))
        return self.head(F.avg_pool2d(x, 2).flatten(1))


CASES = {"attention": Attention, "cell": Cell, "depthwise": Depthwise}


def main() -> None:
    torch.set_default_dtype(torch.float64)
    out = {"damping": np.array(DAMPING)}
    for case, make in CASES.items():
        torch.manual_seed(0)
        model = make()
        x, y = torch.randn(make.inputs), torch.randint(0, CLASSES, (SAMPLES,))
        out[f"{case}/inputs"], out[f"{case}/labels"] = x.numpy(), y.numpy()
        loss = nn.CrossEntropyLoss()
        loss(model(x), y).backward()
        for name, parameter in model.named_parameters():
            out[f"{case}/parameter/{name}"] = parameter.detach().numpy().copy()
            out[f"{case}/gradient/{name}"] = parameter.grad.numpy().copy()
        known = {n: p for n, p in model.named_parameters() if "depthwise" not in n}
        gradient = [p.grad.clone() for p in known.values()]
        for fisher in ("type-2", "empirical"):
            kfac = curvlinops.KFACLinearOperator(
                model, loss, list(known.values()), [(x, y)], fisher_type=fisher,
                kfac_approx="expand", separate_weight_and_bias=False, check_deterministic=False,
            )  # fmt: skip
            kfac @ [g.clone() for g in gradient]
            kind = "exact" if fisher == "type-2" else fisher
            for name in dict.fromkeys(n.rpartition(".")[0] for n in known):
                out[f"{case}/{kind}/A/{name}"] = kfac._input_covariances[name].numpy().copy()
                out[f"{case}/{kind}/G/{name}"] = kfac._gradient_covariances[name].numpy().copy()
            inverse = curvlinops.KFACInverseLinearOperator(
                kfac, damping=DAMPING, use_heuristic_damping=True, min_damping=0.0
            )
            for name, value in zip(known, inverse @ gradient, strict=True):
                out[f"{case}/{kind}/direction/{name}"] = value.detach().numpy()
    np.savez_compressed(Path(__file__).with_name("torch_oracles.npz"), **out)
    print(len(out), "arrays")


if __name__ == "__main__":
    main()
