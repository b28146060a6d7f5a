"""``explicit``: the inverse itself, solved for column by column and kept in multiplying arrays.

A block that is solved with for many more right-hand sides than it has rows is solved with for the
columns of the identity instead. With the answers in arrays beside those of the block, a right-hand
side takes one product and no rounds. Dominant directions U of the scaled block S stay with the
digital unit: the arrays hold

    Y = S^-1 - U (U' S U)^-1 U'

and a solve computes ``U (U' S U)^-1 U' b + P Y b`` (`repast_dist.analog.deflation`), so that the
rounding of Y is not multiplied by the eigenvalues that S has along U. Y is as symmetric as its
columns are precise: to make it symmetric would multiply what they are off by. A few random
right-hand sides tell whether the inverse meets the target; if it does not, the block is solved with
in rounds.
"""

import dataclasses
from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Gt

from repast_dist.analog.cells.base import Cell
from repast_dist.analog.prices import PriceList
from repast_dist.analog.schemes.base import (
    REFRESH_MOVES,
    SCHEMES,
    Blocks,
    Counts,
    DeflatingScheme,
    Scheme,
    Trial,
    added,
    as_counts,
)
from repast_dist.analog.schemes.fcg import Fcg, PieceScheme
from repast_dist.analog.schemes.trials import trial_counts
from repast_dist.analog.solution import SolveCounts
from repast_dist.analog.solver import BlockSolver, Run, joining_moves, joining_ops, product_cells
from repast_dist.analog.specs import InvSpec
from repast_dist.ground.rng import generator
from repast_dist.ground.spec import spec

_TRIALS = 4
"""Random right-hand sides that an inverse is tried with."""

_MARGIN = 0.7
"""Share of the target that these must stay below: others may come out worse."""

_FINER, _MOST_BITS = 2, 40
"""Bits beyond the target that columns of the inverse are solved to, and the most of a target."""

_FORMING_OPS, _FORMING_MOVES = 1, 2
"""Digital operations per entry of the inverse, and numbers that they move, beside those of every
direction taken out: it is scaled.
"""


