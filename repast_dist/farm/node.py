"""Run Ray on one machine of a cluster until told to stop, whatever becomes of the others.

``python -m repast_dist.farm.node head`` on the first machine, and on every other
``python -m repast_dist.farm.node HEAD:6379``. A node waits for a head that is not up yet. One that
lost the head, or that the head has given up after it was out of reach, joins again; so does one
that a busy machine let down while it started. Only processes that it started are ended, so any
number of nodes run on one machine side by side.
"""

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

import psutil

from repast_dist.farm.cluster import TOKENS, numeric, patient_ray
from repast_dist.farm.scratch import short_temp_dir
from repast_dist.farm.specs import FarmSpec
from repast_dist.farm.watcher import kill_what_stays

_HEAD = "head"
_TRY_S = 2.0
_AGAIN_S = 1.0
_LOOK_S = 0.25
# Ray would wait for up to 30 s for what workers do, or for a head that is gone.
_STOP_GRACE_S = 10.0
# Ports of everything but the head itself are those that are free; nobody reads what Ray would send
# of its logs.
_OPTIONS = (
    "--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0",
    "--include-log-monitor=false",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a node and return the exit status: 0 told to stop, 2 no token."""
    options, of_ray = _parser().parse_known_args(arguments)
    if not any(os.environ.get(name) for name in TOKENS):
        print(
            f"repast-dist: error: a cluster needs a token; valid: {' or '.join(TOKENS)} (a file "
            "with it), the same on all machines",
            file=sys.stderr,
        )
        return 2
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
    os.environ |= patient_ray(FarmSpec().start_timeout_s)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    head, told = options.where == _HEAD, False
    while not stop.is_set():
        if head:
            _run(["--head", f"--port={options.port}", *of_ray], stop)
        elif _answers(options.where):
            _run([f"--address={numeric(options.where)}", *of_ray], stop)
        elif not told:
            print(f"Waiting for a head at {options.where}", file=sys.stderr, flush=True)
            told = True
        stop.wait(_AGAIN_S)
    return 0


def _run(options: Sequence[str], stop: threading.Event) -> None:
    """Keep Ray running until it ends or is to stop."""
    folder = Path(tempfile.mkdtemp(prefix="node-", dir=short_temp_dir()))
    words = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block"]
    ray = subprocess.Popen([*words, f"--temp-dir={folder}", *_OPTIONS, *options])
    process = psutil.Process(ray.pid)
    raylet: psutil.Process | None = None
    try:
        # Where the head has given a node up, Ray may wait on without what makes it one.
        while ray.poll() is None and (raylet is None or _runs(raylet)):
            raylet = raylet or _raylet(process)
            if stop.wait(_LOOK_S):
                break
    finally:
        _end(process, _STOP_GRACE_S if stop.is_set() else 0.0)
        ray.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _raylet(ray: psutil.Process) -> psutil.Process | None:
    with contextlib.suppress(psutil.Error):
        return next((child for child in ray.children() if child.name() == "raylet"), None)
    return None


def _runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _end(ray: psutil.Process, grace_s: float) -> None:
    """End Ray and everything it started, after some time by force."""
    own = [ray]
    with contextlib.suppress(psutil.Error):
        own += ray.children(recursive=True)
    with contextlib.suppress(psutil.Error):
        ray.terminate()
    kill_what_stays(own, grace_s)


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError):
        socket.create_connection((host.strip("[]"), int(port)), timeout=_TRY_S).close()
        return True
    return False


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m repast_dist.farm.node",
        description="Run Ray on one machine of a cluster until told to stop.",
        epilog="Other options go to `ray start`, for example --num-cpus=8 "
        """--resources='{"chip_host": 8}'.""",
    )
    parser.add_argument("where", metavar="head|HEAD:PORT", help="be the head, or join this one")
    parser.add_argument("--port", type=int, default=6379, help="where the head listens; 6379")
    return parser


if __name__ == "__main__":
    sys.exit(main())
