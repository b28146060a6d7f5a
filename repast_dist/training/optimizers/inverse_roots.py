"""The coupled Newton iteration towards the inverse fourth root of a matrix, of products alone.

With z = (p + 1) / (2 |A|_F), X = z^(1/p) I and M = z A, rounds of

    E = (I - M) / p,    X <- X (I + E),    M <- M (I + E)^p

bring M to the identity and X to A^(-1/p) (Guo and Higham 2006, "A Schur-Newton method for the
matrix p-th root and its inverse"; Anil et al. 2020, "Scalable second order optimization for deep
learning"). A small eigenvalue grows by at most ((p + 1) / p)^p, 2.44 times, in every round.

Arrays hold E, whose errors vanish with it. What is off in M makes small eigenvalues negative where
they are smaller than that, and the iteration diverges: arrays need matrices whose eigenvalues are
not too far apart.
"""

import math

from repast_dist.training.optimizers.matrix_unit import MatrixUnit

_ROOT = 4
"""p of a matrix with two sides (Gupta et al. 2018)."""

_LEAST_NORM = 1e-300

_FARTHEST = 2.0
"""Mean square root of what the eigenvalues of M are off one by, from which on it has diverged; they
begin between 0 and 2.5.
"""


def inverse_fourth_root[M](unit: MatrixUnit[M], matrix: M, rounds: int, what: str) -> M:
    """Return about ``A^(-1/4)`` of a symmetric positive definite matrix, (n, n).

    Arrays hold E, which is written in every round and multiplies X once and M four times, and M is
    kept symmetric. The digital unit, which writes no cells, squares I + E twice, and multiplies
    less.

    Parameters
    ----------
    unit : MatrixUnit
        Who multiplies.
    matrix : M
        (n, n) A.
    rounds : int
        Rounds.
    what : str
        What the matrix is, unlike any other of this update.

    Raises
    ------
    DataError
        The iteration diverges.
    """
    size, _ = unit.shape(matrix)
    z = (_ROOT + 1) / (2.0 * max(unit.norm(matrix), _LEAST_NORM))
    found = unit.shifted(0.0, matrix, z ** (1.0 / _ROOT))
    rest = unit.combine((z, matrix))
    for number in range(rounds):
        step = unit.shifted(-1.0 / _ROOT, rest, 1.0 / _ROOT)
        unit.require(
            unit.norm(step) * _ROOT <= _FARTHEST * math.sqrt(size),
            f"round {number} of {what}: the iteration towards the inverse root diverges; more "
            "optimizer.ridge or optimizer.products=digital may help",
        )
        if unit.where == "arrays":
            found, rest = _on_arrays(unit, step, found, rest, f"{what} {number}")
        else:
            found, rest = _digitally(unit, step, found, rest, f"{what} {number}")
    return found


def _on_arrays[M](unit: MatrixUnit[M], step: M, found: M, rest: M, what: str) -> tuple[M, M]:
    held = unit.hold(step, what)
    found = unit.combine((1.0, found), (1.0, held.multiply(found)))
    for _ in range(_ROOT):
        rest = unit.combine((1.0, rest), (1.0, held.multiply(rest)))
    return found, unit.combine((0.5, rest), (0.5, unit.transposed(rest)))


def _digitally[M](unit: MatrixUnit[M], step: M, found: M, rest: M, what: str) -> tuple[M, M]:
    whole = unit.shifted(1.0, step, 1.0)
    held = unit.hold(whole, what)
    square = held.multiply(whole)
    fourth = unit.product(square, square, f"{what} squared")
    return held.multiply(found), unit.product(fourth, rest, f"{what} rest")
