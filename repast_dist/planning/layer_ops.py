"""Lists the operations of layers on one micro-batch, with their counts for every layer.

All counts are worked out entry by entry, so that they may also be asked for many divisions of
arrays at a time: where a column of layers has the shape (layers, 1) and their arrays have (layers,
divisions), what depends on the arrays has (layers, divisions) and all else (layers, 1). All else is
counted once for all chips whose arrays have the same geometry.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Concatenate

import numpy as np

from repast_dist.ground.errors import CapacityError
from repast_dist.ground.numbers import ceil_div
from repast_dist.hardware.geometry import (
    Counts,
    Geometry,
    TilesAtWork,
    Writes,
    array_count,
    product_counts,
    written,
)
from repast_dist.hardware.hardware import Hardware
from repast_dist.ops import op
from repast_dist.ops.op import Op
from repast_dist.planning.allocation import LayerArrays
from repast_dist.planning.layers import LayerTable
from repast_dist.planning.specs import StepWork


@dataclasses.dataclass(frozen=True, eq=False)
class LayerWork:
    """What layers have to do in a step, before they have arrays.

    Attributes
    ----------
    layers : LayerTable
        The layers.
    hardware : Hardware
        The chip that they work on.
    step : StepWork
        Micro-batches, and the passes of a step.
    factor_a, factor_g : dict
        Counts of the products that form both factors of each layer, if its arrays hold all rows.
    taken_from : tuple or None
        Work of other layers, and the place of each of these layers among them, which then do what
        was counted there; None: they are counted themselves.
    counted : dict
        What was counted of the layers, which is the same on all chips whose arrays have the same
        geometry.
    """

    layers: LayerTable
    hardware: Hardware
    step: StepWork
    factor_a: Counts
    factor_g: Counts
    taken_from: "tuple[LayerWork, np.ndarray] | None" = None
    counted: dict[Any, Any] = dataclasses.field(default_factory=dict, repr=False)
    _remembered: dict[Any, Any] = dataclasses.field(default_factory=dict, init=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        """Return what is sent to other processes, without what has been counted."""
        return {**self.__dict__, "counted": {}, "_remembered": {}}

    @classmethod
    def of(
        cls, layers: LayerTable, hardware: Hardware, step: StepWork, factor_bits: int | None
    ) -> "LayerWork":
        """Count the products that form factors, with inputs of so many bits."""
        geometries = hardware.geometry, hardware.factor_geometry(factor_bits)
        of_a, of_g, counted = _shared(layers, step, *geometries)
        return cls(layers, hardware, step, of_a, of_g, counted=counted)

    def take(self, place: np.ndarray) -> "LayerWork":
        """Return the work of some layers, in any order and any number of times; columns get the
        shape of `place`.
        """
        factor_a, factor_g = (
            {name: values.take(place) for name, values in counts.items()}
            for counts in (self.factor_a, self.factor_g)
        )
        whole, before = self.taken_from or (self, None)
        return LayerWork(
            self.layers.take(place),
            self.hardware,
            self.step,
            factor_a,
            factor_g,
            (whole, place if before is None else before[place]),
        )

    @property
    def alone(self) -> "LayerWork":
        """The same work, which is counted for itself."""
        return dataclasses.replace(self, taken_from=None, counted={})

    def on(self, hardware: Hardware) -> "LayerWork":
        """Return the same work on another chip whose arrays have the same geometry."""
        return dataclasses.replace(self, hardware=hardware)


@functools.lru_cache(maxsize=16)
def _shared(
    layers: LayerTable, step: StepWork, geometry: Geometry, forming: Geometry
) -> tuple[Counts, Counts, dict[Any, Any]]:
    """Return the counts of the products that form factors, and a place for all that is counted of
    the layers besides: points of a search differ in much else, and seldom in the geometry.
    """
    _check_countable(layers, step, geometry)
    held = step.micro_batch_size * layers.factor_vectors
    of_a, of_g = (_factor_products(forming, held, s) for s in (layers.a_sizes, layers.g_sizes))
    return of_a, of_g, {}


_MOST = 2.0**62
"""So many cells at most are read by an operation: counts are integers of 64 bits."""


def _check_countable(layers: LayerTable, step: StepWork, g: Geometry) -> None:
    """Refuse layers of which a micro-batch reads more cells than can be counted.

    Raises
    ------
    CapacityError
        There is one. No other count is as large.
    """
    values = 1.0 * (layers.rows + layers.bias) * layers.columns * layers.groups
    for sizes in (layers.a_sizes, layers.g_sizes):
        layer = np.repeat(np.arange(len(sizes)), [widths.size for widths in sizes])
        blocks = np.bincount(layer, np.concatenate(sizes).astype(float) ** 2, len(sizes))
        values = np.maximum(values, blocks)
    cells = step.micro_batch_size * layers.vectors * values
    cells *= g.passes * g.slices * g.columns_per_weight
    largest = int(cells.argmax())
    if cells[largest] > _MOST:
        raise CapacityError(
            f"layer {layers.names[largest]} reads {cells[largest]:.1e} cells for "
            f"{step.micro_batch_size:,} samples, and up to {_MOST:.1e} are counted; valid: a "
            "smaller train.micro_batch_size"
        )


def once_per_work[**P, T](
    function: Callable[Concatenate[LayerWork, P], T],
) -> Callable[Concatenate[LayerWork, P], T]:
    """Make a function of work compute its result only once on each chip.

    Parameters
    ----------
    function : callable
        Its other arguments are hashable, and decide its result together with the work.
    """

    @functools.wraps(function)
    def remembered(work: LayerWork, *others: P.args, **named: P.kwargs) -> T:
        key = (function.__module__, function.__qualname__, others, tuple(named.items()))
        if key not in work._remembered:
            work._remembered[key] = function(work, *others, **named)
        result: T = work._remembered[key]
        return result

    return remembered


def once_per_geometry[**P, T](
    function: Callable[Concatenate[LayerWork, P], T],
) -> Callable[Concatenate[LayerWork, P], T]:
    """Make a function of what layers do, whatever arrays they have, compute its result only once.

    Parameters
    ----------
    function : callable
        Its result has an entry per layer: columns, counts, `Writes`, or a tuple of these; of work
        that is not taken from other, it may be anything. Its other arguments are hashable, and
        decide its result together with the layers, the step and the geometry of arrays.
    """

    @functools.wraps(function)
    def remembered(work: LayerWork, *others: P.args, **named: P.kwargs) -> T:
        key = (function.__module__, function.__qualname__, others, tuple(named.items()))
        if key not in work.counted:
            if work.taken_from is None:
                found: Any = function(work, *others, **named)
            else:
                whole, place = work.taken_from
                found = _taken(remembered(whole, *others, **named), place)
            work.counted[key] = found
        result: T = work.counted[key]
        return result

    return remembered


@once_per_geometry
def alike(work: LayerWork) -> np.ndarray:
    """Return the kind of every layer: those of a kind have the same numbers, and do the same."""
    return kinds_of([*work.layers.numbers, *work.factor_a.values(), *work.factor_g.values()])


def kinds_of(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Return numbers that are the same for rows with the same entries of all columns, (rows,) or
    (rows, entries); from 0, in the order of their first rows.
    """
    known: dict[bytes, int] = {}
    rows = (row.tobytes() for row in np.column_stack(columns))
    return np.array([known.setdefault(row, len(known)) for row in rows])


