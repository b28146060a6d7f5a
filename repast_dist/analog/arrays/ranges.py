"""Ranges of the converters of multipliers: of the call, fixed, or found from a sample of codes."""

import numpy as np

from repast_dist.analog.fixed_point import shared_step
from repast_dist.analog.specs import VmmSpec
from repast_dist.ground.rng import words

COUNTED_VECTORS = 32
"""Input vectors of a call, one at random of each of as many equal parts, whose codes set a
calibrated range."""


def some_rows(count: int, seed: int, *address: int | str) -> np.ndarray:
    """Return the numbers of the rows of a call, of so many, whose codes set a range: one at random
    of each of as many equal parts.
    """
    if count <= COUNTED_VECTORS:
        return np.arange(count)
    # Rows of a convolution are pixels in order: every n-th of them may all be at an edge.
    edges = np.arange(COUNTED_VECTORS + 1) * count // COUNTED_VECTORS
    within = words(COUNTED_VECTORS, seed, "calibration", *address).astype(np.uint64)
    within *= np.diff(edges).astype(np.uint64)
    return edges[:-1] + (within >> np.uint64(32)).astype(np.int64)


def fixed_ranges(spec: VmmSpec, rows: int) -> np.ndarray:
    """Return the ADC range of every slice where no call sets it, (slices,) float32."""
    if spec.adc.range == "lossless":
        return np.full(spec.slices, np.inf, np.float32)
    top = (2**spec.dac.bits - 1) * (spec.device.cell.levels - 1)
    return np.full(spec.slices, top * min(spec.rows, rows), np.float32)


def ranges_of(currents: np.ndarray, spec: VmmSpec) -> np.ndarray:
    """Return the calibrated range of every slice, (slices,) float32, for currents in levels, (N,
    passes, slices, M) float32, of which only the magnitudes are kept.
    """
    ranges = np.zeros(currents.shape[2], np.float32)
    np.abs(currents, out=currents)
    count = currents.shape[0] * currents.shape[1]
    by_slice = currents.reshape(count, *currents.shape[2:]).swapaxes(0, 1)
    for number, part in enumerate(by_slice):
        if part.size:
            ranges[number] = _high_percentile(part, spec.adc.percentile) * (1.0 + spec.adc.margin)
    return ranges


def input_step(values: np.ndarray, reach: float, spec: VmmSpec) -> float:
    """Return what one unit of the integer inputs stands for, a power of two; 1 for zeros."""
    if spec.dac.range == "calibrated" and values.size:
        # Where most inputs are zero, the percentile may be, too.
        reach = _high_percentile(np.abs(values), spec.dac.percentile) or reach
    return shared_step(reach, spec.input_bits)


def _high_percentile(values: np.ndarray, percentile: float) -> float:
    """Return what `numpy.percentile` does for (N, M) values, fast where few are above it.

    The k-th largest row maximum is a lower bound of the k-th largest value, so only the few
    values above the bound have to be put in order.
    """
    position = percentile / 100.0 * (values.size - 1)
    above = values.size - int(position)
    maxima = values.max(axis=1)
    if above > len(maxima):
        return float(np.percentile(values, percentile))
    bound = np.partition(maxima, len(maxima) - above)[len(maxima) - above]
    ordered = np.sort(values[values >= bound])
    lower, upper = ordered[-above], ordered[1 - above if above > 1 else -1]
    return float(lower + (upper - lower) * (position - int(position)))
