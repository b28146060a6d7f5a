"""What the cells of multipliers hold: weights cut into slices, with the errors of cells and wires.

A weight is a signed integer whose magnitude is cut into slices of ``cell.bits`` bits, each on a
differential pair, or which is stored with an offset, each slice on one cell (`offset.py`).
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence

import numpy as np

from repast_dist.analog.arrays.curve import steeper
from repast_dist.analog.arrays.drivers import appearing
from repast_dist.analog.arrays.offset import offset_arrays, offset_levels, offset_of
from repast_dist.analog.arrays.programming import (
    differential_levels,
    pair_conductances,
    to_siemens,
)
from repast_dist.analog.arrays.variation import scaled, shared_factors
from repast_dist.analog.arrays.wires import transfer_matrix
from repast_dist.analog.kernels.base import Contents, Drawn, Kept, in_steps, step_of
from repast_dist.analog.kernels.conversion import largest_magnitudes
from repast_dist.analog.kernels.draws import (
    NormalDraws,
    cut_into_digits,
    round_quotients,
)
from repast_dist.analog.specs import VmmSpec
from repast_dist.ground.errors import DataError
from repast_dist.ground.numbers import ceil_div


@dataclasses.dataclass(frozen=True)
class PhysicalArray:
    """One crossbar of a multiplier.

    Attributes
    ----------
    first_row, first_column : int
        Where it lies in the multiplier's rows and physical columns.
    siemens : ndarray
        (rows, columns) float64: columns are weights, in them slices, in them both cells of a pair;
        or one cell, and behind all of them that of the references.
    """

    first_row: int
    first_column: int
    siemens: np.ndarray


def quantized(weights: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Round each of many matrices to whole numbers of `bits` bits, sign included, scaled by its
    largest entry.

    Parameters
    ----------
    weights : ndarray
        (B, K, M), any float dtype.
    bits : int
        Of the whole numbers.

    Returns
    -------
    integers : ndarray
        (B, K, M) float64.
    scale : ndarray
        (B,) float64, what one of them is worth; 0 for zeros, so that errors of their cells are
        worth nothing either.

    Raises
    ------
    DataError
        Not all are finite numbers.
    """
    weights = np.ascontiguousarray(weights, np.float64)
    scale = largest_magnitudes(weights)
    if not np.isfinite(scale).all():
        raise DataError("a multiplier takes finite numbers, got NaN or infinity")
    scale /= 2.0 ** (bits - 1) - 1
    integers = np.empty(weights.shape)
    round_quotients(weights, np.where(scale > 0, scale, 1.0), integers)
    return integers, scale


def contents(
    integers: np.ndarray, spec: VmmSpec, seed: int, places: list[tuple[int | str, ...]]
) -> Contents:
    """Return what pairs, or cells beside their references, appear to hold of the whole numbers of
    many multipliers.

    Parameters
    ----------
    integers : ndarray
        (B, K, M) float64.
    spec : VmmSpec
        How each multiplier is built.
    seed : int
        The run's seed.
    places : list of tuple of (int or str)
        Addresses of the draws of the multipliers, or one for all of them.

    """
    cell, most = spec.device.cell, math.inf
    if _straight(spec):
        most = (cell.levels - 1) * cell.highest
        if cell.law is not None and most < math.inf and integers.size and not cell.changes:
            each = len(integers) // len(places) * integers[0].size * spec.slices
            draws = (NormalDraws(seed, "programming", "vmm", *where) for where in places)
            streams = tuple(stream.stream(each) for stream in draws)
            return Drawn(integers, spec.slices, cell.bits, cell.law, streams, most)
    parts = [integers] if len(places) == 1 else [part[None] for part in integers]
    held = [_held(part, spec, seed, *where) for part, where in zip(parts, places, strict=True)]
    levels = held[0] if len(held) == 1 else np.concatenate(held)
    step = step_of(levels, most)
    return Kept(in_steps(levels, step), step)


def joined(parts: Sequence[Contents], integers: np.ndarray, whole: bool) -> Contents | None:
    """Return what several groups of multipliers hold as what one group does; None where it would
    not be the same.

    Parameters
    ----------
    parts : sequence of Contents
        Of the groups.
    integers : ndarray
        (B, K, M) float64 whole numbers of all of them.
    whole : bool
        Whether they hold whole levels, which are multiples of any step.
    """
    if isinstance(parts[0], Drawn):
        drawn = [part for part in parts if isinstance(part, Drawn)]
        streams = tuple(stream for part in drawn for stream in part.streams)
        return dataclasses.replace(drawn[0], integers=integers, streams=streams, tiles={})
    kept = [part for part in parts if isinstance(part, Kept)]
    step = min(part.step for part in kept)
    if not whole and step != max(part.step for part in kept):
        return None
    return Kept(np.concatenate([part.planes for part in kept]), step)


def _straight(spec: VmmSpec) -> bool:
    """Whether what pairs appear to hold is what was programmed."""
    ideal = spec.device.wire.ideal and spec.device.variation.none
    return spec.differential and ideal and not spec.dac.gain_error


