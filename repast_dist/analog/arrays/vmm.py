"""Vector-matrix multiplication on bit-sliced, bit-serially driven crossbars.

A weight is a signed integer whose magnitude is cut into slices of ``cell.bits`` bits, each on a
differential pair, or which is stored with an offset, each slice on one cell (`offset.py`); an input
is a signed integer whose magnitude is applied ``dac.bits`` bits at a time. Every (pass, slice, row
tile) gives one current per column, which an ADC rounds; shift-and-add puts them together.
"""

import dataclasses
import warnings
from collections.abc import Iterator
from functools import cached_property

import numpy as np

from repast_dist.analog.arrays.converters import (
    BINS,
    all_converter_errors,
    least_that_counts,
    needed_ranges,
)
from repast_dist.analog.arrays.curve import steeper
from repast_dist.analog.arrays.drivers import appearing
from repast_dist.analog.arrays.offset import offset_arrays, offset_levels, offset_of, take_off
from repast_dist.analog.arrays.programming import (
    differential_levels,
    pair_conductances,
    quantize_symmetric,
    to_siemens,
)
from repast_dist.analog.arrays.tiles import hold
from repast_dist.analog.arrays.variation import scaled, shared_factors
from repast_dist.analog.arrays.wires import transfer_matrix
from repast_dist.analog.fixed_point import shared_step
from repast_dist.analog.kernels.base import EXACT_FLOAT32, Conversions, Held, in_steps
from repast_dist.analog.kernels.conversion import largest_magnitude, round_to_integers
from repast_dist.analog.kernels.draws import cut_into_digits
from repast_dist.analog.kernels.memory import reused
from repast_dist.analog.specs import VmmSpec
from repast_dist.ground.errors import DataError
from repast_dist.ground.numbers import ceil_div
from repast_dist.ground.rng import generator, words

CLIP_WARNING_RATE = 0.01
"""Share of conversions beyond a calibrated range above which a product warns."""

COUNTED_VECTORS = 32
"""Input vectors of a call, one at random of each of as many equal parts, whose codes set a
calibrated range."""


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


class ClippingWarning(UserWarning):
    """Kept ADC ranges clip more than `CLIP_WARNING_RATE` of the conversions."""


@dataclasses.dataclass(frozen=True)
class VmmProduct:
    """A product, and how its converters fared.

    Attributes
    ----------
    values : ndarray
        (N, M) float64.
    conversions, clipped : int
        ADC conversions, and how many of them were beyond the range; none of an exact product.
    clipped_inputs : int
        Inputs beyond the DAC's range.
    needed : ndarray or None
        (slices,) float32, ADC ranges that this product asks for, where they are calibrated.
    """

    values: np.ndarray
    conversions: int = 0
    clipped: int = 0
    clipped_inputs: int = 0
    needed: np.ndarray | None = None

    @property
    def clip_rate(self) -> float:
        """Share of the conversions that were beyond the ADC's range."""
        return self.clipped / max(self.conversions, 1)


