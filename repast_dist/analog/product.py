"""Residual products: fixed-point multiplication on bit-sliced arrays.

A residual has to be known far more precisely than one conversion. Rows are driven a few at a time,
so that an ADC tells every level of their current apart, and cells are written until each holds its
level: the product is then that of the integers, and is simulated as such. Where the ADC has too
few bits for the rows that are driven, or cells have errors, the product runs on the simulated
arrays of `repast_dist.analog.arrays.vmm`, as those of the network do.
"""

import dataclasses
import hashlib
from functools import cached_property
from typing import Self

import numpy as np

from repast_dist.analog.arrays.ranges import COUNTED_VECTORS
from repast_dist.analog.arrays.vmm import VmmArray, program_vmm
from repast_dist.analog.cells.ideal import Ideal
from repast_dist.analog.fixed_point import codes_of, codes_of_columns, rounded
from repast_dist.analog.kernels.whole import WholeMatrix, hold_whole
from repast_dist.analog.specs import AdcSpec, DeviceSpec, VmmSpec
from repast_dist.ground.errors import DataError
from repast_dist.ground.numbers import ceil_div
from repast_dist.ground.rng import generator

LOSSLESS = VmmSpec(device=DeviceSpec(cell=Ideal(bits=4)), adc=AdcSpec(range="lossless"), rows=8)
"""Arrays that lose nothing of a product."""

_MOST_BITS = 32
"""Of numbers on simulated arrays: their whole numbers are int32."""


@dataclasses.dataclass(frozen=True)
class Product:
    """A matrix on the multipliers, whole or as a product of two.

    Attributes
    ----------
    factors : tuple of ndarray
        The matrices that are multiplied with one after the other, each rounded.
    diagonal : ndarray or None
        (n,) added to the diagonal by the digital unit.
    bits : int
        Fixed-point bits of matrices and vectors.
    vmm : VmmSpec
        The arrays; ``rows`` of them are driven at a time.
    seed, address : int, tuple of (int or str)
        Address of the cells' errors.
    """

    factors: tuple[np.ndarray, ...]
    diagonal: np.ndarray | None
    bits: int
    vmm: VmmSpec
    seed: int = 0
    address: tuple[int | str, ...] = ()

    @classmethod
    def of(
        cls,
        factors: tuple[np.ndarray, ...],
        bits: int,
        vmm: VmmSpec,
        seed: int = 0,
        *address: int | str,
        diagonal: np.ndarray | None = None,
    ) -> Self:
        """Return the product with matrices, of which a vector meets the first one first.

        Raises
        ------
        DataError
            Arrays that lose something are simulated up to 32 bits.
        """
        if not vmm.exact and bits > _MOST_BITS:
            raise DataError(
                f"inversion.product_bits={bits}: residual products whose ADC loses levels, or "
                f"whose cells have errors, are simulated up to {_MOST_BITS} bits; valid: at most "
                f"{_MOST_BITS}, or chip.residual.rows that its ADC has the bits for"
            )
        values = tuple(rounded(factor, bits) for factor in factors)
        return cls(values, diagonal, bits, vmm, seed, address)

    @property
    def values(self) -> int:
        """Values the multipliers hold."""
        return sum(factor.size for factor in self.factors)

    def holding(self, matrix: np.ndarray, *name: int | str) -> "Product":
        """Return the product with another matrix on arrays of the same kind."""
        factors = (rounded(matrix, self.bits),)
        address = (*self.address, *name)
        return dataclasses.replace(self, factors=factors, diagonal=None, address=address)

    def kept_cells(self, before: "Product") -> int:
        """Return how many cells, both of every pair, hold the same level with another matrix of the
        same shape: a value lies in the cell of its sign, slice by slice, and the other holds 0.
        """
        each, kept = self.vmm.device.cell.bits, 0
        for new, old in zip(self.factors, before.factors, strict=True):
            codes = [codes_of(factor, self.bits)[0].astype(np.int64) for factor in (new, old)]
            for sign in (1, -1):
                one, other = (np.maximum(sign * part, 0) for part in codes)
                for place in range(ceil_div(self.bits - 1, each)):
                    low, top = each * place, (1 << each) - 1
                    kept += int(np.count_nonzero((one >> low) & top == (other >> low) & top))
        return kept

    def aged(self, seconds: float) -> "Product":
        """Return the product as its cells hold it so many seconds later."""
        return dataclasses.replace(self, vmm=self.vmm.older(seconds))

    def multiply(self, vectors: np.ndarray, bits: np.ndarray | None = None) -> np.ndarray:
        """Multiply (n, r) vectors, each rounded to the fixed point of its largest entry.

        Parameters
        ----------
        vectors : ndarray
            (n, r) float64.
        bits : ndarray, optional
            (r,) int64 bits of each vector, sign included; None: those of the matrices.
        """
        result = vectors
        for number in range(len(self.factors)):
            result = self._times(number, result, self.bits if bits is None else bits)
        if self.diagonal is not None:
            result = result + self.diagonal[:, None] * vectors
        return result

    def passes(self, bits: np.ndarray) -> np.ndarray:
        """Return the passes that inputs of so many bits, sign included, take."""
        return ceil_div(bits - 1, self.vmm.dac.bits)

    def _times(self, number: int, vectors: np.ndarray, bits: int | np.ndarray) -> np.ndarray:
        if self.vmm.exact:
            codes, steps = codes_of_columns(vectors, bits)
            whole, worth = self._wholes[number]
            exact = whole.multiply(codes)
            exact *= worth * steps
            return exact
        codes, step = codes_of_columns(vectors, bits)
        # Read noise is that of these inputs, whenever they come and whatever comes beside them.
        call = int.from_bytes(hashlib.blake2b(codes.tobytes(), digest_size=8).digest())
        array = self._arrays[number]
        product = array.multiply_codes(np.ascontiguousarray(codes.T), call)
        return np.asarray(product.values.T * (step * array.weight_scale))

    @cached_property
    def _wholes(self) -> tuple[tuple[WholeMatrix, float], ...]:
        """The factors as whole numbers, and what one of them is worth."""
        found = (codes_of(factor, self.bits) for factor in self.factors)
        return tuple((hold_whole(codes, self.bits), step) for codes, step in found)

    @cached_property
    def _arrays(self) -> tuple[VmmArray, ...]:
        """The arrays that hold the factors, each with its inputs along the rows.

        Calibrated ranges are set once, when the arrays are written, by random vectors: what a solve
        multiplies is not known before.
        """
        wide = dataclasses.replace(self.vmm, weight_bits=self.bits, input_bits=self.bits)
        arrays = []
        for number, factor in enumerate(self.factors):
            array = program_vmm(factor.T, wide, self.seed, "product", number, *self.address)
            if wide.adc.range == "calibrated":
                array.calibrate(calibration_vectors(array.shape[0], self.seed, *array.address))
            arrays.append(array)
        return tuple(arrays)


def calibration_vectors(width: int, seed: int, *address: int | str) -> np.ndarray:
    """Return the random inputs, (N, width), by which ranges of residual products are set.

    Every other vector has entries of one sign: a covariance of activations has its largest answer
    to such a vector, and a solve meets it.
    """
    random = generator(seed, "calibration vectors", *address)
    vectors = random.standard_normal((COUNTED_VECTORS, width))
    vectors[::2] = np.abs(vectors[::2])
    return vectors
