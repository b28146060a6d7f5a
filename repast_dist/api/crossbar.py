"""A matrix on the crossbars of a chip: products as the hardware computes them, and their cost."""

import dataclasses
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from repast_dist.analog.arrays.vmm import VmmArray, program_vmm
from repast_dist.api.loading import given_hardware
from repast_dist.ground.errors import CapacityError, DataError
from repast_dist.ground.numbers import ceil_div, real_numbers
from repast_dist.hardware.geometry import (
    Counts,
    array_count,
    product_counts,
    with_buffers,
    write_counts,
)
from repast_dist.hardware.hardware import Hardware
from repast_dist.planning.costs import Cost, priced


@dataclasses.dataclass(frozen=True)
class Conversions:
    """What the converters did in a product.

    Attributes
    ----------
    conversions : int
        ADC conversions.
    clipped : int
        Those beyond the ADC's range.
    clipped_inputs : int
        Inputs beyond the DAC's range.
    """

    conversions: int
    clipped: int
    clipped_inputs: int

    @property
    def clip_rate(self) -> float:
        """Share of the conversions that were beyond the ADC's range."""
        return self.clipped / max(self.conversions, 1)


class Crossbar:
    """A programmed matrix; `crossbar` makes one.

    Attributes
    ----------
    hardware : Hardware
        The chip that holds it.
    array : VmmArray
        The programmed arrays.
    last : Conversions or None
        What the converters did in the last product.
    """

    # Lets ``numpy_array @ crossbar`` come here.
    __array_ufunc__ = None

    def __init__(self, hardware: Hardware, array: VmmArray) -> None:
        self.hardware, self.array = hardware, array
        self.last: Conversions | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (K, M) of the matrix."""
        rows, columns = self.array.shape
        return rows, columns

    @property
    def arrays(self) -> int:
        """Arrays that hold the matrix."""
        return int(array_count(self.hardware.geometry, *self.shape))

    def multiply(self, x: ArrayLike, call: int = 0) -> np.ndarray:
        """Return ``x @ matrix`` as the hardware computes it.

        Parameters
        ----------
        x : array_like
            (N, K), or (K,). All rows share the range of the converters.
        call : int
            Address of the product's read noise; the same number gives the same noise again.

        Returns
        -------
        ndarray
            (N, M) or (M,) float64.

        Raises
        ------
        DataError
            The inputs are not finite real numbers or of the wrong width.

        Warns
        -----
        ClippingWarning
            More than a hundredth of the conversions are beyond a range that was kept.
        """
        inputs = real_numbers(x, "inputs")
        rows = inputs[None] if inputs.ndim == 1 else inputs
        product = self.array.multiply(rows, call)
        # Where cells and converters are ideal, the product is that of whole numbers.
        exact = self.array.contents is None
        converted = self._conversions(len(rows)) if exact else product.conversions
        self.last = Conversions(converted, product.clipped, product.clipped_inputs)
        return product.values[0] if inputs.ndim == 1 else product.values

    def __rmatmul__(self, x: ArrayLike) -> np.ndarray:
        return self.multiply(x)

    def calibrate(self, x: ArrayLike) -> None:
        """Set and keep the converters' calibrated ranges from a sample of inputs, (N, K)."""
        self.array.calibrate(real_numbers(x, "inputs"))

    def cost(self, vectors: int) -> Cost:
        """Return what multiplying so many input vectors takes, one after the other.

        Raises
        ------
        DataError
            It is no whole number from 0.
        """
        if int(vectors) != vectors or vectors < 0:
            raise DataError(f"vectors: {vectors}; valid: a whole number from 0")
        counts = self._product(vectors)
        return priced(with_buffers(counts, self.hardware.chip, self._banks), self.hardware)

    @cached_property
    def program_cost(self) -> Cost:
        """What writing the matrix takes."""
        at_once = self._banks * self.hardware.chip.written_arrays_per_bank
        counts = write_counts(self.hardware.geometry, *self.shape, 1, at_once)
        return priced(counts, self.hardware)

    def _product(self, vectors: int) -> Counts:
        return product_counts(self.hardware.geometry, vectors, *self.shape)

    def _conversions(self, vectors: int) -> int:
        return int(self._product(vectors)["adc_conversions"])

    @property
    def _banks(self) -> int:
        return int(ceil_div(self.arrays, self.hardware.chip.vmm.arrays_per_bank))

    def __repr__(self) -> str:
        rows, columns = self.shape
        return (
            f"Crossbar({rows} x {columns} on {self.arrays:,} arrays of chip "
            f"'{self.hardware.chip.name}')"
        )


def crossbar(matrix: ArrayLike, hardware: Hardware, seed: int = 0) -> Crossbar:
    """Program a matrix into the multiplying arrays of a chip.

    Parameters
    ----------
    matrix : array_like
        (K, M), finite.
    hardware : Hardware
        The chip, its device and what its parts cost; see `load_hardware`.
    seed : int
        Seed of the programming errors and of read noise.

    Returns
    -------
    Crossbar
        ``x @ crossbar`` multiplies; it knows what that costs.

    Raises
    ------
    SettingsError
        The hardware is none.
    DataError
        The matrix is not of finite real numbers or has no two dimensions.
    CapacityError
        The chip has too few arrays for it.
    """
    array = program_vmm(real_numbers(matrix, "matrix"), given_hardware(hardware).vmm_spec, seed)
    made = Crossbar(hardware, array)
    if made.arrays > hardware.chip.vmm_arrays:
        raise CapacityError(
            f"a matrix of {array.shape[0]} x {array.shape[1]} takes {made.arrays:,} multiplying "
            f"arrays and chip '{hardware.chip.name}' has {hardware.chip.vmm_arrays:,}"
        )
    return made
