"""An optimizer has settings, may ask for statistics and solves, and updates the weights.

State is a flat dict of arrays ("momentum/conv1"), so a checkpoint needs no pickle.
"""

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal, Protocol

import numpy as np
from annotated_types import Gt

from repast_dist.ground.numbers import Count, NonNegative, Rate
from repast_dist.ground.registry import Registry
from repast_dist.ground.spec import spec
from repast_dist.training.kfac import damped_block
from repast_dist.training.optimizers.matrix_unit import MatrixMethod

_VERY_MANY = 10**12
"""Updates, of a training that lasts for ever."""

Arrays = dict[str, np.ndarray]
Fisher = Literal["sampled", "exact", "empirical"]
Side = Literal["A", "G"]
"""Side of a gradient (in[+1], out): A multiplies it from the left (n = in[+1]), G from the right
(n = out). A block of A solves columns of the gradient, a block of G columns of its transpose."""


@dataclasses.dataclass(frozen=True)
class Update:
    """The values that an optimizer gets when it updates the weights.

    Attributes
    ----------
    weights : mapping
        Name -> (in[+1], out) float32.
    gradients : mapping
        Name -> gradient of the mean loss, float64; of preconditioned layers only if the
        optimizer's `needs_gradients` says so.
    directions : mapping
        Name -> solved gradient of every preconditioned layer; empty for first-order methods.
    state : mapping
        From `Optimizer.initial_state` or the last update.
    step, total_steps : int
        Step, counted from 0, and how many there will be.
    biased : frozenset of str
        Weights whose last row is a bias, which does not decay.
    """

    weights: Mapping[str, np.ndarray]
    gradients: Mapping[str, np.ndarray]
    directions: Mapping[str, np.ndarray]
    state: Mapping[str, np.ndarray]
    step: int
    total_steps: int
    biased: frozenset[str]


@spec
class Optimizer(abc.ABC):
    """The base class of all methods that update weights.

    A member adds a tag field ``method: Literal["my_name"] = "my_name"`` and its own settings, and
    defines `initial_state` and `update`. All workers call `update` with the same numbers and must
    get the same numbers: no randomness, no state outside of the arrays. A method that solves with
    matrices made of the training's statistics derives from `SecondOrder`.

    Attributes
    ----------
    learning_rate : float
        Of the first step after the warm-up.
    schedule : {"constant", "linear", "cosine"}
        Course of the learning rate down to ``final_rate`` times its value.
    final_rate : float
        Share of the learning rate that is left at the last step.
    warmup_steps : int
        Steps over which the rate rises linearly.
    weight_decay : float
        Added to the (preconditioned) direction as ``weight_decay * w``; biases are left out.
    """

    title: ClassVar[str] = ""
    """Name of the method in reports; empty: the class's name."""

    update_operations: ClassVar[int] = 3
    """Digital operations of an update per parameter, a product and a sum counted as one; those of
    `heavy_ball` as a rule: decay, momentum and step."""

    learning_rate: Annotated[float, Gt(0)] = 0.1
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    final_rate: Rate = 0.0
    warmup_steps: Count = 0
    weight_decay: NonNegative = 0.0

    @property
    def second_order(self) -> "SecondOrder | None":
        """The optimizer itself if it is a second-order method, otherwise None."""
        return None

    @property
    def matrices(self) -> MatrixMethod | None:
        """What updates whole matrices on chips of their own; None: nothing does."""
        return None

    @abc.abstractmethod
    def initial_state(self, weights: Mapping[str, np.ndarray]) -> Arrays:
        """Return the state before the first step, as arrays by name."""

    @abc.abstractmethod
    def update(self, given: Update) -> tuple[Arrays, Arrays]:
        """Return the new weights (float32) and the new state without changing the old ones."""

    def learning_rate_at(self, step: int, total_steps: int) -> float:
        """Return the learning rate of a step, counted from 0.

        The rate rises linearly over ``warmup_steps``, then goes from ``learning_rate`` to
        ``final_rate`` times it along the schedule.
        """
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / (self.warmup_steps + 1)
        if self.schedule == "constant":
            return self.learning_rate
        span = max(total_steps - 1 - self.warmup_steps, 1)
        done = min((step - self.warmup_steps) / span, 1.0)
        left = 1.0 - done if self.schedule == "linear" else 0.5 * (1.0 + np.cos(np.pi * done))
        return float(self.learning_rate * (self.final_rate + (1.0 - self.final_rate) * left))

    def decay(self, weights: np.ndarray, bias: bool) -> np.ndarray:
        """Return the term that weight decay adds to the direction of a layer, float64."""
        decay = self.weight_decay * weights.astype(np.float64)
        if bias:
            decay[-1] = 0.0
        return decay

    @property
    def name(self) -> str:
        """The name of the method in reports."""
        return self.title or type(self).__name__


class LayerStatistics(Protocol):
    """The statistics of a preconditioned layer for one micro-batch, computed by the engine."""

    @property
    def gradient(self) -> np.ndarray:
        """The sum of the gradients of the samples' losses, (in[+1], out) float64."""

    @property
    def samples(self) -> int:
        """The number of samples in the micro-batch."""

    def input_moment(self) -> np.ndarray:
        """Return the sum over samples of a a^T, (in[+1], in[+1]); see `training.kfac`."""

    def error_moment(self) -> np.ndarray:
        """Return the sum over samples of g g^T, (out, out), of the Fisher's output gradients."""

    def moment(self, side: Side, rows: np.ndarray) -> np.ndarray:
        """Return ``rows^T rows``, (n, n), of any (R, n) matrix."""


