"""Lists the operations of layers on one micro-batch, with their counts for every layer.

All counts are worked out entry by entry, so that they may also be asked for many divisions of
arrays at a time: where a column of layers has the shape (layers, 1) and their arrays have (layers,
divisions), what depends on the arrays has (layers, divisions) and all else (layers, 1).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from repast_dist.ground.numbers import ceil_div
from repast_dist.hardware.geometry import (
    Counts,
    Geometry,
    array_count,
    product_counts,
    with_buffers,
    write_counts,
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
    """

    layers: LayerTable
    hardware: Hardware
    step: StepWork
    factor_a: Counts
    factor_g: Counts

    @classmethod
    def of(
        cls, layers: LayerTable, hardware: Hardware, step: StepWork, factor_bits: int | None
    ) -> "LayerWork":
        """Count the products that form factors, with inputs of so many bits."""
        held = step.micro_batch_size * layers.factor_vectors
        g = hardware.factor_geometry(factor_bits)
        both = (_factor_products(g, held, s) for s in (layers.a_sizes, layers.g_sizes))
        return cls(layers, hardware, step, *both)

    @property
    def columns(self) -> list[np.ndarray]:
        """All numbers of the layers; layers with the same do the same."""
        return [
            *(column for column in vars(self.layers).values() if isinstance(column, np.ndarray)),
            *self.factor_a.values(),
            *self.factor_g.values(),
        ]

    def take(self, place: np.ndarray) -> "LayerWork":
        """Return the work of some layers, in any order and any number of times; columns get the
        shape of `place`.
        """
        factor_a, factor_g = (
            {name: values[place] for name, values in counts.items()}
            for counts in (self.factor_a, self.factor_g)
        )
        return dataclasses.replace(
            self, layers=self.layers.take(place), factor_a=factor_a, factor_g=factor_g
        )


@dataclasses.dataclass(frozen=True, eq=False)
class LayerOp:
    """An operation of some layers.

    Attributes
    ----------
    what : Op
        The operation.
    layers : ndarray of bool
        The layers that do it.
    count : callable
        Works out the counts: who asks for some operations does not wait for others.
    """

    what: Op
    layers: np.ndarray
    count: Callable[[], Counts]

    @functools.cached_property
    def counts(self) -> Counts:
        """Name of a count -> its value for every layer."""
        return self.count()


def weight_writes(work: LayerWork, arrays: LayerArrays, copies: np.ndarray) -> Counts:
    """Return the counts of writing copies of weights and of their transposes."""
    layers, g = work.layers, work.hardware.geometry
    at_once = _written_at_once(work, arrays.weight_banks)
    forward = write_counts(g, layers.rows, layers.columns, layers.groups, at_once, copies)
    backward = write_counts(g, layers.columns, layers.rows, layers.groups, at_once, copies)
    return {
        name: values + np.where(layers.errors_pass, backward[name], 0)
        for name, values in forward.items()
    }


# Which layers do what -------------------------------------------------------------------------


def training_ops(work: LayerWork, arrays: LayerArrays) -> list[LayerOp]:
    """Return the operations on one micro-batch in their order, which are the same in all steps: the
    forward pass, the backward pass and the gradients.

    Parameters
    ----------
    work : LayerWork
        The layers.
    arrays : LayerArrays
        The arrays that they have.
    """
    layers, counts_of = work.layers, _counted(work, arrays)
    elementwise = functools.cache(counts_of(_elementwise))
    with_gradients = layers.written | (layers.weighted & layers.trained)
    reloaded = layers.weighted & ~arrays.resident
    digital = _elementwise_operations(layers) > 0
    return [
        LayerOp(op.RELOAD_WEIGHTS, reloaded, counts_of(weight_writes, np.ones_like(layers.rows))),
        LayerOp(op.WRITE_OPERAND, layers.written, counts_of(_operand_writes)),
        LayerOp(op.VMM_FORWARD, layers.products, counts_of(_forward)),
        LayerOp(op.ELEMENTWISE_FORWARD, digital, elementwise),
        LayerOp(op.LOSS, layers.loss_outputs > 0, counts_of(_loss, layers.loss_ops)),
        LayerOp(op.WRITE_ACTIVATIONS, with_gradients, counts_of(_activation_writes)),
        LayerOp(op.VMM_BACKWARD, layers.errors_pass, counts_of(_backward)),
        LayerOp(op.ELEMENTWISE_BACKWARD, digital, elementwise),
        LayerOp(op.VMM_GRADIENT, with_gradients, counts_of(_gradient)),
    ]


def _counted(work: LayerWork, arrays: LayerArrays) -> Callable[..., Callable[[], Counts]]:
    """Return what gives functions of layers and their arrays, and others, these two later."""

    def later(count: Callable[..., Counts], *others: Any) -> Callable[[], Counts]:
        return functools.partial(count, work, arrays, *others)

    return later


