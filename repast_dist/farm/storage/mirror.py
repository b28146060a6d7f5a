"""Copies a run directory to a prefix: what has changed, then the manifest, then what is old goes.

Files are opened at the moment that is to be kept and copied by a thread while the run goes on.
Files of a run are either replaced as wholes, so that the opened one stays as it is, or grow at
their end, which is left out.
"""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from repast_dist.farm.storage.bucket import Bucket
from repast_dist.farm.storage.lease import Lease
from repast_dist.farm.storage.manifest import (
    FILES,
    Manifest,
    StoredFile,
    manifest_keys,
    stored_file,
)
from repast_dist.ground.errors import StorageError
from repast_dist.ground.files import SETTINGS

_AT_ONCE = 8
_ATTEMPTS = 3
_PAUSE_S = 1.0
_MOST_NAMED = 5
_MOST_OPEN = 256

Signature = tuple[int, int, int]
"""Inode, size in bytes and time of the last change in nanoseconds."""


@dataclasses.dataclass(frozen=True)
class _Held:
    """A file as it was at one moment.

    Attributes
    ----------
    path : Path
        Where it is.
    signature : Signature
        What it was then.
    file : BinaryIO or None
        Opened then; of very many files some are opened when they are copied.
    """

    path: Path
    signature: Signature
    file: BinaryIO | None

    @property
    def size(self) -> int:
        """Bytes that it had then."""
        return self.signature[1]

    @contextlib.contextmanager
    def from_start(self) -> Iterator[BinaryIO]:
        """Read the file from its start."""
        if self.file is None:
            with self.path.open("rb") as file:
                yield file
        else:
            self.file.seek(0)
            yield self.file

    def sha256(self) -> str:
        """Return the SHA-256 of what the file was."""
        digest, left = hashlib.sha256(), self.size
        with self.from_start() as file:
            while left and (chunk := file.read(min(left, 1 << 20))):
                digest.update(chunk)
                left -= len(chunk)
        return digest.hexdigest()


Snapshot = dict[str, StoredFile | _Held]
"""Path in the run directory -> what is stored of it already, or the file."""


