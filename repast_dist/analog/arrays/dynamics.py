"""How the amplifiers of an inverting array settle, and whether they do.

An amplifier with one pole and the gain-bandwidth product f follows
``dv/dt = -2 pi f (x + v / a0)``, x the voltage at its input: the currents into it over all
conductance connected to it. For all amplifiers of a loop, the inverters in front of the negative
arrays among them, that is ``dz/dt = -2 pi f (K z - drive)``. The loop is stable where every
eigenvalue of K has a positive real part, and within half a step of b bits after at most
``ln(2^b - 2) / (2 pi f min Re eig K)`` (Sun et al., IEEE TED 2020). Read earlier,
outputs lack a known, linear part of what they settle to.
Times are in *cycles*, multiples of 1 / f.
"""

import dataclasses
from functools import cached_property

import numpy as np
from scipy.linalg import expm
from scipy.sparse.linalg import ArpackError, eigs

_DENSE = 40
"""Amplifiers up to which all eigenvalues are found."""

_PROBE_CYCLES = 4.0
"""After which modes differ by what they have left, and the fastest still have some."""

_TOLERANCE = 1e-5
_KRYLOV = 24


@dataclasses.dataclass(frozen=True)
class Loop:
    """The amplifiers of an inverting array.

    Attributes
    ----------
    matrix : ndarray
        (m, m) K; the n amplifiers whose outputs are read come first.
    load : ndarray
        (n,) conductance at the inputs of these: currents over it are what drives them.
    """

    matrix: np.ndarray
    load: np.ndarray

    @cached_property
    def steady(self) -> np.ndarray:
        """(m, n): what outputs at rest are multiplied with to get what all amplifiers are at."""
        n = len(self.load)
        return np.vstack([np.eye(n), -_solved(self.matrix[n:, n:], self.matrix[n:, :n])])

    @property
    def at_rest(self) -> np.ndarray:
        """(n, n): what outputs at rest are multiplied with to get the currents that drive them."""
        settled: np.ndarray = self.load[:, None] * (self.matrix[: len(self.load)] @ self.steady)
        return settled

    def currents(self, offset_v: np.ndarray) -> np.ndarray:
        """Return the currents (n,) that would drive outputs as amplifiers' offsets (m,) do."""
        n = len(self.load)
        behind = _solved(self.matrix[n:, n:], offset_v[n:, None])[:, 0]
        driven: np.ndarray = self.load * (offset_v[:n] - self.matrix[:n, n:] @ behind)
        return driven

    @cached_property
    def rate(self) -> float:
        """Smallest real part of an eigenvalue of K; not positive: the loop is unstable.

        The slowest modes outlive all others, so that the largest eigenvalue of what is left after
        some cycles tells the smallest of K.
        """
        if not np.isfinite(self.matrix).all():
            return -np.inf
        if len(self.matrix) <= _DENSE:
            return float(np.linalg.eigvals(self.matrix).real.min())
        with np.errstate(all="ignore"):
            left = self.left_of_all(_PROBE_CYCLES)
        if not np.isfinite(left).all():
            return -np.inf
        start = np.linspace(1.0, 2.0, len(left), dtype=left.dtype)
        try:
            found = eigs(left, 1, ncv=_KRYLOV, v0=start, tol=_TOLERANCE, return_eigenvectors=False)
        except ArpackError:
            return float(np.linalg.eigvals(self.matrix).real.min())
        largest = float(np.abs(found[0]))
        return float(-np.log(largest) / (2.0 * np.pi * _PROBE_CYCLES)) if largest > 0 else np.inf

    def settling_cycles(self, bits: int) -> float:
        """Return the cycles after which outputs are within half a step of so many bits, sign
        included, of the largest; infinite for a loop that is unstable.
        """
        return (
            float(np.log(2.0**bits - 2.0) / (2.0 * np.pi * self.rate)) if self.rate > 0 else np.inf
        )

    def left_of_all(self, cycles: float) -> np.ndarray:
        """Return ``exp(-2 pi cycles K)``, (m, m): what is left of a deviation of all amplifiers."""
        left: np.ndarray = expm(self.matrix * (-2.0 * np.pi * cycles))
        return left

    def missing(self, cycles: float) -> np.ndarray:
        """Return (n, n): what settled outputs are to be multiplied with to get what they lack when
        they are read so early.
        """
        lacking: np.ndarray = self.left_of_all(cycles)[: len(self.load)] @ self.steady
        return lacking


def _solved(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    diagonal = np.diag(matrix)
    if np.count_nonzero(matrix) == np.count_nonzero(diagonal):
        return np.asarray(right / diagonal[:, None])
    return np.linalg.solve(matrix, right)
