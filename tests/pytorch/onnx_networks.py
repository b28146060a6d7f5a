"""Small networks that are exported, and what they are called with."""

import contextlib
import io
import warnings

import torch
import torch.nn.functional as F
from torch import nn


class Cnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 8, 3, 2, padding=1, groups=2)
        self.head = nn.Linear(128, 10)

    def forward(self, x):
        x = F.relu(self.norm(self.conv1(x)))
        return self.head(F.gelu(self.conv2(x)).flatten(1))


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.head = nn.Linear(64, 20), nn.Linear(20, 10)

    def forward(self, x):
        return self.head(torch.tanh(self.hidden(x)))


class Transformer(nn.Module):
    """Tokens, a place for each, attention, and an output layer tied to the embedding."""

    def __init__(self, tokens=12, width=16, length=6):
        super().__init__()
        self.embed = nn.Embedding(tokens, width)
        self.places = nn.Parameter(torch.randn(length, width) / 4)
        self.layer = nn.TransformerEncoderLayer(width, 2, 32, 0.0, batch_first=True)
        self.head = nn.Linear(width, tokens, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x):
        return self.head(self.layer(self.embed(x) + self.places))


class Recurrent(nn.Module):
    def __init__(self, kind="LSTM"):
        super().__init__()
        self.cells = getattr(nn, kind)(8, 6, 2, batch_first=True, bidirectional=kind == "LSTM")
        self.head = nn.Linear(12 if kind == "LSTM" else 6, 10)

    def forward(self, x):
        return self.head(self.cells(x)[0][:, -1])


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(1, 4, 3, 2, padding=1)
        self.up = nn.ConvTranspose2d(4, 3, 2, 2)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        return self.head(torch.cat([self.up(F.silu(self.down(x))), x], 1))


class TwoOfBoth(nn.Module):
    """Two inputs, two outputs."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 3), nn.Linear(5, 3)

    def forward(self, a, b):
        both = torch.relu(self.first(a) + self.second(b))
        return both, both.sum(1)


PICTURE, TOKENS = (1, 8, 8), (6,)
NETWORKS = {
    "cnn": (Cnn, [PICTURE]),
    "mlp": (Mlp, [(64,)]),
    "transformer": (Transformer, [TOKENS]),
    "lstm": (Recurrent, [(5, 8)]),
    "gru": (lambda: Recurrent("GRU"), [(5, 8)]),
    "unet": (UNet, [PICTURE]),
    "two": (TwoOfBoth, [(4,), (5,)]),
}


def made(name):
    """Return a network in float64, none of whose numbers are equal."""
    torch.manual_seed(3)
    model = NETWORKS[name][0]().double().eval()
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand_like(tensor))
    return model


def inputs_of(name, samples):
    torch.manual_seed(samples)
    return [
        torch.randint(0, 12, (samples, *shape)) if shape == TOKENS
        else torch.randn(samples, *shape, dtype=torch.float64)
        for shape in NETWORKS[name][1]
    ]  # fmt: skip


EXPORTS = {
    "dynamo": {"dynamo": True, "optimize": False, "verbose": False},
    "optimized": {"dynamo": True, "verbose": False},
    "any batch": {"dynamo": True, "optimize": False, "verbose": False},
    "torchscript": {"dynamo": False},
    "training": {
        "dynamo": False, "do_constant_folding": False,
        "training": torch.onnx.TrainingMode.TRAINING,
    },
}  # fmt: skip


def export(model, inputs, path, how="dynamo"):
    """Write a network to a file."""
    settings = dict(EXPORTS[how])
    if how == "any batch":
        settings["dynamic_shapes"] = tuple({0: torch.export.Dim("n")} for _ in inputs)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(model, tuple(inputs), str(path), **settings)
    model.eval()
    return path
