"""Times what SOI blocks add to the segments of a step, by the counts of the step's own rows."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from repast_dist.hardware.hardware import Hardware
from repast_dist.ops.pricing import duration_of, energy_of
from repast_dist.planning.block_costs import BlockWork, Solves
from repast_dist.planning.solves import BlockShapes
from repast_dist.planning.specs import StepKind


@dataclasses.dataclass(frozen=True, eq=False)
class BlockTimes:
    """What the rows of blocks take, with one entry per block, or per holding of one.

    Attributes
    ----------
    shapes : BlockShapes
        The blocks, with the right-hand sides that are solved.
    hardware : Hardware
        The chips.
    kinds : tuple of StepKind
        The kinds of steps that occur.
    averaging_s, programming_s : ndarray
        Time of updating the running average once, and of writing the arrays once, which all copies
        take at the same time.
    programming_j : ndarray
        Energy of writing one copy once.
    solving, renewing : Solves
        Solves in steps that solve alone, and in those that prepare the block anew as well.
    banks : ndarray
        Banks of one copy.
    solving_s : ndarray
        Time per step of solving with one copy, the average over all kinds of steps.
    """

    shapes: BlockShapes
    hardware: Hardware
    kinds: tuple[StepKind, ...]
    averaging_s: np.ndarray
    programming_s: np.ndarray
    programming_j: np.ndarray
    solving: Solves
    renewing: Solves
    banks: np.ndarray
    solving_s: np.ndarray

    @classmethod
    def of(cls, work: BlockWork, kinds: tuple[StepKind, ...]) -> "BlockTimes":
        """Time what chips do with blocks."""
        shapes, hardware = work.shapes, work.hardware
        size, costs = len(shapes), hardware.costs
        written = work.preparing.columns["program_cells"] > 0
        times = cls(
            shapes,
            hardware,
            kinds,
            duration_of(work.averaging, costs, size),
            duration_of(work.programming, costs, size) * written,
            energy_of(work.programming, costs, size) * written,
            work.solving,
            work.renewing,
            work.banks,
            np.zeros(size),
        )
        mean_s = sum(
            (kind.share * one for kind, one in times.solves_s(np.ones(size, np.int64))),
            times.solving_s,
        )
        return dataclasses.replace(times, solving_s=mean_s)

    @property
    def most_copies(self) -> np.ndarray:
        """Copies of which each has something to solve: one per right-hand side."""
        most: np.ndarray = np.maximum(self.shapes.right_sides, 1)
        return most

    def take(self, place: np.ndarray) -> "BlockTimes":
        """Return the times of some blocks."""
        shapes = self.shapes.shared(place, self.shapes.right_sides[place])
        return BlockTimes(
            shapes,
            self.hardware,
            self.kinds,
            self.averaging_s[place],
            self.programming_s[place],
            self.programming_j[place],
            self.solving.take(place, shapes),
            self.renewing.take(place, shapes),
            self.banks[place],
            self.solving_s[place],
        )

    def solves_s(self, copies: np.ndarray) -> Iterator[tuple[StepKind, np.ndarray]]:
        """Yield each kind of steps, and the time of solving with so many copies in one of them,
        both of the shape (..., blocks).
        """
        known: dict[bool, np.ndarray] = {}
        for kind in self.kinds:
            if kind.inverses_due not in known:
                known[kind.inverses_due] = self._solve_s(copies, kind.inverses_due)
            yield kind, known[kind.inverses_due]

    def _solve_s(self, copies: np.ndarray, renews: bool) -> np.ndarray:
        costs, solves = self.hardware.costs, self.renewing if renews else self.solving
        if not solves.factorises:
            return duration_of(solves.serial.counts(copies, self.banks), costs, copies.shape)
        every = np.broadcast_to(np.arange(len(self.shapes)), copies.shape).ravel()
        shapes = self.shapes.shared(every, self.shapes.right_sides[every])
        rows = solves.take(every, shapes).counts(copies.ravel(), self.banks[every])
        return duration_of(rows, costs, copies.size).reshape(copies.shape)

    def renewal_s(self, kind: StepKind, stays: np.ndarray) -> np.ndarray:
        """Return the time of updating running averages and of writing arrays in a step of a kind;
        blocks that do not stay are written in every step.
        """
        written = np.where(stays, kind.inverses_due, True)
        seconds: np.ndarray = self.averaging_s * kind.factors_due + self.programming_s * written
        return seconds

    def renewing_s(self, stays: np.ndarray) -> np.ndarray:
        """Return the time of `renewal_s`, the average over all kinds of steps."""
        total = np.zeros(len(self.shapes))
        for kind in self.kinds:
            total += kind.share * self.renewal_s(kind, stays)
        return total

    @property
    def renewals(self) -> float:
        """Times per step that blocks which stay are written."""
        return sum(kind.share for kind in self.kinds if kind.inverses_due)
