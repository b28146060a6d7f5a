"""``auto``: the cheapest scheme that converges for a block on its arrays, found by trying.

What decides is how much the programmed array is off in the directions the block is smallest in,
which nobody knows before programming it. So a few random right-hand sides are solved:

1. A single step, where the target is no more than the converters can give.
2. Conjugate gradients. Where dominant directions were taken out, they are the cheapest: plain
   refinement works with a worse array and cannot take fewer rounds.
3. Refinement with the same array, if it takes no more rounds: its rounds are simpler.
4. Conjugate gradients without any array, where those with it fail: an array can be too far off to
   be of use.

The series of ``taylor`` is refinement whose every step is refined in turn, so it is never cheaper.
What was tried is part of the counts of the preparation.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from repast_dist.analog.cells.base import Cell
from repast_dist.analog.schemes.base import SCHEMES, Blocks, Counts, Scheme, Trial, added
from repast_dist.analog.schemes.cg import Cg
from repast_dist.analog.schemes.fcg import Fcg, GradientScheme
from repast_dist.analog.schemes.refine import Refine
from repast_dist.analog.schemes.single import Single
from repast_dist.analog.solution import Solution, SolveCounts
from repast_dist.analog.solver import BlockSolver
from repast_dist.analog.specs import InvSpec
from repast_dist.ground.rng import generator
from repast_dist.ground.spec import spec

_TRIALS = 4
_MARGIN = 0.7
"""Share of the target that trials of a single step must stay below: others may come out worse."""


@SCHEMES.register
@spec
class Auto(GradientScheme):
    """The cheapest of the others that converges for a block, found by trying.

    Attributes
    ----------
    method : {"auto"}
        The scheme's name.
    """

    method: Literal["auto"] = "auto"

    def prepare(
        self,
        programmed: Callable[[Scheme], BlockSolver],
        inv: InvSpec,
        size: int,
        seed: int,
        *address: int | str,
    ) -> BlockSolver:
        """Program a block for each scheme that may be the cheapest; return the one that is."""
        right = generator(seed, "trial", *address).standard_normal((size, _TRIALS))
        tried = _Tried(right)
        if self._single_may_do(inv):
            solver = programmed(self.as_scheme(Single))
            once = tried.solve(solver, solver.program_counts)
            if not once.saturated and (once.residual <= _MARGIN * self.tolerance).all():
                return tried.chosen(solver)
        gradients = programmed(self.as_scheme(Fcg))
        first = tried.solve(gradients, gradients.program_counts)
        if gradients.deflation is None:
            limit = int(first.iterations.max(initial=1))
            refine = self.as_scheme(Refine)
            limited = dataclasses.replace(refine, max_iterations=limit)
            again = tried.solve(dataclasses.replace(gradients, scheme=limited))
            if again.converged.all() and again.iterations.mean() <= first.iterations.mean():
                return tried.chosen(dataclasses.replace(gradients, scheme=refine))
        if not first.converged.all():
            plain = programmed(self.as_scheme(Cg))
            if tried.solve(plain, plain.program_counts).converged.all():
                return tried.chosen(plain)
        return tried.chosen(gradients)

    def program_counts(
        self,
        blocks: Blocks,
        cell: Cell,
        inv: InvSpec,
        rank: np.ndarray | None = None,
        trials: tuple[Trial, ...] = (),
        test_s: np.ndarray | float | None = None,
    ) -> Counts:
        """Return the counts of all that is programmed and tried."""
        return added(*(_trial_counts(trial, blocks, cell, inv) for trial in trials))

    def expected_trials(self, assumed: int, inv: InvSpec) -> tuple[Trial, ...]:
        """Return conjugate gradients, and a single step before them where it may do."""
        rounds = np.full(_TRIALS, self.rounds(assumed))
        gradients = Trial(self.as_scheme(Fcg), True, rounds)
        if not self._single_may_do(inv):
            return (gradients,)
        return Trial(self.as_scheme(Single), True, np.ones(_TRIALS, np.int64)), gradients

    def _single_may_do(self, inv: InvSpec) -> bool:
        return self.tolerance > 2.0 ** -min(inv.dac_bits, inv.adc_bits)


class _Tried:
    """What was tried on some right-hand sides, and what it took."""

    def __init__(self, right: np.ndarray) -> None:
        self._right = right
        self._spent = SolveCounts()
        self._trials: list[Trial] = []

    def solve(self, solver: BlockSolver, programmed: SolveCounts | None = None) -> Solution:
        """Solve with a scheme; `programmed` is what its arrays took, None where they were there."""
        solution = solver.solve(self._right)
        self._spent += solution.counts + (programmed or SolveCounts())
        scheme: Any = solver.scheme
        rank = 0 if solver.deflation is None else solver.deflation.rank
        self._trials.append(
            Trial(
                scheme,
                programmed is not None,
                solution.iterations,
                solution.refreshes,
                rank,
                solver.settling_s,
                solver.test_s,
            )
        )
        return solution

    def chosen(self, solver: BlockSolver) -> BlockSolver:
        """Return a solver with the counts of all that was tried."""
        return dataclasses.replace(solver, program_counts=self._spent, trials=tuple(self._trials))


def _trial_counts(trial: Trial, blocks: Blocks, cell: Cell, inv: InvSpec) -> Counts:
    one = _OneSide(blocks)
    scheme = trial.scheme
    none = np.zeros_like(blocks.size)
    rank = scheme.assumed_rank(blocks) if trial.rank is None else none + trial.rank
    parts = [
        scheme.solve_counts(
            one, np.full(len(blocks.size), rounds), inv, rank, settling_s=trial.settling_s
        )
        for rounds in trial.rounds.tolist()
    ]
    refreshed = {
        "vmm_ops": none + trial.refreshes,
        "digital_ops": trial.refreshes * blocks.size,
    }
    parts.append({name: refreshed.get(name, none) for name in parts[0]})
    if trial.programmed:
        parts.append(scheme.program_counts(blocks, cell, inv, rank, test_s=trial.test_s))
    return added(*parts)


class _OneSide:
    """Blocks with one right-hand side each."""

    def __init__(self, blocks: Blocks) -> None:
        self.size, self.depth, self.held, self.fused = (
            blocks.size,
            blocks.depth,
            blocks.held,
            blocks.fused,
        )
        self.right_sides = np.ones_like(blocks.size)
        self.product_values = blocks.product_values
        self.inverting_cells = blocks.inverting_cells
