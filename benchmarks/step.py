"""CPU time of a K-FAC step on simulated arrays over that of the same step in float64.

    python benchmarks/step.py [--cycles 3] [--networks default honest fashion_cnn ...]

One worker in this process holds all chips; both engines take turns, `soi.interval` steps at a
time, so that programming the SOI blocks has its part. The median over the cycles is shown, after
one that is not counted, where code is compiled and ranges of converters are found. CPU time, unlike
wall time, hardly depends on what else the machine does. `cifar_resnet` learns random pictures of
CIFAR-10's shape.
"""

import argparse
import contextlib
import statistics
import tempfile
import time
from pathlib import Path

from pictures import random_pictures
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from repast_dist.analog.kernels.chosen import current
from repast_dist.farm.peers import NoPeers
from repast_dist.farm.setup import beginning, make_setup
from repast_dist.farm.worker import ChipWorker
from repast_dist.settings import load_settings
from repast_dist.studies.settings import training_job

NETWORKS = {
    "default": ([], ["engine=float64"]),
    "honest": (["experiment=honest"], ["engine=float64"]),
    "fashion_cnn": (["model=fashion_cnn", "dataset=fashion_small"], None),
    "fashion_mlp": (["model=fashion_mlp", "dataset=fashion_small"], None),
    "digits_transformer": (["model=digits_transformer"], None),
    "cifar_resnet": (["model=cifar_resnet", "dataset=npz", "dataset.path={data}"], None),
}
"""Settings of the run, and of the reference; None: the same with engine=float64."""

MOST_TIMES, MOST_S = {"fashion_cnn": 3.0}, {"cifar_resnet": 2.0}
"""Goals: times the float64 step, and seconds per step."""


class Steps:
    """A training run in this process, a cycle of steps at a time."""

    def __init__(self, settings: list[str]) -> None:
        loaded = load_settings(
            [*settings, "farm=inprocess", "train.epochs=1000", "train.max_steps=1000"]
        )
        setup = make_setup(training_job(loaded), loaded.dataset.load())
        self._worker = ChipWorker(setup.chips, setup, NoPeers())
        self._worker.restore(0, beginning(setup).arrays)
        self._cycle, self._step = loaded.soi.interval, 0
        self.batch = loaded.train.batch_size

    def cpu_s(self) -> float:
        """Do the next cycle and return the CPU time of one of its steps."""
        start = time.process_time()
        self._worker.advance(self._step, self._cycle)
        self._step += self._cycle
        return (time.process_time() - start) / self._cycle


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cycles", type=int, default=3, help="cycles of steps that are timed")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    options = parser.parse_args()
    table = Table(
        title=f"One K-FAC step on one core, kernels {current().name}", title_justify="left"
    )
    for name in ("network", "batch", "float64", "analog", "ratio", "goal", "met"):
        table.add_column(name, justify="left" if name == "network" else "right", no_wrap=True)
    with threadpool_limits(1), tempfile.TemporaryDirectory() as folder:
        data = random_pictures(Path(folder) / "pictures.npz")
        for network in options.networks:
            table.add_row(network, *_measure(network, data, options.cycles))
    Console(width=100).print(table)


def _measure(network: str, data: Path, cycles: int) -> list[str]:
    settings, reference = NETWORKS[network]
    settings = [part.format(data=data) for part in settings]
    analog, exact = Steps(settings), Steps(reference or [*settings, "engine=float64"])
    pairs = [(analog.cpu_s(), exact.cpu_s()) for _ in range(cycles + 1)][1:]
    ours, theirs = (statistics.median(part) for part in zip(*pairs, strict=True))
    goal, met = "", ""
    with contextlib.suppress(KeyError):
        goal = f"{MOST_TIMES[network]:g} times"
        met = "yes" if ours <= MOST_TIMES[network] * theirs else "NO"
    with contextlib.suppress(KeyError):
        goal = f"{MOST_S[network]:g} s"
        met = "yes" if ours <= MOST_S[network] else "NO"
    times = [f"{theirs * 1e3:.0f} ms", f"{ours * 1e3:.0f} ms", f"{ours / theirs:.1f}"]
    return [str(analog.batch), *times, goal, met]


if __name__ == "__main__":
    main()
