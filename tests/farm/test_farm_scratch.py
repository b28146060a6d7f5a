"""The folder of a local cluster, and what the next start does with what killed runs have left."""

import os
import subprocess
import sys

import psutil
import pytest

from repast_dist.farm import scratch
from repast_dist.farm.watcher import RUN_MARK


@pytest.fixture(autouse=True)
def somewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(scratch, "short_temp_dir", lambda: str(tmp_path))
    return tmp_path


def test_a_folder_is_its_owners_alone_and_is_gone_with_the_run(somewhere):
    with scratch.scratch_folder("mark") as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        assert scratch.clear_left_behind() == []
        assert folder.is_dir()
    assert list(somewhere.iterdir()) == []


def test_what_a_killed_run_and_its_watcher_have_left_is_ended_and_deleted(somewhere):
    mark = os.urandom(8).hex()
    agent = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(100)"],
        env={**os.environ, RUN_MARK: mark},
        stdout=subprocess.PIPE,
    )
    bystander = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(100)"], env={**os.environ, RUN_MARK: "no"}
    )
    try:
        code = (
            "import os, sys; from repast_dist.farm import scratch;"
            f"scratch.short_temp_dir = lambda: {str(somewhere)!r};"
            f"kept = scratch.scratch_folder({mark!r}); folder = kept.__enter__();"
            "(folder / 'r').mkdir(); print(folder, flush=True); os.kill(os.getpid(), 9)"
        )
        killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        (folder,) = somewhere.iterdir()
        assert killed.stdout.strip() == str(folder)
        with scratch.scratch_folder("other") as living:
            assert scratch.clear_left_behind() == [folder]
            assert list(somewhere.iterdir()) == [living]
        agent.wait(timeout=10)
        assert psutil.pid_exists(bystander.pid)
    finally:
        agent.kill(), bystander.kill()
        agent.wait(), bystander.wait()