def soi_ops(work: LayerWork, arrays: LayerArrays) -> list[LayerOp]:
    """Return the operations that form factors, after those of `training_ops`."""
    return [*_fisher_ops(work, arrays), *_factor_ops(work, arrays)]


def measuring_op(work: LayerWork, arrays: LayerArrays, measured: np.ndarray) -> LayerOp:
    """Return the operation that finds the norms of a micro-batch's gradients, of some layers: a
    square per parameter, which is added up.
    """
    chip, parameters = work.hardware.chip, work.layers.parameters
    tiles = ceil_div(arrays.weight_banks, chip.banks_per_tile)
    counts = {
        "digital_ops": parameters,
        "buffer_bytes": parameters * work.hardware.geometry.value_bytes,
        "serial_digital_ops": ceil_div(parameters, np.maximum(1, chip.digital_lanes * tiles)),
    }
    return LayerOp(op.MEASURE_GRADIENT, measured, lambda: counts)


def _fisher_ops(work: LayerWork, arrays: LayerArrays) -> list[LayerOp]:
    """Return the extra backward passes, which form no gradients of weights."""
    passes = work.step.fisher_passes
    if not passes:
        return []
    layers = work.layers
    digital = _elementwise_operations(layers) > 0
    # The exact matrix has a pass for every output.
    derivatives = layers.drawn_ops if passes == 1 else layers.root_ops

    def times(count: Callable[..., Counts], *others: np.ndarray) -> Callable[[], Counts]:
        return lambda: _times(passes, count(work, arrays, *others))

    return [
        LayerOp(op.LOSS_FISHER, layers.loss_outputs > 0, times(_loss, derivatives)),
        LayerOp(op.VMM_FISHER, layers.errors_pass, times(_backward)),
        LayerOp(op.ELEMENTWISE_FISHER, digital, times(_elementwise)),
        LayerOp(op.OPERAND_FISHER, layers.written, times(_gradient)),
    ]


def _factor_ops(work: LayerWork, arrays: LayerArrays) -> list[LayerOp]:
    """Return the factor products, and the writes of the rows that they are made of."""
    layers, counts_of = work.layers, _counted(work, arrays)
    from_inputs, from_errors = (
        counts["serial_passes"] > 0 for counts in (work.factor_a, work.factor_g)
    )
    return [
        LayerOp(op.WRITE_MEANS, from_inputs & layers.combines, counts_of(_mean_writes)),
        LayerOp(op.FACTOR_A, from_inputs, counts_of(_of_sample, work.factor_a)),
        LayerOp(op.WRITE_ERRORS, from_errors, counts_of(_error_writes)),
        LayerOp(op.FACTOR_G, from_errors, counts_of(_of_sample, work.factor_g)),
    ]


# Products -------------------------------------------------------------------------------------


def _forward(work: LayerWork, arrays: LayerArrays) -> Counts:
    return _weight_products(work, arrays, work.layers.rows, work.layers.columns)


def _backward(work: LayerWork, arrays: LayerArrays) -> Counts:
    return _weight_products(work, arrays, work.layers.columns, work.layers.rows)


def _weight_products(
    work: LayerWork, arrays: LayerArrays, rows: np.ndarray, columns: np.ndarray
) -> Counts:
    """Return the counts of multiplying all vectors by (rows, columns) weights. Those that do not
    stay take turns in fewer arrays than they need.
    """
    layers, g = work.layers, work.hardware.geometry
    vectors = work.step.micro_batch_size * layers.vectors
    counts = product_counts(
        g, vectors, rows, columns, layers.groups, arrays.copies, stacked=layers.written
    )
    needed = array_count(g, rows, columns, layers.groups)
    rounds = ceil_div(needed, np.maximum(arrays.written, 1))
    counts["serial_passes"] = counts["serial_passes"] * np.where(arrays.resident, 1, rounds)
    return with_buffers(counts, work.hardware.chip, arrays.weight_banks)


def _gradient(work: LayerWork, arrays: LayerArrays) -> Counts:
    """Return the counts of gradients: the errors of each output in turn drive the arrays that hold
    the inputs.
    """
    layers, inputs = work.layers, work.layers.inputs(work.step.micro_batch_size)
    g, stacked = work.hardware.geometry, layers.written
    counts = product_counts(g, layers.columns, *inputs, stacked=stacked)
    return _of_pool(work, arrays, counts)


def _factor_products(g: Geometry, held: np.ndarray, sizes: tuple[np.ndarray, ...]) -> Counts:
    """Return the counts of block-diagonal factor products; blocks of a layer run in parallel."""
    layer = np.repeat(np.arange(len(sizes)), [widths.size for widths in sizes])
    widths = np.concatenate(sizes)
    counts: Counts = {}
    for name, values in product_counts(g, widths, held[layer], widths).items():
        counts[name] = np.zeros(len(sizes), np.int64)
        combine = np.maximum if name.startswith("serial") else np.add
        combine.at(counts[name], layer, values)
    return counts


