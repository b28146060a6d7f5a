"""Products of two activations as a module."""

import torch
from torch import nn

from repast_dist.torch.layers.base import Converted
from repast_dist.torch.matrices import Matrix


class Operands(nn.Module):
    """``left @ right`` of two activations, as `torch.matmul`."""

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Multiply (..., T, K) by (..., K, M)."""
        return left @ right


class OperandsOnArrays(Converted):
    """`Operands` on arrays, of which `right` is written for every sample and head."""

    def matrices(self) -> list[Matrix]:
        """It has no weights."""
        return []

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Multiply (..., T, K) by (..., K, M)."""
        if left.dim() < 2 or right.dim() < 2:
            rows = left if left.dim() > 1 else left[None]
            columns = right if right.dim() > 1 else right[:, None]
            y = self.forward(rows, columns)
            y = y if right.dim() > 1 else y[..., 0]
            return y if left.dim() > 1 else y[..., 0, :] if right.dim() > 1 else y[..., 0]
        leading = torch.broadcast_shapes(left.shape[:-2], right.shape[:-2])
        first = leading[0] if leading else 1
        a, b = (
            side.expand(*leading, *side.shape[-2:]).reshape(first, -1, *side.shape[-2:])
            for side in (left, right)
        )
        y = self.operand_product("", a, b)
        return y.reshape(*leading, *y.shape[-2:])
