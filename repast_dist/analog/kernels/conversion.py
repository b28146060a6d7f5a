"""The fused inner loops of a product: inputs to bit planes, currents to codes to sums.

Compiled by numba. Everything is written so that the innermost loop runs over columns, without
branches, and turns into vector instructions.
"""

import numba
import numpy as np

from repast_dist.analog.kernels.noise import fill_normal

_KEEP = {"contract", "nsz"}


@numba.njit(cache=True, nogil=True)
def round_to_integers(values: np.ndarray, scale: float, top: float, integers: np.ndarray) -> int:
    """Write ``rint(values / scale)`` within ``±top``: (N, K) float64 to int32 or a float dtype.

    Returns how many values were beyond.
    """
    beyond = np.int64(0)
    for n in range(values.shape[0]):
        for k in range(values.shape[1]):
            value = np.rint(values[n, k] / scale)
            beyond += np.int64(abs(value) > top)
            integers[n, k] = min(max(value, -top), top)
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
    samples, rows = integers.shape
    per = 2 if base > 0.0 else 1
    mask = np.int32((1 << bits) - 1)
    unit = np.float32(base)
    for n in range(samples):
        for plane in range(planes.shape[1]):
            low = np.int32(plane * per * bits)
            high = np.int32(low + bits)
            packed = base > 0.0 and plane * per + 1 < passes
            for k in range(rows):
                value = integers[n, k]
                magnitude = np.int32(abs(value))
                digit = np.float32(np.int32((magnitude >> low) & mask))
                if packed:
                    digit += unit * np.float32(np.int32((magnitude >> high) & mask))
                planes[n, plane, k] = -digit if value < 0 else digit


@numba.njit(cache=True, nogil=True)
def pass_energies(integers: np.ndarray, bits: int, energies: np.ndarray) -> None:
    """Write the sum of squares of every pass' digits: (N, rows) int32 to (N, passes) float32."""
    samples, rows = integers.shape
    mask = np.int32((1 << bits) - 1)
    for n in range(samples):
        for p in range(energies.shape[1]):
            total = np.int32(0)
            for k in range(rows):
                digit = (np.int32(abs(integers[n, k])) >> np.int32(p * bits)) & mask
                total += np.int32(digit * digit)
            energies[n, p] = np.float32(total)


@numba.njit(cache=True, nogil=True, fastmath=_KEEP)
def convert_and_add(
    currents: np.ndarray,
    result: np.ndarray,
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
    key: np.uint64,
    first: int,
    errors: np.ndarray,
    counted: np.ndarray,
    counts: np.ndarray,
) -> int:
    """Convert the currents of one row tile and add them, weighted, to the result.

    Parameters
    ----------
    currents : ndarray
        (N, planes, slices, M) float32, in steps, see `bit_planes`.
    result : ndarray
        (N, M) float64, added to in place.
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
    key, first : uint64, int
        Stream of the noise, and the number of the first input row in it.
    errors : ndarray
        (4, slices, M) float32, the converters' answers to an exact code, as coefficients of a
        polynomial; (0, 0, 0) where they are exact.
    counted : ndarray
        (N,) bool, whether the codes of a row are counted; (0,) counts none.
    counts : ndarray
        (slices, bins + 1) int64, added to: codes in bins of equal width, and those beyond.

    Returns
    -------
    int
        Samples beyond the range.
    """
    samples, planes, slices, columns = currents.shape
    noisy = spread.shape[0] > 0
    distorted = errors.shape[0] > 0
    counting = counted.shape[0] > 0
    rows = np.empty((2, columns), np.float32)
    noise = np.empty(columns, np.float32)
    answer = np.empty(columns, np.float32)
    places = _places(np.int64(codes), counts.shape[1] - 1) if counting else np.zeros(0, np.int64)
    clipped = np.int64(0)
    plain = not noisy and not distorted and base == 0.0
    for n in range(samples):
        if plain and not (counting and counted[n]):
            clipped += _convert_sample(
                currents[n], result[n], total, bits, step, ranges, codes, slice_weights
            )
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
                values = currents[n, plane, s]
                if packed == 2:
                    _unpack(values, np.float32(base), rows)
                for part in range(packed):
                    value = rows[part] if packed == 2 else values
                    if noisy:
                        place = ((first + n) * passes + number + part) * slices + s
                        fill_normal(key, place, noise)
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
                        _count(value, scale, places, counts[s])
            back = slice_weights[s] * (1.0 if lossless else ranges[s] / codes)
            for m in range(columns):
                result[n, m] += back * total[m]
    return int(clipped)


