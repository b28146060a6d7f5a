"""The questions a user asks: one module per study, chosen by ``study.name``."""

from collections.abc import Sequence

from repast_dist.studies.settings import RunSettings


def run_study(settings: RunSettings) -> int:
    """Run the study the settings name and return the exit status."""
    from repast_dist.studies.train import train

    train(settings)
    return 0
