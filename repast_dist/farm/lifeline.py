"""Notices the death of what all calls of a cluster need: this node's raylet, the cluster's head.

Ray ends a driver whose raylet or head is gone, some seconds later and without an exception. The
farm looks by itself while it waits, so that the run can say what happened and close its records.
"""

import socket
import time

import psutil
import ray

from repast_dist.ground.errors import FarmError

# How often the head is tried, and how long it may be away: it can be started anew.
_HEAD_EVERY_S = 2.0
_HEAD_AWAY_S = 10.0


class Lifeline:
    """The processes without which a run on Ray cannot go on; Ray must be up."""

    def __init__(self) -> None:
        self._raylet: psutil.Process | None = None
        self._head: tuple[str, int] | None = None
        self._head_seen = self._head_tried = time.monotonic()
        # A client of a remote cluster has neither on its machine; Ray tells it by exceptions.
        if not ray.util.client.ray.is_connected():
            context = ray.get_runtime_context()
            host, _, port = context.gcs_address.rpartition(":")
            self._head = (host.strip("[]"), int(port))
            self._raylet = _raylet_of(context.get_node_id())

    def check(self) -> None:
        """Look whether they are alive; this takes about 0.1 ms.

        Raises
        ------
        FarmError
            One is not.
        """
        if self._raylet is not None and not _runs(self._raylet):
            raise FarmError(
                f"Ray's process on this machine (raylet, pid {self._raylet.pid}) has died, "
                "and all workers here with it"
            )
        now = time.monotonic()
        if self._head is None or now - self._head_tried < _HEAD_EVERY_S:
            return
        self._head_tried = now
        try:
            socket.create_connection(self._head, timeout=_HEAD_EVERY_S).close()
            self._head_seen = time.monotonic()
        except OSError as error:
            if time.monotonic() - self._head_seen > _HEAD_AWAY_S:
                raise FarmError(
                    f"the cluster's head at {self._head[0]}:{self._head[1]} has not answered for "
                    f"{_HEAD_AWAY_S:g} s ({error})"
                ) from error


def _raylet_of(node: str) -> psutil.Process | None:
    """Return the raylet of a node if it runs on this machine."""
    for process in psutil.process_iter(["cmdline"]):
        if f"--node_id={node}" in (process.info["cmdline"] or []):
            return process
    return None


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