@dataclasses.dataclass
class VmmArray:
    """A programmed multiplier.

    Attributes
    ----------
    spec : VmmSpec
        How it is built.
    shape : tuple of int
        (K, M) of the weights.
    weight_scale : float
        Weight of one unit of the integer weights.
    integers : ndarray
        (K, M) float64 whole numbers: what was meant to be programmed.
    planes : ndarray or None
        (K, slices, M) float32, what the pairs hold, in units of one level, rounded to steps (see
        `kernels.base`); None when the product is exact (ideal cells, lossless ADC).
    ranges : ndarray or None
        (slices,) ADC ranges in units of one level, once calibrated.
    input_step : float or None
        What one unit of the integer inputs stands for, once calibrated; None: of every call anew.
    address, seed : tuple of (int or str), int
        Address of the array's random draws, such as read noise, and the run's seed.
    site : tuple of (int or str)
        Where its converters are, whose errors are those of whatever is programmed there.
    first_column : int
        Column of the programmed weights that is the first of these.
    """

    spec: VmmSpec
    shape: tuple[int, int]
    weight_scale: float
    integers: np.ndarray
    planes: np.ndarray | None
    ranges: np.ndarray | None = None
    input_step: float | None = None
    address: tuple[int | str, ...] = ()
    seed: int = 0
    site: tuple[int | str, ...] = ()
    first_column: int = 0

    @cached_property
    def _held(self) -> Held:
        """What the arrays hold, ready for products."""
        assert self.planes is not None
        return hold(self.planes[None], self.spec, self.seed, *self.address)

    @cached_property
    def _exact(self) -> np.ndarray:
        """Integer weights for exact products."""
        return self.integers.astype(exact_dtype(self.spec, self.shape[0]))

    @cached_property
    def _errors(self) -> np.ndarray:
        """What the converters of every row tile make of codes, see `converter_errors`."""
        columns = (self.first_column, self.first_column + self.shape[1])
        return all_converter_errors(self.spec, columns, self._held.per, self.seed, *self.site)

    def multiply(
        self, inputs: np.ndarray, *call: int | str, ranges: np.ndarray | None = None
    ) -> VmmProduct:
        """Return ``inputs @ weights`` as the hardware computes it.

        Parameters
        ----------
        inputs : ndarray
            (N, K), any float dtype. They share one step, see `DacSpec`; beyond that, and an ADC
            range calibrated on the call, rows do not influence each other.
        *call
            Address of this product's noise, behind the array's own; noise depends on it and on
            the row's number in the call, not on how many products were done before.
        ranges : ndarray, optional
            (slices,) float32 ADC ranges in units of one level; None: those that are kept, and
            otherwise those of the call.

        Returns
        -------
        VmmProduct
            Beside inputs and result, at most about 10 MB are in use, or what one
            row of inputs needs.

        Raises
        ------
        DataError
            Inputs are not finite or of the wrong width.

        Warns
        -----
        ClippingWarning
            Kept ranges do not fit these inputs.
        """
        if self.planes is None:
            integers, scale, clipped_inputs = self._converted(inputs, self._exact.dtype)
            product = VmmProduct(np.asarray(integers @ self._exact, np.float64))
        else:
            integers, scale, clipped_inputs = self._converted(inputs, np.dtype(np.int32))
            product = self._multiply_planes(integers, call, ranges)
        values = product.values
        values *= scale * self.weight_scale
        return dataclasses.replace(product, clipped_inputs=clipped_inputs)

    def multiply_codes(self, codes: np.ndarray, *call: int | str) -> VmmProduct:
        """Return ``codes @ integers`` for inputs that a digital unit has scaled already.

        Parameters
        ----------
        codes : ndarray
            (N, K) whole numbers of ``input_bits`` bits, sign included.
        *call
            As for `multiply`.
        """
        if self.planes is None:
            return VmmProduct(np.asarray(codes @ self._exact, np.float64))
        return self._multiply_planes(np.ascontiguousarray(codes, np.int32), call)

    def columns(self, start: int, stop: int) -> "VmmArray":
        """Return the same array of which only the columns of some weights are converted."""
        return dataclasses.replace(
            self,
            shape=(self.shape[0], stop - start),
            integers=self.integers[:, start:stop],
            planes=None if self.planes is None else self.planes[:, :, start:stop],
            address=(*self.address, "columns", start),
            first_column=self.first_column + start,
        )

    def calibrate(self, inputs: np.ndarray) -> None:
        """Set and keep the converters' calibrated ranges from a sample of inputs, (N, K)."""
        if self.spec.dac.range == "calibrated":
            self.input_step = input_step(*_checked(inputs, self.shape[0]), self.spec)
        if self.planes is not None:
            integers, _, _ = self._converted(inputs, np.dtype(np.int32))
            self.ranges = self._ranges_for(integers, "calibrate")

    def _converted(self, inputs: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, float, int]:
        """Return inputs as whole numbers of a dtype, what one of them is worth, and how many were
        cut off.
        """
        values, largest = _checked(inputs, self.shape[0])
        step = self.input_step
        if step is None:
            step = input_step(values, largest, self.spec)
        top = 2.0 ** (self.spec.input_bits - 1) - 1
        integers = reused("integers", values.shape, dtype)
        clipped = round_to_integers(values, step, top, integers)
        return integers, step, clipped

    def _multiply_planes(
        self,
        integers: np.ndarray,
        call: tuple[int | str, ...],
        ranges: np.ndarray | None = None,
    ) -> VmmProduct:
        """Convert with the ranges given, and count codes for those needed; else with those kept;
        else with those of the call.
        """
        spec, (_, columns) = self.spec, self.shape
        calibrated = spec.adc.range == "calibrated"
        counted, needed = np.zeros(0, np.bool_), None
        counts = np.zeros((spec.slices, BINS + 1), np.int64)
        if calibrated and ranges is not None:
            counted = np.zeros(len(integers), np.bool_)
            counted[self._some_rows(len(integers), *call)] = True
        elif self.ranges is not None:
            ranges = self.ranges
        else:
            ranges = self._ranges_for(integers, *call)
            needed = ranges if calibrated else None
        result = np.zeros((len(integers), columns))
        tiles = self._held.per
        keys = noise_keys(spec, tiles, self.seed, *self.address, *call)
        least = least_that_counts(spec.adc)
        how = Conversions(ranges, keys, self._errors, counted[None], counts, least)
        clipped = self._held.add_products(integers[None], result[None], how)
        take_off(result, integers, spec)
        conversions = result.size * spec.passes * spec.slices * tiles
        if len(counted):
            needed = needed_ranges(counts, ranges, spec.adc)
        product = VmmProduct(result, conversions, clipped, needed=needed)
        if ranges is self.ranges and product.clip_rate > CLIP_WARNING_RATE:
            warnings.warn(
                f"{product.clip_rate:.1%} of the ADC conversions of array {self.address} are "
                "beyond its calibrated range; calibrate it on inputs like these",
                ClippingWarning,
                stacklevel=4,
            )
        return product

    def _some_rows(self, count: int, *call: int | str) -> np.ndarray:
        """Return the numbers of the rows of a call whose codes set a range."""
        return some_rows(count, self.seed, *self.address, *call)

    def _ranges_for(self, integers: np.ndarray, *call: int | str) -> np.ndarray:
        """Return the ADC range of every slice, (slices,) float32."""
        spec = self.spec
        if spec.adc.range != "calibrated":
            return fixed_ranges(spec, self.shape[0])
        some = integers[self._some_rows(len(integers), *call)]
        ranges = np.ones(spec.slices, np.float32)
        for number in range(self._held.per):
            currents = self._held.currents(number, range(len(some)), some[None])
            np.maximum(ranges, ranges_of(currents, spec), out=ranges)
        return ranges


