"""Cells whose programming errors are Gaussian."""

import dataclasses
import math
from typing import Annotated, Self

import numpy as np
from annotated_types import Ge

from repast_dist.analog.cells.base import Cell
from repast_dist.analog.kernels.draws import GaussianLaw, NormalDraws, gaussian_levels
from repast_dist.ground.spec import spec


@spec
class GaussianCell(Cell):
    """A cell with a Gaussian programming error and read noise.

    Attributes
    ----------
    programming_sigma : float
        Standard deviation of a programmed conductance, relative to ``g_on - g_off``: its RMS over
        the range.
    read_sigma : float
        Standard deviation of a cell's conductance from read to read, relative to the range.
    """

    programming_sigma: Annotated[float, Ge(0)] = 0.0
    read_sigma: Annotated[float, Ge(0)] = 0.0

    @property
    def exact(self) -> bool:
        """Whether a cell holds some level exactly, if perhaps not the one that was meant."""
        return not (self.programming_sigma or self.ages)

    @property
    def clipped(self) -> bool:
        """Whether a programmed conductance cannot leave the range."""
        return True

    @property
    def profile(self) -> tuple[float, ...]:
        """How the error depends on the conductance: coefficients of a polynomial, the constant
        first, in the relative conductance; empty: the same everywhere.
        """
        return ()

    @property
    def highest(self) -> float:
        """Relative conductance that no cell exceeds, whatever its errors and its age."""
        lasts = not (self.ages or self.warms or self.slow_spread)
        return 1.0 if self.clipped and lasts else math.inf

    @property
    def programming_spread(self) -> float:
        """Standard deviation of a programmed conductance, relative to the range."""
        return self.programming_sigma

    @property
    def read_spread(self) -> float:
        """Standard deviation of a conductance from read to read, relative to the range."""
        return self.read_sigma

    @property
    def pair_error(self) -> float:
        """RMS error of what a pair is programmed to: clipping at g_off halves the variance of the
        cell that is off.
        """
        return float(np.sqrt(1.5 if self.clipped else 2.0) * self.programming_sigma)

    def program(self, target: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Return targets with errors, within the range if they are clipped."""
        sigma: float | np.ndarray = self.programming_sigma
        if self.profile:
            shape = np.polynomial.polynomial.polyval(target, self.profile)
            sigma = sigma / profile_rms(self.profile) * shape
        held = random.standard_normal(target.shape)
        held *= sigma
        held += target
        if self.clipped:
            np.clip(held, 0.0, 1.0, out=held)
        return held

    def program_levels(self, digits: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Return what pairs hold right after programming, in levels."""
        if not isinstance(random, NormalDraws):
            return Cell.program_levels(self, digits, random)
        law = self.law
        return digits.astype(np.float64) if law is None else gaussian_levels(digits, law, random)

    @property
    def law(self) -> GaussianLaw | None:
        """What pairs hold right after programming; None without errors."""
        sigma = self.programming_sigma
        if not sigma:
            return None
        if self.profile:
            sigma /= profile_rms(self.profile)
        low, high = (0.0, 1.0) if self.clipped else (self.lowest, np.inf)
        return GaussianLaw(self.levels - 1, sigma, self.profile, low, high)

    def with_programming_sigma(self, sigma: float) -> Self:
        """Return the same cell with another programming error."""
        return dataclasses.replace(self, programming_sigma=sigma)


def profile_rms(profile: tuple[float, ...]) -> float:
    """Return the RMS of a polynomial over the range (exact, by integration of its square)."""
    powers = range(len(profile))
    mean = sum(profile[i] * profile[j] / (i + j + 1) for i in powers for j in powers)
    return float(np.sqrt(mean))
