"""Many multipliers of one shape that are programmed and driven together.

Attention writes one operand for every sample and head. Each is a multiplier of its own, with its
own scale and its own step of the inputs; the stack shares the streams of its draws and, as
multipliers on the same converters do, the range of the ADCs.
"""

import dataclasses
from functools import cached_property

import numpy as np

from repast_dist.analog.arrays.converters import (
    BINS,
    all_converter_errors,
    least_that_counts,
    needed_ranges,
)
from repast_dist.analog.arrays.offset import take_off
from repast_dist.analog.arrays.tiles import hold
from repast_dist.analog.arrays.vmm import (
    VmmProduct,
    exact_dtype,
    fixed_ranges,
    held_planes,
    input_step,
    noise_keys,
    ranges_of,
    some_rows,
)
from repast_dist.analog.kernels.base import Conversions, Held
from repast_dist.analog.kernels.conversion import round_to_integers
from repast_dist.analog.kernels.memory import reused
from repast_dist.analog.specs import VmmSpec
from repast_dist.ground.errors import DataError


@dataclasses.dataclass
class VmmStack:
    """Programmed multipliers of one shape.

    Attributes
    ----------
    spec : VmmSpec
        How each is built.
    shape : tuple of int
        (B, K, M) of the weights.
    weight_scale : ndarray
        (B, 1, 1) float64, weight of one unit of each multiplier's integer weights.
    integers : ndarray
        (B, K, M) float64 whole numbers: what was meant to be programmed.
    planes : ndarray or None
        (B, K, slices, M) float32, see `VmmArray.planes`.
    address, seed : tuple of (int or str), int
        Address of the stack's random draws, and the run's seed.
    site : tuple of (int or str)
        Where its converters are, the same for all multipliers.
    """

    spec: VmmSpec
    shape: tuple[int, int, int]
    weight_scale: np.ndarray
    integers: np.ndarray
    planes: np.ndarray | None
    address: tuple[int | str, ...] = ()
    seed: int = 0
    site: tuple[int | str, ...] = ()

    @cached_property
    def _held(self) -> Held:
        assert self.planes is not None
        return hold(self.planes, self.spec, self.seed, *self.address)

    @cached_property
    def _exact(self) -> np.ndarray:
        return self.integers.astype(exact_dtype(self.spec, self.shape[1]))

    @cached_property
    def _errors(self) -> np.ndarray:
        columns = (0, self.shape[2])
        return all_converter_errors(self.spec, columns, self._held.per, self.seed, *self.site)

    def multiply(
        self, inputs: np.ndarray, *call: int | str, ranges: np.ndarray | None = None
    ) -> VmmProduct:
        """Return ``inputs @ weights`` of every multiplier; the product's values are (B, N, M).

        Parameters
        ----------
        inputs : ndarray
            (B, N, K), any float dtype. Those of one multiplier share a step.
        *call
            Address of this product's noise, behind the stack's own.
        ranges : ndarray, optional
            (slices,) float32 ADC ranges in units of one level; None: those of the call.

        Raises
        ------
        DataError
            Inputs are not finite or of the wrong shape.
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

    def _converted(self, inputs: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray, int]:
        """Return inputs as whole numbers of a dtype, what one of them is worth in every multiplier,
        (B, 1, 1), and how many were cut off.
        """
        count, rows, _ = self.shape
        if inputs.ndim != 3 or inputs.shape[::2] != (count, rows):
            raise DataError(f"a stack takes inputs ({count}, N, {rows}), got {inputs.shape}")
        values = np.ascontiguousarray(inputs, np.float64)
        largest = np.abs(values).max(axis=(1, 2), initial=0.0)
        if not np.isfinite(largest).all():
            raise DataError("a stack takes finite numbers, got NaN or infinity")
        reach = zip(values, largest.tolist(), strict=True)
        steps = [input_step(part, most, self.spec) for part, most in reach]
        integers, clipped = reused("integers", values.shape, dtype), 0
        top = 2.0 ** (self.spec.input_bits - 1) - 1
        for part, step, whole in zip(values, steps, integers, strict=True):
            clipped += round_to_integers(part, step, top, whole)
        return integers, np.array(steps).reshape(count, 1, 1), clipped

    def _multiply_planes(
        self, integers: np.ndarray, call: tuple[int | str, ...], ranges: np.ndarray | None
    ) -> VmmProduct:
        """Convert with the ranges given, and count codes for those needed; else with the call's."""
        spec, (count, _, columns), rows = self.spec, self.shape, integers.shape[1]
        calibrated = spec.adc.range == "calibrated"
        counted = np.zeros((count, 0), np.bool_)
        needed = None
        counts = np.zeros((spec.slices, BINS + 1), np.int64)
        some = some_rows(count * rows, self.seed, *self.address, *call) if calibrated else None
        if some is not None and ranges is not None:
            counted = np.zeros((count, rows), np.bool_)
            counted.reshape(-1)[some] = True
        elif some is not None:
            ranges = needed = self._ranges_for(integers, some)
        else:
            ranges = fixed_ranges(spec, self.shape[1])
        result = np.zeros((count, rows, columns))
        keys = noise_keys(spec, self._held.per, self.seed, *self.address, *call)
        how = Conversions(ranges, keys, self._errors, counted, counts, least_that_counts(spec.adc))
        clipped = self._held.add_products(integers, result, how)
        take_off(result, integers, spec)
        conversions = result.size * spec.passes * spec.slices * self._held.per
        if counted.size:
            needed = needed_ranges(counts, ranges, spec.adc)
        return VmmProduct(result, conversions, clipped, needed=needed)

    def _ranges_for(self, integers: np.ndarray, some: np.ndarray) -> np.ndarray:
        """Return the ADC range of every slice, (slices,) float32, from some rows of all inputs."""
        ranges, per = np.ones(self.spec.slices, np.float32), self._held.per
        chosen = [divmod(number, integers.shape[1]) for number in some.tolist()]
        for part in range(per):
            peaks = [
                self._held.currents(which * per + part, range(row, row + 1), integers).copy()
                for which, row in chosen
            ]
            if peaks:
                np.maximum(ranges, ranges_of(np.concatenate(peaks), self.spec), out=ranges)
        return ranges


