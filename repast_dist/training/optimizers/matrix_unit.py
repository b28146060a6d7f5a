"""Who multiplies whole matrices for an optimizer, and the account of what that makes hardware do.

An algorithm is written once, against a `MatrixUnit`. With numbers (`training.matrices`) the unit
computes them, on arrays or in the digital unit; with shapes alone (`ShapeUnit`) it computes none.
Both keep the same account, so what is planned and what is computed cost the same.
"""

import abc
import dataclasses
from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np

from repast_dist.analog import SolveCounts

Shape = tuple[int, int]
Where = Literal["arrays", "digital"]

SQUARE_OPERATIONS, OVER_ROOT_OPERATIONS = 3, 4
"""Digital operations per number of averaging squares, and of dividing by their roots (scaling,
root, epsilon and quotient), counted as those of Adam are.
"""

STEP_OPERATIONS = 2
"""Digital operations of an update per number of a matrix that has a direction: its decay, and the
step along the direction."""


class Due(NamedTuple):
    """What of a method's state a step renews.

    Attributes
    ----------
    averages : bool
        The statistics that it keeps.
    inverses : bool
        What is computed from them.
    """

    averages: bool = True
    inverses: bool = True


class Operand(NamedTuple):
    """A matrix that was written into arrays.

    Attributes
    ----------
    rows, columns : int
        Its shape.
    vectors : int
        Input vectors that it was multiplied by.
    """

    rows: int
    columns: int
    vectors: int


class DigitalProduct(NamedTuple):
    """A product (rows, inner) by (inner, columns) of the digital unit."""

    rows: int
    inner: int
    columns: int


class Inversion(NamedTuple):
    """A symmetric matrix that was inverted: solved with for the columns of the identity.

    Attributes
    ----------
    size : int
        Its rows, and the right-hand sides.
    counts : SolveCounts or None
        What preparing and solving took; None: what the inversion scheme is expected to.
    """

    size: int
    counts: SolveCounts | None = None


@dataclasses.dataclass(frozen=True)
class MatrixWork:
    """What the update of one matrix makes the hardware do.

    Attributes
    ----------
    operands : tuple of Operand
        Matrices that were written into arrays.
    products : tuple of DigitalProduct
        Products of the digital unit.
    inversions : tuple of Inversion
        Matrices that were inverted by the inversion scheme.
    factored : tuple of int
        Rows of the matrices that the digital unit inverted, with Cholesky's factors.
    digital_ops : int
        Scalar operations of the digital unit beside these; a multiplication with its addition is
        one.
    moved : int
        Numbers that these read from buffers or write there.
    """

    operands: tuple[Operand, ...] = ()
    products: tuple[DigitalProduct, ...] = ()
    inversions: tuple[Inversion, ...] = ()
    factored: tuple[int, ...] = ()
    digital_ops: int = 0
    moved: int = 0


class Held[M](abc.ABC):
    """A matrix (K, N) that is ready to be multiplied by."""

    @abc.abstractmethod
    def multiply(self, left: M) -> M:
        """Return ``left @ matrix``, (R, K) -> (R, N)."""


