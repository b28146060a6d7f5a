"""``refine``: iterative refinement (HP-INV, Nature Electronics 2025)."""

from typing import ClassVar, Literal

import numpy as np

from repast_dist.analog.schemes.base import SCHEMES, ArrayScheme, IterativeScheme
from repast_dist.analog.schemes.watch import Watch
from repast_dist.analog.solver import NORM_MOVES, RESIDUAL_MOVES, UPDATE_MOVES, Run
from repast_dist.analog.specs import InvSpec
from repast_dist.ground.spec import spec

_PATIENCE = 12
_UPDATE_OPS = 4
_MOVES = UPDATE_MOVES + RESIDUAL_MOVES + NORM_MOVES
"""Numbers per row and round: the answer, the residual, and its norm."""


@SCHEMES.register
@spec
class Refine(ArrayScheme, IterativeScheme):
    """Iterative refinement, ``x += INV(b - A x)`` (HP-INV, Nature Electronics 2025).

    Attributes
    ----------
    method : {"refine"}
        The scheme's name.
    """

    method: Literal["refine"] = "refine"

    own_regularisation: ClassVar[float] = 1.0

    def solve(self, run: Run) -> None:
        """Add what the array makes of the residual, round by round."""
        watch = Watch(run, self.tolerance, _PATIENCE)
        active = np.flatnonzero(run.norm > 0)
        residual = run.b[:, active]
        for _ in range(self.max_iterations):
            if not active.size:
                return
            run.x[:, active] += run.invert(residual)
            run.moved += UPDATE_MOVES * residual.size
            run.iterations[active] += 1
            residual = run.residual(active)
            run.digital_ops += _UPDATE_OPS * residual.size
            keep = watch.keep(run.relative(residual, active), active)
            active, residual = active[keep], residual[:, keep]

    def per_column(
        self, rounds: np.ndarray, inv: InvSpec
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return an application of the inverse and a residual product per round."""
        return rounds, rounds, _UPDATE_OPS * rounds, _MOVES * rounds
