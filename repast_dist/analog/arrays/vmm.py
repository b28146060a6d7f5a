"""Vector-matrix multiplication on bit-sliced, bit-serially driven crossbars.

A weight is a signed integer whose magnitude is cut into slices of ``cell.bits`` bits, each on a
differential pair, or which is stored with an offset, each slice on one cell (`offset.py`); an input
is a signed integer whose magnitude is applied ``dac.bits`` bits at a time. Every (pass, slice, row
tile) gives one current per column, which an ADC rounds; shift-and-add puts them together.

Attention writes one operand for every sample and head. Each is a multiplier of its own, with its
own scale and its own step of the inputs; such a stack shares the streams of its draws and, as
multipliers on the same converters do, the range of the ADCs.
"""

import dataclasses
import warnings
from functools import cached_property

import numpy as np

from repast_dist.analog.arrays.converters import (
    BINS,
    all_converter_errors,
    least_that_counts,
    needed_ranges,
)
from repast_dist.analog.arrays.offset import take_off
from repast_dist.analog.arrays.planes import contents, quantized
from repast_dist.analog.arrays.ranges import fixed_ranges, input_step, ranges_of, some_rows
from repast_dist.analog.arrays.tiles import hold
from repast_dist.analog.kernels.base import (
    EXACT_FLOAT32,
    Contents,
    Conversions,
    Drawn,
    DrawnColumns,
    Held,
    Kept,
)
from repast_dist.analog.kernels.conversion import (
    largest_magnitudes,
    plain,
    round_to_integers,
)
from repast_dist.analog.kernels.memory import reused
from repast_dist.analog.specs import VmmSpec
from repast_dist.ground.errors import DataError
from repast_dist.ground.rng import generator

CLIP_WARNING_RATE = 0.01
"""Share of conversions beyond a calibrated range above which a product warns."""


class ClippingWarning(UserWarning):
    """Kept ADC ranges clip more than `CLIP_WARNING_RATE` of the conversions."""


