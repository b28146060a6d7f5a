"""Removes the few dominant directions of a block from the matrix that its array stores.

A factor of rectified activations has a handful of eigenvalues that are as large as all others
together. They determine the array's full scale, and with it its error and that of the converters,
although the many small eigenvalues are the ones to invert precisely. With U the dominant
directions of S, the array stores

    T = S - S U (U' S U)^-1 U' S

which is positive semidefinite, smaller, and better scaled, with something in U's place, and the
inverse of S is approximated by the two-level preconditioner (Tang et al., J. Sci. Comput. 2009,
A-DEF2 with its transpose)

    U (U' S U)^-1 U' + P T^-1 P',    P = I - U (U' S U)^-1 U' S

The digital unit computes these thin products. U need not be precise, because whatever it spans is
treated exactly. A few subspace iterations on the multipliers find it. Conjugate gradients without
an array have the mean of T's eigenvalues in place of T.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from repast_dist.analog.product import Product
from repast_dist.analog.solution import SolveCounts
from repast_dist.ground.rng import generator

_SPARE = 4
_PRODUCTS = 3
"""With every vector of a search that begins with random ones: two orthonormal bases follow, and
what the last one sees of the matrix.
"""
_SMALLEST_DIAGONAL = 0.1
_ROUNDING = 1e-12
_IN_PLACE = 2.0

ROWS_PER_DIRECTION = 16
"""Rows a block has at least for every direction taken out."""


@dataclasses.dataclass(frozen=True)
class Deflation:
    """The dominant directions of a matrix S.

    Attributes
    ----------
    basis, image : ndarray
        (n, k) U and S U.
    core : ndarray
        (k, k) ``(U' S U)^-1``.
    """

    basis: np.ndarray
    image: np.ndarray
    core: np.ndarray

    @property
    def rank(self) -> int:
        """Directions that were taken out."""
        return self.basis.shape[1]

    def remainder(self, matrix: np.ndarray) -> np.ndarray:
        """Return T of the matrix S, and twice its mean eigenvalue along the directions taken out.

        These are never driven, so that no answer depends on it; without it, they would be what the
        circuit settles slowest along.
        """
        left = matrix - self.image @ self.core @ self.image.T
        mean = float(np.trace(left)) / len(left)
        left += _IN_PLACE * mean * (self.basis @ self.basis.T)
        return (left + left.T) / 2

    def scaling(self, remainder: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        """Return (n,) what to multiply rows and columns of T with, so that its diagonal is one.

        Rows of which hardly anything is left keep a small diagonal; what is left of a matrix of
        low rank is rounding.
        """
        diagonal = np.maximum(np.diag(remainder), _ROUNDING * np.diag(matrix).max())
        return np.asarray(1.0 / np.sqrt(np.maximum(diagonal, _SMALLEST_DIAGONAL * diagonal.mean())))

    def mean(self, matrix: np.ndarray) -> float:
        """Return the mean eigenvalue of T of the matrix S, over the directions that are left; of a
        matrix of low rank, of which nothing is left, more than rounding.
        """
        whole = float(np.trace(matrix))
        left = whole - float(np.sum(self.image @ self.core * self.image))
        return max(left / (len(matrix) - self.rank), _ROUNDING * whole)

    def weights(self, vectors: np.ndarray) -> np.ndarray:
        """Return the weights (k, r) of the directions in the answer."""
        weights: np.ndarray = self.core @ (self.basis.T @ vectors)
        return weights

    def split(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the weights (k, r) of the directions in the answer, and ``P' b``."""
        weights = self.weights(vectors)
        return weights, vectors - self.image @ weights

    def join(self, weights: np.ndarray, answer: np.ndarray) -> np.ndarray:
        """Return ``U weights + P answer``."""
        joined: np.ndarray = answer + self.basis @ (weights - self.core @ (self.image.T @ answer))
        return joined


def find_deflation(
    matrix: np.ndarray,
    product: Product,
    most: int,
    seed: int,
    *address: int | str,
    above: float = 4.0,
    entries: int | None = None,
    start: np.ndarray | None = None,
) -> "Found":
    """Look for the dominant directions of a matrix.

    Parameters
    ----------
    matrix : ndarray
        (n, n) symmetric positive definite.
    product : Product
        The same on the multipliers.
    most : int
        Directions at most; there is no more than one for 16 rows.
    seed, *address
        Address of the start vectors.
    above : float
        Times the mean of the other eigenvalues that one is at least which is taken out: rounding
        and noise of an answer, small as they are, are multiplied by it in the next residual.
    entries : int, optional
        Entries of T that an array needs formed; None: all.
    start : ndarray, optional
        (n, k) what the last search saw of a matrix close to this one, with which the search goes
        on, by one product with every vector; None: random vectors.
    """
    n = len(matrix)
    rank = min(most, n // ROWS_PER_DIRECTION)
    if rank == 0:
        return Found(None, SolveCounts(), None)
    width = rank + _SPARE
    if start is None:
        basis = generator(seed, "deflation", *address).standard_normal((n, width))
        for _ in range(_PRODUCTS - 1):
            basis, _ = np.linalg.qr(product.multiply(basis))
    else:
        basis, _ = np.linalg.qr(start)
    seen = image = product.multiply(basis)
    values, vectors = np.linalg.eigh(basis.T @ image)
    chosen = vectors[:, ::-1][:, :rank]
    # What Ritz values say can be taken out of the trace.
    dominant = values[::-1][:rank]
    left = (np.trace(matrix) - dominant.sum()) / n
    rank = int(np.sum(dominant > above * left))
    found = np.int64(n), np.int64(most), np.int64(rank)
    recycled = start is not None
    entries = n * n if entries is None else entries
    products, digital, moved = search_counts(*found, np.int64(entries), recycled=recycled)
    counts = SolveCounts(vmm_ops=int(products), digital_ops=int(digital), moved=int(moved))
    if rank == 0:
        return Found(None, counts, seen)
    basis, image = basis @ chosen[:, :rank], image @ chosen[:, :rank]
    inner = basis.T @ image
    core = np.linalg.inv((inner + inner.T) / 2)
    return Found(Deflation(basis, image, core), counts, seen)


class Found(NamedTuple):
    """What a search for dominant directions found.

    Attributes
    ----------
    deflation : Deflation or None
        The directions; None where none is dominant.
    counts : SolveCounts
        What looking for them took, and forming T.
    seen : ndarray or None
        (n, k) the vectors that the next search goes on with; None: too narrow to search.
    """

    deflation: Deflation | None
    counts: SolveCounts
    seen: np.ndarray | None


def search_counts(
    n: np.ndarray | np.integer,
    most: np.ndarray | np.integer,
    rank: np.ndarray | np.integer,
    entries: np.ndarray | np.integer,
    *,
    recycled: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return products and digital operations of looking for dominant directions, and the numbers
    that these move.

    An inner product of two vectors and the update of one with the other, two operations per row,
    read four numbers and write one. Forming T reads and writes an entry, and reads as many numbers
    for it as there are directions. A search that goes on makes one orthonormal basis and
    looks at what it sees of the matrix.

    Parameters
    ----------
    n, most, rank : ndarray
        Rows of a block, directions to look for at most, and directions that are taken out.
    entries : ndarray
        Entries of T that are formed where directions are taken out.
    recycled : bool
        Whether searches go on with the vectors of the last one.

    Returns
    -------
    tuple of ndarray
        ``vmm_ops``, ``digital_ops`` and ``moved``.
    """
    sought = np.minimum(most, n // ROWS_PER_DIRECTION)
    width = np.where(sought > 0, sought + _SPARE, 0)
    products, bases = (1, 2) if recycled else (_PRODUCTS, _PRODUCTS)
    of_vectors = n * width * (bases * (width + 1) + 2 * sought)
    digital = of_vectors + entries * rank
    forming = np.where(rank > 0, entries * (rank + 2), 0)
    return products * width, digital, of_vectors * 5 // 2 + forming
