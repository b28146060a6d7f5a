"""How the amplifiers of an inverting array settle, and whether they do.

An amplifier with one pole and the gain-bandwidth product f follows
``dv/dt = -2 pi f (x + v / a0)``, x the voltage at its input: the currents into it over all
conductance connected to it. For all amplifiers of a loop, the inverters in front of the negative
arrays among them, that is ``dz/dt = -2 pi f (K z - drive)``. The loop is stable where every
eigenvalue of K has a positive real part, and within half a step of b bits after at most
``ln(2^b - 2) / (2 pi f min Re eig K)`` (Sun et al., IEEE TED 2020). Read earlier,
outputs lack a known, linear part of what they settle to.

A second pole at p times f, behind the first, makes the output v follow the stage u before it,
``dv/dt = 2 pi f p (u - v)``, and u what v was before: twice as many states, which settle to the
same outputs. Times are in *cycles*, multiples of 1 / f.
"""

import dataclasses
from collections.abc import Mapping
from functools import cached_property

import numpy as np
from scipy.linalg import expm
from scipy.sparse.linalg import ArpackError, eigs

_DENSE = 40
"""States up to which all eigenvalues are found."""

PROBE_CYCLES = 4.0
"""After which modes differ by what they have left, and the fastest still have some."""

_TOLERANCE = 1e-5
_KRYLOV = 24
_TAYLOR_NORM = 0.5
_NOISE_NORM, _NOISE_TERMS = 0.25, 6
_NOTHING_LEFT = 1e-5
_FIRST_LOOK, _LITTLE_LEFT = 0.25, 0.05
_SMALL_STATES = 256
"""Below so many, products are too small for it to matter how many there are."""


