"""Collects an optimizer's statistics of matrices while a network is called and differentiated."""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from repast_dist.ground.errors import DataError, SettingsError
from repast_dist.network.losses import LossShape
from repast_dist.network.node import Product, Role
from repast_dist.torch.fisher import Likelihood
from repast_dist.torch.matrices import to_float64
from repast_dist.torch.simulation import LOSS, MicroBatch, Simulation, Uses, Watcher
from repast_dist.training.block_state import FactorBlock
from repast_dist.training.network import FactorKey
from repast_dist.training.optimizers import SecondOrder, Side
from repast_dist.training.step import diagonal_blocks

Outputs = Callable[[Any], torch.Tensor]
Ranges = Sequence[tuple[int, int]]


class Statistics(Watcher):
    """The statistics of the micro-batches of a step.

    Parameters
    ----------
    simulation : Simulation
        The network's arrays.
    method : SecondOrder
        The optimizer's method, which says what is computed.
    likelihood : Likelihood
        The loss.
    outputs : callable
        Picks the likelihood's parameters from what the network returns.
    scale : callable
        Returns what gradients of a micro-batch's loss are multiplied by to be sums over samples.
    """

    def __init__(
        self,
        simulation: Simulation,
        method: SecondOrder,
        likelihood: Likelihood,
        outputs: Outputs,
        scale: Callable[[MicroBatch], float],
    ) -> None:
        self._simulation, self.method = simulation, method
        self._likelihood, self._outputs = likelihood, outputs
        self._scale = scale
        self.micro_batches: list[MicroBatch] = []
        self.due: Callable[[int], bool] = lambda step: True
        self.blocks: dict[FactorKey, Ranges] | None = None
        self.unformed: Collection[FactorKey] = ()
        self.prepare: Callable[[MicroBatch], Sequence[FactorBlock]] = lambda micro_batch: ()
        self.passes = 0
        self.losses: tuple[LossShape, ...] = ()
        self._numbers: np.ndarray | None = None

    def number(self, samples: Sequence[int] | np.ndarray | torch.Tensor) -> None:
        """Tell the numbers in the data set of the next micro-batch's samples."""
        self._numbers = np.asarray(samples, np.int64)

    def clear(self) -> None:
        """Begin a step."""
        self.micro_batches = []

    def began(self, micro_batch: MicroBatch) -> None:
        """Note a micro-batch."""
        if micro_batch.train:
            if not micro_batch.samples:
                raise DataError("a micro-batch has no samples; valid: one or more")
            before = sum(other.samples for other in self.micro_batches)
            numbers, self._numbers = self._numbers, None
            if numbers is None:
                numbers = before + np.arange(micro_batch.samples)
            elif len(numbers) != micro_batch.samples:
                raise DataError(
                    f"{len(numbers)} numbers for the {micro_batch.samples} samples of a micro-batch"
                )
            micro_batch.statistics["numbers"] = numbers
            self.micro_batches.append(micro_batch)

    def ended(self, micro_batch: MicroBatch, outputs: Any) -> None:
        """Find the errors of the Fisher matrix, which has backward passes of its own."""
        if not micro_batch.train:
            return
        if self.blocks is None:
            ranges: dict[FactorKey, list[tuple[int, int]]] = {}
            for block in self.prepare(micro_batch):
                key: FactorKey = (block.layer_name, block.factor)
                ranges.setdefault(key, []).append((block.start, block.stop))
            self.blocks = {key: tuple(found) for key, found in ranges.items()}
        self.passes = self._passes(outputs)
        if self.method.output_gradients == "empirical":
            return
        given = self._given(outputs)
        self.losses = (self._likelihood.shape(given, micro_batch.samples),)
        if not self.due(micro_batch.step) or "G" not in self.method.sides:
            return
        if given.requires_grad:
            self._differentiate(micro_batch, given)

    def differentiated(
        self,
        micro_batch: MicroBatch,
        uses: Uses,
        errors: torch.Tensor,
        gradient: Callable[[], np.ndarray],
        load: Callable[[Role], Product],
    ) -> None:
        """Form the statistics of one matrix."""
        name = uses.matrix.name
        if not micro_batch.train:
            return
        micro_batch.statistics["differentiated"] = True
        if not self.due(micro_batch.step) or not self._of(name):
            return
        scale = self._scale(micro_batch)
        layer = _Layer(self, micro_batch, uses, errors, gradient, scale, load)
        for side in self.method.sides:
            if (name, side) in self.unformed:
                rows = np.asarray(self.method.statistic_rows(side, layer), np.float64)
                micro_batch.statistics["rows", name, side] = rows
            if not self.ranges(name, side):
                continue
            if (name, side) in micro_batch.statistics and self._of_loss(side):
                raise DataError(
                    f"{name}: a micro-batch was differentiated twice; valid: one backward pass of "
                    "the sum of the losses, of which the empirical Fisher matrix is made"
                )
            matrix = np.asarray(self.method.statistic(side, layer), np.float64)
            size = self._width(name, side)
            if matrix.shape != (size, size):
                raise DataError(
                    f"optimizer {self.method.name}: statistic {side} of layer {name} is "
                    f"{matrix.shape}; valid: ({size}, {size})"
                )
            micro_batch.statistics[name, side] = matrix

    def _of_loss(self, side: Side) -> bool:
        """Return whether a factor is made of the gradients of the loss itself."""
        return side == "G" and self.method.output_gradients == "empirical"

    def total(self) -> dict[FactorKey, np.ndarray]:
        """Return the mean over the samples of the step, (layer, side) -> (n, n)."""
        samples = sum(micro_batch.samples for micro_batch in self.finished)
        return {key: matrix / samples for key, matrix in self.sums().items()}

    def sums(self) -> dict[FactorKey, np.ndarray]:
        """Return the sum over the samples of the step, (layer, side) -> (n, n)."""
        sums: dict[FactorKey, np.ndarray] = {}
        for (name, side), ranges in (self.blocks or {}).items():
            if not ranges:
                continue
            width = self._width(name, side)
            found = [micro_batch.statistics.get((name, side)) for micro_batch in self.finished]
            parts = [part for part in found if part is not None]
            sums[name, side] = sum(parts, np.zeros((width, width)))
        return sums

    def rows(self) -> dict[FactorKey, np.ndarray]:
        """Return the rows of unformed factors of the only micro-batch, (layer, side) -> (R, n)."""
        found: dict[FactorKey, np.ndarray] = {}
        for name, side in self.unformed:
            for micro_batch in self.micro_batches:
                rows = micro_batch.statistics.get(("rows", name, side))
                if rows is None:
                    uses = micro_batch.uses.get(name)
                    vectors = 0 if uses is None else uses.vectors
                    rows = np.zeros((vectors * max(self.passes, 1), self._width(name, side)))
                found[name, side] = rows
        return found

    def _width(self, name: str, side: Side) -> int:
        sizes = self._simulation.matrices[name]
        return sizes.inputs + (sizes.bias is not None) if side == "A" else sizes.outputs

    @property
    def finished(self) -> list[MicroBatch]:
        """The micro-batches of the step whose loss was differentiated."""
        return [item for item in self.micro_batches if "differentiated" in item.statistics]

    def ranges(self, name: str, side: Side) -> Ranges:
        """Return the ranges of the diagonal blocks of a matrix' factor."""
        return (self.blocks or {}).get((name, side), ())

    def _of(self, name: str) -> bool:
        return any((name, side) in (self.blocks or {}) for side in self.method.sides)

    def _given(self, outputs: Any) -> torch.Tensor:
        given = self._outputs(outputs)
        if not isinstance(given, torch.Tensor):
            raise SettingsError(
                f"outputs: picks {type(given).__name__} from what the network returns; valid: a "
                "tensor, outputs=lambda result: ..."
            )
        return given

    def _passes(self, outputs: Any) -> int:
        """Return the number of backward passes of the Fisher matrix."""
        kind = self.method.output_gradients
        if kind == "exact":
            return self._likelihood.passes(self._given(outputs))
        return 1 if kind == "sampled" else 0

    def _differentiate(self, micro_batch: MicroBatch, outputs: torch.Tensor) -> None:
        outputs.register_hook(self._check(outputs.detach()))
        for number, errors in enumerate(self._fisher_errors(micro_batch, outputs)):
            self._pass(micro_batch, number, outputs, errors, micro_batch.tokens)

    def _fisher_errors(
        self, micro_batch: MicroBatch, outputs: torch.Tensor
    ) -> Iterator[torch.Tensor]:
        """Yield the errors at the outputs of every pass of the Fisher matrix."""
        simulation, step = self._simulation, micro_batch.step
        if self.method.output_gradients == "sampled":
            numbers = micro_batch.statistics["numbers"]
            seed = simulation.engine.seed
            yield self._likelihood.sampled(outputs, seed, step, numbers)
        else:
            yield from self._likelihood.exact(outputs, micro_batch.samples)

    def _pass(
        self,
        micro_batch: MicroBatch,
        number: int,
        outputs: torch.Tensor,
        errors: torch.Tensor,
        tokens: Mapping[str, torch.Tensor],
        entered: torch.Tensor | None = None,
    ) -> torch.Tensor | None:
        """Go back with the errors of one pass; return those at what entered, if it is given."""
        names = [name for name in tokens if (name, "G") in (self.blocks or {})]
        ends = [tokens[name] for name in names] + ([] if entered is None else [entered])
        if not ends:
            return None
        address = ("fisher", number)
        with self._simulation.passing(address):
            back = torch.autograd.grad(outputs, ends, errors, retain_graph=True, allow_unused=True)
        for name in names:
            found = to_float64(micro_batch.uses[name].take_errors(address))
            micro_batch.statistics.setdefault(("errors", name), []).append(found)
        return None if entered is None else back[-1]

    def error_moment(
        self, micro_batch: MicroBatch, name: str, errors: np.ndarray, number: int
    ) -> np.ndarray:
        """Return the moment of one backward pass's errors (R, out), (out, out)."""
        address = (*micro_batch.address("errors", name), number)
        matrix = self._simulation.engine.load("factor", errors, address)
        return diagonal_blocks(matrix, errors, self.ranges(name, "G"), ("G", *address))

    def _check(self, outputs: torch.Tensor) -> Callable[[torch.Tensor], None]:
        """Return a hook that looks at the loss's own gradient by the outputs."""

        def check(gradient: torch.Tensor) -> None:
            if self._simulation.backward == LOSS:
                self._likelihood.check(outputs, gradient)

        return check


