"""What coordinator, farm and workers ask of each other, in one process or on Ray."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Concatenate, Protocol

import numpy as np

from repast_dist.farm.peers import Peers
from repast_dist.farm.records import WorkerAnswer
from repast_dist.farm.setup import FarmSetup
from repast_dist.training.step import Evaluation


class Worker(Protocol):
    """Some chips of the farm: what the coordinator may ask of them."""

    def reassign(self, setup: FarmSetup) -> None:
        """Take another plan; all state is gone until `restore`."""

    def advance(self, first: int, count: int) -> WorkerAnswer:
        """Do steps, together with all other workers."""

    def evaluate(self, chunks: Sequence[int], size: int) -> dict[int, Evaluation]:
        """Test the weights on some chunks of the test set; `size` samples each."""

    def common_state(self) -> dict[str, np.ndarray]:
        """Return the arrays that all workers have alike, by name."""

    def block_state(self) -> dict[str, np.ndarray]:
        """Return the arrays of the blocks that this worker's chips hold, by name."""

    def restore(self, step: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Go on at a step from the states of all workers."""


WorkerFactory = Callable[[tuple[int, ...], FarmSetup, Peers], Worker]
"""Makes a worker of its chips, what all workers share, and its connections to the others."""


@dataclasses.dataclass(frozen=True)
class Answer[Result]:
    """An answer that may still be computed; `Farm.get` waits for it.

    Attributes
    ----------
    pending : object
        What the farm that made it knows it by.
    """

    pending: object


class Farm(Protocol):
    """Workers that hold simulated chips and do what the coordinator asks, in the order asked."""

    @property
    def workers(self) -> dict[int, tuple[int, ...]]:
        """Live worker number -> the chips it holds."""

    @property
    def ahead(self) -> int:
        """How many calls to have waiting behind the one whose answer is waited for, so that no
        worker is ever idle; 0 where nothing is done meanwhile.
        """

    def put[Value](self, value: Value) -> Value:
        """Return what stands for a value as an argument of calls to any worker; moved once."""

    def call[**Arguments, Result](
        self,
        worker: int,
        method: Callable[Concatenate[Worker, Arguments], Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Answer[Result]:
        """Ask a worker to run a method of `Worker`; does not wait."""

    def get[Result](self, answers: Sequence[Answer[Result]]) -> list[Result]:
        """Wait for answers.

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
        """Give up workers for good; `revive` connects the others again."""

    def publish(self, values: Mapping[str, float]) -> None:
        """Show how the run is doing to whoever watches the farm."""

    def close(self) -> None:
        """End all workers."""