def _taken(found: Any, place: np.ndarray) -> Any:
    """Return the entries of some layers."""
    if isinstance(found, dict):
        return {name: values.take(place) for name, values in found.items()}
    if isinstance(found, tuple):
        return tuple(_taken(part, place) for part in found)
    return found.take(place)


@dataclasses.dataclass(frozen=True, eq=False)
class PlacedLayers:
    """Layers with their arrays.

    Attributes
    ----------
    work : LayerWork
        What the layers do.
    arrays : LayerArrays
        The arrays that they have.
    """

    work: LayerWork
    arrays: LayerArrays

    @functools.cached_property
    def weight_tiles(self) -> TilesAtWork:
        """The tiles that hold weights."""
        return TilesAtWork.of(self.work.hardware.chip, self.arrays.weight_tiles)

    @functools.cached_property
    def pool_tiles(self) -> TilesAtWork:
        """The tiles that hold inputs."""
        return TilesAtWork.of(self.work.hardware.chip, self.arrays.pool_tiles)

    @functools.cached_property
    def passes(self) -> np.ndarray:
        """Passes in turn in which all vectors are multiplied by weights that are all there."""
        work = self.work
        vectors = work.step.micro_batch_size * work.layers.vectors
        passes: np.ndarray = ceil_div(vectors, self.arrays.copies) * work.hardware.geometry.passes
        return passes

    @functools.cached_property
    def forward(self) -> Counts:
        """Counts of the products with weights."""
        return _weight_products(self, *_forward(self.work))

    @functools.cached_property
    def backward(self) -> Counts:
        """Counts of the products with their transposes."""
        return _weight_products(self, *_backward(self.work))

    @functools.cached_property
    def gradient(self) -> Counts:
        """Counts of gradients: the errors of each output in turn drive the arrays that hold the
        inputs, which may fill their arrays several times.
        """
        return _filled(self, _gradient(self.work), self.arrays.activations)

    @functools.cached_property
    def elementwise(self) -> Counts:
        """Counts of the digital operations of one pass."""
        work = self.work
        return _digital(self, _elementwise_operations(work), work.layers.outputs)


