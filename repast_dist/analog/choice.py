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
from typing import TYPE_CHECKING

from repast_dist.analog.solution import Solution, SolveCounts
from repast_dist.ground.rng import generator

if TYPE_CHECKING:
    from repast_dist.analog.inversion import BlockSolver

_TRIALS = 4
_MARGIN = 0.7
"""Share of the target that trials of a single step must stay below: others may come out worse."""


def cheapest(
    prepared: "Callable[[str], BlockSolver]", size: int, seed: int, *address: int | str
) -> "BlockSolver":
    """Prepare a block with each scheme that may be the cheapest and return the one that is.

    Parameters
    ----------
    prepared : callable
        Prepares the block with the scheme of a name.
    size : int
        Rows of the block.
    seed, *address
        Address of the right-hand sides to try.
    """
    trials = generator(seed, "trial", *address).standard_normal((size, _TRIALS))
    spent = SolveCounts()
    gradients = prepared("fcg")
    inv, tolerance = gradients.inv, gradients.inversion.tolerance
    if tolerance > 2.0 ** -min(inv.dac_bits, inv.adc_bits):
        solver = prepared("single")
        tried = solver.solve(trials)
        spent += solver.program_counts + tried.counts
        if (tried.residual <= _MARGIN * tolerance).all():
            return dataclasses.replace(solver, program_counts=spent)
    tried = gradients.solve(trials)
    spent += gradients.program_counts + tried.counts
    if gradients.deflation is None:
        refining = dataclasses.replace(gradients, method="refine")
        limit = int(tried.iterations.max(initial=1))
        again = _with_limit(refining, limit).solve(trials)
        spent += again.counts
        if again.converged.all() and _rounds(again) <= _rounds(tried):
            return dataclasses.replace(refining, program_counts=spent)
    if not tried.converged.all():
        plain = prepared("cg")
        again = plain.solve(trials)
        spent += plain.program_counts + again.counts
        if again.converged.all():
            return dataclasses.replace(plain, program_counts=spent)
    return dataclasses.replace(gradients, program_counts=spent)


def _with_limit(solver: "BlockSolver", rounds: int) -> "BlockSolver":
    limited = dataclasses.replace(solver.inversion, max_iterations=rounds)
    return dataclasses.replace(solver, inversion=limited)


def _rounds(solution: Solution) -> float:
    return float(solution.iterations.mean())
