"""An SOI block on a chip has a running average, programmed arrays and solves."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Protocol

import numpy as np
import scipy.linalg

from repast_dist.analog import BlockSolver, Rows, Solution, SolveCounts
from repast_dist.analog.schemes.base import Scheme
from repast_dist.analog.solution import Answered
from repast_dist.ground.errors import DataError, IndefiniteError, InversionError
from repast_dist.ground.rng import When
from repast_dist.training.engines import Engine, Solver
from repast_dist.training.factor_rows import HeldRows, RowAverage, updated_rows
from repast_dist.training.optimizers import SecondOrder, Side
from repast_dist.training.solve_report import SolveReport

_MORE_DAMPING, _MORE_DAMPING_TRIES = 3.0, 9
"""Times the damping of a block that is not positive definite, and how often."""

_CHANGE_OPS, _CHANGE_MOVES = 4, 2
"""Digital operations per entry of a symmetric block, and numbers that they read, of measuring how
far it has changed: a difference, two divisions by roots of the diagonal, and a square that is added
up. The norm of the old block is known from before.
"""

_WORD_SERVES = 16
"""Products that a word from a buffer is used for when a block is formed digitally."""


_OF_PART = re.compile(r"((?:block/[0-9]+/)?last/)([0-9]+)/([a-z]+)")
"""Name of what was found last, by the number of the first right-hand side."""


class FactorBlock(Protocol):
    """A diagonal block of a factor: its rows and columns ``start:stop``; `planning` cuts them."""

    @property
    def index(self) -> int:
        """Number of the block in the network."""

    @property
    def layer(self) -> int:
        """Number of the layer."""

    @property
    def layer_name(self) -> str:
        """Name of the layer."""

    @property
    def factor(self) -> Side:
        """The factor, A or G."""

    @property
    def start(self) -> int:
        """First row."""

    @property
    def stop(self) -> int:
        """Row after the last."""

    @property
    def size(self) -> int:
        """Rows of the block."""

    @property
    def transposed(self) -> bool:
        """Whether the right-hand sides are columns of the transposed gradient."""


@dataclasses.dataclass(frozen=True)
class FactorAverage:
    """The running average of a factor, or of one of its diagonal blocks, without damping.

    Attributes
    ----------
    matrix : ndarray
        (n, n) float64.
    updates : int
        The number of updates so far.
    """

    matrix: np.ndarray
    updates: int


def updated_average(
    average: FactorAverage | None, fresh: np.ndarray, optimizer: SecondOrder
) -> FactorAverage:
    """Return the average after one more matrix; the old average is not changed.

    Parameters
    ----------
    average : FactorAverage or None
        The average so far; None at the first update.
    fresh : ndarray
        (n, n) matrix of this step.
    optimizer : SecondOrder
        The optimizer, which weighs the old average and the new matrix.
    """
    if average is None:
        average = FactorAverage(optimizer.first_diagonal * np.eye(len(fresh)), 0)
    update = average.updates + 1
    past, present = optimizer.average_weights(update)
    return FactorAverage(past * average.matrix + present * fresh, update)


def joined(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return arrays of a checkpoint with what blocks found last for parts of their right-hand sides
    put together, whoever solved for which.
    """
    parts: dict[str, dict[int, np.ndarray]] = {}
    found = {}
    for name, held in arrays.items():
        part = _OF_PART.fullmatch(name)
        if part is None:
            found[name] = held
        else:
            where, first, what = part.groups()
            parts.setdefault(f"{where}0/{what}", {})[int(first)] = held
    for name, held_by in parts.items():
        found[name] = np.concatenate([held_by[first] for first in sorted(held_by)], axis=-1)
    return found


def changed_by(new: np.ndarray, old: np.ndarray) -> float:
    """Return how far a symmetric positive definite matrix, (n, n), has changed: the Frobenius norm
    of the difference over that of the old one, both with rows and columns over the roots of the
    old one's diagonal.
    """
    root = np.sqrt(np.diag(old))
    if not (root > 0).all():
        return np.inf
    scale = np.outer(root, root)
    return float(np.linalg.norm((new - old) / scale) / np.linalg.norm(old / scale))


