"""The fused ADC pass: scale, round, clip, weigh and add, once over the currents."""

import numba
import numpy as np


@numba.njit(cache=True, fastmath={"contract", "arcp", "nsz", "reassoc"}, nogil=True)
def convert_and_add(
    currents: np.ndarray,
    result: np.ndarray,
    noise: np.ndarray,
    spread: np.ndarray,
    ranges: np.ndarray,
    codes: float,
    low: np.ndarray,
    high: np.ndarray,
    base: float,
) -> int:
    """Convert the currents of one row tile and add them, weighted, to the result.

    Parameters
    ----------
    currents : ndarray
        (planes * N, slices * M) float32; a plane is a pass, or two packed as ``p + base * q``.
    result : ndarray
        (N, M) float64, added to in place.
    noise : ndarray
        Standard normal float32 of the shape of `currents`, or (0, 0) without read noise.
    spread : ndarray
        (planes * N,) float32, standard deviation of a sample's read noise.
    ranges : ndarray
        (slices,) float32 ADC full scale; infinity converts whole levels without loss.
    codes : float
        Largest ADC code.
    low, high : ndarray
        (planes, slices) float64, shift-and-add weights of the two passes of a plane.
    base : float
        What separates packed passes; 0: not packed.

    Returns
    -------
    int
        Samples beyond the range.
    """
    samples, columns = result.shape
    planes, slices = low.shape
    clipped = 0
    total = np.zeros(columns, np.float64)
    top = np.float32(codes)
    for n in range(samples):
        total[:] = 0.0
        for p in range(planes):
            row = p * samples + n
            for s in range(slices):
                lossless = np.isinf(ranges[s])
                to_code = np.float32(1.0) if lossless else np.float32(codes / ranges[s])
                limit = np.float32(np.inf) if lossless else top
                back = 1.0 if lossless else ranges[s] / codes
                weight_low, weight_high = low[p, s] * back, high[p, s] * back
                first = s * columns
                if base > 0.0:
                    unit, per_base = np.float32(base), np.float32(1.0 / base)
                    for m in range(columns):
                        value = currents[row, first + m]
                        upper = np.rint(value * per_base)
                        lower = np.rint((value - upper * unit) * to_code)
                        upper = np.rint(upper * to_code)
                        clipped += (abs(lower) > limit) + (abs(upper) > limit)
                        lower = min(max(lower, -limit), limit)
                        upper = min(max(upper, -limit), limit)
                        total[m] += weight_low * lower + weight_high * upper
                elif noise.shape[0] > 0:
                    sigma = spread[row]
                    for m in range(columns):
                        value = currents[row, first + m] + sigma * noise[row, first + m]
                        value = np.rint(value * to_code)
                        clipped += abs(value) > limit
                        total[m] += weight_low * min(max(value, -limit), limit)
                else:
                    for m in range(columns):
                        value = np.rint(currents[row, first + m] * to_code)
                        clipped += abs(value) > limit
                        total[m] += weight_low * min(max(value, -limit), limit)
        result[n] += total
    return clipped
