"""The row tiles of multipliers, as the kernels of this process hold them."""

import numpy as np

from repast_dist.analog.arrays.curve import answered_digits
from repast_dist.analog.kernels.base import Design, Held
from repast_dist.analog.kernels.chosen import current
from repast_dist.analog.specs import VmmSpec


def hold(planes: np.ndarray, spec: VmmSpec) -> Held:
    """Return what multipliers of one shape hold, ready for products.

    Parameters
    ----------
    planes : ndarray
        (B, K, slices, M) float32 in levels, whole multiples of a step.
    spec : VmmSpec
        How each of the B multipliers is built.
    """
    cell = spec.device.cell
    design = Design(
        rows=spec.rows,
        passes=spec.passes,
        bits=spec.dac.bits,
        answers=answered_digits(spec.device.curve, spec.dac.bits),
        whole=cell.exact and spec.device.wire.ideal and spec.device.variation.none,
        codes=float(2 ** (spec.adc.bits - 1) - 1),
        slice_weights=2.0 ** (cell.bits * np.arange(spec.slices)),
        read_sigma=cell.read_spread * (cell.levels - 1),
        noise_codes=spec.adc.noise_lsb,
    )
    return current().hold(planes, design)
