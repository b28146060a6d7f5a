"""The journal of a search: what was proposed and what was found, one line each, never rewritten.

Several processes may write into one journal. Each line is on the disk before the next is written,
so that a search that is stopped at any moment goes on where it was.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from repast_dist.ground.errors import RunDirectoryError

Entry = dict[str, Any]

JOURNAL = "search.jsonl"
"""Its name in the run directory."""

_PRESENT = ".searching"


class Journal:
    """Reads and appends entries; a process holds it from `__enter__` to `__exit__`.

    Parameters
    ----------
    run_dir : Path
        The run directory.
    """

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / JOURNAL
        self._present_path = run_dir / _PRESENT
        self._read = 0

    def __enter__(self) -> Self:
        self._file = self._path.open("a+b")
        self._present = self._present_path.open("w")
        self._joined = not self._is_alone()
        fcntl.flock(self._present, fcntl.LOCK_SH)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()
        self._present.close()

    @property
    def joined(self) -> bool:
        """Whether others were at work when this process came."""
        return self._joined

    def wait_for_others(self) -> None:
        """Wait until no other process is at work; none can begin until this one ends.

        Of several that wait, each is alone in turn.
        """
        fcntl.flock(self._present, fcntl.LOCK_UN)
        fcntl.flock(self._present, fcntl.LOCK_EX)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from reading and writing inside the block."""
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def news(self) -> list[Entry]:
        """Return the entries that were added since the last call, own ones too; inside `held`.

        A last line that a killed process left unfinished is taken away.

        Raises
        ------
        RunDirectoryError
            A line is damaged.
        """
        self._file.seek(self._read)
        text = self._file.read()
        whole = text[: text.rfind(b"\n") + 1]
        if len(whole) < len(text):
            self._file.truncate(self._read + len(whole))
        self._read += len(whole)
        return [self._entry(line) for line in whole.splitlines()]

    def add(self, entry: Entry) -> None:
        """Append an entry; inside `held`."""
        self._file.write(json.dumps(entry, separators=(",", ":")).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def _entry(self, line: bytes) -> Entry:
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict):
            raise RunDirectoryError(f"{self._path}: a line is damaged: {line[:60]!r}")
        return entry

    def _is_alone(self) -> bool:
        try:
            fcntl.flock(self._present, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True