def _of_pool(work: LayerWork, arrays: LayerArrays, counts: Counts) -> Counts:
    """Return the counts of products with the inputs of layers, which may fill their arrays several
    times.
    """
    return _filled(work, arrays, counts, arrays.activations)


def _of_sample(work: LayerWork, arrays: LayerArrays, counts: Counts) -> Counts:
    """Return the counts of products with the rows of factors: of the inputs of layers, those that
    are drawn fill their arrays first.
    """
    layers = work.layers
    drawn = np.where(layers.combines, layers.vectors, layers.factor_vectors)
    filled = ceil_div(arrays.activations * drawn, np.maximum(layers.vectors, 1))
    return _filled(work, arrays, counts, filled)


def _filled(work: LayerWork, arrays: LayerArrays, counts: Counts, filled: np.ndarray) -> Counts:
    """Return the counts of products with as many arrays as are filled, some at a time."""
    fillings = ceil_div(filled, np.maximum(arrays.pool, 1))
    serial = {"serial_passes": counts["serial_passes"] * fillings}
    return with_buffers(counts | serial, work.hardware.chip, arrays.pool_banks)


# Writes ---------------------------------------------------------------------------------------


def _operand_writes(work: LayerWork, arrays: LayerArrays) -> Counts:
    """Return the counts of writing attention operands, for every sample and once more transposed
    for the backward pass.
    """
    layers, g = work.layers, work.hardware.geometry
    at_once = _written_at_once(work, arrays.weight_banks)
    groups = layers.groups * work.step.micro_batch_size
    forward = write_counts(g, layers.rows, layers.columns, groups, at_once)
    backward = write_counts(g, layers.columns, layers.rows, groups, at_once)
    return {name: values + backward[name] for name, values in forward.items()}


def _activation_writes(work: LayerWork, arrays: LayerArrays) -> Counts:
    inputs = work.layers.inputs(work.step.micro_batch_size)
    at_once = np.minimum(np.maximum(arrays.pool, 1), _written_at_once(work, arrays.pool_banks))
    return write_counts(work.hardware.geometry, *inputs, at_once)


def _mean_writes(work: LayerWork, arrays: LayerArrays) -> Counts:
    """Return the counts of writing inputs that are averaged over the vectors of a sample."""
    layers, samples = work.layers, work.step.micro_batch_size
    width = layers.rows + layers.bias
    averaged = samples * layers.vectors * width * layers.groups
    return _factor_rows(work, arrays, width) | {"digital_ops": averaged}


def _error_writes(work: LayerWork, arrays: LayerArrays) -> Counts:
    """Return the counts of writing the errors of every Fisher pass, which are summed over the
    vectors of a sample where those are combined.
    """
    layers, samples = work.layers, work.step.micro_batch_size
    summed = samples * layers.vectors * layers.columns * layers.groups
    digital = {"digital_ops": np.where(layers.combines, summed, 0)}
    return _times(
        max(work.step.fisher_passes, 1), _factor_rows(work, arrays, layers.columns) | digital
    )


def _factor_rows(work: LayerWork, arrays: LayerArrays, width: np.ndarray) -> Counts:
    """Return the counts of writing the rows that factors are made of."""
    layers = work.layers
    held = work.step.micro_batch_size * layers.factor_vectors
    at_once = _written_at_once(work, arrays.pool_banks)
    return write_counts(work.hardware.geometry, held, width, layers.groups, at_once)


def _written_at_once(work: LayerWork, banks: np.ndarray) -> np.ndarray:
    """Return how many arrays of these banks are written at the same time."""
    return banks * work.hardware.chip.written_arrays_per_bank


# Digital units --------------------------------------------------------------------------------


def _elementwise(work: LayerWork, arrays: LayerArrays) -> Counts:
    return _digital(work, arrays, _elementwise_operations(work.layers), work.layers.outputs)


def _elementwise_operations(layers: LayerTable) -> np.ndarray:
    """Return the digital operations per sample, with those of adding the bias."""
    return layers.elementwise + layers.bias * layers.outputs


def _loss(work: LayerWork, arrays: LayerArrays, operations: np.ndarray) -> Counts:
    """Return the counts of derivatives by outputs: those are read, and the derivatives written."""
    return _digital(work, arrays, operations, work.layers.loss_outputs)


def _digital(
    work: LayerWork, arrays: LayerArrays, operations: np.ndarray, elements: np.ndarray
) -> Counts:
    """Return the counts of so many operations per sample on elements that are read and written."""
    chip, samples = work.hardware.chip, work.step.micro_batch_size
    operations = operations * samples
    moved = 2 * elements * samples * work.hardware.geometry.value_bytes
    tiles = ceil_div(arrays.weight_banks, chip.banks_per_tile)
    lanes = np.maximum(1, chip.digital_lanes * tiles)
    return {
        "digital_ops": operations,
        "buffer_bytes": np.where(operations > 0, moved, 0),
        "serial_digital_ops": ceil_div(operations, lanes),
    }


def _times(passes: int, counts: Counts) -> Counts:
    return {name: values * passes for name, values in counts.items()}
