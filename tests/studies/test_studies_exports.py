"""Runs as TensorBoard and MLflow read them: their own readers find what the run directory holds."""

import datetime
import importlib.util
import json
import shutil

import pytest
from rich.console import Console

from repast_dist.api.loading import checked_settings
from repast_dist.ground.errors import SettingsError
from repast_dist.ground.files import changed_since_sealed
from repast_dist.settings import load_settings
from repast_dist.studies import run_study
from repast_dist.studies.exports import export_run
from repast_dist.studies.output import read_answer, read_figures

QUIET = Console(quiet=True)
TRAIN = (
    "model=digits_mlp", "engine=float64", "optimizer=sgd", "farm=inprocess", "farm.chips=1",
    "train.epochs=2", "train.batch_size=32", "dataset.train_samples=64",
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return run_study(load_settings([f"run_root={root}", *TRAIN]), QUIET)


def export(trained, kind):
    """Export a run that ended before; sweeps and single runs go the same way when they end."""
    words = ["study=report", f"study.run={trained}", f"run_root={trained.parents[1]}"]
    run_study(load_settings([*words, f"export={kind}"]), QUIET)
    return json.loads((trained / "result.json").read_text())


def curves(result):
    steps = {name: [(item["step"] + 1, item[name]) for item in result["steps"]]
             for name in ("loss", "accuracy")}  # fmt: skip
    epochs = {name: [(item["step"], item[name]) for item in result["epochs"]]
              for name in ("train_loss", "test_loss", "test_accuracy")}  # fmt: skip
    times = [item["time_s"] for item in result["steps"]]
    simulated = [(n, sum(times[:n])) for n in range(1, len(times) + 1)]
    return {
        **{f"step/{name}": points for name, points in steps.items()},
        **{f"epoch/{name}": points for name, points in epochs.items()},
        "step/simulated_s": simulated,
    }


def test_tensorboard_reads_the_curves_figures_and_settings_of_a_run(trained):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="no TensorBoard"
    )
    for _ in range(2):  # The second export takes the place of the first.
        result = export(trained, "tensorboard")
        read = accumulator.EventAccumulator(str(trained / "tensorboard"))
        read.Reload()
        for name, points in curves(result).items():
            found = read.Scalars(name)
            assert [event.step for event in found] == [step for step, _ in points]
            assert [event.value for event in found] == pytest.approx([v for _, v in points])
    for name, (value, _) in read_figures(trained).items():
        assert read.Scalars(f"figure/{name}")[0].value == pytest.approx(value)
    (answer,) = read.Tensors("answer")
    assert answer.tensor_proto.string_val[0].decode() == read_answer(trained)
    from tensorboard.plugins.hparams import plugin_data_pb2

    # A network that classifies has no squared error.
    assert "epoch/test_squared_error" not in read.Tags()["scalars"]
    summary = read.SummaryMetadata("_hparams_/session_start_info")
    stored = plugin_data_pb2.HParamsPluginData.FromString(summary.plugin_data.content)
    assert stored.session_start_info.hparams["train.batch_size"].number_value == 32
    assert stored.session_start_info.hparams["optimizer.method"].string_value == "sgd"
    assert changed_since_sealed(trained) == []


@pytest.mark.slow
def test_mlflow_reads_the_curves_figures_and_settings_of_a_run(trained, monkeypatch):
    tracking = pytest.importorskip("mlflow.tracking", reason="no MLflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for _ in range(2):  # The second export takes the place of the first.
        result = export(trained, "mlflow")
        client = tracking.MlflowClient(f"sqlite:///{trained.parents[1]}/mlflow.db")
        experiment = client.get_experiment_by_name("train")
        (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == trained.name
    assert run.info.status == "FINISHED"
    began, ended = (datetime.datetime.fromisoformat(result[it]) for it in ("started", "finished"))
    assert run.info.start_time == 1000 * began.timestamp()
    assert run.info.end_time == 1000 * ended.timestamp()
    assert run.data.params["train.batch_size"] == "32"
    assert run.data.params["optimizer.method"] == "sgd"
    assert run.data.tags["mlflow.note.content"] == read_answer(trained)
    for name, points in curves(result).items():
        found = client.get_metric_history(run.info.run_id, name)
        assert [item.step for item in found] == [step for step, _ in points]
        assert [item.value for item in found] == pytest.approx([value for _, value in points])
    for name, (value, _) in read_figures(trained).items():
        assert run.data.metrics[f"figure/{name}"] == value


@pytest.mark.slow
def test_mlflow_is_told_that_a_run_was_interrupted(trained, tmp_path, monkeypatch):
    tracking = pytest.importorskip("mlflow.tracking", reason="no MLflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    stopped = tmp_path / "train" / trained.name
    shutil.copytree(trained, stopped)
    for name, entry in (("result", "status"), ("settings", "run_root")):
        stored = json.loads((stopped / f"{name}.json").read_text())
        stored[entry] = {"status": "interrupted", "run_root": str(tmp_path)}[entry]
        (stopped / f"{name}.json").write_text(json.dumps(stored))
    export_run("mlflow", stopped)
    client = tracking.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("train")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "KILLED"


def test_a_network_that_reconstructs_has_no_accuracy_among_its_figures(tmp_path):
    words = [word for word in TRAIN if "=digits_mlp" not in word]
    asked = [f"run_root={tmp_path}", "model=digits_autoencoder", *words]
    run = run_study(load_settings(asked), QUIET)
    last = json.loads((run / "result.json").read_text())["epochs"][-1]
    figures = read_figures(run)
    assert figures["test squared error"] == (last["test_squared_error"], "1")
    assert "test accuracy" not in figures


def test_studies_that_do_not_train_export_their_figures(tmp_path):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="no TensorBoard"
    )
    words = ("study=explain", "export=tensorboard", f"run_root={tmp_path}")
    folder = run_study(load_settings(words), QUIET)
    read = accumulator.EventAccumulator(str(folder / "tensorboard"))
    read.Reload()
    figures = read_figures(folder)
    assert figures
    assert {tag: read.Scalars(tag)[0].value for tag in read.Tags()["scalars"]} == {
        f"figure/{name}": pytest.approx(value) for name, (value, _) in figures.items()
    }


@pytest.mark.parametrize("kind", ["tensorboard", "mlflow"])
def test_a_missing_package_is_said_before_the_run_with_its_extra(tmp_path, monkeypatch, kind):
    found = importlib.util.find_spec

    def without(name, *rest):
        return None if name == kind else found(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    words = [*TRAIN, f"export={kind}", f"run_root={tmp_path}"]
    with pytest.raises(SettingsError, match=rf"^export: {kind} .*repast-dist\[{kind}\]'.*$"):
        run_study(load_settings(words), QUIET)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["export=wandb"], r"export: .*'tensorboard' or 'mlflow'"),
        (["study=runs", "export=mlflow"], "export: not read by study=runs: it makes no run"),
        (["study=verify", "export=mlflow"], "export: not read by study=verify"),
    ],
)
def test_what_exports_nothing_is_refused(words, told):
    with pytest.raises(SettingsError, match=told):
        checked_settings(words)
