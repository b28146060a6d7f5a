"""Operators of ONNX as functions of PyTorch: all that has no weights of its own.

Real numbers are computed in the precision of the network, whatever a file converts them to, so that
a network that is made float64 computes in float64.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper

from repast_dist.torch.onnx.samples import NotTrained, Samples

Values = list[Any]

_REAL = frozenset((
    TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE,
))  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Call:
    """One operation of a graph.

    Attributes
    ----------
    operator : str
        ONNX's name of it.
    inputs, outputs : tuple of str
        Names of tensors; "" where there is none.
    attributes : dict
        Attributes by name, as Python's numbers, texts, lists and arrays.
    module : str
        Path of the module that computes it; "": a function.
    samples : Samples or None
        Where several samples go in shapes that are for one; None: the file is for any number.
    """

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    module: str = ""
    samples: Samples | None = None

    def get(self, name: str, default: Any = None) -> Any:
        """Return an attribute."""
        return self.attributes.get(name, default)

    def ints(self, values: Values, place: int, name: str) -> list[int] | None:
        """Return whole numbers that are an attribute or, in later versions, an input."""
        if name in self.attributes:
            return [int(number) for number in np.atleast_1d(self.attributes[name])]
        given = values[place] if len(values) > place else None
        return None if given is None else [int(number) for number in given.reshape(-1).tolist()]


def attributes_of(node: Any) -> dict[str, Any]:
    """Return a node's attributes as Python's own values."""
    found: dict[str, Any] = {}
    for attribute in node.attribute:
        value = helper.get_attribute_value(attribute)
        found[attribute.name] = value.decode() if isinstance(value, bytes) else value
    return found


def real_type(values: Sequence[Any]) -> torch.dtype:
    """Return the type of the first real tensor, or PyTorch's usual one."""
    for value in values:
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            return value.dtype
    return torch.get_default_dtype()


# Elements -------------------------------------------------------------------------------------


