"""``reram``: a resistive cell in general terms."""

from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt, Le

from repast_dist.analog.cells.base import CELLS
from repast_dist.analog.cells.gaussian import GaussianCell
from repast_dist.analog.cells.use import CellUse
from repast_dist.ground.spec import spec

Rate = Annotated[float, Ge(0), Le(1)]


@CELLS.register
@spec
class Reram(GaussianCell):
    """A resistive cell in general terms: every effect is a setting and off by default.

    Attributes
    ----------
    model : {"reram"}
        The model's name.
    programming_profile : tuple of float
        How the programming error depends on the conductance: coefficients, the constant first, of
        a polynomial in the relative conductance (0 at g_off, 1 at g_on). Scaled so that its RMS
        over the range is `programming_sigma`; empty: the same everywhere.
    clip : bool
        A programmed conductance cannot leave the range from g_off to g_on.
    stuck_on_rate, stuck_off_rate : float
        Share of cells that stay at g_on or g_off whatever is programmed.
    drift_exponent, drift_start_s : float
        Power-law drift: conductance times ``(age / drift_start) ** -drift_exponent`` once that much
        time has passed since writing. A run counts it from the planned time of its steps;
        `device.age_s` adds to it.
    """

    model: Literal["reram"] = "reram"
    programming_profile: tuple[float, ...] = ()
    clip: bool = True
    stuck_on_rate: Rate = 0.0
    stuck_off_rate: Rate = 0.0
    drift_exponent: Annotated[float, Ge(0)] = 0.0
    drift_start_s: Annotated[float, Gt(0)] = 1.0

    def __post_init__(self) -> None:
        GaussianCell.__post_init__(self)
        if self.programming_profile and min(_over_range(self.programming_profile)) <= 0:
            raise ValueError("programming_profile must be positive from 0 to 1")
        if self.stuck_on_rate + self.stuck_off_rate > 1:
            raise ValueError("stuck_on_rate + stuck_off_rate must not exceed 1")

    @property
    def clipped(self) -> bool:
        """Whether a programmed conductance cannot leave the range."""
        return self.clip

    @property
    def profile(self) -> tuple[float, ...]:
        """How the programming error depends on the conductance."""
        return self.programming_profile

    @property
    def ages(self) -> bool:
        """Whether conductances drift."""
        return bool(self.drift_exponent)

    @property
    def may_fail(self) -> bool:
        """Whether some cells are stuck."""
        return bool(self.stuck_on_rate or self.stuck_off_rate)

    def lasting_error(self, matrix: np.ndarray) -> float:
        """Return the RMS of what reading and stuck cells add to entries of a matrix, relative to
        the largest one: either cell of a pair may be stuck on, only one has something to lose.
        """
        mean_square = float(np.mean((matrix / np.max(np.abs(matrix))) ** 2))
        stuck = 2.0 * self.stuck_on_rate + self.stuck_off_rate * mean_square
        return float(np.sqrt(2.0 * self.read_sigma**2 + stuck))

    def program(self, target: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Return targets with errors; stuck cells hold either end of the range."""
        held = GaussianCell.program(self, target, random)
        if self.may_fail:
            lot = random.random(target.shape)
            held = np.where(lot < self.stuck_on_rate, 1.0, held)
            held = np.where(lot >= 1.0 - self.stuck_off_rate, 0.0, held)
        return held

    def used(self, held: np.ndarray, use: CellUse) -> np.ndarray:
        """Return what is left after drift, which acts on the whole conductance, g_off included."""
        if not self.ages or use.age_s <= self.drift_start_s:
            return held
        offset = self.g_off_siemens / self.span_siemens
        factor = (use.age_s / self.drift_start_s) ** -self.drift_exponent
        left: np.ndarray = (held + offset) * factor - offset
        return left


def _over_range(profile: tuple[float, ...]) -> list[float]:
    """Return a polynomial at 65 relative conductances from 0 to 1."""
    return [sum(c * (i / 64) ** power for power, c in enumerate(profile)) for i in range(65)]
