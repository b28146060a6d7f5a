"""Vector-matrix multiplication on bit-sliced, bit-serially driven crossbars.

A weight is a signed integer whose magnitude is cut into slices of ``cell.bits`` bits, each on a
differential pair, or which is stored with an offset, each slice on one cell (`offset.py`); an input
is a signed integer whose magnitude is applied ``dac.bits`` bits at a time. Every (pass, slice, row
tile) gives one current per column, which an ADC rounds; shift-and-add puts them together.

Attention writes one operand for every sample and head. Each is a multiplier of its own, with its
own scale and its own step of the inputs; such a stack shares the streams of its draws and, as
multipliers on the same converters do, the range of the ADCs.

Products of several calls, such as those of all micro-batches of a step, may be asked for at once.
Each has the streams of its own draws and asks for ranges of its own, so that it computes the same
bits in whatever company.
"""

import dataclasses
import math
import warnings
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from repast_dist.analog.arrays.converters import (
    BINS,
    all_converter_errors,
    least_that_counts,
    needed_ranges,
)
from repast_dist.analog.arrays.offset import take_off
from repast_dist.analog.arrays.planes import contents, joined, quantized
from repast_dist.analog.arrays.ranges import fixed_ranges, input_step, ranges_of, some_rows
from repast_dist.analog.arrays.tiles import hold
from repast_dist.analog.kernels.base import (
    EXACT_FLOAT32,
    Contents,
    Conversions,
    Drawn,
    DrawnColumns,
    DrawnRows,
    Held,
    Kept,
    StepsDiffer,
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

type Address = tuple[int | str, ...]

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
        (N, M) or (B, N, M) float64, of several calls (calls, N, M) or (calls, B, N, M).
    conversions, clipped : int
        ADC conversions, and how many of them were beyond the range; none of an exact product.
    clipped_inputs : int
        Inputs beyond the DAC's range.
    needed : ndarray or None
        (slices,) float32, ADC ranges that this product asks for, where they are calibrated; of
        several calls the largest.
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
    """A programmed multiplier, or a stack of many of one shape that are driven together; or as many
    of either as there are addresses, one for each of several calls.

    Attributes
    ----------
    spec : VmmSpec
        How each is built.
    shape : tuple of int
        (K, M) of the weights, or (B, K, M); of one for each call (calls, K, M) or (calls, B, K, M).
    scales : ndarray
        (B,) float64, weight of one unit of each multiplier's integer weights; 0 of zeros.
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
    addresses, seed : tuple of (tuple of (int or str)), int
        Address of the draws of all multipliers, such as read noise, or those of as many equal parts
        of them, and the run's seed.
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
    addresses: tuple[Address, ...] = ((),)
    seed: int = 0
    site: tuple[int | str, ...] = ()
    first_column: int = 0

    @property
    def stacked(self) -> bool:
        """Whether it is a stack, be it of one."""
        return len(self.shape) > 2

    @property
    def address(self) -> Address:
        """Address of the draws; only where it is one."""
        (address,) = self.addresses
        return address

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
        planes = self.contents.planes
        return planes.reshape(*self.shape[:-1], *planes.shape[2:])

    @property
    def weight_scale(self) -> float:
        """Weight of one unit of the integer weights; only of one multiplier."""
        (scale,) = self.scales.tolist()
        return float(scale)

    @cached_property
    def _held(self) -> Held:
        """What the arrays hold, ready for products."""
        assert self.contents is not None
        # What the addresses of several calls have in common says where the DACs are.
        return hold(self.contents, self.spec, self.seed, *self.addresses[0])

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
        product = self._multiplied(self._fitting(inputs), (call,), ranges)
        values = product.values if self.stacked else product.values[0]
        return dataclasses.replace(product, values=values)

    def multiply_each(
        self, inputs: np.ndarray, calls: Sequence[Address], ranges: np.ndarray | None = None
    ) -> VmmProduct:
        """Return the products of several calls, with the bits of one call after the other.

        Parameters
        ----------
        inputs : ndarray
            (calls, N, K), or (calls, B, N, K) of a stack for each call, any float dtype.
        calls : sequence of tuple
            Addresses of the noise, as many as the array has or, of one multiplier, any number.
        ranges
            See `multiply`.

        Raises
        ------
        DataError
            See `multiply`.
        """
        own = len(self.addresses) == len(calls) and self.stacked
        if (self.stacked and not own) or len(inputs) != len(calls):
            raise DataError(
                f"{len(calls)} calls of multipliers {self.shape} for {len(self.addresses)} "
                f"addresses, with inputs {inputs.shape}"
            )
        if self._at_once(len(calls), ranges):
            values = self._fitting(inputs) if self.stacked else inputs
            product = self._multiplied(values, calls, ranges)
            shape = (*inputs.shape[:-1], self.shape[-1])
            return dataclasses.replace(product, values=product.values.reshape(shape))
        arrays = [self.of_call(number) if own else self for number in range(len(calls))]
        parts = zip(arrays, inputs, calls, strict=True)
        return _together([one.multiply(rows, *call, ranges=ranges) for one, rows, call in parts])

    def _at_once(self, calls: int, ranges: np.ndarray | None) -> bool:
        """Return whether several calls are converted alike, so that they may be one product."""
        if calls == 1 or self.contents is None:
            return True
        if self.spec.adc.range == "calibrated" and ranges is None and self.ranges is None:
            return False
        return self._alike

    @cached_property
    def _alike(self) -> bool:
        """Whether what is held for several calls is held in the same steps."""
        try:
            return self._held.per > 0
        except StepsDiffer:
            return False

    def of_call(self, number: int) -> "VmmArray":
        """Return the multiplier, or the stack, of one of the calls."""
        each = len(self.whole) // len(self.addresses)
        part = slice(number * each, (number + 1) * each)
        return dataclasses.replace(
            self,
            shape=self.shape[1:],
            scales=self.scales[part],
            whole=self.whole[part],
            contents=None if self.contents is None else self.contents.part(number, part),
            input_steps=None if self.input_steps is None else self.input_steps[part],
            addresses=(self.addresses[number],),
        )

    def _multiplied(
        self, values: np.ndarray, calls: Sequence[Address], ranges: np.ndarray | None
    ) -> VmmProduct:
        """Return the product for inputs (B, N, K); of one multiplier, B may be the calls."""
        shape = (*values.shape[:2], self.shape[-1])
        rows = math.prod(values.shape[:2]) // len(self.whole)
        folded = (len(self.whole), rows, values.shape[2])
        if self.contents is None:
            integers, steps, clipped_inputs = self._converted(values, self._exact.dtype)
            # Exact whatever the order of the sums, and so in one product.
            product = VmmProduct(np.asarray(integers.reshape(folded) @ self._exact, np.float64))
        else:
            integers, steps, clipped_inputs = self._converted(values, np.dtype(np.int32))
            product = self._multiply_planes(integers.reshape(folded), calls, ranges)
        result = product.values.reshape(shape)
        steps *= self.scales
        result *= steps[0] if len(steps) == 1 else steps[:, None, None]
        return VmmProduct(
            result, product.conversions, product.clipped, clipped_inputs, product.needed
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
            product = self._multiply_planes(np.ascontiguousarray(codes, np.int32), (call,), None)
        values = product.values if self.stacked else product.values[0]
        return dataclasses.replace(product, values=values)

    def columns(self, start: int, stop: int) -> "VmmArray":
        """Return the same array of which only the columns of some weights are converted."""
        return dataclasses.replace(
            self,
            shape=(*self.shape[:-1], stop - start),
            whole=self.whole[..., start:stop],
            contents=None if self.contents is None else _columns_of(self.contents, start, stop),
            addresses=tuple((*address, "columns", start) for address in self.addresses),
            first_column=self.first_column + start,
        )

    def rows(self, count: int) -> "VmmArray":
        """Return the same array of which only the first rows of the weights are driven."""
        return dataclasses.replace(
            self,
            shape=(*self.shape[:-2], count, self.shape[-1]),
            whole=self.whole[:, :count],
            contents=None if self.contents is None else _rows_of(self.contents, count),
            addresses=tuple((*address, "rows", count) for address in self.addresses),
        )

    def calibrate(self, inputs: np.ndarray) -> None:
        """Set and keep the converters' calibrated ranges from a sample of inputs, (N, K), of a
        stack (B, N, K).
        """
        values = self._fitting(inputs)
        if self.spec.dac.range == "calibrated":
            self.input_steps = self._steps(*_checked(values))
        if self.contents is not None:
            integers, _, _ = self._converted(values, np.dtype(np.int32))
            self.ranges = self._ranges_for(integers, "calibrate")

    def _fitting(self, inputs: np.ndarray) -> np.ndarray:
        """Return inputs of the multipliers, (B, N, K)."""
        *outer, rows, _ = self.shape
        if inputs.ndim != len(self.shape) or (*inputs.shape[:-2], inputs.shape[-1]) != (
            *outer,
            rows,
        ):
            wanted = ", ".join(map(str, (*outer, "N", rows)))
            raise DataError(f"a multiplier takes inputs ({wanted}), got {inputs.shape}")
        # Without -1, which is anything where there are no numbers.
        return inputs.reshape(math.prod(outer), *inputs.shape[-2:])

    def _steps(self, values: np.ndarray, largest: np.ndarray) -> np.ndarray:
        """Return what one unit of the integer inputs of every multiplier stands for, (B,)."""
        reach = zip(values, largest.tolist(), strict=True)
        return np.array([input_step(part, most, self.spec) for part, most in reach])

    def _converted(self, inputs: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray, int]:
        """Return inputs (B, N, K) as whole numbers of a dtype, what one of them is worth in every
        multiplier, (B,), and how many were cut off.

        Zeros are worth 0 where each call finds its step: what converters add to them is nothing.
        """
        values, largest = _checked(inputs)
        kept = self.input_steps
        # Those of one multiplier serve the inputs of all calls.
        steps = (
            self._steps(values, largest)
            if kept is None
            else np.repeat(kept, len(values) // len(kept))
        )
        integers = reused("integers", values.shape, dtype)
        top = 2.0 ** (self.spec.input_bits - 1) - 1
        clipped = round_to_integers(values, steps, top, integers)
        if kept is None:
            steps[largest == 0] = 0.0
        return integers, steps, clipped

    def _multiply_planes(
        self, integers: np.ndarray, calls: Sequence[Address], ranges: np.ndarray | None
    ) -> VmmProduct:
        """Convert with the ranges given, and count codes for those needed; else with those kept;
        else with those of the call, which is then the only one. Rows (B, N, K) are those of the
        calls, one call after the other.
        """
        spec, (count, rows, _) = self.spec, integers.shape
        calibrated = spec.adc.range == "calibrated"
        counted, needed = np.zeros((count, 0), np.bool_), None
        counts = np.zeros((len(calls), spec.slices, BINS + 1), np.int64)
        addresses = self._addresses(calls)
        if calibrated and ranges is not None:
            counted = np.zeros((count, rows), np.bool_)
            for some, address in zip(counted.reshape(len(calls), -1), addresses, strict=True):
                some[some_rows(len(some), self.seed, *address)] = True
        elif self.ranges is not None:
            ranges = self.ranges
        else:
            ranges = self._ranges_for(integers, *calls[0])
            needed = ranges if calibrated else None
        result = np.zeros((count, rows, self.shape[-1]))
        tiles = self._held.per
        keys = np.stack([noise_keys(spec, tiles, self.seed, *one) for one in addresses], axis=1)
        how = Conversions(ranges, keys, self._errors, counted, counts, least_that_counts(spec.adc))
        clipped = self._held.add_products(integers, result, how)
        take_off(result, integers, spec)
        conversions = result.size * spec.passes * spec.slices * tiles
        if counted.size:
            needed = np.max([needed_ranges(one, ranges, spec.adc) for one in counts], axis=0)
        product = VmmProduct(result, conversions, clipped, needed=needed)
        if ranges is self.ranges and product.clip_rate > CLIP_WARNING_RATE:
            warnings.warn(
                f"{product.clip_rate:.1%} of the ADC conversions of array {self.addresses[0]} are "
                "beyond its calibrated range; calibrate it on inputs like these",
                ClippingWarning,
                stacklevel=4,
            )
        return product

    def _addresses(self, calls: Sequence[Address]) -> list[Address]:
        """Return the whole address of every call."""
        places = self.addresses * (len(calls) if len(self.addresses) == 1 else 1)
        return [(*place, *call) for place, call in zip(places, calls, strict=True)]

    def _ranges_for(self, integers: np.ndarray, *call: int | str) -> np.ndarray:
        """Return the ADC range of every slice, (slices,) float32."""
        spec, (count, _, width) = self.spec, integers.shape
        if spec.adc.range != "calibrated":
            return fixed_ranges(spec, width)
        some = some_rows(count * integers.shape[1], self.seed, *self.address, *call)
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


def _columns_of(held: Contents, start: int, stop: int) -> Contents:
    """Return what the pairs of some columns hold."""
    if isinstance(held, Kept):
        return Kept(held.planes[..., start:stop], held.step)
    if isinstance(held, DrawnRows):
        return DrawnRows(_drawn_columns(held.whole, start, stop), held.count)
    return _drawn_columns(held, start, stop)


def _drawn_columns(held: Drawn | DrawnColumns, start: int, stop: int) -> DrawnColumns:
    if isinstance(held, Drawn):
        return DrawnColumns(held, start, stop)
    return DrawnColumns(held.whole, held.start + start, held.start + stop)


def _rows_of(held: Contents, count: int) -> Contents:
    """Return what the pairs of the first rows hold: drawn ones of several calls may need a step
    each, which is known when they are.
    """
    if isinstance(held, Kept):
        return Kept(held.planes[:, :count], held.step)
    return DrawnRows(held.whole if isinstance(held, DrawnRows) else held, count)


def _checked(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs (B, N, K) as `plain` float64, and the largest magnitude of each part, (B,)."""
    values = plain(values)
    largest = largest_magnitudes(values)
    if not np.isfinite(largest).all():
        raise DataError("a multiplier takes finite numbers, got NaN or infinity")
    return values, largest


def _together(products: Sequence[VmmProduct]) -> VmmProduct:
    """Return the products of several calls as one."""
    needed = [one.needed for one in products if one.needed is not None]
    return VmmProduct(
        np.stack([one.values for one in products]),
        sum(one.conversions for one in products),
        sum(one.clipped for one in products),
        sum(one.clipped_inputs for one in products),
        np.max(needed, axis=0) if needed else None,
    )


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
        held = contents(whole, spec, seed, _places(weights.ndim == 3, len(whole), spec, address))
    return VmmArray(
        spec, weights.shape, scales, whole, held, addresses=(address,), seed=seed, site=address
    )


def program_each(
    weights: np.ndarray, spec: VmmSpec, seed: int, addresses: Sequence[Address]
) -> VmmArray | None:
    """Program as many weights as there are addresses, each as `program_vmm` does.

    Parameters
    ----------
    weights : ndarray
        (calls, K, M) or (calls, B, K, M), any float dtype.
    spec, seed
        As for `program_vmm`.
    addresses : sequence of tuple
        Addresses of the programming errors, which differ in when, not in where.

    Returns
    -------
    VmmArray or None
        None where their products have to be computed one by one.

    Raises
    ------
    DataError
        Some of the weights are not finite.
    """
    rows, columns = weights.shape[-2:]
    whole, scales = quantized(weights.reshape(-1, rows, columns), spec.weight_bits)
    held: Contents | None = None
    if not spec.exact:
        # What stands for the noise of DACs depends on all that is held.
        if spec.dac.noise_lsb:
            return None
        each = len(whole) // len(addresses)
        parts = [
            contents(
                whole[number * each : (number + 1) * each],
                spec,
                seed,
                _places(weights.ndim == 4, each, spec, address),
            )
            for number, address in enumerate(addresses)
        ]
        held = joined(parts, whole, spec.holds_levels)
        if held is None:
            return None
    return VmmArray(
        spec,
        weights.shape,
        scales,
        whole,
        held,
        addresses=tuple(addresses),
        seed=seed,
        site=addresses[0],
    )


def _places(stacked: bool, count: int, spec: VmmSpec, address: Address) -> list[Address]:
    """Return the addresses of what so many multipliers hold, or one for all of them."""
    if stacked and not (spec.device.wire.ideal and spec.device.variation.none):
        # Cells that share wires or deviations have them within their own multiplier.
        return [(*address, number) for number in range(count)]
    return [address]
