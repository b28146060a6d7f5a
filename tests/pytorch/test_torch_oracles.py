"""Gradients, factors and updates of an attention block, an LSTM cell and a depthwise network.

Compared with PyTorch's own gradients, with curvlinops and with kfac-pytorch, run in double
precision; what they computed is stored in ``tests/oracles/torch``, the script beside it made it.
"""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

import repast_dist.torch as rt  # noqa: E402

ORACLES = np.load(
    Path(__file__).parents[1] / "oracles" / "torch" / "torch_oracles.npz", allow_pickle=False
)
TIGHT = {"rtol": 1e-9, "atol": 1e-12}


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.attention(x, x, x)[0].mean(dim=1))


class Cell(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 6)
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        x, hidden, cell = (part[None] for part in x.split([4, 6, 6], dim=1))
        return self.head(self.lstm(x, (hidden, cell))[0][0])


class Depthwise(nn.Module):
    def __init__(self):
        super().__init__()
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.pointwise = nn.Conv2d(4, 6, 1)
        self.head = nn.Linear(54, 5)

    def forward(self, x):
        x = torch.tanh(self.pointwise(torch.tanh(self.depthwise(x))))
        return self.head(F.avg_pool2d(x, 2).flatten(1))


PROJECTIONS = ("query", "key", "value")
# Theirs -> the matrix of ours.
CASES = {
    "attention": (Attention, {
        **{name: f"attention.{name}" for name in (*PROJECTIONS, "output")}, "head": "head",
    }),
    "cell": (Cell, {"ih": "lstm.l0.ih", "hh": "lstm.l0.hh", "head": "head"}),
    "depthwise": (Depthwise, {
        **{f"channels.{channel}": f"depthwise.{channel}" for channel in range(4)},
        "pointwise": "pointwise", "head": "head",
    }),
}  # fmt: skip


def stored(case, kind, name):
    """A layer's parameters, gradients or directions in our layout (in + 1, out)."""
    weight = ORACLES[f"{case}/{kind}/{name}.weight"]
    return np.concatenate(
        [weight.reshape(len(weight), -1).T, ORACLES[f"{case}/{kind}/{name}.bias"][None]]
    )


def prepared(case, **options):
    """Our network with the stored weights, differentiated once, and its optimizer."""
    make, names = CASES[case]
    network = make().double()
    optimizer = rt.KFAC(network, engine="float64", **options)
    matrices = rt.conversion(network).simulation.matrices
    values = {}

    def place(parameter):
        return values.setdefault(parameter, np.zeros(tuple(parameter.shape)))

    for theirs, ours in names.items():
        matrices[ours].scatter(stored(case, "parameter", theirs), place)
    with torch.no_grad():
        for parameter, value in values.items():
            parameter.copy_(torch.from_numpy(value))
    x, y = (torch.from_numpy(ORACLES[f"{case}/{what}"]) for what in ("inputs", "labels"))
    F.cross_entropy(network(x), y).backward()
    return network, optimizer, {theirs: matrices[ours] for theirs, ours in names.items()}


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_pytorch(case):
    _, _, matrices = prepared(case)
    for theirs, matrix in matrices.items():
        found = matrix.gathered(lambda parameter: parameter.grad)
        np.testing.assert_allclose(found, stored(case, "gradient", theirs), **TIGHT)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("fisher", ["exact", "empirical"])
def test_factors_are_those_of_curvlinops(case, fisher):
    _, optimizer, matrices = prepared(case, fisher=fisher)
    found = optimizer._statistics.total()
    for theirs, matrix in matrices.items():
        for side in ("A", "G"):
            wanted = ORACLES[f"{case}/{fisher}/{side}/{theirs}"]
            np.testing.assert_allclose(found[matrix.name, side], wanted, **TIGHT)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("fisher", ["exact", "empirical"])
def test_updates_are_those_of_curvlinops(case, fisher):
    _, optimizer, matrices = prepared(
        case, fisher=fisher, lr=0.1, damping=float(ORACLES["damping"]), kl_clip=None
    )
    optimizer.step()
    for theirs, matrix in matrices.items():
        now = matrix.gathered(lambda parameter: parameter)
        moved = stored(case, "parameter", theirs) - now
        np.testing.assert_allclose(
            moved, 0.1 * stored(case, f"{fisher}/direction", theirs), rtol=1e-7, atol=1e-11
        )


@pytest.mark.parametrize("case", CASES)
def test_factors_and_updates_are_those_of_kfac_pytorch(case):
    _, optimizer, matrices = prepared(
        case, fisher="empirical", lr=0.1, damping=float(ORACLES["damping"]), kl_clip=None,
        damping_form="plain",
    )  # fmt: skip
    found = optimizer._statistics.total()
    optimizer.step()
    for theirs, matrix in matrices.items():
        for side in ("A", "G"):
            wanted = ORACLES[f"{case}/kfac_pytorch/{side}/{theirs}"]
            np.testing.assert_allclose(found[matrix.name, side], wanted, **TIGHT)
        moved = stored(case, "parameter", theirs) - matrix.gathered(lambda parameter: parameter)
        wanted = 0.1 * stored(case, "kfac_pytorch/direction", theirs)
        # It inverts in single precision.
        np.testing.assert_allclose(moved, wanted, rtol=1e-4, atol=1e-6 * np.abs(wanted).max())


def test_factors_of_a_sequence_count_every_step_of_the_lstm():
    # By hand: rows that the gates see and errors that reach them, from PyTorch's own LSTM cell.
    torch.manual_seed(0)
    cell, head = nn.LSTMCell(4, 6).double(), nn.Linear(6, 5).double()
    x, y = torch.randn(3, 7, 4, dtype=torch.float64), torch.randint(0, 5, (3,))
    hidden = state = torch.zeros(3, 6, dtype=torch.float64)
    rows, gates = [], []
    for step in range(7):
        rows.append(torch.cat([hidden, torch.ones(3, 1, dtype=torch.float64)], dim=1))
        gate = F.linear(x[:, step], cell.weight_ih, cell.bias_ih)
        gate = gate + F.linear(hidden, cell.weight_hh, cell.bias_hh)
        gate.retain_grad()
        gates.append(gate)
        i, f, g, o = gate.chunk(4, dim=1)
        state = torch.sigmoid(f) * state + torch.sigmoid(i) * torch.tanh(g)
        hidden = torch.sigmoid(o) * torch.tanh(state)
    F.cross_entropy(head(hidden), y, reduction="sum").backward()
    inputs, errors = torch.cat(rows).detach(), torch.cat([gate.grad for gate in gates])

    class Sequence(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.head = nn.LSTM(4, 6, batch_first=True).double(), head

        def forward(self, x):
            return self.head(self.lstm(x)[0][:, -1])

    network = Sequence()
    with torch.no_grad():
        for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            getattr(network.lstm, f"{part}_l0").copy_(getattr(cell, part))
    optimizer = rt.KFAC(network, fisher="empirical", engine="float64")
    F.cross_entropy(network(x), y).backward()
    found = optimizer._statistics.total()
    np.testing.assert_allclose(found["lstm.l0.hh", "A"], inputs.T @ inputs / 21, **TIGHT)
    np.testing.assert_allclose(found["lstm.l0.hh", "G"], errors.T @ errors / 3, **TIGHT)
