"""Operations that multiply by weights, or normalise with them, as PyTorch's own modules."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from repast_dist.torch.layers.operands import Operands
from repast_dist.torch.onnx.network import BatchNorm
from repast_dist.torch.onnx.operators import Call
from repast_dist.torch.onnx.samples import NotTrained
from repast_dist.torch.onnx.store import Store

Made = Call | None
"""The call of a layer; None: a function does it."""

Biases = dict[str, tuple[str, str]]
"""Result of a product -> the sum that it is used in, and what is added."""


def _weighted(module: nn.Module, store: Store, weight: str, bias: str, turn: bool = False) -> Any:
    """Give a layer the weights of the file."""
    module.weight = store.parameter(weight, turn)
    if bias:
        held = store.parameter(bias)
        flat = held if held.dim() == 1 else nn.Parameter(held.detach().reshape(-1))
        module.bias = flat
    return module


def _is_row(store: Store, name: str, width: int, product: bool) -> bool:
    """Return whether a constant is a bias of so many outputs; see `Constants.trained`."""
    if name not in store.constants or not store.constants[name].roots:
        return False
    shape = store.constants[name].tensor.shape
    return shape.numel() == width == shape[-1] and store.constants.trained(name, product)


def _key(store: Store, name: str) -> tuple[Any, ...]:
    """Return what tells one set of weights from another."""
    if not name:
        return ("",)
    known = store.constants[name]
    return (known.roots[0], known.turned) if known.turned is not None else (name,)


def _matmul(node: Any, call: Call, store: Store, biases: Biases) -> Made:
    a, b = call.inputs[:2]
    constants = store.constants
    if a not in constants and b not in constants:
        path = store.layer(("operands", *call.outputs), Operands, node)
        return Call(call.operator, (a, b), call.outputs, call.attributes, path)
    # Of two constants the first is what a sequence begins with.
    left = a in constants and b not in constants
    name = a if left else b
    if constants[name].tensor.dim() != 2 or not constants.trained(name, product=True):
        return None
    if a in constants and not left:
        store.hold(a, states=True)
    if left:
        return _dense(node, call, store, name, "", turn=False)
    width = constants[name].tensor.shape[1]
    after, bias = biases.get(call.outputs[0], ("", ""))
    if not _is_row(store, bias, width, product=False):
        after = bias = ""
    made = _dense(node, call, store, name, bias, turn=True)
    if not after:
        return made
    return Call(made.operator, made.inputs, (after,), made.attributes, made.module)


def _gemm(node: Any, call: Call, store: Store, biases: Biases) -> Made:
    a, b, *c = call.inputs
    constants, bias = store.constants, c[0] if c else ""
    if a in constants or b not in constants:
        plain = (call.get("alpha", 1.0), call.get("beta", 1.0)) == (1.0, 1.0)
        if a in constants or bias or not plain or call.get("transA", 0) or call.get("transB", 0):
            return None
        path = store.layer(("operands", *call.outputs), Operands, node)
        return Call(call.operator, (a, b), call.outputs, call.attributes, path)
    turn = not call.get("transB", 0)
    width = constants[b].tensor.shape[1 if turn else 0]
    if (call.get("alpha", 1.0), call.get("beta", 1.0)) != (1.0, 1.0):
        return None
    if bias and not _is_row(store, bias, width, product=True):
        return None
    return _dense(node, call, store, b, bias, turn)


def _dense(node: Any, call: Call, store: Store, name: str, bias: str, turn: bool) -> Call:
    """Return a product by a matrix, which is the left one if it is the first input."""
    rows, columns = store.constants[name].tensor.shape
    if turn:
        rows, columns = columns, rows
    path = store.layer(
        ("linear", turn, _key(store, name), _key(store, bias)),
        lambda: _weighted(
            nn.Linear(columns, rows, bias=bool(bias)), store, name, bias, turn
        ),
        node, name, bias,
    )  # fmt: skip
    left = call.inputs[0] == name
    other = call.inputs[1] if left else call.inputs[0]
    return Call(call.operator, (other,), call.outputs, {**call.attributes, "left": int(left)}, path)


_CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_CONV_TRANSPOSE = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def _conv(node: Any, call: Call, store: Store, biases: Biases) -> Made:
    weight, bias = call.inputs[1], call.inputs[2] if len(call.inputs) > 2 else ""
    if weight not in store.constants or (bias and bias not in store.constants):
        raise NotTrained("a kernel that is computed")
    bias = "" if bias and store.constants.is_filling(bias) else bias
    outwards = call.operator == "ConvTranspose"
    kernel = store.constants[weight].tensor.shape
    width, groups = len(kernel) - 2, int(call.get("group", 1))
    pads = list(call.get("pads") or [0] * 2 * width)
    alike = pads[:width] == pads[width:]
    automatic = call.get("auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER")
    if outwards and (automatic or not alike or call.get("output_shape")):
        raise NotTrained("padding that differs from side to side")
    channels = (kernel[0], kernel[1] * groups) if outwards else (kernel[1] * groups, kernel[0])
    others: dict[str, Any] = {}
    if outwards:
        others["output_padding"] = call.get("output_padding") or [0] * width
    module = (_CONV_TRANSPOSE if outwards else _CONV)[width - 1]
    settings = {
        "stride": tuple(call.get("strides") or [1] * width),
        "padding": tuple(pads[:width] if alike and not automatic else [0] * width),
        "dilation": tuple(call.get("dilations") or [1] * width),
        "groups": groups,
        **{name: tuple(value) for name, value in others.items()},
    }
    path = store.layer(
        (call.operator, _key(store, weight), _key(store, bias), tuple(sorted(settings.items()))),
        lambda: _weighted(
            module(*channels, tuple(kernel[2:]), bias=bool(bias), **settings), store, weight, bias
        ),
        node, weight, bias,
    )  # fmt: skip
    attributes = {**call.attributes, "kernel_shape": list(kernel[2:])}
    return Call(call.operator, call.inputs[:1], call.outputs, attributes, path)


def _batch_norm(node: Any, call: Call, store: Store, biases: Biases) -> Made:
    x, scale, shift, mean, variance = call.inputs
    constants = store.constants
    if any(name not in constants for name in (scale, shift, mean, variance)):
        raise NotTrained("statistics that are computed")

    def make() -> nn.Module:
        module = BatchNorm(
            constants[scale].tensor.numel(), eps=call.get("epsilon", 1e-5),
            momentum=1 - call.get("momentum", 0.9),
        )  # fmt: skip
        module.running_mean = constants[mean].tensor.clone()
        module.running_var = constants[variance].tensor.clone()
        return _weighted(module, store, scale, shift)

    path = store.layer(("norm", *call.inputs[1:]), make, node, scale, shift)
    return Call(call.operator, (x,), call.outputs[:1], call.attributes, path)


def _layer_norm(node: Any, call: Call, store: Store, biases: Biases) -> Made:
    x, scale, *rest = call.inputs
    shift = rest[0] if rest else ""
    if scale not in store.constants or (shift and shift not in store.constants):
        return None
    shape, axis = store.constants[scale].tensor.shape, call.get("axis", -1)
    if axis != -len(shape) or not store.constants.trained(scale, product=True):
        return None
    path = store.layer(
        ("layer_norm", scale, shift),
        lambda: _weighted(
            nn.LayerNorm(shape, call.get("epsilon", 1e-5), bias=bool(shift)), store, scale, shift
        ),
        node, scale, shift,
    )  # fmt: skip
    return Call(call.operator, (x,), call.outputs[:1], call.attributes, path)


def _gather(node: Any, call: Call, store: Store, biases: Biases) -> Made:
    table, index = call.inputs
    constants = store.constants
    if table not in constants or constants[table].tensor.dim() != 2 or call.get("axis", 0):
        return None
    if not constants.trained(table, product=True):
        return None
    entries, width = constants[table].tensor.shape
    path = store.layer(
        ("embedding", _key(store, table)),
        lambda: _weighted(nn.Embedding(entries, width), store, table, ""),
        node, table,
    )  # fmt: skip
    if index in constants:
        store.hold(index)
    return Call(call.operator, (index,), call.outputs, call.attributes, path)


def _dropout(node: Any, call: Call, store: Store, biases: Biases) -> Made:
    ratio = (
        store.constants[call.inputs[1]].tensor if len(call.inputs) > 1 and call.inputs[1] else 0.5
    )
    if any(store.used[name] for name in call.outputs[1:] if name):
        raise NotTrained("a mask that is used")
    path = store.layer(("dropout", *call.outputs), lambda: nn.Dropout(float(ratio)), node)
    return Call(call.operator, call.inputs[:1], call.outputs[:1], {}, path)


_GATES: dict[str, tuple[Any, tuple[int, ...], list[str]]] = {
    "LSTM": (nn.LSTM, (0, 2, 3, 1), ["Sigmoid", "Tanh", "Tanh"]),
    "GRU": (nn.GRU, (1, 0, 2), ["Sigmoid", "Tanh"]),
    "RNN": (nn.RNN, (0,), ["Tanh"]),
}
"""Layer, the places of its gates in ONNX (i o f c; z r h), and the functions of its cells."""


def _recurrent(node: Any, call: Call, store: Store, biases: Biases) -> Made:
    layer, order, functions = _GATES[call.operator]
    x, weights, states, bias, lengths, *first = (*call.inputs, "", "", "")[:8]
    ways = 2 if call.get("direction", "forward") == "bidirectional" else 1
    given = [name.decode() if isinstance(name, bytes) else name
             for name in call.get("activations", functions * ways)]  # fmt: skip
    peepholes = first[2] if len(first) > 2 else ""
    if weights not in store.constants or states not in store.constants:
        raise NotTrained("weights that are computed")
    if given != functions * ways or call.get("clip") or call.get("input_forget", 0) or peepholes:
        raise NotTrained("cells of another kind")
    if lengths or (call.operator == "GRU" and not call.get("linear_before_reset", 0)):
        raise NotTrained("lengths of sequences" if lengths else "linear_before_reset=0")
    width, hidden = store.constants[weights].tensor.shape[2], int(call.get("hidden_size"))

    def make() -> nn.Module:
        module = layer(width, hidden, bias=bool(bias), bidirectional=ways == 2)
        for name in (weights, states, bias):
            if name:
                store.take(name)
        for way, suffix in enumerate(("l0", "l0_reverse")[:ways]):
            parts = {"ih": store.constants[weights].tensor[way]}
            parts["hh"] = store.constants[states].tensor[way]
            for part, matrix in parts.items():
                _fill(module, f"weight_{part}_{suffix}", matrix, order)
            if bias:
                both = store.constants[bias].tensor[way].chunk(2)
                for part, row in zip(("ih", "hh"), both, strict=True):
                    _fill(module, f"bias_{part}_{suffix}", row, order)
        return module

    path = store.layer((call.operator, weights, states, bias), make, node, weights)
    for name in first[:2]:
        if name in store.constants:
            store.hold(name, states=True)
    return Call(call.operator, (x, "", "", "", "", *first[:2]), call.outputs, call.attributes, path)


def _fill(module: nn.Module, name: str, values: torch.Tensor, order: tuple[int, ...]) -> None:
    gates = values.chunk(len(order))
    parameter = nn.Parameter(torch.cat([gates[place] for place in order]).contiguous())
    setattr(module, name, parameter)


BUILDERS: dict[str, Callable[[Any, Call, Store, Biases], Made]] = {
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Conv": _conv,
    "ConvTranspose": _conv,
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "Gather": _gather,
    "Dropout": _dropout,
    **dict.fromkeys(_GATES, _recurrent),
}
"""Operator -> what makes its layer."""
