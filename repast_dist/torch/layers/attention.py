"""Multi-head attention, and PyTorch's function for scaled products of queries and keys."""

import functools
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from repast_dist.network import kinds
from repast_dist.torch.layers.base import Converted
from repast_dist.torch.layers.linear import transposed
from repast_dist.torch.matrices import Matrix, Part
from repast_dist.torch.products import multiply_operands
from repast_dist.torch.simulation import Simulation

_QUERY, _KEY, _VALUE = "query", "key", "value"


class MultiheadAttention(Converted):
    """`nn.MultiheadAttention`: three projections, two products of activations, one projection."""

    embed_dim: int
    num_heads: int
    head_dim: int
    dropout: float
    batch_first: bool
    training: bool
    in_proj_weight: nn.Parameter | None
    in_proj_bias: nn.Parameter | None

    @classmethod
    def refuses(cls, module: nn.Module) -> str:
        """Refuse what is rarely used: biases of keys and values, and a token of zeros."""
        if module.bias_k is not None or module.add_zero_attn:
            return "add_bias_kv and add_zero_attn are not modelled"
        return ""

    def matrices(self) -> list[Matrix]:
        """Return the projections of queries, keys and values, and that of the output."""
        found = [
            self._projection(number, part) for number, part in enumerate((_QUERY, _KEY, _VALUE))
        ]
        output = self.out_proj
        bias = None if output.bias is None else Part("bias", _whole)
        weight = Part("weight", transposed)
        return [*found, Matrix(self.named("output"), output, weight, bias, kinds.DENSE)]

    def _projection(self, number: int, part: str) -> Matrix:
        wide = self.embed_dim
        cut = functools.partial(_rows, start=number * wide, stop=(number + 1) * wide)
        if self.in_proj_weight is not None:
            return self.matrix(
                part,
                "in_proj_weight",
                lambda tensor: cut(tensor).t(),
                kinds.DENSE,
                "in_proj_bias",
                cut,
            )
        name = f"{part[0]}_proj_weight"
        return self.matrix(part, name, transposed, kinds.DENSE, "in_proj_bias", cut)

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attend, with all of PyTorch's masks; see `nn.MultiheadAttention.forward`."""
        if attn_mask is None and is_causal:
            raise ValueError("is_causal needs an attn_mask, as in nn.MultiheadAttention")
        batched = query.dim() == 3
        tensors = [query, key, value]
        if not batched:
            tensors = [tensor[:, None] for tensor in tensors]
            key_padding_mask = None if key_padding_mask is None else key_padding_mask[None]
        if not (batched and self.batch_first):
            tensors = [tensor.transpose(0, 1) for tensor in tensors]
        q, k, v = (
            self._split(self._project(part, tensor))
            for part, tensor in zip((_QUERY, _KEY, _VALUE), tensors, strict=True)
        )
        mask = _one_mask(attn_mask, key_padding_mask, q)
        scores = self.operand_product("scores", q, k.transpose(2, 3)) / math.sqrt(self.head_dim)
        scores = scores if mask is None else scores + mask
        # A token that may attend to none has no numbers where PyTorch tells the weights.
        weights = torch.softmax(scores, dim=-1) if need_weights else _softmax(scores)
        weights = F.dropout(weights, self.dropout, self.training)
        mixed = self.operand_product("mix", weights, v).transpose(1, 2).flatten(2)
        y = self._project("output", mixed)
        told = None
        if need_weights:
            told = weights.mean(dim=1) if average_attn_weights else weights
        if not batched:
            return y[0], None if told is None else told[0]
        return (y if self.batch_first else y.transpose(0, 1)), told

    def _project(self, part: str, tokens: torch.Tensor) -> torch.Tensor:
        """(N, T, in) -> (N, T, embed_dim)."""
        rows = self.product(part, tokens.reshape(-1, tokens.shape[-1]))
        return rows.reshape(*tokens.shape[:2], -1)

    def _split(self, tokens: torch.Tensor) -> torch.Tensor:
        """(N, T, D) -> (N, heads, T, D / heads)."""
        n, count, _ = tokens.shape
        return tokens.reshape(n, count, self.num_heads, -1).transpose(1, 2)


class AttentionFunctions(TorchFunctionMode):
    """While it is entered, `scaled_dot_product_attention` runs on the arrays.

    Parameters
    ----------
    simulation : Simulation
        The arrays.
    where : callable
        Returns the path of the module that calls it.
    """

    def __init__(self, simulation: Simulation, where: Any) -> None:
        super().__init__()
        self._simulation, self._where = simulation, where

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Replace one function, and call all others."""
        if func is F.scaled_dot_product_attention:
            return self._attend(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> torch.Tensor:
        if is_causal and attn_mask is not None:
            raise ValueError("is_causal goes without an attn_mask, as in PyTorch's function")
        if enable_gqa:
            times = query.shape[-3] // key.shape[-3]
            key = key.repeat_interleave(times, -3)
            value = value.repeat_interleave(times, -3)
        given = (query, key, value)
        leading = torch.broadcast_shapes(*(tensor.shape[:-2] for tensor in given))
        q, k, v = (_four_dimensions(tensor, leading) for tensor in given)
        factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
        path = self._where() or "network"
        scores = multiply_operands(self._simulation, f"{path}.scores", q, k.transpose(2, 3))
        scores = (scores * factor).reshape(*leading, *scores.shape[-2:])
        if is_causal:
            blocked = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
            scores = scores.masked_fill(blocked, -math.inf)
        if attn_mask is not None:
            scores = scores + _additive(attn_mask, scores.dtype, kept=True)
        weights = F.dropout(_softmax(scores), dropout_p, True)
        four = _four_dimensions(weights, leading)
        mixed = multiply_operands(self._simulation, f"{path}.mix", four, v)
        return mixed.reshape(*leading, *mixed.shape[-2:])


def _softmax(scores: torch.Tensor) -> torch.Tensor:
    """Return weights of the last dimension, 0 where a token may attend to none, as PyTorch does."""
    weights: torch.Tensor = torch._safe_softmax(scores, -1)
    return weights


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def _rows(tensor: torch.Tensor, start: int, stop: int) -> torch.Tensor:
    return tensor[start:stop]


def _four_dimensions(tensor: torch.Tensor, leading: torch.Size) -> torch.Tensor:
    """Return (N, H, T, K): the first dimension, all others in front of the last two, those."""
    whole = tensor.expand(*leading, *tensor.shape[-2:])
    if not leading:
        return whole[None, None]
    return whole.reshape(leading[0], -1, *tensor.shape[-2:])


def _additive(mask: torch.Tensor, dtype: torch.dtype, kept: bool) -> torch.Tensor:
    """Return a mask of bools, in which `kept` means to attend, as numbers to add."""
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    zeros = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return zeros.masked_fill(~mask if kept else mask, -math.inf)


def _one_mask(
    mask: torch.Tensor | None, padding: torch.Tensor | None, q: torch.Tensor
) -> torch.Tensor | None:
    """Return both masks of multi-head attention as one that is added to (N, H, T, T') scores."""
    n, heads = q.shape[:2]
    added = None
    if mask is not None:
        added = _additive(mask, q.dtype, kept=False)
        if added.dim() == 3:
            added = added.reshape(n, heads, *added.shape[1:])
    if padding is not None:
        keys = _additive(padding, q.dtype, kept=False)[:, None, None]
        added = keys if added is None else added + keys
    return added
