"""The fused inner loops of a product: inputs to bit planes, currents to codes to sums.

Compiled by numba. Everything is written so that the innermost loop runs over columns, without
branches, and turns into vector instructions.
"""

import numba
import numpy as np

from repast_dist.analog.kernels.noise import fill_normal
from repast_dist.analog.kernels.vectors import wide

_UPPER = np.float32(256.0)
_KEEP = {"contract", "nsz"}
_ROWS, _COLUMNS = 64, 1024
"""That are turned at a time."""


def plain(values: np.ndarray) -> np.ndarray:
    """Return (B, N, K) as float64 that lies in memory without gaps, transposed or not; itself if it
    does.
    """
    if values.dtype == np.float64 and _without_gaps(values).flags.c_contiguous:
        return values
    return np.ascontiguousarray(values, np.float64)


def _without_gaps(values: np.ndarray) -> np.ndarray:
    """Return (B, N, K) as it lies in memory: itself or (B, K, N)."""
    return values if values.flags.c_contiguous else values.swapaxes(1, 2)


def largest_magnitudes(values: np.ndarray) -> np.ndarray:
    """Return the largest magnitude of every matrix, `plain` (B, N, K) to (B,); infinite or NaN if
    any value is.
    """
    found = np.zeros(len(values), np.int64)
    _largest_patterns(_without_gaps(values).view(np.int64), found)
    return found.view(np.float64)


@numba.njit(cache=True, nogil=True)
def _largest_patterns(patterns: np.ndarray, found: np.ndarray) -> None:
    """Without its sign, the pattern of a float grows with it; those of NaN are the largest."""
    wide()
    for b in range(patterns.shape[0]):
        largest = np.int64(0)
        for n in range(patterns.shape[1]):
            for k in range(patterns.shape[2]):
                largest = max(largest, patterns[b, n, k] & np.int64(0x7FFFFFFFFFFFFFFF))
        found[b] = largest


def round_to_integers(
    values: np.ndarray, scales: np.ndarray, top: float, integers: np.ndarray
) -> int:
    """Write ``rint(values / scale)`` within ``±top``: `plain` (B, N, K) to int32 or a float dtype
    without gaps, for scales (B,) that are powers of two.

    Returns how many values were beyond.
    """
    if values.flags.c_contiguous:
        return int(_round_rows(values, scales, top, integers))
    return int(_round_turned(values.swapaxes(1, 2), scales, top, integers))


@numba.njit(cache=True, nogil=True)
def _round_rows(values: np.ndarray, scales: np.ndarray, top: float, integers: np.ndarray) -> int:
    beyond = 0
    for b in range(values.shape[0]):
        for n in range(values.shape[1]):
            beyond += _round(values[b, n], scales[b], top, integers[b, n])
    return beyond


@numba.njit(cache=True, nogil=True)
def _round_turned(values: np.ndarray, scales: np.ndarray, top: float, integers: np.ndarray) -> int:
    """Write the transposed of (B, K, N), as many rows and columns at a time as a cache holds."""
    beyond, (count, depth, width) = 0, values.shape
    kept = np.empty((_ROWS, min(_COLUMNS, width)), integers.dtype)
    for b in range(count):
        for k in range(0, depth, _ROWS):
            deep = min(_ROWS, depth - k)
            for n in range(0, width, _COLUMNS):
                across = min(_COLUMNS, width - n)
                for row in range(deep):
                    some = values[b, k + row, n : n + across]
                    beyond += _round(some, scales[b], top, kept[row])
                for column in range(across):
                    source, out = kept[:, column], integers[b, n + column, k : k + deep]
                    for row in range(deep):
                        out[row] = source[row]
    return beyond


@numba.njit(cache=True, nogil=True)
def _round(values: np.ndarray, scale: float, top: float, integers: np.ndarray) -> int:
    """Write the first of one row of integers."""
    wide()
    # The same bits in less time: scales are powers of two.
    per = 1.0 / scale
    exact = np.isfinite(per)
    beyond = np.int64(0)
    for k in range(values.shape[0]):
        value = np.rint(values[k] * per if exact else values[k] / scale)
        beyond += np.int64(abs(value) > top)
        integers[k] = min(max(value, -top), top)
    return int(beyond)


