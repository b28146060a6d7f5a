"""The coupled Newton iteration towards the inverse fourth root of a matrix, of products alone.

With z = (p + 1) / (2 |A|_F), X = z^(1/p) I and M = z A, rounds of

    T = ((p + 1) I - M) / p,    X <- X T,    M <- M T^p

bring M to the identity and X to A^(-1/p) (Guo and Higham 2006, "A Schur-Newton method for the
matrix p-th root and its inverse"; Anil et al. 2020, "Scalable second order optimization for deep
learning"). A small eigenvalue grows by at most ((p + 1) / p)^p, 2.44 times, in every round.
"""

from repast_dist.training.optimizers.matrix_unit import MatrixUnit

_ROOT = 4
"""p of a matrix with two sides (Gupta et al. 2018)."""

_LEAST_NORM = 1e-300


def inverse_fourth_root[M](unit: MatrixUnit[M], matrix: M, rounds: int, what: str) -> M:
    """Return about ``A^(-1/4)`` of a symmetric positive definite matrix, (n, n).

    Arrays hold T, which is written in every round and multiplies X once and M four times. The
    digital unit, which writes no cells, squares T twice, and multiplies less.

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
    """
    z = (_ROOT + 1) / (2.0 * max(unit.norm(matrix), _LEAST_NORM))
    left = unit.shifted(0.0, matrix, z ** (1.0 / _ROOT))
    rest = unit.combine((z, matrix))
    for number in range(rounds):
        step = unit.shifted(-1.0 / _ROOT, rest, 1.0 + 1.0 / _ROOT)
        held = unit.hold(step, f"{what} {number}")
        left = held.multiply(left)
        if unit.where == "arrays":
            for _ in range(_ROOT):
                rest = held.multiply(rest)
        else:
            square = held.multiply(step)
            fourth = unit.product(square, square, f"{what} square {number}")
            rest = unit.product(fourth, rest, f"{what} rest {number}")
    return left
