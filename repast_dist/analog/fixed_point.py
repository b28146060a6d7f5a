"""Residual products: fixed-point multiplication on bit-sliced arrays of verified cells.

Every level of such a cell is exact, so the product is simulated as the fixed-point product it
computes.
"""

import dataclasses

import numpy as np

PRODUCT_BITS = 32
"""Fixed-point bits of the matrices and the vectors in residual products."""


@dataclasses.dataclass(frozen=True)
class Product:
    """A symmetric matrix on the multipliers, whole or as a product of two.

    Attributes
    ----------
    factors : tuple of ndarray
        The matrices that are multiplied with one after the other, each rounded.
    diagonal : ndarray
        (n,) added to the diagonal by the digital unit; zeros where the matrix is whole.
    """

    factors: tuple[np.ndarray, ...]
    diagonal: np.ndarray

    @classmethod
    def of(cls, matrix: np.ndarray) -> "Product":
        """Return the product with an (n, n) matrix."""
        return cls((rounded(matrix, PRODUCT_BITS),), np.zeros(len(matrix)))

    @property
    def values(self) -> int:
        """Values the multipliers hold."""
        return sum(factor.size for factor in self.factors)

    def multiply(self, vectors: np.ndarray) -> np.ndarray:
        """Multiply (n, r) vectors, each rounded to the fixed point of its largest entry."""
        result = vectors
        for factor in self.factors:
            result = factor @ rounded_columns(result, PRODUCT_BITS)
        return result + self.diagonal[:, None] * vectors if len(self.factors) > 1 else result


def rounded(matrix: np.ndarray, bits: int) -> np.ndarray:
    """Round to `bits` bits of the largest entry, sign included."""
    largest = float(np.max(np.abs(matrix), initial=0.0))
    step = (largest if largest > 0 else 1.0) / (2 ** (bits - 1) - 1)
    return np.rint(matrix / step) * step


def rounded_columns(values: np.ndarray, bits: int) -> np.ndarray:
    """Round every column to `bits` bits of its own largest entry."""
    largest = np.max(np.abs(values), axis=0, initial=0.0)
    step = np.where(largest > 0, largest, 1.0) / (2 ** (bits - 1) - 1)
    return np.rint(values / step) * step
