"""Networks, data, a loss and an augmentation of a user's own, for runs on the farm."""

import my_lab_data
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune

import repast_dist.torch as rt
from repast_dist.network import kinds

make_data = my_lab_data.make_data
NOT_A_FUNCTION = 3


class Mixed(nn.Module):
    """Batch norm, dropout, a grouped convolution and a frozen layer beside plain ones."""

    def __init__(self, width, dropout):
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.grouped = nn.Conv2d(width, width, 3, padding=1, groups=2)
        self.frozen = nn.Conv2d(width, width, 1).requires_grad_(False)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(16 * width, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm(self.conv1(x))), 2)
        x = F.relu(self.frozen(self.grouped(x)))
        return self.head(self.dropout(x.flatten(1)))


def make_model(width=4, dropout=0.25):
    return Mixed(width, dropout)


def smoothed(outputs, labels):
    return F.cross_entropy(outputs, labels, label_smoothing=0.1)


def shift(image, random):
    return np.roll(image, random.integers(-1, 2), axis=2)


def shift_by_global_streams(image, random):
    return np.roll(image, int(torch.randint(-1, 2, ())), axis=2)


class Text(nn.Module):
    """The next token, from attention with a tied embedding."""

    def __init__(self, tokens=7, width=8):
        super().__init__()
        self.embed = nn.Embedding(tokens, width)
        self.attention = nn.TransformerEncoderLayer(width, 2, 16, 0.1, batch_first=True)
        self.head = nn.Linear(width, tokens, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x):
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], dtype=torch.float64)
        return self.head(self.attention(self.embed(x), src_mask=mask))


def make_text_model(tokens=7, width=8):
    return Text(tokens, width)


def make_text():
    random = np.random.default_rng(0)
    starts = random.integers(0, 7, 192)
    tokens = (starts[:, None] + np.arange(7) ** 2) % 7
    x, y = tokens[:, :-1], tokens[:, 1:]
    return (x[:128], y[:128]), (x[128:], y[128:])


class DigitsCnn(nn.Module):
    """conf/model/digits_cnn.yaml."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 16, 3, padding=1)
        self.dense1 = nn.Linear(64, 32)
        self.dense2 = nn.Linear(32, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.dense2(F.relu(self.dense1(x.flatten(1))))


def digits_cnn(seed):
    """The network with the weights that the NumPy engine begins with."""
    from repast_dist.network.model import build_model, init_weights
    from repast_dist.settings import load_settings

    weights = init_weights(build_model(load_settings(["model=digits_cnn"]).model), seed)
    network = DigitsCnn()
    with torch.no_grad():
        for name, values in weights.items():
            layer = getattr(network, name)
            layer.weight.copy_(torch.from_numpy(values[:-1].T).reshape(layer.weight.shape))
            layer.bias.copy_(torch.from_numpy(values[-1]))
    return network


class Scaled(nn.Module):
    """Twice the inputs times (in, out) weights: a class that the package does not know."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs) / 16)

    def forward(self, x):
        return 2 * x @ self.weight


class ScaledOnArrays(rt.Converted):
    def matrices(self):
        return [self.matrix("", "weight", lambda weight: weight, kinds.DENSE)]

    def forward(self, x):
        return 2 * self.product("", x)


CLASSES = {Scaled: ScaledOnArrays}


def make_scaled():
    return nn.Sequential(nn.Flatten(), Scaled(64, 10))


def wants_another_size():
    return nn.Sequential(nn.Flatten(), nn.Linear(65, 10))


def too_few_outputs():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 9))


def no_module():
    return 5


def fails():
    raise ValueError("no weights\nfound")


class Nothing(nn.Module):
    """Returns no tensor."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(8, 10)

    def forward(self, x):
        return "nothing"


class PictureAndTable(nn.Module):
    """Two inputs, and two outputs by name: a class, and a number."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.table = nn.Linear(3, 5)
        self.classes = nn.Linear(4 * 16 + 5, 10)
        self.number = nn.Linear(4 * 16 + 5, 1)

    def forward(self, picture, table):
        x = F.max_pool2d(F.relu(self.conv(picture)), 2).flatten(1)
        both = torch.cat([x, torch.tanh(self.table(table))], 1)
        return {"number": self.number(both), "logits": self.classes(both)}


def make_both(form="tuple"):
    """Return digits with three of their sums beside them; classes, or classes and a mean."""
    (x, y), (x_test, y_test) = make_data()

    def inputs(picture):
        table = np.stack([picture[..., :4].sum((1, 2, 3)), picture.sum((1, 2, 3)),
                          picture[:, :, :4].sum((1, 2, 3))], 1) / 16  # fmt: skip
        return picture, table

    def part(picture, classes):
        picture, table = inputs(picture)
        means = picture.mean((1, 2, 3))
        return {
            "tuple": (picture, table, classes),
            "pair": ((picture, table), classes),
            "mapping": {"picture": picture, "table": table, "labels": classes},
            "items": [
                ({"table": b, "picture": a}, c)
                for a, b, c in zip(picture, table, classes, strict=True)
            ],
            "two labels": ((picture, table), {"classes": classes, "means": means}),
        }[form]

    return part(x, y), part(x_test, y_test)


def both_losses(outputs, labels):
    number = F.mse_loss(outputs["number"], labels["means"])
    return F.cross_entropy(outputs["logits"], labels["classes"]) + number


def shift_both(sample, random):
    picture, table = sample
    return np.roll(picture, random.integers(-1, 2), axis=2), table


def small_cnn(channels_last=False):
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    return network.to(memory_format=torch.channels_last) if channels_last else network


class SparseLookUp(nn.Module):
    """An embedding whose gradient holds its rows only, unless it is told otherwise."""

    def __init__(self, sparse):
        super().__init__()
        self.embed, self.head = nn.Embedding(17, 4, sparse=sparse), nn.Linear(256, 10)

    def forward(self, x):
        return self.head(self.embed((16 * x.flatten(1)).long()).flatten(1))


class InfiniteSlope(nn.Module):
    """Its loss is finite and its gradient is not: a root at 0."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        y = self.head(x.flatten(1))
        return y + (0 * y).sqrt()


class LateBuffer(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        self.register_buffer("mean", x.flatten(1).mean(dim=0).detach())
        return self.head(x.flatten(1) - self.mean)


def pruned():
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    prune.l1_unstructured(network[1], "weight", 0.5)
    return network


def make_soft_data():
    (x, y), (test_x, test_y) = my_lab_data.make_data()
    return (x, np.eye(10)[y]), (test_x, np.eye(10)[test_y])


def soft_cross_entropy(outputs, labels):
    return F.cross_entropy(outputs, labels)
