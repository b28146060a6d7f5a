"""``cg``: conjugate gradients without any array, to compare with."""

from typing import ClassVar, Literal

import numpy as np

from repast_dist.analog.schemes.base import SCHEMES, DeflatingScheme
from repast_dist.analog.schemes.gradients import (
    ConjugateScheme,
    conjugate_gradients,
    gradient_moves,
    gradient_ops,
)
from repast_dist.analog.solver import Run
from repast_dist.analog.specs import InvSpec
from repast_dist.ground.spec import spec

_PATIENCE = 400
_WINDOW = 1
"""With nothing that approximates the inverse, one direction is all that exact arithmetic needs."""


@SCHEMES.register
@spec
class Cg(DeflatingScheme, ConjugateScheme):
    """Conjugate gradients on the multipliers, without an inverting array, but with dominant
    directions taken out as for one.

    Attributes
    ----------
    method : {"cg"}
        The scheme's name.
    """

    method: Literal["cg"] = "cg"

    uses_array: ClassVar[bool] = False

    def solve(self, run: Run) -> None:
        """Go along conjugate directions."""
        conjugate_gradients(run, self, _WINDOW, _PATIENCE)

    def per_column(
        self, rounds: np.ndarray, inv: InvSpec
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return a product per round, and what deflation does before it."""
        ops, moves = self.beginning
        moved = gradient_moves(rounds, _WINDOW) + moves
        return rounds, rounds, gradient_ops(rounds, _WINDOW) + ops, moved