@dataclasses.dataclass(frozen=True)
class _Unsolved:
    """A block that arrays do not take: every right-hand side is left as it is."""

    method: str
    why: str
    program_counts: SolveCounts = dataclasses.field(default_factory=SolveCounts)
    seen: np.ndarray | None = None

    def aged(self, seconds: float) -> "_Unsolved":
        return self

    def solve(self, right: np.ndarray) -> Solution:
        zero = ~right.any(axis=0)
        return Solution(
            x=np.zeros_like(right),
            iterations=np.zeros(right.shape[1], np.int64),
            residual=np.where(zero, 0.0, 1.0),
            converged=zero,
            counts=SolveCounts(),
            method=self.method,
            usable=bool(zero.all()),
        )


class BlockState:
    """An SOI block as one chip holds it: its average, its arrays and its solver.

    Parameters
    ----------
    block : FactorBlock
        The block.
    chip : int
        The chip that holds it, for messages.
    engine : Engine
        The arithmetic that solves.
    inversion : Scheme
        The settings that say what happens when a solve diverges.
    optimizer : SecondOrder
        How matrices are averaged, and what the arrays are programmed with.
    right_sides : int
        Right-hand sides that are solved for between two writings, by all chips that hold the block.
    held_rows : HeldRows or None
        The rows that the arrays of a fused block hold; None: arrays hold the product.
    stale : int
        Steps that still solve with the old arrays while new ones are written.
    renewal_change : float
        The least change, as `changed_by` measures it, for which arrays are written anew.
    keep_levels : bool
        Whether cells of residual products that hold their level already are not written.
    """

    def __init__(
        self,
        block: FactorBlock,
        chip: int,
        engine: Engine,
        inversion: Scheme,
        optimizer: SecondOrder,
        right_sides: int = 1,
        held_rows: HeldRows | None = None,
        stale: int = 0,
        renewal_change: float = 0.0,
        keep_levels: bool = False,
    ) -> None:
        self.block = block
        self._keep_levels = keep_levels
        self._held_rows = held_rows
        self._stale, self._renewal_change = stale, renewal_change
        self._right_sides = right_sides
        self._chip = chip
        self._engine = engine
        self._inversion = inversion
        self._optimizer = optimizer
        self._average: FactorAverage | RowAverage | None = None
        self._written: _Written | None = None
        self._next: _Written | None = None
        self._aged: tuple[int, Solver] | None = None
        self._pending = SolveCounts()
        self._last: dict[int, Answered] = {}
        self._saved: Answered | None = None

    @property
    def average(self) -> np.ndarray:
        """The running average, (n, n) float64, without damping; of a fused block, what its arrays
        stand for.

        Raises
        ------
        DataError
            There is none yet.
        """
        if self._average is None:
            raise DataError(f"{self._where()}: no factor came yet")
        if isinstance(self._average, RowAverage):
            return self._as_rows(self._average, 0.0).formed()
        return self._average.matrix

    def add(self, contribution: np.ndarray) -> None:
        """Add a batch to the running average.

        Parameters
        ----------
        contribution : ndarray
            (n, n) factor block of the batch; of a fused block, (R, n) rows whose product it is.
        """
        if not np.isfinite(contribution).all():
            raise DataError(f"{self._where()}: the factor is not finite")
        average = self._average
        if self._held_rows is not None:
            assert not isinstance(average, FactorAverage)
            batches = self._held_rows.batches
            self._average = updated_rows(average, contribution, batches, self._optimizer)
        else:
            assert not isinstance(average, RowAverage)
            self._average = updated_average(average, contribution, self._optimizer)

    @property
    def target_bits(self) -> int:
        """Bits of the residual that solves have to reach as a rule."""
        return self._inversion.target_bits

    def prepare(self, step: int, damping: float, bits: int | None = None) -> None:
        """Program the damped average into arrays; the average itself is not changed. Where there
        are old arrays, they go on for `stale` steps, or until the block has changed enough. Solves
        with the new ones have to reach so many bits, or those of the rule.

        A factor that arrays computed may be off by more than the damping. Where its diagonal is
        then not positive, nothing is programmed, and solves with it count as diverged.
        """
        if self._average is None:
            raise DataError(f"{self._where()}: programmed at step {step} before any factor came")
        self._take_over(step)
        if isinstance(self._average, RowAverage):
            damped: np.ndarray | Rows = self._as_rows(self._average, damping)
        else:
            damped = self._optimizer.block_matrix(self.block.factor, self._average.matrix, damping)
        if self._still_holds(damped):
            return
        old = self._next or self._written
        start = None if old is None else old.solver.seen
        new = self._program(damped, damping, step, start, bits or self.target_bits)
        if self._keep_levels and old is not None:
            self._pending += _kept(new.solver, old.solver)
        if self._stale and self._written is not None:
            self._next = new
        else:
            self._written, self._aged = new, None
            self._last, self._saved = {}, None

    def _still_holds(self, damped: np.ndarray | Rows) -> bool:
        """Return whether the block is as good as what is written."""
        old = None if self._written is None else self._written.damped
        if not self._renewal_change or isinstance(damped, Rows) or not isinstance(old, np.ndarray):
            return False
        entries = len(damped) * (len(damped) + 1) // 2
        self._pending += SolveCounts(
            digital_ops=_CHANGE_OPS * entries, moved=_CHANGE_MOVES * entries
        )
        return changed_by(damped, old) < self._renewal_change

    def _take_over(self, step: int) -> None:
        """Go over to the new arrays once the old ones have served their steps."""
        if self._next is not None and step >= self._next.step + self._stale:
            self._written, self._next, self._aged = self._next, None, None
            self._last, self._saved = {}, None

    def solve(self, step: int, right: np.ndarray, first: int = 0) -> tuple[np.ndarray, SolveReport]:
        """Solve for right-hand sides (n, r); if the solve diverges, apply the chosen policy.

        Parameters
        ----------
        step : int
            The training step.
        right : ndarray
            (n, r) float64.
        first : int
            Number of the first of them among those of all chips that hold the block.

        Raises
        ------
        InversionError
            ``inversion.on_divergence=raise``, or no policy helped.
        """
        self._take_over(step)
        if self._written is None:
            raise DataError(
                f"{self._where()}: solve at step {step} before the block was programmed"
            )
        if not np.isfinite(right).all():
            raise DataError(f"{self._where()}: the gradient at step {step} is not finite")
        held = self._as_held(step, self._written)
        if isinstance(held, BlockSolver):
            # What is known of old answers is what cells held then.
            keeps = not self._engine.schedule.step_s
            last = self._last_of(first, right.shape[1]) if keeps else None
            solution = held.solve(right, last)
            if solution.answered is not None and keeps:
                self._last[first] = solution.answered
        else:
            solution = held.solve(right)
        self._pending += solution.counts
        if solution.usable:
            return solution.x, self._report(step, solution, self._written, "none")
        return self._diverged(step, right, solution, self._written)

    def _last_of(self, first: int, count: int) -> Answered | None:
        """Return what was last found for so many right-hand sides, if it is known."""
        if first in self._last or self._saved is None:
            return self._last.get(first)
        part, saved = slice(first, first + count), self._saved
        x, image = (np.ascontiguousarray(held[:, part]) for held in (saved.x, saved.image))
        return Answered(x, image, saved.drift[part])

    def _as_held(self, step: int, written: "_Written") -> Solver:
        """Return the block as its arrays hold it some steps after they were written."""
        step_s = self._engine.schedule.step_s
        if not step_s or step == written.step:
            return written.solver
        if self._aged is None or self._aged[0] != step:
            self._aged = step, written.solver.aged((step - written.step) * step_s)
        return self._aged[1]

    def take_counts(self) -> SolveCounts:
        """Return the operations that the block's arrays did since the last call."""
        counts, self._pending = self._pending, SolveCounts()
        return counts

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the state of the block as arrays, for a checkpoint."""
        if self._average is None:
            return {}
        arrays = {"updates": np.array(self._average.updates)}
        if isinstance(self._average, RowAverage):
            arrays["rows"] = self._average.rows
            arrays["weights"] = self._average.weights
            arrays["rest"] = np.array([self._average.rest_weight, self._average.rest_trace])
        else:
            arrays["average"] = self._average.matrix
        known = self._last or ({} if self._saved is None else {0: self._saved})
        for first, last in known.items():
            arrays |= {f"last/{first}/{key}": value for key, value in vars(last).items()}
        for name, written in (("written", self._written), ("next", self._next)):
            if written is not None:
                arrays |= {f"{name}/{key}": value for key, value in written.arrays().items()}
        return arrays

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Load what `arrays` returned; the block is programmed again, with the same errors."""
        self._average, self._written, self._next, self._aged = None, None, None, None
        if "average" in arrays:
            self._average = FactorAverage(np.array(arrays["average"]), int(arrays["updates"]))
        if "rows" in arrays:
            rows, weights = np.array(arrays["rows"]), np.array(arrays["weights"])
            weight, trace = np.array(arrays["rest"]).tolist()
            self._average = RowAverage(rows, weights, weight, trace, int(arrays["updates"]))
        self._written = self._programmed_again("written", arrays)
        self._next = self._programmed_again("next", arrays)
        self._pending, self._last = SolveCounts(), {}
        whole = {
            name.rpartition("/")[2]: held
            for name, held in joined(arrays).items()
            if name.startswith("last/")
        }
        self._saved = Answered(**whole) if whole else None

    def _programmed_again(self, name: str, arrays: Mapping[str, np.ndarray]) -> "_Written | None":
        if f"{name}/step" not in arrays:
            return None
        if f"{name}/rows" in arrays:
            rows, added = np.array(arrays[f"{name}/rows"]), float(arrays[f"{name}/added"])
            damped: np.ndarray | Rows = Rows(rows, added)
        else:
            damped = np.array(arrays[f"{name}/damped"])
        start = np.array(arrays[f"{name}/start"]) if f"{name}/start" in arrays else None
        damping, step = float(arrays[f"{name}/damping"]), int(arrays[f"{name}/step"])
        return self._program(damped, damping, step, start, int(arrays[f"{name}/bits"]))

    def _as_rows(self, average: RowAverage, damping: float) -> Rows:
        assert self._held_rows is not None
        return average.operator(damping, self._held_rows.rest)

    def _program(
        self,
        damped: np.ndarray | Rows,
        damping: float,
        step: int,
        start: np.ndarray | None,
        bits: int,
    ) -> "_Written":
        solver = self._solver_of(damped, step, (), self._right_sides, bits, start)
        self._pending += solver.program_counts
        return _Written(damped, damping, step, solver, bits, start)

    def _solver_of(
        self,
        matrix: np.ndarray | Rows,
        step: int,
        more: tuple[int | str, ...],
        right_sides: int,
        bits: int,
        start: np.ndarray | None = None,
    ) -> Solver:
        address = ("soi", When(step), self.block.index, *more)
        try:
            return self._engine.block_solver(matrix, address, right_sides, start, bits)
        except IndefiniteError as error:
            return _Unsolved(self._inversion.name, str(error))
        except (DataError, np.linalg.LinAlgError) as error:
            raise InversionError(
                f"{self._where()}, step {step}: cannot be programmed ({error})"
            ) from error

    def _diverged(
        self, step: int, right: np.ndarray, solution: Solution, written: "_Written"
    ) -> tuple[np.ndarray, SolveReport]:
        policy = self._inversion.on_divergence
        if policy == "raise":
            why = "did not converge"
            if isinstance(written.solver, _Unsolved):
                why = f"was not tried, since {written.solver.why}"
            elif not solution.stable:
                why = "has an unstable array"
            elif solution.saturated:
                why = "drove amplifiers beyond their swing"
            raise InversionError(
                f"{self._where()}, step {step}: {solution.method} {why}, residual "
                f"{solution.residual.max():.2e} after {solution.iterations.max()} iterations "
                f"(target {2.0**-written.bits:.2e}); valid: another inversion.method, more "
                "optimizer.damping, or inversion.on_divergence=damp|fallback|use"
            )
        if policy == "use":
            return self._use(step, solution, written)
        if policy == "damp":
            for attempt in range(self._inversion.damp_tries):
                more = written.damping * self._inversion.damp_factor ** (attempt + 1)
                again = self._solve_damped(step, right, written, more, attempt)
                if again.usable:
                    return again.x, self._report(step, again, written, "damp", solution)
        return self._fall_back(step, right, solution, written)

    def _use(
        self, step: int, solution: Solution, written: "_Written"
    ) -> tuple[np.ndarray, SolveReport]:
        """Use the solution although it missed its target, and report this."""
        if not np.isfinite(solution.x).all():
            raise InversionError(f"{self._where()}, step {step}: the answer is not finite")
        return solution.x, self._report(step, solution, written, "use")

    def _solve_damped(
        self, step: int, right: np.ndarray, written: "_Written", damping: float, attempt: int
    ) -> Solution:
        matrix = _with_more_damping(written.damped, damping - written.damping)
        solver = self._solver_of(matrix, step, ("damp", attempt), right.shape[1], written.bits)
        solution: Solution = solver.solve(right)
        self._pending += solver.program_counts + solution.counts
        return solution

    def _fall_back(
        self, step: int, right: np.ndarray, failed: Solution, written: "_Written"
    ) -> tuple[np.ndarray, SolveReport]:
        """Solve the block in the digital unit by Cholesky; a fused block is formed first.

        A factor that arrays computed may be off by more than the damping, so that the block is not
        positive definite; damping is then added as Levenberg and Marquardt do, until it is.
        """
        n, columns = right.shape
        damped = written.damped
        if isinstance(damped, Rows):
            # Half of the products; in parts of 16 x 16, as a Cholesky's, a word serves 16 of them.
            products = damped.rows.size * (n + 1) // 2
            moved = 2 * products // _WORD_SERVES + n * (n + 1) // 2
            self._pending += SolveCounts(digital_ops=products, moved=moved)
            damped = damped.formed()
        for attempt in range(_MORE_DAMPING_TRIES):
            more = written.damping * (_MORE_DAMPING**attempt - 1.0)
            self._pending += SolveCounts(factorisations=1)
            try:
                factor = scipy.linalg.cho_factor(damped + more * np.eye(n), lower=True)
            except np.linalg.LinAlgError:
                continue
            self._pending += SolveCounts(factored_sides=columns)
            report = self._report(step, failed, written, "fallback")
            return scipy.linalg.cho_solve(factor, right), report
        raise InversionError(
            f"{self._where()}, step {step}: not positive definite with {_MORE_DAMPING:g}^"
            f"{_MORE_DAMPING_TRIES - 1} times its damping of {written.damping:g}; valid: more "
            "optimizer.damping, or engine.factor=float64"
        )

    def _report(
        self,
        step: int,
        solution: Solution,
        written: "_Written",
        action: str,
        failed: Solution | None = None,
    ) -> SolveReport:
        """Return the report of a solve; a policy keeps the residual that made it necessary."""
        shown = solution if failed is None else failed
        return SolveReport(
            step=step,
            block=self.block.index,
            layer=self.block.layer,
            factor=self.block.factor,
            method=solution.method,
            iterations=int(solution.iterations.max(initial=0)),
            mean_iterations=float(solution.iterations.mean()) if solution.iterations.size else 0.0,
            residual=float(shown.residual.max(initial=0.0)),
            target_bits=written.bits,
            converged=bool(shown.converged.all()),
            stable=shown.stable,
            saturated=shown.saturated,
            action=action,
            chip=self._chip,
            right_sides=len(solution.iterations),
        )

    def _where(self) -> str:
        block = self.block
        return (
            f"chip {self._chip}, layer {block.layer_name}, block {block.index} "
            f"(factor {block.factor}, {block.start}:{block.stop})"
        )


