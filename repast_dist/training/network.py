"""What training asks of a network, whatever computes it, and the sums that it gets.

The NumPy engine's networks (`training.layered`) and PyTorch modules (`repast_dist.torch.farm`)
are networks in this sense. Everything that travels or is reduced is an array with two dimensions:
the weights (in[+1], out) of a product with its bias as the last row, or any other numbers.
"""

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np

from repast_dist.network.node import Trainable
from repast_dist.network.shapes import Workload
from repast_dist.training.datasets import Dataset
from repast_dist.training.engines import Engine
from repast_dist.training.optimizers import Fisher, SecondOrder, Side

Values = Mapping[str, np.ndarray]
"""Name -> array of two dimensions: all trained numbers and all running values of a network."""

FactorKey = tuple[str, Side]
FactorBlocks = Mapping[FactorKey, Sequence[tuple[int, int]]]
"""Factor -> (start, stop) of its diagonal blocks."""


@dataclasses.dataclass(frozen=True)
class MicroBatch:
    """Samples that are run together.

    Attributes
    ----------
    number : int
        Number of the micro-batch in its step; addresses what is programmed for it.
    inputs, labels : ndarray
        Samples, (N, ...) each.
    samples : ndarray
        (N,) int64, their numbers in the data set; address what is drawn for each of them.
    """

    number: int
    inputs: np.ndarray
    labels: np.ndarray
    samples: np.ndarray

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Inputs, labels and numbers."""
        return self.inputs, self.labels, self.samples


@dataclasses.dataclass(frozen=True)
class FactorsAsked:
    """What micro-batches leave for the factors of a second-order optimizer.

    Attributes
    ----------
    optimizer : SecondOrder
        Whose statistics are computed.
    blocks : mapping or None
        Factor -> ranges of its diagonal blocks; only these are computed, the rest is 0. Factors
        without any are left out. None: whole factors.
    unformed : collection of FactorKey
        Factors whose rows are returned.
    positions : float
        Share of the input vectors of layers with several per sample, and of their errors, that
        form factors; 1 unless the network is `layered`.
    """

    optimizer: SecondOrder
    blocks: FactorBlocks | None = None
    unformed: Collection[FactorKey] = ()
    positions: float = 1.0


@dataclasses.dataclass(frozen=True)
class MicroBatchResult:
    """The sums that one micro-batch contributes to its batch.

    Attributes
    ----------
    samples : int
        Samples in it.
    loss_sum : float
        Sum of the losses.
    correct : float
        Samples classified right, of sequences the share of their tokens; 0 for reconstruction.
    squared_error : float
        Sum of squared reconstruction errors; 0 for classification.
    gradients : dict
        Name -> (in[+1], out) float64 sum of the gradients of the samples' losses. Of a running
        value: what it would become after this micro-batch alone, times the samples.
    factors : dict
        (name, "A" or "G") -> (n, n) float64; the batch's factor is the sum of these over
        micro-batches, divided by the samples of the batch. Empty if no factors were asked for.
    rows : dict
        (name, "A" or "G") -> (R, n) float64, what a factor is the product of; only of factors whose
        rows were asked for.
    """

    samples: int
    loss_sum: float
    correct: float
    squared_error: float
    gradients: dict[str, np.ndarray]
    factors: dict[FactorKey, np.ndarray]
    rows: dict[FactorKey, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The sums of losses and hits over evaluated samples.

    Attributes
    ----------
    samples : int
        Number of samples.
    correct : float
        Of those, how many are classified right; of sequences the share of their tokens.
    loss_sum, squared_error : float
        Sums of losses and of squared reconstruction errors.
    """

    samples: int = 0
    loss_sum: float = 0.0
    correct: float = 0
    squared_error: float = 0.0

    def __add__(self, other: "Evaluation") -> "Evaluation":
        return Evaluation(
            self.samples + other.samples,
            self.loss_sum + other.loss_sum,
            self.correct + other.correct,
            self.squared_error + other.squared_error,
        )


class LoadedNetwork(Protocol):
    """A network whose weights are loaded for one step, for any number of micro-batches.

    It may be used until the network is loaded again.
    """

    def at_once(self, samples: int) -> int:
        """Return how many micro-batches of so many samples are run together at most."""

    def run_micro_batches(
        self,
        batches: Sequence[MicroBatch],
        asked: FactorsAsked | None = None,
    ) -> list[MicroBatchResult]:
        """Return the loss, the gradients and, if asked for, the factors of every micro-batch, with
        the same bits in whatever company.

        Parameters
        ----------
        batches : sequence of MicroBatch
            Of equal size; they should be no more than `at_once`.
        asked : FactorsAsked or None
            The factors; None: none.

        Raises
        ------
        DataError
            The loss is not finite: training diverged.
        """

    def evaluate(self, inputs: np.ndarray, labels: np.ndarray) -> Evaluation:
        """Return the sums of loss and hits over samples."""


