"""Run curvlinops and kfac-pytorch on an attention block, an LSTM cell and a depthwise network, and
store the results.

Needs an environment of its own, apart from the project's::

    pip install torch==2.14.1 curvlinops-for-pytorch==3.0.1
    pip install git+https://github.com/gpauloski/kfac-pytorch@869cf110334e5a6e9ea054bafdc4558313a821e8
    python make_torch_oracles.py

Writes ``torch_oracles.npz`` beside this script: names are ``case/what/...``. The networks are made
of layers that both know: projections of attention and gates of the cell are linear layers, and a
depthwise convolution is convolutions of one channel side by side. Neither has a depthwise
convolution as it stands: kfac-pytorch takes its weights for those of all channels, curvlinops
multiplies the mean of all channels' inputs.

Of a convolution with S vectors per sample, kfac-pytorch's factors are 1/S^2 and 1/(N^2 S^3) of
ours, of a linear layer 1 and 1/(N^2 S). With a loss that is multiplied by N and the root of S,
those of a convolution are both 1/S^2 and those of a linear layer 1, and so its damping is put.
"""

import copy
from pathlib import Path

import curvlinops
import numpy as np
import torch
import torch.nn.functional as F
from kfac.preconditioner import KFACPreconditioner
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
    """Four convolutions of a channel each, a pointwise one, a head."""

    inputs = (SAMPLES, 4, 6, 6)

    def __init__(self):
        super().__init__()
        self.channels = nn.ModuleList(nn.Conv2d(1, 1, 3, padding=1) for _ in range(4))
        self.pointwise = nn.Conv2d(4, 6, 1)
        self.head = nn.Linear(54, CLASSES)

    def forward(self, x):
        pieces = zip(self.channels, x.split(1, dim=1), strict=True)
        x = torch.cat([channel(piece) for channel, piece in pieces], dim=1)
        x = torch.tanh(self.pointwise(torch.tanh(x)))
        return self.head(F.avg_pool2d(x, 2).flatten(1))


CASES = {"attention": Attention, "cell": Cell, "depthwise": Depthwise}


def of_kfac_pytorch(model, x, y):
    """Yield factors and updates of kfac-pytorch (empirical, plain damping), scaled to be ours."""
    layers = [n for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    for name in layers:
        net, outputs = copy.deepcopy(model), []
        module = net.get_submodule(name)
        module.register_forward_hook(lambda module, _, z, kept=outputs: kept.append(z))
        net(x)
        conv = isinstance(module, nn.Conv2d)
        vectors = outputs[0].numel() // outputs[0].shape[1 if conv else -1] // SAMPLES
        scale, square = vectors**0.5 * SAMPLES, vectors**2 if conv else 1
        method = KFACPreconditioner(
            net, damping=DAMPING / square, factor_decay=1e-300, kl_clip=1e300, lr=1.0,
            compute_method="inverse", inv_dtype=torch.float64, loglevel=0,
        )  # fmt: skip
        net.zero_grad()
        (scale * nn.CrossEntropyLoss()(net(x), y)).backward()
        method.step()
        (layer,) = (item for key, item in method._layers.values() if key == name)
        yield f"A/{name}", (square * layer.a_factor).numpy().copy()
        yield f"G/{name}", (square * layer.g_factor).numpy().copy()
        for part in ("weight", "bias"):
            moved = getattr(module, part).grad / (scale * square**2)
            yield f"direction/{name}.{part}", moved.numpy().copy()


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
        known = dict(model.named_parameters())
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
        out |= {
            f"{case}/kfac_pytorch/{name}": found for name, found in of_kfac_pytorch(model, x, y)
        }
    np.savez_compressed(Path(__file__).with_name("torch_oracles.npz"), **out)
    print(len(out), "arrays")


if __name__ == "__main__":
    main()
