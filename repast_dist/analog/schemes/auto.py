"""``auto``: the cheapest scheme that converges for a block on its arrays, found by trying.

What decides is how much the programmed array is off in the directions the block is smallest in,
which nobody knows before programming it. So a few random right-hand sides are solved, and what the
arrays did for them is priced:

1. A single step, where the target is no more than the converters can give.
2. Conjugate gradients without any array, for no more than what writing one costs.
3. Conjugate gradients, dominant directions taken out of the array; of a block wider than an array
   first with the pieces of its diagonal alone, then with its nested halves.
4. Refinement with the same array, read once it has settled, if no directions were taken out.
5. Conjugate gradients without any array, if the second trial was cut off.

Of those that converge the cheapest is taken. Each may take no more rounds than what the cheapest
one before it costs would pay for; one that cannot afford a round is not tried. Inverting arrays are
not written at all if the second trial converges and all right-hand sides until the next writing
cost no more that way than the array and the fewest rounds with it. Once arrays are written to be
tried, what that took decides no more. The series of ``taylor`` is refinement whose every step is
refined in turn, so it is not tried; nor is a second array written that holds the dominant
directions, too. What was tried is part of the counts of the preparation.
"""

import bisect
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import numpy as np

from repast_dist.analog.cells.base import Cell
from repast_dist.analog.prices import Objective, PriceList, Prices
from repast_dist.analog.schemes.base import (
    SCHEMES,
    Blocks,
    Counts,
    Scheme,
    Trial,
    added,
)
from repast_dist.analog.schemes.cg import Cg
from repast_dist.analog.schemes.fcg import Fcg, GradientScheme
from repast_dist.analog.schemes.refine import Refine
from repast_dist.analog.schemes.single import Single
from repast_dist.analog.schemes.trials import trial_counts
from repast_dist.analog.solution import SolveCounts
from repast_dist.analog.solver import BlockSolver
from repast_dist.analog.specs import InvSpec
from repast_dist.ground.numbers import ceil_div
from repast_dist.ground.rng import generator
from repast_dist.ground.spec import spec

_TRIALS = 4
_MARGIN = 0.7
"""Share of the target that trials of a single step must stay below: others may come out worse."""
_UNEVEN = 2
"""Times the rounds that can be paid for, which one right-hand side of several may take."""


@SCHEMES.register
@spec
class Auto(GradientScheme):
    """The cheapest of the others that converges for a block, found by trying.

    Attributes
    ----------
    objective : {"energy", "time", "energy_delay"}
        What is to be least: the energy, the time, or the product of both.
    method : {"auto"}
        The scheme's name.
    """

    objective: Objective = "energy_delay"
    method: Literal["auto"] = "auto"

    chooses_by_price: ClassVar[bool] = True

    def prepare(
        self,
        programmed: Callable[[Scheme], BlockSolver],
        inv: InvSpec,
        prices: PriceList,
        size: int,
        seed: int,
        *address: int | str,
    ) -> BlockSolver:
        """Program a block for each scheme that may be the cheapest; return the one that is."""
        right = generator(seed, "trial", *address).standard_normal((size, _TRIALS))
        one = prices(size)
        tried = _Tried(right, one, self.objective)
        if self._single_may_do(inv):
            tried.add(programmed(self.as_scheme(Single)), _MARGIN * self.tolerance)
        multipliers = programmed(self.as_scheme(Cg))
        rounds = tried.rounds_for_an_array(multipliers)
        alone = rounds and tried.add(multipliers, most=rounds)
        if alone and tried.best is multipliers and self._array_cannot_pay(tried, one, inv):
            return tried.chosen(multipliers)
        there = multipliers if alone else None
        wide = size > inv.size
        pieces = self.as_scheme(Fcg, array_pieces="diagonal")
        if wide and tried.add(programmed(pieces), beside=there):
            there = multipliers
        gradients = programmed(self.as_scheme(Fcg, array_pieces="nested"))
        written = tried.add(gradients, beside=there)
        # Their array and multipliers serve the others, too.
        if written and gradients.deflation is None:
            tried.add(programmed(self.as_scheme(Refine)), written=True)
        if tried.best is not multipliers:
            tried.add(multipliers, written=bool(written or alone))
        return tried.chosen(gradients)

    def _array_cannot_pay(self, tried: "_Tried", prices: Prices, inv: InvSpec) -> bool:
        """Return whether the cheapest so far, for all right-hand sides until the next writing, is
        no dearer than writing an array and the fewest rounds with it: none gives more bits than
        its converters have.
        """
        rounds = ceil_div(self.target_bits, min(inv.dac_bits, inv.adc_bits))
        fewest = SolveCounts(inv_ops=rounds, vmm_ops=rounds)
        sides, objective = prices.right_sides, self.objective
        cheapest = prices.of(tried.counts, objective, sides / _TRIALS)
        return cheapest <= prices.of(fewest, objective, sides, written=True)

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
        """Return the counts of all that is programmed and tried."""
        return added(*(trial_counts(trial, blocks, cell, inv) for trial in trials))

    def expected_trials(self, assumed: int, inv: InvSpec) -> tuple[Trial, ...]:
        """Return all that may be tried, with the same rounds."""
        rounds = np.full(_TRIALS, self.rounds(assumed))
        trials = [Trial(self.as_scheme(Fcg, array_pieces="nested"), True, rounds)]
        # Its multipliers are those of the nested halves.
        pieces = self.as_scheme(Fcg, array_pieces="diagonal")
        trials.append(Trial(pieces, True, rounds, beside=self.as_scheme(Cg), wide=True))
        if not self.deflation:
            trials.append(Trial(self.as_scheme(Refine), False, rounds))
        trials.append(Trial(self.as_scheme(Cg), False, rounds))
        if self._single_may_do(inv):
            trials.insert(0, Trial(self.as_scheme(Single), True, np.ones(_TRIALS, np.int64)))
        return tuple(trials)

    def _single_may_do(self, inv: InvSpec) -> bool:
        return self.tolerance > 2.0 ** -min(inv.dac_bits, inv.adc_bits)


