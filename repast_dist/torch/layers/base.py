"""What converted modules have in common, and the map of classes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from repast_dist.network.kinds import LayerKind
from repast_dist.torch.matrices import Matrix, Part
from repast_dist.torch.products import multiply, multiply_operands
from repast_dist.torch.simulation import Simulation


class Converted(nn.Module):
    """The base class of converted modules, which stands in front of PyTorch's own class.

    A class of your own derives from it, says which parts of its parameters are matrices, and
    defines `forward` with `product` in place of multiplications by them. Parameters, their names
    and `state_dict` stay what they were.
    """

    _simulation: Simulation
    _path: str

    @classmethod
    def refuses(cls, module: nn.Module) -> str:
        """Return why a module cannot be converted; empty: it can."""
        return ""

    def matrices(self) -> list[Matrix]:
        """Return the matrices, each with a name that begins with ``self.path``."""
        raise NotImplementedError

    @property
    def path(self) -> str:
        """Path of the module in its network."""
        return self._path

    def named(self, part: str = "") -> str:
        """Return the name of a part of the module: its path, and the part's own name."""
        return ".".join(filter(None, (self._path, part))) or "network"

    def matrix(
        self,
        name: str,
        weight: str,
        view: Callable[[torch.Tensor], torch.Tensor],
        kind: LayerKind,
        bias: str = "",
        bias_view: Callable[[torch.Tensor], torch.Tensor] = lambda tensor: tensor,
        **others: Any,
    ) -> Matrix:
        """Return a matrix of this module.

        Parameters
        ----------
        name : str
            Name of the part; empty where there is one matrix only.
        weight, bias : str
            Names of the parameters; no bias where it is empty or None in the module.
        view, bias_view : callable
            Return the part of the parameter that it is: (in, out) and (out,).
        kind : LayerKind
            What it makes the hardware do.
        **others
            Further fields of `Matrix`.
        """
        has_bias = bool(bias) and getattr(self, bias) is not None
        return Matrix(
            name=self.named(name),
            module=self,
            weight=Part(weight, view),
            bias=Part(bias, bias_view) if has_bias else None,
            kind=kind,
            **others,
        )

    def product(self, name: str, rows: torch.Tensor) -> torch.Tensor:
        """Return ``rows @ weights + bias`` of the matrix with that part's name, (R, out)."""
        return multiply(self._simulation, self._simulation.matrix(self.named(name)), rows)

    def operand_product(self, name: str, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Return ``left @ right`` of activations (N, H, T, K), (N, H, K, M)."""
        return multiply_operands(self._simulation, self.named(name), left, right)
