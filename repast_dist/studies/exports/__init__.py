"""Runs as other programs read them: ``export=tensorboard`` and ``export=mlflow``.

A run is exported when it has ended, from what its directory holds; ``study=report study.run=RUN_DIR
export=tensorboard`` exports one that ended before.
"""

from pathlib import Path

from repast_dist.studies.exports.base import Exporter
from repast_dist.studies.exports.curves import read_curves
from repast_dist.studies.exports.mlflow_run import MlflowRun
from repast_dist.studies.exports.tensorboard_files import TensorboardFiles
from repast_dist.studies.settings import Export

_EXPORTERS: dict[Export, type[Exporter]] = {"tensorboard": TensorboardFiles, "mlflow": MlflowRun}


def exporter(kind: Export) -> Exporter:
    """Return what exports runs.

    Raises
    ------
    SettingsError
        A package that it needs is not installed.
    """
    made = _EXPORTERS[kind]()
    made.require()
    return made


def export_run(kind: Export, run_dir: Path) -> str:
    """Export a run that has ended, in place of what was exported of it before.

    Returns
    -------
    str
        Where it is.

    Raises
    ------
    RepastError
        The run directory is damaged, or a package or a server does not answer.
    """
    return exporter(kind).write(read_curves(run_dir))


__all__ = ["export_run", "exporter"]