def _clip(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    low, high = (values[n] if len(values) > n else None for n in (1, 2))
    return torch.clamp(values[0], low, high)


def _divide(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    a, b = values
    whole = not (a.is_floating_point() or b.is_floating_point())
    return torch.div(a, b, rounding_mode="trunc" if whole else None)


def _modulo(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    return (torch.fmod if call.get("fmod", 0) else torch.remainder)(*values)


def _gelu(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    return F.gelu(values[0], approximate=call.get("approximate", "none"))


def _hard_sigmoid(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    return torch.clamp(call.get("alpha", 0.2) * values[0] + call.get("beta", 0.5), 0, 1)


def _selu(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    if "alpha" not in call.attributes and "gamma" not in call.attributes:
        return F.selu(values[0])
    alpha = call.get("alpha", 1.6732632423543772)
    return call.get("gamma", 1.0507009873554805) * F.elu(values[0], alpha)


def _is_infinite(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    if not (call.get("detect_positive", 1) and call.get("detect_negative", 1)):
        raise NotTrained("one sign only")
    return torch.isinf(values[0])


def _prelu(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    x, slope = values
    return torch.where(x < 0, slope * x, x)


def _cast(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    return _as_type(values[0], call.get("to"), real)


def _cast_like(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    x, like = values
    if like.is_floating_point():
        return x if x.is_floating_point() else x.to(real)
    return x.to(like.dtype)


def _as_type(x: torch.Tensor, to: int, real: torch.dtype) -> torch.Tensor:
    if to in _REAL:
        return x if x.is_floating_point() else x.to(real)
    return x.to(torch.bool if to == TensorProto.BOOL else torch.int64)


def _where(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    condition, a, b = values
    return torch.where(condition, a, b)


def _softmax(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    return torch.softmax(values[0], call.get("axis", -1))


def _log_softmax(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    return torch.log_softmax(values[0], call.get("axis", -1))


def _over_all(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Return an operator of any number of tensors, two at a time."""

    def operator(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
        result = values[0]
        for value in values[1:]:
            result = function(result, value)
        return result

    return operator


def _mean(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    return _over_all(torch.add)(call, values, real) / len(values)


def _plain(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Return an operator that is a function of its inputs alone."""
    return lambda call, values, real: function(*values)


def _slope(function: Callable[..., torch.Tensor], name: str, default: float) -> Any:
    """Return a function of one tensor and one attribute as an operator."""
    return lambda call, values, real: function(values[0], call.get(name, default))


# Sums over axes -------------------------------------------------------------------------------


def _reduced(function: Callable[[torch.Tensor, list[int], bool], torch.Tensor]) -> Any:
    def operator(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
        axes = call.ints(values, 1, "axes")
        if not axes:
            if call.get("noop_with_empty_axes", 0):
                return values[0]
            axes = list(range(values[0].dim()))
        return function(values[0], axes, bool(call.get("keepdims", 1)))

    return operator


def _product(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    for axis in sorted((axis % x.dim() for axis in axes), reverse=True):
        x = torch.prod(x, axis, keepdim=keep)
    return x


def _norm(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    return torch.sqrt(torch.sum(x * x, axes, keepdim=keep))


def _arg(function: Callable[..., torch.Tensor]) -> Any:
    def operator(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
        if call.get("select_last_index", 0):
            raise NotTrained("select_last_index")
        axis, keep = call.get("axis", 0), bool(call.get("keepdims", 1))
        return function(values[0], dim=axis, keepdim=keep)

    return operator


def _cumsum(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    if call.get("exclusive", 0) or call.get("reverse", 0):
        raise NotTrained("exclusive or reverse")
    return torch.cumsum(values[0], int(values[1]))


def _top(call: Call, values: Values, real: torch.dtype) -> tuple[torch.Tensor, ...]:
    return tuple(torch.topk(
        values[0], int(values[1]), call.get("axis", -1), bool(call.get("largest", 1)),
        bool(call.get("sorted", 1)),
    ))  # fmt: skip


# Windows --------------------------------------------------------------------------------------


def padding(call: Call, x: torch.Tensor, kernel: Sequence[int]) -> tuple[torch.Tensor, list[int]]:
    """Return a tensor and the padding that is left to do: equal on both sides of every axis."""
    return _padded(call, x, kernel, 0.0)


def _padded(
    call: Call, x: torch.Tensor, kernel: Sequence[int], value: float
) -> tuple[torch.Tensor, list[int]]:
    width = len(kernel)
    pads = list(call.get("pads") or [0] * 2 * width)
    automatic = call.get("auto_pad", "NOTSET")
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        strides = call.get("strides") or [1] * width
        wide = call.get("dilations") or [1] * width
        total = [
            max((math.ceil(n / s) - 1) * s + (k - 1) * d + 1 - n, 0)
            for n, s, k, d in zip(x.shape[2:], strides, kernel, wide, strict=True)
        ]
        less, more = [n // 2 for n in total], [n - n // 2 for n in total]
        pads = less + more if automatic == "SAME_UPPER" else more + less
    before, after = pads[:width], pads[width:]
    if before == after:
        return x, before
    both = [n for pair in zip(before, after, strict=True) for n in pair]
    return F.pad(x, _from_last(both), value=value), [0] * width


def _from_last(pairs: list[int]) -> list[int]:
    """Return (before, after) of axes, the last axis first, as PyTorch wants them."""
    grouped = [pairs[n : n + 2] for n in range(0, len(pairs), 2)]
    return [n for pair in reversed(grouped) for n in pair]


def _max_pool(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    kernel = call.get("kernel_shape")
    x, pads = _padded(call, values[0], kernel, -math.inf)
    pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(kernel) - 1]
    return pool(
        x, kernel, call.get("strides") or [1] * len(kernel), pads,
        call.get("dilations") or [1] * len(kernel), bool(call.get("ceil_mode", 0)),
    )  # fmt: skip


def _average_pool(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    kernel = call.get("kernel_shape")
    counted = bool(call.get("count_include_pad", 0))
    x, pads = padding(call, values[0], kernel)
    if (x is not values[0] and not counted) or set(call.get("dilations") or [1]) != {1}:
        raise NotTrained("padding on one side, or dilation")
    pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[len(kernel) - 1]
    strides = call.get("strides") or [1] * len(kernel)
    return pool(x, kernel, strides, pads, bool(call.get("ceil_mode", 0)), counted)


def _global(function: Callable[..., torch.Tensor]) -> Any:
    return lambda call, values, real: function(
        values[0], list(range(2, values[0].dim())), keepdim=True
    )


def _resize(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    x, older = values[0], call.operator == "Upsample"
    mode = call.get("mode", "nearest")
    where = call.get("coordinate_transformation_mode", "asymmetric" if older else "half_pixel")
    for name, usual in (
        ("antialias", 0), ("axes", None), ("exclude_outside", 0), ("cubic_coeff_a", -0.75),
        ("keep_aspect_ratio_policy", "stretch"),
    ):  # fmt: skip
        if call.get(name, usual) != usual:
            raise NotTrained(f"{name}={call.get(name)}")
    sizes = call.ints(values, 3, "sizes") if len(values) > 3 and values[3] is not None else None
    scales = None
    if sizes is None:
        scales = values[2 if len(values) > 2 else 1].reshape(-1).tolist()
        sizes = [math.floor(n * s + 1e-6) for n, s in zip(x.shape, scales, strict=True)]
    if list(sizes[1:2]) != [x.shape[1]] or x.dim() > 4:
        raise NotTrained("other axes than height and width")
    told: dict[str, Any] = {"size": sizes[2:]}
    if scales is not None and sizes == [
        math.floor(n * s) for n, s in zip(x.shape, scales, strict=True)
    ]:
        # Places are those of the scale, which is not that of the sizes where it is rounded.
        told = {"scale_factor": scales[2:], "recompute_scale_factor": False}
    if mode == "nearest":
        rounding = call.get("nearest_mode", "floor" if older else "round_prefer_floor")
        if (where, rounding) == ("asymmetric", "floor"):
            return F.interpolate(x, mode="nearest", **told)
        if where not in ("asymmetric", "half_pixel"):
            raise NotTrained(f"{mode} with {where}")
        for axis in range(2, x.dim()):
            scale = sizes[axis] / x.shape[axis] if scales is None else scales[axis]
            half = 0.5 if where == "half_pixel" else 0.0
            places = (torch.arange(sizes[axis], dtype=torch.float64) + half) / scale - half
            index = _ROUNDED[rounding](places).long().clamp(0, x.shape[axis] - 1)
            x = x.index_select(axis, index.to(x.device))
        return x
    kind = {"linear": "bilinear" if x.dim() == 4 else "linear", "cubic": "bicubic"}.get(mode)
    if kind is None or where not in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        raise NotTrained(f"{mode} with {where}")
    return F.interpolate(x, mode=kind, align_corners=where == "align_corners", **told)


_ROUNDED: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "floor": torch.floor,
    "ceil": torch.ceil,
    "round_prefer_floor": lambda places: torch.ceil(places - 0.5),
    "round_prefer_ceil": lambda places: torch.floor(places + 0.5),
}


# Where data lie -------------------------------------------------------------------------------


def _reshape(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    x, target = values
    wanted = [int(number) for number in target.tolist()]
    if call.samples is not None:
        one = call.samples.shape(call.outputs[0], tuple(x.shape))
        computed = not call.get("fixed", 0) and (-1 in wanted or math.prod(wanted) == x.numel())
        if one != tuple(x.shape) and not computed:
            return x.reshape(call.samples.target(one, tuple(x.shape), wanted))
    if not call.get("allowzero", 0):
        wanted = [x.shape[n] if size == 0 else size for n, size in enumerate(wanted)]
    return x.reshape(wanted)


def _flatten(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    x, axis = values[0], call.get("axis", 1)
    return x.reshape(math.prod(x.shape[:axis]), -1)


def _transpose(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    return values[0].permute(call.get("perm") or list(range(values[0].dim()))[::-1])


def _squeeze(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    axes = call.ints(values, 1, "axes")
    return values[0].squeeze() if axes is None else values[0].squeeze(tuple(axes))


def _unsqueeze(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    x, axes = values[0], call.ints(values, 1, "axes") or []
    for axis in sorted(axis % (x.dim() + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _concat(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    axis = call.get("axis")
    if call.samples is not None and values[0].dim():
        # What is the same for all samples is there once.
        axis %= values[0].dim()
        wide = [max(sizes) for sizes in zip(*(value.shape for value in values), strict=True)]
        values = [
            value.expand([value.shape[n] if n == axis else size for n, size in enumerate(wide)])
            for value in values
        ]
    return torch.cat(values, axis)


def _split(call: Call, values: Values, real: torch.dtype) -> tuple[torch.Tensor, ...]:
    x, axis, sizes = values[0], call.get("axis", 0), call.ints(values, 1, "split")
    if sizes is None:
        return tuple(torch.split(x, math.ceil(x.shape[axis] / len(call.outputs)), axis))
    return tuple(torch.split(x, sizes, axis))


def _slice(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    x = values[0]
    starts, ends = call.ints(values, 1, "starts") or [], call.ints(values, 2, "ends") or []
    axes = call.ints(values, 3, "axes") or list(range(len(starts)))
    steps = call.ints(values, 4, "steps") or [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        chosen = range(x.shape[axis])[start:end:step]
        if step > 0:
            part = [slice(None)] * x.dim()
            part[axis] = slice(chosen.start, chosen.stop, step)
            x = x[tuple(part)]
        else:
            x = x.index_select(axis, torch.tensor(list(chosen), device=x.device))
    return x


def _expand(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    x, target = values
    return x.expand(torch.broadcast_shapes(x.shape, tuple(target.tolist())))


def _tile(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    return values[0].repeat(values[1].tolist())


def _pad(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    x, mode = values[0], call.get("mode", "constant")
    pads = call.ints(values, 1, "pads") or []
    axes = call.ints(values, 3, "axes") if len(values) > 3 else None
    width = len(pads) // 2
    each = [0] * 2 * x.dim()
    for place, axis in enumerate(axes or range(x.dim())):
        each[2 * (axis % x.dim())], each[2 * (axis % x.dim()) + 1] = (
            pads[place],
            pads[place + width],
        )
    value = float(values[2]) if len(values) > 2 and values[2] is not None else 0.0
    sides = _from_last(each)
    if mode == "constant":
        return F.pad(x, sides, value=value)
    while sides and not any(sides[-2:]):
        sides = sides[:-2]
    return F.pad(
        x, sides, mode={"reflect": "reflect", "edge": "replicate", "wrap": "circular"}[mode]
    )


def _gather(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    x, index = values
    axis = call.get("axis", 0) % x.dim()
    index = torch.where(index < 0, index + x.shape[axis], index)
    rows = x.index_select(axis, index.reshape(-1))
    return rows.reshape((*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]))


def _gather_elements(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    x, index = values
    axis = call.get("axis", 0)
    return torch.gather(x, axis, torch.where(index < 0, index + x.shape[axis], index))


def _gather_nd(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    x, index = values
    if call.get("batch_dims", 0):
        raise NotTrained("batch_dims")
    return x[tuple(index.movedim(-1, 0))]


def _scatter_nd(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    x, index, updates = values
    if call.get("reduction", "none") != "none":
        raise NotTrained("a reduction")
    return x.index_put(tuple(index.movedim(-1, 0)), updates.to(x.dtype))


def _scatter_elements(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    x, index, updates = values
    if call.get("reduction", "none") != "none":
        raise NotTrained("a reduction")
    return x.scatter(call.get("axis", 0), index, updates.to(x.dtype))


def _shape(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    return torch.tensor(values[0].shape[call.get("start", 0) : call.get("end")], dtype=torch.int64)


def _range(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    return torch.arange(*(value.item() for value in values), dtype=values[0].dtype)


def _filled(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    value = call.get("value")
    held = torch.zeros(1) if value is None else value
    dtype = real if held.is_floating_point() else held.dtype
    return torch.full(values[0].tolist(), held.reshape(-1)[0].item(), dtype=dtype)


def _triangle(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    offset = int(values[1]) if len(values) > 1 and values[1] is not None else 0
    return (torch.triu if call.get("upper", 1) else torch.tril)(values[0], offset)


def _eye_like(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    rows, columns = values[0].shape
    near = torch.arange(columns)[None] - torch.arange(rows)[:, None] == call.get("k", 0)
    return near.to(values[0].dtype)


def _one_hot(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    index, depth, pair = values
    if call.get("axis", -1) != -1:
        raise NotTrained("another axis than the last")
    off, on = pair
    # What lies beyond the classes is none of them.
    index = torch.where(index < 0, index + int(depth), index)
    return torch.where(torch.arange(int(depth)) == index[..., None], on, off)


def _depth_to_space(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    x, edge = values[0], call.get("blocksize")
    if call.get("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, edge)
    n, c, h, w = x.shape
    x = x.reshape(n, edge, edge, c // edge**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(n, c // edge**2, h * edge, w * edge)


def _space_to_depth(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    x, edge = values[0], call.get("blocksize")
    n, c, h, w = x.shape
    x = x.reshape(n, c, h // edge, edge, w // edge, edge).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(n, c * edge**2, h // edge, w // edge)


# Normalisation and products that hold no module -----------------------------------------------


def _instance_norm(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    x, scale, shift = values
    return F.instance_norm(x, weight=scale, bias=shift, eps=call.get("epsilon", 1e-5))


def _group_norm(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    x, scale, shift = values
    if len(scale) != x.shape[1]:
        raise NotTrained("scales per group")
    return F.group_norm(x, call.get("num_groups"), scale, shift, call.get("epsilon", 1e-5))


def _layer_norm(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    x, scale, *shift = values
    axes = x.shape[call.get("axis", -1) :]
    y = F.layer_norm(x, axes, eps=call.get("epsilon", 1e-5)) * scale
    return y + shift[0] if shift and shift[0] is not None else y


def _rms_norm(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    x, scale = values[:2]
    return F.rms_norm(x, x.shape[call.get("axis", -1) :], eps=call.get("epsilon", 1e-5)) * scale


def _response_norm(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    if not call.get("size") % 2:
        # PyTorch's window lies on the other side of the middle.
        raise NotTrained("an even size")
    return F.local_response_norm(
        values[0], call.get("size"), call.get("alpha", 1e-4), call.get("beta", 0.75),
        call.get("bias", 1.0),
    )  # fmt: skip


def _einsum(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    return torch.einsum(call.get("equation"), *values)


def _gemm(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    a, b, *c = values
    a = a.T if call.get("transA", 0) else a
    b = b.T if call.get("transB", 0) else b
    y = call.get("alpha", 1.0) * (a @ b)
    return y + call.get("beta", 1.0) * c[0] if c and c[0] is not None else y


def _attention(call: Call, values: Values, real: torch.dtype) -> torch.Tensor:
    q, k, v, *others = values
    mask, *past = [*others, None]
    if call.get("softcap", 0) or any(item is not None for item in past):
        raise NotTrained("caps of scores, or states of earlier calls")
    heads = call.get("q_num_heads")
    flat = q.dim() == 3
    if flat:
        few = call.get("kv_num_heads")
        q, k, v = (
            x.reshape(*x.shape[:2], n, -1).transpose(1, 2)
            for x, n in zip((q, k, v), (heads, few, few), strict=True)
        )
    y = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=bool(call.get("is_causal", 0)),
        scale=call.get("scale"), enable_gqa=q.shape[1] != k.shape[1],
    )  # fmt: skip
    return y.transpose(1, 2).flatten(2) if flat else y


Operator = Callable[[Call, Values, torch.dtype], Any]

OPERATORS: dict[str, Operator] = {
    "Relu": _plain(torch.relu), "Neg": _plain(torch.neg), "Abs": _plain(torch.abs),
    "Sqrt": _plain(torch.sqrt), "Reciprocal": _plain(torch.reciprocal),
    "Sigmoid": _plain(torch.sigmoid), "Tanh": _plain(torch.tanh), "Exp": _plain(torch.exp),
    "Log": _plain(torch.log), "Erf": _plain(torch.erf), "HardSwish": _plain(F.hardswish),
    "Softplus": _plain(F.softplus), "Softsign": _plain(F.softsign), "Mish": _plain(F.mish),
    "Sin": _plain(torch.sin), "Cos": _plain(torch.cos), "Floor": _plain(torch.floor),
    "Ceil": _plain(torch.ceil), "Round": _plain(torch.round), "Sign": _plain(torch.sign),
    "IsNaN": _plain(torch.isnan), "IsInf": _is_infinite,
    "Selu": _selu, "Not": _plain(torch.logical_not),
    "LeakyRelu": _slope(F.leaky_relu, "alpha", 0.01), "Elu": _slope(F.elu, "alpha", 1.0),
    "Celu": _slope(F.celu, "alpha", 1.0),
    "ThresholdedRelu": lambda call, values, real: F.threshold(values[0], call.get("alpha", 1.0), 0),
    "Swish": lambda call, values, real: values[0] * torch.sigmoid(
        call.get("alpha", 1.0) * values[0]
    ),
    "PRelu": _prelu, "Clip": _clip, "HardSigmoid": _hard_sigmoid, "Gelu": _gelu,
    "Add": _plain(torch.add), "Sub": _plain(torch.sub), "Mul": _plain(torch.mul),
    "Div": _divide, "Pow": _plain(torch.pow), "Mod": _modulo,
    "Max": _over_all(torch.maximum), "Min": _over_all(torch.minimum), "Sum": _over_all(torch.add),
    "Mean": _mean, "Where": _where, "Equal": _plain(torch.eq), "Greater": _plain(torch.gt),
    "Less": _plain(torch.lt), "GreaterOrEqual": _plain(torch.ge), "LessOrEqual": _plain(torch.le),
    "And": _plain(torch.logical_and), "Or": _plain(torch.logical_or),
    "Xor": _plain(torch.logical_xor), "Softmax": _softmax, "LogSoftmax": _log_softmax,
    "ReduceMean": _reduced(lambda x, axes, keep: torch.mean(x, axes, keepdim=keep)),
    "ReduceSum": _reduced(lambda x, axes, keep: torch.sum(x, axes, keepdim=keep)),
    "ReduceMax": _reduced(lambda x, axes, keep: torch.amax(x, axes, keepdim=keep)),
    "ReduceMin": _reduced(lambda x, axes, keep: torch.amin(x, axes, keepdim=keep)),
    "ReduceL1": _reduced(lambda x, axes, keep: torch.sum(torch.abs(x), axes, keepdim=keep)),
    "ReduceL2": _reduced(_norm), "ReduceProd": _reduced(_product),
    "ReduceSumSquare": _reduced(lambda x, axes, keep: torch.sum(x * x, axes, keepdim=keep)),
    "ReduceLogSumExp": _reduced(lambda x, axes, keep: torch.logsumexp(x, axes, keepdim=keep)),
    "ArgMax": _arg(torch.argmax), "ArgMin": _arg(torch.argmin), "CumSum": _cumsum, "TopK": _top,
    "MaxPool": _max_pool, "AveragePool": _average_pool,
    "GlobalAveragePool": _global(torch.mean), "GlobalMaxPool": _global(torch.amax),
    "Resize": _resize, "Upsample": _resize,
    "Reshape": _reshape, "Flatten": _flatten, "Transpose": _transpose, "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze, "Identity": _plain(lambda x: x), "Cast": _cast, "CastLike": _cast_like,
    "Concat": _concat, "Split": _split, "Slice": _slice, "Expand": _expand, "Tile": _tile,
    "Pad": _pad, "Gather": _gather, "GatherElements": _gather_elements, "GatherND": _gather_nd,
    "ScatterND": _scatter_nd, "ScatterElements": _scatter_elements, "Shape": _shape,
    "Size": lambda call, values, real: torch.tensor(values[0].numel()),
    "Range": _range, "ConstantOfShape": _filled, "Trilu": _triangle, "EyeLike": _eye_like,
    "OneHot": _one_hot, "DepthToSpace": _depth_to_space, "SpaceToDepth": _space_to_depth,
    "InstanceNormalization": _instance_norm, "GroupNormalization": _group_norm,
    "LayerNormalization": _layer_norm, "RMSNormalization": _rms_norm,
    "SimplifiedLayerNormalization": _rms_norm, "LRN": _response_norm,
    "Einsum": _einsum, "MatMul": _plain(torch.matmul), "Gemm": _gemm, "Attention": _attention,
}  # fmt: skip
"""Operator -> what computes it from its inputs, in a real type."""

MOVING = frozenset((
    "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Cast", "CastLike",
    "Concat", "Split", "Slice",
))  # fmt: skip
"""Operators whose results hold numbers of their inputs as they are."""
