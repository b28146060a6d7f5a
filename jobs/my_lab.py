"""A network, data and an augmentation of one's own for the farm; see docs/pytorch.md.

repast-dist model.factory=jobs/my_lab.py:make_model dataset.factory=jobs/my_lab.py:make_data
"""

import numpy as np
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn


class Net(nn.Module):
    """Two convolutions with batch norm, dropout, two dense layers."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.hidden = nn.Linear(8 * width, 32)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm1(self.conv1(x))), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.head(self.dropout(F.relu(self.hidden(x.flatten(1)))))


def make_model(width: int = 8, dropout: float = 0.1) -> nn.Module:
    """Return the network; ``model.arguments.width=16`` changes an argument."""
    return Net(width, dropout)


def make_data():
    """Return a training and a test set of handwritten digits, 8 x 8."""
    x, y = load_digits(return_X_y=True)
    x = (x / 16).reshape(-1, 1, 8, 8)
    return (x[:1437], y[:1437]), (x[1437:], y[1437:])


def shift(image, random):
    """Move an image to the side by up to one pixel."""
    return np.roll(image, random.integers(-1, 2), axis=2)
