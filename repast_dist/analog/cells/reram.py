"""``reram``: a resistive cell in general terms."""

import math
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt, Le
from scipy.special import ndtr

from repast_dist.analog.cells.base import CELLS
from repast_dist.analog.cells.gaussian import GaussianCell
from repast_dist.analog.cells.use import CellUse
from repast_dist.ground.spec import spec

Rate = Annotated[float, Ge(0), Le(1)]

_NONE_WORN = 1e-15
"""Share of worn-out cells that is none of any farm's."""


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
        A programmed conductance cannot leave the range from g_off to g_on. Otherwise it can, but no
        error takes one below zero.
    stuck_on_rate, stuck_off_rate : float
        Share of cells that stay at g_on or g_off whatever is programmed; the same ones as long as
        an array lives.
    flicker_sigma : float
        1/f noise: RMS per decade of frequency, relative to the range, the same whatever a cell
        holds.
    flicker_slow_decades, flicker_fast_decades : float
        Decades of 1/f noise from the time that a value is held for to that of a call, and from
        there to that of a read. The slow part is constant from one writing to the next, the fast
        part is drawn with every read, as `read_sigma` is.
    temperature_off_per_k, temperature_on_per_k : float
        Relative change of the conductance per kelvin from the temperature of programming to that
        of use, at g_off and at g_on; in proportion between them.
    endurance_sigma : float
        Spread of the writes that cells survive: standard deviation of the logarithm of a lognormal
        distribution, whose median is the components' `cell_endurance`. A cell that is written more
        often is stuck. 0: cells do not wear out.
    worn_on_share : float
        Share of worn-out cells that are stuck at g_on; the others are at g_off.
    mapped_around : bool
        The other cell of a pair makes up for a stuck one as far as its range goes. Which cells are
        stuck is found by the reads of `write_verify`, which it needs.
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
    flicker_sigma: Annotated[float, Ge(0)] = 0.0
    flicker_slow_decades: Annotated[float, Ge(0)] = 4.0
    flicker_fast_decades: Annotated[float, Ge(0)] = 4.0
    temperature_off_per_k: float = 0.0
    temperature_on_per_k: float = 0.0
    endurance_sigma: Annotated[float, Ge(0)] = 0.0
    worn_on_share: Rate = 0.5
    mapped_around: bool = False
    drift_exponent: Annotated[float, Ge(0)] = 0.0
    drift_start_s: Annotated[float, Gt(0)] = 1.0

    def __post_init__(self) -> None:
        GaussianCell.__post_init__(self)
        if self.programming_profile and min(_over_range(self.programming_profile)) <= 0:
            raise ValueError("programming_profile must be positive from 0 to 1")
        if self.stuck_on_rate + self.stuck_off_rate > 1:
            raise ValueError("stuck_on_rate + stuck_off_rate must not exceed 1")
        if self.mapped_around and not self.write_verify:
            raise ValueError(
                "mapped_around=true: only cells that are read after they are written are known to "
                "be stuck; valid: write_verify=true"
            )

    @property
    def clipped(self) -> bool:
        """Whether a programmed conductance cannot leave the range."""
        return self.clip

    @property
    def profile(self) -> tuple[float, ...]:
        """How the programming error depends on the conductance."""
        return self.programming_profile

    @property
    def exact(self) -> bool:
        """Whether a cell holds some level exactly, if perhaps not the one that was meant."""
        return not (self.programming_sigma or self.ages or self.slow_spread or self.warms)

    @property
    def read_spread(self) -> float:
        """Standard deviation of a conductance from read to read, relative to the range."""
        return math.hypot(self.read_sigma, self.flicker_sigma * self.flicker_fast_decades**0.5)

    @property
    def slow_spread(self) -> float:
        """Standard deviation by which a conductance has moved since it was programmed."""
        return self.flicker_sigma * float(self.flicker_slow_decades**0.5)

    @property
    def warms(self) -> bool:
        """Whether a conductance depends on the temperature."""
        return bool(self.temperature_off_per_k or self.temperature_on_per_k)

    @property
    def ages(self) -> bool:
        """Whether conductances drift."""
        return bool(self.drift_exponent)

    @property
    def stuck_share(self) -> float:
        """Share of cells that are stuck from the beginning."""
        return self.stuck_on_rate + self.stuck_off_rate

    @property
    def wears(self) -> bool:
        """Whether cells fail that are written too often."""
        return bool(self.endurance_sigma)

    def lasting_error(self, matrix: np.ndarray, use: CellUse) -> float:
        """Return the RMS of what reading and stuck cells add to entries of a matrix, relative to
        the largest one: either cell of a pair may be stuck on, only one has something to lose.
        The other cell of the pair leaves what only a full range more could make up for.
        """
        mean_square = float(np.mean((matrix / np.max(np.abs(matrix))) ** 2))
        worn = self._worn_share(use)
        on = self.stuck_on_rate + worn * self.worn_on_share
        off = self.stuck_off_rate + worn * (1.0 - self.worn_on_share)
        stuck = on * (mean_square if self.mapped_around else 2.0) + off * mean_square
        noise = self.read_spread**2 + self.slow_spread**2
        return float(np.sqrt(2.0 * noise + stuck))

    def _worn_share(self, use: CellUse) -> float:
        """Return the share of cells that are expected to be worn out."""
        if not (self.wears and use.writes and use.endurance):
            return 0.0
        return float(ndtr(math.log(use.writes / use.endurance) / self.endurance_sigma))

    def failed(self, lot: np.ndarray, life: np.random.Generator, use: CellUse) -> np.ndarray:
        """Return the end of the range at which cells are stuck, NaN for those that are not."""
        held = np.full(lot.shape, np.nan)
        # Most runs end long before the first cell does: then nothing needs to be drawn.
        if use.endurance and self._worn_share(use) > _NONE_WORN:
            endurance = use.endurance * np.exp(
                self.endurance_sigma * life.standard_normal(lot.shape)
            )
            at = np.where(life.random(lot.shape) < self.worn_on_share, 1.0, 0.0)
            held = np.where(use.writes > endurance, at, held)
        held[lot < self.stuck_on_rate] = 1.0
        held[lot >= 1.0 - self.stuck_off_rate] = 0.0
        return held

    def used(self, held: np.ndarray, use: CellUse) -> np.ndarray:
        """Return what drift and temperature leave, which act on the whole conductance, g_off
        included.
        """
        factor: float | np.ndarray = 1.0
        if self.ages and use.age_s > self.drift_start_s:
            factor = (use.age_s / self.drift_start_s) ** -self.drift_exponent
        if self.warms and use.warmer_k:
            off, on = self.temperature_off_per_k, self.temperature_on_per_k
            factor = factor * np.maximum(1.0 + (off + (on - off) * held) * use.warmer_k, 0.0)
        if isinstance(factor, float) and factor == 1.0:
            return held
        offset = self.g_off_siemens / self.span_siemens
        left: np.ndarray = (held + offset) * factor - offset
        return left


def _over_range(profile: tuple[float, ...]) -> list[float]:
    """Return a polynomial at 65 relative conductances from 0 to 1."""
    return [sum(c * (i / 64) ** power for power, c in enumerate(profile)) for i in range(65)]
