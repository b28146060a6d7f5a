"""Convolutions as products of patches, and transposed convolutions as sums of patches."""

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from repast_dist.network import kinds
from repast_dist.network.kinds import LayerKind
from repast_dist.torch.layers.base import Converted
from repast_dist.torch.matrices import Matrix


class _Convolution(Converted):
    """Convolutions in one or two dimensions; one dimension is an image of one row."""

    weight: nn.Parameter
    bias: nn.Parameter | None
    in_channels: int
    out_channels: int
    groups: int
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: Any
    padding_mode: str
    _reversed_padding_repeated_twice: list[int]

    def matrices(self) -> list[Matrix]:
        """Return the weights of every group, (channels x kernel, out)."""
        wide = self.out_channels // self.groups
        depthwise = self.groups > 1 and wide == 1
        kind: LayerKind = kinds.DEPTHWISE_CONV if depthwise else kinds.CONV
        return [
            self.matrix(
                f"{group}" if self.groups > 1 else "",
                "weight",
                functools.partial(_of_group, group=group, wide=wide),
                kind,
                "bias",
                functools.partial(_bias_of_group, group=group, wide=wide),
                group=group,
                groups=self.groups,
            )
            for group in range(self.groups)
        ]

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Cut patches, multiply, and put the results where the output has them."""
        dims = len(self.kernel_size)
        batched = input.dim() == dims + 2
        x = input if batched else input[None]
        sides = self._sides()
        if self.padding_mode != "zeros":
            x = F.pad(x, self._reversed_padding_repeated_twice, mode=self.padding_mode)
        elif any(sides):
            x = F.pad(x, sides)
        x = x[:, :, None] if dims == 1 else x
        kernel, stride, dilation = map(_two, (self.kernel_size, self.stride, self.dilation))
        out = [
            (side - (d * (k - 1) + 1)) // s + 1
            for side, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True)
        ]
        columns = F.unfold(x, kernel, dilation, 0, stride)
        n = len(columns)
        y = _grouped_product(self, columns, self.groups)
        y = y.transpose(1, 2).reshape(n, self.out_channels, *(out[-1:] if dims == 1 else out))
        return y if batched else y[0]

    def _sides(self) -> list[int]:
        """Return the padding of zeros, last dimension first, both sides of each."""
        if isinstance(self.padding, str):
            return list(self._reversed_padding_repeated_twice)
        return [side for padding in reversed(self.padding) for side in (padding, padding)]


class Conv1d(_Convolution):
    """`nn.Conv1d`."""


class Conv2d(_Convolution):
    """`nn.Conv2d`."""


class ConvTranspose2d(Converted):
    """`nn.ConvTranspose2d`: every input pixel is multiplied by the weights of all the output
    pixels that it reaches, whose results the digital unit adds up.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None
    in_channels: int
    out_channels: int
    groups: int
    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, int]

    def matrices(self) -> list[Matrix]:
        """Return the weights of every group, (in, channels x kernel); the bias is added later."""
        wide = self.in_channels // self.groups
        depthwise = self.groups > 1 and wide == 1
        return [
            self.matrix(
                f"{group}" if self.groups > 1 else "",
                "weight",
                functools.partial(_transposed_group, group=group, wide=wide),
                kinds.DEPTHWISE_CONV if depthwise else kinds.CONV,
                group=group,
                groups=self.groups,
            )
            for group in range(self.groups)
        ]

    def forward(self, input: torch.Tensor, output_size: list[int] | None = None) -> torch.Tensor:
        """Multiply, and add up patches that overlap."""
        batched = input.dim() == 4
        x = input if batched else input[None]
        extra = self._output_padding(
            x, output_size, self.stride, self.padding, self.kernel_size, 2, self.dilation
        )
        sides = x.shape[2:]
        size = [
            (side - 1) * s - 2 * p + d * (k - 1) + e + 1
            for side, s, p, d, k, e in zip(
                sides, self.stride, self.padding, self.dilation, self.kernel_size, extra,
                strict=True,
            )
        ]  # fmt: skip
        both = _grouped_product(self, x.flatten(2), self.groups)
        # An output padding of more than the stride lies beyond all patches: it stays zero.
        whole = [
            (side - 1) * s + d * (k - 1) + 1
            for side, s, d, k in zip(
                sides, self.stride, self.dilation, self.kernel_size, strict=True
            )
        ]
        y = F.fold(both.transpose(1, 2), whole, self.kernel_size, self.dilation, 0, self.stride)
        (top, left), (height, width) = self.padding, size
        below, right = (top + height - whole[0], left + width - whole[1])
        y = F.pad(y, [-left, right, -top, below])
        if self.bias is not None:
            y = y + self.bias[:, None, None]
        return y if batched else y[0]


def _grouped_product(layer: Converted, vectors: torch.Tensor, groups: int) -> torch.Tensor:
    """Return the products of every group, (n, positions, out), with vectors (n, in, positions)."""
    n, _, positions = vectors.shape
    parts = vectors.reshape(n, groups, -1, positions).permute(1, 0, 3, 2)
    results = [
        layer.product(f"{group}" if groups > 1 else "", part.reshape(n * positions, -1)).reshape(
            n, positions, -1
        )
        for group, part in enumerate(parts)
    ]
    return results[0] if len(results) == 1 else torch.cat(results, dim=2)


def _two(values: tuple[int, ...]) -> tuple[int, int]:
    return (1, values[0]) if len(values) == 1 else (values[0], values[1])


def _of_group(weight: torch.Tensor, group: int, wide: int) -> torch.Tensor:
    return weight[group * wide : (group + 1) * wide].flatten(1).t()


def _bias_of_group(bias: torch.Tensor, group: int, wide: int) -> torch.Tensor:
    return bias[group * wide : (group + 1) * wide]


def _transposed_group(weight: torch.Tensor, group: int, wide: int) -> torch.Tensor:
    return weight[group * wide : (group + 1) * wide].flatten(1)
