"""The farm without Ray: one worker with all chips, called directly."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Concatenate, cast

from repast_dist.farm.interface import Answer, Worker, WorkerFactory
from repast_dist.farm.peers import NoPeers
from repast_dist.farm.setup import FarmSetup


class InProcessFarm:
    """A farm without other processes: all chips are computed here, one after the other."""

    def __init__(self, chips: int, factory: WorkerFactory, setup: FarmSetup) -> None:
        self._chips = tuple(range(chips))
        self._worker = factory(self._chips, setup, NoPeers())

    @property
    def workers(self) -> dict[int, tuple[int, ...]]:
        """The only worker, which holds all chips."""
        return {0: self._chips}

    @property
    def ahead(self) -> int:
        """0, because nothing is computed while the coordinator works."""
        return 0

    def put[Value](self, value: Value) -> Value:
        """Return the value itself."""
        return value

    def call[**Arguments, Result](
        self,
        worker: int,
        method: Callable[Concatenate[Worker, Arguments], Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Answer[Result]:
        """Keep the call until `get` makes it."""
        return Answer(partial(getattr(self._worker, method.__name__), *args, **kwargs))

    def get[Result](self, answers: Sequence[Answer[Result]]) -> list[Result]:
        """Make the calls and return their results."""
        return [cast("Callable[[], Result]", answer.pending)() for answer in answers]

    def revive(self, workers: Sequence[int]) -> None:
        """Do nothing, since no worker is ever lost."""

    def retire(self, workers: Sequence[int]) -> None:
        """Do nothing, since no worker is ever lost."""

    def publish(self, values: Mapping[str, float]) -> None:
        """Do nothing, since there is no metrics server."""

    def close(self) -> None:
        """Do nothing, since there is no process to end."""