class Mirror:
    """Keeps the copy of one run directory.

    Parameters
    ----------
    bucket : Bucket
        The prefix.
    lease : Lease
        The claim on it, which is held.
    folder : Path
        The run directory.
    study : str
        Of the run.
    base : Manifest, optional
        The copy that is there already, from which the run goes on.
    warn : callable
        Takes what went wrong and is tried again.
    """

    def __init__(
        self, bucket: Bucket, lease: Lease, folder: Path, study: str, base: Manifest | None,
        warn: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._bucket, self._lease, self._folder, self._study = bucket, lease, folder, study
        self._warn = warn
        self._there = {item.key for item in base.files.values()} if base is not None else set()
        self._last = base
        self._number = 0
        self._known: dict[str, tuple[Signature, StoredFile]] = {}
        self._thread: threading.Thread | None = None
        self._began_s = float("-inf")

    def saved(self, every_s: float = 0.0) -> None:
        """Copy the directory as it is now, beside the run.

        Where the copy before has not ended or is younger than `every_s`, the next one has it all.
        What fails is told, and tried again with the next one.
        """
        now_s = time.monotonic()
        busy = self._thread is not None and self._thread.is_alive()
        if busy or now_s - self._began_s < every_s:
            return
        self._began_s = now_s
        try:
            snapshot = self._snapshot()
        except OSError as error:
            self._warn_later(error)
            return
        self._thread = threading.Thread(target=self._copy_beside, args=(snapshot,), daemon=True)
        self._thread.start()

    def finish(self, *, complete: bool) -> None:
        """Copy the directory as it is now, and wait until that is done.

        Parameters
        ----------
        complete : bool
            Whether the run has ended; otherwise it can be gone on with.

        Raises
        ------
        StorageError
            Files did not arrive; the message names them.
        """
        if self._thread is not None:
            self._thread.join()
        failed: list[StorageError] = []
        for attempt in range(_ATTEMPTS):
            time.sleep(_PAUSE_S * attempt)
            failed.clear()
            # A thread of its own: what waits for a store in this one could not be interrupted.
            last = threading.Thread(target=self._copy_last, args=(complete, failed), daemon=True)
            last.start()
            last.join()
            if not failed:
                return
            if self._lease.is_lost:
                raise failed[0]
        missing = [name for name, item in self._files() if not self._is_there(name, item)]
        named = ", ".join(missing[:_MOST_NAMED]) + (", ..." if len(missing) > _MOST_NAMED else "")
        what = f"{len(missing)} files are missing ({named})" if missing else "the manifest is old"
        raise StorageError(f"{self._bucket.uri}: {what}: {failed[0]}")

    def is_behind(self) -> bool:
        """Return whether the copy is not that of a whole run that is as it is here."""
        if self._last is None or not self._last.complete:
            return True
        with _closed(self._snapshot()) as snapshot:
            now = {name: self._stored(name, item) for name, item in snapshot.items()}
        return now != self._last.files

    def _copy_last(self, complete: bool, failed: list[StorageError]) -> None:
        try:
            self._copy(self._snapshot(), complete)
        except StorageError as error:
            failed.append(error)
        except OSError as error:
            failed.append(StorageError(f"{self._folder}: cannot be read ({error})"))

    def _copy_beside(self, snapshot: Snapshot) -> None:
        try:
            self._copy(snapshot, complete=False)
        except (StorageError, OSError) as error:
            self._warn_later(error)

    def _warn_later(self, error: Exception) -> None:
        self._warn(f"{error}; tried again with the next checkpoint")

    def _copy(self, snapshot: Snapshot, complete: bool) -> None:
        """Copy files, and close them."""
        with _closed(snapshot), concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
            self._lease.check()
            copied = pool.map(self._copied, snapshot.keys(), snapshot.values())
            stored = dict(zip(snapshot, copied, strict=True))
        self._lease.check()
        manifest = Manifest(
            term=self._lease.term,
            number=self._number + 1,
            owner=self._lease.owner,
            study=self._study,
            name=self._folder.name,
            complete=complete,
            files=stored,
        )
        manifest.write(self._bucket)
        self._number += 1
        before, self._last = self._last, manifest
        self._clear([manifest] if complete or before is None else [manifest, before])

    def _copied(self, name: str, item: StoredFile | _Held) -> StoredFile:
        """Copy a file unless its content is there; return what is stored of it."""
        stored = self._stored(name, item)
        if isinstance(item, _Held):
            if stored.key not in self._there:
                with item.from_start() as file:
                    written = self._bucket.write(stored.key, file, item.size)
                if written != stored.sha256:
                    raise StorageError(f"{item.path}: changed while it was copied")
                self._there.add(stored.key)
            self._known[name] = item.signature, stored
        return stored

    def _stored(self, name: str, item: StoredFile | _Held) -> StoredFile:
        """Return what is, or would be, stored of a file."""
        return stored_file(name, item.size, item.sha256()) if isinstance(item, _Held) else item

    def _clear(self, kept: list[Manifest]) -> None:
        """Delete what no manifest that is kept names, also what killed processes have left."""
        manifests = {manifest.key for manifest in kept}
        files = {item.key for manifest in kept for item in manifest.files.values()}
        self._bucket.delete(key for key in manifest_keys(self._bucket) if key not in manifests)
        self._bucket.delete(key for key in self._bucket.items(FILES) if key not in files)
        self._there &= files

    def _files(self) -> Iterator[tuple[str, os.stat_result]]:
        """Yield the files of the run, and not those of runs within, which have copies of their own.

        Names that begin with a dot are of locks and of what is being written.
        """
        for where, folders, names in os.walk(self._folder):
            here = Path(where)
            folders[:] = [
                name
                for name in folders
                if not name.startswith(".") and not (here / name / SETTINGS).is_file()
            ]
            for name in names:
                path = here / name
                if not name.startswith(".") and path.is_file():
                    with contextlib.suppress(FileNotFoundError):
                        yield path.relative_to(self._folder).as_posix(), path.stat()

    def _snapshot(self) -> Snapshot:
        snapshot: Snapshot = {}
        for number, (name, now) in enumerate(self._files()):
            if self._is_there(name, now):
                snapshot[name] = self._known[name][1]
            elif number >= _MOST_OPEN:
                snapshot[name] = _Held(self._folder / name, _signature(now), None)
            else:
                file = (self._folder / name).open("rb")
                signature = _signature(os.fstat(file.fileno()))
                snapshot[name] = _Held(self._folder / name, signature, file)
        return snapshot

    def _is_there(self, name: str, now: os.stat_result) -> bool:
        """Return whether a file is copied as it is."""
        known = self._known.get(name)
        return known is not None and known[0] == _signature(now) and known[1].key in self._there


@contextlib.contextmanager
def _closed(snapshot: Snapshot) -> Iterator[Snapshot]:
    try:
        yield snapshot
    finally:
        for item in snapshot.values():
            if isinstance(item, _Held) and item.file is not None:
                item.file.close()


def _signature(now: os.stat_result) -> Signature:
    return now.st_ino, now.st_size, now.st_mtime_ns
