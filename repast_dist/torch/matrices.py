"""Which parts of a module's parameters are matrices (in, out) that crossbars multiply by."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from repast_dist.network.kinds import LayerKind

View = Callable[[torch.Tensor], torch.Tensor]


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of one parameter, or all of it.

    Attributes
    ----------
    parameter : str
        Name of the parameter in its module.
    view : callable
        Returns the part of a tensor shaped like the parameter, as a view: (in, out) of weights,
        (out,) of a bias.
    """

    parameter: str
    view: View


@dataclasses.dataclass(frozen=True)
class Matrix:
    """Weights (in, out), and the bias that is added to what they give.

    Attributes
    ----------
    name : str
        Name in the network, as in the NumPy engine's weights: addresses of random draws.
    module : Module
        What holds the parameters.
    weight : Part
        The weights.
    bias : Part or None
        The bias; K-FAC treats it as the last row of the weights.
    kind : LayerKind
        What the layer makes the hardware do.
    group, groups : int
        Number of this matrix among equal ones side by side, and how many there are.
    without_factors : str
        Why K-FAC does not precondition it; empty: it does.
    """

    name: str
    module: nn.Module
    weight: Part
    bias: Part | None
    kind: LayerKind
    group: int = 0
    groups: int = 1
    without_factors: str = ""

    @property
    def parts(self) -> tuple[Part, ...]:
        """The weights and, if there is one, the bias."""
        return (self.weight,) if self.bias is None else (self.weight, self.bias)

    def parameter(self, part: Part) -> nn.Parameter:
        """Return the parameter that a part is of."""
        return getattr(self.module, part.parameter)

    @property
    def weights(self) -> torch.Tensor:
        """The weights as a tensor (in, out), differentiable by their parameter."""
        return self.weight.view(self.parameter(self.weight))

    @property
    def biases(self) -> torch.Tensor | None:
        """The bias as a tensor (out,), differentiable by its parameter."""
        return None if self.bias is None else self.bias.view(self.parameter(self.bias))

    @property
    def inputs(self) -> int:
        """Input features, without the bias."""
        return int(self.weights.shape[0])

    @property
    def outputs(self) -> int:
        """Output features."""
        return int(self.weights.shape[1])

    @property
    def trained(self) -> bool:
        """Whether its weights have gradients."""
        return bool(self.parameter(self.weight).requires_grad)

    @property
    def preconditioned(self) -> bool:
        """Whether K-FAC preconditions it."""
        return self.trained and not self.without_factors

    def values(self) -> np.ndarray:
        """Return the weights as they are now, (in, out) in the parameter's precision."""
        return to_numpy(self.weights)

    def gathered(self, of: Callable[[nn.Parameter], Any]) -> np.ndarray:
        """Return (in[+1], out) float64 of tensors shaped like the parameters; None counts as 0."""
        rows = []
        for part in self.parts:
            parameter = self.parameter(part)
            found = of(parameter)
            tensor = torch.zeros_like(parameter) if found is None else found
            values = to_numpy(part.view(tensor)).astype(np.float64)
            rows.append(values if values.ndim == 2 else values[None])
        return np.concatenate(rows)

    def scatter(self, values: np.ndarray, into: Callable[[nn.Parameter], np.ndarray]) -> None:
        """Write (in[+1], out) values into arrays shaped like the parameters."""
        for part in self.parts:
            place = part.view(torch.from_numpy(into(self.parameter(part))))
            source = values[: self.inputs] if part is self.weight else values[-1]
            place.copy_(torch.from_numpy(np.ascontiguousarray(source)))


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """Return a tensor's values in their precision; half precisions become float32."""
    held = tensor.detach().cpu()
    if held.layout != torch.strided:
        # Gradients of embeddings may hold their rows only.
        held = held.to_dense()
    if held.dtype in (torch.float16, torch.bfloat16):
        held = held.float()
    values: np.ndarray = held.numpy()
    return values


def to_float64(tensor: torch.Tensor) -> np.ndarray:
    """Return a tensor's values as float64."""
    return np.asarray(to_numpy(tensor), np.float64)
