"""Converters: how far each is from an ideal one, and which ranges multiplying arrays need."""

import dataclasses
import functools
import math
from typing import Self

import numpy as np

from repast_dist.analog.kernels.noise import addressed_normal
from repast_dist.analog.specs import AdcSpec, ConverterErrors, InvSpec, VmmSpec
from repast_dist.ground.numbers import ceil_div
from repast_dist.ground.rng import generator, place

BINS = 32
"""Bins of equal width that the codes of a range are counted in; one more counts what is beyond."""

_SLOPE_PER_TAIL = 2.0
_MOST_CHANGE = 2.0


def converter_errors(
    spec: VmmSpec, columns: tuple[int, int], tile: int, seed: int, *site: int | str
) -> np.ndarray:
    """Return what the converters of one row tile make of an exact code.

    The converters of an array share its pairs of columns, or the columns of weights with an offset,
    each an equal run of them. What is read through one converter shares its offset, gain and
    nonlinearity.

    Parameters
    ----------
    spec : VmmSpec
        The multiplier.
    columns : tuple of int
        First and last + 1 of the weights' columns that are converted.
    tile : int
        Number of the row tile.
    seed, *site
        Where the converters are, for example ``("forward", "conv1")``: whatever is programmed
        there is read through the same ones.

    Returns
    -------
    ndarray
        (4, slices, columns) float32, coefficients of the polynomial in the code, constant first.
    """
    design = spec.adc, spec.slices, spec.weight_columns, spec.adcs_per_array
    return _tile_errors(*design, columns, tile, seed, site).copy()


def all_converter_errors(
    spec: VmmSpec, columns: tuple[int, int], tiles: int, seed: int, *site: int | str
) -> np.ndarray:
    """Return `converter_errors` of so many row tiles, (tiles, 4, slices, columns) float32; (tiles,
    0, 0, 0) where converters are exact.
    """
    if not spec.adc.distorts:
        return np.zeros((tiles, 0, 0, 0), np.float32)
    design = spec.adc, spec.slices, spec.weight_columns, spec.adcs_per_array
    return np.stack([_tile_errors(*design, columns, tile, seed, site) for tile in range(tiles)])


