"""The inverse fourth root of a matrix as a sum of inverses, each of the matrix with a shift.

With s = c tan(t / 2) in

    A^(-1/4) = sqrt(2) / pi  times the integral over all s of  s^2 (s^4 + A)^-1 ds

the integrand is periodic and analytic in t, and the trapezoidal rule on 2 (N + 1) points converges
geometrically (Trefethen and Weideman 2014, "The exponentially convergent trapezoidal rule"; Hale,
Higham and Trefethen 2008 map contours so for other functions). Points come in pairs of opposite
sign, the one at infinity is a multiple of the identity and that at zero vanishes, so that N
inverses of s^4 + A are left, with positive weights.

For an eigenvalue a the poles are where s is sqrt(sqrt(a)) times exp(i pi / 4) and its mirror
images. In z = exp(i t) two of them lie inside the unit circle, at the distance q(a) from its
centre, and what the rule is off by, over the root, is at most 2 sqrt(2) Q / (1 - Q) with
Q = q^(2 (N + 1)). c is between the fourth roots of the smallest and of the largest eigenvalue, so
that q is the same for both.
"""

import math

from repast_dist.training.optimizers.matrix_unit import MatrixUnit

_WORST = 0.1
"""Bound on the relative error of a root from which on there are too few inverses: arrays are
better.
"""


def rational_fourth_root[M](
    unit: MatrixUnit[M], matrix: M, least: float, most: float, poles: int, what: str
) -> M:
    """Return about ``A^(-1/4)`` of a symmetric positive definite matrix, (n, n).

    Parameters
    ----------
    unit : MatrixUnit
        Who inverts.
    matrix : M
        (n, n) A.
    least, most : float
        Between which its eigenvalues lie.
    poles : int
        Inverses.
    what : str
        What the matrix is, unlike any other of this update.

    Raises
    ------
    DataError
        Eigenvalues are too far apart for so many inverses.
    """
    bound = error_bound(least, most, poles)
    unit.require(
        bound <= _WORST,
        f"{what}: {poles} inverses may be off by {bound:.0%} of the inverse root of eigenvalues "
        f"between {least:.2g} and {most:.2g}; more optimizer.poles or optimizer.ridge may help",
    )
    at_infinity, terms = rational_terms(least, most, poles)
    found = unit.shifted(0.0, matrix, at_infinity)
    for number, (shift, weight) in enumerate(terms):
        inverse = unit.inverse(unit.shifted(1.0, matrix, shift), f"{what} {number}")
        found = unit.combine((1.0, found), (weight, inverse))
    return unit.combine((0.5, found), (0.5, unit.transposed(found)))


def rational_terms(
    least: float, most: float, poles: int
) -> tuple[float, list[tuple[float, float]]]:
    """Return the weight of the identity, and shift and weight of every inverse, of eigenvalues
    between two numbers.
    """
    scale = (least * most) ** 0.125
    step = math.pi / (poles + 1)
    factor = math.sqrt(2.0) / math.pi * step
    terms = []
    for number in range(1, poles + 1):
        tangent = math.tan(number * step / 2.0)
        point = scale * tangent
        # Of both points of a pair; ds / dt is half of scale (1 + tangent^2).
        terms.append((point**4, factor * scale * (1.0 + tangent**2) * point**2))
    return factor / (2.0 * scale), terms


def error_bound(least: float, most: float, poles: int) -> float:
    """Return what `rational_terms` are off by at most, as a share of the inverse fourth root of any
    eigenvalue between two numbers.
    """
    if not 0.0 < least <= most < math.inf:
        return math.inf
    # The pole over c, turned by a quarter: i s.
    turned = (most / least) ** 0.125 * complex(-math.sqrt(0.5), math.sqrt(0.5))
    inside = abs((1.0 + turned) / (1.0 - turned)) ** (2 * (poles + 1))
    return 2.0 * math.sqrt(2.0) * inside / (1.0 - inside) if inside < 1.0 else math.inf