class PartRun(Protocol):
    """A micro-batch on its way through successive layers of a network."""

    def forward(self, inputs: np.ndarray) -> np.ndarray:
        """Return what the last layer makes of the inputs of the first, (N, ...) each."""

    def errors(self, inputs: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
        """Return what `backward` is called with in the last layers, given inputs and labels of the
        whole network: the errors at its outputs, of every backward pass.

        Raises
        ------
        DataError
            The loss is not finite: training diverged.
        """

    def backward(self, errors: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Go back with the errors of every pass; return those at the inputs of the first layer."""

    def result(self) -> MicroBatchResult:
        """Return what the micro-batch contributes, of these layers; the loss is 0 but of the last
        ones.
        """


class LoadedPart(Protocol):
    """Successive layers of a network whose weights are loaded for one step."""

    def begin(
        self,
        samples: np.ndarray,
        micro_batch: int,
        asked: FactorsAsked | None = None,
    ) -> PartRun:
        """Return a micro-batch that is about to enter.

        Parameters
        ----------
        samples, micro_batch
            See `MicroBatch`.
        asked : FactorsAsked or None
            The factors of these layers that it leaves; None: none.
        """


class Part(Protocol):
    """Successive layers of a network, which one chip holds."""

    @property
    def parameters(self) -> Sequence[Trainable]:
        """What of them is trained, in order of use."""

    @property
    def running(self) -> Collection[str]:
        """Names of the network's running values that are theirs."""

    def load(self, values: Values, engine: Engine, step: int) -> LoadedPart:
        """Load their weights into the arithmetic of a step."""


class Network(Protocol):
    """A network that can be trained; the same object in every process, without any state."""

    @property
    def name(self) -> str:
        """Its name in reports."""

    @property
    def parameters(self) -> Sequence[Trainable]:
        """Everything that is trained, in order of use."""

    @property
    def running(self) -> Mapping[str, tuple[int, int]]:
        """Name -> shape of the numbers that training changes otherwise, such as running means: a
        step leaves the mean over its micro-batches.
        """

    @property
    def layered(self) -> bool:
        """Whether it consists of the package's own layers, which can write the input vectors that
        form factors before the others, and compute a loss again as in training.
        """

    @property
    def undivided(self) -> str:
        """Why its workload has no cuts; empty: it has some."""

    @property
    def workload(self) -> Workload:
        """Rows of what it computes; a preconditioned product has the name of its parameter."""

    def initial(self) -> dict[str, np.ndarray]:
        """Return fresh values, name -> array in the precision in which it is kept."""

    def fisher_passes(self, fisher: Fisher) -> int:
        """Return the number of backward passes for the Fisher matrix beside that of the loss.

        None for the empirical Fisher, which reuses the loss's own; one for the sampled; one per
        output for the exact.
        """

    def check(self, data: Dataset) -> None:
        """Check that it can learn a data set.

        Raises
        ------
        SettingsError
            It cannot; the message names the setting and what would be valid.
        """

    def load(
        self, values: Values, engine: Engine, step: int, with_backward: bool = True
    ) -> LoadedNetwork:
        """Load all weights into the arithmetic of a step; `evaluate` needs no `with_backward`."""

    def part(self, first: int, last: int) -> Part:
        """Return the layers that have the rows ``first:last`` of the workload; both are among its
        `cuts`, or its ends.
        """

    def to_state(self, values: Values) -> dict[str, np.ndarray]:
        """Return values under the names and in the shapes in which a checkpoint holds them."""

    def from_state(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the values in a checkpoint's arrays; arrays of other names are ignored."""


@dataclasses.dataclass(frozen=True)
class PreconditioningRow:
    """How one parameter is treated by K-FAC, and why."""

    name: str
    kind: str
    shape: tuple[int, int]
    positions: int
    preconditioned: bool
    reason: str


def preconditioning_table(parameters: Iterable[Trainable]) -> list[PreconditioningRow]:
    """Return one row per parameter, in their order."""
    return [
        PreconditioningRow(
            p.name, p.kind, (p.rows, p.columns), p.positions, p.preconditioned, _reason(p)
        )
        for p in parameters
    ]


def _reason(parameter: Trainable) -> str:
    if not parameter.preconditioned:
        return parameter.without_factors
    if parameter.positions > 1:
        return f"K-FAC-{parameter.sharing} over {parameter.positions} positions"
    return "K-FAC"