@SCHEMES.register
@spec
class Explicit(PieceScheme):
    """The inverse in multiplying arrays, found by ``fcg``, for blocks that earn it.

    Attributes
    ----------
    inverse_from : float
        An inverse is formed where right-hand sides until the next writing are at least so many
        times the rows; other blocks are solved with by ``fcg``.
    method : {"explicit"}
        The scheme's name.
    """

    inverse_from: Annotated[float, Gt(0)] = 2.0
    method: Literal["explicit"] = "explicit"

    def holds_inverse(self, size: np.ndarray, between: np.ndarray) -> np.ndarray:
        """Return a mask of the blocks that have right-hand sides enough."""
        earned: np.ndarray = between >= self.inverse_from * size
        return earned

    def prepare(
        self,
        programmed: Callable[[Scheme], BlockSolver],
        inv: InvSpec,
        prices: PriceList,
        size: int,
        seed: int,
        *address: int | str,
    ) -> BlockSolver:
        """Program a block, and its inverse where that is earned and meets the target."""
        solver = programmed(self.as_scheme(Fcg))
        between = np.array([prices(size).right_sides])
        fused = len(solver.product.factors) > 1
        if fused or not self.holds_inverse(np.array([size]), between)[0]:
            return solver
        return self._with_inverse(solver, seed, *address)

    def _with_inverse(self, solver: BlockSolver, seed: int, *address: int | str) -> BlockSolver:
        n, deflation = solver.size, solver.deflation
        cell = solver.product.vmm.device.cell
        finer = dataclasses.replace(solver, scheme=self._of_columns)
        columns = finer.solve(np.diag(1.0 / solver.scaling))
        inverse = np.ldexp(columns.x, solver.exponent) / solver.scaling[:, None]
        rank = 0
        if deflation is not None:
            rank = deflation.rank
            inverse -= deflation.basis @ deflation.core @ deflation.basis.T
        held = dataclasses.replace(
            solver,
            array=None,
            inverse=solver.product.holding(inverse, "inverse"),
            inner_scaling=np.ones(n),
            scheme=self.as_scheme(_Product),
        )
        right = generator(seed, "inverse", *address).standard_normal((n, _TRIALS))
        tried = held.solve(right)
        trials = (
            Trial(
                self._of_columns, False, columns.iterations, columns.refreshes, rank,
                solver.settling_s,
            ),
            # What is left of them is a product with the block.
            Trial(self.as_scheme(_Product), False, tried.iterations, _TRIALS, rank),
        )  # fmt: skip
        counts = solver.program_counts + columns.counts + tried.counts
        counts += as_counts(self._forming_counts(np.array([n]), np.array([rank]), cell))
        counts += SolveCounts(
            vmm_ops=_TRIALS, digital_ops=_TRIALS * n, moved=REFRESH_MOVES * _TRIALS * n
        )
        good = bool((tried.residual <= _MARGIN * self.tolerance).all())
        return dataclasses.replace(held if good else solver, program_counts=counts, trials=trials)

    @property
    def _of_columns(self) -> Fcg:
        """How columns of the inverse are solved for: what each is off by adds up in an answer."""
        return self.as_scheme(Fcg, target_bits=min(self.target_bits + _FINER, _MOST_BITS))

    def _forming_counts(self, size: np.ndarray, rank: np.ndarray, cell: Cell) -> Counts:
        none = np.zeros(len(size), np.int64)
        return {
            "inv_ops": none,
            "beside": none,
            "vmm_ops": none,
            "digital_ops": size**2 * (_FORMING_OPS + rank),
            "moved": size**2 * (_FORMING_MOVES + rank),
            "spared_slices": none,
            "spared_passes": none,
            "program_cells": product_cells(size**2, self.product_bits, cell),
            "settling_s": np.zeros(len(size)),
        }

    def expected_trials(self, assumed: int, inv: InvSpec) -> tuple[Trial, ...]:
        """Return one column of the inverse, for all of them, and the right-hand sides that it is
        tried with.
        """
        return (
            Trial(self._of_columns, False, np.array([self.rounds(assumed)])),
            Trial(self.as_scheme(_Product), False, np.ones(_TRIALS, np.int64), _TRIALS),
        )

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
        """Return also the counts of forming inverses, of blocks that hold one."""
        block = super().program_counts(blocks, cell, inv, rank, trials, test_s, recycled)
        earned = self.holds_inverse(blocks.size, blocks.between) & ~blocks.fused
        rank = self.assumed_rank(blocks) if rank is None else rank
        parts = [self._forming_counts(blocks.size, rank, cell)]
        for trial in trials:
            counts = trial_counts(trial, blocks, cell, inv)
            # One column stands for all of an inverse that is planned.
            times = blocks.size if len(trial.rounds) == 1 else 1
            parts.append({name: times * column for name, column in counts.items()})
        inverse = added(*parts)
        return added(block, {name: column * earned for name, column in inverse.items()})

    def solve_counts(
        self,
        blocks: Blocks,
        rounds: np.ndarray,
        inv: InvSpec,
        rank: np.ndarray | None = None,
        refreshes: np.ndarray | int = 0,
        settling_s: np.ndarray | float | None = None,
    ) -> Counts:
        """Return the counts of rounds, or of a product with the inverse where there is one."""
        in_rounds = super().solve_counts(blocks, rounds, inv, rank, refreshes, settling_s)
        earned = self.holds_inverse(blocks.size, blocks.between) & ~blocks.fused
        at_once = self.as_scheme(_Product).solve_counts(blocks, rounds, inv, rank)
        return {name: np.where(earned, at_once[name], in_rounds[name]) for name in in_rounds}


@spec
class _Product(DeflatingScheme):
    """A product with an inverse that is there.

    Attributes
    ----------
    method : {"explicit"}
        The scheme's name.
    """

    method: Literal["explicit"] = "explicit"

    uses_array: ClassVar[bool] = False

    def solve(self, run: Run) -> None:
        """Multiply with the inverse."""
        active = np.flatnonzero(run.norm > 0)
        run.x[:, active] = run.invert(run.b[:, active])
        run.iterations[active] = 1

    def around_one(self, rank: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what the directions' share and taking them out of the answer take."""
        return joining_ops(rank), joining_moves(rank)

    def per_column(
        self, rounds: np.ndarray, inv: InvSpec
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return one product, what deflation does around it aside."""
        once = np.minimum(rounds, 1)
        return once, once, 0 * once, 0 * once