@numba.njit(cache=True, nogil=True)
def bit_planes(
    integers: np.ndarray, bits: int, passes: int, base: float, planes: np.ndarray
) -> None:
    """Cut integers into what is applied in each pass.

    Parameters
    ----------
    integers : ndarray
        (N, rows) int32 of one row tile.
    bits : int
        Magnitude bits per pass.
    passes : int
        Passes per input.
    base : float
        With ``base > 0`` a plane is two passes, ``p + base * q``; with 0 it is one.
    planes : ndarray
        (N, planes, rows), written: float32, float64, or int8 for digits below 128 without a base.
    """
    wide()
    samples, rows = integers.shape
    mask = np.int32((1 << bits) - 1)
    if base == 0.0:
        for n in range(samples):
            for plane in range(planes.shape[1]):
                low = np.int32(plane * bits)
                for k in range(rows):
                    value = integers[n, k]
                    digit = np.int32((np.int32(abs(value)) >> low) & mask)
                    planes[n, plane, k] = np.int32(-digit) if value < 0 else digit
        return
    unit = np.float32(base)
    for n in range(samples):
        for plane in range(planes.shape[1]):
            low = np.int32(plane * 2 * bits)
            high = np.int32(low + bits)
            packed = plane * 2 + 1 < passes
            for k in range(rows):
                value = integers[n, k]
                magnitude = np.int32(abs(value))
                both = np.float32(np.int32((magnitude >> low) & mask))
                if packed:
                    both += unit * np.float32(np.int32((magnitude >> high) & mask))
                planes[n, plane, k] = -both if value < 0 else both


@numba.njit(cache=True, nogil=True)
def pass_energies(integers: np.ndarray, bits: int, energies: np.ndarray) -> None:
    """Write the sum of squares of every pass' digits: (N, rows) int32 to (N, passes) float32."""
    wide()
    samples, rows = integers.shape
    mask = np.int32((1 << bits) - 1)
    for n in range(samples):
        for p in range(energies.shape[1]):
            low = np.int32(p * bits)
            total = np.int32(0)
            for k in range(rows):
                digit = np.int32((np.int32(abs(integers[n, k])) >> low) & mask)
                # Sums of 32-bit numbers are 64-bit ones unless told otherwise.
                total = np.int32(total + np.int32(digit * digit))
            energies[n, p] = np.float32(total)


