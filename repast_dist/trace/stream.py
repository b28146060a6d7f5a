"""Holds the steps since the last part of a store: an Arrow IPC stream, with a checksum per message.

Each message holds whole steps and says which, also where they have no rows. What a crash has cut
off and what was changed on the disk later is told by the checksums; nothing after it is read.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from repast_dist.ground.errors import RunDirectoryError
from repast_dist.ground.files import replaced
from repast_dist.trace.schema import RUN_KEY


@dataclasses.dataclass(frozen=True)
class Message:
    """Some steps and all of their rows.

    Attributes
    ----------
    steps : tuple of int
        The steps, ascending; a step may have no rows.
    batch : pyarrow.RecordBatch
        Their rows.
    """

    steps: tuple[int, ...]
    batch: pa.RecordBatch


class OpenStream:
    """Writes the stream of a store.

    Parameters
    ----------
    path : Path
        Its file; it is made with the first message.
    schema : pyarrow.Schema
        Columns of the rows.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path, self._schema = path, schema
        self._file: pa.NativeFile | None = None
        self._writer: pa.RecordBatchStreamWriter | None = None

    def append(self, message: Message) -> None:
        """Add a message.

        Raises
        ------
        RunDirectoryError
            The disk is full or not writable.
        """
        with self._errors():
            if self._writer is None:
                self._open(self._path)
            self._write(message)

    def rewrite(self, messages: Iterable[Message]) -> None:
        """Replace all messages in one step: a crash leaves the old ones or the new ones.

        Raises
        ------
        RunDirectoryError
            The disk is full or not writable; the old messages are still there.
        """
        self.close()
        kept = list(messages)
        if not kept:
            self.remove()
            return
        with self._errors():
            try:
                with replaced(self._path) as aside:
                    self._open(aside)
                    for message in kept:
                        self._write(message)
            except BaseException:
                self.close()
                raise

    def sync(self) -> None:
        """Make sure that all messages are on the disk."""
        if self._writer is not None:
            with self._errors(), self._path.open("rb") as file:
                os.fsync(file.fileno())

    def close(self) -> None:
        """End the stream; `append` would begin a new one."""
        # An end that does not fit on a full disk is not needed to read the messages before it.
        with contextlib.suppress(OSError):
            if self._writer is not None:
                self._writer.close()
            if self._file is not None:
                self._file.close()
        self._writer = self._file = None

    def remove(self) -> None:
        """Delete the stream."""
        self.close()
        self._path.unlink(missing_ok=True)

    def _open(self, path: Path) -> None:
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        self._file = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_stream(self._file, self._schema, options=options)

    def _write(self, message: Message) -> None:
        assert self._writer is not None
        told = {"steps": json.dumps(message.steps), "sha256": _digest(message)}
        self._writer.write_batch(message.batch, custom_metadata=told)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunDirectoryError(f"{self._path}: cannot write, {error}") from error


def stream_messages(path: Path, run: str | None = None) -> Iterator[Message]:
    """Yield the messages of a stream, up to one that a crash has cut off or that was changed.

    With `run`, those of a stream of another run (other settings) are passed over.
    """
    if not path.exists() or path.stat().st_size == 0:
        return
    with pa.OSFile(str(path), "rb") as file:
        try:
            reader = pa.ipc.open_stream(file)
            if run is not None and run_of(reader.schema) != run:
                return
            while (message := _next_whole(reader)) is not None:
                yield message
        except (OSError, pa.ArrowException, MemoryError):
            # A torn last message: the steps it holds were not finished.
            return


def run_of(schema: pa.Schema) -> str | None:
    """Return the SHA-256 of the settings of the run that a file's rows are of."""
    told = (schema.metadata or {}).get(RUN_KEY.encode())
    return None if told is None else told.decode(errors="replace")


def _next_whole(reader: pa.RecordBatchStreamReader) -> Message | None:
    try:
        batch, told = reader.read_next_batch_with_custom_metadata()
        batch.validate(full=True)
        message = Message(tuple(json.loads(told[b"steps"])), batch)
        whole = _digest(message) == told[b"sha256"].decode()
    except (StopIteration, KeyError, TypeError, ValueError, RecursionError):
        return None
    return message if whole else None


def _digest(message: Message) -> str:
    """Return a checksum of steps and rows that writing and reading leaves as it is."""
    digest = hashlib.sha256(json.dumps(message.steps).encode())
    for column in message.batch.columns:
        if pa.types.is_dictionary(column.type):
            digest.update(json.dumps(column.dictionary.to_pylist()).encode())
            column = column.indices
        digest.update(np.ascontiguousarray(column.to_numpy(zero_copy_only=False)).data)
    return digest.hexdigest()
