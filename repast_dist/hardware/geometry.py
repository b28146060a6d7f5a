"""Counts the arrays that a matrix takes, and what multiplying by it and writing it make them do.

A matrix (K, M) takes ``ceil(K / rows)`` x ``ceil(M * slices / weight columns)`` arrays. Every input
vector drives all of them ``passes`` times, and every pass converts each column of each row tile
once. These are the counts of `repast_dist.analog.arrays.vmm`, from shapes alone. All functions
accept NumPy arrays of shapes.
"""

import dataclasses
from typing import Any

import numpy as np

from repast_dist.analog.arrays.ranges import COUNTED_VECTORS
from repast_dist.analog.specs import DeviceSpec
from repast_dist.ground.numbers import BITS_PER_BYTE, ceil_div
from repast_dist.hardware.specs import ChipSpec

Counts = dict[str, np.ndarray]

STEP_OPS = 2
"""Digital operations per input value: a comparison that finds the largest input of a call, and a
shift by the exponent of the step that follows from it."""


@dataclasses.dataclass(frozen=True)
class Geometry:
    """The figures of a chip's arrays that counts depend on.

    Attributes
    ----------
    rows, weight_columns : int
        Rows of one array, and signed slices that fit side by side in it.
    columns_per_weight : int
        Physical columns of one signed slice: 2, or 1 where weights are stored with an offset and a
        column of each array holds references.
    slices, passes : int
        Cells per weight magnitude, and times a row is driven per input vector.
    driven_rows : int
        Rows of an array that are driven at a time.
    value_bytes : int
        Bytes of one input or result in a buffer.
    pulses : float
        Programming pulses per written cell.
    verified : bool
        Whether a read follows every pulse.
    counted_vectors : int
        Input vectors of a call at most whose codes are counted for the range of later ones.
    """

    rows: int
    weight_columns: int
    columns_per_weight: int
    slices: int
    passes: int
    driven_rows: int
    value_bytes: int
    pulses: float
    verified: bool
    counted_vectors: int

    @classmethod
    def of(
        cls,
        chip: ChipSpec,
        device: DeviceSpec,
        weight_bits: int,
        input_bits: int,
        *,
        differential: bool,
    ) -> "Geometry":
        """Return how matrices of so many bits lie on the multiplying arrays of a chip, in pairs of
        columns or with an offset.
        """
        return cls(
            rows=chip.vmm.rows,
            weight_columns=chip.vmm.pairs if differential else chip.vmm.cols - 1,
            columns_per_weight=2 if differential else 1,
            slices=ceil_div(weight_bits - differential, device.cell.bits),
            passes=ceil_div(input_bits - 1, chip.dac.bits),
            driven_rows=chip.vmm.rows,
            value_bytes=ceil_div(input_bits, BITS_PER_BYTE),
            pulses=device.cell.write_pulses,
            verified=device.cell.write_verify,
            counted_vectors=COUNTED_VECTORS if chip.adc.follows else 0,
        )

    @property
    def references(self) -> int:
        """Columns of references in an array."""
        return 2 - self.columns_per_weight


def array_count(g: Geometry, rows: Any, columns: Any, groups: Any = 1) -> Any:
    """Return the arrays that `groups` matrices of rows x columns values take.

    Small matrices of several groups lie along the diagonal of one array.
    """
    row_tiles, column_tiles = ceil_div(rows, g.rows), ceil_div(columns * g.slices, g.weight_columns)
    together = _together(g, rows, columns)
    packed = ceil_div(groups, np.maximum(together, 1))
    return np.where(together >= 1, packed, groups * row_tiles * column_tiles)


def _together(g: Geometry, rows: Any, columns: Any) -> Any:
    """Return how many matrices fit along the diagonal of one array; 0: one takes several arrays."""
    return np.minimum(
        g.rows // np.maximum(rows, 1), g.weight_columns // np.maximum(columns * g.slices, 1)
    )


