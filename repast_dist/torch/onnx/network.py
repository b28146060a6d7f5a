"""An ONNX graph as a PyTorch module, which runs its operations one after the other."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from repast_dist.torch.layers.operands import Operands
from repast_dist.torch.onnx.operators import OPERATORS, Call, padding, real_type
from repast_dist.torch.onnx.samples import NotTrained

Declared = tuple[str, tuple[int | None, ...], bool]
"""Name of an input, its dimensions (None: open), and whether it has whole numbers."""


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm of any number of dimensions."""

    def _check_input_dim(self, input: torch.Tensor) -> None:
        """Take all."""


class OnnxNetwork(nn.Module):
    """A graph: modules at the paths of their weights, and the operations that call them.

    Parameters
    ----------
    calls : sequence of Call
        The operations, in order.
    inputs : sequence of Declared
        The inputs.
    outputs : sequence of str
        Names of the outputs.
    held : mapping
        Name of a tensor in the graph -> path of the parameter or buffer that it is.
    """

    def __init__(
        self,
        calls: Sequence[Call],
        inputs: Sequence[Declared],
        outputs: Sequence[str],
        held: Mapping[str, str],
    ) -> None:
        super().__init__()
        self._calls, self._outputs = tuple(calls), tuple(outputs)
        self._declared, self._held = tuple(inputs), dict(held)
        uses = [name for call in self._calls for name in call.inputs]
        self._used = frozenset((*uses, *outputs)) - {""}
        last = {name: number for number, call in enumerate(self._calls) for name in call.inputs}
        self._done = [
            tuple(
                name for name in dict.fromkeys(call.inputs) if last[name] == number and name in uses
            )
            for number, call in enumerate(self._calls)
        ]

    def forward(self, *args: torch.Tensor, **kwargs: torch.Tensor) -> Any:
        """Return the output, or a mapping of several by their names.

        Parameters
        ----------
        *args, **kwargs
            The inputs in their order, or by their names; samples first. A sample of as many numbers
            in another shape is given the shape of the file.
        """
        names = [name for name, _, _ in self._declared]
        given = dict(zip(names, args, strict=False)) | kwargs
        if len(args) > len(names) or set(given) != set(names):
            raise TypeError(
                f"{len(args) + len(kwargs)} inputs ({', '.join(kwargs) or 'without names'}); "
                f"valid: {', '.join(names)}"
            )
        real = real_type(list(self.parameters()))
        values: dict[str, Any] = {name: self._at(path) for name, path in self._held.items()}
        values |= {item[0]: _fitted(given[item[0]], *item, real) for item in self._declared}
        for call, done in zip(self._calls, self._done, strict=True):
            inputs = _together([values[name] if name else None for name in call.inputs])
            try:
                made = self._made(call, inputs, real)
            except NotTrained as error:
                raise NotImplementedError(
                    f"{call.operator} with {error} cannot be trained"
                ) from None
            made = made if isinstance(made, tuple) else (made,)
            if not self._used.isdisjoint(call.outputs[len(made) :]):
                raise NotImplementedError(
                    f"{call.operator} whose result {len(made) + 1} is used cannot be trained"
                )
            values |= dict(zip(call.outputs, made, strict=False))
            for name in done:
                if name not in self._outputs:
                    values.pop(name, None)
        found = {name: values[name] for name in self._outputs}
        return found if len(found) > 1 else next(iter(found.values()))

    def _at(self, path: str) -> torch.Tensor:
        where, _, name = path.rpartition(".")
        tensor: torch.Tensor = getattr(self.get_submodule(where), name)
        return tensor

    def _made(self, call: Call, inputs: list[Any], real: torch.dtype) -> Any:
        if not call.module:
            return OPERATORS[call.operator](call, inputs, real)
        module = self.get_submodule(call.module)
        if call.operator in ("Conv", "ConvTranspose"):
            x = inputs[0]
            if call.operator == "Conv":
                x, left = padding(call, x, call.get("kernel_shape"))
                if call.get("auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER"):
                    # The module has none of its own.
                    x = F.pad(x, [side for n in reversed(left) for side in (n, n)])
            return module(x)
        if call.operator in _RECURRENT:
            return _recurrent(call, module, inputs)
        if isinstance(module, Operands):
            return module(inputs[0], inputs[1])
        x = inputs[0]
        if call.get("left", 0):
            return module(x.mT).mT
        return module(x.T if call.get("transA", 0) else x)


def _together(values: list[Any]) -> list[Any]:
    """Return tensors on one device: what is made of shapes is made by the processor."""
    places = {value.device for value in values if value is not None}
    place = next((place for place in places if place.type != "cpu"), None)
    if len(places) < 2 or place is None:
        return values
    return [None if value is None else value.to(place) for value in values]


_RECURRENT = ("LSTM", "GRU", "RNN")


def _fitted(
    value: torch.Tensor, name: str, shape: tuple[int | None, ...], whole: bool, real: torch.dtype
) -> torch.Tensor:
    """Return an input in the type and, where it has as many numbers, the shape of the file."""
    value = value.long() if whole else value.to(real)
    wanted, now = shape[1:], tuple(value.shape[1:])
    fits = len(wanted) == len(now) and all(
        size in (None, given) for size, given in zip(wanted, now, strict=True)
    )
    if fits or not shape:
        return value
    known = math.prod(size for size in wanted if size is not None)
    if wanted.count(None) <= 1 and math.prod(now) % known == 0:
        rest = math.prod(now) // known
        if None in wanted or rest == 1:
            return value.reshape(len(value), *(rest if size is None else size for size in wanted))
    told = ", ".join("any" if size is None else str(size) for size in wanted)
    raise ValueError(f"input {name}: a sample of shape {now}; valid: ({told})")


def _recurrent(call: Call, module: nn.Module, inputs: list[Any]) -> tuple[torch.Tensor, ...]:
    """Run a layer over (T, N, D); return what ONNX does, (T, directions, N, H) and last states."""
    x, states = inputs[0], [state for state in inputs[5:7] if state is not None]
    layout = call.get("layout", 0)
    x = x.transpose(0, 1) if layout else x
    if layout:
        states = [state.transpose(0, 1) for state in states]
    backwards = call.get("direction", "forward") == "reverse"
    x = x.flip(0) if backwards else x
    hx: Any = None
    if any(state.requires_grad or bool(state.detach().any()) for state in states):
        states = [state.expand(-1, x.shape[1], -1).contiguous() for state in states]
        hx = tuple(states) if call.operator == "LSTM" else states[0]
    y, last = module(x, hx)
    ways = 2 if call.get("direction", "forward") == "bidirectional" else 1
    y = y.reshape(*y.shape[:2], ways, -1).transpose(1, 2)
    y = y.flip(0) if backwards else y
    ends = last if isinstance(last, tuple) else (last,)
    if layout:
        y, ends = y.permute(2, 0, 1, 3), tuple(end.transpose(0, 1) for end in ends)
    return (y, *ends)


def begin_anew(network: nn.Module) -> None:
    """Draw the weights of all layers anew, as PyTorch does for new ones."""
    for module in network.modules():
        reset = getattr(module, "reset_parameters", None)
        if reset is not None:
            reset()