@dataclasses.dataclass(frozen=True)
class VmmProduct:
    """A product, and how its converters fared.

    Attributes
    ----------
    values : ndarray
        (N, M) or (B, N, M) float64.
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
    """A programmed multiplier, or a stack of many of one shape that are driven together.

    Attributes
    ----------
    spec : VmmSpec
        How each is built.
    shape : tuple of int
        (K, M) of the weights, or (B, K, M).
    scales : ndarray
        (B,) float64, weight of one unit of each multiplier's integer weights.
    whole : ndarray
        (B, K, M) float64 whole numbers: what was meant to be programmed; B is 1 where it is no
        stack.
    contents : Contents or None
        What the pairs hold; None when the product is exact (ideal cells, lossless ADC).
    ranges : ndarray or None
        (slices,) ADC ranges in units of one level, once calibrated.
    input_steps : ndarray or None
        (B,) what one unit of the integer inputs stands for, once calibrated; None: of every call
        anew.
    address, seed : tuple of (int or str), int
        Address of the draws of all multipliers, such as read noise, and the run's seed.
    site : tuple of (int or str)
        Where the converters are, whose errors are those of whatever is programmed there; all
        multipliers have the same ones.
    first_column : int
        Column of the programmed weights that is the first of these.
    """

    spec: VmmSpec
    shape: tuple[int, ...]
    scales: np.ndarray
    whole: np.ndarray
    contents: Contents | None
    ranges: np.ndarray | None = None
    input_steps: np.ndarray | None = None
    address: tuple[int | str, ...] = ()
    seed: int = 0
    site: tuple[int | str, ...] = ()
    first_column: int = 0

    @property
    def stacked(self) -> bool:
        """Whether it is a stack, be it of one."""
        return len(self.shape) == 3

    @property
    def integers(self) -> np.ndarray:
        """The whole numbers in the shape of the weights."""
        return self.whole.reshape(self.shape)

    @property
    def planes(self) -> np.ndarray | None:
        """What the pairs hold, (K, slices, M) or (B, K, slices, M) float32, in units of one level;
        None when the product is exact.
        """
        if self.contents is None:
            return None
        return self.contents.planes if self.stacked else self.contents.planes[0]

    @property
    def weight_scale(self) -> float:
        """Weight of one unit of the integer weights; only of one multiplier."""
        (scale,) = self.scales.tolist()
        return float(scale)

    @cached_property
    def _held(self) -> Held:
        """What the arrays hold, ready for products."""
        assert self.contents is not None
        return hold(self.contents, self.spec, self.seed, *self.address)

    @cached_property
    def _exact(self) -> np.ndarray:
        """Integer weights for exact products."""
        return self.whole.astype(exact_dtype(self.spec, self.whole.shape[1]))

    @cached_property
    def _errors(self) -> np.ndarray:
        """What the converters of every row tile make of codes, see `converter_errors`."""
        columns = (self.first_column, self.first_column + self.shape[-1])
        return all_converter_errors(self.spec, columns, self._held.per, self.seed, *self.site)

    def multiply(
        self, inputs: np.ndarray, *call: int | str, ranges: np.ndarray | None = None
    ) -> VmmProduct:
        """Return ``inputs @ weights`` as the hardware computes it.

        Parameters
        ----------
        inputs : ndarray
            (N, K), of a stack (B, N, K), any float dtype. Those of one multiplier share one step,
            see `DacSpec`; beyond that, and an ADC range calibrated on the call, rows do not
            influence each other.
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
            Inputs are not finite or of the wrong shape.

        Warns
        -----
        ClippingWarning
            Kept ranges do not fit these inputs.
        """
        if self.contents is None:
            integers, steps, clipped_inputs = self._converted(inputs, self._exact.dtype)
            product = VmmProduct(np.asarray(integers @ self._exact, np.float64))
        else:
            integers, steps, clipped_inputs = self._converted(inputs, np.dtype(np.int32))
            product = self._multiply_planes(integers, call, ranges)
        values = product.values
        steps *= self.scales
        values *= steps[0] if len(steps) == 1 else steps[:, None, None]
        if not self.stacked:
            values = values[0]
        return VmmProduct(
            values, product.conversions, product.clipped, clipped_inputs, product.needed
        )

    def multiply_codes(self, codes: np.ndarray, *call: int | str) -> VmmProduct:
        """Return ``codes @ integers`` for inputs that a digital unit has scaled already.

        Parameters
        ----------
        codes : ndarray
            (N, K), of a stack (B, N, K), whole numbers of ``input_bits`` bits, sign included.
        *call
            As for `multiply`.
        """
        codes = codes if self.stacked else codes[None]
        if self.contents is None:
            product = VmmProduct(np.asarray(codes @ self._exact, np.float64))
        else:
            product = self._multiply_planes(np.ascontiguousarray(codes, np.int32), call, None)
        values = product.values if self.stacked else product.values[0]
        return dataclasses.replace(product, values=values)

    def columns(self, start: int, stop: int) -> "VmmArray":
        """Return the same array of which only the columns of some weights are converted."""
        return dataclasses.replace(
            self,
            shape=(*self.shape[:-1], stop - start),
            whole=self.whole[..., start:stop],
            contents=self._contents_of(start, stop),
            address=(*self.address, "columns", start),
            first_column=self.first_column + start,
        )

    def rows(self, count: int) -> "VmmArray":
        """Return the same array of which only the first rows of the weights are driven."""
        held = self.contents
        return dataclasses.replace(
            self,
            shape=(*self.shape[:-2], count, self.shape[-1]),
            whole=self.whole[:, :count],
            contents=None if held is None else Kept(held.planes[:, :count], held.step),
            address=(*self.address, "rows", count),
        )

    def _contents_of(self, start: int, stop: int) -> Contents | None:
        """Return what the pairs of some columns hold."""
        held = self.contents
        if isinstance(held, Drawn):
            return DrawnColumns(held, start, stop)
        if isinstance(held, DrawnColumns):
            return DrawnColumns(held.whole, held.start + start, held.start + stop)
        return None if held is None else Kept(held.planes[..., start:stop], held.step)

    def calibrate(self, inputs: np.ndarray) -> None:
        """Set and keep the converters' calibrated ranges from a sample of inputs, (N, K), of a
        stack (B, N, K).
        """
        if self.spec.dac.range == "calibrated":
            self.input_steps = self._steps(*self._checked(inputs))
        if self.contents is not None:
            integers, _, _ = self._converted(inputs, np.dtype(np.int32))
            self.ranges = self._ranges_for(integers, "calibrate")

    def _checked(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return inputs as `plain` float64, (B, N, K), and the largest magnitude that each
        multiplier gets, (B,).
        """
        count, rows, _ = self.whole.shape
        values = inputs if self.stacked else inputs[None]
        if values.ndim != 3 or values.shape[::2] != (count, rows):
            wanted = f"({count}, N, {rows})" if self.stacked else f"(N, {rows})"
            raise DataError(f"a multiplier takes inputs {wanted}, got {inputs.shape}")
        values = plain(values)
        largest = largest_magnitudes(values)
        if not np.isfinite(largest).all():
            raise DataError("a multiplier takes finite numbers, got NaN or infinity")
        return values, largest

    def _steps(self, values: np.ndarray, largest: np.ndarray) -> np.ndarray:
        """Return what one unit of the integer inputs of every multiplier stands for, (B,)."""
        reach = zip(values, largest.tolist(), strict=True)
        return np.array([input_step(part, most, self.spec) for part, most in reach])

    def _converted(self, inputs: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray, int]:
        """Return inputs as whole numbers of a dtype, what one of them is worth in every
        multiplier, (B,), and how many were cut off.
        """
        values, largest = self._checked(inputs)
        kept = self.input_steps
        steps = self._steps(values, largest) if kept is None else kept.copy()
        integers = reused("integers", values.shape, dtype)
        top = 2.0 ** (self.spec.input_bits - 1) - 1
        return integers, steps, round_to_integers(values, steps, top, integers)

    def _multiply_planes(
        self, integers: np.ndarray, call: tuple[int | str, ...], ranges: np.ndarray | None
    ) -> VmmProduct:
        """Convert with the ranges given, and count codes for those needed; else with those kept;
        else with those of the call.
        """
        spec, (count, rows, _) = self.spec, integers.shape
        calibrated = spec.adc.range == "calibrated"
        counted, needed = np.zeros((count, 0), np.bool_), None
        counts = np.zeros((spec.slices, BINS + 1), np.int64)
        if calibrated and ranges is not None:
            counted = np.zeros((count, rows), np.bool_)
            counted.reshape(-1)[self._some_rows(integers, *call)] = True
        elif self.ranges is not None:
            ranges = self.ranges
        else:
            ranges = self._ranges_for(integers, *call)
            needed = ranges if calibrated else None
        result = np.zeros((count, rows, self.shape[-1]))
        tiles = self._held.per
        keys = noise_keys(spec, tiles, self.seed, *self.address, *call)
        how = Conversions(ranges, keys, self._errors, counted, counts, least_that_counts(spec.adc))
        clipped = self._held.add_products(integers, result, how)
        take_off(result, integers, spec)
        conversions = result.size * spec.passes * spec.slices * tiles
        if counted.size:
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

    def _some_rows(self, integers: np.ndarray, *call: int | str) -> np.ndarray:
        """Return the numbers of the rows of a call whose codes set a range, those of one multiplier
        after those of another.
        """
        count = integers.shape[0] * integers.shape[1]
        return some_rows(count, self.seed, *self.address, *call)

    def _ranges_for(self, integers: np.ndarray, *call: int | str) -> np.ndarray:
        """Return the ADC range of every slice, (slices,) float32."""
        spec, (count, _, width) = self.spec, integers.shape
        if spec.adc.range != "calibrated":
            return fixed_ranges(spec, width)
        some = self._some_rows(integers, *call)
        if count == 1:
            integers = integers[:, some]
            chosen = [(0, range(len(some)))] if len(some) else []
        else:
            places = (divmod(number, integers.shape[1]) for number in some.tolist())
            chosen = [(which, range(row, row + 1)) for which, row in places]
        ranges, per = np.ones(spec.slices, np.float32), self._held.per
        for part in range(per):
            currents = [
                self._held.currents(which * per + part, rows, integers).copy()
                for which, rows in chosen
            ]
            if currents:
                np.maximum(ranges, ranges_of(np.concatenate(currents), spec), out=ranges)
        return ranges


