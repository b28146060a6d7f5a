"""What of a graph does not depend on its inputs: numbers of the file, and what is made of them."""

import dataclasses
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import TensorProto, helper, numpy_helper

from repast_dist.ground.errors import DataError
from repast_dist.network.onnx_graph import MADE_UP, dims_of, kinds_of_tensors
from repast_dist.torch.onnx.operators import MOVING, OPERATORS, Call, attributes_of
from repast_dist.torch.onnx.samples import NotTrained


@dataclasses.dataclass(frozen=True)
class Known:
    """A tensor that is the same for every input.

    Attributes
    ----------
    tensor : Tensor
        Its numbers.
    roots : tuple of str
        Real tensors of the file that it is made of; empty: of shapes and single numbers only.
    turned : bool or None
        Of one root: whether it is the whole of it transposed, or as it is; None: a part of it, or
        in another shape.
    """

    tensor: torch.Tensor
    roots: tuple[str, ...] = ()
    turned: bool | None = None


class Constants:
    """The constants of a graph.

    Parameters
    ----------
    model : ModelProto
        The network.
    folder : Path
        Where numbers lie that are kept outside of the file.
    where : str
        The file, for messages.
    any_number : bool
        Whether the file is for any number of samples: sizes that it knows hold for all of them.

    Raises
    ------
    DataError
        Numbers are missing.
    """

    def __init__(self, model: Any, folder: Path, where: str, any_number: bool) -> None:
        self._kinds = kinds_of_tensors(model.graph)
        self._dims = dims_of(model.graph)
        self.known: dict[str, Known] = {}
        self._folder, self._where, self._any_number = folder, where, any_number
        for tensor in model.graph.initializer:
            self._keep(tensor.name, tensor)

    def __contains__(self, name: str) -> bool:
        return name in self.known

    def __getitem__(self, name: str) -> Known:
        return self.known[name]

    def is_parameter(self, name: str) -> bool:
        """Return whether the file itself calls a tensor a parameter."""
        return self._kinds.get(name) == "PARAMETER"

    def trained(self, name: str, product: bool = False) -> bool:
        """Return whether a constant is made of what training changes.

        Parameters
        ----------
        name : str
            The constant.
        product : bool
            Whether a layer multiplies by it: then its name may be one that an exporter made up.
        """
        return any(
            self.is_parameter(root)
            or (root not in self._kinds and (product or not MADE_UP.match(root)))
            for root in self.known[name].roots
        )

    def is_filling(self, name: str) -> bool:
        """Return whether a constant is zeros that an exporter put where a layer has no bias."""
        known = self.known[name]
        own = any(self.is_parameter(root) or not MADE_UP.match(root) for root in known.roots)
        return not own and not known.tensor.any()

    def track(self, node: Any, call: Call) -> bool:
        """Compute a node if it is a constant and no operation on what is trained.

        Returns
        -------
        bool
            Whether it was computed.
        """
        if node.op_type == "Constant":
            self._keep_node(node)
            return True
        if node.op_type == "Shape" and self._any_number and self._sizes(node, call):
            return True
        names = [name for name in node.input if name]
        if node.op_type == "CastLike" and names[-1] not in self.known:
            # Numbers of all types become that of what they are computed with.
            names, call = names[:1], dataclasses.replace(call, operator="Identity")
        if node.op_type not in OPERATORS or any(name not in self.known for name in names):
            return False
        if not names or any(attribute.HasField("g") for attribute in node.attribute):
            return False
        describes = node.op_type in ("Shape", "Size")
        fixed = describes or not any(self.trained(name, product=True) for name in names)
        if not (fixed or node.op_type in MOVING):
            return False
        given = names if call.operator == "Identity" else node.input
        values = [self.known[name].tensor if name else None for name in given]
        try:
            made = OPERATORS[call.operator](call, values, torch.float32)
        except (NotTrained, RuntimeError, IndexError, TypeError) as error:
            raise DataError(
                f"{self._where}: node {node.name!r} ({node.op_type}) cannot be computed: {error}"
            ) from error
        sources = [] if describes else names
        roots = tuple(dict.fromkeys(root for name in sources for root in self.known[name].roots))
        turned = self._turned(node, call) if len(roots) == 1 else None
        results = made if isinstance(made, tuple) else (made,)
        for name, tensor in zip(node.output, results, strict=False):
            self.known[name] = Known(tensor, roots, turned)
        return True

    def _sizes(self, node: Any, call: Call) -> bool:
        """Keep sizes that the file knows; return whether it knows all that are asked for."""
        dims = self._dims.get(node.input[0])
        sizes = None if dims is None else dims[call.get("start", 0) : call.get("end")]
        if sizes is None or None in sizes:
            return False
        self.known[node.output[0]] = Known(torch.tensor(sizes, dtype=torch.int64))
        return True

    def _turned(self, node: Any, call: Call) -> bool | None:
        before = self.known[node.input[0]]
        if node.op_type in ("Identity", "Cast", "CastLike"):
            return before.turned
        if node.op_type == "Transpose" and before.tensor.dim() == 2 and before.turned is not None:
            return before.turned != (call.get("perm", [1, 0]) == [1, 0])
        return None

    def _keep_node(self, node: Any) -> None:
        (attribute,) = node.attribute
        if attribute.name == "value":
            self._keep(node.output[0], attribute.t)
            return
        value = helper.get_attribute_value(attribute)
        kind = np.int64 if "int" in attribute.name else np.float32
        self.known[node.output[0]] = Known(torch.from_numpy(np.array(value, kind)))

    def _keep(self, name: str, tensor: Any) -> None:
        try:
            numbers = numpy_helper.to_array(tensor, str(self._folder))
        except Exception as error:
            raise DataError(
                f"{self._where}: the numbers of {name} cannot be read ({error}); valid: a file "
                "with its weights, and beside it the files that hold them"
            ) from error
        if tensor.data_type == TensorProto.BFLOAT16:
            numbers = numbers.astype(np.float32)
        if numbers.dtype.kind not in "fiub":
            raise DataError(f"{self._where}: {name} has type {numbers.dtype}; valid: numbers")
        made = torch.from_numpy(np.array(numbers))
        if numbers.dtype.kind in "iu":
            made = made.long()
        real = made.is_floating_point() and (made.numel() > 1 or self.is_parameter(name))
        self.known[name] = Known(made, (name,), False) if real else Known(made)


def read_attributes(node: Any) -> dict[str, Any]:
    """Return a node's attributes, tensors as PyTorch's."""
    return {
        name: torch.from_numpy(np.array(numpy_helper.to_array(value)))
        if isinstance(value, TensorProto)
        else value
        for name, value in attributes_of(node).items()
    }


def uses(nodes: Iterable[Any], outputs: Iterable[str]) -> Counter[str]:
    """Return how often each tensor is used."""
    return Counter([*(name for node in nodes for name in node.input), *outputs])