@dataclasses.dataclass(frozen=True, eq=False)
class LayerOp:
    """An operation of some layers.

    Attributes
    ----------
    what : Op
        The operation.
    done_by : callable
        Finds the layers that do it.
    count : callable
        Works out the counts: who asks for some operations does not wait for others.
    """

    what: Op
    done_by: Callable[[], np.ndarray]
    count: Callable[[], Counts]

    @functools.cached_property
    def layers(self) -> np.ndarray:
        """Mask of the layers that do it."""
        return self.done_by()

    @functools.cached_property
    def counts(self) -> Counts:
        """Name of a count -> its value for every layer."""
        return self.count()


def weight_writes(work: LayerWork, arrays: LayerArrays) -> Counts:
    """Return the counts of writing all copies of weights and of their transposes."""
    forward, backward = _copies(work, arrays.copies)
    at_once = _written_at_once(work, arrays.weight_banks)
    return _both(work, forward.work, backward.work) | _both(
        work, forward.serial(at_once), backward.serial(at_once)
    )


def written_copies(work: LayerWork, copies: np.ndarray) -> Counts:
    """Return those of the counts of `weight_writes` that do not depend on where the copies lie."""
    layers, g = work.layers, work.hardware.geometry
    forward = written(g, layers.rows, layers.columns, layers.groups, copies)
    backward = written(g, layers.columns, layers.rows, layers.groups, copies)
    return _both(work, forward, backward)


def _copies(work: LayerWork, copies: np.ndarray | int) -> tuple[Writes, Writes]:
    """Return the writes of so many copies of weights, and of their transposes."""
    layers, g = work.layers, work.hardware.geometry
    return (
        Writes.of(g, layers.rows, layers.columns, layers.groups, copies),
        Writes.of(g, layers.columns, layers.rows, layers.groups, copies),
    )


def serial_weight_writes(work: LayerWork, arrays: LayerArrays) -> Counts:
    """Return those of the counts of `weight_writes` that decide how long it takes."""
    at_once = _written_at_once(work, arrays.weight_banks)
    forward, backward, _ = _one_copy(work)
    return _both(
        work,
        forward.serial(at_once, arrays.copies),
        backward.serial(at_once, arrays.copies),
    )


@once_per_geometry
def _one_copy(work: LayerWork) -> tuple[Writes, Writes, Counts]:
    """Return the writes of one copy of weights and of its transpose, and what of both together does
    not depend on how many arrays are written at the same time.
    """
    forward, backward = _copies(work, 1)
    return forward, backward, _both(work, forward.work, backward.work)


def _both(work: LayerWork, forward: Counts, backward: Counts) -> Counts:
    """Add counts of weights and, where errors pass, of their transposes."""
    passing = work.layers.errors_pass
    return {name: values + np.where(passing, backward[name], 0) for name, values in forward.items()}


