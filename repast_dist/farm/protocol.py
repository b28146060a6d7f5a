"""What the coordinator needs of a farm; one code path for in-process and Ray runs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from repast_dist.farm.peers import Peers

Ref = Any
"""An answer that may still be computed; `Farm.get` waits for it."""

HostFactory = Callable[[tuple[int, ...], Any, Peers], Any]
"""(chips of the host, what all hosts share, the other hosts) -> a plain object whose methods a
farm calls."""


class Farm(Protocol):
    """Hosts that hold simulated chips and do what the coordinator asks, in the order asked."""

    @property
    def hosts(self) -> dict[int, tuple[int, ...]]:
        """Live host number -> the chips it holds."""

    @property
    def ahead(self) -> int:
        """How many calls to have waiting behind the one whose answer is waited for, so that no
        host is ever idle; 0 where nothing is done meanwhile.
        """

    def put(self, value: Any) -> Any:
        """Make a value available to all hosts as an argument of calls, moved once."""

    def call(self, host: int, method: str, *args: Any) -> Ref:
        """Ask a host to run one of its methods; does not wait."""

    def get(self, refs: Sequence[Ref]) -> list[Any]:
        """Wait for answers.

        Raises
        ------
        HostsLost
            Hosts died or did not answer in time, or lost each other.
        RepastError
            What a host's method raised on purpose.
        """

    def revive(self, hosts: Sequence[int]) -> None:
        """Start lost hosts anew, without state, and connect all hosts again."""

    def retire(self, hosts: Sequence[int]) -> None:
        """Give up hosts for good; `revive` connects the others again."""

    def publish(self, values: Mapping[str, float]) -> None:
        """Show how the run is doing to whoever watches the farm."""

    def close(self) -> None:
        """End all hosts."""