@numba.njit(cache=True, nogil=True, fastmath=_KEEP)
def _convert_sample(
    currents: np.ndarray,
    result: np.ndarray,
    total: np.ndarray,
    bits: int,
    step: float,
    ranges: np.ndarray,
    codes: float,
    slice_weights: np.ndarray,
) -> int:
    """Do what `convert_and_add` does for one sample, without noise and errors: half the time."""
    clipped = np.int64(0)
    for s in range(currents.shape[1]):
        lossless = np.isinf(ranges[s])
        to_code = np.float32(step) * (
            np.float32(1.0) if lossless else np.float32(codes / ranges[s])
        )
        limit = np.float32(np.inf) if lossless else np.float32(codes)
        total[:] = 0.0
        for number in range(currents.shape[0]):
            weight = np.float32(2.0 ** (number * bits))
            clipped += _convert(currents[number, s], to_code, limit, weight, total)
        back = slice_weights[s] * (1.0 if lossless else ranges[s] / codes)
        for m in range(total.shape[0]):
            result[m] += back * total[m]
    return int(clipped)


@numba.njit(cache=True, nogil=True, fastmath=_KEEP)
def _unpack(values: np.ndarray, base: np.float32, rows: np.ndarray) -> None:
    """Split ``p + base * q`` into its whole numbers."""
    per_base = np.float32(1.0) / base
    for m in range(values.shape[0]):
        upper = np.rint(values[m] * per_base)
        rows[0, m] = values[m] - upper * base
        rows[1, m] = upper


@numba.njit(cache=True, nogil=True, fastmath=_KEEP)
def _add_scaled(values: np.ndarray, scale: np.float32, noise: np.ndarray) -> None:
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
    beyond = np.int32(0)
    for m in range(values.shape[0]):
        code = np.rint(values[m] * to_code)
        kept = min(max(code, -limit), limit)
        beyond += np.int32(kept != code)
        total[m] += weight * kept
    return int(beyond)


@numba.njit(cache=True, nogil=True, fastmath=_KEEP)
def _answer(
    values: np.ndarray, to_code: np.float32, errors: np.ndarray, answer: np.ndarray
) -> None:
    """Write what converters with errors see of one row of samples, in codes."""
    for m in range(values.shape[0]):
        x = values[m] * to_code
        answer[m] = errors[0, m] + x * (errors[1, m] + x * (errors[2, m] + x * errors[3, m]))


@numba.njit(cache=True, nogil=True)
def _places(top: int, bins: int) -> np.ndarray:
    """Return the bin of every magnitude of a code, the largest and the one beyond it included."""
    places = np.empty(top + 2, np.int64)
    for code in range(top + 1):
        places[code] = max((code * bins - 1) // top, 0)
    places[top + 1] = bins
    return places


@numba.njit(cache=True, nogil=True)
def _count(values: np.ndarray, to_code: np.float32, places: np.ndarray, counts: np.ndarray) -> None:
    """Count the codes of one row of samples in bins of equal width, and those beyond."""
    beyond = np.float32(places.shape[0] - 1)
    for m in range(values.shape[0]):
        code = min(abs(np.rint(values[m] * to_code)), beyond)
        counts[places[np.int32(code)]] += 1
