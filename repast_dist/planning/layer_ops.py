"""Lists the operations of layers on one micro-batch, with their counts for every layer."""

import dataclasses

import numpy as np

from repast_dist.ground.numbers import ceil_div
from repast_dist.hardware.geometry import Counts, product_counts, with_buffers, write_counts
from repast_dist.ops import op
from repast_dist.ops.op import Op
from repast_dist.planning.layers import LayerTable
from repast_dist.planning.plan import Plan, once_per_plan


@dataclasses.dataclass(frozen=True, eq=False)
class LayerOp:
    """An operation of some layers.

    Attributes
    ----------
    what : Op
        The operation.
    layers : ndarray of bool
        The layers that do it.
    counts : dict
        Name of a count -> its value for every layer.
    """

    what: Op
    layers: np.ndarray
    counts: Counts


@once_per_plan
def layer_ops(plan: Plan, factors_due: bool) -> list[LayerOp]:
    """Return the operations on one micro-batch in their order, which are the same in all steps."""
    ops = [*_training_ops(plan)]
    if factors_due:
        ops += [*_fisher_ops(plan), *_factor_ops(plan)]
    return ops


def weight_writes(plan: Plan, copies: np.ndarray) -> Counts:
    """Return the counts of writing copies of weights and of their transposes."""
    layers, g = plan.layers, plan.hardware.geometry
    at_once = _written_at_once(plan, plan.allocation.weight_banks)
    forward = write_counts(g, layers.rows, layers.columns, layers.groups, at_once, copies)
    backward = write_counts(g, layers.columns, layers.rows, layers.groups, at_once, copies)
    return {
        name: values + np.where(layers.errors_pass, backward[name], 0)
        for name, values in forward.items()
    }


# Which layers do what -------------------------------------------------------------------------


def _training_ops(plan: Plan) -> list[LayerOp]:
    """Return the forward pass, the backward pass and the gradients."""
    layers, elementwise = plan.layers, _elementwise(plan)
    reloaded = layers.weighted & ~plan.allocation.resident
    reloads = weight_writes(plan, np.ones(len(layers), np.int64))
    digital = elementwise["digital_ops"] > 0
    return [
        LayerOp(op.RELOAD_WEIGHTS, reloaded, reloads),
        LayerOp(op.WRITE_OPERAND, layers.written, _operand_writes(plan)),
        LayerOp(op.VMM_FORWARD, layers.products, _forward(plan)),
        LayerOp(op.ELEMENTWISE_FORWARD, digital, elementwise),
        LayerOp(op.WRITE_ACTIVATIONS, layers.products, _activation_writes(plan)),
        LayerOp(op.VMM_BACKWARD, layers.errors_pass, _backward(plan)),
        LayerOp(op.ELEMENTWISE_BACKWARD, digital, elementwise),
        LayerOp(op.VMM_GRADIENT, layers.products, _gradient(plan)),
    ]


def _fisher_ops(plan: Plan) -> list[LayerOp]:
    """Return the extra backward passes, which form no gradients of weights."""
    passes = plan.work.fisher_passes
    if not passes:
        return []
    layers, elementwise = plan.layers, _elementwise(plan)
    digital = elementwise["digital_ops"] > 0
    return [
        LayerOp(op.VMM_FISHER, layers.errors_pass, _times(passes, _backward(plan))),
        LayerOp(op.ELEMENTWISE_FISHER, digital, _times(passes, elementwise)),
        LayerOp(op.OPERAND_FISHER, layers.written, _times(passes, _gradient(plan))),
    ]


def _factor_ops(plan: Plan) -> list[LayerOp]:
    """Return the factor products, and the writes of the rows that they are made of."""
    layers = plan.layers
    from_inputs = np.array([sizes.size > 0 for sizes in layers.a_sizes])
    from_errors = np.array([sizes.size > 0 for sizes in layers.g_sizes])
    return [
        LayerOp(op.WRITE_MEANS, from_inputs & _combines(layers), _mean_writes(plan)),
        LayerOp(op.FACTOR_A, from_inputs, _factor(plan, layers.a_sizes)),
        LayerOp(op.WRITE_ERRORS, from_errors, _error_writes(plan)),
        LayerOp(op.FACTOR_G, from_errors, _factor(plan, layers.g_sizes)),
    ]


def _combines(layers: LayerTable) -> np.ndarray:
    """Return a mask of the layers whose vectors are combined before factors are formed."""
    return layers.factor_vectors < layers.vectors


# Products -------------------------------------------------------------------------------------


def _forward(plan: Plan) -> Counts:
    return _weight_products(plan, plan.layers.rows, plan.layers.columns)


def _backward(plan: Plan) -> Counts:
    return _weight_products(plan, plan.layers.columns, plan.layers.rows)


def _weight_products(plan: Plan, rows: np.ndarray, columns: np.ndarray) -> Counts:
    """Return the counts of multiplying all vectors by (rows, columns) weights."""
    layers, arrays, g = plan.layers, plan.allocation, plan.hardware.geometry
    vectors = plan.work.micro_batch_size * layers.vectors
    counts = product_counts(g, vectors, rows, columns, layers.groups, arrays.copies)
    counts["serial_passes"] = counts["serial_passes"] * arrays.rounds
    return with_buffers(counts, plan.hardware.chip, arrays.weight_banks)