@numba.njit(cache=True, nogil=True, fastmath=_KEEP)
def convert_and_add(
    currents: np.ndarray,
    result: np.ndarray,
    left: int,
    total: np.ndarray,
    passes: int,
    bits: int,
    base: float,
    step: float,
    ranges: np.ndarray,
    codes: float,
    slice_weights: np.ndarray,
    spread: np.ndarray,
    noise_codes: float,
    keys: np.ndarray,
    first: int,
    rows_of_call: int,
    errors: np.ndarray,
    counted: np.ndarray,
    counts: np.ndarray,
    least: int,
) -> int:
    """Convert the currents of one row tile and add them, weighted, to the result.

    Parameters
    ----------
    currents : ndarray
        (N, planes, parts, slices, M) float32 or int32, in steps, see `bit_planes`; a second part
        is what is to be added to 256 times the first.
    result : ndarray
        (N, columns) float64, added to in place.
    left : int
        Column of the result that is the first of these M.
    total : ndarray
        (M,) scratch in which codes times pass weights add up: float32 where these whole numbers
        stay below 2^24, else float64.
    passes, bits : int
        Passes per input and bits per pass; pass p weighs ``2 ** (bits * p)``.
    base : float
        What separates packed passes; 0: not packed.
    step : float
        What one unit of the currents is worth, in levels: a power of two.
    ranges : ndarray
        (slices,) float32 ADC full scale in levels; infinity converts whole levels without loss.
    codes : float
        Largest ADC code.
    slice_weights : ndarray
        (slices,) float64.
    spread : ndarray
        (N, passes) float32, standard deviation of a sample's read noise in levels; (0, 0) without
        any noise.
    noise_codes : float
        Standard deviation of the converters' own noise, in codes.
    keys : ndarray
        (calls,) uint64, streams of the noise.
    first, rows_of_call : int
        Number of the first input row among those of all calls, and rows of each call.
    errors : ndarray
        (4, slices, M) float32, the converters' answers to an exact code, as coefficients of a
        polynomial; (0, 0, 0) where they are exact.
    counted : ndarray
        (N,) bool, whether the codes of a row are counted; (0,) counts none.
    counts : ndarray
        (calls, slices, bins + 1) int64, added to: codes in bins of equal width, and those beyond.
    least : int
        Codes up to here are all counted in the first bin.

    Returns
    -------
    int
        Samples beyond the range.
    """
    wide()
    samples, planes, parts, slices, columns = currents.shape
    noisy = spread.shape[0] > 0
    distorted = errors.shape[0] > 0
    counting = counted.shape[0] > 0
    rows = np.empty((2, columns), np.float32)
    noise = np.empty(columns, np.float32)
    answer = np.empty(columns, np.float32)
    scratch = np.empty(columns, np.int32)
    places = (
        bins_of_codes(np.int64(codes), counts.shape[2] - 1) if counting else np.zeros(0, np.int64)
    )
    clipped = np.int64(0)
    plain = not noisy and not distorted and base == 0.0
    for n in range(samples):
        row = result[n, left : left + columns]
        call, number_in_call = divmod(first + n, rows_of_call)
        if plain:
            clipped += _convert_sample(
                currents, n, row, total, bits, step, ranges, codes, slice_weights
            )
            if counting and counted[n]:
                for s in range(slices):
                    scale = np.float32(step) * np.float32(codes / ranges[s])
                    for plane in range(planes):
                        upper, lower = currents[n, plane, 0, s], currents[n, plane, parts - 1, s]
                        _together(upper, lower, parts == 2, rows[0])
                        count_codes(rows[0], scale, least, places, scratch, counts[call, s])
            continue
        for s in range(slices):
            lossless = np.isinf(ranges[s])
            to_code = np.float32(step) * (
                np.float32(1.0) if lossless else np.float32(codes / ranges[s])
            )
            limit = np.float32(np.inf) if lossless else np.float32(codes)
            own = np.float32(noise_codes) / to_code
            scale = np.float32(1.0) if distorted else to_code
            total[:] = 0.0
            for plane in range(planes):
                number = plane
                packed = 1
                if base > 0.0:
                    number = 2 * plane
                    packed = min(2, passes - number)
                upper, lower = currents[n, plane, 0, s], currents[n, plane, parts - 1, s]
                _together(upper, lower, parts == 2, rows[0])
                if packed == 2:
                    _unpack(np.float32(base), rows)
                for part in range(packed):
                    value = rows[part]
                    if noisy:
                        place = (number_in_call * passes + number + part) * slices + s
                        fill_normal(keys[call], place, noise)
                        sigma = spread[n, number + part] / np.float32(step)
                        if own > 0.0:
                            sigma = np.sqrt(sigma * sigma + own * own)
                        _add_scaled(value, sigma, noise)
                        value = noise
                    if distorted:
                        _answer(value, to_code, errors[:, s], answer)
                        value = answer
                    weight = np.float32(2.0 ** ((number + part) * bits))
                    clipped += _convert(value, scale, limit, weight, total)
                    if counting and counted[n]:
                        count_codes(value, scale, least, places, scratch, counts[call, s])
            add_weighted(slice_weights[s] * (1.0 if lossless else ranges[s] / codes), total, row)
    return int(clipped)


@numba.njit(cache=True, nogil=True, fastmath=_KEEP)
def _convert_sample(
    currents: np.ndarray,
    n: int,
    result: np.ndarray,
    total: np.ndarray,
    bits: int,
    step: float,
    ranges: np.ndarray,
    codes: float,
    slice_weights: np.ndarray,
) -> int:
    """Do what `convert_and_add` does for one sample, without noise and errors: half the time."""
    wide()
    _, passes, parts, slices, _ = currents.shape
    clipped = np.int64(0)
    for s in range(slices):
        lossless = np.isinf(ranges[s])
        to_code = np.float32(step) * (
            np.float32(1.0) if lossless else np.float32(codes / ranges[s])
        )
        limit = np.float32(np.inf) if lossless else np.float32(codes)
        total[:] = 0.0
        for number in range(passes):
            weight = np.float32(2.0 ** (number * bits))
            upper, lower = currents[n, number, 0, s], currents[n, number, parts - 1, s]
            if parts == 1:
                clipped += _convert(upper, to_code, limit, weight, total)
            else:
                clipped += _convert_pair(upper, lower, to_code, limit, weight, total)
        add_weighted(slice_weights[s] * (1.0 if lossless else ranges[s] / codes), total, result)
    return int(clipped)


@numba.njit(cache=True, nogil=True, fastmath=_KEEP)
def add_weighted(weight: float, total: np.ndarray, result: np.ndarray) -> None:
    """Add sums of codes, (M,), to a row of results, (M,) float64, with a weight."""
    wide()
    for m in range(total.shape[0]):
        result[m] += weight * total[m]


