"""A run can be watched: Ray metrics, and a log with one line per event."""

import os
import subprocess
import sys
import textwrap

import pytest

SCENARIO = """
import io, time, urllib.request
from pathlib import Path
from rich.console import Console
from repast_dist.farm.cluster import cluster
from repast_dist.settings import load_settings
from repast_dist.studies import run_study

settings = load_settings([
    "run_root=%s", "model=digits_mlp", "train.max_steps=3", "farm.chips=1",
    "farm.dashboard=true",
])
with cluster(settings.farm):
    import ray
    run_dir = run_study(settings, Console(file=io.StringIO()))
    port = ray.nodes()[0]["MetricsExportPort"]
    wanted = ["steps", "loss", "inversion_residual", "simulated_seconds_per_second", "restarts"]
    for _ in range(240):
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
        missing = [name for name in wanted if f"ray_repast_{name}" not in text]
        if not missing:
            break
        time.sleep(0.25)
    assert not missing, missing
    log = (run_dir / "run.log").read_text().splitlines()
    assert sum(" INFO step " in line for line in log) == 3
    assert log[-1].endswith("run finished")
"""


@pytest.mark.ray
@pytest.mark.slow
def test_metrics_of_a_run_appear_at_the_nodes_metrics_port(tmp_path):
    code = textwrap.dedent(SCENARIO % tmp_path)
    # Ray reports every second instead of every ten.
    environment = os.environ | {"RAY_metrics_report_interval_ms": "1000"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-2000:]


UNWATCHED = """
import urllib.request
import psutil
from repast_dist.farm.cluster import cluster
from repast_dist.farm.specs import FarmSpec

with cluster(FarmSpec()):
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        for found in process.net_connections("tcp"):
            if found.status != psutil.CONN_LISTEN:
                continue
            address = f"http://127.0.0.{1 + found.laddr.ip.endswith('.2')}:{found.laddr.port}"
            try:
                text = urllib.request.urlopen(address + "/metrics", timeout=5).read()
            except Exception:
                continue
            raise AssertionError(f"{process.name()} tells anyone: {text[:200]}")
"""


@pytest.mark.ray
@pytest.mark.slow
def test_without_a_dashboard_no_port_tells_figures_of_the_machine():
    done = subprocess.run(
        [sys.executable, "-c", UNWATCHED], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-2000:]
