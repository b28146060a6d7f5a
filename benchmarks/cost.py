"""Speed of the cost model: pricing rows, planning and costing networks on many chips.

    python benchmarks/cost.py [--networks vgg16 resnet50 bert_base] [--chips 1 16 256 4096]

Ratios are taken within one call: rows per second against NumPy adding one float64 column of the
same length, and the time of a point against that of half its chips.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.table import Table

from repast_dist.network.tables import network_table
from repast_dist.ops import op, op_rows, price
from repast_dist.ops.table import COUNTS, SERIAL
from repast_dist.planning.machine import Machine
from repast_dist.planning.summary import summarise
from repast_dist.settings import load_settings

ROWS = 1_000_000
GOAL_ROWS_PER_S = 5e6
REPEATS = 5


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=["vgg16", "resnet50", "bert_base"])
    parser.add_argument("--chips", type=int, nargs="+", default=[1, 16, 256, 4096])
    options = parser.parse_args()
    machine = load_settings(["chip=repast", "soi.interval=10"]).machine
    console = Console()
    console.print(_pricing(machine))
    console.print(_points(machine, options.networks, options.chips))


def _pricing(machine: Machine) -> Table:
    random = np.random.default_rng(0)
    columns = {name: random.integers(0, 1000, ROWS) for name in (*COUNTS, *SERIAL)}
    rows = op_rows(op.VMM_FORWARD, chip=np.zeros(ROWS, np.int32), **columns)
    costs = machine.hardware.costs
    priced = _best(lambda: price(rows, costs))
    total = np.zeros(ROWS)
    added = _best(lambda: np.add(total, 1.0, out=total))
    table = Table(title=f"Pricing {ROWS:,} rows with every column filled", title_justify="left")
    for name in ("million rows/s", "goal", "columns of NumPy additions"):
        table.add_column(name, justify="right")
    table.add_row(
        f"{ROWS / priced / 1e6:.1f}", f"{GOAL_ROWS_PER_S / 1e6:.0f}", f"{priced / added:.0f}"
    )
    return table


def _points(machine: Machine, networks: list[str], chips: list[int]) -> Table:
    table = Table(title="Plan and average step, 8 samples per chip", title_justify="left")
    for name in ("network", "chips", "plan s", "cost s", "priced rows"):
        table.add_column(name, justify="left" if name == "network" else "right")
    for network in networks:
        workload = network_table(network)
        for count in chips:
            started = time.perf_counter()
            plan = machine.plan(workload, count, max(256, 8 * count), 8)
            planned = time.perf_counter()
            summary = summarise(plan)
            ended = time.perf_counter()
            table.add_row(
                network,
                f"{count:,}",
                f"{planned - started:.2f}",
                f"{ended - planned:.2f}",
                f"{summary.rows:,}",
            )
    return table


def _best(work: Callable[[], object]) -> float:
    """Return the shortest of several runs, in seconds."""
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


if __name__ == "__main__":
    main()
