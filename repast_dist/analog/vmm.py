"""Vector-matrix multiplication on bit-sliced, bit-serially driven crossbars.

A weight is a signed integer whose magnitude is cut into slices of ``cell.bits`` bits, each on a
differential pair; an input is a signed integer whose magnitude is applied ``dac.bits`` bits at a
time. Every (pass, slice, row tile) gives one current per column, which an ADC rounds; shift-and-add
puts them together.
"""

import dataclasses
from functools import cached_property

import numpy as np

from repast_dist.analog.conversion import convert_and_add
from repast_dist.analog.programming import differential_levels, quantize_symmetric
from repast_dist.analog.specs import VmmSpec
from repast_dist.errors import DataError
from repast_dist.rng import generator

_CHUNK_ELEMENTS = 4_000_000
_EXACT_FLOAT32 = 2.0**24
_CALIBRATION_VECTORS = 32


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
        (K, slices, M) float32, what the pairs hold, in units of one level; None when the product
        is exact (ideal cells, lossless ADC).
    ranges : ndarray or None
        (slices,) ADC ranges in units of one level, once calibrated.
    clip_rate : float
        Share of conversions beyond the ADC's range in the last product.
    """

    spec: VmmSpec
    shape: tuple[int, int]
    weight_scale: float
    integers: np.ndarray
    planes: np.ndarray | None
    ranges: np.ndarray | None = None
    clip_rate: float = 0.0
    address: tuple[int | str, ...] = ()
    seed: int = 0

    @cached_property
    def _tiles(self) -> list[tuple[int, np.ndarray, float]]:
        """Row tiles: first row, (rows, slices * M) float32, bound on a pass' current or infinity.

        The bound is given where currents are whole numbers, so that two passes can share a
        float32 product exactly.
        """
        assert self.planes is not None
        cell = self.spec.device.cell
        tiles = []
        for first in range(0, self.shape[0], self.spec.rows):
            part = self.planes[first : first + self.spec.rows]
            held = np.ascontiguousarray(part.reshape(len(part), -1))
            bound = np.inf
            if cell.ideal and self.spec.dac.bits == 1:
                bound = float(np.abs(held).sum(axis=0).max())
            tiles.append((first, held, bound))
        return tiles

    def multiply(self, inputs: np.ndarray, *call: int | str) -> np.ndarray:
        """Return ``inputs @ weights`` as the hardware computes it.

        Parameters
        ----------
        inputs : ndarray
            (N, K), any float dtype. They share one digital scale, their largest entry; beyond
            that, and an ADC range calibrated on the call, rows do not influence each other.
        *call
            Address of this product's read noise, behind the array's own: what varies from read to
            read depends on which product it is, not on how many were done before.

        Returns
        -------
        ndarray
            (N, M) float64.

        Raises
        ------
        DataError
            Inputs are not finite or of the wrong width.
        """
        _check(inputs, self.shape[0])
        integers, scale = quantize_symmetric(inputs, self.spec.input_bits)
        if self.planes is None:
            product = integers @ self.integers
        else:
            product = self._multiply_planes(integers, call)
        return product * (scale * self.weight_scale)

    def calibrate(self, inputs: np.ndarray) -> None:
        """Set and keep the ADC ranges from a sample of inputs, (N, K)."""
        integers, _ = quantize_symmetric(inputs, self.spec.input_bits)
        self.ranges = self._ranges_for(integers)

    def _multiply_planes(self, integers: np.ndarray, call: tuple[int | str, ...]) -> np.ndarray:
        ranges = self.ranges if self.ranges is not None else self._ranges_for(integers)
        result = np.zeros((len(integers), self.shape[1]))
        width = self.spec.passes * (self.spec.slices * self.shape[1] + self.spec.rows)
        at_once = max(1, _CHUNK_ELEMENTS // width)
        clipped = 0
        for number, first in enumerate(range(0, len(integers), at_once)):
            chunk = slice(first, first + at_once)
            clipped += self._multiply_chunk(integers[chunk], ranges, result[chunk], (*call, number))
        samples = result.size * self.spec.passes * self.spec.slices * len(self._tiles)
        self.clip_rate = clipped / max(samples, 1)
        return result

    def _multiply_chunk(
        self,
        integers: np.ndarray,
        ranges: np.ndarray,
        result: np.ndarray,
        call: tuple[int | str, ...],
    ) -> int:
        """Add the product of some input rows into `result`; return how many samples clipped."""
        spec = self.spec
        passes = _input_planes(integers, spec)
        weights = np.multiply.outer(_pass_weights(spec), _slice_weights(spec))
        nothing = np.zeros((0, 0), np.float32)
        read_sigma = spec.device.cell.read_sigma * (spec.device.cell.levels - 1)
        clipped = 0
        for tile, (first, held, bound) in enumerate(self._tiles):
            driven = passes[:, :, first : first + len(held)]
            planes, low, high, base = _packed(driven, weights, bound)
            flat = planes.reshape(-1, len(held))
            currents = flat @ held
            noise, spread = nothing, np.zeros(0, np.float32)
            if read_sigma:
                random = generator(self.seed, "read", *self.address, *call, tile)
                noise = random.standard_normal(currents.shape, dtype=np.float32)
                spread = read_sigma * np.sqrt(2.0 * np.einsum("ij,ij->i", flat, flat))
                spread = spread.astype(np.float32)
            codes = float(2 ** (spec.adc.bits - 1) - 1)
            clipped += convert_and_add(
                currents, result, noise, spread, ranges, codes, low, high, base
            )
        return clipped

    def _ranges_for(self, integers: np.ndarray) -> np.ndarray:
        """Return the ADC range of every slice, (slices,) float32."""
        spec = self.spec
        if spec.adc.range == "lossless":
            return np.full(spec.slices, np.inf, np.float32)
        if spec.adc.range == "full":
            top = (2**spec.dac.bits - 1) * (spec.device.cell.levels - 1)
            return np.full(spec.slices, top * min(spec.rows, self.shape[0]), np.float32)
        step = max(1, len(integers) // _CALIBRATION_VECTORS)
        passes = _input_planes(integers[::step], spec)
        ranges = np.ones(spec.slices, np.float32)
        for first, held, _ in self._tiles:
            driven = passes[:, :, first : first + len(held)].reshape(-1, len(held))
            currents = np.abs(driven @ held).reshape(len(driven), spec.slices, -1)
            for number in range(spec.slices):
                largest = np.percentile(currents[:, number], spec.adc.percentile)
                ranges[number] = max(ranges[number], largest)
        return ranges


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
    _check(weights, None)
    integers, scale = quantize_symmetric(weights, spec.weight_bits)
    planes = None
    if not (spec.device.cell.ideal and spec.adc.range == "lossless"):
        digits = np.stack([_slice_digits(integers, spec, s) for s in range(spec.slices)], axis=1)
        held = differential_levels(digits, spec.device.cell, seed, "vmm", *address)
        planes = held.astype(np.float32)
    return VmmArray(spec, weights.shape, scale, integers, planes, address=address, seed=seed)


def _slice_digits(integers: np.ndarray, spec: VmmSpec, number: int) -> np.ndarray:
    """Return the signed digits of one slice, 0 the least significant."""
    magnitude = np.abs(integers).astype(np.int64)
    digit = (magnitude >> (number * spec.device.cell.bits)) & (spec.device.cell.levels - 1)
    return np.sign(integers).astype(np.int64) * digit


def _slice_weights(spec: VmmSpec) -> np.ndarray:
    return 2.0 ** (spec.device.cell.bits * np.arange(spec.slices))


def _pass_weights(spec: VmmSpec) -> np.ndarray:
    return 2.0 ** (spec.dac.bits * np.arange(spec.passes))


def _input_planes(integers: np.ndarray, spec: VmmSpec) -> np.ndarray:
    """Return what is applied in each pass: (passes, N, K) float32 signed digits."""
    magnitude = np.abs(integers).astype(np.int32)
    sign = np.sign(integers).astype(np.float32)
    mask = 2**spec.dac.bits - 1
    planes = np.empty((spec.passes, *integers.shape), np.float32)
    for number in range(spec.passes):
        np.multiply((magnitude >> (number * spec.dac.bits)) & mask, sign, out=planes[number])
    return planes


def _packed(
    passes: np.ndarray, weights: np.ndarray, bound: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Put two passes into one plane ``p + base * q`` where a float32 product stays exact.

    Returns
    -------
    planes : ndarray
        (planes, N, rows) float32.
    low, high : ndarray
        (planes, slices) weights of p and q.
    base : float
        The base; 0 if passes are not packed.
    """
    base = 2.0 * bound + 1.0
    count = len(passes)
    if count < 2 or bound * (base + 1.0) >= _EXACT_FLOAT32:
        return np.ascontiguousarray(passes), weights, np.zeros_like(weights), 0.0
    pairs = count // 2
    planes = np.empty((pairs + count % 2, *passes.shape[1:]), np.float32)
    np.multiply(passes[1 : 2 * pairs : 2], np.float32(base), out=planes[:pairs])
    planes[:pairs] += passes[0 : 2 * pairs : 2]
    low = weights[0::2]
    high = np.zeros_like(low)
    high[:pairs] = weights[1::2]
    if count % 2:
        planes[-1] = passes[-1]
    return planes, low, high, base


def _check(matrix: np.ndarray, width: int | None) -> None:
    if matrix.ndim != 2 or (width is not None and matrix.shape[1] != width):
        expected = "(K, M)" if width is None else f"(N, {width})"
        raise DataError(f"a multiplier takes a matrix {expected}, got {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise DataError("a multiplier takes finite numbers, got NaN or infinity")
