"""Machines with addresses of their own, which are namespaces of this one (Linux, root)."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil

_NAMESPACES = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


def missing() -> str | None:
    """Return why there cannot be such machines here, or None."""
    for program in ("unshare", "nsenter", "ip", "mount"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    words = "mount -t tmpfs none /run && ip link add one type bridge && ip netns add two"
    tried = subprocess.run([*_NAMESPACES, "sh", "-c", words], capture_output=True, text=True)
    return None if tried.returncode == 0 else f"no namespaces: {tried.stderr.strip()[:100]}"


class Machines:
    """Some machines at one switch; all that runs on them ends with `plugged`."""

    def __init__(self, first_process: int, environment: Mapping[str, str], logs: Path) -> None:
        self._enter = ["nsenter", "-t", str(first_process), "-n", "-m", "-p", "--wd=/", "--"]
        self._environment, self._logs = environment, logs

    def start(self, node: str, words: Sequence[str], **more: str) -> subprocess.Popen[str]:
        """Start a command on a machine; what it prints goes to `log`."""
        with (self._logs / f"{node}.log").open("a") as log:
            return subprocess.Popen(
                self._on(node, words),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, text=True,
                env={**self._environment, **more}, start_new_session=True,
            )  # fmt: skip

    def run(self, node: str, words: Sequence[str], limit_s: float = 120.0, **more: str) -> str:
        """Run a command on a machine and return what it prints.

        Raises
        ------
        AssertionError
            It failed; with the end of what it printed.
        """
        done = subprocess.run(
            self._on(node, words),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit_s,
            env={**self._environment, **more},
        )  # fmt: skip
        assert done.returncode == 0, f"{words}: {(done.stdout + done.stderr)[-3000:]}"
        return done.stdout

    def _on(self, node: str, words: Sequence[str]) -> list[str]:
        named = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', node, *words]
        return [*self._enter, "ip", "netns", "exec", node, *named]

    def log(self, node: str) -> str:
        """Return what commands started on a machine have printed."""
        path = self._logs / f"{node}.log"
        return path.read_text() if path.exists() else ""

    def plug(self, node: str, *, into_switch: bool) -> None:
        """Pull a machine's cable, or put it back."""
        state = "up" if into_switch else "down"
        words = ["ip", "link", "set", node, state]
        subprocess.run([*self._enter, *words], check=True, env=dict(self._environment))


@contextlib.contextmanager
def plugged(
    nodes: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> Iterator[Machines]:
    """Keep machines running inside the block; afterwards nothing of them is left.

    Parameters
    ----------
    nodes : sequence of str
        Names; the first has the address 10.77.0.1.
    folder : Path
        For what they print.
    environment : mapping
        Variables of their processes beside those of this one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Of a name that is short enough for the sockets of Ray.
    scratch = Path(tempfile.mkdtemp(prefix="rm", dir="/tmp"))
    script = str(Path(__file__).with_name("sandbox.py"))
    words = [*_NAMESPACES, sys.executable, script, str(folder / "hosts"), *nodes]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as outer:
        assert outer.stdin is not None
        assert outer.stdout is not None
        try:
            assert outer.stdout.readline() == "ready\n"
            (first,) = psutil.Process(outer.pid).children()
            yield Machines(first.pid, {**os.environ, "TMPDIR": str(scratch), **environment}, folder)
        finally:
            outer.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                outer.wait(timeout=5)
            # The kernel ends whatever is left together with the first process.
            outer.kill()
            outer.wait()
            shutil.rmtree(scratch, ignore_errors=True)


def until(happened: Callable[[], object], limit_s: float, what: str) -> None:
    """Wait for something to happen."""
    deadline = time.monotonic() + limit_s
    while not happened():
        assert time.monotonic() < deadline, f"not in {limit_s:g} s: {what}"
        time.sleep(0.1)
