"""The linear algebra of training in float64, in fixed point, or on analog crossbars.

Training asks an `Engine` for two things: a matrix loaded for products, and a solver of a damped
SOI block. Which arithmetic serves which role is a setting, so one training code covers exact,
digital and analog hardware, and every operation can be lowered in precision on its own.
"""

import dataclasses
import math
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import scipy.linalg

from repast_dist.analog import (
    InvSpec,
    Rows,
    Scheme,
    Solution,
    SolveCounts,
    VmmArray,
    VmmSpec,
    prepare,
    program_vmm,
)
from repast_dist.analog.arrays.vmm import CLIP_WARNING_RATE, VmmProduct, program_each
from repast_dist.analog.fixed_point import shared_step
from repast_dist.analog.prices import PriceList, by_number
from repast_dist.ground.errors import DataError, InversionError
from repast_dist.network.node import Address, Product, Role
from repast_dist.training.ranges import RangeKeeper
from repast_dist.training.specs import Arithmetic, EngineSpec

_ROUNDING = 1e-6
"""Of a number of writes: rates are those of intervals, such as 1 / 10."""


class Solver(Protocol):
    """A damped SOI block that is ready to solve; `analog.prepare` returns one, too."""

    @property
    def program_counts(self) -> SolveCounts:
        """The operations that the preparation took."""

    def solve(self, right: np.ndarray) -> Solution:
        """Solve for the right-hand sides (n, r)."""

    def aged(self, seconds: float) -> "Solver":
        """Return the block as it is held so many seconds after it was written."""

    @property
    def seen(self) -> np.ndarray | None:
        """(n, k) what the search for dominant directions goes on with at the next writing."""


class ClipCount(NamedTuple):
    """The number of ADC conversions, and how many of them exceeded the calibrated range.

    Attributes
    ----------
    clipped, conversions : int
        Conversions that clipped, and all conversions.
    """

    clipped: int = 0
    conversions: int = 0

    @property
    def rate(self) -> float:
        """The share of the conversions that clipped."""
        return self.clipped / max(self.conversions, 1)

    @property
    def excessive(self) -> bool:
        """Whether more conversions clip than a calibrated range should allow."""
        return self.rate > CLIP_WARNING_RATE

    def plus(self, other: "ClipCount") -> "ClipCount":
        """Return the sum of both counts."""
        return ClipCount(self.clipped + other.clipped, self.conversions + other.conversions)


