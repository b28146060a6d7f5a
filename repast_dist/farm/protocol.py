"""What the coordinator needs of a farm; one code path for in-process and Ray runs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

Ref = Any
"""A value that may still be computed elsewhere; `Farm.get` waits for it."""

HostFactory = Callable[[tuple[int, ...], Any], Any]
"""(chips of the host, what all hosts share) -> a plain object whose methods a farm calls."""


class Farm(Protocol):
    """Hosts that hold simulated chips and do what the coordinator asks, in the order asked."""

    @property
    def hosts(self) -> dict[int, tuple[int, ...]]:
        """Live host number -> the chips it holds."""

    def put(self, value: Any) -> Ref:
        """Make a value available to all hosts, moved once."""

    def call(self, host: int, method: str, *args: Any, returns: int = 1) -> list[Ref]:
        """Ask a host to run one of its methods; does not wait.

        Top-level arguments that are refs reach the method as values.
        """

    def get(self, refs: Sequence[Ref]) -> list[Any]:
        """Wait for values.

        Raises
        ------
        HostsLost
            Hosts died or did not answer in time.
        RepastError
            What a host's method raised on purpose.
        """

    def revive(self, hosts: Sequence[int]) -> None:
        """Start lost hosts anew, without state."""

    def retire(self, hosts: Sequence[int]) -> None:
        """Give up hosts for good."""

    def publish(self, values: Mapping[str, float]) -> None:
        """Show how the run is doing to whoever watches the farm."""

    def close(self) -> None:
        """End all hosts."""
