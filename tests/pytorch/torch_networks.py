"""Networks of the NumPy engine as PyTorch modules, and the training of both."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from repast_dist.network.model import Model, build_model, init_weights
from repast_dist.torch import KFAC, conversion
from repast_dist.training.sampling import micro_batch_samples


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


class DigitsTransformer(nn.Module):
    """conf/model/digits_transformer.yaml."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(4, 16)
        self.positions = nn.Parameter(torch.zeros(16, 16))
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(16) for _ in range(3))
        self.attention1 = nn.MultiheadAttention(16, 2, batch_first=True)
        self.mlp1 = nn.ModuleDict({"in": nn.Linear(16, 32), "out": nn.Linear(32, 16)})
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        x = F.unfold(x, 2, stride=2).transpose(1, 2)
        x = self.embed(x) + self.positions
        y = self.norm1(x)
        x = x + self.attention1(y, y, y, need_weights=False)[0]
        y = F.gelu(self.mlp1["in"](self.norm2(x)), approximate="tanh")
        x = x + self.mlp1["out"](y)
        return self.head(self.norm3(x).mean(dim=1))


def load_weights(network: nn.Module, model: Model, seed: int) -> None:
    """Give a converted network the weights that the NumPy engine begins with."""
    weights = init_weights(model, seed)
    matrices = conversion(network).simulation.matrices
    other = {name: value for name, value in weights.items() if name not in matrices}
    found = {}

    def place(parameter):
        return found.setdefault(parameter, np.zeros(tuple(parameter.shape)))

    for name, matrix in matrices.items():
        matrix.scatter(weights[name].astype(np.float64), place)
    for name, value in other.items():
        if name.startswith("norm"):
            norm = getattr(network, name)
            found[norm.weight], found[norm.bias] = value.astype(np.float64)
        else:
            found[network.positions] = value.astype(np.float64)
    with torch.no_grad():
        for parameter, value in found.items():
            parameter.copy_(torch.from_numpy(value))


def train_like(run, network: nn.Module, optimizer: KFAC, steps: int) -> list[float]:
    """Train on the very micro-batches of a run of the NumPy engine; return the losses.

    Weights and momentum are kept as the farm keeps them, in single precision.
    """
    settings = run
    data = settings.dataset.load()
    train, count = settings.train, settings.train.micro_batches
    losses = []
    for step in range(steps):
        optimizer.zero_grad()
        total = 0.0
        for number in range(count):
            samples = micro_batch_samples(
                settings.seed, len(data.train_inputs), train, step, number
            )
            optimizer.number(samples)
            inputs = torch.from_numpy(data.train_inputs[samples]).double()
            loss = F.cross_entropy(network(inputs), torch.from_numpy(data.train_labels[samples]))
            (loss / count).backward()
            total += loss.item() / count
        optimizer.step(loss=total)
        losses.append(total)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.copy_(parameter.float())
                state = optimizer.state[parameter]["momentum"]
                state.copy_(state.float())
    return losses


def model_of(settings) -> Model:
    return build_model(settings.model)
