"""The farm without Ray: one worker with all chips, called directly."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from repast_dist.farm.interface import Ref, WorkerFactory
from repast_dist.farm.peers import NoPeers


class InProcessFarm:
    """All chips in this process, one after the other: the reference and the one to debug."""

    def __init__(self, chips: int, factory: WorkerFactory, shared: Any) -> None:
        self._chips = tuple(range(chips))
        self._worker = factory(self._chips, shared, NoPeers())

    @property
    def workers(self) -> dict[int, tuple[int, ...]]:
        """The one worker."""
        return {0: self._chips}

    @property
    def ahead(self) -> int:
        """Nothing is done while the coordinator works."""
        return 0

    def put(self, value: Any) -> Any:
        """Return the value itself."""
        return value

    def call(self, worker: int, method: str, *args: Any) -> Ref:
        """Note the call; `get` makes it."""
        return partial(getattr(self._worker, method), *args)

    def get(self, refs: Sequence[Ref]) -> list[Any]:
        """Make the calls."""
        return [ref() for ref in refs]

    def revive(self, workers: Sequence[int]) -> None:
        """Nothing is ever lost here."""

    def retire(self, workers: Sequence[int]) -> None:
        """Nothing is ever lost here."""

    def publish(self, values: Mapping[str, float]) -> None:
        """Nobody watches."""

    def close(self) -> None:
        """Nothing to end."""