# Converters stay the same from step to step.
@functools.lru_cache(maxsize=4096)
def _tile_errors(
    adc: AdcSpec,
    slices: int,
    width: int,
    adcs_per_array: int,
    columns: tuple[int, int],
    tile: int,
    seed: int,
    site: tuple[int | str, ...],
) -> np.ndarray:
    first, last = columns
    pairs = np.arange(first * slices, last * slices)
    numbers = pairs // width * adcs_per_array + pairs % width * adcs_per_array // width
    arrays = (
        range(int(pairs[0]) // width, ceil_div(int(pairs[-1]) + 1, width)) if len(pairs) else ()
    )
    drawn = np.zeros((4, (len(arrays) + (arrays[0] if arrays else 0)) * adcs_per_array))
    for array in arrays:
        part = slice(array * adcs_per_array, (array + 1) * adcs_per_array)
        random = generator(seed, "converters", *site, tile, array)
        top = 2.0 ** (adc.bits - 1) - 1.0
        drawn[:, part] = _polynomials(adc, top, adcs_per_array, random)
    held = drawn[:, numbers].reshape(4, last - first, slices)
    return np.ascontiguousarray(held.swapaxes(1, 2), np.float32)


def needed_ranges(counts: np.ndarray, ranges: np.ndarray, adc: AdcSpec) -> np.ndarray:
    """Return the ranges that counted codes ask for.

    Where few enough codes are beyond the range, it is the smallest bin's edge that leaves no more
    than the percentile allows above it. Where too many are, the converter does not see how far;
    currents are then taken to fall off exponentially, as fast as between half the range and its
    end. A range doubles at most, and narrows by no more than it may.

    Parameters
    ----------
    counts : ndarray
        (slices, BINS + 1) int64, see `BINS`.
    ranges : ndarray
        (slices,) float32 in which they were counted.
    adc : AdcSpec
        Says which share of the codes the range should hold, by what part it should be wider than
        that, and how fast it may narrow.

    Returns
    -------
    ndarray
        (slices,) float32, no less than one level.
    """
    needed = np.empty_like(ranges)
    for number, row in enumerate(counts.tolist()):
        allowed = (1.0 - adc.percentile / 100.0) * float(sum(row))
        beyond = float(row[-1])
        if beyond <= allowed:
            # From the last bin down: codes above the upper edge of one.
            above, bins = row[-1], BINS
            while bins > 1 and above + row[bins - 1] <= allowed:
                bins -= 1
                above += row[bins]
            factor = bins / BINS
        else:
            tail = math.log(float(sum(row[BINS // 2 :])) / beyond)
            excess = math.log(beyond / max(allowed, 0.5))
            factor = 1.0 + excess / (_SLOPE_PER_TAIL * tail) if tail > 0 else _MOST_CHANGE
        factor *= 1.0 + adc.margin
        factor = min(max(factor, 1.0 - adc.narrowing), _MOST_CHANGE)
        needed[number] = max(float(ranges[number]) * factor, 1.0)
    return needed


def least_that_counts(adc: AdcSpec) -> int:
    """Return up to which magnitude of a code its bin does not matter to `needed_ranges`: ranges
    narrow no faster than they may, and how they fall off is found from the upper half.
    """
    bins = min(BINS // 2, int(BINS * (1.0 - adc.narrowing) / (1.0 + adc.margin)))
    return (2 ** (adc.bits - 1) - 1) * bins // BINS


def effective_bits(adc: AdcSpec) -> float:
    """Return the effective number of bits of a full-scale sine, as IEEE Std 1241 defines it.

    Offset and gain are left out, as in the standard's sine fit. The nonlinearity is that of
    `converter_errors`, in the mean over converters; what it pushes beyond the range is left out.
    """
    # A full-scale sine turns the quadratic into 9/32 and the cubic into 25/128 of mean square
    # distortion; they are scaled to a root mean square of 1 over uniform codes.
    of_sine = (5.0 * 9.0 / 32.0 + 7.0 * 25.0 / 128.0) / 2.0
    error = 1.0 / 12.0 + adc.noise_lsb**2 + of_sine * adc.inl_lsb**2
    return math.log2((2 ** (adc.bits - 1) - 1) / math.sqrt(3.0 * error))


@dataclasses.dataclass(frozen=True)
class RowConverters:
    """Converters of one kind in an inverting array, one for every row or shared by some.

    Attributes
    ----------
    polynomial : ndarray
        (4, n) what they make of an exact code, the constant first.
    noise : float
        Standard deviation of a conversion, in codes.
    key : uint64
        Of its draws.
    """

    polynomial: np.ndarray
    noise: float
    key: np.uint64

    @classmethod
    def of(
        cls,
        errors: ConverterErrors,
        bits: int,
        users: np.ndarray,
        seed: int,
        *address: int | str,
    ) -> Self | None:
        """Return converters with errors; None where these are ideal.

        Parameters
        ----------
        errors : ConverterErrors
            How large they are.
        bits : int
            Of a code, sign included.
        users : ndarray
            (n,) int, the converter of every row.
        seed, *address
            Where they are: the same ones each time that the array is written, with other noise.
        """
        if errors.ideal or not len(users):
            return None
        top = 2.0 ** (bits - 1) - 1.0
        random = generator(seed, "converters", *place(address))
        drawn = _polynomials(errors, top, int(users[-1]) + 1, random)
        key = generator(seed, "conversions", *address).bit_generator.random_raw()
        return cls(drawn[:, users], errors.noise_lsb, np.uint64(key))

    def answers(self, codes: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        """Return what they make of exact codes, (n, r), noise included, before any rounding.

        Parameters
        ----------
        codes : ndarray
            (n, r) float64.
        inputs : ndarray
            (n, r) what the array solves for, which addresses the draws.
        """
        c = self.polynomial[:, :, None]
        answered = c[0] + codes * (c[1] + codes * (c[2] + codes * c[3]))
        if self.noise:
            answered += self.noise * addressed_normal(self.key, len(codes), inputs)
        return np.asarray(answered)


@dataclasses.dataclass(frozen=True)
class InvConverters:
    """The converters of an inverting array, where any of them is not ideal.

    Attributes
    ----------
    dac, adc : RowConverters or None
        Of its inputs and of its outputs.
    """

    dac: RowConverters | None
    adc: RowConverters | None

    @classmethod
    def of(cls, rows: int, spec: InvSpec, seed: int, *address: int | str) -> Self | None:
        """Return the converters of an array; None where all are ideal."""
        if spec.dac.ideal and spec.adc.ideal:
            return None
        row = np.arange(rows)
        shared = row * min(spec.adcs_per_array, rows) // max(rows, 1)
        return cls(
            RowConverters.of(spec.dac, spec.dac_bits, row, seed, "inv dac", *address),
            RowConverters.of(spec.adc, spec.adc_bits, shared, seed, "inv adc", *address),
        )

    def driven(self, codes: np.ndarray) -> np.ndarray:
        """Return what inputs of some codes are driven with, (n, r), in codes."""
        return codes if self.dac is None else self.dac.answers(codes, codes)

    def read(self, codes: np.ndarray, bits: int, inputs: np.ndarray) -> np.ndarray:
        """Return the codes that are read of outputs, (n, r), which are known in codes."""
        if self.adc is not None:
            codes = self.adc.answers(codes, inputs)
        top = 2.0 ** (bits - 1) - 1.0
        return np.clip(np.rint(codes), -top, top)


def _polynomials(
    adc: ConverterErrors, top: float, count: int, random: np.random.Generator
) -> np.ndarray:
    """Return (4, count) coefficients of converters' answers to exact codes up to a largest.

    The nonlinearity is a sum of the second and the third Legendre polynomial, a bow and an S, which
    no offset and no gain can imitate.
    """
    offset, gain = random.standard_normal((2, count))
    angle = random.uniform(0.0, 2.0 * np.pi, count)
    bow = adc.inl_lsb * np.cos(angle) * math.sqrt(5.0) / 2.0
    curve = adc.inl_lsb * np.sin(angle) * math.sqrt(7.0) / 2.0
    return np.stack(
        [
            adc.offset_left_lsb * offset - bow,
            1.0 + adc.gain_error * gain - 3.0 * curve / top,
            3.0 * bow / top**2,
            5.0 * curve / top**3,
        ]
    )