class _Tried:
    """What was tried on some right-hand sides, what it took, and what of it was the cheapest.

    Attributes
    ----------
    best : BlockSolver or None
        The cheapest that converged.
    counts : SolveCounts
        What it took.
    """

    def __init__(self, right: np.ndarray, prices: Prices, objective: Objective) -> None:
        self._right, self._prices, self._objective = right, prices, objective
        self._spent = SolveCounts()
        self._trials: list[Trial] = []
        self._least = np.inf
        self.best: BlockSolver | None = None
        self.counts = SolveCounts()

    def add(
        self,
        solver: BlockSolver,
        tolerance: float | None = None,
        *,
        written: bool = False,
        beside: BlockSolver | None = None,
        most: int | None = None,
    ) -> bool:
        """Solve, keep what is cheaper than all before it and converges; return whether it was
        tried.

        Parameters
        ----------
        solver : BlockSolver
            What is tried.
        tolerance : float, optional
            Relative residual that is to be reached; None: that of the scheme.
        written : bool
            Whether its arrays were written before.
        beside : BlockSolver, optional
            One whose arrays were written before, and are part of its own.
        most : int, optional
            Rounds at most, on an average over the right-hand sides; None: what the cheapest so far
            would pay for.
        """
        scheme: Any = solver.scheme
        there: Any = None if beside is None else beside.scheme
        rounds = self._affordable(solver, self._least)
        if most is not None:
            rounds = min(rounds, most)
        if not rounds:
            return False
        limited = solver
        if hasattr(scheme, "max_iterations"):
            least = min(_UNEVEN * rounds, scheme.max_iterations)
            limited = dataclasses.replace(
                solver, scheme=dataclasses.replace(scheme, max_iterations=least)
            )
        solution = limited.solve(self._right)
        self._spent += solution.counts
        if not written:
            self._spent += solver.program_counts
        if beside is not None:
            self._spent -= beside.program_counts
        self._trials.append(
            Trial(
                scheme,
                not written,
                solution.iterations,
                solution.refreshes,
                0 if solver.deflation is None else solver.deflation.rank,
                solver.settling_s,
                solver.test_s,
                there,
                recycled=solver.recycled,
            )
        )
        good = solution.residual <= (scheme.tolerance if tolerance is None else tolerance)
        price = self._price(solution.counts)
        if good.all() and not solution.saturated and price < self._least:
            self.best, self._least, self.counts = solver, price, solution.counts
        return True

    def rounds_for_an_array(self, solver: BlockSolver) -> int:
        """Return the rounds that cost no more than writing inverting arrays."""
        nothing = SolveCounts()
        return self._affordable(solver, self._prices.of(nothing, self._objective, written=True))

    def _price(self, counts: SolveCounts) -> float:
        return self._prices.of(counts, self._objective)

    def _affordable(self, solver: BlockSolver, limit: float) -> int:
        """Return the rounds that cost no more than a limit, digital work aside."""
        most = getattr(solver.scheme, "max_iterations", 1)
        array, sides = solver.array, self._right.shape[1]
        scheme: Any = solver.scheme
        settlings, products = (0, 0) if array is None else (array.inv_ops, array.vmm_ops)

        def price(rounds: int) -> float:
            times = rounds * sides
            return self._price(
                SolveCounts(
                    inv_ops=times * settlings,
                    vmm_ops=times * (products + scheme.uses_products),
                    settling_s=times * solver.settling_s,
                )
            )

        return bisect.bisect_right(range(1, most + 1), limit, key=price)

    def chosen(self, otherwise: BlockSolver) -> BlockSolver:
        """Return the cheapest, or another if none converged, with the counts of all trials."""
        solver = self.best or otherwise
        return dataclasses.replace(solver, program_counts=self._spent, trials=tuple(self._trials))
