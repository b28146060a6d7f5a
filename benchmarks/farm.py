"""Wall time of a training step: in this process, and on Ray with 1, 2 and 4 workers.

    python benchmarks/farm.py [--steps 40] [--rounds 3] [--chips 1 2 4] [--models default resnet]

Everything comes from the runs' own timings: ``wall_s`` of a step, and ``computing_s``, what the
slowest worker of each part of the step computed. The rest of a step is Ray's share: scheduling,
moving values, waiting. A step's time is the mean over ``soi.interval`` steps, so that programming
the SOI blocks has its part in it. Farms take turns, and the lower quartile over all rounds is
shown beside the median, since other users of the machine only ever make a step slower. All runs
use one BLAS thread per process, and Ray's workers simulate a chip each. Ratios are to the run in
one process, on one core, that simulates the same chips: what a farm is for. Beside them stands the
same of one chip with all of the batch.

What the machine allows is measured beside: as many in-process runs at once as there are workers,
which have nothing to do with each other. Their ratio counts the steps of all of them, and says how
many times the work of one process the cores do at most.
"""

import argparse
import concurrent.futures
import dataclasses
import io
import json
import multiprocessing
import statistics
import tempfile
from pathlib import Path

from pictures import random_pictures
from rich.console import Console
from rich.table import Table

from repast_dist.settings import load_settings
from repast_dist.studies import run_study

# Larger blocks keep chips busy for longer, so sharing their right-hand sides pays.
MODELS = {
    "default": ("default: digits_cnn, 3,658 weights", []),
    "10x": (
        "14 times the weights: fashion_cnn, right-hand sides shared",
        ["model=fashion_cnn", "dataset=fashion_small", "partition=shared"],
    ),
    "mlp": (
        "30 times the weights: fashion_mlp, right-hand sides shared",
        ["model=fashion_mlp", "dataset=fashion_small", "partition=shared"],
    ),
    "resnet": (
        "5 times the weights: cifar_resnet, random pictures, right-hand sides shared",
        ["model=cifar_resnet", "dataset=npz", "dataset.path={data}", "partition=shared"],
    ),
}
GOAL = {2: 1.8}
"""Times that so many workers, of a chip each, are to be as fast as one process with all of them, on
as many cores of their own.
"""

# The first steps load libraries and find out how many steps to ask for at once.
WARM_UP = 5


@dataclasses.dataclass
class Farm:
    """What was measured of one farm, or of several runs apart, per cycle of steps."""

    name: str
    chips: int
    ray: bool = False
    runs: int = 1
    wall_s: list[float] = dataclasses.field(default_factory=list)
    share: list[float] = dataclasses.field(default_factory=list)

    def run(self, settings: list[str], steps: int) -> None:
        """Measure one run, or as many at once as are apart."""
        backend = "ray" if self.ray else "inprocess"
        chosen = [*settings, f"farm.chips={self.chips}", f"farm.backend={backend}"]
        chosen.append("train.epochs=1000")
        if self.runs == 1:
            measured = [cycles(chosen, steps)]
        else:
            apart = multiprocessing.get_context("spawn")
            with concurrent.futures.ProcessPoolExecutor(self.runs, apart) as pool:
                measured = list(pool.map(cycles, [chosen] * self.runs, [steps] * self.runs))
        for wall_s, computing_s in (cycle for run in measured for cycle in run):
            self.wall_s.append(wall_s / self.runs)
            self.share.append(1 - computing_s / wall_s)

    @property
    def quartile_s(self) -> float:
        """Lower quartile of a step."""
        return statistics.quantiles(self.wall_s, n=4)[0]


def cycles(settings: list[str], steps: int) -> list[tuple[float, float]]:
    """Run, and return the mean wall time and computing time of a step, per cycle of steps."""
    with tempfile.TemporaryDirectory() as root:
        loaded = load_settings(
            [f"run_root={root}", *settings, f"train.max_steps={steps + WARM_UP}"]
        )
        run_dir: Path = run_study(loaded, Console(file=io.StringIO()))
        records = json.loads((run_dir / "result.json").read_text())["steps"][WARM_UP:]
    cycle = loaded.soi.interval
    parts = [records[first : first + cycle] for first in range(0, len(records) - cycle + 1, cycle)]
    return [
        (
            statistics.fmean(record["wall_s"] for record in part),
            statistics.fmean(record["computing_s"] for record in part),
        )
        for part in parts
    ]


def main() -> None:
    """Print one table per model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=40, help="steps of a run")
    parser.add_argument("--rounds", type=int, default=3, help="runs of every farm")
    parser.add_argument("--chips", type=int, nargs="+", default=[1, 2, 4])
    # Steps of the last one take seconds.
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS)[:-1])
    options = parser.parse_args()
    console = Console()
    for model in options.models:
        title, settings = MODELS[model]
        farms = [Farm("1 in process", 1)]
        for n in options.chips:
            if n > 1:
                farms += [Farm(f"{n} in process", n), Farm(f"{n} runs apart", n, runs=n)]
            farms.append(Farm(f"{n} on Ray", n, ray=True))
        with tempfile.TemporaryDirectory() as folder:
            data = random_pictures(Path(folder) / "pictures.npz")
            settings = [part.format(data=data) for part in settings]
            for _ in range(options.rounds):
                for farm in farms:
                    farm.run(settings, options.steps)
        console.print(_table(title, farms))


def _table(title: str, farms: list[Farm]) -> Table:
    table = Table(title=f"{title}: one training step", title_justify="left")
    ratios = "ratio, medians", "ratio, quartiles", "goal", "met"
    for name in ("chips", "median", "quartile", *ratios, "Ray's share"):
        table.add_column(name, justify="right")
    alone = {farm.chips: farm for farm in farms if not farm.ray and farm.runs == 1}
    for farm in farms:
        one = alone[farm.chips]
        median_s = statistics.median(farm.wall_s)
        ratio = one.quartile_s / farm.quartile_s
        goal = GOAL.get(farm.chips) if farm.ray else None
        met = "yes" if goal and ratio >= goal else "NO"
        table.add_row(
            farm.name,
            f"{median_s * 1e3:.1f} ms",
            f"{farm.quartile_s * 1e3:.1f} ms",
            f"{statistics.median(one.wall_s) / median_s:.2f}",
            f"{ratio:.2f}",
            "" if goal is None else f"{goal:g}",
            "" if goal is None else met,
            f"{statistics.median(farm.share):.1%}",
        )
    return table


if __name__ == "__main__":
    main()