# Which layers do what -------------------------------------------------------------------------


def training_ops(placed: PlacedLayers) -> list[LayerOp]:
    """Return the operations on one micro-batch in their order, which are the same in all steps: the
    forward pass, the backward pass and the gradients.
    """
    work, layers = placed.work, placed.work.layers

    def with_gradients() -> np.ndarray:
        return layers.written | (layers.weighted & layers.trained)

    def reloaded() -> np.ndarray:
        return layers.weighted & ~placed.arrays.resident

    digital, loss = _digital_layers(work)
    return [
        LayerOp(op.RELOAD_WEIGHTS, reloaded, lambda: _reloads(placed)),
        LayerOp(op.WRITE_OPERAND, lambda: layers.written, lambda: _operand_writes(placed)),
        LayerOp(op.VMM_FORWARD, lambda: layers.products, lambda: placed.forward),
        LayerOp(op.ELEMENTWISE_FORWARD, digital, lambda: placed.elementwise),
        LayerOp(op.LOSS, loss, lambda: _loss(placed, layers.loss_ops)),
        LayerOp(op.WRITE_ACTIVATIONS, with_gradients, lambda: _activation_writes(placed)),
        LayerOp(op.VMM_BACKWARD, lambda: layers.errors_pass, lambda: placed.backward),
        LayerOp(op.ELEMENTWISE_BACKWARD, digital, lambda: placed.elementwise),
        LayerOp(op.VMM_GRADIENT, with_gradients, lambda: placed.gradient),
    ]


def _digital_layers(work: LayerWork) -> tuple[Callable[[], np.ndarray], Callable[[], np.ndarray]]:
    """Return what finds the layers that do digital operations on their results, and those with a
    loss.
    """
    return lambda: _elementwise_operations(work) > 0, lambda: work.layers.loss_outputs > 0


def soi_ops(placed: PlacedLayers) -> list[LayerOp]:
    """Return the operations that form factors, after those of `training_ops`."""
    return [*_fisher_ops(placed), *_factor_ops(placed)]


def measuring_op(placed: PlacedLayers, measured: np.ndarray) -> LayerOp:
    """Return the operation that finds the norms of a micro-batch's gradients, of some layers: a
    square per parameter, which is added up.
    """
    parameters = placed.work.layers.parameters
    counts = {
        "digital_ops": parameters,
        "buffer_bytes": parameters * placed.work.hardware.geometry.value_bytes,
        "serial_digital_ops": ceil_div(parameters, placed.weight_tiles.lanes),
    }
    return LayerOp(op.MEASURE_GRADIENT, lambda: measured, lambda: counts)


def _fisher_ops(placed: PlacedLayers) -> list[LayerOp]:
    """Return the extra backward passes, which form no gradients of weights."""
    work, layers = placed.work, placed.work.layers
    passes = work.step.fisher_passes
    if not passes:
        return []
    digital, loss = _digital_layers(work)
    # The exact matrix has a pass for every output.
    derivatives = layers.drawn_ops if passes == 1 else layers.root_ops

    def times(count: Callable[[], Counts]) -> Callable[[], Counts]:
        return lambda: _times(passes, count())

    return [
        LayerOp(op.LOSS_FISHER, loss, times(lambda: _loss(placed, derivatives))),
        LayerOp(op.VMM_FISHER, lambda: layers.errors_pass, times(lambda: placed.backward)),
        LayerOp(op.ELEMENTWISE_FISHER, digital, times(lambda: placed.elementwise)),
        LayerOp(op.OPERAND_FISHER, lambda: layers.written, times(lambda: placed.gradient)),
    ]


def _factor_ops(placed: PlacedLayers) -> list[LayerOp]:
    """Return the factor products, and the writes of the rows that they are made of."""
    work, layers = placed.work, placed.work.layers

    def from_inputs() -> np.ndarray:
        return work.factor_a["serial_passes"] > 0

    def from_errors() -> np.ndarray:
        return work.factor_g["serial_passes"] > 0

    def from_means() -> np.ndarray:
        return from_inputs() & layers.combines

    return [
        LayerOp(op.WRITE_MEANS, from_means, lambda: _mean_writes(placed)),
        LayerOp(op.FACTOR_A, from_inputs, lambda: _of_sample(placed, work.factor_a)),
        LayerOp(op.WRITE_ERRORS, from_errors, lambda: _error_writes(placed)),
        LayerOp(op.FACTOR_G, from_errors, lambda: _of_sample(placed, work.factor_g)),
    ]


