"""``study=scaling``: how a step grows with chips, on networks, interconnects and placements.

Strong scaling keeps the batch, weak scaling the batch per chip. Nothing is simulated: each point
is a plan and its average step.
"""

from pathlib import Path

from rich.console import Console

from repast_dist.network.workload import named_workload
from repast_dist.report.console import print_table
from repast_dist.studies.costing import chosen_workload, print_networks
from repast_dist.studies.kinds.scaling import ScalingStudy
from repast_dist.studies.output import finish
from repast_dist.studies.points import PointRunner
from repast_dist.studies.scaling.page import idle_chips, scaling_page
from repast_dist.studies.scaling.points import ScalingJob, cost_job, scaling_points
from repast_dist.studies.settings import RunSettings


def run(study: ScalingStudy, settings: RunSettings, run_dir: Path | None, console: Console) -> Path:
    """Cost all points of the settings."""
    machine = settings.machine
    if study.networks:
        workloads = [named_workload(name) for name in study.networks]
    else:
        workloads = [chosen_workload(settings)]
    points = scaling_points(
        workloads, study.modes, study.chips, study.batch_size, study.micro_batch_size
    )
    runner = PointRunner.of(study, settings, run_dir, console)
    # The largest points take longest: first, so that no worker waits for the last one.
    jobs = [ScalingJob(machine, point) for point in points][::-1]
    records = runner.records("costing", cost_job, jobs)[::-1]
    page = scaling_page(machine, records, workloads)
    columns = ("network", "mode", "chips", "working_chips", "step_s", "samples_per_s", "efficiency",
               "energy_per_sample_j", "limited_by")  # fmt: skip
    points_table = page.tables["points"]
    shown = points_table.select([name for name in columns if name in points_table.column_names])

    def details() -> None:
        print_table("Scaling", shown, console)
        for line in idle_chips(machine, records):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        print_networks(workloads, console)

    return finish(page, settings, console, runner.run_dir, details)
