"""Networks of the kinds that people train, small enough for a test."""

import torch
import torch.nn.functional as F
from torch import nn

from repast_dist.training.datasets.text import Text


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut (He et al. 2016)."""

    def __init__(self, before, after, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        same = before == after
        self.down = nn.Identity() if same else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.down(x))


class ResNet20(nn.Module):
    """ResNet-20 for images of 32 x 32 (He et al. 2016, section 4.2), any base width."""

    def __init__(self, width=16, classes=10):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        blocks, before = [], width
        for stage in range(3):
            for number in range(3):
                after = width * 2**stage
                blocks.append(BasicBlock(before, after, 2 if stage and not number else 1))
                before = after
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(before, classes)

    def forward(self, x):
        x = self.blocks(F.relu(self.bn(self.stem(x))))
        return self.head(x.mean(dim=(2, 3)))


def depthwise_net(classes=10):
    """Depthwise separable convolutions (Howard et al. 2017)."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 16, 1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(256, classes),
    )  # fmt: skip


class Gpt(nn.Module):
    """A causal transformer on characters whose head is its embedding (Radford et al. 2019)."""

    def __init__(self, entries, width=32, heads=2, layers=1, length=24):
        super().__init__()
        self.embed = nn.Embedding(entries, width)
        self.position = nn.Parameter(0.02 * torch.randn(length, width))
        self.blocks = nn.ModuleList(_GptBlock(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, entries, bias=False)
        nn.init.normal_(self.embed.weight, std=0.1)
        self.head.weight = self.embed.weight

    def forward(self, tokens):
        x = self.embed(tokens) + self.position[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class _GptBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        n, length, width = x.shape
        parts = self.qkv(self.norm1(x)).view(n, length, 3, self.heads, -1)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(n, length, width))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class TextLstm(nn.Module):
    """The next character from an LSTM."""

    def __init__(self, entries, width=24):
        super().__init__()
        self.embed = nn.Embedding(entries, width)
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.head = nn.Linear(width, entries)

    def forward(self, tokens):
        return self.head(self.lstm(self.embed(tokens))[0])


class UNet(nn.Module):
    """One level down and up again, with a skip (Ronneberger et al. 2015)."""

    def __init__(self, width=4):
        super().__init__()
        self.enter = nn.Conv2d(1, width, 3, padding=1)
        self.down = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.leave = nn.Conv2d(2 * width, 1, 3, padding=1)

    def forward(self, x):
        x = F.relu(self.enter(x))
        y = F.relu(self.up(F.relu(self.down(x))))
        return self.leave(torch.cat([x, y], dim=1))


def windows(samples, tokens):
    """Return windows of the shipped text, the token behind each token, and how many there are."""
    data = Text(tokens=tokens, train_samples=samples, test_samples=1).load()
    return torch.from_numpy(data.train_inputs), torch.from_numpy(data.train_labels), data.classes