class MatrixUnit[M](abc.ABC):
    """Multiplies and combines matrices, and keeps the account.

    Parameters
    ----------
    where : {"arrays", "digital"}
        Where products are computed.
    """

    def __init__(self, where: Where) -> None:
        self.where: Where = where
        self._operands: list[Operand] = []
        self._products: list[DigitalProduct] = []
        self._inversions: list[Inversion] = []
        self._factored: list[int] = []
        self._ops = self._moved = 0

    @property
    def work(self) -> MatrixWork:
        """The account so far."""
        return MatrixWork(
            tuple(self._operands),
            tuple(self._products),
            tuple(self._inversions),
            tuple(self._factored),
            self._ops,
            self._moved,
        )

    @abc.abstractmethod
    def shape(self, matrix: M) -> Shape:
        """Return the shape of a matrix."""

    @abc.abstractmethod
    def transposed(self, matrix: M) -> M:
        """Return the transpose, which is only another order of reading."""

    def hold(self, matrix: M, what: str) -> Held[M]:
        """Return a matrix that is written into arrays once, for several products.

        Parameters
        ----------
        matrix : M
            (K, N).
        what : str
            What it is, unlike any other matrix of this update: addresses programming errors.
        """
        return _Counted(self, matrix, self._loaded(matrix, what))

    def product(self, left: M, right: M, what: str) -> M:
        """Return ``left @ right``, of which `right` is written into arrays; `what` as in `hold`."""
        return self.hold(right, what).multiply(left)

    def inverse(self, matrix: M, what: str) -> M:
        """Return the inverse of a symmetric positive definite matrix, (n, n), by the inversion
        scheme or in the digital unit; `what` as in `hold`.
        """
        size, _ = self.shape(matrix)
        if self.where == "digital":
            self._factored.append(size)
        found, counts = self._inverted(matrix, what)
        if self.where == "arrays":
            self._inversions.append(Inversion(size, counts))
        return found

    def combine(self, *terms: tuple[float, M]) -> M:
        """Return the sum of multiples of matrices of one shape."""
        entries = int(np.prod(self.shape(terms[0][1])))
        self._digital(len(terms) * entries, (len(terms) + 1) * entries)
        return self._combined(terms)

    def averaged_squares(self, past: float, average: M, fresh: float, matrix: M) -> M:
        """Return a multiple of an average and of the squares of a matrix's entries, added."""
        entries = int(np.prod(self.shape(matrix)))
        self._digital(SQUARE_OPERATIONS * entries, 3 * entries)
        return self._averaged_squares(past, average, fresh, matrix)

    def over_roots(self, matrix: M, squares: M, factor: float, least: float) -> M:
        """Return the entries of a matrix over the roots of a multiple of squares, to which a number
        is added.
        """
        entries = int(np.prod(self.shape(matrix)))
        self._digital(OVER_ROOT_OPERATIONS * entries, 3 * entries)
        return self._over_roots(matrix, squares, factor, least)

    def shifted(self, factor: float, matrix: M, shift: float) -> M:
        """Return a multiple of a square matrix and of the identity, added; what is multiplied by 0
        is neither read nor multiplied.
        """
        size, _ = self.shape(matrix)
        scaled = size * size if factor else 0
        self._digital(scaled + size, size * size + scaled)
        return self._shifted(factor, matrix, shift)

    def norm(self, matrix: M) -> float:
        """Return the Frobenius norm; of a shape 1."""
        entries = int(np.prod(self.shape(matrix)))
        self._digital(entries, entries)
        return self._norm(matrix)

    @abc.abstractmethod
    def require(self, holds: bool, message: str) -> None:
        """Raise an error if something that numbers show does not hold; shapes show nothing."""

    def _digital(self, operations: int, moved: int) -> None:
        self._ops += operations
        self._moved += moved

    def _count(self, place: int | None, left: Shape, right: Shape) -> int | None:
        """Count a product with a held matrix, which has a place among the operands."""
        vectors, (rows, columns) = left[0], right
        if self.where == "digital":
            self._products.append(DigitalProduct(vectors, rows, columns))
            return None
        if place is None:
            self._operands.append(Operand(rows, columns, vectors))
            return len(self._operands) - 1
        before = self._operands[place]
        self._operands[place] = before._replace(vectors=before.vectors + vectors)
        return place

    @abc.abstractmethod
    def _loaded(self, matrix: M, what: str) -> Held[M]:
        """Return a matrix as it is multiplied by."""

    @abc.abstractmethod
    def _inverted(self, matrix: M, what: str) -> tuple[M, SolveCounts | None]:
        """Return the inverse of a matrix, and what that took of arrays, if numbers tell."""

    @abc.abstractmethod
    def _combined(self, terms: Sequence[tuple[float, M]]) -> M:
        """Return the sum of multiples of matrices."""

    @abc.abstractmethod
    def _averaged_squares(self, past: float, average: M, fresh: float, matrix: M) -> M:
        """Return a multiple of an average and of squares, added."""

    @abc.abstractmethod
    def _over_roots(self, matrix: M, squares: M, factor: float, least: float) -> M:
        """Return a matrix over roots of squares."""

    @abc.abstractmethod
    def _shifted(self, factor: float, matrix: M, shift: float) -> M:
        """Return a multiple of a matrix and of the identity, added."""

    @abc.abstractmethod
    def _norm(self, matrix: M) -> float:
        """Return the Frobenius norm."""