def _held(integers: np.ndarray, spec: VmmSpec, seed: int, *address: int | str) -> np.ndarray:
    """Return what pairs appear to hold of (B, K, M) whole numbers, (B, K, slices, M) in levels; the
    same DACs drive all of them.
    """
    count, rows, columns = integers.shape
    digits = _digits(integers.reshape(count * rows, columns), spec)
    cell, use = spec.device.cell, spec.cell_use
    if not spec.differential:
        held = offset_levels(digits, spec, seed, *address)
    elif spec.device.wire.ideal and spec.device.variation.none:
        held = differential_levels(digits, cell, seed, "vmm", *address, use=use)
    else:
        pairs = _pairs(digits, spec, seed, *address)
        wired = not spec.device.wire.ideal
        held = _through_wires(*pairs, spec) if wired else (pairs[0] - pairs[1]) * (cell.levels - 1)
    return appearing(held.reshape(count, rows, spec.slices, columns), spec, seed, *address)


def physical_arrays(
    weights: np.ndarray, spec: VmmSpec, seed: int = 0, *address: int | str
) -> list[PhysicalArray]:
    """Return the crossbars that `program_vmm` programs with the same arguments."""
    integers, _ = quantized(weights[None], spec.weight_bits)
    digits = _digits(integers[0], spec)
    if not spec.differential:
        arrays = offset_arrays(digits, spec, seed, *address)
        across = ceil_div(digits.shape[1] * digits.shape[2], spec.weight_columns)
        return [
            PhysicalArray(number // across * spec.tall, number % across * spec.columns, siemens)
            for number, siemens in enumerate(arrays)
        ]
    pairs = _pairs(digits, spec, seed, *address)
    return list(_cut(_physical_columns(*pairs, spec), spec))


def _pairs(
    digits: np.ndarray, spec: VmmSpec, seed: int, *address: int | str
) -> tuple[np.ndarray, np.ndarray]:
    cell, variation, use = spec.device.cell, spec.device.variation, spec.cell_use
    pairs = pair_conductances(digits, cell, seed, "vmm", *address, use=use)
    if variation.none:
        return pairs
    rows, slices, columns = digits.shape
    size = rows, columns * slices * 2
    array = spec.tall, 2 * spec.weight_columns
    factors = shared_factors(size, array, variation, use, seed, "vmm", *address)
    # (2, K, slices, M) from the order of the physical columns.
    sides = factors.reshape(rows, columns, slices, 2).transpose(3, 0, 2, 1)
    positive, negative = (scaled(*side, cell) for side in zip(pairs, sides, strict=True))
    return positive, negative


def _physical_columns(positive: np.ndarray, negative: np.ndarray, spec: VmmSpec) -> np.ndarray:
    """Return relative conductances (K, slices, M) as siemens in physical order, (K, 2 slices M).

    The columns of a pair lie side by side, as do the slices of a weight.
    """
    # (K, M, slices, 2): the order of the physical columns.
    both = np.stack([positive, negative], axis=-1).transpose(0, 2, 1, 3)
    return to_siemens(both.reshape(len(positive), -1), spec.device.cell)


def _cut(siemens: np.ndarray, spec: VmmSpec) -> Iterator[PhysicalArray]:
    """Yield views of the arrays that physical columns are spread over."""
    width = 2 * spec.weight_columns
    for first in range(0, len(siemens), spec.tall):
        for left in range(0, siemens.shape[1], width):
            part = siemens[first : first + spec.tall, left : left + width]
            yield PhysicalArray(first, left, part)


def _through_wires(positive: np.ndarray, negative: np.ndarray, spec: VmmSpec) -> np.ndarray:
    """Return what pairs appear to hold behind resistive wires, (K, slices, M), in levels.

    Arrays are as large as what they hold: wires end where weights do.
    """
    cell, wire = spec.device.cell, spec.device.wire
    rows, slices, columns = positive.shape
    more = steeper(spec.device.curve)
    siemens = _physical_columns(positive, negative, spec)
    siemens *= more
    for array in _cut(siemens, spec):
        array.siemens[:] = transfer_matrix(array.siemens, wire)
    pairs = siemens.reshape(rows, columns, slices, 2).transpose(0, 2, 1, 3)
    per_siemens = (cell.levels - 1) / (cell.span_siemens * more)
    held: np.ndarray = (pairs[..., 0] - pairs[..., 1]) * per_siemens
    return held


def _digits(integers: np.ndarray, spec: VmmSpec) -> np.ndarray:
    """Return signed digits, or those of what is stored with an offset, (K, slices, M) int16, the
    least significant slice first.
    """
    digits = np.empty((len(integers), spec.slices, integers.shape[1]), np.int16)
    stored, bits = integers + offset_of(spec), spec.device.cell.bits
    if spec.weight_bits - spec.differential < 32:
        cut_into_digits(stored, bits, digits)
        return digits
    # The offset takes them beyond what a signed number of 32 bits holds.
    whole = stored.astype(np.int64)
    for number in range(spec.slices):
        digits[:, number] = (whole >> (bits * number)) & ((1 << bits) - 1)
    return digits
