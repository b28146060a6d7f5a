"""A long run, shortened: memory stays flat, and the run directory grows with the steps alone."""

import importlib.util
import os
from pathlib import Path

import pytest

SOAK = Path(__file__).parents[2] / "benchmarks" / "soak.py"
STEPS = 5000 if os.environ.get("REPAST_FUZZ") == "full" else 400


@pytest.mark.slow
def test_memory_stays_flat_and_the_disk_holds_what_the_steps_need(tmp_path):
    spec = importlib.util.spec_from_file_location("soak", SOAK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    looks = module.soak(STEPS, tmp_path)
    assert [look.steps for look in looks] == list(range(STEPS // 10, STEPS + 1, STEPS // 10))
    settled, last = looks[3], looks[-1]
    # Records of a step are some kilobytes; a copy of the data set would be more.
    grown = last.memory_bytes - settled.memory_bytes
    assert grown < 50_000 * (last.steps - settled.steps)
    assert last.files <= settled.files + 1
    per_step = [look.trace_bytes / look.steps for look in looks]
    # Parts of the trace that are compressed take less.
    assert max(per_step) < 1.2 * per_step[0]
    assert last.other_bytes / last.steps < settled.other_bytes / settled.steps