@dataclasses.dataclass(frozen=True)
class _Written:
    """What arrays were written with.

    Attributes
    ----------
    damped : ndarray or Rows
        The damped block.
    damping : float
        Its damping.
    step : int
        The step in which it was written.
    solver : Solver
        The arrays.
    bits : int
        Bits of the residual that solves have to reach.
    start : ndarray or None
        What the search for its dominant directions went on with.
    """

    damped: np.ndarray | Rows
    damping: float
    step: int
    solver: Solver
    bits: int
    start: np.ndarray | None = None

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all but the solver as arrays, for a checkpoint."""
        arrays = {"damping": np.array(self.damping), "step": np.array(self.step)}
        arrays["bits"] = np.array(self.bits)
        if self.start is not None:
            arrays["start"] = self.start
        if isinstance(self.damped, Rows):
            return arrays | {"rows": self.damped.rows, "added": np.array(self.damped.damping)}
        return arrays | {"damped": self.damped}


def _kept(new: Solver, old: Solver) -> SolveCounts:
    """Return the cells that hold their level already, and what finding them takes."""
    if not (isinstance(new, BlockSolver) and isinstance(old, BlockSolver)):
        return SolveCounts()
    if not new.scheme.uses_products or len(new.matrix) > 1 or len(old.matrix) > 1:
        return SolveCounts()
    values = new.product.values
    kept = new.product.kept_cells(old.product)
    return SolveCounts(digital_ops=values, moved=_CHANGE_MOVES * values, kept_cells=kept)


def _with_more_damping(damped: np.ndarray | Rows, more: float) -> np.ndarray | Rows:
    if isinstance(damped, Rows):
        return Rows(damped.rows, damped.damping + more)
    matrix: np.ndarray = damped + more * np.eye(len(damped))
    return matrix
