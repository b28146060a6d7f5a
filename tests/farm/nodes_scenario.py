"""A run of four chips spread over two nodes; one is removed, and another comes to take its place.

usage: nodes_scenario.py RUN_ROOT SETTING...
"""

import io
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

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


def hold_until(changed: threading.Event) -> None:
    """Let no run get far before its nodes have changed, however fast its steps are."""
    record = RunRecorder.steps

    def record_and_wait(self, *arguments):
        record(self, *arguments)
        changed.wait(0.7)

    RunRecorder.steps = record_and_wait


def patiently(start: Callable[[], Any]) -> Any:
    """Start a node; Ray gives one 30 s, which a busy machine may need more of."""
    for _ in range(3):
        try:
            return start()
        except Exception as error:
            if "timed out" not in str(error):
                raise
    return start()


def main() -> None:
    removed = threading.Event()
    hold_until(removed)
    root, *settings = sys.argv[1:]
    small = {"num_cpus": 1, "object_store_memory": 100_000_000}
    # Among the nodes is that of the coordinator, which stays.
    head = {**small, "include_dashboard": False, "resources": {"chip_host": 3}}
    cluster = patiently(partial(Cluster, initialize_head=True, head_node_args=head))
    first = patiently(partial(cluster.add_node, resources={"chip_host": 2}, **small))
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    failures: list[BaseException] = []

    def run() -> None:
        placed = ["farm.resources_per_worker={chip_host:1}", "farm.placement=spread"]
        try:
            loaded = load_settings([f"run_root={root}", *placed, *settings])
            run_study(loaded, Console(file=io.StringIO()))
        except BaseException as error:
            failures.append(error)

    # Nodes are started from the main thread, as Ray wants it.
    study = threading.Thread(target=run, daemon=True)
    study.start()
    try:
        while _steps_logged(Path(root)) < 2 and study.is_alive():
            time.sleep(0.01)
        cluster.remove_node(first, allow_graceful=False)
        removed.set()
        # The other node takes one of its chips; for a while there is no room for the second.
        time.sleep(3.0)
        patiently(partial(cluster.add_node, resources={"chip_host": 1}, **small))
        study.join()
        if failures:
            raise failures[0]
    finally:
        ray.shutdown()
        cluster.shutdown()


def _steps_logged(root: Path) -> int:
    logs = list(root.glob("train/*/run.log"))
    return logs[0].read_text().count(" INFO step ") if logs else 0


if __name__ == "__main__":
    main()
