"""What the coordinator needs of a farm; one code path for in-process and Ray runs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from repast_dist.farm.peers import Peers

Ref = Any
"""An answer that may still be computed; `Farm.get` waits for it."""

WorkerFactory = Callable[[tuple[int, ...], Any, Peers], Any]
"""(chips of the worker, what all workers share, the other workers) -> a plain object whose methods
a farm calls."""


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

    def put(self, value: Any) -> Any:
        """Make a value available to all workers as an argument of calls, moved once."""

    def call(self, worker: int, method: str, *args: Any) -> Ref:
        """Ask a worker to run one of its methods; does not wait."""

    def get(self, refs: Sequence[Ref]) -> list[Any]:
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
