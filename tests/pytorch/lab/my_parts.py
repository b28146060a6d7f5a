"""Networks that are cut into parts, and some that cannot be."""

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn


def make_data():
    """Return digits of 4 x 4."""
    x, y = load_digits(return_X_y=True)
    x = (x / 16).reshape(-1, 1, 4, 2, 4, 2).mean((3, 5))
    return (x[:36], y[:36]), (x[36:48], y[36:48])


class Block(nn.Module):
    """A residual block that adds in place."""

    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x):
        y = self.norm(self.conv(x))
        y += x
        return F.relu(y, inplace=True)


class Deep(nn.Module):
    """Residual blocks, dropouts on both sides of a cut, a frozen layer, a count of calls."""

    def __init__(self, width=3):
        super().__init__()
        self.enter = nn.Conv2d(1, width, 3, padding=1)
        self.blocks = nn.Sequential(Block(width), Block(width))
        self.drop = nn.Dropout(0.2)
        self.hidden = nn.Linear(4 * width, 12)
        self.frozen = nn.Linear(12, 12).requires_grad_(False)
        self.scale = nn.Parameter(torch.ones(12))
        self.register_buffer("calls", torch.zeros(1))
        self.head = nn.Linear(12, 10)

    def forward(self, x, mask=None):
        if mask is not None:
            x = x * mask
        x = F.dropout(self.enter(x), 0.1, self.training)
        x = F.max_pool2d(self.blocks(x), 2).flatten(1)
        x = torch.tanh(self.frozen(F.relu(self.hidden(self.drop(x)), inplace=True)))
        self.calls.add_(1)
        return self.head(x * self.scale)


class TextBlock(nn.Module):
    """Causal attention and a feed-forward part, each beside a shortcut."""

    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.inner = nn.Sequential(nn.Linear(width, 12), nn.GELU(), nn.Linear(12, width))

    def forward(self, x):
        n, length, width = x.shape
        q, k, v = self.qkv(self.norm(x)).view(n, length, 3, 2, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(n, length, width))
        return x + self.inner(x)


class Gpt(nn.Module):
    """Positions are numbers of its own; the head has the weights of the embedding, or its own."""

    def __init__(self, tied, tokens=7, width=8):
        super().__init__()
        self.embed = nn.Embedding(tokens, width)
        self.position = nn.Parameter(0.1 * torch.randn(6, width))
        self.blocks = nn.ModuleList(TextBlock(width) for _ in range(2))
        self.head = nn.Linear(width, tokens, bias=False)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, tokens):
        x = self.embed(tokens) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class PictureAndTable(nn.Module):
    """Two inputs, and two outputs by name."""

    def __init__(self):
        super().__init__()
        self.picture, self.table = nn.Linear(16, 6), nn.Linear(3, 6)
        self.both, self.deeper = nn.Linear(12, 8), nn.Linear(8, 8)
        self.classes, self.number = nn.Linear(8, 10), nn.Linear(8, 1)

    def forward(self, picture, table):
        x = torch.cat([self.picture(picture.flatten(1)), self.table(table)], 1)
        x = torch.tanh(self.deeper(torch.tanh(self.both(torch.tanh(x)))))
        return {"number": self.number(x), "logits": self.classes(x)}


class Rounds(nn.Module):
    """How often it multiplies depends on what it computed."""

    def __init__(self):
        super().__init__()
        self.hidden, self.head = nn.Linear(16, 8), nn.Linear(8, 10)

    def forward(self, x):
        x = self.hidden(x.flatten(1))
        while x.abs().max() > 1:
            x = x / 2
        return self.head(x)


class Noisy(nn.Module):
    """Noise from a stream that nobody addresses."""

    def __init__(self):
        super().__init__()
        self.hidden, self.head = nn.Linear(16, 8), nn.Linear(8, 10)

    def forward(self, x):
        x = self.hidden(x.flatten(1))
        return self.head(x + 0.1 * torch.randn_like(x))


def both_loss(outputs, labels):
    number = F.mse_loss(outputs["number"], labels["means"])
    return F.cross_entropy(outputs["logits"], labels["classes"]) + number


def make_both():
    def part(picture, classes):
        table = picture.sum(axis=2)[:, 0, :3] / 8
        return (picture, table), {"classes": classes, "means": picture.mean((1, 2, 3))}

    train, test = make_data()
    return part(*train), part(*test)


def make_text():
    starts = np.random.default_rng(0).integers(0, 7, 48)
    tokens = (starts[:, None] + np.arange(7) ** 2) % 7
    x, y = tokens[:, :-1], tokens[:, 1:]
    return (x[:36], y[:36]), (x[36:], y[36:])


def make_own(kind="deep"):
    made = {
        "deep": Deep,
        "gpt": lambda: Gpt(tied=False),
        "tied gpt": lambda: Gpt(tied=True),
        "both": PictureAndTable,
        "rounds": Rounds,
        "noisy": Noisy,
    }
    return made[kind]()