@dataclasses.dataclass
class ConversionMeter:
    """Counts ADC conversions and how many of them clipped, by role and layer."""

    _counts: dict[str, ClipCount] = dataclasses.field(default_factory=dict)

    def add(self, what: str, clipped: int, conversions: int) -> None:
        """Add the conversions of a product to the count of its role and layer."""
        before = self._counts.get(what, ClipCount())
        self._counts[what] = before.plus(ClipCount(clipped, conversions))

    def take(self) -> dict[str, ClipCount]:
        """Return role and layer -> counts since the last call, and begin again."""
        counts, self._counts = self._counts, {}
        return counts


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How long a step takes and how often it writes cells, as planned: by this, cells age and wear.

    Attributes
    ----------
    step_s : float
        Time of a step; 0 where no cell ages.
    weights, activations, inverses, products : float
        Writes per step of a cell that holds weights, that holds activations or errors, of an
        inverting cell, and of one that holds an SOI block for residual products.
    """

    step_s: float = 0.0
    weights: float = 1.0
    activations: float = 1.0
    inverses: float = 1.0
    products: float = 1.0


AS_WRITTEN = Schedule()
"""Cells that do not age and are written once per step."""


@dataclasses.dataclass(frozen=True)
class Engine:
    """The arithmetic of a run, or of one chip of it.

    Attributes
    ----------
    spec : EngineSpec
        Arithmetic per role.
    vmm : VmmSpec or None
        The multipliers; None where nothing is analog.
    inv : InvSpec or None
        The inverting arrays.
    residual : VmmSpec or None
        The multiplying arrays of residual products.
    inversion : Scheme or None
        The scheme by which analog solves reach their precision.
    seed : int
        The run's seed.
    schedule : Schedule
        How long a step takes, and how often it writes cells.
    factor_bits : int or None
        Bits of the inputs of analog and fixed-point products that form factors; None: as of all
        others.
    prices : callable
        Rows of a block -> what the operations of a solve cost, for schemes that choose by it.
    meter : ConversionMeter
        Counts the conversions of its products.
    ranges : RangeKeeper
        ADC ranges of its products.
    """

    spec: EngineSpec
    vmm: VmmSpec | None
    inv: InvSpec | None
    residual: VmmSpec | None
    inversion: Scheme | None
    seed: int
    schedule: Schedule = AS_WRITTEN
    factor_bits: int | None = None
    prices: PriceList = by_number
    meter: ConversionMeter = dataclasses.field(default_factory=ConversionMeter, compare=False)
    ranges: RangeKeeper = dataclasses.field(default_factory=RangeKeeper, compare=False)

    def arithmetic(self, role: Role) -> Arithmetic:
        """Return the arithmetic of a role."""
        arithmetic: Arithmetic = getattr(self.spec, role)
        return arithmetic

    @property
    def keeps_ranges(self) -> bool:
        """Whether ADC ranges of its products are set by earlier steps."""
        roles = (self.spec.forward, self.spec.backward, self.spec.gradient, self.spec.factor)
        return self.vmm is not None and "analog" in roles and self.vmm.adc.keeps_ranges

    def load(self, role: Role, matrix: np.ndarray, address: Address) -> Product:
        """Load a matrix for products; it is used half a step later, on average.

        Parameters
        ----------
        role : {"forward", "backward", "gradient", "factor"}
            What the products are for.
        matrix : ndarray
            (K, M), any float dtype, or a stack of them, (B, K, M), which are multiplied by as
            many (B, N, K), each with a scale of its own.
        address : tuple
            Address of programming errors, what, step and layer first:
            ``("weights", When(3), "conv1")``; never names a chip. Equal addresses hold equal
            errors: it is one programmed array, which is written once a step.

        Raises
        ------
        DataError
            The matrix is not finite: training diverged.
        """
        kind = self.arithmetic(role)
        if kind == "analog":
            try:
                array = program_vmm(matrix, self._multipliers(role, address), self.seed, *address)
            except DataError:
                raise _not_finite(role, address) from None
            return self._analog(role, array, address)
        if not np.isfinite(matrix).all():
            raise _not_finite(role, address)
        if kind == "fixed":
            bits = self.spec.fixed_bits
            fixed = _Fixed(*_to_integers(matrix, bits), bits, self.factor_bits)
            return fixed.serving(role)
        return _Float(np.asarray(matrix, np.float64))

    def load_each(self, role: Role, matrices: np.ndarray, addresses: Sequence[Address]) -> Product:
        """Load a matrix for each of several calls, with the bits of `load`.

        Parameters
        ----------
        role
            See `load`.
        matrices : ndarray
            (calls, K, M), any float dtype; or a stack for each, (calls, B, K, M).
        addresses : sequence of tuple
            Address of every call, see `load`; they differ in the micro-batch alone.

        Raises
        ------
        DataError
            See `load`.
        """
        if self.arithmetic(role) != "analog":
            # Their errors, if they had any, would not depend on an address.
            return self.load(role, matrices, addresses[0])
        try:
            array = program_each(
                matrices, self._multipliers(role, addresses[0]), self.seed, addresses
            )
        except DataError:
            array = None
        if array is None:
            parts = zip(matrices, addresses, strict=True)
            return _Apart(tuple(self.load(role, matrix, address) for matrix, address in parts))
        return self._analog(role, array, addresses[0])

    def _multipliers(self, role: Role, address: Address) -> VmmSpec:
        """Return the multipliers of a role, as old and worn as they are in the step of an address,
        half a step later.
        """
        assert self.vmm is not None
        vmm, plan = self.vmm, self.schedule
        if vmm.device.cell.ages:
            vmm = vmm.older(plan.step_s / 2)
        if vmm.device.cell.wears:
            of_weights = role in ("forward", "backward")
            rate = plan.weights if of_weights else plan.activations
            vmm = vmm.written(_writes(rate, int(address[1])))
        return vmm

    def _analog(self, role: Role, array: VmmArray, address: Address) -> Product:
        # The same converters, whatever step and micro-batch it is.
        array.site = (*address[:1], *address[2:3])
        loaded = _Analog(array, role, self.meter, self.ranges, self.factor_bits)
        return loaded.serving(role)

    def block_solver(
        self,
        damped: np.ndarray | Rows,
        address: Address,
        right_sides: int = 1,
        start: np.ndarray | None = None,
        target_bits: int | None = None,
    ) -> Solver:
        """Prepare a damped SOI block for solving.

        Parameters
        ----------
        damped : ndarray or Rows
            (n, n) float64, symmetric positive definite, damping included; or the rows that it is
            the product of. Analog arrays hold these as they are, other arithmetic multiplies them.
        address : tuple
            Address of programming errors, what and step first: ``("soi", When(step), block)``.
        right_sides : int
            Right-hand sides that are solved for until the block is prepared anew, by all chips
            that hold it.
        start : ndarray, optional
            `Solver.seen` of the block's last writing.
        target_bits : int, optional
            Bits of the residual that solves have to reach; None: those of the inversion scheme.

        Raises
        ------
        InversionError
            The block is not positive definite (float64 and fixed).
        DataError
            The block is not finite or not symmetric.
        """
        if self.spec.inverse == "analog":
            assert self.residual is not None
            assert self.inv is not None
            assert self.inversion is not None
            residual, inv, scheme = self.residual, self.inv, self.inversion
            if target_bits not in (None, scheme.target_bits):
                scheme = dataclasses.replace(scheme, target_bits=target_bits)
            if residual.device.cell.wears or inv.device.inv_cell.wears:
                step = int(address[1])
                residual = residual.written(_writes(self.schedule.products, step))
                inv = inv.written(_writes(self.schedule.inverses, step))
            return prepare(
                damped, residual, inv, scheme, self.seed, *address,
                prices=lambda size: self.prices(size).for_right_sides(right_sides),
                start=start,
            )  # fmt: skip
        if isinstance(damped, Rows):
            damped = damped.formed()
        if not np.isfinite(damped).all():
            raise DataError(f"SOI block {'/'.join(map(str, address))}: not finite")
        if self.spec.inverse == "fixed":
            return _FixedSolver.of(damped, self.spec.fixed_inverse_bits)
        return _FloatSolver.of(damped)


def make_engine(
    spec: EngineSpec,
    seed: int,
    vmm: VmmSpec | None = None,
    inv: InvSpec | None = None,
    residual: VmmSpec | None = None,
    inversion: Scheme | None = None,
    schedule: Schedule = AS_WRITTEN,
) -> Engine:
    """Return the engine of a run; the parameters are the attributes of `Engine`.

    Raises
    ------
    ValueError
        An operation is analog and no arrays are given.
    """
    if spec.uses_analog() and None in (vmm, inv, residual, inversion):
        raise ValueError("an engine with analog operations needs vmm, inv, residual and inversion")
    return Engine(spec, vmm, inv, residual, inversion, seed, schedule)


def _not_finite(role: Role, address: Address) -> DataError:
    return DataError(f"{role} {'/'.join(map(str, address))}: the matrix is not finite")


def _writes(per_step: float, step: int) -> int:
    """Return how often a cell has been written in a step, that step included."""
    return max(math.ceil(per_step * (step + 1) - _ROUNDING), 1)


@dataclasses.dataclass(frozen=True)
class _Float:
    matrix: np.ndarray

    def multiply(self, rows: np.ndarray, call: Address) -> np.ndarray:
        return rows @ self.matrix

    def multiply_each(self, rows: np.ndarray, calls: Sequence[Address]) -> np.ndarray:
        # One call of the BLAS for each: sums of more rows at once may have other bits.
        return rows @ self.matrix

    def columns(self, start: int, stop: int) -> "_Float":
        return _Float(self.matrix[..., start:stop])

    def rows(self, count: int) -> "_Float":
        return _Float(self.matrix[..., :count, :])

    def serving(self, role: Role) -> "_Float":
        return self


@dataclasses.dataclass(frozen=True)
class _Fixed:
    """A product of integers, exact in float64 as long as sums stay below 2^53."""

    integers: np.ndarray
    scale: np.ndarray
    bits: int
    factor_bits: int | None = None

    def multiply(self, rows: np.ndarray, call: Address) -> np.ndarray:
        largest = np.abs(rows).max(axis=(-2, -1), keepdims=True, initial=0.0)
        steps = [shared_step(one, self.bits) for one in largest.ravel().tolist()]
        step = np.array(steps).reshape(largest.shape)
        return (np.rint(rows / step) @ self.integers) * (step * self.scale)

    def multiply_each(self, rows: np.ndarray, calls: Sequence[Address]) -> np.ndarray:
        return self.multiply(rows, ())

    def columns(self, start: int, stop: int) -> "_Fixed":
        return dataclasses.replace(self, integers=self.integers[..., start:stop])

    def rows(self, count: int) -> "_Fixed":
        return dataclasses.replace(self, integers=self.integers[..., :count, :])

    def serving(self, role: Role) -> "_Fixed":
        if role != "factor" or self.factor_bits is None:
            return self
        return dataclasses.replace(self, bits=self.factor_bits)


@dataclasses.dataclass(frozen=True)
class _Analog:
    array: VmmArray
    role: Role
    meter: ConversionMeter
    ranges: RangeKeeper
    factor_bits: int | None = None

    @cached_property
    def _what(self) -> tuple[str, str]:
        """Return the role and layer, and the same with the kind of matrix."""
        what = " ".join((self.role, *map(str, self.array.site[1:])))
        return what, " ".join((what, *map(str, self.array.site[:1])))

    def multiply(self, rows: np.ndarray, call: Address) -> np.ndarray:
        return self._noted(self.array.multiply(rows, *call, ranges=self._kept))

    def multiply_each(self, rows: np.ndarray, calls: Sequence[Address]) -> np.ndarray:
        return self._noted(self.array.multiply_each(rows, calls, self._kept))

    @property
    def _kept(self) -> np.ndarray | None:
        return self.ranges.kept.get(self._what[1])

    def _noted(self, product: VmmProduct) -> np.ndarray:
        what, one_range = self._what
        self.ranges.note(one_range, product.needed)
        self.meter.add(what, product.clipped, product.conversions)
        return product.values

    def columns(self, start: int, stop: int) -> "_Analog":
        return dataclasses.replace(self, array=self.array.columns(start, stop))

    def rows(self, count: int) -> "_Analog":
        return dataclasses.replace(self, array=self.array.rows(count))

    def serving(self, role: Role) -> "_Analog":
        if role != "factor" or self.factor_bits is None:
            return dataclasses.replace(self, role=role)
        spec = dataclasses.replace(self.array.spec, input_bits=self.factor_bits)
        return dataclasses.replace(
            self, role=role, array=dataclasses.replace(self.array, spec=spec)
        )


@dataclasses.dataclass(frozen=True)
class _Apart:
    """Matrices of several calls that are multiplied by one by one."""

    each: tuple[Product, ...]

    def multiply(self, rows: np.ndarray, call: Address) -> np.ndarray:
        (one,) = self.each
        return one.multiply(rows, call)

    def multiply_each(self, rows: np.ndarray, calls: Sequence[Address]) -> np.ndarray:
        parts = zip(self.each, rows, calls, strict=True)
        return np.stack([one.multiply(part, call) for one, part, call in parts])

    def columns(self, start: int, stop: int) -> "_Apart":
        return _Apart(tuple(one.columns(start, stop) for one in self.each))

    def rows(self, count: int) -> "_Apart":
        return _Apart(tuple(one.rows(count) for one in self.each))

    def serving(self, role: Role) -> "_Apart":
        return _Apart(tuple(one.serving(role) for one in self.each))


def _to_integers(values: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Return whole numbers in ±(2 ** (bits - 1) - 1) as float64, and the scale of each matrix,
    (..., 1, 1).
    """
    top, values = float(2 ** (bits - 1) - 1), np.asarray(values, np.float64)
    largest = np.abs(values).max(axis=(-2, -1), keepdims=True, initial=0.0)
    scale = np.where(largest > 0, largest, top) / top
    return np.rint(values / scale), scale


