"""Solving with a matrix of your own on the simulated arrays, and what that takes."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from repast_dist.analog.schemes.base import Scheme
from repast_dist.analog.solution import SolveCounts
from repast_dist.analog.system import prepare
from repast_dist.api.loading import given_hardware, load_settings
from repast_dist.ground.errors import DataError, SettingsError
from repast_dist.ground.numbers import real_numbers
from repast_dist.hardware.hardware import Hardware
from repast_dist.planning.costs import Cost
from repast_dist.planning.solve_costs import (
    one_block,
    preparation_cost,
    solve_prices,
    solving_cost,
)
from repast_dist.training.kfac import damped_block, damping_split


@dataclasses.dataclass(frozen=True, repr=False)
class Solved:
    """Answers of a solve with r right-hand sides, how good they are, and what they took.

    Attributes
    ----------
    x : ndarray
        (n, r) float64, or (n,) for a single right-hand side without a second dimension.
    residual : ndarray
        (r,) ``|b - A x| / |b|`` in float64, with the matrix that was asked for.
    converged : ndarray
        (r,) bool: the residual is within the scheme's target.
    rounds : ndarray
        (r,) int64, rounds of the scheme.
    method : str
        The scheme that gave the answer.
    counts : SolveCounts
        Settlings, products and digital operations of the solve.
    program_cost, solve_cost : Cost
        What preparing the block takes, and what the solve takes.
    """

    x: np.ndarray
    residual: np.ndarray
    converged: np.ndarray
    rounds: np.ndarray
    method: str
    counts: SolveCounts
    program_cost: Cost
    solve_cost: Cost

    @property
    def bits(self) -> np.ndarray:
        """(r,) bits that are right: ``-log2(residual)``."""
        return _bits(self.residual)

    @property
    def time_s(self) -> float:
        """Seconds, programming included."""
        return self.program_cost.time_s + self.solve_cost.time_s

    @property
    def energy_j(self) -> float:
        """Joules, programming included, without what the chip takes whatever it does."""
        return self.program_cost.energy_j + self.solve_cost.energy_j

    def __repr__(self) -> str:
        return (
            f"Solved({len(self.residual)} right-hand sides by {self.method}: "
            f"{_range(self.bits)} bits in {_range(self.rounds)} rounds, "
            f"{int(self.converged.sum())} converged, {self.time_s:.3g} s, {self.energy_j:.3g} J)"
        )


@dataclasses.dataclass(frozen=True, repr=False)
class Preconditioned:
    """A gradient, solved with both Kronecker factors of its layer, one after the other.

    Attributes
    ----------
    x : ndarray
        (in, out) float64: ``A^-1 gradient G^-1`` of the damped factors.
    residual : float
        ``|gradient - A x G| / |gradient|`` in the Frobenius norm.
    a, g : Solved
        The solves with A, and with G, which comes first.
    """

    x: np.ndarray
    residual: float
    a: Solved
    g: Solved

    @property
    def bits(self) -> float:
        """Bits that are right: ``-log2(residual)``."""
        return float(_bits(np.array(self.residual)))

    @property
    def converged(self) -> bool:
        """Whether every right-hand side of both solves reached its target."""
        return bool(self.a.converged.all() and self.g.converged.all())

    @property
    def time_s(self) -> float:
        """Seconds of both, programming included."""
        return self.a.time_s + self.g.time_s

    @property
    def energy_j(self) -> float:
        """Joules of both, programming included, without what the chip takes whatever it does."""
        return self.a.energy_j + self.g.energy_j

    def __repr__(self) -> str:
        return (
            f"Preconditioned({self.bits:.1f} bits, converged: {self.converged}, "
            f"{self.time_s:.3g} s, {self.energy_j:.3g} J)"
        )


def solve(
    matrix: Any,
    right_hand_sides: ArrayLike | str | Path | None,
    hardware: Hardware,
    inversion: str | Mapping[str, Any] | Scheme = "fcg",
    *,
    damping: float = 0.0,
    damping_form: str = "pi",
    seed: int = 0,
) -> Solved | Preconditioned:
    """Solve with a symmetric positive definite matrix, or with the factors of a layer.

    Parameters
    ----------
    matrix : array_like, str, Path or tuple of two
        (n, n); the path of a ``.npy`` or ``.npz`` file that holds one; or Kronecker factors: a
        tuple ``(A, G)``, or an ``.npz`` file that holds ``A``, ``G`` and, if you like,
        ``gradient``.
    right_hand_sides : array_like, str, Path or None
        (n,) or (n, r), or a file that holds them; for factors the gradient (in, out), None: that
        of the file.
    hardware : Hardware
        The chip; see `load_hardware`.
    inversion : str, mapping or Scheme
        A file of ``conf/inversion``, or settings: ``{"method": "fcg", "target_bits": 12}``.
    damping : float
        Added to the diagonal; for factors split between them as K-FAC does.
    damping_form : {"pi", "plain"}
        How it is split; see `Kfac`.
    seed : int
        Seed of the programming errors.

    Returns
    -------
    Solved or Preconditioned
        The answers, their true residuals, and the cost by the planner's own counts, all work of a
        block on one copy of it. A solve that misses its target is returned as it is and says so.

    Raises
    ------
    SettingsError
        The inversion or the damping has a wrong value, the hardware is none, or the chip cannot
        invert.
    DataError
        Shapes do not fit, numbers are not finite, the matrix is not symmetric positive definite,
        or a file cannot be read.
    CapacityError
        The chip has too few inverting arrays for the matrix.
    """
    hardware, scheme = given_hardware(hardware), _scheme(inversion)
    factors, given = _factors(matrix)
    right = given if right_hand_sides is None else _array(right_hand_sides, "right-hand sides")
    if right is None:
        raise DataError("no right-hand sides; valid: an array, or 'gradient' in the file")
    if len(factors) == 1:
        return _solved(factors[0], right, damping, hardware, scheme, seed, "matrix")
    a, g = factors
    if right.shape != (len(a), len(g)):
        raise DataError(f"the gradient must be ({len(a)}, {len(g)}), got {right.shape}")
    for_a, for_g = _damping(damping_form, damping, a, g)
    first = _solved(g, np.ascontiguousarray(right.T), for_g, hardware, scheme, seed, "G")
    second = _solved(a, np.ascontiguousarray(first.x.T), for_a, hardware, scheme, seed, "A")
    product = _damped(a, for_a) @ second.x @ _damped(g, for_g)
    norm = float(np.linalg.norm(right))
    residual = float(np.linalg.norm(right - product)) / norm if norm else 0.0
    return Preconditioned(second.x, residual, second, first)


def _solved(
    matrix: np.ndarray,
    right: np.ndarray,
    damping: float,
    hardware: Hardware,
    scheme: Scheme,
    seed: int,
    name: str,
) -> Solved:
    if right.ndim not in (1, 2) or len(right) != len(matrix):
        raise DataError(
            f"right-hand sides must be ({len(matrix)},) or ({len(matrix)}, r), got {right.shape}"
        )
    damped = _damped(matrix, damping)
    columns = right[:, None] if right.ndim == 1 else right
    shapes = one_block(len(matrix), columns.shape[1], hardware, scheme)
    solver = prepare(
        damped, hardware.residual_spec, hardware.inv_spec, scheme, seed, name,
        prices=lambda size: solve_prices(size, hardware, scheme).for_right_sides(columns.shape[1]),
    )  # fmt: skip
    _check_definite(damped, name)
    solution = solver.solve(columns)
    return Solved(
        x=solution.x[:, 0] if right.ndim == 1 else solution.x,
        residual=solution.residual,
        converged=solution.converged,
        rounds=solution.iterations,
        method=solution.method,
        counts=solution.counts,
        program_cost=preparation_cost(shapes, solver.program_counts, hardware),
        solve_cost=solving_cost(shapes, solution.counts, hardware),
    )


def _scheme(inversion: str | Mapping[str, Any] | Scheme) -> Scheme:
    if isinstance(inversion, Scheme):
        return inversion
    return load_settings(inversion=inversion).inversion


def _factors(matrix: Any) -> tuple[list[np.ndarray], np.ndarray | None]:
    """Return the matrix, or A and G; and the gradient of a file, if it has one."""
    if isinstance(matrix, str | Path):
        found = _file(Path(matrix))
        if {"A", "G"} <= set(found):
            gradient = found.get("gradient")
            return [_square(found["A"], "A"), _square(found["G"], "G")], gradient
        if len(found) != 1:
            raise DataError(
                f"{matrix}: holds {', '.join(found)}; valid: one matrix, or A, G and gradient"
            )
        return [_square(next(iter(found.values())), "matrix")], None
    if isinstance(matrix, tuple) and len(matrix) == 2 and np.ndim(matrix[0]) == 2:
        return [_square(matrix[0], "A"), _square(matrix[1], "G")], None
    return [_square(matrix, "matrix")], None


def _square(values: Any, name: str) -> np.ndarray:
    matrix = _array(values, name)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise DataError(f"{name}: inversion takes a square matrix, got shape {matrix.shape}")
    return matrix


def _array(values: Any, name: str) -> np.ndarray:
    if isinstance(values, str | Path):
        found = _file(Path(values))
        if len(found) != 1:
            raise DataError(f"{values}: holds {', '.join(found)}; valid: one array")
        values = next(iter(found.values()))
    array = real_numbers(values, name)
    if not np.isfinite(array).all():
        raise DataError(f"{name}: holds NaN or infinity; valid: finite numbers")
    return array


def _file(path: Path) -> dict[str, np.ndarray]:
    try:
        held = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: cannot be read as .npy or .npz ({error})") from None
    if isinstance(held, np.ndarray):
        return {path.stem: held}
    with held:
        return {name: held[name] for name in held.files}


def _damping(form: str, damping: float, a: np.ndarray, g: np.ndarray) -> tuple[float, float]:
    if form not in ("pi", "plain"):
        raise SettingsError(f"damping_form: '{form}'; valid: pi, plain")
    if not damping >= 0:
        raise SettingsError(f"damping: {damping}; valid: 0 or more")
    return damping_split(form, damping, float(np.trace(a)), len(a), float(np.trace(g)), len(g))


def _damped(matrix: np.ndarray, damping: float) -> np.ndarray:
    if not (np.isfinite(damping) and damping >= 0):
        raise SettingsError(f"damping: {damping}; valid: 0 or more")
    return damped_block(matrix, 0, len(matrix), damping)


def _check_definite(matrix: np.ndarray, name: str) -> None:
    try:
        np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        smallest = float(np.linalg.eigvalsh(matrix)[0])
        raise DataError(
            f"{name}: not positive definite, its smallest eigenvalue is {smallest:.3g}; valid: a "
            "positive definite matrix, or more damping"
        ) from None


def _bits(residual: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        bits: np.ndarray = -np.log2(residual)
    return bits


def _range(values: np.ndarray) -> str:
    if not values.size:
        return "no"
    low, high = f"{values.min():.3g}", f"{values.max():.3g}"
    return low if low == high else f"{low} to {high}"
