"""Speed of the cost model: pricing rows, planning and costing networks on many chips, and points of
a search.

    python benchmarks/cost.py [--networks vgg16 resnet50 bert_base] [--chips 1 16 256 4096]
                              [--points 24] [--searched 1 4]

Ratios are taken within one call: rows per second against NumPy adding one float64 column of the
same length, and the time of a point against that of half its chips. Points of a search are random
designs of `search=headline`, each measured as a step of one network costs, in processor time.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import optuna
from rich.console import Console
from rich.table import Table

from repast_dist.network.tables import network_table
from repast_dist.ops import op, op_rows, price
from repast_dist.ops.table import COUNTS, SERIAL
from repast_dist.planning.machine import Machine
from repast_dist.planning.summary import summarise
from repast_dist.settings import load_settings
from repast_dist.studies.measures.cost import CostMeasure
from repast_dist.studies.search.evaluate import SearchPoint, Shared, measured_point
from repast_dist.studies.search.space import Space

ROWS = 1_000_000
GOAL_ROWS_PER_S = 5e6
REPEATS = 5


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=["vgg16", "resnet50", "bert_base"])
    parser.add_argument("--chips", type=int, nargs="+", default=[1, 16, 256, 4096])
    parser.add_argument("--points", type=int, default=24)
    parser.add_argument("--searched", type=int, nargs="+", default=[1, 4])
    options = parser.parse_args()
    machine = load_settings(["chip=repast", "soi.interval=10"]).machine
    console = Console()
    console.print(_pricing(machine))
    console.print(_points(machine, options.networks, options.chips))
    console.print(_searched(options.networks, options.searched, options.points))


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


def _searched(networks: list[str], chips: list[int], points: int) -> Table:
    table = Table(title="Points of a search, processor time", title_justify="left")
    for name in ("network", "chips", "points", "refused", "median ms", "quartiles", "points/s"):
        table.add_column(name, justify="left" if name == "network" else "right")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for network in networks:
        for count in chips:
            settings = load_settings(
                ["search=headline", f"workload={network}", f"farm.chips={count}"]
            )
            shared = Shared(settings, {"cost": CostMeasure()})
            space = Space.of(settings.study.parameters, settings, "study.parameters")
            drawn = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
            measured_point(shared, SearchPoint(0, {}))  # Imports, and what a search does once.
            spent, refused = [], 0
            for number in range(points):
                changes = space.changes(drawn.ask(space.distributions()).params)
                record = measured_point(shared, SearchPoint(number, changes))
                refused += "refused" in record
                spent += [] if "refused" in record else [1e3 * record["cpu_s"]]
            first, median, third = statistics.quantiles(spent, n=4)
            table.add_row(
                network,
                f"{count:,}",
                f"{len(spent)}",
                f"{refused}",
                f"{median:.0f}",
                f"{first:.0f} to {third:.0f}",
                f"{1e3 * len(spent) / sum(spent):.1f}",
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