class PartStatistics(Statistics):
    """The statistics of one micro-batch in a part of a network, whose passes come from behind it.

    Parameters are those of `Statistics`.
    """

    def began(self, micro_batch: MicroBatch) -> None:
        """Note the micro-batch."""
        super().began(micro_batch)
        self._tokens: dict[str, torch.Tensor] = {}

    def ended(self, micro_batch: MicroBatch, outputs: Any) -> None:
        """Keep what the passes are differentiated by; they come later."""
        self._tokens = dict(micro_batch.tokens)

    def go_back(
        self,
        outputs: Any,
        errors: Sequence[torch.Tensor],
        last: bool,
        entered: torch.Tensor | None,
    ) -> list[torch.Tensor]:
        """Go back with the errors of the passes of the Fisher matrix.

        Parameters
        ----------
        outputs : Tensor or any
            What the part made.
        errors : sequence of Tensor
            The errors of each pass at the outputs.
        last : bool
            Whether the outputs are those of the network: the errors are found here.
        entered : Tensor or None
            What the part was given, if the passes go on to what lies before.

        Returns
        -------
        list of Tensor
            The errors of each pass at what entered.
        """
        (micro_batch,) = self.micro_batches
        given: Iterable[torch.Tensor] = errors
        if last:
            given, outputs = self._found(micro_batch, outputs)
        back, self.passes = [], 0
        for number, error in enumerate(given):
            self.passes += 1
            at_entry = self._pass(micro_batch, number, outputs, error, self._tokens, entered)
            if at_entry is not None:
                back.append(at_entry)
        self._tokens = {}
        return back

    def _found(
        self, micro_batch: MicroBatch, result: Any
    ) -> tuple[Iterable[torch.Tensor], torch.Tensor | None]:
        """Return the errors of the passes, and the outputs that they are errors of."""
        if self.method.output_gradients == "empirical":
            return (), None
        outputs = self._given(result)
        self.losses = (self._likelihood.shape(outputs, micro_batch.samples),)
        if "G" not in self.method.sides or not outputs.requires_grad:
            return (), outputs
        outputs.register_hook(self._check(outputs.detach()))
        return self._fisher_errors(micro_batch, outputs), outputs


