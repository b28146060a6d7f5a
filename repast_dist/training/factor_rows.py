"""The running average of a factor whose product is never formed: the rows of the last batches.

A factor's average is ``sum over batches j of w_j F_j``, with ``F_j = X_j^T X_j`` and weights that
shrink by the decay of the average in every update. A fused block holds the rows of the last
batches, stacked, each times the root of its weight: their product is that part of the average. Of
older batches, whose rows are gone, weight and trace are kept: either the rows that are held stand
for them as well, scaled up, or the trace is spread evenly over the diagonal. Damping so meets a
matrix of the same size.
"""

import dataclasses
from typing import Literal

import numpy as np

from repast_dist.analog import Rows
from repast_dist.training.optimizers import SecondOrder

Rest = Literal["scaled", "identity"]
"""What stands for batches whose rows are gone."""


@dataclasses.dataclass(frozen=True)
class HeldRows:
    """How a fused block keeps its running average.

    Attributes
    ----------
    batches : int
        Batches whose rows it holds.
    rest : {"scaled", "identity"}
        What stands for older ones: these rows scaled up, or a multiple of the identity.
    """

    batches: int
    rest: Rest = "scaled"


@dataclasses.dataclass(frozen=True)
class RowAverage:
    """The running average of a block as the rows of the last batches.

    Attributes
    ----------
    rows : ndarray
        (batches, R, n) float64, the newest batch last; zeros where none came yet.
    weights : ndarray
        (batches,) of each batch in the average.
    rest_weight, rest_trace : float
        What older batches have in the average: their weight, and their trace with it.
    updates : int
        The number of updates so far.
    """

    rows: np.ndarray
    weights: np.ndarray
    rest_weight: float
    rest_trace: float
    updates: int

    def operator(self, damping: float, rest: Rest) -> Rows:
        """Return the damped average as the rows that arrays hold.

        Parameters
        ----------
        damping : float
            Added to the diagonal, beside what `rest` leaves there.
        rest : {"scaled", "identity"}
            See `HeldRows`.
        """
        batches, held, size = self.rows.shape
        weights = self.weights
        if rest == "scaled":
            weights = weights * (1.0 + self.rest_weight / weights.sum())
        else:
            damping += self.rest_trace / size
        # Arrays divide by the number of rows; batches have divided by theirs.
        scale = np.sqrt(weights * (batches * held))
        stacked = (self.rows * scale[:, None, None]).reshape(batches * held, size)
        return Rows(np.ascontiguousarray(stacked.T), damping)


def updated_rows(
    average: RowAverage | None, fresh: np.ndarray, batches: int, optimizer: SecondOrder
) -> RowAverage:
    """Return the average after the rows of one more batch; the old average is not changed.

    Parameters
    ----------
    average : RowAverage or None
        The average so far; None at the first update.
    fresh : ndarray
        (R, n) rows of this step; the batch's factor is ``fresh^T fresh``.
    batches : int
        Batches whose rows are held.
    optimizer : SecondOrder
        The optimizer, which weighs the old average and the new batch.
    """
    fresh = np.asarray(fresh, np.float64)
    if average is None:
        rows, weights = np.zeros((batches, *fresh.shape)), np.zeros(batches)
        rows[-1], weights[-1] = fresh, 1.0
        return RowAverage(rows, weights, 0.0, 0.0, 1)
    update = average.updates + 1
    past, present = optimizer.average_weights(update)
    leaving = float(average.weights[0])
    trace = leaving * float(np.sum(average.rows[0] ** 2))
    return RowAverage(
        np.concatenate([average.rows[1:], fresh[None]]),
        np.append(past * average.weights[1:], present),
        past * (average.rest_weight + leaving),
        past * (average.rest_trace + trace),
        update,
    )
