"""Counts how often a micro-batch fills the arrays of layers anew, which wears their cells."""

import numpy as np

from repast_dist.hardware.geometry import array_count
from repast_dist.planning.allocation import LayerArrays
from repast_dist.planning.layer_ops import LayerWork, once_per_geometry


def weight_fills(work: LayerWork, arrays: LayerArrays) -> np.ndarray:
    """Return how often a micro-batch writes the weights' arrays of each layer: with operands, twice
    per sample as they are needed transposed too, and with layers that take turns. Those that stay
    are written once a step, which is not counted.
    """
    layers, g = work.layers, work.hardware.geometry
    operands = array_count(
        g, layers.rows, layers.columns, layers.groups * work.step.micro_batch_size
    )
    written = np.where(layers.written, 2 * operands, 0)
    staying = written / np.maximum(arrays.weights * arrays.copies, 1)
    moving = np.where(layers.weighted, arrays.weights, written) / np.maximum(arrays.written, 1)
    fills: np.ndarray = np.where(arrays.resident, staying, moving)
    return fills


def input_fills(work: LayerWork, arrays: LayerArrays, factor_share: float) -> np.ndarray:
    """Return how often a micro-batch fills the arrays of each layer's inputs, also with the rows of
    factors, which a share of the micro-batches form.
    """
    filled = arrays.activations + factor_share * _factor_rows(work)
    fills: np.ndarray = filled / np.maximum(arrays.pool, 1)
    return fills


@once_per_geometry
def _factor_rows(work: LayerWork) -> np.ndarray:
    """Return the arrays that a micro-batch fills with the rows of factors."""
    layers, g, step = work.layers, work.hardware.geometry, work.step
    held = step.micro_batch_size * layers.factor_vectors
    has_a, has_g = (
        np.array([own.size > 0 for own in sizes]).reshape(layers.rows.shape)
        for sizes in (layers.a_sizes, layers.g_sizes)
    )
    combined = has_a & layers.combines
    means = array_count(g, held, layers.rows + layers.bias, layers.groups)
    errors = array_count(g, held, layers.columns, layers.groups) * max(step.fisher_passes, 1)
    arrays: np.ndarray = np.where(combined, means, 0) + np.where(has_g, errors, 0)
    return arrays
