"""Flexible conjugate gradients, with or without an array as the preconditioner."""

import numpy as np

from repast_dist.analog.kernels.columns import add_scaled, dots, largest, norms
from repast_dist.analog.schemes.base import IterativeScheme
from repast_dist.analog.schemes.watch import SAFETY, Watch
from repast_dist.analog.solution import Answered
from repast_dist.analog.solver import DOT_MOVES, NORM_MOVES, UPDATE_MOVES, Run
from repast_dist.ground.spec import spec

_REFRESH_ROUNDS = 16
_DRIFT = 2.0**-6
"""Of the target: accumulated rounding that can be neglected on the way."""

_TRUE_DRIFT = 0.25
"""Of what roundings add up to at most, that they do add up to: a fifth on factors of networks."""

_FEWEST_BITS = 3
"""Of the inputs of a product, sign included."""

_GRADIENT_OPS = 10
"""Digital operations per element and round of conjugate gradients with one direction kept: four
inner products or norms, three updates, scaling and conversion.
"""

_DIRECTION_OPS = 2
"""Of every further direction: an inner product and an update."""

_GRADIENT_MOVES = 2 * DOT_MOVES + 2 * UPDATE_MOVES
"""Numbers per element and round that two inner products and the updates of answer and residual
move; the norm of the residual is counted where it is computed.
"""

_BEGIN_OPS = 6
"""Digital operations per row of a right-hand side of beginning with an old answer: two inner
products, two updates, a norm, and the image of the new answer.
"""

_BEGIN_MOVES = 2 * DOT_MOVES + 3 * UPDATE_MOVES + NORM_MOVES
"""Numbers per row that these move."""

_DIRECTION_MOVES = DOT_MOVES + UPDATE_MOVES
"""Of every direction that is kept, of which both vectors stay in buffers."""


