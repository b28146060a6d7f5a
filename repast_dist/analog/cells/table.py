"""``table``: a cell as it was measured."""

import dataclasses
from functools import cached_property
from typing import Annotated, Literal, Self

import numpy as np
from annotated_types import Ge

from repast_dist.analog.cells.base import CELLS, Cell
from repast_dist.analog.cells.measured import (
    SCORES,
    Measured,
    find_table,
    read_measured,
)
from repast_dist.analog.cells.use import CellUse
from repast_dist.ground.errors import SettingsError
from repast_dist.ground.spec import spec

_GRID = 257
"""Conductances over the range that means over it are taken of."""


@CELLS.register
@spec
class Table(Cell):
    """A cell as it was measured: mean and spread of conductances by target and time.

    Between targets, and between times on a logarithmic scale, the table is interpolated; after its
    last time, cells stay as they are then. A cell that was written keeps its deviation: where the
    spread has grown, the growth is independent of it. Samples are drawn from their own
    distribution, statistics from a normal one.

    Arrays draw read noise of one size: that of a pair of which one cell holds any conductance of
    the range and the other `g_off_siemens`.

    Attributes
    ----------
    model : {"table"}
        The model's name.
    table : str
        The file, as `repast_dist.analog.cells.measured` describes it, or the name of one that the
        package has.
    g_on_siemens, g_off_siemens : float
        Conductance of the highest and the lowest level; 0: the highest and the lowest target.
    levels_only : bool
        Only the table's targets can be written: each conductance in between becomes the nearest.
    sigma_scale : float
        Multiplies the spread of all cells.
    measured : Measured or None
        What the file held, which runs keep; None, or of another file: read when settings are
        loaded.
    """

    model: Literal["table"] = "table"
    table: str
    g_on_siemens: Annotated[float, Ge(0)] = 0.0
    g_off_siemens: Annotated[float, Ge(0)] = 0.0
    levels_only: bool = False
    sigma_scale: Annotated[float, Ge(0)] = 1.0
    measured: Measured | None = None

    def __post_init__(self) -> None:
        if self.measured is None or self.measured.source != self.table:
            held = dataclasses.replace(read_measured(find_table(self.table)), source=self.table)
            object.__setattr__(self, "measured", held)
        targets = self._targets
        for name, end in (("g_on_siemens", targets[-1]), ("g_off_siemens", targets[0])):
            given = getattr(self, name)
            if not given:
                object.__setattr__(self, name, float(end))
            elif not targets[0] <= given <= targets[-1]:
                raise ValueError(
                    f"{name}={given:g}: {self.table} holds targets from {targets[0]:g} to "
                    f"{targets[-1]:g} S; valid: within them"
                )
        Cell.__post_init__(self)

    @property
    def exact(self) -> bool:
        """Whether a cell holds some level exactly: never."""
        return False

    @property
    def ages(self) -> bool:
        """Whether the table says what becomes of cells."""
        return len(self._times) > 1

    @property
    def programming_spread(self) -> float:
        """RMS over the range of the spread at the first time, relative to the range."""
        _, sigma = self._at(self._times[0], self._range)
        return float(np.sqrt(np.mean(sigma**2))) / self.span_siemens

    @property
    def read_spread(self) -> float:
        """RMS over a pair's cells of the deviation from read to read, relative to the range."""
        read = self._points.column(lambda point: point.read_sigma_siemens)[0]
        return _of_pair(np.interp(self._range, self._targets, read)) / self.span_siemens / 2**0.5

    @property
    def pair_error(self) -> float:
        """RMS of what a pair holds beside its target at the first time, relative to the range."""
        mean, sigma = self._at(self._times[0], self._range)
        return _of_pair(np.hypot(mean - self._range, sigma)) / self.span_siemens

    def lasting_error(self, matrix: np.ndarray, use: CellUse) -> float:
        """Return the RMS of what reading and time add to entries, relative to the largest one."""
        read = 2**0.5 * self.read_spread
        if use.age_s <= self._times[0]:
            return read
        mean, sigma = self._at(self._times[0], self._range)
        later, wider = self._at(use.age_s, self._range)
        grown = np.sqrt(np.maximum(wider**2 - sigma**2, 0.0))
        return float(np.hypot(read, _of_pair(np.hypot(later - mean, grown)) / self.span_siemens))

    def program(self, target: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Return what cells hold at the table's first time; none conducts less than nothing."""
        wanted = self._wanted(target)
        mean, sigma = self._at(self._times[0], wanted)
        drawn = random.standard_normal(target.shape)
        return self._relative(mean + sigma * self._deviation(wanted, drawn))

    def relaxed(
        self, held: np.ndarray, target: np.ndarray, use: CellUse, random: np.random.Generator
    ) -> np.ndarray:
        """Return what cells hold at their age: the mean has moved, the spread has changed."""
        if use.age_s <= self._times[0]:
            return held
        wanted = self._wanted(target)
        mean, sigma = self._at(self._times[0], wanted)
        later, wider = self._at(use.age_s, wanted)
        kept = np.minimum(np.divide(wider, sigma, where=sigma > 0, out=np.ones_like(sigma)), 1.0)
        grown = np.sqrt(np.maximum(wider**2 - sigma**2, 0.0))
        grown *= random.standard_normal(target.shape)
        siemens = self.g_off_siemens + held * self.span_siemens
        return self._relative(later + (siemens - mean) * kept + grown)

    def with_programming_sigma(self, sigma: float) -> Self:
        """Return the same cell with the spread of all cells scaled.

        Raises
        ------
        SettingsError
            The table has no spread that could be scaled.
        """
        plain = dataclasses.replace(self, sigma_scale=1.0).programming_spread
        if not plain and sigma:
            raise SettingsError(
                f"cell model 'table': {self.table} has no spread to scale to {sigma}; valid: 0"
            )
        return dataclasses.replace(self, sigma_scale=sigma / plain if plain else 1.0)

    @property
    def _points(self) -> Measured:
        assert self.measured is not None
        return self.measured

    @cached_property
    def _times(self) -> tuple[float, ...]:
        return self._points.times

    @cached_property
    def _targets(self) -> np.ndarray:
        return self._points.column(lambda point: point.target_siemens)[0]

    @cached_property
    def _means(self) -> np.ndarray:
        return self._points.column(lambda point: point.mean_siemens)

    @cached_property
    def _sigmas(self) -> np.ndarray:
        return self._points.column(lambda point: point.sigma_siemens)

    @cached_property
    def _range(self) -> np.ndarray:
        """Conductances over the whole range, the lowest first."""
        return np.linspace(self.g_off_siemens, self.g_on_siemens, _GRID)

    @cached_property
    def _deviates(self) -> np.ndarray | None:
        """Distributions by target, (targets, scores), where any is not normal."""
        rows = [point.deviates or SCORES for point in self._points.rows[: len(self._targets)]]
        return None if all(row == SCORES for row in rows) else np.array(rows)

    def _wanted(self, target: np.ndarray) -> np.ndarray:
        """Return in siemens what is written for relative targets."""
        wanted: np.ndarray = self.g_off_siemens + target * self.span_siemens
        if self.levels_only:
            middle = (self._targets[1:] + self._targets[:-1]) / 2
            wanted = self._targets[np.searchsorted(middle, wanted)]
        return wanted

    def _at(self, age_s: float, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and spread for targets at an age, in siemens."""
        place = np.interp(np.log(age_s), np.log(self._times), np.arange(len(self._times)))
        first = min(int(place), max(len(self._times) - 2, 0))
        share = place - first
        mean, sigma = (
            np.interp(wanted, self._targets, rows[first])
            if not share
            else np.interp(
                wanted, self._targets, (1 - share) * rows[first] + share * rows[first + 1]
            )
            for rows in (self._means, self._sigmas)
        )
        return mean, sigma * self.sigma_scale

    def _deviation(self, wanted: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        """Turn standard normal draws into draws of the distribution that was measured."""
        if self._deviates is None:
            return drawn
        place = np.interp(wanted, self._targets, np.arange(len(self._targets)))
        low = np.minimum(place.astype(int), len(self._targets) - 2)
        share = place - low
        deviation = np.zeros_like(drawn)
        for number, row in enumerate(self._deviates):
            weight = np.where(low == number, 1 - share, np.where(low + 1 == number, share, 0.0))
            used = weight > 0
            deviation[used] += weight[used] * np.interp(drawn[used], SCORES, row)
        return deviation

    def _relative(self, siemens: np.ndarray) -> np.ndarray:
        """Return conductances relative to the range; below zero there are none."""
        return (np.maximum(siemens, 0.0) - self.g_off_siemens) / self.span_siemens


def _of_pair(each: np.ndarray) -> float:
    """Return the RMS for a pair of which one cell holds anything and the other g_off, the first."""
    return float(np.sqrt(np.mean(each**2) + each[0] ** 2))
