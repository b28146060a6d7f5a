"""LSTM and GRU: the inputs of all steps of a sequence in one product, the states one by one."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from repast_dist.ground.errors import DataError
from repast_dist.network import kinds
from repast_dist.torch.layers.base import Converted
from repast_dist.torch.layers.linear import transposed
from repast_dist.torch.matrices import Matrix

State = tuple[torch.Tensor, ...]


class _Recurrent(Converted):
    """Recurrent layers over each other, forwards or in both directions."""

    num_layers: int
    hidden_size: int
    proj_size: int
    bidirectional: bool
    batch_first: bool
    bias: bool
    dropout: float
    training: bool

    def matrices(self) -> list[Matrix]:
        """Return the weights of inputs and of states of every layer and direction."""
        found = []
        for suffix in self._suffixes():
            for part in ("ih", "hh"):
                bias = f"bias_{part}_{suffix}" if self.bias else ""
                name, weight = f"{suffix}.{part}", f"weight_{part}_{suffix}"
                found.append(self.matrix(name, weight, transposed, kinds.DENSE, bias))
            if self.proj_size:
                weight = f"weight_hr_{suffix}"
                found.append(self.matrix(f"{suffix}.hr", weight, transposed, kinds.DENSE))
        return found

    def _suffixes(self) -> list[str]:
        ways = ("", "_reverse") if self.bidirectional else ("",)
        return [f"l{layer}{way}" for layer in range(self.num_layers) for way in ways]

    def forward(self, input: Any, hx: Any = None) -> Any:
        """Return the outputs of the last layer and the last states of all; see `nn.LSTM`."""
        if not isinstance(input, torch.Tensor):
            raise DataError(
                f"{self.named()}: packed sequences are not modelled; valid: padded ones"
            )
        batched = input.dim() == 3
        x = input if batched else input[:, None]
        if batched and self.batch_first:
            x = x.transpose(0, 1)
        states = self._initial(hx, x, batched)
        ways = 2 if self.bidirectional else 1
        last: list[State] = []
        for layer in range(self.num_layers):
            outputs = []
            for way in range(ways):
                suffix = f"l{layer}" + ("_reverse" if way else "")
                start = tuple(state[layer * ways + way] for state in states)
                out, end = self._run(suffix, x, start, reverse=bool(way))
                outputs.append(out)
                last.append(end)
            x = torch.cat(outputs, dim=2) if ways == 2 else outputs[0]
            if layer < self.num_layers - 1:
                x = F.dropout(x, self.dropout, self.training)
        ends = tuple(torch.stack(parts) for parts in zip(*last, strict=True))
        if not batched:
            x, ends = x[:, 0], tuple(end[:, 0] for end in ends)
        elif self.batch_first:
            x = x.transpose(0, 1)
        return x, ends if len(ends) > 1 else ends[0]

    def _initial(self, hx: Any, x: torch.Tensor, batched: bool) -> State:
        """Return the states before the first step, each (layers * directions, N, width)."""
        count = self.num_layers * (2 if self.bidirectional else 1)
        if hx is None:
            zeros = [x.new_zeros(count, x.shape[1], width) for width in self._widths()]
            # Errors go as far back as the first states, as those of all other steps do.
            return tuple(state.requires_grad_(torch.is_grad_enabled()) for state in zeros)
        given = hx if isinstance(hx, tuple) else (hx,)
        return given if batched else tuple(state[:, None] for state in given)

    def _run(
        self, suffix: str, x: torch.Tensor, state: State, reverse: bool
    ) -> tuple[torch.Tensor, State]:
        """Run one layer in one direction over (T, N, D)."""
        steps, samples, _ = x.shape
        rows = self.product(f"{suffix}.ih", x.reshape(steps * samples, -1))
        gates = rows.reshape(steps, samples, -1)
        outputs: list[torch.Tensor] = []
        for step in reversed(range(steps)) if reverse else range(steps):
            recurrent = self.product(f"{suffix}.hh", state[0])
            state = self._cell(suffix, gates[step], recurrent, state)
            outputs.append(state[0])
        return torch.stack(outputs[::-1] if reverse else outputs), state

    def _widths(self) -> tuple[int, ...]:
        """Return the widths of a state's parts."""
        return (self.hidden_size,)

    def _cell(
        self, suffix: str, inputs: torch.Tensor, recurrent: torch.Tensor, state: State
    ) -> State:
        """Return the state after a step, from what inputs and states give to the gates."""
        raise NotImplementedError


class LSTM(_Recurrent):
    """`nn.LSTM`."""

    def _widths(self) -> tuple[int, ...]:
        return (self.proj_size or self.hidden_size, self.hidden_size)

    def _cell(
        self, suffix: str, inputs: torch.Tensor, recurrent: torch.Tensor, state: State
    ) -> State:
        i, f, g, o = (inputs + recurrent).chunk(4, dim=1)
        cell = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
        hidden = torch.sigmoid(o) * torch.tanh(cell)
        if self.proj_size:
            hidden = self.product(f"{suffix}.hr", hidden)
        return hidden, cell


class GRU(_Recurrent):
    """`nn.GRU`."""

    def _cell(
        self, suffix: str, inputs: torch.Tensor, recurrent: torch.Tensor, state: State
    ) -> State:
        reset_i, update_i, new_i = inputs.chunk(3, dim=1)
        reset_h, update_h, new_h = recurrent.chunk(3, dim=1)
        update = torch.sigmoid(update_i + update_h)
        new = torch.tanh(new_i + torch.sigmoid(reset_i + reset_h) * new_h)
        return ((1 - update) * new + update * state[0],)


RECURRENT: dict[type[nn.Module], type[Converted]] = {nn.LSTM: LSTM, nn.GRU: GRU}