@numba.njit(cache=True, nogil=True, fastmath=_KEEP)
def _together(upper: np.ndarray, lower: np.ndarray, paired: bool, values: np.ndarray) -> None:
    """Write one row of samples, of which there are one part or two, as float32."""
    wide()
    if paired:
        for m in range(values.shape[0]):
            values[m] = _UPPER * np.float32(upper[m]) + np.float32(lower[m])
    else:
        for m in range(values.shape[0]):
            values[m] = upper[m]


@numba.njit(cache=True, nogil=True, fastmath=_KEEP)
def _unpack(base: np.float32, rows: np.ndarray) -> None:
    """Split ``p + base * q``, the first row, into its whole numbers, p and q."""
    wide()
    per_base = np.float32(1.0) / base
    for m in range(rows.shape[1]):
        upper = np.rint(rows[0, m] * per_base)
        rows[0, m] -= upper * base
        rows[1, m] = upper


@numba.njit(cache=True, nogil=True, fastmath=_KEEP)
def _add_scaled(values: np.ndarray, scale: np.float32, noise: np.ndarray) -> None:
    wide()
    for m in range(values.shape[0]):
        noise[m] = values[m] + scale * noise[m]


@numba.njit(cache=True, nogil=True, fastmath=_KEEP)
def _convert(
    values: np.ndarray,
    to_code: np.float32,
    limit: np.float32,
    weight: np.float32,
    total: np.ndarray,
) -> int:
    """Add the codes of one row of samples to the total; return how many were out of range."""
    wide()
    beyond = np.int32(0)
    for m in range(values.shape[0]):
        code = np.rint(np.float32(values[m]) * to_code)
        kept = min(max(code, -limit), limit)
        beyond = np.int32(beyond + np.int32(kept != code))
        total[m] += weight * kept
    return int(beyond)


@numba.njit(cache=True, nogil=True, fastmath=_KEEP)
def _convert_pair(
    upper: np.ndarray,
    lower: np.ndarray,
    to_code: np.float32,
    limit: np.float32,
    weight: np.float32,
    total: np.ndarray,
) -> int:
    """Do what `_convert` does for samples of two parts."""
    wide()
    beyond = np.int32(0)
    for m in range(upper.shape[0]):
        value = _UPPER * np.float32(upper[m]) + np.float32(lower[m])
        code = np.rint(value * to_code)
        kept = min(max(code, -limit), limit)
        beyond = np.int32(beyond + np.int32(kept != code))
        total[m] += weight * kept
    return int(beyond)


@numba.njit(cache=True, nogil=True, fastmath=_KEEP)
def _answer(
    values: np.ndarray, to_code: np.float32, errors: np.ndarray, answer: np.ndarray
) -> None:
    """Write what converters with errors see of one row of samples, in codes."""
    wide()
    for m in range(values.shape[0]):
        x = values[m] * to_code
        answer[m] = errors[0, m] + x * (errors[1, m] + x * (errors[2, m] + x * errors[3, m]))


@numba.njit(cache=True, nogil=True)
def bins_of_codes(top: int, bins: int) -> np.ndarray:
    """Return the bin of every magnitude of a code, the largest and the one beyond it included."""
    places = np.empty(top + 2, np.int64)
    for code in range(top + 1):
        places[code] = max((code * bins - 1) // top, 0)
    places[top + 1] = bins
    return places


@numba.njit(cache=True, nogil=True)
def count_codes(
    values: np.ndarray,
    to_code: np.float32,
    least: int,
    places: np.ndarray,
    codes: np.ndarray,
    counts: np.ndarray,
) -> None:
    """Count the codes of one row of samples in bins of equal width, and those beyond.

    Parameters
    ----------
    values : ndarray
        (M,) float32.
    to_code : float32
        What turns them into codes.
    least : int
        Codes up to here are all counted in the first bin.
    places : ndarray
        See `bins_of_codes`.
    codes : ndarray
        (M,) int32 scratch.
    counts : ndarray
        (bins + 1,) int64, added to.
    """
    wide()
    beyond = np.float32(places.shape[0] - 1)
    for m in range(values.shape[0]):
        codes[m] = np.int32(min(abs(np.rint(values[m] * to_code)), beyond))
    # Most are small: what is left is put in front, without branches.
    kept = np.int64(0)
    for m in range(values.shape[0]):
        code = codes[m]
        codes[kept] = code
        kept += np.int64(code > least)
    counts[0] += values.shape[0] - kept
    for i in range(kept):
        counts[places[codes[i]]] += 1
