"""A claim on a prefix, so that two runs never write to one.

Stores offer no lock that all of them know. Who wants to write puts an object of its own among the
claims and lists them afterwards: of two that come at the same time at least one sees the other, so
never both find themselves alone. A claim is renewed while its run goes on; one that was not for as
long as it says is of a run that has ended. What is late is told by the store's clock alone.

A process that was held up for so long may still write. It looks for its claim before it writes a
manifest; and a manifest carries the *term* of its claim, which is higher than that of all claims
and manifests before, so that what comes late is never the newest.
"""

import contextlib
import dataclasses
import io
import json
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from repast_dist.farm.storage.bucket import Bucket, Damaged
from repast_dist.farm.storage.manifest import LEASES, manifest_keys, term_of
from repast_dist.ground.errors import StorageError

_RENEWALS = 4
_LONGEST_PAUSE_S = 2.0


@dataclasses.dataclass(frozen=True)
class _Claim:
    """Another process's claim.

    Attributes
    ----------
    key : str
        Its object.
    told : dict
        What it says of itself.
    age_s : float
        Time since it was renewed.
    changed_s : float
        When that was, by the store's clock.
    """

    key: str
    told: dict[str, Any]
    age_s: float
    changed_s: float

    @property
    def left_s(self) -> float:
        """Time until it counts as ended."""
        return float(self.told.get("lease_s", 0.0)) - self.age_s

    @property
    def holds(self) -> bool:
        """Whether it has the prefix, and does not only ask for it."""
        return self.told.get("holds") is True

    @property
    def who(self) -> str:
        """Who it is, in words."""
        return f"process {self.told.get('pid')} on {self.told.get('host')}"


class Lease:
    """The claim of this process on a prefix.

    Parameters
    ----------
    bucket : Bucket
        The prefix.
    lease_s : float
        After how long without a renewal it counts as ended.
    say : callable
        Takes what should be known of the claim.

    Attributes
    ----------
    owner : str
        A name no other process has.
    term : int
        Of the manifests written under it; 0 before it is `held`.
    """

    def __init__(self, bucket: Bucket, lease_s: float, say: Callable[[str], None]) -> None:
        self._bucket, self._lease_s, self._say = bucket, lease_s, say
        self.owner = uuid.uuid4().hex
        self.term = 0
        self._key = f"{LEASES}/{self.owner}.json"
        self._end = threading.Event()
        self._lost = ""

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the prefix inside the block, renewing the claim.

        Raises
        ------
        StorageError
            Another run holds it and goes on, or the store cannot be reached.
        """
        self._acquire()
        renewing = threading.Thread(target=self._renew, daemon=True)
        renewing.start()
        try:
            yield
        finally:
            self._end.set()
            renewing.join(timeout=_LONGEST_PAUSE_S)
            # What cannot be deleted now ends by itself.
            with contextlib.suppress(StorageError):
                self._bucket.delete([self._key])

    @property
    def is_lost(self) -> bool:
        """Whether another run was found to have the prefix."""
        return bool(self._lost)

    def check(self) -> None:
        """Make sure that the prefix is still this process's.

        Raises
        ------
        StorageError
            Another run has it, or the store cannot be reached.
        """
        if self._lost:
            raise StorageError(self._lost)
        mine, others = self._claims()
        newer = [claim for claim in others if claim.holds and claim.told["term"] > self.term]
        if mine is None or newer:
            who = newer[0].who if newer else "another run"
            self._lost = f"{self._bucket.uri}: {who} has taken it over; nothing more is copied"
            raise StorageError(self._lost)

    def _acquire(self) -> None:
        seen: dict[str, float] = {}
        waits_until = 0.0
        while True:
            self._write(holds=False)
            try:
                _, others = self._claims()
                alive = [claim for claim in others if claim.left_s > 0]
                for claim in alive:
                    if claim.holds and seen.setdefault(claim.key, claim.changed_s) != (
                        claim.changed_s
                    ):
                        raise StorageError(
                            f"{self._bucket.uri}: in use by {claim.who}; valid: another prefix, or "
                            "when it has ended"
                        )
                if not alive:
                    terms = [int(claim.told.get("term", 0)) for claim in others]
                    terms += map(term_of, manifest_keys(self._bucket))
                    self.term = 1 + max(terms, default=0)
                    self._write(holds=True)
                    self._bucket.delete([claim.key for claim in others])
                    return
            except BaseException:
                with contextlib.suppress(StorageError):
                    self._bucket.delete([self._key])
                raise
            self._bucket.delete([self._key])
            left_s = max(claim.left_s for claim in alive)
            if time.monotonic() >= waits_until:
                waits_until = time.monotonic() + left_s
                self._say(
                    f"{self._bucket.uri}: {alive[0].who} was there {alive[0].age_s:.0f} s ago; "
                    f"waiting for up to {left_s:.0f} s"
                )
            time.sleep(min(left_s, _LONGEST_PAUSE_S) * random.uniform(0.2, 1.0))

    def _renew(self) -> None:
        told = False
        while not self._end.wait(self._lease_s / _RENEWALS):
            try:
                self.check()
                self._write(holds=True)
                told = False
            except StorageError as error:
                if not told:
                    self._say(str(error))
                told = True
                if self._lost:
                    return

    def _write(self, *, holds: bool) -> None:
        told = {
            "host": socket.gethostname(), "pid": os.getpid(), "lease_s": self._lease_s,
            "holds": holds, "term": self.term,
        }  # fmt: skip
        text = json.dumps(told).encode()
        self._bucket.write(self._key, io.BytesIO(text), len(text))

    def _claims(self) -> tuple[float | None, list[_Claim]]:
        """Return when this process's claim was renewed, and all others."""
        items = self._bucket.items(LEASES)
        mine = items.pop(self._key, None)
        now_s = mine.changed_s if mine is not None else 0.0
        others = []
        for key, item in items.items():
            told = self._told(key)
            if told is not None:
                age_s = now_s - item.changed_s
                others.append(_Claim(key, told, age_s, item.changed_s))
        return (mine.changed_s if mine is not None else None), others

    def _told(self, key: str) -> dict[str, Any] | None:
        """Return what a claim says; None where it has just been given up."""
        try:
            told = json.loads(b"".join(self._bucket.read(key)))
        except Damaged:
            return None
        except ValueError:
            told = None
        # A claim that is being written counts: its process is alive.
        return told if isinstance(told, dict) else {"lease_s": self._lease_s, "term": 0}
