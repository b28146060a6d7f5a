"""One micro-batch through a network: loss, gradients and contributions to the Kronecker factors.

Everything returned is a sum over samples, so that micro-batches add up to a batch whoever ran
them. Addresses of random draws name the step, the layer and the micro-batch, never a chip.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np

from repast_dist.errors import DataError
from repast_dist.training.engines import Engine, Product
from repast_dist.training.functional import with_ones
from repast_dist.training.layers import Parameter, Pass, Sink
from repast_dist.training.losses import LossValue, exact_errors, loss_value, sampled_errors
from repast_dist.training.model import Model

Fisher = Literal["sampled", "exact", "empirical"]
FactorKey = tuple[str, Literal["A", "G"]]


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A network with its weights in place for one step; serves any number of micro-batches.

    Attributes
    ----------
    model : Model
        The network.
    weights : mapping
        Name -> (in[+1], out) float32.
    forward, backward : dict
        Name -> loaded weights (in, out) and transpose (out, in); `backward` only where errors
        pass through.
    engine : Engine
        Who multiplies.
    step : int
        The training step.
    """

    model: Model
    weights: Mapping[str, np.ndarray]
    forward: dict[str, Product]
    backward: dict[str, Product]
    engine: Engine
    step: int


@dataclasses.dataclass(frozen=True)
class MicroBatchResult:
    """What one micro-batch contributes.

    Attributes
    ----------
    samples : int
        Samples in it.
    loss_sum : float
        Sum of the losses.
    correct : int
        Samples classified right; 0 for reconstruction.
    squared_error : float
        Sum of squared reconstruction errors; 0 for classification.
    gradients : dict
        Name -> (in[+1], out) float64 sum of the gradients of the samples' losses.
    factors : dict
        (name, "A" or "G") -> (n, n) float64; the batch's factor is the sum of these over
        micro-batches, divided by the samples of the batch. Empty if no factors were asked for.
    """

    samples: int
    loss_sum: float
    correct: int
    squared_error: float
    gradients: dict[str, np.ndarray]
    factors: dict[FactorKey, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Sums over evaluated samples.

    Attributes
    ----------
    samples, correct : int
        How many, and how many were classified right.
    loss_sum, squared_error : float
        Sums of losses and of squared reconstruction errors.
    """

    samples: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    squared_error: float = 0.0

    def __add__(self, other: "Evaluation") -> "Evaluation":
        return Evaluation(
            self.samples + other.samples,
            self.loss_sum + other.loss_sum,
            self.correct + other.correct,
            self.squared_error + other.squared_error,
        )


def load_weights(
    model: Model,
    weights: Mapping[str, np.ndarray],
    engine: Engine,
    step: int,
    with_backward: bool = True,
) -> LoadedModel:
    """Load all weights for a step.

    Parameters
    ----------
    model : Model
        The network.
    weights : mapping
        Name -> (in[+1], out) float32.
    engine : Engine
        Who multiplies; its seed and `step` address the programming errors.
    step : int
        The training step.
    with_backward : bool
        Load transposes too; not needed for evaluation.
    """
    matrices = {p.name: weights[p.name][: p.inputs] for p in model.products}
    forward = {
        name: engine.load("forward", matrix, ("weights", step, name))
        for name, matrix in matrices.items()
    }
    names = model.chain.transposed(need_input=False) if with_backward else ()
    backward = {
        name: engine.load("backward", matrices[name].T, ("transpose", step, name)) for name in names
    }
    return LoadedModel(model, weights, forward, backward, engine, step)


def run_micro_batch(
    loaded: LoadedModel,
    inputs: np.ndarray,
    labels: np.ndarray,
    samples: np.ndarray,
    micro_batch: int,
    fisher: Fisher | None = None,
) -> MicroBatchResult:
    """Forward, backward, gradients and, if asked for, factors of one micro-batch.

    Parameters
    ----------
    loaded : LoadedModel
        The network with this step's weights.
    inputs : (N, C, H, W) ndarray
        Samples.
    labels : (N,) integer ndarray
        Their classes.
    samples : (N,) integer ndarray
        Their numbers in the data set; address the labels of the sampled Fisher.
    micro_batch : int
        Number of the micro-batch in its step; addresses what is programmed for it.
    fisher : {"sampled", "exact", "empirical"} or None
        Whose output gradients make G; None: no factors.

    Raises
    ------
    DataError
        The loss is not finite: training diverged.
    """
    run = _pass(loaded, ("micro_batch", loaded.step, micro_batch))
    outputs, saved = loaded.model.chain.forward(inputs.astype(np.float64), run)
    value = loss_value(loaded.model.spec.loss, outputs, inputs, labels)
    if not np.isfinite(value.total):
        raise DataError(
            f"step {loaded.step}, micro-batch {micro_batch}: the loss is not finite; "
            "lower optimizer.learning_rate or raise optimizer.damping"
        )
    sink = _backward(loaded, value.errors, saved, run)
    rows = _Rows(loaded, saved, micro_batch)
    gradients = dict(sink.direct)
    for parameter in loaded.model.products:
        gradients[parameter.name] = rows.gradient(parameter, sink.errors[parameter.name])
    factors = {}
    if fisher is not None:
        factors = _factors(loaded, rows, fisher, outputs, value, saved, samples, run)
    ordered = {p.name: gradients[p.name] for p in loaded.model.parameters}
    return MicroBatchResult(
        len(inputs), value.total, value.correct, value.squared_error, ordered, factors
    )


def evaluate(
    loaded: LoadedModel, inputs: np.ndarray, labels: np.ndarray, chunk: int = 256
) -> Evaluation:
    """Sum loss and hits over samples, `chunk` at a time.

    With fixed-point or analog forward products the chunk decides which samples share a scale, so
    keep it the same to compare runs.
    """
    total = Evaluation()
    for first in range(0, len(inputs), chunk):
        part = slice(first, first + chunk)
        run = _pass(loaded, ("evaluate", loaded.step, first))
        outputs, _ = loaded.model.chain.forward(inputs[part].astype(np.float64), run)
        value = loss_value(loaded.model.spec.loss, outputs, inputs[part], labels[part])
        total += Evaluation(len(outputs), value.total, value.correct, value.squared_error)
    return total


def _pass(loaded: LoadedModel, call: tuple[int | str, ...]) -> Pass:
    return Pass(loaded.weights, loaded.forward, loaded.backward, call)


def _backward(loaded: LoadedModel, errors: np.ndarray, saved: Any, run: Pass) -> Sink:
    sink = Sink()
    loaded.model.chain.backward(errors, saved, run, sink, need_input=False)
    return sink


class _Rows:
    """The inputs of all products of a micro-batch, loaded once each as matrices (R, in[+1])."""

    def __init__(self, loaded: LoadedModel, saved: Any, micro_batch: int) -> None:
        self.engine, self.step, self.micro_batch = loaded.engine, loaded.step, micro_batch
        self._rows = loaded.model.chain.rows_of(saved)
        self._loaded: dict[tuple[str, str], Product] = {}

    def address(self, what: str, name: str) -> tuple[int | str, ...]:
        return (what, self.step, name, self.micro_batch)

    def of(self, parameter: Parameter) -> np.ndarray:
        rows = self._rows[parameter.name]
        return with_ones(rows) if parameter.bias else rows

    def gradient(self, parameter: Parameter, errors: np.ndarray) -> np.ndarray:
        """Return inputs^T errors, (in[+1], out): activations are the matrix, errors the inputs."""
        matrix = self._product("gradient", parameter)
        call = self.address("gradient", parameter.name)
        return matrix.multiply(errors.T, call).T

    def factor_a(self, parameter: Parameter) -> np.ndarray:
        """Return this micro-batch's contribution to A."""
        rows, positions = self.of(parameter), parameter.positions
        call = self.address("A", parameter.name)
        if parameter.sharing == "reduce" and positions > 1:
            means = rows.reshape(-1, positions, rows.shape[1]).mean(axis=1)
            matrix = self.engine.load("factor", means, self.address("means", parameter.name))
            return _symmetric(matrix.multiply(means.T, call))
        matrix = self._product("factor", parameter)
        return _symmetric(matrix.multiply(rows.T, call)) / positions

    def factor_g(self, parameter: Parameter, errors: np.ndarray, number: int) -> np.ndarray:
        """Return the contribution of one set of output errors to G."""
        if parameter.sharing == "reduce" and parameter.positions > 1:
            errors = errors.reshape(-1, parameter.positions, errors.shape[1]).sum(axis=1)
        address = (*self.address("errors", parameter.name), number)
        matrix = self.engine.load("factor", errors, address)
        return _symmetric(matrix.multiply(errors.T, ("G", *address)))

    def _product(self, role: Literal["gradient", "factor"], parameter: Parameter) -> Product:
        """Load the inputs, once per arithmetic: gradient and factor share the same arrays."""
        key = (self.engine.arithmetic(role), parameter.name)
        if key not in self._loaded:
            address = self.address("activations", parameter.name)
            self._loaded[key] = self.engine.load(role, self.of(parameter), address)
        return self._loaded[key]


def _factors(
    loaded: LoadedModel,
    rows: _Rows,
    fisher: Fisher,
    outputs: np.ndarray,
    value: LossValue,
    saved: Any,
    samples: np.ndarray,
    run: Pass,
) -> dict[FactorKey, np.ndarray]:
    layers = loaded.model.preconditioned
    factors: dict[FactorKey, np.ndarray] = {}
    for parameter in layers:
        factors[parameter.name, "A"] = rows.factor_a(parameter)
        factors[parameter.name, "G"] = np.zeros((parameter.columns, parameter.columns))
    fisher_errors = _fisher_errors(loaded, fisher, outputs, value, samples)
    for number, errors in enumerate(fisher_errors):
        again = dataclasses.replace(run, call=(*run.call, "fisher", number))
        sink = _backward(loaded, errors, saved, again)
        for parameter in layers:
            errors_here = sink.errors[parameter.name]
            factors[parameter.name, "G"] += rows.factor_g(parameter, errors_here, number)
    return factors


def _fisher_errors(
    loaded: LoadedModel,
    fisher: Fisher,
    outputs: np.ndarray,
    value: LossValue,
    samples: np.ndarray,
) -> Iterator[np.ndarray]:
    loss = loaded.model.spec.loss
    if fisher == "sampled":
        yield sampled_errors(loss, outputs, loaded.engine.seed, loaded.step, samples)
    elif fisher == "exact":
        yield from exact_errors(loss, outputs)
    else:
        yield value.errors


def _symmetric(matrix: np.ndarray) -> np.ndarray:
    """Return the symmetric part: rounding and noise of the product are not symmetric."""
    return 0.5 * (matrix + matrix.T)
