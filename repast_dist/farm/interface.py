"""Protocols of the farm and of its workers, the same in one process and on Ray."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Concatenate, Protocol

import numpy as np

from repast_dist.farm.peers import Peers
from repast_dist.farm.records import WorkerAnswer
from repast_dist.farm.setup import FarmSetup
from repast_dist.training.network import Evaluation


class Worker(Protocol):
    """The methods of a worker, which holds some chips, that the coordinator may call."""

    def reassign(self, setup: FarmSetup) -> None:
        """Take another plan; this discards all state, so `restore` must follow."""

    def kernels(self) -> str:
        """Return the name of what its products are computed with."""

    def advance(self, first: int, count: int) -> WorkerAnswer:
        """Do training steps together with all other workers."""

    def evaluate(self, chunks: Sequence[int], size: int) -> dict[int, Evaluation]:
        """Evaluate the weights on some chunks of the test set, of `size` samples each."""

    def common_state(self) -> dict[str, np.ndarray]:
        """Return the arrays that are the same on all workers, by name."""

    def block_state(self) -> dict[str, np.ndarray]:
        """Return the arrays of the blocks that this worker's chips hold, by name."""

    def restore(self, step: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Load the states of all workers, to continue at a step."""


WorkerFactory = Callable[[tuple[int, ...], FarmSetup, Peers], Worker]
"""Makes a worker of its chips, what all workers share, and its connections to the others."""


@dataclasses.dataclass(frozen=True)
class Answer[Result]:
    """An answer that may still be computed; `Farm.get` waits for it.

    Attributes
    ----------
    pending : object
        The handle by which the farm that made the answer finds it.
    """

    pending: object


class Farm(Protocol):
    """A set of workers that hold simulated chips and execute calls in the order they were made."""

    @property
    def workers(self) -> dict[int, tuple[int, ...]]:
        """Live worker number -> the chips it holds."""

    @property
    def ahead(self) -> int:
        """How many further calls to queue while one call is being answered.

        They keep workers busy; 0 where workers compute only while the coordinator waits.
        """

    def put[Value](self, value: Value) -> Value:
        """Return a stand-in for a value, to be passed to calls of any worker; it is moved once."""

    def call[**Arguments, Result](
        self,
        worker: int,
        method: Callable[Concatenate[Worker, Arguments], Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Answer[Result]:
        """Ask a worker to run a method of `Worker`, without waiting for the answer."""

    def get[Result](self, answers: Sequence[Answer[Result]]) -> list[Result]:
        """Wait for answers and return the results in the same order.

        Raises
        ------
        WorkersLost
            Workers died or did not answer in time, or lost each other.
        RepastError
            What a worker's method raised on purpose.
        """

    def revive(self, workers: Sequence[int]) -> None:
        """Start lost workers anew, without state, and connect all workers again."""

    def retire(self, workers: Sequence[int]) -> None:
        """Remove workers for good; `revive` connects the others again."""

    def publish(self, values: Mapping[str, float]) -> None:
        """Publish figures of the running training, for example as metrics of the cluster."""

    def close(self) -> None:
        """End all workers."""
