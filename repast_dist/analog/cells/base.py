"""What every model of a memory cell has."""

import abc
import math
from typing import Annotated, Self

import numpy as np
from annotated_types import Ge, Gt, Le

from repast_dist.analog.cells.use import CellUse
from repast_dist.analog.kernels.draws import GaussianLaw
from repast_dist.ground.registry import Registry
from repast_dist.ground.spec import spec

LARGEST_SIEMENS = 0.01
"""A cell of 100 ohm conducts better than any memory cell that arrays are made of."""


@spec
class Cell(abc.ABC):
    """A memory cell and how far it is from ideal.

    A cell model is a settings class of its own with a field ``model: Literal["name"]``. Arrays
    hold signed digits on pairs of cells; conductances are relative to the range, 0 at `g_off` and
    1 at `g_on`.

    Attributes
    ----------
    bits : int
        Levels per cell are ``2 ** bits``, evenly spaced in conductance.
    g_on_siemens, g_off_siemens : float
        Conductance of the highest and the lowest level.
    write_pulses : float
        Pulses that writing a cell takes, on average.
    write_verify : bool
        Whether every pulse is followed by a read of the cell.
    """

    bits: Annotated[int, Ge(1), Le(8)] = 4
    g_on_siemens: Annotated[float, Gt(0)] = 100e-6
    g_off_siemens: Annotated[float, Ge(0)] = 1e-6
    write_pulses: Annotated[float, Ge(1)] = 1.0
    write_verify: bool = False

    def __post_init__(self) -> None:
        if self.g_on_siemens > LARGEST_SIEMENS:
            raise ValueError(
                f"g_on_siemens={self.g_on_siemens}: a cell of {1 / self.g_on_siemens:.3g} ohm; "
                f"valid: up to {LARGEST_SIEMENS}, in siemens: 40 microsiemens are 40e-6"
            )
        if self.g_off_siemens >= self.g_on_siemens:
            raise ValueError(
                f"g_off_siemens={self.g_off_siemens} must lie below "
                f"g_on_siemens={self.g_on_siemens}"
            )

    @property
    def levels(self) -> int:
        """Number of conductance levels."""
        return 1 << self.bits

    @property
    def span_siemens(self) -> float:
        """Conductance from the lowest to the highest level."""
        return self.g_on_siemens - self.g_off_siemens

    @property
    def lowest(self) -> float:
        """Relative conductance of a cell that does not conduct: no error takes one below it."""
        return -self.g_off_siemens / self.span_siemens

    @property
    def highest(self) -> float:
        """Relative conductance that no cell exceeds, whatever its errors and its age; infinite
        where there is no such limit.
        """
        return math.inf

    @property
    def ideal(self) -> bool:
        """Whether a cell holds exactly what is programmed and reads the same every time."""
        return self.exact and not (self.read_spread or self.may_fail)

    @property
    @abc.abstractmethod
    def exact(self) -> bool:
        """Whether a cell holds some level exactly, if perhaps not the one that was meant."""

    @property
    def ages(self) -> bool:
        """Whether what is held changes after programming."""
        return False

    @property
    def slow_spread(self) -> float:
        """Standard deviation by which a conductance has moved since it was programmed, relative to
        the range: noise that is slower than the reads.
        """
        return 0.0

    @property
    def warms(self) -> bool:
        """Whether a conductance depends on the temperature."""
        return False

    @property
    def may_fail(self) -> bool:
        """Whether some cells hold something else than what is programmed, such as stuck ones."""
        return bool(self.stuck_share or self.wears)

    @property
    def stuck_share(self) -> float:
        """Share of cells that cannot be programmed from the beginning."""
        return 0.0

    @property
    def wears(self) -> bool:
        """Whether cells fail that are written too often."""
        return False

    @property
    def mapped_around(self) -> bool:
        """Whether the other cell of a pair is programmed to make up for one that fails."""
        return False

    @property
    def programming_spread(self) -> float:
        """Standard deviation of a programmed conductance, relative to the range."""
        return 0.0

    @property
    def read_spread(self) -> float:
        """Standard deviation of a conductance from read to read, relative to the range."""
        return 0.0

    @property
    @abc.abstractmethod
    def pair_error(self) -> float:
        """RMS error of what a pair is programmed to, relative to the range: what further slices
        and copies make smaller. Preconditioners are regularised by it.
        """

    def lasting_error(self, matrix: np.ndarray, use: CellUse) -> float:
        """Return the RMS of what reading and failed cells add to entries of a matrix.

        Parameters
        ----------
        matrix : ndarray
            What the pairs hold.
        use : CellUse
            What the cells have been through.

        Returns
        -------
        float
            Relative to the largest entry.
        """
        return float(np.sqrt(2.0) * self.read_spread)

    def failed(self, lot: np.ndarray, life: np.random.Generator, use: CellUse) -> np.ndarray:
        """Return what cells that fail hold, and NaN for those that can be programmed.

        Asked only of cells that may fail.

        Parameters
        ----------
        lot : ndarray
            Uniform draws from 0 to 1, any shape: one for each cell, the same as long as it lives.
        life : Generator
            Further draws of the same kind.
        use : CellUse
            What the cells have been through.
        """
        return np.full(lot.shape, np.nan)

    @abc.abstractmethod
    def program(self, target: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Return what cells hold right after programming.

        Parameters
        ----------
        target : ndarray
            Relative conductances from 0 to 1, any shape.
        random : Generator
            Draws with an address of their own: the same cells, the same draws.

        Returns
        -------
        ndarray
            float64, same shape; a new array.
        """

    def program_levels(self, digits: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Return what pairs hold right after programming, in levels.

        Parameters
        ----------
        digits : ndarray
            int16, signed; a positive one sits on the positive cell of its pair, a negative one on
            the other cell.
        random : Generator
            As for `program`, which both sides draw from, the positive one first.

        Returns
        -------
        ndarray
            float64, same shape; a new array.
        """
        top = self.levels - 1
        levels = np.maximum(self.program(np.maximum(digits, 0) / top, random), self.lowest)
        levels -= np.maximum(self.program(np.maximum(-digits, 0) / top, random), self.lowest)
        levels *= top
        return levels

    @property
    def law(self) -> GaussianLaw | None:
        """What pairs hold right after programming, if their errors are Gaussian and compiled
        functions draw them; None: `program_levels` says.
        """
        return None

    @property
    def changes(self) -> bool:
        """Whether what is used is not what pairs held right after programming."""
        return bool(self.may_fail or self.ages or self.warms or self.slow_spread)

    def used(self, held: np.ndarray, use: CellUse) -> np.ndarray:
        """Return what cells hold when they are used, from what they held when programmed.

        Parameters
        ----------
        held : ndarray
            Relative conductances, any shape; not changed.
        use : CellUse
            What they have been through since.
        """
        return held

    def relaxed(
        self, held: np.ndarray, target: np.ndarray, use: CellUse, random: np.random.Generator
    ) -> np.ndarray:
        """Return what cells have come to hold by themselves, each in its own way.

        Asked only of cells that age, before `used`.

        Parameters
        ----------
        held, target : ndarray
            Relative conductances right after programming, and what they were to be; any shape; not
            changed.
        use : CellUse
            What they have been through since.
        random : Generator
            Draws with an address of their own.
        """
        return held

    @abc.abstractmethod
    def with_programming_sigma(self, sigma: float) -> Self:
        """Return the same cell with another programming error.

        Parameters
        ----------
        sigma : float
            Standard deviation of a programmed conductance, relative to the range.

        Raises
        ------
        SettingsError
            The model has no such error.
        """


CELLS: Registry[Cell] = Registry(
    "cell model",
    Cell,  # type: ignore[type-abstract]
    tag="model",
    home="repast_dist.analog.cells",
    default="reram",
)
