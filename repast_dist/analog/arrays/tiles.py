"""The row tiles of multipliers, as the kernels of this process hold them."""

import math

import numpy as np

from repast_dist.analog.arrays.drivers import row_answers
from repast_dist.analog.kernels.base import Contents, Design, DrawnRows, Held, Kept
from repast_dist.analog.kernels.chosen import current
from repast_dist.analog.specs import VmmSpec


def hold(contents: Contents, spec: VmmSpec, seed: int, *address: int | str) -> Held:
    """Return what multipliers of one shape hold, ready for products.

    Parameters
    ----------
    contents : Contents
        Of all of them.
    spec : VmmSpec
        How each of the B multipliers is built.
    seed, *address
        Where they are, and so which DACs drive them.
    """
    if isinstance(contents, DrawnRows):
        contents = Kept(contents.planes, contents.step)
    cell = spec.device.cell
    design = Design(
        rows=spec.rows,
        passes=spec.passes,
        bits=spec.dac.bits,
        answers=row_answers(contents.shape[1], spec, seed, *address),
        whole=spec.holds_levels,
        codes=float(2 ** (spec.adc.bits - 1) - 1),
        slice_weights=2.0 ** (cell.bits * np.arange(spec.slices)),
        read_sigma=math.hypot(cell.read_spread * (cell.levels - 1), _driven_noise(contents, spec)),
        noise_codes=spec.adc.noise_lsb,
        step=contents.step if isinstance(contents, Kept) else None,
    )
    if isinstance(contents, Kept):
        return current().hold(contents.planes, design)
    return current().draw(contents, design)


def _driven_noise(contents: Contents, spec: VmmSpec) -> float:
    """Return the noise of either cell of a pair, per digit, that comes to as much as DACs'."""
    if not (spec.dac.noise_lsb and math.prod(contents.shape)):
        return 0.0
    mean_square = float(np.mean(np.square(contents.planes, dtype=np.float64)))
    return spec.dac.noise_lsb / (2**spec.dac.bits - 1) * math.sqrt(mean_square / 2.0)