def exact_dtype(spec: VmmSpec, rows: int) -> np.dtype:
    """Return what products of so many rows of integers are exact in: float32 where no sum can
    reach 2^24.
    """
    tops = (2.0 ** (spec.weight_bits - 1) - 1) * (2.0 ** (spec.input_bits - 1) - 1)
    return np.dtype(np.float32 if tops * rows < EXACT_FLOAT32 else np.float64)


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
        (K, M), any float dtype; tiled over arrays of ``spec.rows`` rows. (B, K, M): each of the B
        matrices into a multiplier of its own.
    spec : VmmSpec
        How the multiplier is built.
    seed, *address
        Address of the programming errors, for example ``(step, "weights", layer)``; that of the
        draws of all multipliers of a stack.

    Raises
    ------
    DataError
        The weights are not finite matrices.
    """
    if weights.ndim not in (2, 3):
        raise DataError(f"a multiplier takes a matrix (K, M) or a stack, got {weights.shape}")
    whole, scales = quantized(weights if weights.ndim == 3 else weights[None], spec.weight_bits)
    held: Contents | None = None
    if not spec.exact:
        places: list[tuple[int | str, ...]] = [address]
        if weights.ndim == 3 and not (spec.device.wire.ideal and spec.device.variation.none):
            # Cells that share wires or deviations have them within their own multiplier.
            places = [(*address, number) for number in range(len(weights))]
        held = contents(whole, spec, seed, places)
    return VmmArray(
        spec, weights.shape, scales, whole, held, address=address, seed=seed, site=address
    )
