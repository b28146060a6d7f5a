"""Stores a workload as columns of integers, so that planning needs no loop over layers."""

import dataclasses
import functools
from typing import Any

import numpy as np

from repast_dist.network.shapes import Workload
from repast_dist.planning.blocks import SoiBlocks


@dataclasses.dataclass(frozen=True, eq=False)
class LayerTable:
    """The layers of a workload as columns, with one entry per layer, int64 unless noted. Tables
    are compared by identity.

    Attributes
    ----------
    names : ndarray of str
        Names of the layers, for messages, as objects.
    rows, columns, groups : ndarray
        K without bias, M, and the number of such matrices; 0 if a layer has no product.
    vectors : ndarray
        Input vectors S per sample.
    factor_vectors : ndarray
        Rows per sample that the SOI factors are made of; fewer than S if vectors are combined
        first, or a share of them is drawn.
    combines : ndarray of bool
        Whether vectors are combined before they form factors.
    bias : ndarray
        1 if there is a bias, else 0.
    weighted, written : ndarray of bool
        Whether weights are stored in arrays, and whether an operand is written for every sample
        (attention products).
    trained : ndarray of bool
        Whether weights are written in every step and have gradients.
    errors_pass : ndarray of bool
        Whether the backward pass multiplies by the transpose, as it does for all products behind
        the first layer with trained parameters, such as the table of an embedding.
    elementwise : ndarray
        Digital operations per sample, without adding the bias.
    outputs : ndarray
        Output elements per sample.
    parameters : ndarray
        Number of trainable parameters.
    loss_outputs : ndarray
        Output elements per sample of which a loss is computed; 0: of none.
    loss_ops, drawn_ops, root_ops : ndarray
        Digital operations per sample of the loss with its derivative, and of the derivatives of a
        Fisher pass with drawn labels or of the exact matrix; see `LossShape`.
    a_sizes, g_sizes : ndarray of ndarray
        Widths of the SOI blocks of each layer's factors, as objects; empty if it is not
        preconditioned.
    """

    names: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    groups: np.ndarray
    vectors: np.ndarray
    factor_vectors: np.ndarray
    combines: np.ndarray
    bias: np.ndarray
    weighted: np.ndarray
    written: np.ndarray
    trained: np.ndarray
    errors_pass: np.ndarray
    elementwise: np.ndarray
    outputs: np.ndarray
    parameters: np.ndarray
    loss_outputs: np.ndarray
    loss_ops: np.ndarray
    drawn_ops: np.ndarray
    root_ops: np.ndarray
    a_sizes: np.ndarray
    g_sizes: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, place: np.ndarray) -> "LayerTable":
        """Return some layers, in any order and any number of times; columns get the shape of
        `place`.
        """
        return LayerTable(**{name: column.take(place) for name, column in vars(self).items()})

    @property
    def numbers(self) -> list[np.ndarray]:
        """The columns of numbers and of masks."""
        return [column for column in vars(self).values() if column.dtype != object]

    @property
    def products(self) -> np.ndarray:
        """Mask of the layers that multiply on crossbars."""
        return self.weighted | self.written

    def inputs(self, samples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the matrices of the inputs of so many samples, which gradients are formed from:
        their rows, their columns and how many there are. A layer has one per group, with the
        vectors of all samples; an operand that is written for every sample has a gradient of its
        own, so there is a matrix for each of them.
        """
        together = np.where(self.written, 1, samples)
        apart = np.where(self.written, samples, 1)
        return together * self.vectors, self.rows + self.bias, apart * self.groups


@functools.lru_cache(maxsize=16)
def layer_table(workload: Workload, blocks: SoiBlocks, positions: float = 1.0) -> LayerTable:
    """Return the layers of a workload as columns, with the widths of their SOI blocks.

    Parameters
    ----------
    workload : Workload
        The layers.
    blocks : SoiBlocks
        The SOI blocks that are formed.
    positions : float
        Share of the vectors that form factors where they are not combined.
    """
    sizes: dict[str, list[list[int]]] = {"A": [], "G": []}
    for rows in sizes.values():
        rows += [[] for _ in workload.layers]
    for block in blocks:
        sizes[block.factor][block.layer].append(block.size)
    return LayerTable(
        **_columns(workload, positions),
        a_sizes=_objects([_column(values) for values in sizes["A"]]),
        g_sizes=_objects([_column(values) for values in sizes["G"]]),
    )


@functools.lru_cache(maxsize=64)
def _columns(workload: Workload, positions: float) -> dict[str, Any]:
    """Return all of a table but the widths of blocks."""
    layers = workload.layers
    product = np.array([layer.on_crossbars for layer in layers])
    trained = np.array([layer.trained for layer in layers])
    # Tables of embeddings and scales of normalisations need errors as weights do.
    learns = trained & (np.array([layer.parameter_count for layer in layers]) > 0)
    first = np.flatnonzero(learns)[:1]
    errors_pass = product & (np.arange(len(layers)) > (first[0] if len(first) else len(layers)))
    losses = [workload.loss_of(number) for number in range(len(layers))]
    columns: dict[str, Any] = {
        "names": _objects([item.name for item in layers]),
        "rows": _column([item.in_features if item.on_crossbars else 0 for item in layers]),
        "columns": _column([item.out_features if item.on_crossbars else 0 for item in layers]),
        "groups": _column([item.groups for item in layers]),
        "vectors": _column([item.vectors_per_sample for item in layers]),
        "factor_vectors": _column([item.sampled_factor_vectors(positions) for item in layers]),
        "combines": np.array([item.combines for item in layers]),
        "bias": _column([int(item.bias and item.has_weights) for item in layers]),
        "weighted": np.array([item.has_weights for item in layers]),
        "written": np.array([item.operand_written for item in layers]),
        "trained": trained,
        "errors_pass": errors_pass,
        "elementwise": _column([item.elementwise_ops for item in layers]),
        "outputs": _column([item.output_elements_per_sample for item in layers]),
        "parameters": _column([item.parameter_count for item in layers]),
        "loss_outputs": _column([loss.outputs if loss else 0 for loss in losses]),
        "loss_ops": _column([loss.value_ops if loss else 0 for loss in losses]),
        "drawn_ops": _column([loss.drawn_ops if loss else 0 for loss in losses]),
        "root_ops": _column([loss.root_ops if loss else 0 for loss in losses]),
    }
    for column in columns.values():
        # Tables share them.
        column.flags.writeable = False
    return columns


def _objects(values: list[Any]) -> np.ndarray:
    """Return a column of anything."""
    column = np.empty(len(values), object)
    for place, value in enumerate(values):
        column[place] = value
    return column


def _column(values: list[int]) -> np.ndarray:
    column = np.array(values, np.int64)
    # Tables share them.
    column.flags.writeable = False
    return column
