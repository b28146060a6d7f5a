"""``cuda`` and ``torch``: products by PyTorch, on a GPU or, to check them, on the processor.

All row tiles of a multiplier, and all multipliers of a stack, are one batch: digits, currents,
draws and conversions stay on the device, and sums come back. Sums of currents are whole numbers
that float32 holds exactly, or float64 where it does not. What compiled kernels contract into one
rounding is rounded once here, too: the bits are those of the others on processors that have fused
operations.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch

from repast_dist.analog.kernels.base import (
    EXACT_FLOAT32,
    Conversions,
    Design,
    Held,
    Kernels,
)
from repast_dist.analog.kernels.conversion import bins_of_codes
from repast_dist.analog.kernels.float32 import Float32
from repast_dist.analog.kernels.noise import LOG
from repast_dist.ground.errors import SettingsError

_AT_ONCE = {"cuda": 2**25, "cpu": 2**19}
"""Currents that are worked on at a time on each kind of device."""

_TOGETHER_BYTES = 2**30
"""Of micro-batches that share products on a GPU, see `Kernels`."""

_LOW = 0xFFFFFFFF
_SPLITTER = 2.0**27 + 1.0
_SINE = tuple(1.0 / math.factorial(n) * (-1) ** (n // 2) for n in (11, 9, 7, 5, 3, 1))
_COSINE = tuple(1.0 / math.factorial(n) * (-1) ** (n // 2) for n in (10, 8, 6, 4, 2, 0))


class Torch(Kernels):
    """Products by PyTorch.

    Parameters
    ----------
    name : str
        ``cuda``, or ``torch`` for the processor.

    Raises
    ------
    SettingsError
        PyTorch sees no GPU.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        if name == "cuda" and not torch.cuda.is_available():
            raise SettingsError(
                "farm.kernels=cuda: PyTorch sees no GPU here; valid: auto, float32 or torch"
            )
        self._device = torch.device("cuda" if name == "cuda" else "cpu")
        if name == "cuda":
            self.together_bytes = _TOGETHER_BYTES

    def hold(self, levels: np.ndarray, design: Design) -> Held:
        """Return what multipliers hold, ready for products; that of curved cells stays on the
        processor.
        """
        if design.bends or not levels.size:
            return Float32().hold(levels, design)
        return OnDevice(levels, design, self._device)


