"""The time of day may jump at any moment: no limit, lease or order of anything follows it."""

import ast
import concurrent.futures
import datetime
import io
import json
import random
import time
import types
from pathlib import Path

import numpy as np
import pytest
from conftest import final_arrays
from rich.console import Console

import repast_dist
from repast_dist.farm.certificate import RunCertificate
from repast_dist.farm.failures import PeersLost
from repast_dist.farm.peers import SocketPeers
from repast_dist.farm.specs import FarmSpec
from repast_dist.farm.startup import Patience
from repast_dist.ground.errors import FarmError
from repast_dist.settings import load_settings
from repast_dist.studies import run_study
from repast_dist.trace import verify

ROOT = Path(repast_dist.__file__).parent
TIME_OF_DAY = {"time", "time_ns", "localtime", "gmtime", "now", "today", "utcnow"}
RECORDS = {
    "farm/certificate.py": "from when to when a certificate is valid: ten years around now",
    "studies/run_directory.py": "the name of a run directory",
    "studies/recorder.py": "when a run began, and when something happened",
}
"""Where the time of day is asked for, and what is written down with it."""
YEARS_S = 20 * 365 * 86400.0


def asks_for_the_time_of_day(source: str) -> bool:
    if not any(f".{name}(" in source for name in TIME_OF_DAY):
        return False
    return any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in TIME_OF_DAY
        and ast.unparse(node.func.value).rpartition(".")[2] in {"time", "datetime", "date"}
        for node in ast.walk(ast.parse(source))
    )


def test_the_time_of_day_is_asked_for_to_be_written_down_only():
    assert asks_for_the_time_of_day("started = time.time()")
    assert not asks_for_the_time_of_day("started = time.monotonic()")
    found = {
        str(path.relative_to(ROOT))
        for path in ROOT.rglob("*.py")
        if asks_for_the_time_of_day(path.read_text())
    }
    assert found == set(RECORDS)


@pytest.fixture
def jumping(monkeypatch):
    """Let the time of day jump by twenty years, to and fro, whenever somebody asks for it."""
    asked, lot = [], random.Random(0)

    def jumped(real):
        def time_of_day():
            asked.append(real())
            return asked[-1] + lot.choice((-YEARS_S, 0.0, YEARS_S))

        return time_of_day

    class Jumping(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls.fromtimestamp(time.time(), tz)

    monkeypatch.setattr(time, "time", jumped(time.time))
    # In one module alone: libraries in C know the class that there is.
    own = types.SimpleNamespace(datetime=Jumping)
    monkeypatch.setattr("repast_dist.studies.run_directory.datetime", own)
    return asked


def test_workers_join_and_give_up_when_they_should_though_the_clock_jumps(jumping):
    peers, certificate = [SocketPeers("127.0.0.1", 0.5) for _ in range(2)], RunCertificate.make()
    endpoints = {worker: own.endpoint for worker, own in enumerate(peers)}
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        joined = pool.submit(peers[0].connect, 0, endpoints, certificate, 20.0)
        peers[1].connect(1, endpoints, certificate, 20.0)
        joined.result()
    peers[1].send(0, "sums", {0: {("x",): np.ones(3)}})
    np.testing.assert_array_equal(peers[0].receive(0, "sums")[1]["x",], np.ones(3))
    started = time.monotonic()
    with pytest.raises(PeersLost, match=r"no word from workers \[1\] in 0.5 s"):
        peers[0].receive(1, "sums")
    assert 0.5 <= time.monotonic() - started < 5.0
    for own in peers:
        own.close()


def test_a_start_has_the_time_that_is_left_though_the_clock_jumps(jumping):
    patience = Patience(FarmSpec(start_timeout_s=60.0), 2, lambda: True)
    for _ in range(20):
        patience.check(1)
        assert 0 < patience.left_s <= 60.0
    patience = Patience(FarmSpec(start_timeout_s=0.2), 2, lambda: True)
    patience.check(1)
    time.sleep(0.2)
    with pytest.raises(FarmError, match=r"1 of 2 workers did not start in 0\.2 s"):
        patience.check(1)


@pytest.mark.slow
def test_a_run_is_the_same_though_the_clock_jumps(tmp_path, jumping):
    small = ["model=digits_mlp", "train.max_steps=3", "farm.backend=inprocess", "farm.chips=2"]
    runs = []
    for _ in range(4):
        settings = load_settings([*small, f"run_root={tmp_path}"])
        runs.append(run_study(settings, Console(file=io.StringIO())))
    assert len({run.name[:4] for run in runs}) > 1, "their names have different years"
    for run in runs:
        assert final_arrays(run) == final_arrays(runs[0])
        assert verify(run / "trace", steps=3) == []
        steps = json.loads((run / "result.json").read_text())["steps"]
        assert all(0 <= step["wall_s"] < 100 for step in steps)
    assert jumping