@dataclasses.dataclass(frozen=True)
class Loop:
    """The amplifiers of an inverting array.

    Attributes
    ----------
    matrix : ndarray
        (m, m) K; the n amplifiers whose outputs are read come first.
    load : ndarray
        (n,) conductance at the inputs of these: currents over it are what drives them.
    speed : ndarray
        (m,) gain-bandwidth products of the amplifiers over f; included in K.
    droop : float
        What an output has at the input, ``1 / a0``: the part of K that an amplifier's own stage
        with the first pole has.
    second_pole : float or None
        In multiples of the gain-bandwidth product; None: amplifiers have one pole.
    """

    matrix: np.ndarray
    load: np.ndarray
    speed: np.ndarray
    droop: float
    second_pole: float | None = None

    def astype(self, precision: type[np.floating]) -> "Loop":
        """Return the loop in another precision."""
        matrix, load, speed = (
            part.astype(precision) for part in (self.matrix, self.load, self.speed)
        )
        return Loop(matrix, load, speed, self.droop, self.second_pole)

    @cached_property
    def states(self) -> np.ndarray:
        """K of all states, (s, s): the m amplifiers' outputs, then the stages before them."""
        if self.second_pole is None:
            return self.matrix
        follows = self.second_pole * np.eye(len(self.matrix), dtype=self.matrix.dtype)
        own = np.diag(self.droop * self.speed)
        return np.block([[follows, -follows], [self.matrix - own, own]])

    @cached_property
    def steady(self) -> np.ndarray:
        """(m, n): what outputs at rest are multiplied with to get what all amplifiers are at."""
        n = len(self.load)
        return np.vstack([np.eye(n), -_solved(self.matrix[n:, n:], self.matrix[n:, :n])])

    @cached_property
    def at_rest(self) -> np.ndarray:
        """(n, n): what outputs at rest are multiplied with to get the currents that drive them."""
        n = len(self.load)
        behind = _times(self.matrix[:n, n:], self.steady[n:])
        settled: np.ndarray = self.load[:, None] * (self.matrix[:n, :n] + behind)
        return settled

    def currents(self, offset_v: np.ndarray) -> np.ndarray:
        """Return the currents (n,) that would drive outputs as amplifiers' offsets (m,) do."""
        n = len(self.load)
        behind = _solved(self.matrix[n:, n:], offset_v[n:, None])[:, 0]
        driven: np.ndarray = self.load * (offset_v[:n] - self.matrix[:n, n:] @ behind)
        return driven

    def raised(self, offset_v: np.ndarray) -> np.ndarray:
        """Return what offsets (m,) add to all amplifiers beside what outputs tell of them, (m,)."""
        n = len(self.load)
        behind = _solved(self.matrix[n:, n:], offset_v[n:, None])[:, 0]
        return np.concatenate([np.zeros(n), behind])

    def rate_of(self, left: np.ndarray) -> float:
        """Return the smallest real part of an eigenvalue of all states' K; not positive: the loop
        is unstable.

        Parameters
        ----------
        left : ndarray
            (s, s) what is left of all states after `PROBE_CYCLES`. The slowest modes outlive all
            others, so that its largest eigenvalue tells the smallest of K.
        """
        if not (np.isfinite(self.matrix).all() and np.isfinite(left).all()):
            return -np.inf
        if len(left) <= _DENSE:
            return float(np.linalg.eigvals(self.states).real.min())
        start = np.linspace(1.0, 2.0, len(left), dtype=left.dtype)
        try:
            found = eigs(left, 1, ncv=_KRYLOV, v0=start, tol=_TOLERANCE, return_eigenvectors=False)
        except ArpackError:
            return float(np.linalg.eigvals(self.states).real.min())
        largest = float(np.abs(found[0]))
        return float(-np.log(largest) / (2.0 * np.pi * PROBE_CYCLES)) if largest > 0 else np.inf

    def left_of_all(self, cycles: float) -> np.ndarray:
        """Return ``exp(-2 pi cycles K)``, (s, s): what is left of a deviation of all states."""
        with np.errstate(all="ignore"):
            return _exponential(self.states * (-2.0 * np.pi * cycles))

    def missing(self, cycles: float, probe: np.ndarray | None = None) -> np.ndarray:
        """Return (n, n): what settled outputs are to be multiplied with to get what they lack when
        they are read so early.

        Parameters
        ----------
        cycles : float
            When they are read.
        probe : ndarray, optional
            (s, s) what is left of all states after `PROBE_CYCLES`, where that is known.
        """
        times = round(cycles / PROBE_CYCLES)
        if probe is None or times * PROBE_CYCLES != cycles:
            probe, times = self.left_of_all(cycles), 1
        n, m = len(self.load), len(self.matrix)
        # At rest the stages before the second pole are where the outputs are.
        states = np.tile(self.steady, (len(probe) // m, 1))
        for _ in range(times - 1):
            states = probe @ states
        lacking: np.ndarray = probe[:n] @ states
        return lacking

    def left_at_doubling_times(self, cycles: float) -> dict[float, np.ndarray]:
        """Return what is left of a deviation of all states, (s, s) by cycles, from a quarter cycle
        over `PROBE_CYCLES` until outputs are read, or little is left.
        """
        time, left = _FIRST_LOOK, self.left_of_all(_FIRST_LOOK)
        found = {time: left}
        while time < PROBE_CYCLES or (2.0 * time < cycles and np.abs(left).max() > _LITTLE_LEFT):
            time, left = 2.0 * time, left @ left
            found[time] = left
        return found

    def rising(self, left: Mapping[float, np.ndarray], cycles: float) -> np.ndarray:
        """Return (times, n, n): what settled outputs are multiplied with to get where they are on
        the way there.

        Parameters
        ----------
        left : mapping
            (s, s) what is left of all states by cycles.
        cycles : float
            When outputs are read.
        """
        n, m = len(self.load), len(self.matrix)
        one, found = np.eye(n, dtype=self.matrix.dtype), []
        for time, part in left.items():
            if time < cycles and np.abs(part).max() > _LITTLE_LEFT:
                of_amplifiers = sum(part[:n, k : k + m] for k in range(0, len(part), m))
                found.append(one - of_amplifiers @ self.steady)
        return np.array(found).reshape(-1, n, n)

    def noise_root(self, cycles: float) -> np.ndarray:
        """Return (n, n): what independent draws are multiplied with to get the noise of outputs,
        so long after the amplifiers are switched on, per root of the density at their inputs.

        White noise at every input, of the two-sided density q in squared volts times f, gives the
        covariance ``q (2 pi)^2 integral of exp(-2 pi s K) D exp(-2 pi s K)'`` over s, D the squares
        of speeds in the stages that integrate. It doubles its time with the exponential.
        """
        n, m = len(self.load), len(self.matrix)
        step = -2.0 * np.pi * cycles * self.states
        norm = float(np.abs(step).sum(axis=0).max())
        doublings = max(0, int(np.ceil(np.log2(norm / _NOISE_NORM))))
        step /= step.dtype.type(2.0**doublings)
        entering = np.zeros(len(step), step.dtype)
        entering[-m:] = (2.0 * np.pi * self.speed) ** 2 * (cycles / 2.0**doublings)
        term = covariance = np.diag(entering)
        for order in range(2, _NOISE_TERMS + 1):
            half = step @ term
            term = (half + half.T) / order
            covariance = covariance + term
        left = _exponential(step)
        for _ in range(doublings):
            covariance = covariance + left @ covariance @ left.T
            left = left @ left
            if np.abs(left).max() < _NOTHING_LEFT:
                break
        values, vectors = np.linalg.eigh(covariance[:n, :n].astype(np.float64))
        return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))


