"""A layer, a data set and a network table of a user's own, in one plug-in file."""

import json
from pathlib import Path

import numpy as np
import pytest
from micro_batches import run_micro_batch

from repast_dist.cli import main
from repast_dist.network.model import init_weights
from repast_dist.settings import load_settings
from repast_dist.studies.settings import training_job
from repast_dist.training.engines import make_engine
from repast_dist.training.specs import EngineSpec
from repast_dist.training.step import load_weights

PLUGIN = '''
import dataclasses
from typing import Annotated, Literal

import numpy as np
from annotated_types import Gt

from repast_dist.ground.spec import spec
from repast_dist.network.layer import LAYERS, Layer
from repast_dist.network.node import Node
from repast_dist.network.shapes import Workload, digital_shape
from repast_dist.network.tables import NETWORKS, NetworkTable
from repast_dist.network.tables.rows import dense
from repast_dist.training.datasets import DATASETS, DataSource


@LAYERS.register
@spec
class Softsign(Layer):
    """x / (sharpness + abs(x))."""

    kind: Literal["softsign"] = "softsign"
    sharpness: Annotated[float, Gt(0)] = 1.0

    def build(self, shape, place):
        return SoftsignNode(place.name("", "softsign"), shape, self.sharpness)


@dataclasses.dataclass(frozen=True)
class SoftsignNode(Node):
    name: str
    input_shape: tuple
    sharpness: float

    @property
    def output_shape(self):
        return self.input_shape

    def forward(self, x, run):
        return x / (self.sharpness + np.abs(x)), x

    def backward(self, error, saved, run, sink, need_input):
        return error * self.sharpness / (self.sharpness + np.abs(saved)) ** 2

    def shapes(self):
        size = int(np.prod(self.input_shape))
        return (digital_shape(self.name, size, 3 * size),)


@DATASETS.register
@spec
class Stripes(DataSource):
    """Upright and lying stripes with noise."""

    name: Literal["stripes"] = "stripes"
    noise: float = 0.1

    source = "made by a formula"

    def read(self):
        random = np.random.default_rng(5)

        def drawn(count):
            labels = np.arange(count) % 2
            upright = np.zeros((4, 4))
            upright[:, ::2] = 1.0
            images = np.where(labels[:, None, None] == 1, upright, upright.T)
            images = images + self.noise * random.standard_normal(images.shape)
            return np.clip(images, 0.0, 1.0)[:, None], labels

        return drawn(64), drawn(32)


@NETWORKS.register
@spec
class Towers(NetworkTable):
    """Networks of equal dense layers."""

    name: Literal["tower3", "tower5"]

    def workload(self, sequence=None):
        layers = tuple(dense(f"floor{n}", 64, 64) for n in range(int(self.name[-1])))
        return Workload(name=self.name, layers=layers, source="built here")
'''
LAYERS = "[{kind: flatten}, {kind: dense, outputs: 6}, {kind: softsign, sharpness: 0.5}, \
{kind: dense, outputs: 2}]"


@pytest.fixture
def plugin(tmp_path: Path) -> str:
    path = tmp_path / "own_network_parts.py"
    path.write_text(PLUGIN)
    return f"plugins=[{path}]"


def _training(plugin: str) -> list[str]:
    return [
        plugin, "model=digits_mlp", "model.input_shape=[1,4,4]", f"model.layers={LAYERS}",
        "~dataset", "+dataset={name: stripes, noise: 0.05}", "farm=inprocess", "soi.block_size=16",
        "train.batch_size=16", "train.micro_batch_size=8",
    ]  # fmt: skip


def test_a_network_with_an_own_layer_learns_an_own_data_set(plugin: str, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    options = [*_training(plugin), "train.epochs=4", "optimizer=sgd", f"run_root={root}"]
    assert main(options) == 0
    (result,) = root.rglob("result.json")
    settings = json.loads(result.read_text())["settings"]
    assert settings["dataset"] == {
        "name": "stripes", "noise": 0.05, "scaling": "unit", "train_samples": None,
        "test_samples": None, "augmentation": None,
    }  # fmt: skip
    last = json.loads(result.read_text())["epochs"][-1]
    assert last["test_accuracy"] > 0.9


def test_gradients_through_an_own_layer_equal_central_differences(plugin: str) -> None:
    from repast_dist.network.model import build_model

    job = training_job(load_settings(_training(plugin)))
    model, data = build_model(job.model), job.dataset.load()
    exact = dict.fromkeys(("forward", "backward", "gradient", "factor", "inverse"), "float64")
    engine = make_engine(EngineSpec(**exact), 0)
    inputs, labels = data.train_inputs[:5], data.train_labels[:5]
    weights = {name: w.astype(np.float64) for name, w in init_weights(model, 0).items()}

    def run(changed: dict[str, np.ndarray]):  # type: ignore[no-untyped-def]
        loaded = load_weights(model, changed, engine, 0)
        return run_micro_batch(loaded, inputs, labels, np.arange(5), 0)

    gradients, random, step = run(weights).gradients, np.random.default_rng(4), 1e-5
    for name, w in weights.items():
        direction = random.standard_normal(w.shape)
        up = run({**weights, name: w + step * direction}).loss_sum
        down = run({**weights, name: w - step * direction}).loss_sum
        expected = (up - down) / (2 * step)
        assert np.vdot(gradients[name], direction) == pytest.approx(expected, rel=2e-6, abs=1e-7)


def test_an_own_network_table_is_planned_by_its_name(plugin: str, tmp_path: Path) -> None:
    options = [plugin, "study=plan", "workload.name=tower3", f"run_root={tmp_path}"]
    assert main(options) == 0
    (page,) = tmp_path.rglob("report.html")
    assert "Plan of tower3" in page.read_text()


def test_a_network_that_no_plug_in_defines_is_named_with_the_own_ones(
    plugin: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([plugin, "study=plan", "workload.name=tower4"]) == 2
    message = capsys.readouterr().err
    assert "no network 'tower4'" in message
    assert "tower3, tower5" in message
