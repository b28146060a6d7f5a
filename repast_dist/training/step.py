"""Run a micro-batch through the layers of the NumPy engine: loss, gradients, share of the factors.

Successive layers may be run on their own (`PartRun`), with what comes from the layers before and
behind them, so that the layers of a network can be spread over chips.

Everything returned is a sum over samples, so that micro-batches add up to a batch whoever ran
them. Addresses of random draws name the step, the layer and the micro-batch, never a chip.
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import numpy as np

from repast_dist.ground.errors import DataError
from repast_dist.ground.numbers import some_of
from repast_dist.ground.rng import When, generator
from repast_dist.network.functional import with_ones
from repast_dist.network.model import Model
from repast_dist.network.node import Parameter, Pass, Product, Sink
from repast_dist.training.engines import Engine
from repast_dist.training.losses import LossValue, exact_errors, loss_value, sampled_errors
from repast_dist.training.network import Evaluation, FactorBlocks, FactorKey, MicroBatchResult
from repast_dist.training.optimizers import SecondOrder, Side


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

    def run_micro_batch(
        self,
        inputs: np.ndarray,
        labels: np.ndarray,
        samples: np.ndarray,
        micro_batch: int,
        statistics: SecondOrder | None = None,
        blocks: FactorBlocks | None = None,
        unformed: Collection[FactorKey] = (),
        positions: float = 1.0,
    ) -> MicroBatchResult:
        """Return the loss, the gradients and, if asked for, the factors of one micro-batch; see
        `repast_dist.training.network.LoadedNetwork`.
        """
        run = self.begin(samples, micro_batch, statistics, blocks, unformed, positions)
        run.forward(inputs)
        run.backward(run.errors(inputs, labels))
        return run.result()

    def begin(
        self,
        samples: np.ndarray,
        micro_batch: int,
        statistics: SecondOrder | None = None,
        blocks: FactorBlocks | None = None,
        unformed: Collection[FactorKey] = (),
        positions: float = 1.0,
    ) -> "PartRun":
        """Return a micro-batch that is about to enter."""
        return PartRun(self, samples, micro_batch, statistics, blocks, unformed, positions)

    def evaluate(self, inputs: np.ndarray, labels: np.ndarray, chunk: int = 256) -> Evaluation:
        """Return the sums of loss and hits over samples, computed `chunk` samples at a time.

        With fixed-point or analog forward products the samples of a chunk share a scale, so runs
        compare only with the same chunk.
        """
        total = Evaluation()
        for first in range(0, len(inputs), chunk):
            part = slice(first, first + chunk)
            run = _pass(self, ("evaluate", self.step, first))
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


def _pass(loaded: LoadedModel, call: tuple[int | str, ...]) -> Pass:
    return Pass(loaded.weights, loaded.forward, loaded.backward, loaded.engine.load, call)


class PartRun:
    """A micro-batch on its way through a network, or through a part of one: forward, backward, and
    then what it leaves. Activations are loaded once, as (R, in[+1]).

    Parameters
    ----------
    loaded : LoadedModel
        The network or the part, with this step's weights.
    samples, micro_batch, statistics, blocks, unformed, positions
        As of `LoadedNetwork.run_micro_batch`.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        samples: np.ndarray,
        micro_batch: int,
        statistics: SecondOrder | None = None,
        blocks: FactorBlocks | None = None,
        unformed: Collection[FactorKey] = (),
        positions: float = 1.0,
    ) -> None:
        self.loaded, self.samples, self.number = loaded, samples, micro_batch
        self._statistics, self._blocks, self._unformed = statistics, blocks, unformed
        self.run = _pass(loaded, ("micro_batch", loaded.step, micro_batch))
        self.activations: dict[tuple[str, str], Product] = {}
        self.sinks: list[Sink] = []
        self._value: LossValue | None = None
        self._share = 1.0 if statistics is None else positions
        self._orders: dict[str, _Order | None] = {}

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
        loaded = self.loaded
        loss = loaded.model.spec.loss
        value = self._value = loss_value(loss, self.outputs, inputs, labels)
        if not np.isfinite(value.total):
            raise DataError(
                f"step {loaded.step}, micro-batch {self.number}: the loss is not finite; "
                "lower optimizer.learning_rate or raise optimizer.damping"
            )
        fisher = "empirical" if self._statistics is None else self._statistics.output_gradients
        if fisher == "sampled":
            labels_of = (loaded.engine.seed, loaded.step, self.samples)
            return [value.errors, sampled_errors(loss, self.outputs, *labels_of)]
        if fisher == "exact":
            return [value.errors, *exact_errors(loss, self.outputs)]
        return [value.errors]

    def backward(self, errors: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Go back with the errors of every pass; return those at the inputs of the part, if layers
        that are trained lie before it.
        """
        handed_on = []
        for number, error in enumerate(errors):
            sink = Sink()
            call = (*self.run.call, *(("fisher", number - 1) if number else ()))
            run = dataclasses.replace(self.run, call=call)
            behind = self.loaded.behind
            back = self.loaded.model.chain.backward(error, self.saved, run, sink, behind)
            self.sinks.append(sink)
            if back is not None:
                handed_on.append(back)
        return handed_on

    def result(self) -> MicroBatchResult:
        """Return what the micro-batch contributes to its batch: of the part's layers, and the loss
        where it is known here.
        """
        sink, value, samples = self.sinks[0], self._value, len(self.samples)
        gradients = dict(sink.direct)
        for parameter in self.loaded.model.products:
            gradients[parameter.name] = self.gradient(parameter, sink.errors[parameter.name])
        factors: dict[FactorKey, np.ndarray] = {}
        rows: dict[FactorKey, np.ndarray] = {}
        if self._statistics is not None:
            found = _Statistics(self, self._statistics, gradients, samples, self._blocks)
            factors, rows = found.matrices(), found.rows(self._unformed)
        return MicroBatchResult(
            samples=samples,
            loss_sum=0.0 if value is None else value.total,
            correct=0.0 if value is None else value.correct,
            squared_error=0.0 if value is None else value.squared_error,
            gradients={p.name: gradients[p.name] for p in self.loaded.model.parameters},
            factors=factors,
            rows=rows,
        )

    def gradient(self, parameter: Parameter, errors: np.ndarray) -> np.ndarray:
        """Return inputs^T errors, (in[+1], out): activations are the matrix, errors the inputs."""
        matrix, order = self.load_activations("gradient", parameter), self.order(parameter)
        if order is not None:
            errors = errors[order.rows]
        return matrix.multiply(errors.T, self.address("gradient", parameter)).T

    def input_moment(self, parameter: Parameter, blocks: Sequence[tuple[int, int]]) -> np.ndarray:
        """Return the moment of the inputs, (in[+1], in[+1])."""
        call = self.address("A", parameter)
        if _combines(parameter):
            means = self.means(parameter)
            address = self.address("means", parameter)
            matrix = self.loaded.engine.load("factor", means, address)
            return diagonal_blocks(matrix, means, blocks, call)
        rows, order = self.inputs(parameter), self.order(parameter)
        matrix = self.load_activations("factor", parameter)
        if order is None:
            return diagonal_blocks(matrix, rows, blocks, call) / parameter.positions
        moment = diagonal_blocks(matrix.rows(order.drawn), rows[order.first], blocks, call)
        return moment * (order.stands_for / parameter.positions)

    def input_rows(self, parameter: Parameter) -> np.ndarray:
        """Return the rows that the moment of the inputs is the product of, (R, in[+1])."""
        if _combines(parameter):
            return self.means(parameter)
        rows = self.inputs(parameter) / np.sqrt(parameter.positions)
        order = self.order(parameter)
        return rows if order is None else np.sqrt(order.stands_for) * rows[order.first]

    def means(self, parameter: Parameter) -> np.ndarray:
        rows = self.inputs(parameter)
        means: np.ndarray = rows.reshape(-1, parameter.positions, rows.shape[1]).mean(axis=1)
        return means

    def error_moment(
        self,
        parameter: Parameter,
        errors: np.ndarray,
        number: int,
        blocks: Sequence[tuple[int, int]],
    ) -> np.ndarray:
        """Return the moment of one backward pass's errors, (out, out)."""
        errors = self.error_rows(parameter, errors)
        address = (*self.address("errors", parameter), number)
        matrix = self.loaded.engine.load("factor", errors, address)
        return diagonal_blocks(matrix, errors, blocks, ("G", *address))

    def error_rows(self, parameter: Parameter, errors: np.ndarray) -> np.ndarray:
        """Return the rows that one backward pass adds to the moment of a layer's errors."""
        if _combines(parameter):
            return np.asarray(errors.reshape(-1, parameter.positions, errors.shape[1]).sum(axis=1))
        order = self.order(parameter)
        return errors if order is None else np.sqrt(order.stands_for) * errors[order.first]

    def order(self, parameter: Parameter) -> "_Order | None":
        """Return the order in which a layer's vectors are written; None: as they come."""
        if self._share == 1 or parameter.positions == 1 or _combines(parameter):
            return None
        if parameter.name not in self._orders:
            count = len(self.rows[parameter.name])
            seed, address = self.loaded.engine.seed, self.address("factor positions", parameter)
            rows = generator(seed, *address).permutation(count)
            samples = count // parameter.positions
            drawn = samples * some_of(self._share, parameter.positions)
            self._orders[parameter.name] = _Order(rows, drawn)
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
            address, order = self.address("activations", parameter), self.order(parameter)
            rows = self.inputs(parameter)
            rows = rows if order is None else rows[order.rows]
            self.activations[key] = engine.load(role, rows, address)
        return self.activations[key].serving(role)

    def inputs(self, parameter: Parameter) -> np.ndarray:
        rows = self.rows[parameter.name]
        return with_ones(rows) if parameter.bias else rows

    def address(self, what: str, parameter: Parameter) -> tuple[int | str, ...]:
        return (what, self.loaded.step, parameter.name, self.number)


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
        batch: PartRun,
        optimizer: SecondOrder,
        gradients: Mapping[str, np.ndarray],
        samples: int,
        blocks: FactorBlocks | None,
    ) -> None:
        self.batch, self.optimizer = batch, optimizer
        self.gradients, self.samples, self.blocks = gradients, samples, blocks

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

    def rows(self, factors: Collection[FactorKey]) -> dict[FactorKey, np.ndarray]:
        """Return (layer, side) -> (R, n) float64, the rows of these factors."""
        found: dict[FactorKey, np.ndarray] = {}
        for parameter in self.batch.loaded.model.preconditioned:
            layer = _Layer(self, parameter)
            for side in self.optimizer.sides:
                if (parameter.name, side) in factors:
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

    def error_moment(self, parameter: Parameter) -> np.ndarray:
        """Return the moment of the output gradients of all passes, (out, out)."""
        moment = np.zeros((parameter.columns, parameter.columns))
        wanted = self.wanted(parameter, "G")
        for number, errors in enumerate(self.errors):
            moment += self.batch.error_moment(parameter, errors[parameter.name], number, wanted)
        return moment

    def error_rows(self, parameter: Parameter) -> np.ndarray:
        """Return the rows that this moment is the product of, (R, out)."""
        passes = [
            self.batch.error_rows(parameter, errors[parameter.name]) for errors in self.errors
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
        wanted = self._all.wanted(self._parameter, "A")
        return self._all.batch.input_moment(self._parameter, wanted)

    def error_moment(self) -> np.ndarray:
        return self._all.error_moment(self._parameter)

    def input_rows(self) -> np.ndarray:
        return self._all.batch.input_rows(self._parameter)

    def error_rows(self) -> np.ndarray:
        return self._all.error_rows(self._parameter)

    def moment(self, side: Side, rows: np.ndarray) -> np.ndarray:
        batch = self._all.batch
        address = (*batch.address("moment", self._parameter), side)
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
    """Return diagonal blocks of ``rows^T rows``, (n, n), where `loaded` holds the rows (R, n).

    Only the symmetric part: rounding and noise of the product are not symmetric.
    """
    n = rows.shape[1]
    result = np.zeros((n, n))
    for start, stop in blocks:
        columns = loaded if stop - start == n else loaded.columns(start, stop)
        product = columns.multiply(rows[:, start:stop].T, call)
        result[start:stop, start:stop] = 0.5 * (product + product.T)
    return result