class _Counted[M](Held[M]):
    def __init__(self, unit: MatrixUnit[M], matrix: M, loaded: Held[M]) -> None:
        self._unit, self._shape, self._loaded = unit, unit.shape(matrix), loaded
        self._place: int | None = None

    def multiply(self, left: M) -> M:
        self._place = self._unit._count(self._place, self._unit.shape(left), self._shape)
        return self._loaded.multiply(left)


class ShapeUnit(MatrixUnit[Shape]):
    """Keeps the account of an algorithm of which only the shapes are known."""

    def shape(self, matrix: Shape) -> Shape:
        """Return the shape itself."""
        return matrix

    def transposed(self, matrix: Shape) -> Shape:
        """Return the shape of the transpose."""
        return matrix[1], matrix[0]

    def require(self, holds: bool, message: str) -> None:
        """Do nothing."""

    def _loaded(self, matrix: Shape, what: str) -> Held[Shape]:
        return _OfShape(matrix)

    def _inverted(self, matrix: Shape, what: str) -> tuple[Shape, None]:
        return matrix, None

    def _combined(self, terms: Sequence[tuple[float, Shape]]) -> Shape:
        return terms[0][1]

    def _averaged_squares(self, past: float, average: Shape, fresh: float, matrix: Shape) -> Shape:
        return matrix

    def _over_roots(self, matrix: Shape, squares: Shape, factor: float, least: float) -> Shape:
        return matrix

    def _shifted(self, factor: float, matrix: Shape, shift: float) -> Shape:
        return matrix

    def _norm(self, matrix: Shape) -> float:
        return 1.0


class _OfShape(Held[Shape]):
    def __init__(self, shape: Shape) -> None:
        self._shape = shape

    def multiply(self, left: Shape) -> Shape:
        return left[0], self._shape[1]


class MatrixMethod(Protocol):
    """What updates whole matrices: one chip computes the direction of one of them."""

    @property
    def products(self) -> Where:
        """Where products are computed."""

    @property
    def output_layer(self) -> Literal["matrix", "others"]:
        """Whether the last matrix of a network is updated as the others are."""

    @property
    def renews(self) -> bool:
        """Whether steps differ in what they renew (`Due`)."""

    def state_shapes(self, rows: int, columns: int) -> dict[str, Shape]:
        """Return name -> shape of what is kept of a matrix from step to step, at first zeros."""

    def direction[M](
        self, unit: MatrixUnit[M], gradient: M, state: dict[str, M], due: Due
    ) -> tuple[M, dict[str, M]]:
        """Return the direction of a matrix, to be multiplied by the rate, and the new state.

        Parameters
        ----------
        unit : MatrixUnit
            Who multiplies.
        gradient : M
            (rows, columns), of the mean loss of the batch; without the row of a bias.
        state : dict
            As `state_shapes` says; it is not changed.
        due : Due
            What this step renews.
        """


def modelled_work(method: MatrixMethod, rows: int, columns: int, due: Due) -> MatrixWork:
    """Return the account of a step with one matrix, from its shape alone."""
    unit = ShapeUnit(method.products)
    method.direction(unit, (rows, columns), method.state_shapes(rows, columns), due)
    return unit.work
