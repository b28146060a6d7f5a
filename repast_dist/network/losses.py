"""Losses as digital work: what they cost per element of a network's outputs.

The units count as in `repast_dist.network.operations`; what is computed is what
`repast_dist.training.losses` computes. A random number counts as one operation.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Literal

from annotated_types import Ge

from repast_dist.ground.spec import spec
from repast_dist.network.operations import FUNCTION, SOFTMAX

Loss = Literal["cross_entropy", "next_token", "pixel_cross_entropy", "squared_error", "regression"]


@dataclasses.dataclass(frozen=True)
class _Work:
    """Operations on one row of outputs: so many per element, and so many per row.

    Attributes
    ----------
    value : tuple of int
        The loss and its derivative by the outputs.
    drawn : tuple of int
        Labels drawn from the model's own likelihood, and the derivative for them.
    root : tuple of int
        A column of a root of the Fisher matrix.
    """

    value: tuple[int, int]
    drawn: tuple[int, int]
    root: tuple[int, int]


_CLASSES = _Work(
    # The logarithm of the label's share is added up; 1 is subtracted where the label is.
    value=(SOFTMAX, FUNCTION + 2),
    # Shares are added up and compared with one random number; 1 is subtracted.
    drawn=(2, 2),
    # All are multiplied by the root of a share, after 1 is subtracted from it.
    root=(1, FUNCTION + 1),
)
_BITS = _Work(
    # The logarithm and the sigmoid are functions of z; z t is formed, subtracted, added up; and t
    # is subtracted from the sigmoid.
    value=(2 * FUNCTION + 4, 0),
    # A random number each, a comparison, a subtraction.
    drawn=(3, 0),
    # The root of one variance.
    root=(0, FUNCTION + 2),
)
_NUMBERS = _Work(
    # A subtraction, a square, a sum.
    value=(3, 0),
    # A random number that a function makes normal.
    drawn=(1 + FUNCTION, 0),
    root=(0, 1),
)
_WORK: Mapping[str, _Work] = {
    "cross_entropy": _CLASSES,
    "next_token": _CLASSES,
    "pixel_cross_entropy": _BITS,
    "squared_error": _NUMBERS,
    "regression": _NUMBERS,
}


@spec
class LossShape:
    """A loss of a network, and the outputs that it is computed of.

    Attributes
    ----------
    loss : str
        As ``model.loss``.
    rows, width : int
        Rows of outputs per sample, such as tokens, and numbers in each.
    layer : str
        Name of the layer that makes them; empty: the last one.
    """

    loss: Loss
    rows: Annotated[int, Ge(1)]
    width: Annotated[int, Ge(1)]
    layer: str = ""

    @property
    def outputs(self) -> int:
        """Numbers per sample."""
        return self.rows * self.width

    @property
    def value_ops(self) -> int:
        """Digital operations per sample: the loss, and its derivative by the outputs."""
        return self.rows * self._row(_WORK[self.loss].value)

    @property
    def drawn_ops(self) -> int:
        """Digital operations per sample of a Fisher pass with labels that are drawn."""
        return self.rows * self._row(_WORK[self.loss].drawn)

    @property
    def root_ops(self) -> int:
        """Digital operations per sample of one of the passes of the exact Fisher matrix, which has
        derivatives by one row of outputs.
        """
        return self._row(_WORK[self.loss].root)

    def _row(self, work: tuple[int, int]) -> int:
        per_element, per_row = work
        return per_element * self.width + per_row
