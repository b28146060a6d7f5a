"""What the nodes of an ONNX graph refer to: shapes, constants, weights and the batch.

Weights stay where they are: of a tensor only name, type and shape are read, of small ones the
numbers too, where they are shapes or indices.
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, inliner, numpy_helper, shape_inference

from repast_dist.ground.errors import SettingsError
from repast_dist.ground.numbers import ceil_div

Shape = tuple[int, ...]

_SMALL = 4096
_PLAIN_NUMBERS = (
    TensorProto.INT64, TensorProto.INT32, TensorProto.UINT64, TensorProto.UINT32, TensorProto.BOOL,
    TensorProto.STRING,
)  # fmt: skip
"""Types of indices, masks and names; other numbers may have been trained."""
_FOLDED = frozenset((
    "Add", "Sub", "Mul", "Div", "Mod", "Neg", "Abs", "Floor", "Ceil", "Round", "Min", "Max", "Sqrt",
    "Cast", "Concat", "Gather", "Slice", "Squeeze", "Unsqueeze", "Reshape", "Expand", "Tile",
    "ConstantOfShape", "Range", "Where", "Equal", "Greater", "Less", "Not", "And", "Or",
    "ReduceProd", "ReduceSum", "ReduceMin", "ReduceMax", "Transpose", "Identity", "Flatten",
    "GreaterOrEqual", "LessOrEqual", "ScatterND", "Pow",
))  # fmt: skip
"""Operators on small constants, which shapes are made of."""
_DESCRIBING = frozenset(("Shape", "Size"))
_SPLITTING = frozenset(("Split", "Slice", "Gather"))
MADE_UP = re.compile(r"onnx::|val_|_?lifted_tensor|_tensor_constant|/|\d+$|node_|_to_copy|_val")
"""Names that exporters make up for constants, which nothing trains."""
_SCOPES = "pkg.torch.onnx.name_scopes"
_KIND = "pkg.torch.export.graph_signature.InputSpec.kind"
_NUMBERED = re.compile(r"(node_.*|[A-Za-z]+_\d+|)")
"""Names of nodes that only count them."""


@dataclasses.dataclass(frozen=True)
class Constant:
    """What does not depend on the input: a tensor of the file, or made of such.

    Attributes
    ----------
    shape : tuple of int
        Its shape.
    roots : tuple of str
        Tensors of the file that it is made of and that may have been trained.
    """

    shape: Shape
    roots: tuple[str, ...] = ()


class Graph:
    """A graph that is read: shapes of all tensors, and which of them are constants.

    Parameters
    ----------
    model : ModelProto
        The network; it is changed.
    batch_axis : int
        Axis of the first input that counts samples.
    sequence : int or None
        What open dimensions other than the batch are taken as; None: 1.
    folder : Path
        Where the numbers of tensors lie that are kept outside of the file.
    """

    def __init__(self, model: Any, batch_axis: int, sequence: int | None, folder: Path) -> None:
        if model.functions:
            model = inliner.inline_local_functions(model)
        self._folder = folder
        self._tensors = {item.name: item for item in model.graph.initializer}
        self._buffers = {
            name for name, kind in kinds_of_tensors(model.graph).items() if kind != "PARAMETER"
        }
        self.inputs = [item for item in model.graph.input if item.name not in self._tensors]
        self.open_dimensions = self._close(model.graph, batch_axis, sequence)
        model, computed = _inferred(model)
        self.nodes = list(model.graph.node)
        self.shapes = _shapes(model.graph)
        self._tensors |= {item.name: item for item in model.graph.initializer}
        first = self.shapes.get(self.inputs[0].name, ()) if self.inputs else ()
        if first and not 0 <= batch_axis < len(first):
            raise SettingsError(
                f"workload.batch_axis={batch_axis}: the first input is {first}; valid: 0 to "
                f"{len(first) - 1}"
            )
        self.batch = first[batch_axis] if first else 1
        self.input_shape = first[:batch_axis] + first[batch_axis + 1 :]
        self.result = self.shapes.get(model.graph.output[0].name, ()) if model.graph.output else ()
        self.constants: dict[str, Constant] = {}
        self._sizes: dict[str, int] = {}
        self._left: dict[str, int] = {}
        self._user: dict[str, str] = {}
        self._twins: dict[str, str] = {}
        for tensor in self._tensors.values():
            self._keep(tensor.name, tensor)
        for name in computed:
            self.constants[name] = Constant(self.constants[name].shape)
        for node in self.nodes:
            self._track(node)
        self._find_twins()

    def per_sample(self, total: int) -> int:
        """Return how many of a number of things there are per sample; 1 at least."""
        return max(1, ceil_div(total, self.batch))

    def elements(self, name: str) -> int:
        """Return the elements of a tensor per sample; of an unknown one, 1."""
        return self.per_sample(math.prod(self.shapes.get(name, (1,))))

    def is_constant(self, name: str) -> bool:
        """Return whether a tensor is the same for every input."""
        return name in self.constants

    def weights(self, name: str, made_up: bool = False) -> int:
        """Return how many numbers of a tensor may have been trained.

        Parameters
        ----------
        name : str
            A tensor.
        made_up : bool
            Whether tensors whose names an exporter made up count as well.
        """
        held = self.constants.get(name)
        return sum(self._sizes[root] for root in self._trained(held, made_up)) if held else 0

    def take(self, name: str, layer: str, made_up: bool = False) -> int:
        """Return how many numbers of a tensor a layer is the first to use; later ones share them.

        Parameters
        ----------
        name : str
            The tensor, a constant.
        layer : str
            Who asks.
        made_up : bool
            As in `weights`.
        """
        held = self.constants[name]
        wanted, taken = math.prod(held.shape), 0
        for root in self._trained(held, made_up):
            self._user.setdefault(root, layer)
            part = min(self._left[root], wanted - taken)
            self._left[root] -= part
            taken += part
        return taken

    def first_user(self, name: str) -> str:
        """Return the layer that used the numbers of a tensor first; "": none did."""
        roots = self._trained(self.constants[name], made_up=True)
        return next((self._user[root] for root in roots if root in self._user), "")

    def left_over(self) -> Iterator[tuple[str, int]]:
        """Yield (layer, numbers) of tensors of which layers took a part: the rest is theirs."""
        for root, layer in self._user.items():
            if self._left[root]:
                yield layer, self._left[root]

    def value(self, name: str) -> np.ndarray | None:
        """Return the numbers of a small constant, None if they are not in the file."""
        tensor = self._tensors.get(name)
        return None if tensor is None else _numbers(tensor)

    def name_of(self, node: Any, *weights: str) -> str:
        """Return what a node is called: its weights, its module, or as the file names it."""
        for name in weights:
            for root in self.constants[name].roots if name in self.constants else ():
                if "." in root and not MADE_UP.match(root):
                    return re.sub(r"[._](weight|kernel)$|(?<=\.)weight_[ih]h_", "", root)
        module = scope_of(node)
        if module:
            return f"{module}.{node.op_type.lower()}"
        if _NUMBERED.fullmatch(node.name):
            return node.op_type.lower()
        return node.name.strip("/").replace("/", ".")

    def _trained(self, held: Constant, made_up: bool) -> list[str]:
        return [
            self._twins.get(root, root) for root in held.roots if made_up or not MADE_UP.match(root)
        ]

    def _close(self, graph: Any, batch_axis: int, sequence: int | None) -> list[str]:
        """Give open dimensions of the inputs a number; return their names."""
        met: list[str] = []
        others = 0
        for item in self.inputs:
            for axis, dimension in enumerate(item.type.tensor_type.shape.dim):
                if dimension.HasField("dim_value") and dimension.dim_value > 0:
                    continue
                is_batch = axis == batch_axis
                others += not is_batch
                met.append(dimension.dim_param or "unnamed")
                dimension.dim_value = 1 if is_batch else sequence or 1
        if sequence is not None and not others:
            raise SettingsError(
                f"workload.sequence={sequence}: no input of the file has an open dimension beside "
                "the batch; valid: workload.sequence=null"
            )
        if met:
            # What was noted for open dimensions is inferred anew.
            del graph.value_info[:]
            for item in graph.output:
                item.type.tensor_type.ClearField("shape")
        return met

    def _keep(self, name: str, tensor: Any) -> None:
        shape = tuple(tensor.dims)
        plain = _is_plain(tensor) or name in self._buffers
        self.constants[name] = Constant(shape, () if plain else (name,))
        self._sizes[name] = self._left[name] = math.prod(shape)

    def _track(self, node: Any) -> None:
        """Find out whether a node's results are constants, and of what they are made."""
        tensor = _stored(node)
        if tensor is not None:
            self._tensors[node.output[0]] = tensor
            self._keep(node.output[0], tensor)
            return
        inputs = [name for name in node.input if name]
        if node.op_type == "CastLike":
            inputs = inputs[:1]
        constant = node.op_type in _DESCRIBING or node.op_type == "Constant"
        if not constant and (not inputs or any(name not in self.constants for name in inputs)):
            return
        if any(attribute.HasField("g") for attribute in node.attribute):
            return
        roots = () if constant else tuple(self._roots(inputs))
        for name in node.output:
            if name:
                self.constants[name] = Constant(self.shapes.get(name, ()), roots)

    def _roots(self, names: Iterable[str]) -> dict[str, None]:
        return {root: None for name in names for root in self.constants[name].roots}

    def _find_twins(self) -> None:
        """Find tensors that are copies of embeddings: exporters transpose tied weights."""
        tables = {node.input[0] for node in self.nodes if node.op_type == "Gather"}
        by_shape: dict[Shape, list[str]] = {}
        for name, tensor in self._tensors.items():
            if len(tensor.dims) == 2 and math.prod(tensor.dims) > _SMALL:
                by_shape.setdefault(tuple(sorted(tensor.dims)), []).append(name)
        for names in by_shape.values():
            made_up = [name for name in names if MADE_UP.match(name)]
            own = [name for name in names if name in tables and not MADE_UP.match(name)]
            compared = [*made_up, *own] if made_up and own else []
            arrays = {n: _all_numbers(self._tensors[n], self._folder) for n in compared}
            for copy in made_up:
                for name in own:
                    a, b = arrays[copy], arrays[name]
                    if a is None or b is None:
                        continue
                    if (a.shape == b.shape and np.array_equal(a, b)) or (
                        a.shape == b.T.shape and np.array_equal(a, b.T)
                    ):
                        self._twins[copy] = name


