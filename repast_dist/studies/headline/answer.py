"""``study=headline`` compares RePAST with a GPU and PipeLayer on the same networks.

It does so for three numbers of chips: one chip; as many chips as the GPU's board power can supply
at their average power; and the smallest power of two of chips that reaches the paper's speedup
over the GPU. The batch grows with the number of chips, and throughputs are compared at the same
work per sample.
"""

from pathlib import Path

from rich.console import Console

from repast_dist.report.console import data_table
from repast_dist.studies.headline.inputs import HeadlineInputs
from repast_dist.studies.headline.page import headline_page
from repast_dist.studies.kinds.headline import HeadlineStudy
from repast_dist.studies.output import finish
from repast_dist.studies.settings import RunSettings


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
        )
    )
    console.print(data_table("Means over networks", page.tables["means"]))
    return finish(page, settings, console)
