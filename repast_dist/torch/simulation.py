"""What the converted modules of one network share: arithmetic, programmed weights, addresses.

Random draws are addressed by the module's path, the step and the micro-batch, as in the NumPy
engine: a step is what runs between two changes of the weights, a micro-batch is one call of the
network with gradients in it. Weights are written once per version.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch

from repast_dist.ground.errors import DataError
from repast_dist.ground.rng import When
from repast_dist.network.functional import with_ones
from repast_dist.network.node import Address, Product, Role
from repast_dist.torch.matrices import Matrix, to_float64
from repast_dist.training.engines import Engine

Backward = tuple[int | str, ...]
"""Address of a backward pass behind that of its micro-batch: () of the loss, ("fisher", n)."""

LOSS: Backward = ()
ExactIn = Literal["float64", "tensors"]


@dataclasses.dataclass
class Uses:
    """Every use of one matrix in a micro-batch, in order of the forward pass.

    Attributes
    ----------
    matrix : Matrix
        The matrix.
    count : int
        How often it was used.
    vectors : int
        Input rows of all uses.
    rows : dict
        Use -> its inputs (R, in); of those that are not differentiated, none.
    errors : dict
        Backward pass -> use -> (R, out) derivative of the loss by what the use gave.
    errors_pass : bool
        Whether some use hands its errors on.
    """

    matrix: Matrix
    count: int = 0
    vectors: int = 0
    rows: dict[int, torch.Tensor] = dataclasses.field(default_factory=dict)
    errors: dict[Backward, dict[int, torch.Tensor]] = dataclasses.field(default_factory=dict)
    errors_pass: bool = False
    _inputs: np.ndarray | None = dataclasses.field(default=None, repr=False)
    _versions: dict[int, int] = dataclasses.field(default_factory=dict, repr=False)

    def next(self, rows: torch.Tensor) -> int:
        """Note a use of these inputs; return its number."""
        use = self.count
        self.count, self.vectors = use + 1, self.vectors + len(rows)
        if torch.is_grad_enabled():
            self.rows[use] = rows.detach()
            self._versions[use] = -1 if rows.is_inference() else rows._version
        return use

    def check_inputs(self) -> None:
        """Check that inputs are still what was multiplied.

        Raises
        ------
        DataError
            They were changed in place.
        """
        for use, rows in self.rows.items():
            if self._versions[use] not in (-1, rows._version):
                raise DataError(
                    f"{self.matrix.name}: its inputs were changed in place after they were "
                    "multiplied, and the gradient is made of them; valid: a new tensor (x = x + y "
                    "for x += y)"
                )

    def inputs(self) -> np.ndarray:
        """Return the inputs of all uses, (R, in[+1]) float64, with the bias's ones.

        They stay until `forget_inputs`: gradients and factors are made of the same.
        """
        if self._inputs is None:
            parts = [to_float64(part) for part in self.rows.values()]
            rows = parts[0] if len(parts) == 1 else np.concatenate(parts)
            self._inputs = rows if self.matrix.bias is None else with_ones(rows)
        return self._inputs

    def forget_inputs(self) -> None:
        """Forget the inputs as numbers in double precision."""
        self._inputs = None

    def take_errors(self, backward: Backward) -> torch.Tensor:
        """Return the errors that one backward pass found, (R, out), and forget them."""
        found = self.errors.pop(backward, {})
        if len(found) == len(self.rows) == 1:
            return next(iter(found.values()))
        columns = self.matrix.outputs
        parts = [
            found[use] if use in found else rows.new_zeros(len(rows), columns)
            for use, rows in self.rows.items()
        ]
        return torch.cat(parts)


@dataclasses.dataclass(frozen=True)
class Event:
    """One computation of a call.

    Attributes
    ----------
    name : str
        Of a product: its name. Of digital work: the path of the module that does it.
    what : {"matrix", "operands"} or str
        A product with weights, one of activations, or the name of PyTorch's operation.
    shape : tuple of int
        Of products of activations: (N, H, T, K, M). Of digital work: that of its result.
    operations : int
        Digital operations of the call.
    """

    name: str
    what: str
    shape: tuple[int, ...] = ()
    operations: int = 0


class MicroBatch:
    """One call of the network.

    Attributes
    ----------
    simulation : Simulation
        What it is a call of.
    call : tuple
        Address of the call.
    step, number : int
        The step, and the number of the micro-batch in it.
    samples : int
        Samples of its batch.
    differentiable : bool
        Whether it was called with gradients.
    uses : dict
        Name of a matrix -> its uses.
    tokens : dict
        Name of a matrix -> what its uses are differentiated by in place of its weights.
    train : bool
        Whether it is a call with gradients of a network that is trained.
    signature : tuple
        Shapes of its inputs: calls with the same compute the same.
    events : list of Event
        What it computed, in order.
    statistics : dict
        What an optimizer keeps of it.
    context : ExitStack
        What is undone when the call ends, however it ends.
    """

    def __init__(
        self,
        simulation: "Simulation",
        kind: str,
        number: int,
        samples: int,
        train: bool,
        signature: tuple[Any, ...] = (),
    ) -> None:
        self.simulation, self.train, self.signature = simulation, train, signature
        self.step, self.number, self.samples = simulation.step, number, samples
        self.call: Address = (kind, When(simulation.step), number)
        self.differentiable = torch.is_grad_enabled()
        self.uses: dict[str, Uses] = {}
        self.tokens: dict[str, torch.Tensor] = {}
        self.operands: dict[str, int] = {}
        self.events: list[Event] = []
        self.context = contextlib.ExitStack()
        self.statistics: dict[Any, Any] = {}

    def address(self, what: str, name: str) -> Address:
        """Return the address of what is made for a matrix in this micro-batch."""
        return (what, When(self.step), name, self.number)

    def operand_use(self, name: str) -> int:
        """Return how often this product of activations was computed before in this call."""
        before = self.operands.get(name, 0)
        self.operands[name] = before + 1
        return before


class Watcher:
    """Looks at what a network computes; an optimizer or a counter of work derives from it."""

    def began(self, micro_batch: MicroBatch) -> None:
        """Look at a call that begins."""

    def ended(self, micro_batch: MicroBatch, outputs: Any) -> None:
        """Look at a call that ends, and its outputs."""

    def differentiated(
        self,
        micro_batch: MicroBatch,
        uses: Uses,
        errors: torch.Tensor,
        gradient: Callable[[], np.ndarray],
        load: Callable[[Role], Product],
    ) -> None:
        """Look at the errors (R, out) that reached a matrix.

        ``gradient()`` returns its gradient (in[+1], out), and ``load(role)`` its inputs
        (R, in[+1]) as they are loaded.
        """


class Simulation:
    """The arrays of one converted network.

    Parameters
    ----------
    engine : Engine
        The arithmetic of its products.
    batch_dim : int
        Dimension of samples in the network's inputs.
    exact_in : {"float64", "tensors"}
        Precision of products whose arithmetic is float64: that, or what PyTorch's tensors have.

    Attributes
    ----------
    matrices : dict
        Name -> matrix.
    aliases : dict
        Name of a matrix that has the weights of another -> that one's name.
    step : int
        Number of the current step.
    backward : tuple
        Which backward pass runs.
    paths : list of str
        Paths of the modules that are being called, the innermost last.
    """

    def __init__(self, engine: Engine, batch_dim: int = 0, exact_in: ExactIn = "float64") -> None:
        self.engine, self.batch_dim, self.exact_in = engine, batch_dim, exact_in
        self.matrices: dict[str, Matrix] = {}
        self.aliases: dict[str, str] = {}
        self.watchers: list[Watcher] = []
        self.step, self.micro_batches, self.evaluations = 0, 0, 0
        self.backward: Backward = LOSS
        self.paths: list[str] = []
        self._running: MicroBatch | None = None
        self._held: dict[str, tuple[int, np.ndarray]] = {}
        self._loaded: dict[tuple[Literal["forward", "backward"], str], Product] = {}
        self._written: dict[str, int] = {}
        self._advanced = False

    def __deepcopy__(self, memo: dict[int, Any]) -> "Simulation":
        raise DataError(
            "a converted network cannot be copied: its arrays are addressed by one network; "
            "valid: copy it first and convert the copy"
        )

    def matrix(self, name: str) -> Matrix:
        """Return a matrix, or the one whose weights it has."""
        return self.matrices[self.aliases.get(name, name)]

    # Calls --------------------------------------------------------------------------------

    @property
    def running(self) -> MicroBatch:
        """The call under way.

        Raises
        ------
        DataError
            A part of the network was called on its own.
        """
        if self._running is None:
            raise DataError(
                "a part of a converted network was called by itself, outside of a call of the "
                "network; valid: call the network, or convert that part instead"
            )
        return self._running

    def begin(self, samples: int, train: bool, signature: tuple[Any, ...]) -> MicroBatch:
        """Begin a call of the network; weights that have changed are written."""
        self._write_changed()
        if train:
            number = self.micro_batches
            micro_batch = MicroBatch(self, "micro_batch", number, samples, True, signature)
            self.micro_batches += 1
        else:
            micro_batch = MicroBatch(self, "evaluate", self.evaluations, samples, False)
            self.evaluations += samples
        self._running = micro_batch
        for watcher in self.watchers:
            watcher.began(micro_batch)
        return micro_batch

    def end(self, outputs: Any) -> None:
        """End the call under way; None where it failed."""
        micro_batch, self._running = self._running, None
        if micro_batch is None:
            return
        micro_batch.context.close()
        if outputs is not None:
            for watcher in self.watchers:
                watcher.ended(micro_batch, outputs)
        # The graph refers to the call: it must not be kept by it in turn.
        micro_batch.tokens = {}

    def advance(self, step: int | None = None) -> None:
        """Go on to the next step, or to the one that is given."""
        self.step = self.step + 1 if step is None else step
        self.micro_batches = self.evaluations = 0
        self._advanced = True
        if self.engine.keeps_ranges:
            self._set_ranges()

    def write(self, engine: Engine, step: int) -> None:
        """Write the weights as they are now for a step of an engine; frozen ones stay in place."""
        if engine is not self.engine:
            self._loaded.clear()
        self.engine, self.step = engine, step
        for name, matrix in self.matrices.items():
            written, values = step if matrix.trained else 0, matrix.values()
            held = self._held.get(name)
            if held is None or held[0] != written or not np.array_equal(held[1], values):
                self._held[name] = written, np.array(values)
                self._loaded.pop(("forward", name), None)
                self._loaded.pop(("backward", name), None)
        self._advanced = True

    def restore_ranges(self, ranges: Mapping[str, np.ndarray]) -> None:
        """Set the converters' ranges to those of a state that was saved."""
        self.engine.ranges.take()
        self.engine.ranges.kept = dict(ranges)

    def written(self) -> dict[str, int]:
        """Return in which step weights were written that have not changed since."""
        return {
            name: held[0]
            for name, held in self._held.items()
            if np.array_equal(held[1], self.matrices[name].values())
        }

    def restore_written(self, steps: Mapping[str, int]) -> None:
        """Let weights that are written next be those of a state that was saved."""
        self._written = dict(steps)

    def _set_ranges(self) -> None:
        """Set the ranges of converters to what the last step asked for."""
        kept = self.engine.ranges
        assert self.engine.vmm is not None
        needed = kept.take()
        if not kept.kept or self.engine.vmm.adc.follows:
            kept.kept = {**kept.kept, **needed}

    def _write_changed(self) -> None:
        """Forget what is loaded of weights that have changed since they were written."""
        changed = []
        for name, matrix in self.matrices.items():
            now = matrix.values()
            held = self._held.get(name)
            if held is None or not np.array_equal(held[1], now):
                changed.append((name, held is not None, np.array(now)))
        # Whoever changed the weights without saying so has taken a step.
        if any(again for _, again, _ in changed) and not self._advanced:
            self.advance()
        self._advanced = False
        for name, _, values in changed:
            self._held[name] = self._written.get(name, self.step), values
            self._loaded.pop(("forward", name), None)
            self._loaded.pop(("backward", name), None)
        self._written = {}

    # Products -----------------------------------------------------------------------------

    def native(self, role: Role) -> bool:
        """Return whether PyTorch multiplies itself, in the precision of its tensors."""
        return self.exact_in == "tensors" and self.engine.arithmetic(role) == "float64"

    def weights(self, role: Literal["forward", "backward"], name: str) -> Product:
        """Return loaded weights (in, out), or for errors their transpose (out, in)."""
        if (role, name) not in self._loaded:
            written, values = self._held[name]
            what, matrix = ("weights", values) if role == "forward" else ("transpose", values.T)
            address = (what, When(written), name)
            self._loaded[role, name] = self.engine.load(role, matrix, address)
        return self._loaded[role, name]

    @contextlib.contextmanager
    def passing(self, backward: Backward) -> Iterator[None]:
        """Let backward passes be another one than that of the loss."""
        before, self.backward = self.backward, backward
        try:
            yield
        finally:
            self.backward = before


