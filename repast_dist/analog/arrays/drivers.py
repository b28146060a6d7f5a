"""DACs of multiplying arrays: what drives the rows for a digit of the inputs.

Every row of an array has a DAC of its own, which applies the magnitude of a digit with the sign of
its input; rows without a digit are grounded. A gain error makes the row's cells appear to hold more
or less. An offset and a nonlinearity, which only digits of several bits have, change what a digit
is answered with: they are those of a row in all arrays side by side. Noise, in proportion to the
digit, is drawn for every column by itself, for cells that hold as much as the mean square of all.
"""

import math

import numpy as np

from repast_dist.analog.arrays.curve import answered
from repast_dist.analog.specs import VmmSpec
from repast_dist.ground.numbers import ceil_div
from repast_dist.ground.rng import generator, place

_OF_A_PLACE = 2
"""Parts of an address without times that say where DACs are: what is held, and of which layer."""


def driver_gains(
    shape: tuple[int, int], spec: VmmSpec, seed: int, *address: int | str
) -> np.ndarray:
    """Return what drives the rows of arrays for the largest digit, relative to what should.

    Parameters
    ----------
    shape : tuple of int
        (K, pairs) of physical pairs of columns, over all arrays side by side.
    spec : VmmSpec
        The multiplier.
    seed, *address
        Where the arrays are: whatever is programmed there is driven by the same DACs.

    Returns
    -------
    ndarray
        (K, arrays side by side) float64 in volts over volts.
    """
    rows, pairs = shape
    size = rows, ceil_div(pairs, spec.weight_columns)
    random = generator(seed, "drivers", "gain", *place(address)[:_OF_A_PLACE])
    # One array after the other, so that more of them leave the first as they are.
    drawn = random.standard_normal(size[::-1]).T
    return np.asarray(1.0 + spec.dac.gain_error * drawn)


def appearing(held: np.ndarray, spec: VmmSpec, seed: int, *address: int | str) -> np.ndarray:
    """Return what pairs appear to hold when DACs with gain errors drive them.

    Parameters
    ----------
    held : ndarray
        (B, K, slices, M) in levels, of B multipliers that are driven by the same DACs.
    spec, seed, *address
        As for `driver_gains`.
    """
    if not spec.dac.gain_error:
        return held
    _, rows, slices, columns = held.shape
    gains = answered(
        driver_gains((rows, slices * columns), spec, seed, *address), spec.device.curve
    )
    # Slices of a weight lie side by side.
    array = np.arange(slices * columns).reshape(columns, slices).T // spec.weight_columns
    return np.asarray(held * gains[:, array])


def row_answers(rows: int, spec: VmmSpec, seed: int, *address: int | str) -> np.ndarray:
    """Return what cells answer to the digits of a pass, in full ones.

    Parameters
    ----------
    rows : int
        Of the multiplier.
    spec, seed, *address
        As for `driver_gains`.

    Returns
    -------
    ndarray
        (2^bits,) float32, or (rows, 2^bits) where the DACs of rows differ in it.
    """
    dac, curve, top = spec.dac, spec.device.curve, 2**spec.dac.bits - 1
    digits = np.arange(top + 1.0)
    if not (dac.offset_lsb or dac.inl_lsb):
        return np.asarray(top * answered(digits / top, curve), np.float32)
    random = generator(seed, "drivers", "levels", *place(address)[:_OF_A_PLACE])
    # A row's draws lie side by side, so that more rows leave the first as they are.
    offset, *direction = random.standard_normal((rows, 3)).T[:, :, None]
    x, angle = 2.0 * digits / top - 1.0, np.arctan2(*direction)
    bow, curved = (3.0 * x**2 - 1.0) / 2.0, (5.0 * x**3 - 3.0 * x) / 2.0
    wrong = dac.offset_lsb * offset + dac.inl_lsb * (
        math.sqrt(5.0) * np.cos(angle) * bow + math.sqrt(7.0) * np.sin(angle) * curved
    )
    levels = np.where(digits > 0, digits + wrong, 0.0)
    return np.asarray(top * answered(levels / top, curve), np.float32)
