"""The matrices that one process updates as wholes: their state, and who multiplies them.

The chip that owns a matrix gets its whole gradient, keeps what the method remembers of it, and
computes its direction, which all others are sent.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import scipy.linalg

from repast_dist.analog import SolveCounts
from repast_dist.ground.errors import DataError, InversionError
from repast_dist.ground.rng import When
from repast_dist.network.node import Product
from repast_dist.training.engines import Engine
from repast_dist.training.optimizers.matrix_unit import (
    Due,
    Held,
    MatrixMethod,
    MatrixUnit,
    MatrixWork,
    Shape,
    Where,
)


class EngineUnit(MatrixUnit[np.ndarray]):
    """Computes with float64 numbers: products on the arrays of a chip, or exactly.

    Parameters
    ----------
    where : {"arrays", "digital"}
        Where products are computed: in the arithmetic of an engine's gradients, or in float64.
    engine : Engine
        The arithmetic.
    step : int
        The training step; with the layer it addresses programming errors and read noise.
    layer : str
        The layer.
    """

    def __init__(self, where: Where, engine: Engine, step: int, layer: str) -> None:
        super().__init__(where)
        self._engine, self._step, self._layer = engine, step, layer

    def shape(self, matrix: np.ndarray) -> Shape:
        """Return the shape of a matrix."""
        rows, columns = matrix.shape
        return rows, columns

    def transposed(self, matrix: np.ndarray) -> np.ndarray:
        """Return a view of the transpose."""
        return matrix.T

    def require(self, holds: bool, message: str) -> None:
        """Raise an error if something does not hold.

        Raises
        ------
        DataError
            It does not.
        """
        if not holds:
            raise DataError(f"step {self._step}, layer {self._layer}, {message}")

    def _loaded(self, matrix: np.ndarray, what: str) -> Held[np.ndarray]:
        if self.where == "digital":
            return _Exact(matrix)
        address = (what, When(self._step), self._layer)
        return _OnArrays(self._engine.load("gradient", matrix, address))

    def _inverted(self, matrix: np.ndarray, what: str) -> tuple[np.ndarray, SolveCounts | None]:
        """Solve for the columns of the identity. An inversion that misses its target is done again
        by Cholesky in the digital unit, unless ``inversion.on_divergence`` is ``raise`` or ``use``:
        more damping would make another root.
        """
        one = np.eye(len(matrix))
        if self.where == "digital":
            return self._factored_inverse(matrix, one, what), None
        address = (what, When(self._step), self._layer)
        try:
            solver = self._engine.block_solver(matrix, address, len(matrix))
        except (DataError, InversionError) as error:
            self.require(False, f"{what}: {error}")
            raise
        solution = solver.solve(one)
        counts = solver.program_counts + solution.counts
        scheme = self._engine.inversion
        if solution.usable or (scheme is not None and scheme.on_divergence == "use"):
            return solution.x, counts
        self.require(
            scheme is not None and scheme.on_divergence != "raise",
            f"{what}: the inversion misses its target, residual {solution.residual.max():.2e}; "
            "valid: more optimizer.ridge or inversion.on_divergence=fallback",
        )
        again = SolveCounts(factorisations=1, factored_sides=len(matrix))
        return self._factored_inverse(matrix, one, what), counts + again

    def _factored_inverse(self, matrix: np.ndarray, one: np.ndarray, what: str) -> np.ndarray:
        try:
            factor = scipy.linalg.cho_factor(matrix, lower=True)
        except np.linalg.LinAlgError:
            self.require(False, f"{what}: not positive definite; more optimizer.ridge may help")
            raise
        found: np.ndarray = scipy.linalg.cho_solve(factor, one)
        return found

    def _combined(self, terms: Sequence[tuple[float, np.ndarray]]) -> np.ndarray:
        (factor, matrix), *others = terms
        total = factor * matrix
        for factor, matrix in others:
            total += factor * matrix
        return total

    def _averaged_squares(
        self, past: float, average: np.ndarray, fresh: float, matrix: np.ndarray
    ) -> np.ndarray:
        return past * average + fresh * matrix**2

    def _over_roots(
        self, matrix: np.ndarray, squares: np.ndarray, factor: float, least: float
    ) -> np.ndarray:
        return matrix / (np.sqrt(factor * squares) + least)

    def _shifted(self, factor: float, matrix: np.ndarray, shift: float) -> np.ndarray:
        result = factor * matrix if factor else np.zeros_like(matrix)
        result[np.diag_indices_from(result)] += shift
        return result

    def _norm(self, matrix: np.ndarray) -> float:
        return float(np.sqrt(np.sum(matrix**2)))


class _Exact(Held[np.ndarray]):
    def __init__(self, matrix: np.ndarray) -> None:
        self._matrix = matrix

    def multiply(self, left: np.ndarray) -> np.ndarray:
        return left @ self._matrix


class _OnArrays(Held[np.ndarray]):
    def __init__(self, loaded: Product) -> None:
        self._loaded, self._calls = loaded, 0

    def multiply(self, left: np.ndarray) -> np.ndarray:
        self._calls += 1
        return self._loaded.multiply(left, ("matrix", self._calls))


class Matrices:
    """The matrices that the chips of a process own.

    Parameters
    ----------
    method : MatrixMethod or None
        What updates them; None: there are none.
    owners : mapping
        Layer -> chip of this process that owns it.
    shapes : mapping
        Layer -> rows, without that of a bias, and columns.
    engines : mapping
        Chip -> its arithmetic.
    """

    def __init__(
        self,
        method: MatrixMethod | None,
        owners: Mapping[str, int],
        shapes: Mapping[str, Shape],
        engines: Mapping[int, Engine],
    ) -> None:
        self._method, self._owners, self._engines = method, owners, engines
        self._shapes = {layer: shapes[layer] for layer in owners}
        self._works: dict[str, MatrixWork] = {}
        self._state: dict[str, dict[str, np.ndarray]] = {}
        self.restore({})

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers whose matrices are owned here."""
        return tuple(self._owners)

    def directions(
        self, step: int, gradients: Mapping[str, np.ndarray], due: Due
    ) -> dict[str, np.ndarray]:
        """Return layer -> direction, (rows, columns) float64, of every matrix of this process.

        Parameters
        ----------
        step : int
            The training step.
        gradients : mapping
            Layer -> (rows, columns) float64, of the mean loss of the batch.
        due : Due
            What the step renews.
        """
        found = {}
        for layer, chip in self._owners.items():
            assert self._method is not None
            unit = EngineUnit(self._method.products, self._engines[chip], step, layer)
            found[layer], self._state[layer] = self._method.direction(
                unit, gradients[layer], self._state[layer], due
            )
            self._works[layer] = unit.work
        return found

    @property
    def works(self) -> dict[str, MatrixWork]:
        """Layer -> what the last step with its matrix made its chip do."""
        return dict(self._works)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the state of the matrices as arrays, for a checkpoint."""
        return {
            f"matrix/{layer}/{name}": values
            for layer, state in self._state.items()
            for name, values in state.items()
        }

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Load what `arrays` returned in any processes; other names are ignored, and what is
        missing begins with zeros.
        """
        for layer, shape in self._shapes.items():
            assert self._method is not None
            self._state[layer] = {
                name: np.array(arrays.get(f"matrix/{layer}/{name}", np.zeros(size)))
                for name, size in self._method.state_shapes(*shape).items()
            }