class LayerRows(Protocol):
    """The rows of a layer and a micro-batch that its statistics are products of."""

    def input_rows(self) -> np.ndarray:
        """Return the (R, in[+1]) rows that `LayerStatistics.input_moment` is the product of."""

    def error_rows(self) -> np.ndarray:
        """Return the (R, out) rows that `LayerStatistics.error_moment` is the product of."""


@spec
class SecondOrder(Optimizer):
    """An optimizer that preconditions gradients with inverses of damped matrices.

    For every preconditioned layer and side, `statistic` makes a symmetric matrix of each
    micro-batch. These are summed over the batch in one fixed order and divided by its samples.
    The chip that holds an SOI block averages it over steps (`average_weights`), damps it
    (`block_matrix`, `dampings`) and programs it into its arrays. The direction of a layer is
    ``A^-1 dW G^-1``; a side that the method does not have is the identity. A method that has
    `matrices`, too, solves for these alone, and updates what was solved. A method whose matrices
    are products of rows may say so (`fusible`, `statistic_rows`): arrays can then hold the rows.

    Attributes
    ----------
    damping : float
        lambda, added to the diagonals.
    """

    damps_blocks: ClassVar[bool] = False
    """Whether `dampings` is asked for every block by itself, as if it were a whole matrix."""

    damping: Annotated[float, Gt(0)] = 0.1

    @property
    def second_order(self) -> "SecondOrder":
        """The optimizer itself."""
        return self

    @property
    def fusible(self) -> bool:
        """Whether every matrix is a product of `statistic_rows`, and a block its damped average."""
        return False

    @property
    def sides(self) -> tuple[Side, ...]:
        """The sides of a layer for which the method has a matrix, A or G or both."""
        return ("A", "G")

    @property
    def output_gradients(self) -> Fisher:
        """The kind of output gradients from which `LayerStatistics.error_moment` is formed."""
        return "empirical"

    @property
    def needs_gradients(self) -> bool:
        """Whether `update` reads the gradients of layers that have a direction."""
        return False

    @property
    def damping_every(self) -> int:
        """Steps between changes of the damping; 0: it stays as it is. `update` then leaves the
        change of the loss that its model predicts in the state ``predicted/loss``, (1, 1).
        """
        return 0

    @property
    def damping_change(self) -> float:
        """The factor by which the damping changes then, or its inverse."""
        return 1.0

    @property
    def clips(self) -> bool:
        """Whether `update` scales the directions by a norm of all layers, which is priced."""
        return False

    @abc.abstractmethod
    def statistic(self, side: Side, layer: LayerStatistics) -> np.ndarray:
        """Return the symmetric matrix of a side, (n, n) float64, summed over a micro-batch."""

    def statistic_rows(self, side: Side, layer: LayerRows) -> np.ndarray:
        """Return the (R, n) rows that `statistic` is the product of, of a method that is `fusible`:
        those of the inputs or those of the errors of a layer.
        """
        return layer.input_rows() if side == "A" else layer.error_rows()

    @property
    def lasting_decay(self) -> float:
        """Weight of the old average in an update after very many."""
        return self.average_weights(_VERY_MANY)[0]

    @property
    def first_diagonal(self) -> float:
        """What averages begin with, times the identity; `average_weights` says how much of it is
        left.
        """
        return 0.0

    def average_weights(self, update: int) -> tuple[float, float]:
        """Return the weights of the old average and of the new matrix in update 1, 2, ..."""
        return 1.0 - 1.0 / update, 1.0 / update

    def dampings(self, sizes: Mapping[Side, tuple[float, int]]) -> dict[Side, float]:
        """Return the damping that is added to the diagonals of a layer's matrices.

        Parameters
        ----------
        sizes : mapping
            Side -> trace and width of its whole averaged matrix, or of one block, without damping.
        """
        return dict.fromkeys(sizes, self.damping)

    def block_matrix(self, side: Side, average: np.ndarray, damping: float) -> np.ndarray:
        """Return the symmetric (n, n) matrix that is programmed into the arrays of a block."""
        return damped_block(average, 0, len(average), damping)


OPTIMIZERS: Registry[Optimizer] = Registry(
    "optimizer",
    Optimizer,  # type: ignore[type-abstract]
    tag="method",
    home="repast_dist.training.optimizers",
    default="kfac",
)


def zeros(weights: Mapping[str, np.ndarray], kinds: Sequence[str]) -> Arrays:
    """Return arrays of zeros shaped like the weights, named ``kind/name``."""
    return {f"{kind}/{name}": np.zeros_like(w) for kind in kinds for name, w in weights.items()}


def heavy_ball(
    optimizer: Optimizer, momentum: float, given: Update, directions: Mapping[str, np.ndarray]
) -> tuple[Arrays, Arrays]:
    """Take a step with momentum along (in[+1], out) directions; return weights and state, both in
    the precision of the weights.
    """
    rate = optimizer.learning_rate_at(given.step, given.total_steps)
    weights: Arrays = {}
    state: Arrays = {}
    for name, old in given.weights.items():
        direction = directions[name] + optimizer.decay(old, name in given.biased)
        direction = momentum * given.state[f"momentum/{name}"].astype(np.float64) + direction
        weights[name] = (old - rate * direction).astype(old.dtype)
        state[f"momentum/{name}"] = direction.astype(old.dtype)
    return weights, state
