"""Parameters, buffers and layers of a network that is read, at the paths of the file's tensors."""

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from repast_dist.network.onnx_graph import MADE_UP, scope_of
from repast_dist.torch.onnx.constants import Constants

_SUFFIX = re.compile(r"[._](weight|kernel|bias)$|(?<=\.)weight_[ih]h_")


class Store:
    """What a network will hold.

    Parameters
    ----------
    constants : Constants
        The constants of the graph.
    used : Counter
        Tensor -> how often it is used.

    Attributes
    ----------
    constants : Constants
        The constants of the graph.
    used : Counter
        Tensor -> how often it is used.
    root : Module
        Holds all layers, parameters and buffers at their paths.
    held : dict
        Name of a tensor in the graph -> path of the parameter or buffer that it is.
    """

    def __init__(self, constants: Constants, used: Counter[str]) -> None:
        self.constants, self.used = constants, used
        self.root = nn.Module()
        self.held: dict[str, str] = {}
        self._made: dict[tuple[Any, ...], nn.Parameter] = {}
        self._layers: dict[tuple[Any, ...], str] = {}
        self._taken: Counter[str] = Counter()

    def parameter(self, name: str, turn: bool = False) -> nn.Parameter:
        """Return a constant as weights of a layer; the same ones where they are used again.

        Parameters
        ----------
        name : str
            The constant.
        turn : bool
            Whether the layer holds its transpose.
        """
        known = self.constants[name]
        tensor = known.tensor.t() if turn else known.tensor
        key: tuple[Any, ...] = (name, turn)
        if known.turned is not None:
            key = (known.roots[0], known.turned != turn, tuple(tensor.shape))
        if key not in self._made:
            self.take(name)
            trained = self.constants.trained(name, product=True)
            self._made[key] = nn.Parameter(tensor.clone().contiguous(), requires_grad=trained)
        return self._made[key]

    def take(self, name: str) -> None:
        """Note that weights are made of a constant."""
        known = self.constants[name]
        sizes = {root: self.constants[root].tensor.numel() for root in known.roots}
        share = min(1.0, known.tensor.numel() / max(sum(sizes.values()), 1))
        if known.tensor.numel() > sum(sizes.values()):
            share = 2.0
        for root, size in sizes.items():
            self._taken[root] += round(share * size)

    def taken_twice(self) -> list[str]:
        """Return tensors of which several weights were made that would be trained apart."""
        return [
            root
            for root, numbers in self._taken.items()
            if numbers > self.constants[root].tensor.numel()
            and self.constants.trained(root, product=True)
        ]

    def layer(
        self, key: tuple[Any, ...], make: Callable[[], nn.Module], node: Any, *names: str
    ) -> str:
        """Return the path of a layer, made at its first use and called after its weights.

        Parameters
        ----------
        key : tuple
            What it is made of: the same again is another use of the same layer.
        make : callable
            Makes it.
        node : NodeProto
            The operation.
        *names : str
            Its weights and biases.
        """
        if key not in self._layers:
            self._layers[key] = self._put_module(self._path(node, names), make())
        return self._layers[key]

    def hold(self, name: str, product: bool = False, states: bool = False) -> None:
        """Keep a constant as a parameter or, if it is not trained, as a buffer.

        Parameters
        ----------
        name : str
            The constant.
        product : bool
            Whether it is multiplied by, whatever it is called.
        states : bool
            Whether it is the first states of a layer, trained if the file says so only.
        """
        if name in self.held:
            return
        known = self.constants[name]
        trained = self.constants.trained(name, product)
        trained &= not states or any(map(self.constants.is_parameter, known.roots))
        path = _clean(known.roots[0] if len(known.roots) == 1 else name)
        if trained:
            # By its own name, if nothing else of it is kept.
            self.held[name] = self._put(path, self.parameter(name))
        else:
            self.held[name] = self._put(f"constants.{path}", known.tensor)

    def tie(self) -> None:
        """Let layers share an embedding's weights of which an exporter wrote a copy for them."""
        tables = [m for m in self.root.modules() if isinstance(m, nn.Embedding)]
        copies = {
            id(parameter)
            for key, parameter in self._made.items()
            if MADE_UP.match(key[0]) and not self.constants.is_parameter(key[0])
        }
        for module in self.root.modules():
            if not (isinstance(module, nn.Linear) and id(module.weight) in copies):
                continue
            for table in tables:
                if torch.equal(table.weight, module.weight):
                    module.weight = table.weight

    def _path(self, node: Any, names: tuple[str, ...]) -> str:
        roots = [
            root for name in names if name in self.constants for root in self.constants[name].roots
        ]
        for root in roots:
            if not MADE_UP.match(root):
                return _clean(_SUFFIX.sub("", root))
        scope = scope_of(node)
        return _clean(f"{scope}.{node.op_type.lower()}" if scope else node.op_type.lower())

    def _put_module(self, path: str, module: nn.Module) -> str:
        parent, name = self._parent(path)
        name = _free(parent, name)
        parent.add_module(name, module)
        return ".".join(filter(None, (path.rpartition(".")[0], name)))

    def _put(self, path: str, tensor: torch.Tensor) -> str:
        parent, name = self._parent(path)
        if isinstance(tensor, nn.Parameter):
            same = parent._parameters.get(name)
            if same is not tensor:
                name = _free(parent, name)
                parent.register_parameter(name, tensor)
        else:
            name = _free(parent, name)
            parent.register_buffer(name, tensor, persistent=False)
        return ".".join(filter(None, (path.rpartition(".")[0], name)))

    def _parent(self, path: str) -> tuple[nn.Module, str]:
        *folders, name = path.split(".")
        parent = self.root
        for folder in folders:
            if folder not in parent._modules:
                parent.add_module(folder, nn.Module())
            parent = parent.get_submodule(folder)
        return parent, name


def _clean(name: str) -> str:
    """Return a name as a path of modules: words with points between them."""
    parts = [re.sub(r"\W+", "_", part).strip("_") for part in re.split(r"[./]", name)]
    # A module's own attributes are no names of its parts.
    return ".".join(f"{p}_" if hasattr(nn.Module, p) else p for p in parts if p) or "part"


def _free(parent: nn.Module, name: str) -> str:
    """Return a name that the parent does not have yet."""
    tried, number = name, 1
    while hasattr(parent, tried):
        tried, number = f"{name}_{number}", number + 1
    return tried
