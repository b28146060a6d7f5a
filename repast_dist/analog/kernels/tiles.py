"""What a processor holds of multipliers: row tiles, worked on in parts that stay in its caches."""

import abc
from collections.abc import Callable
from typing import Any

import numpy as np

from repast_dist.analog.kernels.base import Conversions, Design, Held
from repast_dist.analog.kernels.conversion import convert_and_add, pass_energies
from repast_dist.analog.kernels.memory import reused
from repast_dist.ground.numbers import ceil_div

_PART_BYTES = 3 * 2**19
"""Currents that are worked on at a time, with what drives them."""

_BLOCK_COLUMNS = 1024
"""Columns of all slices of such a part."""

_TOGETHER = 16
"""Samples of a part are a multiple of what matrix units take at a time."""


class Tile(abc.ABC):
    """One row tile.

    Attributes
    ----------
    rows, slices : int
        Its rows, and the slices of a weight.
    step : float
        What one unit of the currents is worth, in levels.
    base : float
        What separates two passes that share a plane; 0 where each has its own.
    parts : int
        Numbers that a current is given by; see `convert_and_add`.
    """

    rows: int
    slices: int
    step: float
    base: float = 0.0
    parts: int = 1

    def planes(self, passes: int) -> int:
        """Return how many planes so many passes take."""
        return ceil_div(passes, 2) if self.base else passes

    @abc.abstractmethod
    def drive(self, integers: np.ndarray, bits: int, passes: int, packed: bool = True) -> Any:
        """Return inputs as the tile's products take them, valid until the next call.

        Parameters
        ----------
        integers : ndarray
            (N, rows) int32 without gaps.
        bits, passes : int
            Magnitude bits per pass, passes per input.
        packed : bool
            Passes may share planes if there is a base.
        """

    @abc.abstractmethod
    def currents(self, driven: Any, block: int, columns: int) -> np.ndarray:
        """Return the currents of a block of columns: (N, planes, parts, slices, columns), in steps,
        valid until the next call.

        Parameters
        ----------
        driven
            What `drive` has returned.
        block, columns : int
            Number of the block, and weights in it.
        """

    def energies(self, integers: np.ndarray, bits: int, passes: int) -> np.ndarray:
        """Return the sum of squares of what drives the tile in each pass, (N, passes) float32."""
        energies = np.empty((len(integers), passes), np.float32)
        pass_energies(integers, bits, energies)
        return energies


TileMaker = Callable[[list[np.ndarray], Design], Tile]
"""Makes a tile of its blocks of columns, (rows, slices, columns) float32 each, and of the design of
its rows."""


class Tiled(Held):
    """Row tiles, one after the other.

    Parameters
    ----------
    levels, design
        See `Held`.
    make : TileMaker
        Makes the tiles.

    Attributes
    ----------
    tiles : list of Tile
        The tiles.
    """

    def __init__(self, levels: np.ndarray, design: Design, make: TileMaker) -> None:
        super().__init__(levels.shape, design)
        _, _, slices, columns = levels.shape
        # The draws of a sample belong to a whole row.
        width = max(columns if design.noisy else _BLOCK_COLUMNS // slices, 1)
        lefts = range(0, max(columns, 1), width)
        self._blocks = [slice(left, min(left + width, columns)) for left in lefts]
        self.tiles = []
        for number in range(len(levels) * self.per):
            which, rows = self.place(number)
            blocks = [levels[which, rows, :, block] for block in self._blocks]
            self.tiles.append(make(blocks, design.of(rows)))

    def add_products(self, integers: np.ndarray, result: np.ndarray, how: Conversions) -> int:
        """Convert the currents of all row tiles and add them, weighted, to the result."""
        clipped, count = 0, integers.shape[1]
        for number in range(len(self.tiles)):
            at_once = self._at_once(number)
            for first in range(0, count, at_once):
                rows = range(first, min(first + at_once, count))
                clipped += self._add_part(number, rows, integers, result, how)
        return clipped

    def currents(self, number: int, rows: range, integers: np.ndarray) -> np.ndarray:
        """Return the currents of one row tile in levels."""
        tile, design = self.tiles[number], self.design
        shape = len(rows), design.passes, *self.shape[2:]
        together = reused("currents of all columns", shape, np.float32)
        driven = self._inputs(number, rows, integers)
        ready = tile.drive(driven, design.bits, design.passes, packed=False)
        for block, where in enumerate(self._blocks):
            parts = tile.currents(ready, block, where.stop - where.start)
            out = together[..., where]
            out[:] = parts[:, :, 0]
            if tile.parts == 2:
                out *= np.float32(256.0)
                out += parts[:, :, 1].astype(np.float32)
            out *= np.float32(tile.step)
        return together

    def _inputs(self, number: int, rows: range, integers: np.ndarray) -> np.ndarray:
        """Return what goes into a row tile, (rows, rows of the tile) int32 without gaps."""
        which, where = self.place(number)
        part = integers[which, rows.start : rows.stop, where]
        if self.per == 1:
            return part
        driven = reused("inputs of a tile", part.shape, np.int32)
        driven[:] = part
        return driven

    def _at_once(self, number: int) -> int:
        """Return how many samples a part has."""
        tile, design, widest = self.tiles[number], self.design, self._blocks[0].stop
        currents = 4 * tile.parts * tile.planes(design.passes) * tile.slices * widest
        fit = _PART_BYTES // (currents + 4 * design.passes * tile.rows)
        return max(fit // _TOGETHER * _TOGETHER or fit, 1)

    def _add_part(
        self,
        number: int,
        rows: range,
        integers: np.ndarray,
        result: np.ndarray,
        how: Conversions,
    ) -> int:
        tile, design = self.tiles[number], self.design
        which, place = divmod(number, self.per)
        driven = self._inputs(number, rows, integers)
        spread = self._spread(tile, driven)
        ready = tile.drive(driven, design.bits, design.passes)
        clipped = 0
        for block, where in enumerate(self._blocks):
            width = where.stop - where.start
            errors = how.errors[place]
            if len(self._blocks) > 1:
                errors = np.ascontiguousarray(errors[..., where])
            clipped += convert_and_add(
                tile.currents(ready, block, width),
                result[which, rows.start : rows.stop],
                where.start,
                reused("total", (width,), self.total_dtype(how.ranges)),
                design.passes,
                design.bits,
                tile.base,
                tile.step,
                how.ranges,
                design.codes,
                design.slice_weights,
                spread,
                design.noise_codes,
                how.keys[place],
                which * integers.shape[1] + rows.start,
                how.rows_of_call(len(integers) * integers.shape[1]),
                errors,
                how.counted[which, rows.start : rows.stop],
                how.counts,
                how.least,
            )
        return clipped

    def _spread(self, tile: Tile, driven: np.ndarray) -> np.ndarray:
        """Return the standard deviation of read noise, (N, passes) float32 in levels; (0, 0) where
        neither cells nor converters are noisy.
        """
        design = self.design
        if not design.noisy:
            return np.zeros((0, 0), np.float32)
        if not design.read_sigma:
            return np.zeros((len(driven), design.passes), np.float32)
        return read_spread(tile.energies(driven, design.bits, design.passes), design)


def read_spread(energies: np.ndarray, design: Design) -> np.ndarray:
    """Return the standard deviation of read noise in levels for sums of squares of what drives a
    tile, float32.
    """
    # Both cells of a pair fluctuate, whatever they hold.
    return np.asarray(np.float32(design.read_sigma) * np.sqrt(np.float32(2.0) * energies))
