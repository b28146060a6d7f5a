"""Linear layers."""

import torch

from repast_dist.network import kinds
from repast_dist.torch.layers.base import Converted
from repast_dist.torch.matrices import Matrix


class Linear(Converted):
    """`nn.Linear`: every vector of the last dimension is multiplied by the weights."""

    out_features: int

    def matrices(self) -> list[Matrix]:
        """Return the weights."""
        return [self.matrix("", "weight", transposed, kinds.DENSE, "bias")]

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return (..., out) for (..., in)."""
        rows = self.product("", input.reshape(-1, input.shape[-1]))
        return rows.reshape(*input.shape[:-1], self.out_features)


def transposed(weight: torch.Tensor) -> torch.Tensor:
    """Return weights (out, in) as (in, out)."""
    return weight.t()