@spec
class ConjugateScheme(IterativeScheme):
    """A scheme of conjugate directions.

    Attributes
    ----------
    relaxed_products : bool
        Whether the inputs of a product have as many bits fewer as the residual has shrunk by: what
        their rounding adds to the residual is then no more than in the first round (Simoncini and
        Szyld, SIAM J. Sci. Comput. 2003).
    warm_start : bool
        Whether a right-hand side begins with the multiple of its last answer that leaves the least
        residual, until the block is written anew. What the block makes of an answer is known from
        the residual it left, so that no product is taken.
    """

    relaxed_products: bool = False
    warm_start: bool = False

    @property
    def beginning(self) -> tuple[int, int]:
        """Digital operations per row of a right-hand side before its first round and after its
        last, and the numbers that these move.
        """
        return (_BEGIN_OPS, _BEGIN_MOVES) if self.warm_start else (0, 0)

    def spared_passes(self, rounds: np.ndarray) -> np.ndarray:
        """Return none, or those of residuals that shrink evenly to the target, of inputs that enter
        bit by bit.
        """
        if not self.relaxed_products:
            return super().spared_passes(rounds)
        most = self.product_bits - _FEWEST_BITS
        return np.array(
            [
                sum(min(self.target_bits * k // count, most) for k in range(count))
                for count in rounds.tolist()
            ],
            np.int64,
        )


def conjugate_gradients(run: Run, scheme: ConjugateScheme, window: int, patience: int) -> None:
    """Run flexible conjugate gradients (Notay, SIAM J. Sci. Comput. 2000).

    The array is not symmetric and changes from round to round by its rounding, so each direction
    is made conjugate to a few before it explicitly.

    Parameters
    ----------
    run : Run
        The solve.
    scheme : ConjugateScheme
        Target, rounds at most, and bits of products.
    window : int
        Directions that a new one is made conjugate to.
    patience : int
        Rounds without a smaller residual after which a right-hand side is given up: conjugate
        gradients promise smaller errors, not smaller residuals, from round to round.
    """
    tolerance = scheme.tolerance
    watch = Watch(run, tolerance, patience)
    active = np.flatnonzero(run.norm > 0)
    residual = np.take(run.b, active, axis=1)
    # The norm of what roundings add to the residual, for one unit of the answer: entries of S are
    # at most one, and those of a product have n independent roundings.
    product = run.solver.product
    unit = run.solver.size * 2.0 ** (1 - product.bits) / run.solver.scaling.min()
    drift = np.zeros(active.size)
    relative = np.ones(active.size)
    left = _Left(run) if scheme.warm_start else None
    if left is not None:
        relative, drift = left.begin(active, residual)
        going = (relative > tolerance * SAFETY) | (relative + _TRUE_DRIFT * drift > tolerance)
        left.put(active[~going], residual[:, ~going], drift[~going])
        active, drift, relative = active[going], drift[going], relative[going]
        residual = np.compress(going, residual, axis=1)
    kept: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for count in range(1, scheme.max_iterations + 1):
        if not active.size:
            break
        direction = np.array(run.invert(residual), order="C")
        for old, image, curvature in kept:
            add_scaled(direction, old, -dots(direction, image) / curvature)
        bits = _relaxed(relative, product.bits) if scheme.relaxed_products else None
        image = run.product(direction, bits)
        curvature = dots(direction, image)
        usable = np.isfinite(curvature) & (curvature > 0)
        step = np.where(usable, dots(direction, residual) / np.where(usable, curvature, 1.0), 0.0)
        if active.size == run.x.shape[1]:
            add_scaled(run.x, direction, step)
        else:
            run.x[:, active] += direction * step
        run.iterations[active] += 1
        run.digital_ops += (_GRADIENT_OPS + _DIRECTION_OPS * max(len(kept) - 1, 0)) * residual.size
        run.moved += (_GRADIENT_MOVES + _DIRECTION_MOVES * len(kept)) * residual.size
        add_scaled(residual, image, -step)
        relative = run.relative(residual, active)
        # What the recurrence says is checked where roundings of the products may have added up:
        # before it is believed, unless it is within the target with all that they add, and from
        # time to time.
        added = unit if bits is None else unit * 2.0 ** (product.bits - bits)
        drift = drift + np.abs(step) * largest(direction) * added / run.norm[active]
        believed = relative <= tolerance * SAFETY
        sure = believed & (relative + _TRUE_DRIFT * drift <= tolerance)
        due = (believed & ~sure) | (count % _REFRESH_ROUNDS == 0)
        doubtful = due & (drift > _DRIFT * tolerance)
        if doubtful.any():
            residual[:, doubtful] = run.residual(active[doubtful])
            run.refreshes += int(doubtful.sum())
            relative[doubtful] = run.relative(residual[:, doubtful], active[doubtful])
            drift[doubtful] = 0.0
        kept = [*kept, (direction, image, curvature)][-window:]
        keep = watch.keep(relative, active) & usable
        if not keep.all():
            if left is not None:
                left.put(active[~keep], residual[:, ~keep], drift[~keep])
            active, drift, relative = active[keep], drift[keep], relative[keep]
            residual = np.compress(keep, residual, axis=1)
            kept = [
                (np.compress(keep, old, axis=1), np.compress(keep, image, axis=1), c[keep])
                for old, image, c in kept
            ]
    if left is not None:
        left.put(active, residual, drift)
        left.leave()


class _Left:
    """What right-hand sides are left with at their end, and how they begin with that.

    Parameters
    ----------
    run : Run
        The solve.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._residual, self._drift = run.b.copy(), np.zeros(run.b.shape[1])
        run.digital_ops += _BEGIN_OPS * run.b.size
        run.moved += _BEGIN_MOVES * run.b.size

    def begin(self, active: np.ndarray, residual: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Take the best multiples of the last answers from residuals, in place; return the relative
        residuals, and the relative drift.
        """
        run, last = self._run, self._run.last
        if last is None:
            return np.ones(active.size), np.zeros(active.size)
        image = np.take(last.image, active, axis=1)
        squares = dots(image, image)
        known = squares > 0
        factor = np.where(known, dots(image, residual) / np.where(known, squares, 1.0), 0.0)
        add_scaled(residual, image, -factor)
        run.x[:, active] = factor * last.x[:, active]
        relative = norms(residual, run.solver.scaling) / run.norm[active]
        return relative, np.abs(factor) * last.drift[active] / run.norm[active]

    def put(self, columns: np.ndarray, residual: np.ndarray, drift: np.ndarray) -> None:
        """Note what some right-hand sides are left with."""
        self._residual[:, columns] = residual
        self._drift[columns] = drift * self._run.norm[columns]

    def leave(self) -> None:
        """Leave answers and their images to the next solve; of one that is not finite nothing."""
        run = self._run
        image = run.b - self._residual
        good = np.isfinite(image).all(axis=0) & np.isfinite(run.x).all(axis=0)
        good &= np.isfinite(self._drift)
        run.answered = Answered(
            np.where(good, run.x, 0.0), np.where(good, image, 0.0), np.where(good, self._drift, 0.0)
        )


def _relaxed(relative: np.ndarray, bits: int) -> np.ndarray:
    """Return the bits of inputs at relative residuals, (r,) int64."""
    shrunk = np.floor(-np.log2(np.clip(relative, 2.0**-bits, 1.0))).astype(np.int64)
    return np.maximum(bits - shrunk, _FEWEST_BITS)


def gradient_ops(rounds: np.ndarray, window: int) -> np.ndarray:
    """Return the digital operations per row that one right-hand side takes in so many rounds.

    Round k is made conjugate to the k - 1 before it, at most to `window`; the first of these is
    part of every round.
    """
    # Rounds in which the window is not full yet: 0 + 1 + 2 + ... further directions.
    filling = np.minimum(np.maximum(rounds - 1, 0), window)
    further = filling * np.maximum(filling - 1, 0) // 2
    further = further + np.maximum(rounds - 1 - window, 0) * (window - 1)
    ops: np.ndarray = _GRADIENT_OPS * rounds + _DIRECTION_OPS * further
    return ops


def gradient_moves(rounds: np.ndarray, window: int) -> np.ndarray:
    """Return the numbers per row that these operations move, the norms of residuals included."""
    filling = np.minimum(np.maximum(rounds - 1, 0), window)
    kept = filling * (filling + 1) // 2 + np.maximum(rounds - 1 - window, 0) * window
    moves: np.ndarray = (_GRADIENT_MOVES + NORM_MOVES) * rounds + _DIRECTION_MOVES * kept
    return moves