def product_counts(
    g: Geometry,
    vectors: Any,
    rows: Any,
    columns: Any,
    groups: Any = 1,
    copies: Any = 1,
    stacked: Any = False,
) -> Counts:
    """Return the counts of multiplying input vectors by matrices.

    Parameters
    ----------
    g : Geometry
        The arrays.
    vectors : int array
        Input vectors per group.
    rows, columns : int array
        Shape of one group's matrix, in values.
    groups : int array
        Independent matrices that work at the same time.
    copies : int array
        Copies of each matrix, which share its input vectors and so shorten the serial count.
    stacked : bool array
        Whether the groups share their range, and counters count vectors of all of them together.

    Returns
    -------
    dict
        Counts of the op table, and ``counter_ops``: codes that counters at the converters count,
        at the converters' pace.
    """
    row_tiles, column_tiles = ceil_div(rows, g.rows), ceil_div(columns * g.slices, g.weight_columns)
    driven = vectors * g.passes * groups
    # The sum of the inputs is formed once, and its multiple is subtracted from each result.
    offset_ops = g.references * (rows + columns)
    calls = np.where(stacked, 1, groups)
    counted = calls * np.minimum(vectors * groups // calls, g.counted_vectors)
    return {
        "crossbar_reads": vectors * g.passes * array_count(g, rows, columns, groups),
        "cells_read": driven
        * rows
        * (columns * g.slices * g.columns_per_weight + column_tiles * g.references),
        "dac_conversions": driven * rows * column_tiles,
        "adc_conversions": driven * row_tiles * columns * g.slices,
        "digital_ops": vectors
        * groups
        * (columns * (row_tiles - 1) + STEP_OPS * rows + offset_ops),
        "counter_ops": counted * g.passes * row_tiles * columns * g.slices,
        "buffer_bytes": vectors * groups * (rows + columns) * g.value_bytes,
        "serial_passes": ceil_div(vectors, copies) * g.passes,
    }


def write_counts(
    g: Geometry, rows: Any, columns: Any, groups: Any, arrays_at_once: Any, copies: Any = 1
) -> Counts:
    """Return the counts of writing matrices into arrays.

    All cells of a row get their pulses at the same time; a row takes the mean number of a cell.
    After each pulse the row is read, one cell of every pair at a time, with the converters of
    products.

    Parameters
    ----------
    g : Geometry
        The arrays.
    rows, columns : int array
        Shape of one group's matrix, in values.
    groups, copies : int array
        Matrices, and copies of each.
    arrays_at_once : int array
        Arrays that are written at the same time, each row by row.
    """
    return Writes.of(g, rows, columns, groups, copies).counts(arrays_at_once)


def written(g: Geometry, rows: Any, columns: Any, groups: Any, copies: Any = 1) -> Counts:
    """Return those of the counts of `write_counts` that do not depend on how many arrays are
    written at the same time.
    """
    beside = ceil_div(columns * g.slices, g.weight_columns)
    wide = columns * g.slices * g.columns_per_weight + beside * g.references
    cells = rows * groups * copies * wide
    pulses = whole(cells * g.pulses)
    counts = {
        "cell_writes": cells,
        "write_pulses": pulses,
        "buffer_bytes": rows * columns * groups * g.value_bytes,
    }
    if g.verified:
        # Whatever is written, a row spans the arrays side by side that hold its columns.
        driven = rows * beside * groups * copies
        reads = whole(driven * g.columns_per_weight * g.pulses)
        counts |= {
            "crossbar_reads": reads,
            "cells_read": pulses,
            "dac_conversions": reads,
            "adc_conversions": pulses,
        }
    return counts


@dataclasses.dataclass(frozen=True, eq=False)
class Writes:
    """Matrices that are written into arrays, however many of these are written at the same time.

    Attributes
    ----------
    g : Geometry
        The arrays.
    arrays : int array
        Arrays that are written.
    rows : int array
        Rows of one of them that are.
    work : dict
        Counts that do not depend on how many arrays are written at the same time.
    """

    g: Geometry
    arrays: Any
    rows: Any
    work: Counts

    @classmethod
    def of(cls, g: Geometry, rows: Any, columns: Any, groups: Any, copies: Any = 1) -> "Writes":
        """Count what is written; parameters are those of `write_counts`."""
        # Matrices along the diagonal of an array lie in rows of their own.
        stacked = rows * np.clip(_together(g, rows, columns), 1, groups)
        arrays = array_count(g, rows, columns, groups) * copies
        work = written(g, rows, columns, groups, copies)
        return cls(g, arrays, np.minimum(stacked, g.rows), work)

    def take(self, place: np.ndarray) -> "Writes":
        """Return the writes of some matrices."""
        work = {name: values.take(place) for name, values in self.work.items()}
        return Writes(self.g, self.arrays.take(place), self.rows.take(place), work)

    def serial(self, at_once: Any, times: Any = 1) -> Counts:
        """Return the counts that decide how long it takes, if so many arrays are written at the
        same time and the matrices so many times.
        """
        row_pulses = ceil_div(self.arrays * times, at_once) * self.rows * self.g.pulses
        serial = {"serial_row_pulses": row_pulses}
        if self.g.verified:
            serial["serial_passes"] = whole(row_pulses * self.g.columns_per_weight)
        return serial

    def counts(self, at_once: Any) -> Counts:
        """Return all counts, if so many arrays are written at the same time."""
        return self.work | self.serial(at_once)


def whole(counts: Any) -> Any:
    """Return mean counts as the nearest integers."""
    return np.rint(counts).astype(np.int64)


def bus_words(buffer_bytes: Any, bus_bits: Any) -> Any:
    """Return how many words follow each other on buses that are so many bits wide together."""
    return ceil_div(buffer_bytes * BITS_PER_BYTE, bus_bits)


def with_buffers(counts: Counts, chip: ChipSpec, banks: Any) -> Counts:
    """Return counts of products together with the serial work of buses and digital units.

    Parameters
    ----------
    counts : dict
        As `product_counts` returns them.
    chip : ChipSpec
        The chip.
    banks : int array
        Banks at work, side by side: the buses of their tiles carry the bytes, and their lanes add
        up partial sums.
    """
    return TilesAtWork.of(chip, ceil_div(banks, chip.banks_per_tile)).serve(counts)


@dataclasses.dataclass(frozen=True, eq=False)
class TilesAtWork:
    """What some tiles do beside their arrays.

    Attributes
    ----------
    bus_bits : int array
        Bits that their buses carry in a clock.
    lanes : int array
        Digital lanes, at least one.
    """

    bus_bits: Any
    lanes: Any

    @classmethod
    def of(cls, chip: ChipSpec, tiles: Any) -> "TilesAtWork":
        """Return what so many tiles do."""
        return cls(chip.bus_bits * tiles, np.maximum(1, chip.digital_lanes * tiles))

    def serve(self, counts: Counts) -> Counts:
        """Return counts of products, with what buses and digital lanes do for them in turn."""
        kept = {name: values for name, values in counts.items() if name != "counter_ops"}
        return kept | {
            # A counter adds 1 for every code and holds up nobody.
            "digital_ops": counts["digital_ops"] + counts["counter_ops"],
            "serial_buffer_words": bus_words(counts["buffer_bytes"], self.bus_bits),
            "serial_digital_ops": ceil_div(counts["digital_ops"], self.lanes),
        }
