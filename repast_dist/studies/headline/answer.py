"""``study=headline`` compares RePAST with a GPU and PipeLayer on the same networks.

It does so for several numbers of chips (`footings.py`): as many as the power feeds that the
paper's ratios imply, one chip, as many as the GPU's power feeds or its die holds, and the smallest
power of two of chips that reaches the paper's speedup over the GPU. The batch grows with the number
of chips, and throughputs are compared at the same work per sample.
"""

from pathlib import Path

from rich.console import Console

from repast_dist.network.workload import named_workload
from repast_dist.planning.machine import Machine
from repast_dist.report.console import print_table
from repast_dist.studies.costing import print_networks
from repast_dist.studies.headline.inputs import HeadlineInputs
from repast_dist.studies.headline.page import headline_page
from repast_dist.studies.kinds.headline import HeadlineStudy
from repast_dist.studies.output import finish
from repast_dist.studies.settings import RunSettings
from repast_dist.studies.variants import varied


def run(
    study: HeadlineStudy, settings: RunSettings, run_dir: Path | None, console: Console
) -> Path:
    """Compare the chip of the settings with a GPU and PipeLayer.

    Raises
    ------
    SettingsError
        The baseline is no GPU.
    """
    page = headline_page(
        HeadlineInputs(
            study=study,
            machine=settings.machine,
            gpu=settings.gpu,
            epochs=settings.epochs,
            bridge=_bridge(study, settings),
        )
    )

    def details() -> None:
        print_table("Ratios beside the paper's", page.tables["footings"], console)
        print_networks([named_workload(name) for name in study.networks], console)

    return finish(page, settings, console, details=details)


def _bridge(study: HeadlineStudy, settings: RunSettings) -> dict[str, Machine]:
    """Return the machines of the bridge; each has the changes of those before it."""
    machines, now = {}, settings
    for name, changes in study.bridge.items():
        now = varied(now, changes, f"study.bridge.{name}")
        machines[name] = now.machine
    return machines
