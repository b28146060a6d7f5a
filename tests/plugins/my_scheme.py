"""An inversion scheme of one's own: damped Richardson iteration on the array's answers."""

from typing import Annotated, Literal

import numpy as np
from annotated_types import Gt, Le

from repast_dist.analog.schemes.base import SCHEMES, ArrayScheme, IterativeScheme
from repast_dist.ground.spec import spec


@SCHEMES.register
@spec
class Richardson(ArrayScheme, IterativeScheme):
    """``x += step INV(b - A x)``, a fixed number of rounds or until the target is met.

    Attributes
    ----------
    method : {"damped_richardson"}
        The scheme's name.
    step : float
        Share of the array's answer that is taken.
    """

    method: Literal["damped_richardson"] = "damped_richardson"
    step: Annotated[float, Gt(0), Le(1)] = 0.9

    def solve(self, run):
        """Take a share of what the array makes of the residual, round by round."""
        active = np.flatnonzero(run.norm > 0)
        residual = run.b[:, active]
        for _ in range(self.max_iterations):
            if not active.size:
                return
            run.x[:, active] += self.step * run.invert(residual)
            run.iterations[active] += 1
            residual = run.residual(active)
            run.digital_ops += 5 * residual.size
            run.moved += 3 * residual.size
            keep = run.relative(residual, active) > 0.9 * self.tolerance
            active, residual = active[keep], residual[:, keep]

    def per_column(self, rounds, inv):
        """Return an application of the inverse, a product and five operations per round, which
        move three numbers for the answer, three for the residual and two for its norm.
        """
        return rounds, rounds, 5 * rounds, 8 * rounds
