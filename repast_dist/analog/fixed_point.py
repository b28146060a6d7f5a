"""Residual products: fixed-point multiplication on bit-sliced arrays of verified cells.

Every level of such a cell is exact, so the product is simulated as the fixed-point product it
computes.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Product:
    """A symmetric matrix on the multipliers, whole or as a product of two.

    Attributes
    ----------
    factors : tuple of ndarray
        The matrices that are multiplied with one after the other, each rounded.
    diagonal : ndarray or None
        (n,) added to the diagonal by the digital unit.
    bits : int
        Fixed-point bits of matrices and vectors.
    """

    factors: tuple[np.ndarray, ...]
    diagonal: np.ndarray | None
    bits: int

    @classmethod
    def of(cls, matrix: np.ndarray, bits: int) -> "Product":
        """Return the product with an (n, n) matrix."""
        return cls((rounded(matrix, bits),), None, bits)

    @property
    def values(self) -> int:
        """Values the multipliers hold."""
        return sum(factor.size for factor in self.factors)

    def multiply(self, vectors: np.ndarray) -> np.ndarray:
        """Multiply (n, r) vectors, each rounded to the fixed point of its largest entry."""
        result = vectors
        for factor in self.factors:
            result = factor @ rounded_columns(result, self.bits)
        if self.diagonal is not None:
            result = result + self.diagonal[:, None] * vectors
        return result


def rounded(matrix: np.ndarray, bits: int) -> np.ndarray:
    """Round to `bits` bits of the largest entry, sign included."""
    largest = float(np.max(np.abs(matrix), initial=0.0))
    step = (largest if largest > 0 else 1.0) / (2 ** (bits - 1) - 1)
    return np.rint(matrix / step) * step


def exponent_of(values: np.ndarray) -> int:
    """Return the exponent of the power of two just above the largest entry; 0 for zeros."""
    return int(np.frexp(np.max(np.abs(values), initial=0.0))[1])


def codes_of_columns(values: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Return whole numbers of `bits` bits, sign included, and what one of each column is worth."""
    largest = np.abs(values).max(axis=0, initial=0.0)
    largest[~(largest > 0)] = 1.0
    step = largest / (2 ** (bits - 1) - 1)
    codes = values / step
    return np.rint(codes, out=codes), step


def rounded_columns(values: np.ndarray, bits: int) -> np.ndarray:
    """Round every column to `bits` bits of its own largest entry."""
    codes, step = codes_of_columns(values, bits)
    codes *= step
    return codes
