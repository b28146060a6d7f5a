"""``fcg``: flexible conjugate gradients with the array as the preconditioner."""

from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Ge

from repast_dist.analog.schemes.base import SCHEMES, ArrayScheme, DeflatingScheme, IterativeScheme
from repast_dist.analog.schemes.gradients import (
    conjugate_gradients,
    gradient_moves,
    gradient_ops,
)
from repast_dist.analog.solver import Run
from repast_dist.analog.specs import InvSpec
from repast_dist.ground.spec import spec

_PATIENCE = 80


@spec
class GradientScheme(ArrayScheme, DeflatingScheme, IterativeScheme):
    """Conjugate gradients with the array as the preconditioner.

    Attributes
    ----------
    conjugate : int
        Directions before it that a new one is made conjugate to.
    """

    conjugate: Annotated[int, Ge(1)] = 4

    own_regularisation: ClassVar[float] = 1.0
    own_read_after: ClassVar[float | Literal["settled"]] = 12.0

    def solve(self, run: Run) -> None:
        """Go along conjugate directions that the array proposes."""
        conjugate_gradients(run, self.tolerance, self.max_iterations, self.conjugate, _PATIENCE)

    def per_column(
        self, rounds: np.ndarray, inv: InvSpec
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return an application of the inverse and a product per round."""
        moved = gradient_moves(rounds, self.conjugate)
        return rounds, rounds, gradient_ops(rounds, self.conjugate), moved


@SCHEMES.register
@spec
class Fcg(GradientScheme):
    """Flexible conjugate gradients, dominant directions taken out of the array.

    Attributes
    ----------
    method : {"fcg"}
        The scheme's name.
    """

    method: Literal["fcg"] = "fcg"
