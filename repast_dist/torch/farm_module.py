"""A module of the user's in one process of the farm: its tensors as the arrays that are reduced."""

import contextlib
import copy
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import nn

from repast_dist.ground.errors import DataError
from repast_dist.network.node import Trainable
from repast_dist.network.shapes import Workload
from repast_dist.torch.conversion import CLASSES, attach, own_matrices
from repast_dist.torch.layers.base import Converted
from repast_dist.torch.matrices import to_float64, to_numpy
from repast_dist.torch.samples import CPU
from repast_dist.torch.simulation import ExactIn, Simulation, Watcher
from repast_dist.training.engines import make_engine
from repast_dist.training.specs import EngineSpec

_EXACT = EngineSpec(
    forward="float64", backward="float64", gradient="float64", factor="float64", inverse="float64"
)


class LiveModule:
    """A copy of a module whose products run on arrays, and its values as arrays.

    Parameters
    ----------
    module : Module
        The module, in float64; it stays as it is.
    known : mapping
        PyTorch's class -> what its modules are converted to.
    device : device
        Where the copy is. Elsewhere than on the processor, PyTorch computes products in float64
        itself.

    Attributes
    ----------
    module : Module
        The copy.
    device : device
        Where it is.
    simulation : Simulation
        Its arrays.
    work : WorkCounter
        Counts what its calls compute.
    version : int
        How often values were written.
    """

    def __init__(
        self,
        module: nn.Module,
        known: Mapping[type[nn.Module], type[Converted]] = CLASSES,
        device: torch.device = CPU,
    ) -> None:
        self.module, self.device = copy.deepcopy(module).to(device), device
        exact_in: ExactIn = "float64" if device == CPU else "tensors"
        self.simulation = Simulation(make_engine(_EXACT, 0), exact_in=exact_in)
        treatments, self.work = attach(self.module, self.simulation, known)
        self._reasons = {item.path: item.reason for item in treatments}
        self._modes = {part: part.training for part in self.module.modules()}
        # Calls of a network that is trained are told from others by it.
        self._modes[self.module] = True
        self._parameters = dict(self.module.named_parameters())
        self._of_parameter = {id(item): name for name, item in self._parameters.items()}
        self._matrices = own_matrices(self.simulation, self._of_parameter)
        self._inside = {
            id(matrix.parameter(part))
            for matrix in self._matrices.values()
            for part in matrix.parts
        }
        self.version = 0

    def trainable(self, workload: Workload) -> tuple[Trainable, ...]:
        """Return everything that is trained, in the order of the module's parameters.

        Parameters
        ----------
        workload : Workload
            What a call of it computes.
        """
        factors = {row.name: row for row in workload.layers if row.preconditioned}
        found: dict[str, Trainable] = {}
        for name, parameter in self._parameters.items():
            if not parameter.requires_grad:
                continue
            if id(parameter) not in self._inside:
                found[name] = self._plain(name, parameter)
                continue
            for matrix in self._matrices.values():
                if matrix.parameter(matrix.weight) is not parameter:
                    continue
                row = factors.get(matrix.name)
                found[matrix.name] = Trainable(
                    name=matrix.name,
                    kind=matrix.kind.name,
                    rows=matrix.inputs + (matrix.bias is not None),
                    columns=matrix.outputs,
                    bias=matrix.bias is not None,
                    positions=1 if row is None else row.vectors_per_sample,
                    without_factors="" if row is not None else "not used: plain gradient",
                )
        return tuple(found.values())

    def _plain(self, name: str, parameter: nn.Parameter) -> Trainable:
        path, _, own = name.rpartition(".")
        owner = self.module.get_submodule(path)
        reasons = [
            matrix.without_factors
            for matrix in self.simulation.matrices.values()
            for part in matrix.parts
            if matrix.parameter(part) is parameter and matrix.without_factors
        ]
        reason = next(iter(reasons), "") or self._reasons.get(path, "")
        return Trainable(
            name=name,
            kind=type(owner).__name__,
            rows=1,
            columns=parameter.numel(),
            bias=own.startswith("bias"),
            without_factors=reason or "no matrix of a product: plain gradient",
        )

    # Values -------------------------------------------------------------------------------

    def tensor_name(self, name: str) -> str:
        """Return the name of the parameter or buffer that a value is kept like."""
        matrix = self._matrices.get(name)
        return name if matrix is None else self._of_parameter[id(matrix.parameter(matrix.weight))]

    def read(self, name: str) -> np.ndarray:
        """Return a value, (in[+1], out) or (1, n) float64."""
        matrix = self._matrices.get(name)
        if matrix is not None:
            return matrix.gathered(lambda parameter: parameter)
        return to_float64(self._tensor(name)).reshape(1, -1)

    def gradient(self, name: str) -> np.ndarray:
        """Return the gradient of a value, in its shape; 0 where none reached it."""
        matrix = self._matrices.get(name)
        if matrix is not None:
            return matrix.gathered(lambda parameter: parameter.grad)
        parameter = self._parameters[name]
        if parameter.grad is None:
            return np.zeros((1, parameter.numel()))
        return np.array(to_float64(parameter.grad)).reshape(1, -1)

    def write(self, values: Mapping[str, np.ndarray]) -> None:
        """Give values to the module's tensors."""
        self.version += 1
        found: dict[nn.Parameter, np.ndarray] = {}

        def place(parameter: nn.Parameter) -> np.ndarray:
            if parameter not in found:
                # Views of a matrix are none where channels come last in memory.
                found[parameter] = np.array(to_numpy(parameter), order="C")
            return found[parameter]

        with torch.no_grad():
            for name, value in values.items():
                matrix = self._matrices.get(name)
                if matrix is not None:
                    matrix.scatter(value.astype(np.float64), place)
                else:
                    tensor = self._tensor(name)
                    tensor.copy_(torch.from_numpy(value.reshape(tuple(tensor.shape))))
            for parameter, array in found.items():
                parameter.copy_(torch.from_numpy(array))

    def buffers(self) -> dict[str, np.ndarray]:
        """Return a copy of all buffers."""
        return {name: np.array(to_numpy(item)) for name, item in self.module.named_buffers()}

    def set_buffers(self, values: Mapping[str, np.ndarray]) -> None:
        """Set all buffers."""
        for name, item in self.module.named_buffers():
            item.copy_(torch.from_numpy(values[name]))

    def fresh_buffers(self, values: Mapping[str, np.ndarray]) -> None:
        """Give the module other buffers with these values; calls before keep theirs."""
        made: dict[int, torch.Tensor] = {}
        for name, item in self.module.named_buffers():
            made[id(item)] = torch.from_numpy(np.array(values[name])).to(item)
        for part in self.module.modules():
            for name, held in part._buffers.items():
                if held is not None:
                    part._buffers[name] = made[id(held)]

    def state(self) -> dict[str, torch.Tensor]:
        """Return the tensors of the module's ``state_dict``."""
        entries = self.module.state_dict()
        return {name: item for name, item in entries.items() if torch.is_tensor(item)}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Give a ``state_dict`` to the module.

        Raises
        ------
        DataError
            It is that of another module.
        """
        self.version += 1
        own = self.state()
        shapes = {name: tuple(item.shape) for name, item in own.items()}
        given = {name: value.shape for name, value in state.items()}
        if shapes != given:
            other = sorted(
                name for name in {*shapes, *given} if shapes.get(name) != given.get(name)
            )
            raise DataError(
                f"the state is that of another module: {', '.join(other[:5])}; valid: that of a "
                "run with the same model"
            )
        with torch.no_grad():
            for name, item in own.items():
                item.copy_(torch.from_numpy(np.array(state[name])))

    def _tensor(self, name: str) -> torch.Tensor:
        if name in self._parameters:
            return self._parameters[name]
        return self.module.get_buffer(name)

    # Modes --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """Train inside the block: parts that the user's function left in eval mode stay in it."""
        for part, mode in self._modes.items():
            part.training = mode
        with torch.enable_grad():
            yield

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluate inside the block."""
        self.module.eval()
        with torch.no_grad():
            yield

    @contextlib.contextmanager
    def watched(self, watcher: Watcher | None) -> Iterator[None]:
        """Let something look at calls inside the block."""
        if watcher is None:
            yield
            return
        watchers = self.simulation.watchers
        watchers.append(watcher)
        try:
            yield
        finally:
            watchers.remove(watcher)
