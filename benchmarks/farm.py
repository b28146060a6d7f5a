"""Wall time of a training step: in this process, and on Ray with 1, 2 and 4 actors.

    python benchmarks/farm.py [--steps 16] [--chips 1 2 4]

Everything comes from the runs' own timings: ``wall_s`` of a step, and ``computing_s``, what the
slowest host of each part of the step and the coordinator computed. The rest of a step is Ray's
share: scheduling, moving values, waiting. All runs use one BLAS thread per process; ratios are to
the in-process run of the same call, on one core.
"""

import argparse
import io
import json
import statistics
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from repast_dist.settings import load_settings
from repast_dist.studies import run_study

MODELS = {
    "default (digits_cnn)": [],
    "10x larger (fashion_mlp)": ["model=fashion_mlp", "dataset=fashion_small"],
}
WARM_UP = 3


def main() -> None:
    """Print one table per model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--chips", type=int, nargs="+", default=[1, 2, 4])
    options = parser.parse_args()
    console = Console()
    for title, model in MODELS.items():
        console.print(_table(title, model, options.steps, options.chips))


def _table(title: str, model: list[str], steps: int, chips: list[int]) -> Table:
    table = Table(title=f"{title}: one training step", title_justify="left")
    for name in ("farm", "median ms", "in-process / this", "Ray's share"):
        table.add_column(name, justify="right")
    reference = None
    for backend, count in [("inprocess", 1), *(("ray", number) for number in chips)]:
        settings = [*model, f"farm.backend={backend}", f"farm.chips={count}"]
        records = _records([*settings, f"train.max_steps={steps + WARM_UP}"])[WARM_UP:]
        wall_s = statistics.median(record["wall_s"] for record in records)
        share = statistics.median(
            1 - record["computing_s"] / record["wall_s"] for record in records
        )
        reference = reference or wall_s
        name = "in process" if backend == "inprocess" else f"Ray, {count} actors"
        table.add_row(name, f"{wall_s * 1e3:.1f}", f"{reference / wall_s:.2f}", f"{share:.1%}")
    return table


def _records(settings: list[str]) -> list[dict[str, float]]:
    with tempfile.TemporaryDirectory() as root:
        loaded = load_settings([f"run_root={root}", *settings])
        run_dir: Path = run_study(loaded, Console(file=io.StringIO()))
        return json.loads((run_dir / "result.json").read_text())["steps"]


if __name__ == "__main__":
    main()