@dataclasses.dataclass(frozen=True)
class _FloatSolver:
    matrix: np.ndarray
    cholesky: np.ndarray
    program_counts: SolveCounts
    seen: np.ndarray | None = None

    @classmethod
    def of(cls, damped: np.ndarray) -> "_FloatSolver":
        try:
            return cls(damped, scipy.linalg.cholesky(damped, lower=True), SolveCounts())
        except scipy.linalg.LinAlgError:
            raise InversionError(
                f"a SOI block of {len(damped)} is not positive definite; more damping is needed"
            ) from None

    def aged(self, seconds: float) -> "_FloatSolver":
        return self

    def solve(self, right: np.ndarray) -> Solution:
        return _digital_solution(
            self.matrix, right, scipy.linalg.cho_solve((self.cholesky, True), right), "cholesky"
        )


@dataclasses.dataclass(frozen=True)
class _FixedSolver:
    """A solver that rounds the block and its inverse to bits of their largest entry."""

    matrix: np.ndarray
    inverse: np.ndarray
    program_counts: SolveCounts
    seen: np.ndarray | None = None

    @classmethod
    def of(cls, damped: np.ndarray, bits: int) -> "_FixedSolver":
        integers, scale = _to_integers(damped, bits)
        try:
            inverse = np.linalg.inv(integers * scale)
        except np.linalg.LinAlgError:
            raise InversionError(
                f"a SOI block of {len(damped)} is singular in {bits} bits; "
                "more damping or more bits are needed"
            ) from None
        integers, scale = _to_integers(inverse, bits)
        return cls(damped, integers * scale, SolveCounts())

    def aged(self, seconds: float) -> "_FixedSolver":
        return self

    def solve(self, right: np.ndarray) -> Solution:
        return _digital_solution(self.matrix, right, self.inverse @ right, "fixed")


def _digital_solution(
    matrix: np.ndarray, right: np.ndarray, x: np.ndarray, method: str
) -> Solution:
    """Return a digital solution with its true residual, which always counts as converged."""
    norm = np.linalg.norm(right, axis=0)
    left = np.linalg.norm(right - matrix @ x, axis=0)
    residual = np.divide(left, norm, out=np.zeros_like(left), where=norm > 0)
    count = right.shape[1]
    return Solution(
        x=x,
        iterations=np.zeros(count, np.int64),
        residual=residual,
        converged=np.ones(count, bool),
        counts=SolveCounts(digital_ops=matrix.size * count),
        method=method,
    )