def product_call(micro_batch: MicroBatch, role: str, name: str, use: int) -> Address:
    """Return the address of a product with weights; the first use has no number."""
    behind = (use,) if use else ()
    passing = micro_batch.simulation.backward if role == "backward" else ()
    return (*micro_batch.call, *passing, role, name, *behind)


def operand_products(
    micro_batch: MicroBatch,
    role: Role,
    name: str,
    use: int,
    left: np.ndarray,
    right: np.ndarray,
) -> np.ndarray:
    """Return ``left @ right`` of every sample and head, (N, H, T, M).

    Parameters
    ----------
    micro_batch : MicroBatch
        The call.
    role, name, use
        What the product is for, its name, and how often it was computed before in this call.
    left, right : ndarray
        (N, H, T, K) and (N, H, K, M) float64; `right` is written to the arrays.
    """
    simulation = micro_batch.simulation
    if simulation.engine.arithmetic(role) == "float64":
        return left @ right
    what, step, number = micro_batch.call[:3]
    behind: Sequence[int | str] = (use,) if use else ()
    rest = simulation.backward if role != "forward" else ()
    place = (step, name, what, number, *behind)
    operands, driving = (part.reshape(-1, *part.shape[2:]) for part in (right, left))
    loaded = simulation.engine.load(role, operands, (f"{role}_operand", *place))
    product = loaded.multiply(driving, (role, *place, *rest))
    return product.reshape(*left.shape[:3], right.shape[3])