def scope_of(node: Any) -> str:
    """Return the path of the module that a node belongs to, where the file says it, else ""."""
    scopes = next((i.value for i in node.metadata_props if i.key == _SCOPES), "")
    # ['', 'encoder', 'encoder.layers.0', 'add']: the last one is the operation's own.
    return next(reversed([part for part in re.findall(r"'([^']*)'", scopes)[:-1] if part]), "")


def dims_of(graph: Any) -> dict[str, tuple[int | None, ...]]:
    """Return tensor -> its dimensions, None where they are open."""
    return {
        item.name: dims_of_type(item.type.tensor_type)
        for item in (*graph.input, *graph.value_info, *graph.output)
        if item.type.HasField("tensor_type") and item.type.tensor_type.HasField("shape")
    }


def dims_of_type(kind: Any) -> tuple[int | None, ...]:
    """Return the dimensions of a type of tensors, None where they are open."""
    return tuple(
        int(d.dim_value) if d.HasField("dim_value") and d.dim_value > 0 else None
        for d in kind.shape.dim
    )


def kinds_of_tensors(graph: Any) -> dict[str, str]:
    """Return tensor -> ``PARAMETER``, ``BUFFER`` and so on, where the exporter says it."""
    return {
        item.name: entry.value
        for item in graph.value_info
        for entry in item.metadata_props
        if entry.key == _KIND
    }


