"""Vector-matrix multiplication on bit-sliced, bit-serially driven crossbars.

A weight is a signed integer whose magnitude is cut into slices of ``cell.bits`` bits, each on a
differential pair; an input is a signed integer whose magnitude is applied ``dac.bits`` bits at a
time. Every (pass, slice, row tile) gives one current per column, which an ADC rounds; shift-and-add
puts them together.
"""

import dataclasses

import numpy as np

from repast_dist.analog.programming import differential_levels, quantize_symmetric
from repast_dist.analog.specs import VmmSpec
from repast_dist.errors import DataError
from repast_dist.rng import generator

_CHUNK_ELEMENTS = 4_000_000
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
        (slices, K, M) float32, what the pairs hold, in units of one level; None when the product
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
    _reads: int = 0

    def multiply(self, inputs: np.ndarray) -> np.ndarray:
        """Return ``inputs @ weights`` as the hardware computes it.

        Parameters
        ----------
        inputs : ndarray
            (N, K), any float dtype. They share one digital scale, their largest entry; beyond
            that, and an ADC range calibrated on the call, rows do not influence each other.

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
            product = self._multiply_planes(integers)
        return product * (scale * self.weight_scale)

    def calibrate(self, inputs: np.ndarray) -> None:
        """Set and keep the ADC ranges from a sample of inputs, (N, K)."""
        integers, _ = quantize_symmetric(inputs, self.spec.input_bits)
        self.ranges = self._ranges_for(integers)

    def _multiply_planes(self, integers: np.ndarray) -> np.ndarray:
        ranges = self.ranges if self.ranges is not None else self._ranges_for(integers)
        result = np.zeros((len(integers), self.shape[1]))
        rows_at_once = max(1, _CHUNK_ELEMENTS // max(self.shape[1] * self.spec.passes, 1))
        clipped = 0
        for first in range(0, len(integers), rows_at_once):
            chunk = integers[first : first + rows_at_once]
            clipped += self._multiply_chunk(chunk, ranges, result[first : first + rows_at_once])
        tiles = -(-self.shape[0] // self.spec.rows)
        samples = result.size * self.spec.passes * self.spec.slices * tiles
        self.clip_rate = clipped / max(samples, 1)
        self._reads += 1
        return result

    def _multiply_chunk(self, integers: np.ndarray, ranges: np.ndarray, result: np.ndarray) -> int:
        """Add the product of some input rows into `result`; return how many samples clipped."""
        assert self.planes is not None
        spec, clipped = self.spec, 0
        passes = _input_planes(integers, spec)
        weights = _pass_weights(spec)
        noise = self._read_noise()
        for first in range(0, self.shape[0], spec.rows):
            tile = slice(first, first + spec.rows)
            driven = passes[:, :, tile].reshape(-1, passes[:, :, tile].shape[2])
            for number in range(spec.slices):
                current = driven @ self.planes[number, tile]
                if noise is not None:
                    spread = np.sqrt(2.0 * np.einsum("ij,ij->i", driven, driven))
                    sigma = spec.device.cell.read_sigma * (spec.device.cell.levels - 1)
                    draw = noise.standard_normal(current.shape, dtype=np.float32)
                    current += draw * (sigma * spread[:, None]).astype(np.float32)
                clipped += _convert(current, float(ranges[number]), spec.adc.bits)
                digits = current.reshape(len(weights), len(integers), -1)
                result += np.tensordot(weights * _slice_weight(spec, number), digits, axes=1)
        return clipped

    def _read_noise(self) -> np.random.Generator | None:
        if not self.spec.device.cell.read_sigma:
            return None
        return generator(self.seed, "read", *self.address, self._reads)

    def _ranges_for(self, integers: np.ndarray) -> np.ndarray:
        """Return the ADC range of every slice, (slices,)."""
        assert self.planes is not None
        spec = self.spec
        if spec.adc.range == "lossless":
            return np.full(spec.slices, np.inf)
        if spec.adc.range == "full":
            top = (2**spec.dac.bits - 1) * (spec.device.cell.levels - 1)
            return np.full(spec.slices, float(top * min(spec.rows, self.shape[0])))
        step = max(1, len(integers) // _CALIBRATION_VECTORS)
        passes = _input_planes(integers[::step], spec)
        driven = passes.reshape(-1, passes.shape[2])
        ranges = np.zeros(spec.slices)
        for first in range(0, self.shape[0], spec.rows):
            tile = slice(first, first + spec.rows)
            for number in range(spec.slices):
                current = np.abs(driven[:, tile] @ self.planes[number, tile])
                largest = float(np.percentile(current, spec.adc.percentile))
                ranges[number] = max(ranges[number], largest)
        return np.maximum(ranges, 1.0)


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
        digits = np.stack([_slice_digits(integers, spec, s) for s in range(spec.slices)])
        held = differential_levels(digits, spec.device.cell, seed, "vmm", *address)
        planes = held.astype(np.float32)
    return VmmArray(spec, weights.shape, scale, integers, planes, address=address, seed=seed)


def _slice_digits(integers: np.ndarray, spec: VmmSpec, number: int) -> np.ndarray:
    """Return the signed digits of one slice, 0 the least significant."""
    magnitude = np.abs(integers).astype(np.int64)
    digit = (magnitude >> (number * spec.device.cell.bits)) & (spec.device.cell.levels - 1)
    return np.sign(integers).astype(np.int64) * digit


def _slice_weight(spec: VmmSpec, number: int) -> float:
    return float(2 ** (number * spec.device.cell.bits))


def _input_planes(integers: np.ndarray, spec: VmmSpec) -> np.ndarray:
    """Return what is applied in each pass: (passes, N, K) float32 signed digits."""
    magnitude = np.abs(integers).astype(np.int64)
    sign = np.sign(integers).astype(np.float32)
    mask = 2**spec.dac.bits - 1
    planes = np.empty((spec.passes, *integers.shape), np.float32)
    for number in range(spec.passes):
        planes[number] = (magnitude >> (number * spec.dac.bits)) & mask
        planes[number] *= sign
    return planes


def _pass_weights(spec: VmmSpec) -> np.ndarray:
    return 2.0 ** (spec.dac.bits * np.arange(spec.passes))


def _convert(current: np.ndarray, full_scale: float, bits: int) -> int:
    """Round currents to ADC codes in place; return how many were beyond the range."""
    if np.isinf(full_scale):
        np.rint(current, out=current)
        return 0
    codes = float(2 ** (bits - 1) - 1)
    current *= codes / full_scale
    np.rint(current, out=current)
    clipped = int(np.count_nonzero(np.abs(current) > codes))
    np.clip(current, -codes, codes, out=current)
    current *= full_scale / codes
    return clipped


def _check(matrix: np.ndarray, width: int | None) -> None:
    if matrix.ndim != 2 or (width is not None and matrix.shape[1] != width):
        expected = "(K, M)" if width is None else f"(N, {width})"
        raise DataError(f"a multiplier takes a matrix {expected}, got {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise DataError("a multiplier takes finite numbers, got NaN or infinity")
