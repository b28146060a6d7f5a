"""A run of four chips spread over two nodes, one of which is removed.

usage: nodes_scenario.py RUN_ROOT SETTING...
"""

import io
import os
import secrets
import sys
import threading
import time
from pathlib import Path

os.environ |= {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_USAGE_STATS_ENABLED": "0",
}

import ray
from ray.cluster_utils import Cluster
from rich.console import Console

from repast_dist.settings import load_settings
from repast_dist.studies import run_study
from repast_dist.studies.recorder import RunRecorder


def slow_down() -> None:
    """Let steps take as long as it takes to change nodes."""
    record = RunRecorder.step

    def record_and_wait(self, *arguments):
        record(self, *arguments)
        time.sleep(0.7)

    RunRecorder.step = record_and_wait


def main() -> None:
    slow_down()
    root, *settings = sys.argv[1:]
    small = {"num_cpus": 1, "object_store_memory": 100_000_000}
    cluster = Cluster(initialize_head=True, head_node_args=small)
    first = cluster.add_node(resources={"chip_host": 2}, **small)
    cluster.add_node(resources={"chip_host": 4}, **small)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")

    def change_nodes():
        while _steps_logged(Path(root)) < 2:
            time.sleep(0.01)
        cluster.remove_node(first, allow_graceful=False)

    thread = threading.Thread(target=change_nodes, daemon=True)
    thread.start()
    try:
        placed = ["farm.resources_per_actor={chip_host:1}", "farm.placement=spread"]
        loaded = load_settings([f"run_root={root}", *placed, *settings])
        run_study(loaded, Console(file=io.StringIO()))
        thread.join(timeout=30)
        assert not thread.is_alive(), "the node was never removed"
    finally:
        ray.shutdown()
        cluster.shutdown()


def _steps_logged(root: Path) -> int:
    logs = list(root.glob("train/*/run.log"))
    return logs[0].read_text().count(" INFO step ") if logs else 0


if __name__ == "__main__":
    main()