def program_stack(
    weights: np.ndarray, spec: VmmSpec, seed: int = 0, *address: int | str
) -> VmmStack:
    """Program (B, K, M) weights, each of the B matrices into a multiplier of its own.

    Parameters
    ----------
    weights, spec, seed, *address
        As for `program_vmm`; the address is that of the draws of all multipliers.

    Raises
    ------
    DataError
        The weights are not finite matrices.
    """
    if weights.ndim != 3:
        raise DataError(f"a stack takes matrices (B, K, M), got {weights.shape}")
    weights = np.asarray(weights, np.float64)
    largest = np.abs(weights).max(axis=(1, 2), keepdims=True, initial=0.0)
    if not np.isfinite(largest).all():
        raise DataError("a stack takes finite numbers, got NaN or infinity")
    scale = largest / (2.0 ** (spec.weight_bits - 1) - 1)
    scale[scale == 0] = 1.0
    integers = np.rint(weights / scale)
    planes = None
    if not spec.exact:
        count, rows, columns = weights.shape
        if spec.device.wire.ideal and spec.device.variation.none:
            # Nothing ties the cells of a multiplier to each other.
            flat = integers.reshape(count * rows, columns)
            planes = held_planes(flat, spec, seed, *address, stacked=count)
            planes = planes.reshape(count, rows, spec.slices, columns)
        else:
            parts = enumerate(integers)
            held = [held_planes(part, spec, seed, *address, number) for number, part in parts]
            planes = np.stack(held)
    shape = weights.shape
    return VmmStack(spec, shape, scale, integers, planes, address, seed, site=address)