def exact_dtype(spec: VmmSpec, rows: int) -> np.dtype:
    """Return what products of so many rows of integers are exact in: float32 where no sum can
    reach 2^24.
    """
    tops = (2.0 ** (spec.weight_bits - 1) - 1) * (2.0 ** (spec.input_bits - 1) - 1)
    return np.dtype(np.float32 if tops * rows < EXACT_FLOAT32 else np.float64)


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


def noise_keys(spec: VmmSpec, tiles: int, seed: int, *address: int | str) -> np.ndarray:
    """Return the keys of the streams of noise of every row tile, (tiles,) uint64."""
    if not spec.noisy:
        return np.zeros(tiles, np.uint64)
    streams = [generator(seed, "read", *address, tile).bit_generator for tile in range(tiles)]
    return np.array([stream.random_raw() for stream in streams], np.uint64)


def program_vmm(weights: np.ndarray, spec: VmmSpec, seed: int = 0, *address: int | str) -> VmmArray:
    """Program weights into crossbars.

    Parameters
    ----------
    weights : ndarray
        (K, M), any float dtype; tiled over arrays of ``spec.rows`` rows.
    spec : VmmSpec
        How the multiplier is built.
    seed, *address
        Address of the programming errors, for example ``(step, "weights", layer)``.

    Raises
    ------
    DataError
        The weights are not a finite matrix.
    """
    _check(weights)
    integers, scale = quantize_symmetric(weights, spec.weight_bits)
    planes = None if spec.exact else held_planes(integers, spec, seed, *address)
    return VmmArray(
        spec, weights.shape, scale, integers, planes, address=address, seed=seed, site=address
    )


def held_planes(
    integers: np.ndarray, spec: VmmSpec, seed: int, *address: int | str, stacked: int = 1
) -> np.ndarray:
    """Return what pairs, or cells beside their references, appear to hold of (K, M) whole numbers,
    which may be `stacked` multipliers that the same DACs drive: see `VmmArray.planes`.
    """
    digits = _digits(integers, spec)
    if not spec.differential:
        held = offset_levels(digits, spec, seed, *address)
    elif spec.device.wire.ideal and spec.device.variation.none:
        held = differential_levels(
            digits, spec.device.cell, seed, "vmm", *address, use=spec.cell_use
        )
    elif spec.device.wire.ideal:
        positive, negative = _pairs(digits, spec, seed, *address)
        held = (positive - negative) * (spec.device.cell.levels - 1)
    else:
        held = _through_wires(*_pairs(digits, spec, seed, *address), spec)
    apart = held.reshape(stacked, len(held) // stacked, *held.shape[1:])
    return in_steps(appearing(apart, spec, seed, *address).reshape(held.shape))


def physical_arrays(
    weights: np.ndarray, spec: VmmSpec, seed: int = 0, *address: int | str
) -> list[PhysicalArray]:
    """Return the crossbars that `program_vmm` programs with the same arguments."""
    _check(weights)
    integers, _ = quantize_symmetric(weights, spec.weight_bits)
    digits = _digits(integers, spec)
    if not spec.differential:
        held = offset_arrays(digits, spec, seed, *address)
        across = ceil_div(digits.shape[1] * digits.shape[2], spec.weight_columns)
        return [
            PhysicalArray(number // across * spec.tall, number % across * spec.columns, siemens)
            for number, siemens in enumerate(held)
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
    cut_into_digits(integers + offset_of(spec), spec.device.cell.bits, digits)
    return digits


def _checked(inputs: np.ndarray, width: int) -> tuple[np.ndarray, float]:
    """Return inputs as float64 without gaps between rows, and the largest magnitude of them."""
    if inputs.ndim != 2 or inputs.shape[1] != width:
        raise DataError(f"a multiplier takes a matrix (N, {width}), got {inputs.shape}")
    values = np.ascontiguousarray(inputs, np.float64)
    largest = largest_magnitude(values)
    if not np.isfinite(largest):
        raise DataError("a multiplier takes finite numbers, got NaN or infinity")
    return values, largest


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


def _check(matrix: np.ndarray) -> None:
    if matrix.ndim != 2:
        raise DataError(f"a multiplier takes a matrix (K, M), got {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise DataError("a multiplier takes finite numbers, got NaN or infinity")
