"""A small GPT on the shipped text, or one of your own, for the farm; see docs/pytorch.md.

repast-dist model.factory=jobs/my_gpt.py:make_gpt dataset=text
"""

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    """Causal attention and two dense layers, each behind a normalisation."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        n, tokens, width = x.shape
        parts = self.qkv(self.norm1(x)).view(n, tokens, 3, self.heads, -1)
        mixed = F.scaled_dot_product_attention(*parts.permute(2, 0, 3, 1, 4), is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(n, tokens, width))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class Gpt(nn.Module):
    """GPT-2's layers (Radford et al. 2019): the output's weights are those of the embedding."""

    def __init__(self, entries: int, width: int, heads: int, layers: int, tokens: int) -> None:
        super().__init__()
        self.embed, self.position = nn.Embedding(entries, width), nn.Embedding(tokens, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, entries, bias=False)
        self.head.weight = self.embed.weight
        for table in (self.embed, self.position):
            nn.init.normal_(table.weight, std=0.1)

    def forward(self, tokens):
        """Return logits (N, T, entries) of the token behind each of (N, T)."""
        x = self.embed(tokens) + self.position(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def make_gpt(
    entries: int = 73, width: int = 32, heads: int = 2, layers: int = 2, tokens: int = 32
) -> nn.Module:
    """Return the network; ``model.arguments.width=64`` changes an argument."""
    return Gpt(entries, width, heads, layers, tokens)
