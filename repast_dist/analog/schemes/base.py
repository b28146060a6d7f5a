"""What every inversion scheme has: settings, the algorithm, and the count of what it does."""

import abc
import dataclasses
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal, Protocol

import numpy as np
from annotated_types import Ge, Gt, Le

from repast_dist.analog.arrays.inv import couplings_of, depth_of, forming_ops_of, piece_values
from repast_dist.analog.cells.base import Cell
from repast_dist.analog.deflation import ROWS_PER_DIRECTION, search_counts
from repast_dist.analog.prices import PriceList
from repast_dist.analog.solution import Solution, SolveCounts
from repast_dist.analog.solver import (
    NORM_MOVES,
    RESIDUAL_MOVES,
    SCALING_MOVES,
    SCALING_OPS,
    BlockSolver,
    Run,
    deflation_moves,
    deflation_ops,
    product_cells,
)
from repast_dist.analog.specs import InvSpec
from repast_dist.ground.errors import SettingsError
from repast_dist.ground.registry import Registry
from repast_dist.ground.spec import spec

Counts = dict[str, np.ndarray]

_PER_COLUMN = 4

REFRESH_MOVES = RESIDUAL_MOVES + NORM_MOVES
"""Numbers per row that a residual which only the numbers ask for moves."""


class Blocks(Protocol):
    """Shapes of SOI blocks as columns, (blocks,) each."""

    @property
    def size(self) -> np.ndarray:
        """Rows n of a block."""

    @property
    def right_sides(self) -> np.ndarray:
        """Right-hand sides of a solve."""

    @property
    def depth(self) -> np.ndarray:
        """Halvings whose Schur complements are inverted until a piece fits an inverting array."""

    @property
    def pieces(self) -> np.ndarray:
        """Pieces, each in an array of its own."""

    @property
    def held(self) -> np.ndarray:
        """Rows N that a block is the product of."""

    @property
    def fused(self) -> np.ndarray:
        """Whether the arrays hold these rows instead of the product."""

    @property
    def product_values(self) -> np.ndarray:
        """Values of the residual product's matrices."""

    @property
    def inverting_cells(self) -> np.ndarray:
        """Cells of the inverting arrays."""

    @property
    def between(self) -> np.ndarray:
        """Right-hand sides between two writings, of all that hold the block."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """Right-hand sides that were solved while a block was prepared, to find the best scheme.

    Attributes
    ----------
    scheme : Scheme
        What was tried.
    programmed : bool
        Whether arrays were programmed for it.
    rounds : ndarray
        (r,) rounds per right-hand side.
    refreshes : int
        See `Scheme.solve_counts`.
    rank : int or None
        Directions that were taken out of the array; None: as many as may be.
    settling_s : float or None
        Time of the settlings of one application of the inverse; None: as the scheme expects.
    test_s : float or None
        Time of the settlings that tested the arrays; None: as the scheme expects.
    beside : Scheme or None
        Whose arrays were there already and serve this scheme, too, where others are programmed.
    wide : bool
        Whether it is tried with blocks wider than an array alone.
    recycled : bool or None
        Whether the search for directions went on with those of the last writing; None: as in later
        writings.
    """

    scheme: "Scheme"
    programmed: bool
    rounds: np.ndarray
    refreshes: int = 0
    rank: int | None = None
    settling_s: float | None = None
    test_s: float | None = None
    beside: "Scheme | None" = None
    wide: bool = False
    recycled: bool | None = None


@spec
class Scheme(abc.ABC):
    """A way to solve a symmetric positive definite system to more bits than an array has.

    A scheme is a settings class of its own with a field ``method: Literal["name"]``. It improves
    ``run.x`` through `Run.invert` and `Run.residual`, which count what the hardware does, and says
    in `per_column` how often it calls them: what the planner prices is what a run counts. The
    answer is judged by its true residual, not by the scheme.

    Attributes
    ----------
    target_bits : int
        A solve has converged when its relative residual is at most ``2 ** -target_bits``.
    product_bits : int
        Fixed-point bits of residual products, sign included. Reaching ``2 ** -t`` takes about
        ``t + log2(condition number)`` of them.
    equilibrate : bool
        Solve with ``D^-1/2 A D^-1/2``, D the diagonal of A.
    on_divergence : {"raise", "damp", "fallback", "use"}
        What happens to a solve that misses its target: stop the run, try again with more
        damping, let the digital unit solve the block, or use the answer as it is, as hardware
        would that does not check it.
    damp_factor, damp_tries : float, int
        ``damp`` multiplies the damping by the factor, at most so often.
    """

    target_bits: Annotated[int, Ge(2), Le(40)] = 16
    product_bits: Annotated[int, Ge(8), Le(48)] = 32
    equilibrate: bool = True
    on_divergence: Literal["raise", "damp", "fallback", "use"] = "fallback"
    damp_factor: Annotated[float, Gt(1)] = 3.0
    damp_tries: Annotated[int, Ge(1)] = 4

    uses_array: ClassVar[bool] = True
    """Whether an inverting array is programmed."""
    uses_products: ClassVar[bool] = True
    """Whether the multipliers hold the block; a block split over arrays needs them in any case."""
    chooses_by_price: ClassVar[bool] = False
    """Whether `prepare` reads what the operations of a solve cost."""
    fusible: ClassVar[bool] = True
    """Whether it can work on arrays that hold a block's rows instead of the formed block."""

    @property
    def name(self) -> str:
        """Name of the scheme in settings, traces and messages."""
        return str(getattr(self, "method"))  # noqa: B009 - each member declares its tag

    @property
    def tolerance(self) -> float:
        """Largest relative residual of a converged solve."""
        return 2.0**-self.target_bits

    @property
    def most_directions(self) -> int:
        """Dominant directions that are taken out of the array at most."""
        return 0

    @property
    def dominant_above(self) -> float:
        """Times the mean of the other eigenvalues that one has to be to be taken out."""
        return np.inf

    @property
    def recycles(self) -> bool:
        """Whether dominant directions are sought from those of the last writing on."""
        return False

    @property
    def regularisation(self) -> float:
        """What is added to the diagonal of the array, times the norm of its expected error."""
        return 0.0

    @property
    def arrays_per_piece(self) -> int:
        """Inverting arrays that hold one piece of a block."""
        return 0

    @property
    def digital_tiles(self) -> int:
        """Tiles that a block takes for the digital lanes in them, whatever its arrays take."""
        return 0

    @property
    def read_backs(self) -> int:
        """Times that a cell of a slice is read before the next slice is written."""
        return 0

    def read_back(self, count: np.ndarray) -> np.ndarray:
        """Return how many of so many inverting cells, or arrays, are read back."""
        return 0 * count

    def arrays(self, inv: InvSpec) -> InvSpec:
        """Return the inverting arrays with what the scheme puts on their amplifiers."""
        return inv

    def depth(self, size: int, array: int) -> int:
        """Return how often a block of `size` rows is halved for arrays of `array` rows, so that the
        Schur complements of the halves fit them.
        """
        return depth_of(size, array)

    def pieces(self, size: int, array: int) -> int:
        """Return the pieces of a block of `size` rows, each in an array of `array` rows."""
        return 1 << depth_of(size, array)

    def array_entries(self, size: np.ndarray, depth: np.ndarray, pieces: np.ndarray) -> np.ndarray:
        """Return how many entries of formed blocks inverting arrays are written from, (blocks,):
        all, also where Schur complements are made of them, or those of diagonal pieces.

        Parameters
        ----------
        size, depth, pieces : ndarray
            Rows, and what `depth` and `pieces` say of them, (blocks,) each.
        """
        entries: np.ndarray = np.where(depth > 0, size**2, piece_values(size, pieces))
        return entries * self.uses_array

    def holds_inverse(self, size: np.ndarray, between: np.ndarray) -> np.ndarray:
        """Return a mask of the formed blocks beside which multiplying arrays hold the inverse.

        Parameters
        ----------
        size, between : ndarray
            Rows, and right-hand sides between two writings, (blocks,) each.
        """
        none: np.ndarray = np.zeros(len(size), bool)
        return none

    def settling_s(self, blocks: Blocks, inv: InvSpec) -> np.ndarray:
        """Return the time that the settlings of one application of the inverse are expected to
        take, (blocks,) in seconds. An inverse that is halved d times costs 3^d of them.
        """
        return 3**blocks.depth * self._one_settling_s(blocks, inv)

    def tests(self, blocks: Blocks, inv: InvSpec) -> np.ndarray:
        """Return the settlings that test programmed arrays, (blocks,): see `drive_tests` of the
        amplifiers.
        """
        opamp = inv.device.opamp
        tested = self.uses_array and opamp.swing_v is not None
        settlings: np.ndarray = blocks.pieces * (opamp.drive_tests if tested else 0)
        return settlings

    def test_s(self, blocks: Blocks, inv: InvSpec) -> np.ndarray:
        """Return the time that these are expected to take, (blocks,) in seconds; diagonal pieces
        are tested at once.
        """
        at_once = blocks.pieces // 2**blocks.depth
        seconds: np.ndarray = self.tests(blocks, inv) // at_once * self._one_settling_s(blocks, inv)
        return seconds

    def _one_settling_s(self, blocks: Blocks, inv: InvSpec) -> np.ndarray:
        opamp, cycles = inv.device.opamp, self.arrays(inv).read_cycles
        if cycles is None:
            cycles = opamp.settled_cycles + (1.0 / opamp.slew if opamp.slew else 0.0)
        one = opamp.seconds(cycles)
        return one * np.where(blocks.fused, opamp.compensation, 1.0)

    @abc.abstractmethod
    def solve(self, run: Run) -> None:
        """Improve ``run.x`` and count ``run.iterations``, for all right-hand sides at once."""

    @abc.abstractmethod
    def per_column(
        self, rounds: np.ndarray, inv: InvSpec
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return what one right-hand side takes in so many rounds.

        Parameters
        ----------
        rounds : ndarray
            (blocks,) int64; 0 for a right-hand side that is zero.
        inv : InvSpec
            The inverting arrays.

        Returns
        -------
        tuple of ndarray
            (blocks,) each: calls of `Run.invert`, residual products, and, per row of the block,
            digital operations beside those that products and deflation take, and the numbers that
            they read from buffers or write there.
        """

    def _four_per_column(self, rounds: np.ndarray, inv: InvSpec) -> tuple[Any, Any, Any, Any]:
        found: Any = self.per_column(rounds, inv)
        columns = [np.asarray(one) for one in found] if isinstance(found, tuple | list) else []
        one_each = [c.shape in ((), rounds.shape) and c.dtype.kind in "iuf" for c in columns]
        if len(columns) != _PER_COLUMN or not all(one_each):
            shapes = ", ".join(f"{c.shape} {c.dtype}" for c in columns) or type(found).__name__
            raise SettingsError(
                f"{type(self).__name__}.per_column: {shapes} for {rounds.size} blocks; valid: four "
                "arrays of one number per block (applications of the inverse, residual products, "
                "digital operations per row, numbers moved per row)"
            )
        return tuple(found)

    def around_one(self, rank: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the digital operations per row that deflation takes around one application of the
        inverse, and the numbers that they move, for so many directions.
        """
        return deflation_ops(rank), deflation_moves(rank)

    def spared_slices(self, rounds: np.ndarray, inv: InvSpec) -> np.ndarray:
        """Return the slices of the weights that the products of one right-hand side leave out,
        (blocks,), of those that hold all bits. Parameters are those of `per_column`.
        """
        return 0 * rounds

    def spared_passes(self, rounds: np.ndarray) -> np.ndarray:
        """Return the passes of inputs, a bit each, that the products of one right-hand side are
        expected to leave out in so many rounds, (blocks,).
        """
        return 0 * rounds

    def usable(self, solution: Solution) -> bool:
        """Return whether a solve may be used as it is; otherwise ``on_divergence`` decides."""
        return bool(solution.converged.all())

    def rounds(self, assumed: int) -> int:
        """Return the rounds to assume per right-hand side where nothing is solved."""
        return min(assumed, getattr(self, "max_iterations", assumed))

    def expected_trials(self, assumed: int, inv: InvSpec) -> tuple[Trial, ...]:
        """Return what `prepare` is to be taken to try where nothing is solved.

        Parameters
        ----------
        assumed : int
            Rounds per right-hand side.
        inv : InvSpec
            The inverting arrays.
        """
        return ()

    def ignores(self, split: bool) -> dict[str, str]:
        """Return settings that have no effect beside the others, with the reason and what is valid.

        Parameters
        ----------
        split : bool
            Whether blocks may be larger than an inverting array.
        """
        unread: dict[str, str] = {}
        if self.on_divergence != "damp":
            reason = "more damping is not tried; valid: inversion.on_divergence=damp"
            unread |= {"damp_factor": reason, "damp_tries": reason}
        if not (self.uses_products or split):
            unread["product_bits"] = (
                f"inversion.method={self.name} multiplies only where a block is split over arrays; "
                "valid: soi.block_size above chip.inv.size, or another method"
            )
        return unread

    def prepare(
        self,
        programmed: Callable[["Scheme"], BlockSolver],
        inv: InvSpec,
        prices: PriceList,
        size: int,
        seed: int,
        *address: int | str,
    ) -> BlockSolver:
        """Return a programmed block, for schemes that have to try some first.

        Parameters
        ----------
        programmed : callable
            Programs the block for a scheme.
        inv : InvSpec
            The inverting arrays.
        prices : callable
            Rows of a block -> what the operations of a solve with it cost.
        size : int
            Rows of the block.
        seed, *address
            Address of what is drawn.
        """
        return programmed(self)

    def as_scheme[S: Scheme](self, cls: type[S], **changes: Any) -> S:
        """Return another scheme with the settings that both have, and with changes."""
        theirs = {field.name for field in dataclasses.fields(cls)} - {"method"}
        shared = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name in theirs
        }
        return cls(**{**shared, **changes})

    def solve_counts(
        self,
        blocks: Blocks,
        rounds: np.ndarray,
        inv: InvSpec,
        rank: np.ndarray | None = None,
        refreshes: np.ndarray | int = 0,
        settling_s: np.ndarray | float | None = None,
    ) -> Counts:
        """Return `SolveCounts` of solves in which every right-hand side takes the same rounds.

        Parameters
        ----------
        blocks : Blocks
            Shapes; counts of right-hand sides that take different rounds add up.
        rounds : ndarray
            (blocks,) int64.
        inv : InvSpec
            The inverting arrays.
        rank : ndarray, optional
            (blocks,) directions that were taken out; None: as many as may be.
        refreshes : ndarray or int
            Residual products, over all right-hand sides, that only the numbers ask for.
        settling_s : ndarray or float, optional
            Time of the settlings of one application of the inverse; None: as expected.

        Returns
        -------
        dict
            ``inv_ops``, ``beside``, ``vmm_ops``, ``digital_ops``, ``moved``, ``spared_slices``,
            ``spared_passes`` (as expected) and ``program_cells``: (blocks,) int64, and
            ``settling_s``: (blocks,) float64.
        """
        applied, products, digital, moved = self._four_per_column(rounds, inv)
        seconds = self.settling_s(blocks, inv) if settling_s is None else settling_s
        # An inverse that is halved d times costs 3^d settlings and 3^d - 1 products, one by
        # diagonal pieces a settling of each, at once.
        in_turn = 3**blocks.depth
        settlings = np.where(blocks.depth > 0, in_turn, blocks.pieces)
        rank = self.assumed_rank(blocks) if rank is None else rank
        deflating, around = self.around_one(rank)
        per_row = digital + products + np.where(rank > 0, deflating, 0) * applied + SCALING_OPS
        moved_per_row = moved + np.where(rank > 0, around, 0) * applied + SCALING_MOVES
        sides = blocks.right_sides
        return {
            "inv_ops": sides * applied * settlings * self.uses_array,
            "beside": sides * applied * (settlings - in_turn) * self.uses_array,
            "vmm_ops": sides * (applied * (in_turn - 1) * self.uses_array + products) + refreshes,
            "digital_ops": (sides * per_row + refreshes) * blocks.size,
            "moved": (sides * moved_per_row + REFRESH_MOVES * refreshes) * blocks.size,
            "spared_slices": sides * self.spared_slices(rounds, inv),
            "spared_passes": sides * self.spared_passes(rounds),
            "program_cells": np.zeros(len(blocks.size), np.int64),
            "settling_s": sides * applied * seconds * self.uses_array,
        }

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
        """Return `SolveCounts` of preparing blocks.

        Parameters
        ----------
        blocks : Blocks
            Shapes.
        cell : Cell
            The cells of the multiplying arrays, which hold the residual products.
        inv : InvSpec
            The inverting arrays.
        rank : ndarray, optional
            (blocks,) directions that were taken out; None: as many as may be.
        trials : tuple of Trial
            What was tried, or is expected to be; see `expected_trials`.
        test_s : ndarray or float, optional
            Time of the settlings that tested the arrays; None: as expected.
        recycled : bool, optional
            Whether searches for directions went on with those of the last writing; None: as in
            later writings.
        """
        rank = self.assumed_rank(blocks) if rank is None else rank
        n = blocks.size
        most = np.where(blocks.fused, 0, self.most_directions)
        again = self.recycles if recycled is None else recycled
        vmm_ops, digital_ops, moved = search_counts(
            n, most, rank, self.array_entries(n, blocks.depth, blocks.pieces), recycled=again
        )
        scaled = n * np.where(blocks.fused, blocks.held, n)
        held = (blocks.depth > 0) & self.uses_array | self.uses_products
        values = np.where(held, blocks.product_values, 0)
        forming = np.zeros(len(n), np.int64)
        at_once = blocks.pieces // 2**blocks.depth
        if self.uses_array:
            values = values + couplings_of(n, blocks.depth)
            forming += forming_ops_of(n, blocks.depth)
        return {
            "inv_ops": self.tests(blocks, inv),
            "beside": self.tests(blocks, inv) * (at_once - 1) // at_once,
            "vmm_ops": vmm_ops,
            "digital_ops": digital_ops + forming + 2 * scaled,
            "moved": moved + 2 * scaled,
            "spared_slices": np.zeros(len(n), np.int64),
            "spared_passes": np.zeros(len(n), np.int64),
            "program_cells": blocks.inverting_cells * self.uses_array
            + product_cells(values, self.product_bits, cell),
            "settling_s": (self.test_s(blocks, inv) if test_s is None else test_s)
            + np.zeros(len(n)),
        }

    def assumed_rank(self, blocks: Blocks) -> np.ndarray:
        """Return the directions that can be taken out of every block; of fused ones none."""
        from_size = np.minimum(self.most_directions, blocks.size // ROWS_PER_DIRECTION)
        rank: np.ndarray = np.where(blocks.fused, 0, from_size)
        return rank


@spec
class ArrayScheme(Scheme):
    """A scheme that inverts with an array.

    Attributes
    ----------
    array_regularisation : float or None
        Times the norm of what the array is expected to be off by, about ``2 sqrt(n)`` times the
        RMS error of a cell, is added to the diagonal of the programmed array only, which keeps its
        circuit stable. None: 1 for schemes that make up for it, 0 for ``single`` and ``taylor``.
    array_slices, array_copies : int
        Arrays on the same amplifiers that hold what the ones before them left out, and that
        average their errors; each takes as many cells as the first.
    array_read_back : int
        Times that each cell of a slice is read by the array's converters, for the mean, before what
        it left out is written to the next slice.
    array_read_after : float, "settled" or None
        When outputs are read, in multiples of the amplifiers' 1 / gain-bandwidth product, or when
        they have settled to half a step of the ADC. None: after 12 by conjugate gradients, whose
        next rounds make up for what an early answer lacks, and settled by all others.
    """

    array_regularisation: Annotated[float, Ge(0)] | None = None
    array_slices: Annotated[int, Ge(1), Le(4)] = 1
    array_copies: Annotated[int, Ge(1), Le(16)] = 1
    array_read_back: Annotated[int, Ge(1)] = 16
    array_read_after: Annotated[float, Gt(0)] | Literal["settled"] | None = None

    own_regularisation: ClassVar[float] = 0.0
    """Regularisation where none is set."""
    own_read_after: ClassVar[float | Literal["settled"]] = "settled"
    """Time of reading where none is set."""

    @property
    def regularisation(self) -> float:
        """What is added to the diagonal of the array, times the norm of its expected error."""
        given = self.array_regularisation
        return self.own_regularisation if given is None else given

    @property
    def arrays_per_piece(self) -> int:
        """Inverting arrays that hold one piece of a block."""
        return self.array_slices * self.array_copies

    @property
    def read_backs(self) -> int:
        """Times that a cell of a slice is read before the next slice is written."""
        return self.array_read_back

    def read_back(self, count: np.ndarray) -> np.ndarray:
        """Return those of all slices but the last."""
        return count * (self.array_slices - 1) // self.array_slices

    def ignores(self, split: bool) -> dict[str, str]:
        """Return also that nothing is read back where there is one slice."""
        unread = super().ignores(split)
        if self.array_slices == 1:
            unread["array_read_back"] = (
                "one slice is not read back; valid: inversion.array_slices above 1"
            )
        return unread

    def arrays(self, inv: InvSpec) -> InvSpec:
        """Return the inverting arrays with the scheme's slices, copies and time of reading."""
        after = self.array_read_after or self.own_read_after
        return dataclasses.replace(
            inv,
            slices=self.array_slices,
            copies=self.array_copies,
            read_backs=self.array_read_back,
            read_cycles=None if after == "settled" else after,
        )


@spec
class DeflatingScheme(Scheme):
    """A scheme that takes a few dominant directions out of a block.

    Attributes
    ----------
    deflation : int
        Dominant directions that are taken out at most, and no more than one for 16 rows; 0: none.
        See `repast_dist.analog.deflation`.
    deflation_above : float
        Times the mean of the other eigenvalues that one has to be to be taken out.
    deflation_recycled : bool
        Whether directions of a block that is written anew are sought from those of its last
        writing on, by one product with each instead of three. A block that is written for the
        first time has none.
    """

    deflation: Annotated[int, Ge(0)] = 8
    deflation_above: Annotated[float, Gt(0)] = 4.0
    deflation_recycled: bool = False

    @property
    def most_directions(self) -> int:
        """Dominant directions that are taken out at most."""
        return self.deflation

    @property
    def dominant_above(self) -> float:
        """Times the mean of the other eigenvalues that one has to be to be taken out."""
        return self.deflation_above

    @property
    def recycles(self) -> bool:
        """Whether dominant directions are sought from those of the last writing on."""
        return self.deflation_recycled

    def ignores(self, split: bool) -> dict[str, str]:
        """Return also what acts on directions alone, where none is taken out."""
        unread = super().ignores(split)
        if not self.deflation:
            reason = "no direction is taken out; valid: inversion.deflation above 0"
            unread |= {"deflation_above": reason, "deflation_recycled": reason}
        return unread


@spec
class IterativeScheme(Scheme):
    """A scheme in rounds, each of which makes the residual smaller.

    Attributes
    ----------
    max_iterations : int
        Rounds at most.
    """

    max_iterations: Annotated[int, Ge(1)] = 400


def added(*counts: Counts) -> Counts:
    """Return the sum of counts."""
    return {name: np.sum([c[name] for c in counts], axis=0) for name in counts[0]}


def as_counts(counts: Counts) -> SolveCounts:
    """Return counts as columns, summed over their blocks."""
    return SolveCounts(**{name: values.sum().item() for name, values in counts.items()})


SCHEMES: Registry[Scheme] = Registry(
    "inversion scheme",
    Scheme,  # type: ignore[type-abstract]
    tag="method",
    home="repast_dist.analog.schemes",
    default="fcg",
)
