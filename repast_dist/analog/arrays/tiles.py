"""The row tiles of multipliers, as the kernels of this process hold them."""

import math

import numpy as np

from repast_dist.analog.arrays.drivers import row_answers
from repast_dist.analog.kernels.base import Design, Held
from repast_dist.analog.kernels.chosen import current
from repast_dist.analog.specs import VmmSpec


def hold(planes: np.ndarray, step: float, spec: VmmSpec, seed: int, *address: int | str) -> Held:
    """Return what multipliers of one shape hold, ready for products.

    Parameters
    ----------
    planes : ndarray
        (B, K, slices, M) float32 in levels.
    step : float
        A power of two of which all of them are whole multiples.
    spec : VmmSpec
        How each of the B multipliers is built.
    seed, *address
        Where they are, and so which DACs drive them.
    """
    cell = spec.device.cell
    design = Design(
        rows=spec.rows,
        passes=spec.passes,
        bits=spec.dac.bits,
        answers=row_answers(planes.shape[1], spec, seed, *address),
        whole=spec.holds_levels,
        codes=float(2 ** (spec.adc.bits - 1) - 1),
        slice_weights=2.0 ** (cell.bits * np.arange(spec.slices)),
        read_sigma=math.hypot(cell.read_spread * (cell.levels - 1), _driven_noise(planes, spec)),
        noise_codes=spec.adc.noise_lsb,
        step=step,
    )
    return current().hold(planes, design)


def _driven_noise(planes: np.ndarray, spec: VmmSpec) -> float:
    """Return the noise of either cell of a pair, per digit, that comes to as much as DACs'."""
    if not (spec.dac.noise_lsb and planes.size):
        return 0.0
    mean_square = float(np.mean(np.square(planes, dtype=np.float64)))
    return spec.dac.noise_lsb / (2**spec.dac.bits - 1) * math.sqrt(mean_square / 2.0)
