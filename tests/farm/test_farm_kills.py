"""Runs, resumes, recoveries, reports and sweeps that are killed at any moment end with the same
numbers, to the bit; ``kills_scenario.py`` does it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TRIALS, LEAST_KILLS = (60, 250) if os.environ.get("REPAST_FUZZ") == "full" else (6, 25)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_what_is_killed_at_any_moment_ends_with_the_same_numbers(tmp_path):
    script = str(Path(__file__).with_name("kills_scenario.py"))
    words = [sys.executable, script, str(tmp_path), "0", str(TRIALS)]
    # Threads do not survive a fork.
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
    done = subprocess.run(words, capture_output=True, text=True, timeout=3500, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    kills = json.loads(done.stdout.splitlines()[-1])
    assert sum(kills.values()) >= LEAST_KILLS, kills
    for kind in ("train", "recover", "sweep"):
        assert min(kills[kind], kills[f"resume of {kind}"]) > 0
    assert kills["report"] > 0