class OnDevice(Held):
    """What multipliers hold, in the memory of a device.

    Parameters
    ----------
    levels, design
        See `Held`.
    device : torch.device
        Where it is.
    """

    def __init__(self, levels: np.ndarray, design: Design, device: torch.device) -> None:
        super().__init__(levels.shape, design)
        self._device = device
        count, rows, slices, columns = self.shape
        self._height = min(design.rows, rows)
        self._step = 1.0 if design.whole else design.step_of(levels)
        held = torch.from_numpy(np.ascontiguousarray(levels)).to(device) * (1.0 / self._step)
        missing = self.per * self._height - rows
        held = torch.nn.functional.pad(held, (0, 0, 0, 0, 0, missing))
        held = held.reshape(count, self.per, self._height, slices * columns)
        bound = float(held.abs().sum(dim=2, dtype=torch.float64).max()) * design.top
        self._fits = bound < EXACT_FLOAT32
        self._held = held if self._fits else held.double()

    def add_products(self, integers: np.ndarray, result: np.ndarray, how: Conversions) -> int:
        """Convert the currents of all row tiles and add them, weighted, to the result."""
        clipped = torch.zeros((), dtype=torch.int64, device=self._device)
        for stack, rows in self._parts(result.shape[1]):
            part = slice(rows.start, rows.stop)
            planes = self._planes(stack, integers[stack, part])
            codes = self._codes(stack, rows, result.shape[1], planes, how)
            largest = torch.where(self._lossless(how), math.inf, self.design.codes)
            kept = torch.minimum(torch.maximum(codes, -largest), largest)
            clipped += (kept != codes).sum()
            if how.counted.shape[1]:
                self._count(codes.swapaxes(1, 2), stack, rows, result.shape[1], how)
            sums = torch.from_numpy(result[stack, part]).to(self._device)
            result[stack, part] = self._put_together(kept, sums, how).cpu().numpy()
        return int(clipped)

    def currents(self, number: int, rows: range, integers: np.ndarray) -> np.ndarray:
        """Return the currents of one row tile in levels."""
        which, part = divmod(number, self.per)
        stack = slice(which, which + 1)
        planes = self._planes(stack, integers[stack, rows.start : rows.stop])
        currents = self._currents(stack, planes, slice(part, part + 1))[0, 0]
        found: np.ndarray = (currents * self._step).cpu().numpy()
        return found

    def _parts(self, rows: int) -> Iterator[tuple[slice, range]]:
        """Yield the multipliers and the rows of inputs that are worked on at a time."""
        count, _, slices, columns = self.shape
        width = self.per * self.design.passes * (slices * columns + self._height)
        most = max(_AT_ONCE[self._device.type] // width, 1)
        at_once = max(min(rows, most), 1)
        together = max(most // at_once, 1)
        for first in range(0, count, together):
            for start in range(0, rows, at_once):
                stack = slice(first, min(first + together, count))
                yield stack, range(start, min(start + at_once, rows))

    def _planes(self, stack: slice, integers: np.ndarray) -> torch.Tensor:
        """Return what is applied in each pass, (B, tiles, N, passes, rows)."""
        design = self.design
        inputs = torch.from_numpy(np.ascontiguousarray(integers)).to(self._device)
        missing = self.per * self._height - inputs.shape[2]
        inputs = torch.nn.functional.pad(inputs, (0, missing))
        inputs = inputs.reshape(*inputs.shape[:2], self.per, 1, self._height).swapaxes(1, 2)
        shifts = torch.arange(0, design.passes * design.bits, design.bits, device=self._device)
        digits = (inputs.abs() >> shifts.int()[:, None]) & design.top
        return (digits * inputs.sign()).to(self._held.dtype)

    def _currents(
        self, stack: slice, planes: torch.Tensor, tiles: slice = slice(None)
    ) -> torch.Tensor:
        """Return currents in steps, (B, tiles, N, passes, slices, M) float32."""
        planes, held = planes[:, tiles], self._held[stack, tiles]
        if torch.get_float32_matmul_precision() != "highest":
            # Numbers would be cut to 10 bits before they are multiplied.
            planes, held = planes.double(), held.double()
        products = torch.matmul(planes.flatten(2, 3), held).float()
        return products.reshape(*planes.shape[:4], *self.shape[2:])

    def _lossless(self, how: Conversions) -> torch.Tensor:
        """Return which slices are converted without loss, (slices, 1)."""
        return torch.from_numpy(np.isinf(how.ranges)).to(self._device)[:, None]

    def _codes(
        self, stack: slice, rows: range, count: int, planes: torch.Tensor, how: Conversions
    ) -> torch.Tensor:
        """Return what converters make of currents, (B, tiles, N, passes, slices, M) float32, not
        limited yet.
        """
        design = self.design
        values = self._currents(stack, planes)
        with np.errstate(divide="ignore"):
            per = np.where(np.isinf(how.ranges), 1.0, design.codes / how.ranges.astype(np.float64))
        to_code = np.float32(self._step) * per.astype(np.float32)
        scale = torch.from_numpy(to_code).to(self._device)[:, None]
        if design.noisy:
            sigma = self._spread(planes) / np.float32(self._step)
            sigma = sigma[..., None, None].expand(*values.shape[:5], 1)
            if design.noise_codes:
                own = torch.from_numpy(np.float32(design.noise_codes) / to_code).to(self._device)
                own = own[:, None]
                sigma = _root(_fused32(sigma, sigma, own * own))
            values = _fused32(sigma, self._noise(stack, rows, count, how), values)
        if how.errors.shape[1]:
            constant, slope, square, cube = (
                torch.from_numpy(how.errors).to(self._device).swapaxes(0, 1)[:, :, None, None]
            )
            x = values * scale
            bent = _fused32(x, cube.expand_as(x), square)
            values = _fused32(x, _fused32(x, bent, slope), constant)
        else:
            values = values * scale
        return values.round()

    def _spread(self, planes: torch.Tensor) -> torch.Tensor:
        """Return the standard deviation of read noise in levels, (B, tiles, N, passes) float32."""
        energies = planes.double().square().sum(dim=-1).float()
        return _root(energies * 2.0) * np.float32(self.design.read_sigma)

    def _noise(self, stack: slice, rows: range, count: int, how: Conversions) -> torch.Tensor:
        """Return the draws of samples, shaped as their currents."""
        passes, slices = self.design.passes, self.shape[2]
        which = torch.arange(stack.start, stack.stop, device=self._device)[:, None]
        row = which * count + torch.arange(rows.start, rows.stop, device=self._device)
        of_call = how.rows_of_call(self.shape[0] * count)
        call, row = row // of_call, row % of_call
        sample = torch.arange(passes * slices, device=self._device)
        places = (row[..., None] * (passes * slices) + sample)[:, None]
        keys = torch.from_numpy(how.keys.view(np.int64)).to(self._device)
        drawn = normal_rows(keys[:, call].swapaxes(0, 1)[..., None], places, self.shape[3])
        return drawn.reshape(len(which), self.per, len(rows), passes, *self.shape[2:])

    def _count(
        self, codes: torch.Tensor, stack: slice, rows: range, count: int, how: Conversions
    ) -> None:
        """Count the codes of those samples that are to be, (B, N, tiles, passes, slices, M)."""
        largest = int(self.design.codes)
        calls, slices, bins = how.counts.shape
        counted = how.counted[stack, rows.start : rows.stop]
        which, row = np.nonzero(counted)
        number = (which + stack.start) * count + row + rows.start
        call = torch.from_numpy(number // how.rows_of_call(self.shape[0] * count))
        table = torch.from_numpy(bins_of_codes(largest, bins - 1)).to(self._device)
        chosen = codes[torch.from_numpy(counted).to(self._device)]
        found = table[chosen.abs().clamp(max=largest + 1).long()]
        found += bins * torch.arange(slices, device=self._device)[:, None]
        found += slices * bins * call.to(self._device)[:, None, None, None, None]
        counts = torch.bincount(found.flatten(), minlength=calls * slices * bins)
        how.counts[:] += counts.reshape(calls, slices, bins).cpu().numpy()

    def _put_together(
        self, codes: torch.Tensor, result: torch.Tensor, how: Conversions
    ) -> torch.Tensor:
        """Return a result (B, N, M) to which codes are added, in the order of the other kernels."""
        design = self.design
        fits = self.total_dtype(how.ranges) is np.float32
        weights = 2.0 ** (design.bits * torch.arange(design.passes, device=self._device))
        weights = weights.to(torch.float32 if fits else torch.float64)[:, None, None]
        totals = (codes * weights).sum(dim=3).double()
        ranges = how.ranges.astype(np.float64)
        back = design.slice_weights * np.where(np.isinf(ranges), 1.0, ranges / design.codes)
        for tile in range(self.per):
            for number, weight in enumerate(back):
                total = totals[:, tile, :, number]
                result = _fused64(torch.full_like(total, float(weight)), total, result)
        return result


def normal_rows(keys: torch.Tensor, places: torch.Tensor, count: int) -> torch.Tensor:
    """Return the standard normal draws of `noise.fill_normal`.

    Parameters
    ----------
    keys : Tensor
        int64 patterns of keys, of a shape that broadcasts with that of places.
    places : Tensor
        int64 numbers of rows.
    count : int
        Draws of a row.

    Returns
    -------
    Tensor
        (..., count) float32.
    """
    keys, places = torch.broadcast_tensors(keys, places)
    quarter, left = divmod(count, 4)
    counters = torch.arange(quarter + (left > 0), device=places.device)
    words = _philox(counters, places[..., None], keys[..., None])
    first = _pair(*words[:2])
    second = _pair(*words[2:])
    parts = [part[..., :quarter] for part in (*first, *second)]
    rest = [part[..., quarter:] for part in (*first, *second[:1])]
    return torch.cat([*parts, *rest[:left]], dim=-1)


def _philox(
    counters: torch.Tensor, places: torch.Tensor, keys: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """Return four random words for every counter, as int64; see `noise.philox`."""
    a, b, c = counters, places & _LOW, (places >> 32) & _LOW
    a, b, c = torch.broadcast_tensors(a, b, c)
    d = torch.zeros_like(a)
    k0, k1 = keys & _LOW, (keys >> 32) & _LOW
    for _ in range(10):
        # Products of 64 bits, whatever the sign that they are given.
        first, second = a * 0xD2511F53, c * 0xCD9E8D57
        a, b = ((second >> 32) & _LOW) ^ b ^ k0, second & _LOW
        c, d = ((first >> 32) & _LOW) ^ d ^ k1, first & _LOW
        k0, k1 = (k0 + 0x9E3779B9) & _LOW, (k1 + 0xBB67AE85) & _LOW
    return a, b, c, d


def _pair(first: torch.Tensor, second: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two draws of the Box-Muller transform of two random words; see `noise._pair`."""
    whole = (first >> 8).float() + 0.5
    pattern = whole.view(torch.int32)
    exponent = ((pattern >> 23) - (127 + 24)).float()
    mantissa = ((pattern & 0x7FFFFF) | 0x3F800000).view(torch.float32)
    log = _horner(mantissa - 1.5, LOG[::-1])
    log = _fused32(exponent, torch.full_like(exponent, 0.6931471805599453), log)
    radius = _root(torch.clamp(-2.0 * log, min=0.0))
    # The second word as a signed number.
    angle = (second - ((second >> 31) << 32)).float() * np.float32(np.pi / 2.0**32)
    square = angle * angle
    sine = angle * _horner(square, _SINE)
    cosine = _horner(square, _COSINE) * (1.0 - (first & 1).float() * 2.0)
    return radius * cosine, radius * sine


def _horner(x: torch.Tensor, coefficients: tuple[float, ...]) -> torch.Tensor:
    """Return a polynomial with float32 coefficients, the highest power first."""
    value = torch.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value = _fused32(value, x, torch.full_like(x, coefficient))
    return value


def _root(x: torch.Tensor) -> torch.Tensor:
    """Return the square root of float32, rounded once: libraries that PyTorch calls are not exact,
    but closer in float64 than a root is to the middle between two numbers.
    """
    return x.double().sqrt().float()


def _fused32(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """Return ``a * b + c`` of float32, rounded once."""
    # The product is exact in float64; a sum rounded to odd there can be rounded again.
    return _to_odd(*_two_sum(a.double() * b.double(), c.double())).float()


def _fused64(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """Return ``a * b + c`` of float64, rounded once.

    Boldo and Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms using
    rounding to odd", IEEE Transactions on Computers 57 (2008).
    """
    product = a * b
    a_high, b_high = _high(a), _high(b)
    a_low, b_low = a - a_high, b - b_high
    error = a_high * b_high - product + a_high * b_low + a_low * b_high + a_low * b_low
    upper, lower = _two_sum(c, error)
    total, rest = _two_sum(product, upper)
    return total + _to_odd(*_two_sum(lower, rest))


def _high(x: torch.Tensor) -> torch.Tensor:
    """Return the upper half of the bits of float64."""
    large = x * _SPLITTER
    return large - (large - x)


def _two_sum(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a sum of float64 and what rounding took from it."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _to_odd(total: torch.Tensor, error: torch.Tensor) -> torch.Tensor:
    """Return a sum rounded to the neighbour with an odd pattern where it is not exact."""
    pattern = total.contiguous().view(torch.int64)
    away = torch.where((error > 0) == (total > 0), 1, -1)
    inexact_even = (error != 0) & (pattern & 1 == 0)
    return torch.where(inexact_even, pattern + away, pattern).view(torch.float64)