def _is_plain(tensor: Any) -> bool:
    """Whether a tensor holds an index, a mask or one number, and no weights."""
    return tensor.data_type in _PLAIN_NUMBERS or math.prod(tensor.dims) <= 1


def _numbers(tensor: Any) -> np.ndarray | None:
    """Return the numbers of a small tensor that are in the file."""
    if math.prod(tensor.dims) > _SMALL or tensor.data_location == TensorProto.EXTERNAL:
        return None
    return numpy_helper.to_array(tensor)


def _all_numbers(tensor: Any, folder: Path) -> np.ndarray | None:
    """Return the numbers of any tensor, None where they are kept elsewhere and missing."""
    try:
        return numpy_helper.to_array(tensor, str(folder))
    except (OSError, ValueError, onnx.checker.ValidationError):
        return None


def _shapes(graph: Any) -> dict[str, Shape]:
    """Return the shapes that are known to the last dimension."""
    shapes: dict[str, Shape] = {item.name: tuple(item.dims) for item in graph.initializer}
    for item in (*graph.input, *graph.value_info, *graph.output):
        shape = _shape(item)
        if shape is not None:
            shapes.setdefault(item.name, shape)
    return shapes


def _shape(item: Any) -> Shape | None:
    """Return a shape that is known to the last dimension, else None."""
    if not item.type.HasField("tensor_type") or not item.type.tensor_type.HasField("shape"):
        return None
    dimensions = item.type.tensor_type.shape.dim
    if not all(dimension.HasField("dim_value") for dimension in dimensions):
        return None
    return tuple(int(dimension.dim_value) for dimension in dimensions)