def _gradient(plan: Plan) -> Counts:
    """Return the counts of gradients: the errors of each output in turn drive the arrays that hold
    the inputs.
    """
    layers, g = plan.layers, plan.hardware.geometry
    held = plan.work.micro_batch_size * layers.vectors
    width = layers.rows + layers.bias
    return _of_pool(plan, product_counts(g, layers.columns, held, width, layers.groups))


def _factor(plan: Plan, sizes: tuple[np.ndarray, ...]) -> Counts:
    """Return the counts of block-diagonal factor products; blocks of a layer run in parallel."""
    held = plan.work.micro_batch_size * plan.layers.factor_vectors
    layer = np.repeat(np.arange(len(sizes)), [widths.size for widths in sizes])
    widths = np.concatenate(sizes)
    counts: Counts = {}
    products = product_counts(plan.hardware.geometry, widths, held[layer], widths)
    for name, values in products.items():
        counts[name] = np.zeros(len(sizes), np.int64)
        combine = np.maximum if name.startswith("serial") else np.add
        combine.at(counts[name], layer, values)
    return _of_pool(plan, counts)


def _of_pool(plan: Plan, counts: Counts) -> Counts:
    """Return the counts of products with the inputs of layers, which may fill their arrays several
    times.
    """
    arrays = plan.allocation
    fillings = ceil_div(arrays.activations, np.maximum(arrays.pool, 1))
    serial = {"serial_passes": counts["serial_passes"] * fillings}
    return with_buffers(counts | serial, plan.hardware.chip, arrays.pool_banks)


# Writes ---------------------------------------------------------------------------------------


def _operand_writes(plan: Plan) -> Counts:
    """Return the counts of writing attention operands, for every sample and once more transposed
    for the backward pass.
    """
    layers, g = plan.layers, plan.hardware.geometry
    at_once = _written_at_once(plan, plan.allocation.weight_banks)
    groups = layers.groups * plan.work.micro_batch_size
    forward = write_counts(g, layers.rows, layers.columns, groups, at_once)
    backward = write_counts(g, layers.columns, layers.rows, groups, at_once)
    return {name: values + backward[name] for name, values in forward.items()}


def _activation_writes(plan: Plan) -> Counts:
    layers, arrays = plan.layers, plan.allocation
    held = plan.work.micro_batch_size * layers.vectors
    at_once = np.minimum(np.maximum(arrays.pool, 1), _written_at_once(plan, arrays.pool_banks))
    width = layers.rows + layers.bias
    return write_counts(plan.hardware.geometry, held, width, layers.groups, at_once)


def _mean_writes(plan: Plan) -> Counts:
    """Return the counts of writing inputs that are averaged over the vectors of a sample."""
    layers, samples = plan.layers, plan.work.micro_batch_size
    width = layers.rows + layers.bias
    averaged = samples * layers.vectors * width * layers.groups
    return _factor_rows(plan, width) | {"digital_ops": averaged}


def _error_writes(plan: Plan) -> Counts:
    """Return the counts of writing the errors of every Fisher pass, which are summed over the
    vectors of a sample where those are combined.
    """
    layers, samples = plan.layers, plan.work.micro_batch_size
    summed = samples * layers.vectors * layers.columns * layers.groups
    digital = {"digital_ops": np.where(_combines(layers), summed, 0)}
    return _times(max(plan.work.fisher_passes, 1), _factor_rows(plan, layers.columns) | digital)


def _factor_rows(plan: Plan, width: np.ndarray) -> Counts:
    """Return the counts of writing the rows that factors are made of."""
    layers = plan.layers
    held = plan.work.micro_batch_size * layers.factor_vectors
    at_once = _written_at_once(plan, plan.allocation.pool_banks)
    return write_counts(plan.hardware.geometry, held, width, layers.groups, at_once)


def _written_at_once(plan: Plan, banks: np.ndarray) -> np.ndarray:
    """Return how many arrays of these banks are written at the same time."""
    return banks * plan.hardware.chip.written_arrays_per_bank


# Digital units --------------------------------------------------------------------------------


def _elementwise(plan: Plan) -> Counts:
    layers, chip, samples = plan.layers, plan.hardware.chip, plan.work.micro_batch_size
    operations = (layers.elementwise + layers.bias * layers.outputs) * samples
    moved = 2 * layers.outputs * samples * plan.hardware.geometry.value_bytes
    tiles = ceil_div(plan.allocation.weight_banks, chip.banks_per_tile)
    lanes = np.maximum(1, chip.digital_lanes * tiles)
    return {
        "digital_ops": operations,
        "buffer_bytes": np.where(operations > 0, moved, 0),
        "serial_digital_ops": ceil_div(operations, lanes),
    }


def _times(passes: int, counts: Counts) -> Counts:
    return {name: values * passes for name, values in counts.items()}
