"""Inverting ``a a' / N + lambda I`` without forming it: VMM and INV fused (RePAST, section 4).

Two arrays in the loop hold a (n, N) and its transpose. The outputs x drive the transpose, whose
currents N amplifiers with unit feedback turn into ``y = a' x``; these drive a, and its currents
and those of n damping cells balance the input: ``a y + lambda x = b``. Both arrays are programmed
on their own, so the circuit's matrix is not exactly symmetric. Finite gain a0 divides y by
``1 + (1 + row sums of |a'|) / a0`` and adds ``row sums of |a| / a0`` to the diagonal.
"""

import dataclasses

import numpy as np

from repast_dist.analog.arrays.inv import (
    CellNoise,
    Circuit,
    OneLoop,
    cell_error,
    held_matrix,
    input_load,
)
from repast_dist.analog.arrays.programming import offset_voltages
from repast_dist.analog.specs import InvSpec
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
    forth, forth_load = held_matrix(rows, spec, seed, *address, "fused", "a")
    back, back_load = held_matrix(rows.T, spec, seed, *address, "fused", "transpose")
    damping, damping_load = held_matrix(diagonal[:, None], spec, seed, *address, "fused", "damping")
    # The feedback conductance is that of a whole cell, which holds the largest entry.
    unit = float(np.max(np.abs(rows), initial=0.0)) or 1.0
    middle_load = 1.0 + (back_load + input_load(rows, spec)) / unit
    load = (forth_load + input_load(rows, spec)) * unit + damping_load
    between, loaded = np.ones(held), damping[:, 0]
    if spec.device.opamp.gain is not None:
        between += middle_load / spec.device.opamp.gain
        loaded = loaded + load / spec.device.opamp.gain
    matrix = forth @ (back / between[:, None]) + np.diag(loaded)
    opamp = spec.device.opamp
    currents = load * offset_voltages(n, opamp, seed, *address)
    shift = middle_load / between * offset_voltages(held, opamp, seed, *address, "between")
    currents += unit * (forth @ shift)
    noise = None
    first = CellNoise.of(rows, spec, seed, *address, "fused", "a")
    second = CellNoise.of(rows, spec, seed, *address, "fused", "transpose")
    if first is not None and second is not None:
        noise = _FusedNoise(forth, back, first, second)
    return FusedInv(spec, Circuit.of(matrix, currents, spec, noise), (n, held))


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
    that size, ``sqrt(n)`` times the RMS, takes the fewest rounds (measured).
    """
    largest = float(np.max(np.abs(rows), initial=0.0))
    length = float(np.sqrt(np.mean(np.sum(rows**2, axis=1))))
    if not largest:
        return 0.0
    lasting = spec.device.inv_cell.lasting_error(rows) / np.sqrt(spec.copies)
    error = float(np.hypot(cell_error(spec), lasting))
    return float(np.sqrt(2.0 * len(rows))) * error * largest * length
