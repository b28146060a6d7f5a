"""Inverting ``a a' / N + lambda I`` without forming it: VMM and INV fused (RePAST, section 4).

Two arrays in the loop hold a (n, N) and its transpose. The outputs x drive the transpose, whose
currents N amplifiers with unit feedback turn into ``y = a' x``; these drive a, and its currents
and those of n damping cells balance the input: ``a y + lambda x = b``. Both arrays are programmed
on their own, so the circuit's matrix is not exactly symmetric. The amplifiers between them have
poles of their own; the outer ones are slowed down, lest the loop oscillates.
"""

import dataclasses

import numpy as np

from repast_dist.analog.arrays.circuit import CellNoise, Circuit, noise_key
from repast_dist.analog.arrays.converters import InvConverters
from repast_dist.analog.arrays.curve import CurvedCircuit
from repast_dist.analog.arrays.dynamics import Loop
from repast_dist.analog.arrays.held import Held, cell_error, hold, input_load, whole_cell
from repast_dist.analog.arrays.inv import OneLoop
from repast_dist.analog.arrays.programming import offset_voltages
from repast_dist.analog.specs import DeviceSpec, InvSpec
from repast_dist.ground.errors import DataError


@dataclasses.dataclass(frozen=True)
class FusedInv(OneLoop):
    """Arrays with a matrix and its transpose in one loop.

    Attributes
    ----------
    shape : tuple of int
        (n, N) of the matrix; the circuit solves with (n, n).
    """

    shape: tuple[int, int]

    @property
    def entries(self) -> int:
        """Entries of two matrices and of the damping."""
        n, held = self.shape
        return 2 * n * held + n


def program_fused(
    rows: np.ndarray, diagonal: np.ndarray, spec: InvSpec, seed: int = 0, *address: int | str
) -> FusedInv:
    """Program ``rows rows' + diag(diagonal)`` as two arrays and a column of damping cells.

    Parameters
    ----------
    rows : ndarray
        (n, N) float64, ``1 / sqrt(N)`` included.
    diagonal : ndarray
        (n,) float64, positive.
    spec : InvSpec
        How the arrays are built.
    seed, *address
        Address of the programming errors.

    Raises
    ------
    DataError
        A side is longer than an array.
    """
    n, held = rows.shape
    if max(n, held) > spec.size:
        raise DataError(
            f"fused inversion of {n} x {held} needs arrays of {max(n, held)}, they have "
            f"{spec.size}; valid: a smaller soi.block_size or batch, or no fusion"
        )
    forth = hold(rows, spec, seed, *address, "fused", "a")
    back = hold(rows.T, spec, seed, *address, "fused", "transpose")
    damping = hold(diagonal[:, None], spec, seed, *address, "fused", "damping")
    droop, unit = spec.device.opamp.droop, whole_cell(rows)
    at_input = input_load(rows, spec)
    # A whole cell is the feedback of the middle amplifiers and of the inverters. Conductances of
    # the outer loop are in units of both arrays multiplied, the others in whole cells.
    load = (forth.load + at_input) * unit + damping.load
    middle_load = 1.0 + (back.load + at_input) / unit
    inverter_load = 2.0 + at_input / unit
    outer, middle, none = np.eye(n), np.eye(held), np.zeros((held, n))
    over, between = load[:, None], unit * middle_load[:, None]
    # The middle outputs are -y: they drive the negative cells, their inverters the positive ones.
    loop = np.block(
        [
            [
                np.diag(damping.positive[:, 0]) / over + droop * outer,
                unit * forth.negative / over,
                np.diag(damping.negative[:, 0]) / over,
                unit * forth.positive / over,
            ],
            [
                back.positive / between,
                np.diag(1.0 / middle_load) + droop * middle,
                back.negative / between,
                0.0 * middle,
            ],
            [outer / inverter_load, none.T, (1.0 / inverter_load + droop) * outer, none.T],
            [none, middle / inverter_load, none, (1.0 / inverter_load + droop) * middle],
        ]
    )
    offsets = [
        offset_voltages(size, spec.device.opamp, seed, *address, *what)
        for size, what in zip((n, held, n, held), _ROWS, strict=True)
    ]
    curved = None
    if not spec.device.curve.linear:
        curved = _curved(forth, back, damping, (at_input, unit), offsets, spec)
    noise = None
    first = CellNoise.of(rows, spec, seed, *address, "fused", "a")
    second = CellNoise.of(rows, spec, seed, *address, "fused", "transpose")
    if first is not None and second is not None:
        noise = _FusedNoise(forth.matrix, back.matrix, first, second)
    # All that moves the outer amplifiers moves them more slowly; their second poles stay.
    slower = spec.device.opamp.compensation
    speed = np.ones(len(loop))
    for moved in (loop[:n], offsets[0], speed[:n]):
        moved /= slower
    after = None if spec.read_cycles is None else slower * spec.read_cycles
    read = dataclasses.replace(spec, device=_slower(spec.device, slower), read_cycles=after)
    whole = Loop(loop, slower * load, speed, droop, spec.device.opamp.second_pole)
    circuit = Circuit.of(
        whole,
        np.concatenate(offsets),
        read,
        noise,
        noise_key(spec, seed, *address),
        curved,
        InvConverters.of(n, spec, seed, *address),
    )
    return FusedInv(spec, circuit, (n, held))


