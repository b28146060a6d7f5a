"""``single``: one analog step, about 8 bits."""

from typing import ClassVar, Literal

import numpy as np

from repast_dist.analog.schemes.base import SCHEMES, ArrayScheme
from repast_dist.analog.solution import Solution
from repast_dist.analog.solver import Run
from repast_dist.analog.specs import InvSpec
from repast_dist.ground.spec import spec


@SCHEMES.register
@spec
class Single(ArrayScheme):
    """One analog step, about 8 bits.

    Attributes
    ----------
    method : {"single"}
        The scheme's name.
    """

    method: Literal["single"] = "single"

    uses_products: ClassVar[bool] = False

    def solve(self, run: Run) -> None:
        """Apply the array once."""
        run.x = run.invert(run.b)
        run.iterations[:] = 1

    def per_column(
        self, rounds: np.ndarray, inv: InvSpec
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return one settling, whatever the right-hand side is."""
        one = np.ones_like(rounds)
        return one, 0 * one, 0 * one, 0 * one

    def usable(self, solution: Solution) -> bool:
        """Return whether answers are better than none: one step has no target to reach."""
        return bool((solution.residual < 1.0).all())

    def rounds(self, assumed: int) -> int:
        """Return the one round there is."""
        return 1
