"""Run a micro-batch through the layers of the NumPy engine: loss, gradients, share of the factors.

Successive layers may be run on their own (`PartRun`), with what comes from the layers before and
behind them, so that the layers of a network can be spread over chips.

Everything returned is a sum over samples, so that micro-batches add up to a batch whoever ran
them. Addresses of random draws name the step, the layer and the micro-batch, never a chip.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from repast_dist.analog.kernels.chosen import current
from repast_dist.ground.errors import DataError
from repast_dist.ground.numbers import some_of
from repast_dist.ground.rng import When, generator
from repast_dist.network.functional import with_ones
from repast_dist.network.model import Model
from repast_dist.network.node import Address, Parameter, Pass, Product, Sink
from repast_dist.training.engines import Engine
from repast_dist.training.losses import LossValue, exact_errors, loss_value, sampled_errors
from repast_dist.training.network import (
    Evaluation,
    FactorKey,
    FactorsAsked,
    MicroBatch,
    MicroBatchResult,
)
from repast_dist.training.optimizers import Side


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A network, or a part of one, whose weights are loaded for one step, for any number of
    micro-batches.

    Attributes
    ----------
    model : Model
        The network or the part.
    weights : mapping
        Name -> (in[+1], out) float32.
    forward, backward : dict
        Name -> loaded weights (in, out) and transpose (out, in); `backward` only where errors
        pass through.
    engine : Engine
        The arithmetic of its products.
    step : int
        The training step.
    behind : bool
        Whether layers that are trained lie before it, to which errors go on.
    """

    model: Model
    weights: Mapping[str, np.ndarray]
    forward: dict[str, Product]
    backward: dict[str, Product]
    engine: Engine
    step: int
    behind: bool = False

    def at_once(self, samples: int) -> int:
        """Return how many micro-batches of so many samples are run together at most: by the size of
        the inputs of all products, which layers keep, and of the gradients.
        """
        if not self.model.chain.passes_together:
            return 1
        numbers = sum(p.rows * (p.positions * samples + p.columns) for p in self.model.products)
        return max(current().together_bytes // (numbers * np.dtype(np.float64).itemsize), 1)

    def run_micro_batches(
        self, batches: Sequence[MicroBatch], asked: FactorsAsked | None = None
    ) -> list[MicroBatchResult]:
        """Return the loss, the gradients and, if asked for, the factors of every micro-batch; they
        share every product, and have the bits of one after the other. See
        `repast_dist.training.network.LoadedNetwork`.
        """
        inputs, labels, samples = (
            parts[0] if len(parts) == 1 else np.concatenate(parts)
            for parts in zip(*(batch.arrays for batch in batches), strict=True)
        )
        numbers = [batch.number for batch in batches]
        run = PartRun(self, samples, numbers, asked)
        run.forward(inputs)
        run.backward(run.errors(inputs, labels))
        return run.results()

    def begin(
        self,
        samples: np.ndarray,
        micro_batch: int,
        asked: FactorsAsked | None = None,
    ) -> "PartRun":
        """Return a micro-batch that is about to enter."""
        return PartRun(self, samples, [micro_batch], asked)

    def evaluate(self, inputs: np.ndarray, labels: np.ndarray, chunk: int = 256) -> Evaluation:
        """Return the sums of loss and hits over samples, computed `chunk` samples at a time.

        With fixed-point or analog forward products the samples of a chunk share a scale, so runs
        compare only with the same chunk.
        """
        total = Evaluation()
        for first in range(0, len(inputs), chunk):
            part = slice(first, first + chunk)
            run = _pass(self, (("evaluate", self.step, first),))
            outputs, _ = self.model.chain.forward(inputs[part].astype(np.float64), run)
            value = loss_value(self.model.spec.loss, outputs, inputs[part], labels[part])
            total += Evaluation(len(outputs), value.total, value.correct, value.squared_error)
        return total


def load_weights(
    model: Model,
    weights: Mapping[str, np.ndarray],
    engine: Engine,
    step: int,
    with_backward: bool = True,
    behind: bool = False,
) -> LoadedModel:
    """Load all weights into the arithmetic of a step.

    Parameters
    ----------
    model : Model
        The network.
    weights : mapping
        Name -> (in[+1], out) float32.
    engine : Engine
        The arithmetic; its seed and `step` address the programming errors.
    step : int
        The training step.
    with_backward : bool
        Load transposes too; not needed for evaluation.
    behind : bool
        Whether layers that are trained lie before the model, which is a part of a network.
    """
    matrices = {p.name: weights[p.name][: p.inputs] for p in model.products}
    step = When(step)
    forward = {
        name: engine.load("forward", matrix, ("weights", step, name))
        for name, matrix in matrices.items()
    }
    names = model.chain.transposed(need_input=behind) if with_backward else ()
    backward = {
        name: engine.load("backward", matrices[name].T, ("transpose", step, name)) for name in names
    }
    return LoadedModel(model, weights, forward, backward, engine, step, behind)


def _pass(loaded: LoadedModel, calls: tuple[Address, ...]) -> Pass:
    return Pass(loaded.weights, loaded.forward, loaded.backward, loaded.engine, calls)


class PartRun:
    """Micro-batches on their way through a network, or through a part of one: forward, backward,
    and then what they leave. Activations are loaded once, as (micro-batches, R, in[+1]).

    Parameters
    ----------
    loaded : LoadedModel
        The network or the part, with this step's weights.
    samples : (N,) integer ndarray
        Numbers of the samples of all micro-batches in the data set, one micro-batch behind the
        other, as in all arrays.
    micro_batches : sequence of int
        Numbers of the micro-batches in their step, of equal size; address what is programmed for
        them.
    asked : FactorsAsked or None
        The factors that they leave; None: none.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        samples: np.ndarray,
        micro_batches: Sequence[int],
        asked: FactorsAsked | None = None,
    ) -> None:
        self.loaded, self.samples, self.numbers = loaded, samples, tuple(micro_batches)
        self._factors_asked = asked
        self.run = _pass(loaded, tuple(("micro_batch", loaded.step, n) for n in self.numbers))
        self.activations: dict[tuple[str, str], Product] = {}
        self.sinks: list[Sink] = []
        self._values: list[LossValue] = []
        self._share = 1.0 if asked is None else asked.positions
        self._orders: dict[str, list[_Order]] = {}
        self._asked: dict[Address, list[np.ndarray]] = {}

    def forward(self, inputs: np.ndarray) -> np.ndarray:
        """Return what the last layer makes of the inputs of the first, (N, ...) each."""
        chain = self.loaded.model.chain
        self.outputs: np.ndarray
        self.outputs, self.saved = chain.forward(inputs.astype(np.float64), self.run)
        self.rows = chain.rows_of(self.saved)
        return self.outputs

    def errors(self, inputs: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
        """Return the errors at the network's outputs, (N, ...): those of the loss, and those of the
        passes that the Fisher matrix takes beside it.

        Parameters
        ----------
        inputs, labels : ndarray
            What the whole network is given, and what it should make of it.

        Raises
        ------
        DataError
            The loss is not finite: training diverged.
        """
        # Sums over samples are those of each micro-batch.
        split = self.run.split
        parts = zip(
            self.numbers,
            split(self.outputs),
            split(inputs),
            split(labels),
            split(self.samples),
            strict=True,
        )
        each = [self._errors(*part) for part in parts]
        return [
            errors[0] if len(errors) == 1 else np.concatenate(errors)
            for errors in zip(*each, strict=True)
        ]

    def _errors(
        self,
        number: int,
        outputs: np.ndarray,
        inputs: np.ndarray,
        labels: np.ndarray,
        samples: np.ndarray,
    ) -> list[np.ndarray]:
        loaded = self.loaded
        loss = loaded.model.spec.loss
        value = loss_value(loss, outputs, inputs, labels)
        self._values.append(value)
        if not np.isfinite(value.total):
            raise DataError(
                f"step {loaded.step}, micro-batch {number}: the loss is not finite; "
                "lower optimizer.learning_rate or raise optimizer.damping"
            )
        asked = self._factors_asked
        fisher = "empirical" if asked is None else asked.optimizer.output_gradients
        if fisher == "sampled":
            labels_of = (loaded.engine.seed, loaded.step, samples)
            return [value.errors, sampled_errors(loss, outputs, *labels_of)]
        if fisher == "exact":
            return [value.errors, *exact_errors(loss, outputs)]
        return [value.errors]

    def backward(self, errors: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Go back with the errors of every pass; return those at the inputs of the part, if layers
        that are trained lie before it.
        """
        handed_on = []
        for number, error in enumerate(errors):
            sink = Sink.of(len(self.numbers))
            what = ("fisher", number - 1) if number else ()
            calls = tuple((*call, *what) for call in self.run.calls)
            run = dataclasses.replace(self.run, calls=calls)
            behind = self.loaded.behind
            back = self.loaded.model.chain.backward(error, self.saved, run, sink, behind)
            self.sinks.append(sink)
            if back is not None:
                handed_on.append(back)
        return handed_on

    def result(self) -> MicroBatchResult:
        """Return what the one micro-batch contributes."""
        (result,) = self.results()
        return result

    def results(self) -> list[MicroBatchResult]:
        """Return what every micro-batch contributes to its batch: of the part's layers, and the
        loss where it is known here.
        """
        formed = {
            p.name: self.gradients(p, self.sinks[0].errors[p.name])
            for p in self.loaded.model.products
        }
        results = []
        for which, sink in enumerate(self.sinks[0].each):
            value = self._values[which] if self._values else LossValue(0.0, 0.0, 0.0, _NONE)
            gradients = sink.direct | {name: found[which] for name, found in formed.items()}
            factors: dict[FactorKey, np.ndarray] = {}
            rows: dict[FactorKey, np.ndarray] = {}
            size = len(self.samples) // len(self.numbers)
            if self._factors_asked is not None:
                statistics = _Statistics(self, which, self._factors_asked, gradients, size)
                factors, rows = statistics.matrices(), statistics.rows()
            results.append(
                MicroBatchResult(
                    samples=size,
                    loss_sum=value.total,
                    correct=value.correct,
                    squared_error=value.squared_error,
                    gradients={p.name: gradients[p.name] for p in self.loaded.model.parameters},
                    factors=factors,
                    rows=rows,
                )
            )
        return results

    def gradients(self, parameter: Parameter, errors: np.ndarray) -> np.ndarray:
        """Return inputs^T errors of every micro-batch, (micro-batches, in[+1], out): activations
        are the matrix, errors the inputs.
        """
        matrix, orders = self.load_activations("gradient", parameter), self.orders(parameter)
        each = self.run.split(errors)
        if orders:
            each = np.stack([part[order.rows] for part, order in zip(each, orders, strict=True)])
        calls = self.addresses("gradient", parameter)
        return matrix.multiply_each(each.swapaxes(1, 2), calls).swapaxes(1, 2)

    def asked(
        self, which: int, times: int, what: Address, make: Callable[[], np.ndarray]
    ) -> np.ndarray:
        """Return what an optimizer asks for of one of the micro-batches, for the so-manieth time:
        the first to ask has it computed for all of them.
        """
        found = self._asked.setdefault(what, [])
        if times == len(found):
            found.append(make())
        each: np.ndarray = found[times][which]
        return each

    def input_moments(self, parameter: Parameter, blocks: Sequence[tuple[int, int]]) -> np.ndarray:
        """Return the moments of the inputs, (micro-batches, in[+1], in[+1])."""
        calls = self.addresses("A", parameter)
        if _combines(parameter):
            means = self.run.split(self.means(parameter))
            addresses = self.addresses("means", parameter)
            matrix = self.loaded.engine.load_each("factor", means, addresses)
            return moments(matrix, means, blocks, calls)
        rows, orders = self.run.split(self.inputs(parameter)), self.orders(parameter)
        matrix = self.load_activations("factor", parameter)
        if not orders:
            return moments(matrix, rows, blocks, calls) / parameter.positions
        rows = np.stack([part[order.first] for part, order in zip(rows, orders, strict=True)])
        found = moments(matrix.rows(orders[0].drawn), rows, blocks, calls)
        return found * (orders[0].stands_for / parameter.positions)

    def input_rows(self, parameter: Parameter, which: int) -> np.ndarray:
        """Return the rows that the moment of one micro-batch's inputs is the product of, (R,
        in[+1]).
        """
        if _combines(parameter):
            return self.run.split(self.means(parameter))[which]
        rows = self.run.split(self.inputs(parameter))[which] / np.sqrt(parameter.positions)
        orders = self.orders(parameter)
        if not orders:
            return rows
        return np.sqrt(orders[which].stands_for) * rows[orders[which].first]

    def means(self, parameter: Parameter) -> np.ndarray:
        rows = self.inputs(parameter)
        means: np.ndarray = rows.reshape(-1, parameter.positions, rows.shape[1]).mean(axis=1)
        return means

    def error_moments(
        self,
        parameter: Parameter,
        errors: np.ndarray,
        number: int,
        blocks: Sequence[tuple[int, int]],
    ) -> np.ndarray:
        """Return the moments of one backward pass's errors, (micro-batches, out, out)."""
        rows = self.error_rows(parameter, errors)
        addresses = [(*address, number) for address in self.addresses("errors", parameter)]
        matrix = self.loaded.engine.load_each("factor", rows, addresses)
        return moments(matrix, rows, blocks, [("G", *address) for address in addresses])

    def error_rows(self, parameter: Parameter, errors: np.ndarray) -> np.ndarray:
        """Return the rows that one backward pass adds to the moments of a layer's errors,
        (micro-batches, R, out).
        """
        if _combines(parameter):
            summed = errors.reshape(-1, parameter.positions, errors.shape[1]).sum(axis=1)
            return self.run.split(summed)
        each, orders = self.run.split(errors), self.orders(parameter)
        if not orders:
            return each
        parts = zip(each, orders, strict=True)
        return np.stack([np.sqrt(order.stands_for) * part[order.first] for part, order in parts])

    def orders(self, parameter: Parameter) -> "list[_Order]":
        """Return the orders in which a layer's vectors are written, one for each micro-batch; none:
        as they come.
        """
        if self._share == 1 or parameter.positions == 1 or _combines(parameter):
            return []
        if parameter.name not in self._orders:
            count = len(self.rows[parameter.name]) // len(self.numbers)
            drawn = count // parameter.positions * some_of(self._share, parameter.positions)
            seed = self.loaded.engine.seed
            self._orders[parameter.name] = [
                _Order(generator(seed, *address).permutation(count), drawn)
                for address in self.addresses("factor positions", parameter)
            ]
        return self._orders[parameter.name]

    def load_activations(
        self, role: Literal["gradient", "factor"], parameter: Parameter
    ) -> Product:
        """Load the inputs, once per arithmetic: gradient and factor share the same arrays, but not
        the ranges of their converters.
        """
        engine = self.loaded.engine
        key = (engine.arithmetic(role), parameter.name)
        if key not in self.activations:
            addresses, orders = self.addresses("activations", parameter), self.orders(parameter)
            rows = self.run.split(self.inputs(parameter))
            if orders:
                parts = zip(rows, orders, strict=True)
                rows = np.stack([part[order.rows] for part, order in parts])
            self.activations[key] = engine.load_each(role, rows, addresses)
        return self.activations[key].serving(role)

    def inputs(self, parameter: Parameter) -> np.ndarray:
        rows = self.rows[parameter.name]
        return with_ones(rows) if parameter.bias else rows

    def addresses(self, what: str, parameter: Parameter) -> list[Address]:
        return [(what, self.loaded.step, parameter.name, number) for number in self.numbers]


_NONE = np.zeros(0)


@dataclasses.dataclass(frozen=True)
class _Order:
    """The order in which the vectors of a micro-batch are written.

    Attributes
    ----------
    rows : ndarray
        (R,) int64, numbers of the vectors.
    drawn : int
        How many of the first ones form factors.
    """

    rows: np.ndarray
    drawn: int

    @property
    def first(self) -> np.ndarray:
        """Numbers of those that form factors, (drawn,)."""
        return self.rows[: self.drawn]

    @property
    def stands_for(self) -> float:
        """How many vectors each of them stands for."""
        return len(self.rows) / self.drawn


class _Statistics:
    """An optimizer's statistics of a micro-batch; only what it asks for is computed."""

    def __init__(
        self,
        run: PartRun,
        which: int,
        asked: FactorsAsked,
        gradients: Mapping[str, np.ndarray],
        samples: int,
    ) -> None:
        self.batch, self.which, self.gradients, self.samples = run, which, gradients, samples
        self.optimizer, self.blocks, self.unformed = asked.optimizer, asked.blocks, asked.unformed
        self._times: Counter[Address] = Counter()

    def matrices(self) -> dict[FactorKey, np.ndarray]:
        """Return (layer, side) -> (n, n) float64 for all preconditioned layers.

        Raises
        ------
        DataError
            The optimizer made a matrix of the wrong shape.
        """
        matrices: dict[FactorKey, np.ndarray] = {}
        for parameter in self.batch.loaded.model.preconditioned:
            layer = _Layer(self, parameter)
            for side in self.optimizer.sides:
                if not self.wanted(parameter, side):
                    continue
                matrix = np.asarray(self.optimizer.statistic(side, layer), np.float64)
                size = _width(parameter, side)
                if matrix.shape != (size, size):
                    raise DataError(
                        f"optimizer {self.optimizer.name}: statistic {side} of layer "
                        f"{parameter.name} is {matrix.shape}; valid: ({size}, {size})"
                    )
                matrices[parameter.name, side] = matrix
        return matrices

    def rows(self) -> dict[FactorKey, np.ndarray]:
        """Return (layer, side) -> (R, n) float64, the rows of the unformed factors."""
        found: dict[FactorKey, np.ndarray] = {}
        for parameter in self.batch.loaded.model.preconditioned:
            layer = _Layer(self, parameter)
            for side in self.optimizer.sides:
                if (parameter.name, side) in self.unformed:
                    rows = self.optimizer.statistic_rows(side, layer)
                    found[parameter.name, side] = np.asarray(rows, np.float64)
        return found

    @property
    def errors(self) -> list[Mapping[str, np.ndarray]]:
        """Layer -> output gradients, of every backward pass of the Fisher matrix: those beside the
        loss's own, or the loss's own. All layers share the passes.
        """
        sinks = self.batch.sinks
        return [sink.errors for sink in sinks[1:] or sinks]

    def moment(self, parameter: Parameter, side: Side) -> np.ndarray:
        """Return the moment of the inputs, or that of the output gradients of all passes."""
        what = parameter.name, side
        times, self._times[what] = self._times[what], self._times[what] + 1
        wanted = self.wanted(parameter, side)

        def of_all() -> np.ndarray:
            if side == "A":
                return self.batch.input_moments(parameter, wanted)
            found = np.zeros((len(self.batch.numbers), parameter.columns, parameter.columns))
            for number, errors in enumerate(self.errors):
                found += self.batch.error_moments(parameter, errors[parameter.name], number, wanted)
            return found

        return self.batch.asked(self.which, times, what, of_all)

    def error_rows(self, parameter: Parameter) -> np.ndarray:
        """Return the rows that the moment of the output gradients is the product of, (R, out)."""
        passes = [
            self.batch.error_rows(parameter, errors[parameter.name])[self.which]
            for errors in self.errors
        ]
        return np.concatenate(passes)

    def wanted(self, parameter: Parameter, side: Side) -> Sequence[tuple[int, int]]:
        """Return the ranges of the diagonal blocks that are kept of a matrix."""
        if self.blocks is None:
            return ((0, _width(parameter, side)),)
        return self.blocks.get((parameter.name, side), ())


class _Layer:
    """See `LayerStatistics`."""

    def __init__(self, statistics: _Statistics, parameter: Parameter) -> None:
        self._all, self._parameter = statistics, parameter

    @property
    def gradient(self) -> np.ndarray:
        return self._all.gradients[self._parameter.name]

    @property
    def samples(self) -> int:
        return self._all.samples

    def input_moment(self) -> np.ndarray:
        return self._all.moment(self._parameter, "A")

    def error_moment(self) -> np.ndarray:
        return self._all.moment(self._parameter, "G")

    def input_rows(self) -> np.ndarray:
        return self._all.batch.input_rows(self._parameter, self._all.which)

    def error_rows(self) -> np.ndarray:
        return self._all.error_rows(self._parameter)

    def moment(self, side: Side, rows: np.ndarray) -> np.ndarray:
        batch = self._all.batch
        address = (*batch.addresses("moment", self._parameter)[self._all.which], side)
        matrix = batch.loaded.engine.load("factor", rows, address)
        return diagonal_blocks(matrix, rows, self._all.wanted(self._parameter, side), address)


def _width(parameter: Parameter, side: Side) -> int:
    return parameter.rows if side == "A" else parameter.columns


def _combines(parameter: Parameter) -> bool:
    """Whether the vectors of a sample are combined before they form factors."""
    return parameter.sharing == "reduce" and parameter.positions > 1


def diagonal_blocks(
    loaded: Product,
    rows: np.ndarray,
    blocks: Sequence[tuple[int, int]],
    call: tuple[int | str, ...],
) -> np.ndarray:
    """Return diagonal blocks of ``rows^T rows``, (n, n), where `loaded` holds the rows (R, n); see
    `moments`.
    """
    return np.asarray(moments(loaded, rows[None], blocks, [call])[0])


def moments(
    loaded: Product,
    rows: np.ndarray,
    blocks: Sequence[tuple[int, int]],
    calls: Sequence[Address],
) -> np.ndarray:
    """Return diagonal blocks of ``rows^T rows`` for every call, (calls, n, n), where `loaded` holds
    the rows (calls, R, n).

    Only the symmetric part: rounding and noise of the product are not symmetric.
    """
    n = rows.shape[2]
    result = np.zeros((len(rows), n, n))
    for start, stop in blocks:
        columns = loaded if stop - start == n else loaded.columns(start, stop)
        product = columns.multiply_each(rows[:, :, start:stop].swapaxes(1, 2), calls)
        result[:, start:stop, start:stop] = 0.5 * (product + product.swapaxes(1, 2))
    return result