@dataclasses.dataclass(frozen=True)
class _Layer:
    """See `repast_dist.training.optimizers.LayerStatistics`."""

    _all: Statistics
    _micro_batch: MicroBatch
    _uses: Uses
    _errors: torch.Tensor
    _gradient: Callable[[], np.ndarray]
    _scale: float
    _load: Callable[[Role], Product]

    @property
    def gradient(self) -> np.ndarray:
        return self._gradient() * self._scale

    @property
    def samples(self) -> int:
        return self._micro_batch.samples

    def input_moment(self) -> np.ndarray:
        name, inputs = self._uses.matrix.name, self._uses.inputs()
        call = self._micro_batch.address("A", name)
        blocks = self._all.ranges(name, "A")
        moment = diagonal_blocks(self._load("factor"), inputs, blocks, call)
        return moment * (self.samples / len(inputs))

    def error_moment(self) -> np.ndarray:
        name, width = self._uses.matrix.name, self._uses.matrix.outputs
        moment = np.zeros((width, width))
        for number, errors in enumerate(self._passes()):
            moment += self._all.error_moment(self._micro_batch, name, errors, number)
        return moment

    def input_rows(self) -> np.ndarray:
        inputs = self._uses.inputs()
        rows: np.ndarray = inputs * np.sqrt(self.samples / len(inputs))
        return rows

    def error_rows(self) -> np.ndarray:
        passes = self._passes()
        return np.concatenate(passes) if passes else np.zeros((0, self._uses.matrix.outputs))

    def _passes(self) -> Sequence[np.ndarray]:
        """Return the errors of every backward pass of the Fisher matrix, (R, out)."""
        if self._all.method.output_gradients == "empirical":
            return [to_float64(self._errors) * self._scale]
        found: Sequence[np.ndarray] = self._micro_batch.statistics.get(
            ("errors", self._uses.matrix.name), []
        )
        return found

    def moment(self, side: Side, rows: np.ndarray) -> np.ndarray:
        name = self._uses.matrix.name
        address = (*self._micro_batch.address("moment", name), side)
        matrix = self._all._simulation.engine.load("factor", rows, address)
        return diagonal_blocks(matrix, rows, self._all.ranges(name, side), address)


def logits(result: Any) -> torch.Tensor:
    """Return the tensor itself, ``.logits`` or ``["logits"]``, or the first of several."""
    if hasattr(result, "logits"):
        result = result.logits
    if isinstance(result, Mapping) and result:
        result = result.get("logits", next(iter(result.values())))
    if isinstance(result, tuple | list) and result:
        result = result[0]
    return result