# Products -------------------------------------------------------------------------------------


@once_per_geometry
def _forward(work: LayerWork) -> tuple[Counts, np.ndarray]:
    return _of_weights(work, work.layers.rows, work.layers.columns)


@once_per_geometry
def _backward(work: LayerWork) -> tuple[Counts, np.ndarray]:
    return _of_weights(work, work.layers.columns, work.layers.rows)


def _of_weights(
    work: LayerWork, rows: np.ndarray, columns: np.ndarray
) -> tuple[Counts, np.ndarray]:
    """Return the counts of multiplying all vectors by one copy of (rows, columns) weights, and the
    arrays that it takes.
    """
    layers, g = work.layers, work.hardware.geometry
    vectors = work.step.micro_batch_size * layers.vectors
    counts = product_counts(g, vectors, rows, columns, layers.groups, stacked=layers.written)
    return counts, array_count(g, rows, columns, layers.groups)


def _weight_products(placed: PlacedLayers, one_copy: Counts, needed: np.ndarray) -> Counts:
    """Return the counts of products with all copies, which share vectors. Weights that do not stay
    take turns in fewer arrays than they need.
    """
    arrays = placed.arrays
    rounds = ceil_div(needed, np.maximum(arrays.written, 1))
    serial = {"serial_passes": placed.passes * np.where(arrays.resident, 1, rounds)}
    return placed.weight_tiles.serve(one_copy | serial)


@once_per_geometry
def _gradient(work: LayerWork) -> Counts:
    """Return the counts of gradients if all inputs are in their arrays."""
    layers, inputs = work.layers, work.layers.inputs(work.step.micro_batch_size)
    return product_counts(work.hardware.geometry, layers.columns, *inputs, stacked=layers.written)


def _factor_products(g: Geometry, held: np.ndarray, sizes: np.ndarray) -> Counts:
    """Return the counts of block-diagonal factor products; blocks of a layer run in parallel."""
    layer = np.repeat(np.arange(len(sizes)), [widths.size for widths in sizes])
    widths = np.concatenate(sizes)
    counts: Counts = {}
    for name, values in product_counts(g, widths, held[layer], widths).items():
        counts[name] = np.zeros(len(sizes), np.int64)
        combine = np.maximum if name.startswith("serial") else np.add
        combine.at(counts[name], layer, values)
    return counts


def _of_sample(placed: PlacedLayers, counts: Counts) -> Counts:
    """Return the counts of products with the rows of factors: of the inputs of layers, those that
    are drawn fill their arrays first.
    """
    layers = placed.work.layers
    drawn = np.where(layers.combines, layers.vectors, layers.factor_vectors)
    activations = placed.arrays.activations
    return _filled(placed, counts, ceil_div(activations * drawn, np.maximum(layers.vectors, 1)))


def _filled(placed: PlacedLayers, counts: Counts, filled: np.ndarray) -> Counts:
    """Return the counts of products with as many arrays as are filled, some at a time."""
    fillings = ceil_div(filled, np.maximum(placed.arrays.pool, 1))
    serial = {"serial_passes": counts["serial_passes"] * fillings}
    return placed.pool_tiles.serve(counts | serial)


# Writes ---------------------------------------------------------------------------------------


def _reloads(placed: PlacedLayers) -> Counts:
    """Return the counts of writing one copy of weights and of their transposes."""
    work = placed.work
    at_once = _written_at_once(work, placed.arrays.weight_banks)
    forward, backward, counts = _one_copy(work)
    return counts | _both(work, forward.serial(at_once), backward.serial(at_once))


