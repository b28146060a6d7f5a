"""How long to wait for processes to start: as long as they may still come, with word of it."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator

from repast_dist.farm.specs import FarmSpec
from repast_dist.ground.errors import FarmError

logger = logging.getLogger(__name__)

_TELL_EVERY_S = 15.0
# A cluster's free resources are asked for when nothing has happened for this long.
_QUIET_S = 2.0


@contextlib.contextmanager
def told_while(what: Callable[[], str]) -> Iterator[None]:
    """Log what is waited for, now and then, while the block runs."""
    done = threading.Event()
    started = time.monotonic()

    def tell() -> None:
        while not done.wait(_TELL_EVERY_S):
            logger.warning("waiting for %s for %.0f s", what(), time.monotonic() - started)

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


class Patience:
    """Waits for workers while they can still come up.

    A busy machine may take minutes to start a process, so slowness alone ends nothing before
    ``farm.start_timeout_s``. Where the cluster has no room for a worker, none will come up unless
    a node joins: that is waited for as long as ``farm.node_timeout_s``.

    Parameters
    ----------
    spec : FarmSpec
        The limits.
    workers : int
        Number of workers that are to come up.
    has_room : callable
        Returns whether all that are missing have a place or would find one.
    """

    def __init__(self, spec: FarmSpec, workers: int, has_room: Callable[[], bool]) -> None:
        self._spec, self._workers, self._has_room = spec, workers, has_room
        self._up = 0
        self._started = self._changed = self._had_room = time.monotonic()
        self._died: float | None = None

    @property
    def left_s(self) -> float:
        """Time left until ``farm.start_timeout_s`` is over, in seconds."""
        return self._started + self._spec.start_timeout_s - time.monotonic()

    def check(self, up: int, died: bool = False) -> None:
        """Note how many are up, and whether one died before it was.

        Raises
        ------
        FarmError
            Those that are missing will not come, or took too long.
        """
        now = time.monotonic()
        missing = self._workers - up
        if up != self._up or not missing:
            self._up, self._changed, self._had_room, self._died = up, now, now, None
            return
        late = f"{missing} of {self._workers} workers did not start in"
        if died:
            self._died = self._died or now
            if now - self._died > self._spec.node_timeout_s:
                raise FarmError(f"{late} {now - self._started:.0f} s: they die while they start")
        if self.left_s <= 0:
            raise FarmError(
                f"{late} {self._spec.start_timeout_s:g} s; valid: a larger farm.start_timeout_s "
                "where the machines are busy, or fewer workers (farm.chips_per_worker)"
            )
        if now - self._changed < _QUIET_S or self._has_room():
            self._had_room = now
        elif now - self._had_room > self._spec.node_timeout_s:
            raise FarmError(
                f"{late} {now - self._started:.0f} s: the cluster has no room for them "
                "(farm.cpus_per_worker, farm.resources_per_worker, farm.placement) or no node; "
                "see farm.node_timeout_s"
            )