def settling_cycles(rate: float, bits: int) -> float:
    """Return the cycles after which outputs are within half a step of so many bits, sign included,
    of the largest; infinite for a loop that is unstable.
    """
    return float(np.log(2.0**bits - 2.0) / (2.0 * np.pi * rate)) if rate > 0 else np.inf


def _exponential(matrix: np.ndarray) -> np.ndarray:
    """Return the exponential of a matrix.

    In single precision by squaring a Taylor polynomial, whose error is that of fast modes alone,
    of which nothing is left in the end.
    """
    if matrix.dtype != np.float32:
        return np.asarray(expm(matrix))
    norm = float(np.abs(matrix).sum(axis=0).max(initial=0.0))
    if not np.isfinite(norm):
        return np.full_like(matrix, np.nan)
    squarings = max(0, int(np.ceil(np.log2(max(norm, _TAYLOR_NORM) / _TAYLOR_NORM))))
    small = matrix / np.float32(2.0**squarings)
    half = len(small) // 2
    if len(small) == 2 * half >= _SMALL_STATES:
        # Second poles come first and follow the others, inverters come last.
        for turn in (0, half):
            turned = np.roll(small, (turn, turn), (0, 1))
            c, d = _scalar(turned[half:, :half]), _scalar(turned[half:, half:])
            if c and d is not None:
                result = _exponential_of_followers(turned[:half], c, d, squarings)
                return np.roll(result, (turn, turn), (0, 1))
    one = np.eye(len(matrix), dtype=np.float32)
    square = small @ small
    result = one + small + square @ (one / 2 + small / 6 + square / 24)
    for _ in range(squarings):
        result = result @ result
    return np.asarray(result)


def _exponential_of_followers(upper: np.ndarray, c: float, d: float, squarings: int) -> np.ndarray:
    """Return the same of a matrix ``X = [[A, B], [c, d]]`` with numbers c and d, times the power
    of two: of states that follow others, as inverters and second poles do.

    A function f of X commutes with X, so that its lower blocks tell the upper ones,
    ``f11 = f22 + f21 (A - d) / c`` and ``f12 = f21 B / c``. To square these two alone takes five
    products of blocks instead of eight: with ``h = f21^2``,
    ``f21' = h (A - d) / c + (f21 + f22)^2 - h - f22^2`` and ``f22' = h B / c + f22^2``.
    """
    half = len(upper)
    one = np.eye(half, dtype=upper.dtype)
    turned = upper / np.float32(c)
    # Powers of X, then their sum over factorials.
    left, right = c * one, d * one
    low, high = left, one + right
    factorial = 1.0
    for order in range(2, 5):
        product = left @ upper if order > 2 else np.float32(c) * upper
        left, right = product[:, :half] + c * right, product[:, half:] + d * right
        factorial *= order
        low, high = low + left / np.float32(factorial), high + right / np.float32(factorial)
    turned[:, :half] -= np.float32(d / c) * one
    for _ in range(squarings):
        square, both, other = low @ low, low + high, high @ high
        product = square @ turned
        low = product[:, :half] + both @ both - square - other
        high = product[:, half:] + other
    top = low @ turned
    top[:, :half] += high
    return np.block([[top], [low, high]])


def _scalar(matrix: np.ndarray) -> float | None:
    """Return the number that a matrix is times one, None where it is not."""
    first = float(matrix[0, 0])
    diagonal = np.diag(matrix)
    plain = np.count_nonzero(matrix) == np.count_nonzero(diagonal) and (diagonal == first).all()
    return first if plain else None


def _times(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the product, fast with a matrix that is diagonal."""
    diagonal = np.diag(right)
    if np.count_nonzero(right) == np.count_nonzero(diagonal):
        return np.asarray(matrix * diagonal)
    return np.asarray(matrix @ right)


def _solved(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    diagonal = np.diag(matrix)
    if np.count_nonzero(matrix) == np.count_nonzero(diagonal):
        return np.asarray(right / diagonal[:, None])
    return np.linalg.solve(matrix, right)