def _curved(
    forth: Held,
    back: Held,
    damping: Held,
    at_input: tuple[float, float],
    offsets: list[np.ndarray],
    spec: InvSpec,
) -> CurvedCircuit | None:
    """Return the circuit with the curve of its cells, the outer amplifiers first.

    Parameters
    ----------
    forth, back, damping : Held
        The arrays.
    at_input : tuple of float
        Conductance of an amplifier's input, and a whole cell.
    offsets : list of ndarray
        Of all amplifiers, not slowed down.
    spec : InvSpec
        The device.
    """
    n, held = forth.positive.shape
    opening, unit = at_input
    none = np.zeros((held, held))
    # The middle outputs are -y: they drive the negative cells, their inverters the positive ones.
    positive = [
        [np.diag(damping.positive[:, 0]), unit * forth.negative],
        [back.positive / unit, none],
    ]
    negative = [
        [np.diag(damping.negative[:, 0]), unit * forth.positive],
        [back.negative / unit, none],
    ]
    feedback = np.concatenate([np.zeros(n), np.ones(held)])
    shunt = np.concatenate([np.full(n, opening * unit), np.full(held, opening / unit)])
    load = np.full(n + held, 2.0 + opening / unit)
    return CurvedCircuit.of(
        np.block(positive), np.block(negative), feedback, shunt, load, offsets, spec
    )


def _slower(device: DeviceSpec, times: float) -> DeviceSpec:
    """Return the device with amplifiers that slew so much more slowly: by the capacitor that makes
    them slower.
    """
    opamp = device.opamp
    if opamp.slew_v_per_s is None:
        return device
    opamp = dataclasses.replace(opamp, slew_v_per_s=opamp.slew_v_per_s / times)
    return dataclasses.replace(device, opamp=opamp)


_ROWS: tuple[tuple[str, ...], ...] = ((), ("between",), ("inverters",), ("between", "inverters"))
"""Addresses of the offsets of outer and middle amplifiers, and of the inverters behind them."""


@dataclasses.dataclass(frozen=True)
class _FusedNoise:
    """Read noise of both arrays; that of the transpose passes through the other."""

    forth: np.ndarray
    back: np.ndarray
    of_forth: CellNoise
    of_back: CellNoise

    def currents(self, outputs: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Return what the cells add to the currents of the rows, (n, r)."""
        through = self.of_back.drawn(len(self.back), outputs, codes)
        direct = self.of_forth.drawn(len(self.forth), self.back @ outputs, codes)
        return direct + self.forth @ through


def fused_error(rows: np.ndarray, spec: InvSpec) -> float:
    """Estimate the norm of what the circuit's ``rows rows'`` is off by.

    Each of the two arrays adds its errors e, relative to its largest entry, times the other's
    rows of length l: entries of RMS ``sqrt(2) e l``. They act within the span of the rows, mostly
    in its dominant directions, where they do no harm; half of the norm of independent errors of
    that size, ``sqrt(n)`` times the RMS, takes the fewest rounds (measured). Deviations that cells
    share are left out for the same reason: of a tenth, they made no circuit unstable, and their
    norm on top took more rounds (measured: 12 to 33 % more at a deviation of 2 %, 1.5 to 2.1 times
    as many at 10 %).
    """
    largest = float(np.max(np.abs(rows), initial=0.0))
    length = float(np.sqrt(np.mean(np.sum(rows**2, axis=1))))
    if not largest:
        return 0.0
    lasting = spec.device.inv_cell.lasting_error(rows, spec.cell_use) / np.sqrt(spec.copies)
    error = float(np.hypot(cell_error(spec), lasting))
    return float(np.sqrt(2.0 * len(rows))) * error * largest * length
