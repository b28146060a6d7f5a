"""Runs as runs of MLflow, on a server or in a file."""

import itertools
import os
import re
from typing import ClassVar

from repast_dist.ground.errors import ExportError
from repast_dist.studies.exports.base import Exporter
from repast_dist.studies.exports.curves import RunCurves

URI = "MLFLOW_TRACKING_URI"
"""The variable of MLflow that names the server."""

DATABASE = "mlflow.db"
"""Where there is no server: a database in the folder of all runs."""

# MLflow's limits for one call and for one value.
_METRICS, _PARAMS, _LONGEST = 1000, 100, 500
_FOLDER = "repast_dist.folder"


class MlflowRun(Exporter):
    """Writes a run of the experiment that is called like the study.

    Curves and key figures are metrics (in SI units), settings are parameters, and the answer is the
    description. It goes to the server that ``MLFLOW_TRACKING_URI`` names, else into ``mlflow.db``
    in ``run_root`` (``mlflow server --backend-store-uri sqlite:///runs/mlflow.db`` shows it).
    """

    extra: ClassVar[str] = "mlflow"

    def modules(self) -> tuple[str, ...]:
        """Return the modules that it imports."""
        return ("mlflow",) if os.environ.get(URI) else ("mlflow", "sqlalchemy", "alembic")

    def write(self, run: RunCurves) -> str:
        """Write a run in place of the one of the same run directory.

        Raises
        ------
        ExportError
            The server does not answer or refuses.
        """
        from mlflow.exceptions import MlflowException

        root = run.settings["run_root"]
        uri = os.environ.get(URI) or f"sqlite:///{os.path.abspath(root)}/{DATABASE}"
        try:
            return f"{uri}, experiment {run.study}, run {_write(uri, run)}"
        except MlflowException as error:
            line = str(error).partition("\n")[0]
            raise ExportError(
                f"export: MLflow at {uri} took no run ({line}); valid: study=report "
                f"study.run={run.folder} export=mlflow, where it answers"
            ) from error


def _write(uri: str, run: RunCurves) -> str:
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(run.study)
    experiment = found.experiment_id if found else client.create_experiment(run.study)
    folder = str(run.folder)
    earlier = client.search_runs([experiment], f"tags.`{_FOLDER}` = '{_quoted(folder)}'")
    made = client.create_run(experiment, round(1000 * run.began_s), run_name=run.folder.name)
    number: str = made.info.run_id
    last = max((point.step for point in run.points), default=0)
    metrics = [Metric(p.curve, p.value, round(1000 * p.at_s), p.step) for p in run.points]
    metrics += [
        Metric(_plain(f"figure/{name}"), value, round(1000 * run.ended_s), last)
        for name, (value, _) in run.figures.items()
    ]
    params = [Param(name, str(value)[:_LONGEST]) for name, value in run.settings.items()]
    tags = {_FOLDER: folder, "mlflow.note.content": run.answer}
    client.log_batch(number, tags=[RunTag(name, value) for name, value in tags.items()])
    for some in itertools.batched(params, _PARAMS):
        client.log_batch(number, params=some)
    for some in itertools.batched(metrics, _METRICS):
        client.log_batch(number, metrics=some)
    status = "FINISHED" if run.status == "finished" else "KILLED"
    client.set_terminated(number, status, round(1000 * run.ended_s))
    for old in earlier:
        client.delete_run(old.info.run_id)
    return number


def _plain(name: str) -> str:
    """Return a name of letters that MLflow takes."""
    return re.sub(r"[^\w\-./ :]", "_", name)


def _quoted(text: str) -> str:
    return text.replace("'", "''")