def _inferred(model: Any) -> tuple[Any, set[str]]:
    """Infer shapes; where they hang on computed constants, compute those and infer again.

    Returns the network and the names of what was computed, of which nothing is a weight.
    """
    own = {item.name for item in model.graph.initializer}
    while True:
        # Dimensions that were noted as unknown would stay so.
        known = [item for item in model.graph.value_info if _shape(item) is not None]
        del model.graph.value_info[:]
        model.graph.value_info.extend(known)
        model = shape_inference.infer_shapes(model, data_prop=True)
        shapes = _shapes(model.graph)
        wanted = {name for node in model.graph.node for name in node.output if name}
        if wanted <= set(shapes) or not _fold(model.graph, shapes, model.opset_import):
            break
    return model, {item.name for item in model.graph.initializer} - own


def _fold(graph: Any, shapes: dict[str, Shape], opsets: Any) -> bool:
    """Replace nodes whose results are small constants; return whether there were any."""
    from onnx.reference import ReferenceEvaluator

    known = {
        tensor.name: numbers
        for tensor in graph.initializer
        if _is_plain(tensor) and (numbers := _numbers(tensor)) is not None
    }
    kept, found = [], []
    for node in graph.node:
        value = _value_of(node, known, shapes, opsets, ReferenceEvaluator)
        if value is None or len(node.output) != 1:
            kept.append(node)
            continue
        known[node.output[0]] = value
        found.append(numpy_helper.from_array(value, node.output[0]))
    outputs = {item.name for item in graph.output}
    replaced = [item for item in found if item.name not in outputs]
    if not replaced:
        return False
    names = {item.name for item in replaced}
    kept = [node for node in graph.node if not set(node.output) <= names]
    graph.initializer.extend(replaced)
    del graph.node[:]
    graph.node.extend(kept)
    return True


def _value_of(
    node: Any, known: dict[str, np.ndarray], shapes: dict[str, Shape], opsets: Any, evaluator: Any
) -> np.ndarray | None:
    if node.op_type == "Shape" and node.input[0] in shapes:
        start, end = (
            attribute_of(node, name, default) for name, default in (("start", 0), ("end", None))
        )
        return np.array(shapes[node.input[0]][start:end], np.int64)
    if node.op_type == "Size" and node.input[0] in shapes:
        return np.array(math.prod(shapes[node.input[0]]), np.int64)
    if node.op_type == "Constant":
        tensor = _stored(node)
        return None if tensor is None else _numbers(tensor)
    if node.op_type not in _FOLDED or any(name and name not in known for name in node.input):
        return None
    if math.prod(shapes.get(node.output[0], (1,))) > _SMALL:
        return None
    names = [name for name in dict.fromkeys(node.input) if name]
    graph = helper.make_graph(
        [node], "one",
        [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(known[name].dtype),
                                       known[name].shape) for name in names],
        [helper.make_empty_tensor_value_info(node.output[0])],
    )  # fmt: skip
    one = helper.make_model(graph, opset_imports=opsets)
    try:
        value = np.asarray(evaluator(one).run(None, {name: known[name] for name in names})[0])
    except Exception:  # What cannot be computed stays unknown.
        return None
    return value if value.size <= _SMALL else None


def _stored(node: Any) -> Any | None:
    """Return the tensor of a node that stores one, None of any other."""
    for attribute in node.attribute if node.op_type == "Constant" else ():
        if attribute.name == "value":
            return attribute.t
        if attribute.name in ("value_int", "value_ints", "value_float", "value_floats"):
            kind = np.int64 if "int" in attribute.name else np.float32
            return numpy_helper.from_array(np.array(helper.get_attribute_value(attribute), kind))
    return None


def attribute_of(node: Any, name: str, default: Any) -> Any:
    """Return an attribute of a node, or a default."""
    for attribute in node.attribute:
        if attribute.name == name:
            return helper.get_attribute_value(attribute)
    return default
