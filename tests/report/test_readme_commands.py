"""Every command the README shows works as it is written, some of them with less to do."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from repast_dist.cli import main

README = (Path(__file__).parents[2] / "README.md").read_text()
ARGUMENTS = re.findall(r'make run ARGS="([^"]*)"', README)

QUICK = ["farm.backend=inprocess"]
TRAINING = [*QUICK, "train.max_steps=1"]
LESS = {
    "study=headline": ["study.networks=[lenet5]", "study.sensitive=[lenet5]"],
    "study=sweep": QUICK,
    "search=headline": [
        "study.points=4", "study.measures.headline.of.networks=[resnet18]",
        "study.finals.all.of.networks=[resnet18]", "study.finals.fed.of.networks=[resnet18]",
        "study.sampler.population=2", *QUICK,
    ],
    "study=scaling": ["study.chips=[1,4]", *QUICK],
    "study=scaling_all": ["study.chips=[1,2]", "study.networks=[lenet5,vgg16]", *QUICK],
    "study=precision": [
        "model=digits_cnn", "dataset=digits", "study.steps=2", "soi.block_size=16",
        "study.solve=[cells,reading]", "study.prices=[reading]",
        "study.grids.cells.axes={soi.block_size: [16], device.inv_cell.bits: [8],"
        " device.inv_cell.programming_sigma: [0.0,0.01], optimizer.damping: [0.1,0.00001]}",
        "study.columns=4", *QUICK,
    ],
    "study=effects": [
        "model=digits_mlp", "train.max_steps=1", "train.batch_size=16",
        "train.micro_batch_size=16", "dataset.train_samples=64", "dataset.test_fraction=0.03",
        "model.layers=[{kind: flatten}, {kind: dense, outputs: 10}]",
        "device.wire.row_ohm=0.0", "device.wire.column_ohm=0.0", *QUICK,
    ],
    "study=convergence_quick": [
        "model=digits_mlp", "model@study.tasks.autoencoder.model=digits_autoencoder",
        "dataset=digits", "dataset.train_samples=128", "study.methods=[float64,single]",
        "study.pi_methods=[single]", "study.damping=[0.1]", "study.noise_levels=[0.01]",
        "study.block_sizes=[65]", "train.epochs=1", "train.batch_size=64",
        "train.micro_batch_size=64", *QUICK,
    ],
    "study=blocks": ["model=digits_mlp", "study.steps=2"],
    "study=frontier_quick": [
        "dataset.train_samples=128", "train.epochs=1", "train.batch_size=64",
        "train.micro_batch_size=64", "~study.tasks.autoencoder", "~study.tasks.letters",
        "~study.tasks.residual_cnn", "~study.tasks.language_model", "~study.optimizers.muon",
        "~study.optimizers.foof", "~study.optimizers.newton_muon", "study.points=1",
        "study.published=[]", *QUICK,
    ],
    "study=demonstration": [
        "dataset.train_samples=52", "dataset.test_samples=26", "train.epochs=1",
        "train.batch_size=26", "train.micro_batch_size=26", "study.seeds=1", "study.tuning_seeds=1",
        "study.optimizers.sgd.search={optimizer.learning_rate: [0.1]}",
        "study.optimizers.adam.search={optimizer.learning_rate: [0.01]}",
        "study.optimizers.kfac.search={optimizer.learning_rate: [0.05],"
        " optimizer.damping: [0.1]}", *QUICK,
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with two runs, as someone has who followed the README so far."""
    where = tmp_path_factory.mktemp("readme")
    for name in ("A", "B"):
        assert main([*TRAINING, f"run_root={where / name}"]) == 0
    return where


def run_of(folder, name):
    (run,) = (folder / name / "train").iterdir()
    return str(run)


def test_the_readme_shows_commands():
    assert len(ARGUMENTS) >= 15
    shown = {word for text in ARGUMENTS for word in text.split() if word.startswith("study=")}
    assert len(shown) >= 12


@pytest.mark.slow
@pytest.mark.parametrize("text", [a for a in ARGUMENTS if not a.startswith("resume=")])
def test_commands_of_the_readme_work(folder, text, capsys, monkeypatch):
    for name in ("A", "B"):
        text = re.sub(rf"(?<=[\[,]){name}(?=[\],])", run_of(folder, name), text)
    words = shlex.split(text.replace("RUN_DIR", run_of(folder, "A")))
    if words == ["--help"]:
        with pytest.raises(SystemExit) as stopped:
            main(words)
        assert stopped.value.code == 0
        assert "study" in capsys.readouterr().out
        return
    if words == ["open"]:
        monkeypatch.setattr("webbrowser.open", lambda _: True)
        assert main([*words, f"run_root={folder / 'A'}"]) == 0
        return
    study = next((word for word in words if word.startswith(("study=", "search="))), None)
    less = TRAINING if study is None else LESS.get(study, [])
    if "-m" in words:
        less = [*less, "-j", "1"]
    assert main([*words, *less, f"run_root={folder / 'more'}"]) == 0


@pytest.mark.slow
def test_a_stopped_run_goes_on_with_the_command_of_the_readme(folder):
    shown = {a for a in ARGUMENTS if a.startswith("resume=")}
    assert shown == {"resume=runs/train/<date-time>", "resume=RUN_DIR"}
    program = [sys.executable, "-m", "repast_dist.cli"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*program, f"resume={run_of(folder, 'A')}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    # The run is complete: it says so instead of training again.
    assert done.returncode == 1
    assert "finished, there is nothing to resume" in done.stderr
