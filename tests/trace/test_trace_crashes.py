"""What is left of a trace when its writer is killed at any moment, or its files are changed."""

import os
import posix
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_trace_store import N_CHIPS, append_steps

from repast_dist.trace import TraceWriter, read_solves, read_trace, verify


@pytest.fixture(autouse=True)
def as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Force files to disk: a moment at which the disk has changed."""
    monkeypatch.setattr(os, "fsync", posix.fsync)


CHANGING = {"open", "write", "close", "fsync", "replace", "unlink", "mkdir", "rmdir"}


def states_of_the_disk(root: Path, copies: Path, action: Callable[[], None]) -> Iterator[Path]:
    """Copy a folder whenever it has changed during an action: what a kill there would leave."""
    seen: list[dict[str, bytes]] = []

    def look(frame: object, event: str, function: object) -> None:
        if event != "c_return" or getattr(function, "__name__", "") not in CHANGING:
            return
        files = {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
        if files not in seen:
            seen.append(files)

    sys.setprofile(look)
    try:
        action()
    finally:
        sys.setprofile(None)
    for number, files in enumerate(seen):
        copy = copies / str(number)
        for name, content in files.items():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes(content)
        for folder in ("trace", "solves"):
            (copy / folder).mkdir(parents=True, exist_ok=True)
        yield copy


@pytest.mark.parametrize("cut_after", [None, 4], ids=["only a stream", "a part and a stream"])
def test_a_kill_at_any_moment_of_a_resume_loses_no_step_before_the_checkpoint(
    tmp_path: Path, cut_after: int | None
) -> None:
    root = tmp_path / "run"
    writer = TraceWriter(root / "trace", n_chips=N_CHIPS)
    append_steps(writer, range(cut_after or 0))
    writer.cut()
    append_steps(writer, range(cut_after or 0, 8))
    writer.sync()
    expected = read_trace(root / "trace"), read_solves(root)
    states = list(
        states_of_the_disk(
            root,
            tmp_path / "copies",
            lambda: TraceWriter(root / "trace", n_chips=N_CHIPS, resume_step=6).sync(),
        )
    )
    assert len(states) > 3
    for state in states:
        with TraceWriter(state / "trace", n_chips=N_CHIPS, resume_step=6) as resumed:
            append_steps(resumed, range(6, 8))
        assert verify(state / "trace", steps=8) == []
        assert read_trace(state / "trace").equals(expected[0])
        assert read_solves(state).equals(expected[1])
        shutil.rmtree(state)
