"""``cholesky``: the digital unit factorises a block and solves with it; no array holds anything.

It is what arrays have to be compared with: lanes of a few tiles, in 32-bit floating point, as
`repast_dist.planning.cholesky` counts them.
"""

import dataclasses
from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import numpy as np
import scipy.linalg
from annotated_types import Ge

from repast_dist.analog.cells.base import Cell
from repast_dist.analog.prices import PriceList
from repast_dist.analog.schemes.base import SCHEMES, Blocks, Counts, Scheme, Trial
from repast_dist.analog.solution import SolveCounts
from repast_dist.analog.solver import BlockSolver, Run
from repast_dist.analog.specs import InvSpec
from repast_dist.ground.spec import spec


@SCHEMES.register
@spec
class Cholesky(Scheme):
    """A Cholesky factorisation by the digital unit, in 32-bit floating point.

    Attributes
    ----------
    tiles : int
        Tiles whose digital lanes share the work with a block; a chip has no more than it has.
    method : {"cholesky"}
        The scheme's name.
    """

    tiles: Annotated[int, Ge(1)] = 4
    method: Literal["cholesky"] = "cholesky"

    uses_array: ClassVar[bool] = False
    uses_products: ClassVar[bool] = False
    fusible: ClassVar[bool] = False

    @property
    def digital_tiles(self) -> int:
        """Tiles that a block takes for itself."""
        return self.tiles

    def depth(self, size: int, array: int) -> int:
        """Return no halvings: no array holds a part of the block."""
        return 0

    def pieces(self, size: int, array: int) -> int:
        """Return one piece: the whole block."""
        return 1

    def ignores(self, split: bool) -> dict[str, str]:
        """Return also that nothing is multiplied on arrays."""
        return super().ignores(split) | {
            "product_bits": "inversion.method=cholesky computes in 32-bit floating point; valid: "
            "another method"
        }

    def prepare(
        self,
        programmed: Callable[[Scheme], BlockSolver],
        inv: InvSpec,
        prices: PriceList,
        size: int,
        seed: int,
        *address: int | str,
    ) -> BlockSolver:
        """Factorise the scaled block; what is not positive definite in 32 bits has no factor."""
        solver = programmed(self)
        scale = solver.scaling
        scaled = (scale[:, None] * solver.matrix[0] * scale).astype(np.float32)
        try:
            factor = scipy.linalg.cholesky(scaled, lower=True)
        except np.linalg.LinAlgError:
            factor = None
        counts = solver.program_counts + SolveCounts(factorisations=1)
        return dataclasses.replace(solver, factor=factor, program_counts=counts)

    def solve(self, run: Run) -> None:
        """Solve both triangular systems."""
        active = np.flatnonzero(run.norm > 0)
        run.iterations[active] = 1
        run.factored_sides += active.size
        factor = run.solver.factor
        if factor is not None and active.size:
            right = run.b[:, active].astype(np.float32)
            run.x[:, active] = scipy.linalg.cho_solve((factor, True), right)

    def per_column(
        self, rounds: np.ndarray, inv: InvSpec
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return nothing: triangular solves are counted as such."""
        none = 0 * rounds
        return none, none, none, none

    def rounds(self, assumed: int) -> int:
        """Return one round, whatever other schemes take."""
        return 1

    def solve_counts(
        self,
        blocks: Blocks,
        rounds: np.ndarray,
        inv: InvSpec,
        rank: np.ndarray | None = None,
        refreshes: np.ndarray | int = 0,
        settling_s: np.ndarray | float | None = None,
    ) -> Counts:
        """Return also the right-hand sides that are solved with the factor."""
        counts = super().solve_counts(blocks, rounds, inv, rank, refreshes, settling_s)
        sides = blocks.right_sides * np.minimum(rounds, 1)
        return counts | {"factorisations": 0 * sides, "factored_sides": sides}

    def program_counts(
        self,
        blocks: Blocks,
        cell: Cell,
        inv: InvSpec,
        rank: np.ndarray | None = None,
        trials: tuple[Trial, ...] = (),
        test_s: np.ndarray | float | None = None,
        recycled: bool | None = None,
    ) -> Counts:
        """Return also a factorisation of every block."""
        counts = super().program_counts(blocks, cell, inv, rank, trials, test_s, recycled)
        one = np.ones_like(blocks.size)
        return counts | {"factorisations": one, "factored_sides": 0 * one}
