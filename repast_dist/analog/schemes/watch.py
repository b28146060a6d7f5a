"""When an iteration gives up."""

import numpy as np

from repast_dist.analog.solver import Run

_GROWTH_LIMIT = 1e3

SAFETY = 1.0 - 2.0**-5
"""Of the target: the residual that the hardware goes by has the error of its products."""


class Watch:
    """Decides round by round which right-hand sides go on.

    Parameters
    ----------
    run : Run
        The solve.
    tolerance : float
        Relative residual to reach.
    patience : int
        Rounds without a smaller residual after which a right-hand side is given up.
    """

    def __init__(self, run: Run, tolerance: float, patience: int) -> None:
        self._tolerance = tolerance * SAFETY
        self._patience = patience
        self._best = np.full(run.norm.shape, np.inf)
        self._stalled = np.zeros(run.norm.shape, np.int64)

    def keep(self, relative: np.ndarray, active: np.ndarray) -> np.ndarray:
        """Return a mask of the active columns that are neither converged, diverged nor stalled."""
        better = relative < 0.99 * self._best[active]
        self._best[active] = np.minimum(self._best[active], relative)
        self._stalled[active] = np.where(better, 0, self._stalled[active] + 1)
        keep = (relative > self._tolerance) & (relative < _GROWTH_LIMIT)
        return np.asarray(keep & (self._stalled[active] < self._patience))