def _operand_writes(placed: PlacedLayers) -> Counts:
    """Return the counts of writing attention operands, for every sample and once more transposed
    for the backward pass.
    """
    at_once = _written_at_once(placed.work, placed.arrays.weight_banks)
    forward, backward = (writes.counts(at_once) for writes in _operands(placed.work))
    return {name: values + backward[name] for name, values in forward.items()}


@once_per_geometry
def _operands(work: LayerWork) -> tuple[Writes, Writes]:
    layers, g = work.layers, work.hardware.geometry
    groups = layers.groups * work.step.micro_batch_size
    return (
        Writes.of(g, layers.rows, layers.columns, groups),
        Writes.of(g, layers.columns, layers.rows, groups),
    )


def _activation_writes(placed: PlacedLayers) -> Counts:
    work, pool = placed.work, placed.arrays.pool
    beside = _written_at_once(work, placed.arrays.pool_banks)
    return _activations(work).counts(np.minimum(np.maximum(pool, 1), beside))


@once_per_geometry
def _activations(work: LayerWork) -> Writes:
    return Writes.of(work.hardware.geometry, *work.layers.inputs(work.step.micro_batch_size))


def _mean_writes(placed: PlacedLayers) -> Counts:
    """Return the counts of writing inputs that are averaged over the vectors of a sample."""
    layers, samples = placed.work.layers, placed.work.step.micro_batch_size
    width = layers.rows + layers.bias
    averaged = samples * layers.vectors * width * layers.groups
    return _factor_rows(placed, _means(placed.work)) | {"digital_ops": averaged}


@once_per_geometry
def _means(work: LayerWork) -> Writes:
    return _rows_of(work, work.layers.rows + work.layers.bias)


def _error_writes(placed: PlacedLayers) -> Counts:
    """Return the counts of writing the errors of every Fisher pass, which are summed over the
    vectors of a sample where those are combined.
    """
    work, layers = placed.work, placed.work.layers
    summed = work.step.micro_batch_size * layers.vectors * layers.columns * layers.groups
    digital = {"digital_ops": np.where(layers.combines, summed, 0)}
    return _times(max(work.step.fisher_passes, 1), _factor_rows(placed, _errors(work)) | digital)


@once_per_geometry
def _errors(work: LayerWork) -> Writes:
    return _rows_of(work, work.layers.columns)


def _rows_of(work: LayerWork, width: np.ndarray) -> Writes:
    """Return the writes of rows of this width that factors are made of."""
    layers = work.layers
    held = work.step.micro_batch_size * layers.factor_vectors
    return Writes.of(work.hardware.geometry, held, width, layers.groups)


def _factor_rows(placed: PlacedLayers, rows: Writes) -> Counts:
    """Return the counts of writing rows that factors are made of."""
    return rows.counts(_written_at_once(placed.work, placed.arrays.pool_banks))


def _written_at_once(work: LayerWork, banks: np.ndarray) -> np.ndarray:
    """Return how many arrays of these banks are written at the same time."""
    return banks * work.hardware.chip.written_arrays_per_bank


# Digital units --------------------------------------------------------------------------------


@once_per_geometry
def _elementwise_operations(work: LayerWork) -> np.ndarray:
    """Return the digital operations per sample, with those of adding the bias."""
    layers = work.layers
    return layers.elementwise + layers.bias * layers.outputs


def _loss(placed: PlacedLayers, operations: np.ndarray) -> Counts:
    """Return the counts of derivatives by outputs: those are read, and the derivatives written."""
    return _digital(placed, operations, placed.work.layers.loss_outputs)


def _digital(placed: PlacedLayers, operations: np.ndarray, elements: np.ndarray) -> Counts:
    """Return the counts of so many operations per sample on elements that are read and written."""
    work, samples = placed.work, placed.work.step.micro_batch_size
    operations = operations * samples
    moved = 2 * elements * samples * work.hardware.geometry.value_bytes
    return {
        "digital_ops": operations,
        "buffer_bytes": np.where(operations > 0, moved, 0),
        "serial_digital_ops": ceil_div(operations, placed.weight_tiles.lanes),
    }


def _times(passes: int, counts: Counts) -> Counts:
    return counts if passes == 1 else {name: values * passes for name, values in counts.items()}
