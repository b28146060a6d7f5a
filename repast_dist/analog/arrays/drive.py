"""How strongly inputs are driven, so that outputs stay within what amplifiers can give.

Where amplifiers have a largest output, their swing, a controller has to choose the currents that
full-scale inputs stand for before it knows the answer. It tests every array that it has programmed:
it drives a fixed pattern of full-scale signs, and then, again and again, the signs of the outputs
it has read, at a drive so small that nothing saturates. Outputs so turn into the direction that the
array amplifies the most, as in an inverse iteration. From then on inputs are driven by the largest
power of two with which the largest output that was met, all amplifiers looked at, stays within the
swing, the amplifiers' offsets included, and on the way to an early reading too. Where outputs are
read before they have settled, no more is driven than lets all amplifiers follow without slewing:
what they lack is then known.

The test settlings are part of what a preparation counts. A comparator tells the converters the
power of two by which outputs are amplified in front of them. Outputs beyond the swing are cut off
there, and reported.
"""

from collections.abc import Callable

import numpy as np

from repast_dist.analog.specs import InvSpec
from repast_dist.ground.rng import generator


def found_drive(
    respond: Callable[[np.ndarray], tuple[np.ndarray, float]],
    amplifiers: np.ndarray,
    offset: np.ndarray,
    slowest: float,
    spec: InvSpec,
) -> float:
    """Return the drive in swings per unit of an output, a power of two.

    Parameters
    ----------
    respond : callable
        Outputs (n, 1) when codes (n, 1) are driven, and the largest on the way there.
    amplifiers : ndarray
        (m, n) what outputs are multiplied with to get what all amplifiers are at.
    offset : ndarray
        (m,) what offsets add to all amplifiers, in swings.
    slowest : float
        The largest voltage at an input, per unit of an output, when full-scale codes step up.
    spec : InvSpec
        The number of tests, converters, and amplifiers.
    """
    opamp, top = spec.device.opamp, 2 ** (spec.dac_bits - 1) - 1
    signs = generator(0, "drive").choice([-1.0, 1.0], (amplifiers.shape[1], 1))
    largest = 0.0
    for _ in range(opamp.drive_tests):
        outputs, on_the_way = respond(top * signs)
        at_the_end = float(np.abs(amplifiers @ outputs).max(initial=0.0))
        largest = max(largest, on_the_way, at_the_end)
        signs = np.where(outputs < 0, -1.0, 1.0)
    # Offsets that take all of the swing saturate whatever is driven.
    room = 1.0 - float(np.abs(offset).max(initial=0.0))
    most = (room if room > 0 else 1.0) / (largest or 1.0)
    if spec.read_cycles is not None and opamp.slew is not None:
        most = min(most, opamp.slew / (2.0 * np.pi * slowest))
    return float(2.0 ** np.floor(np.log2(most)))


def ranged_columns(values: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what converters read of outputs within one, and what a step of each column is worth,
    when every column is amplified by a power of two.
    """
    exponents = np.frexp(np.abs(values).max(axis=0, initial=0.0))[1]
    step = np.ldexp(1.0, exponents) / (2 ** (bits - 1) - 1)
    return np.rint(values / step), step
