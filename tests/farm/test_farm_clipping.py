"""A training run says when ADC ranges clip: once, by name, the same on any number of chips."""

import json

import numpy as np
import pytest

from repast_dist.farm.peers import NoPeers
from repast_dist.farm.setup import beginning, make_setup
from repast_dist.farm.worker import ChipWorker
from repast_dist.settings import load_settings
from repast_dist.studies.settings import training_job
from repast_dist.training.engines import ClipCount

SMALL = ("model=digits_mlp", "train.max_steps=2", "train.epochs=1", "farm.backend=inprocess")


def _result(run_dir):
    return json.loads((run_dir / "result.json").read_text())


@pytest.mark.slow
def test_ranges_that_cut_off_a_tenth_of_the_currents_are_named_once(train):
    result = _result(train(*SMALL, "chip.adc.percentile=90"))
    clipping = [event for event in result["events"] if event["kind"] == "clipping"]
    names = [event["message"].split(":")[0] for event in clipping]
    assert len(names) == len(set(names))
    # Roles that are analog in the default engine, and a layer of each.
    assert any(name.startswith("forward ") for name in names)
    assert all("percentile" in event["message"] for event in clipping)
    assert all(0.02 < step["clip_rate"] < 0.12 for step in result["steps"])


def test_the_default_ranges_clip_next_to_nothing_on_any_number_of_chips(train):
    one, three = (_result(train(*SMALL, f"farm.chips={chips}")) for chips in (1, 3))
    rates = [step["clip_rate"] for step in one["steps"]]
    assert rates == [step["clip_rate"] for step in three["steps"]]
    assert all(0.0 <= rate < 0.002 for rate in rates)
    assert not [event for event in one["events"] if event["kind"] == "clipping"]


def test_exact_arithmetic_has_no_converters(train):
    result = _result(train(*SMALL, "engine=float64"))
    assert all("clip_rate" not in step for step in result["steps"])


def _worst(steps, *changes):
    """Share of clipped conversions of every role and layer over that of the percentile.

    Those of solves are not among them: what inverts is exact.
    """
    exact = "engine.inverse=float64"
    settings = load_settings([f"train.max_steps={steps}", "farm=inprocess", exact, *changes])
    job = training_job(settings)
    setup = make_setup(job, settings.dataset.load())
    worker = ChipWorker(tuple(range(job.farm.chips)), setup, NoPeers())
    worker.restore(0, beginning(setup).arrays)
    sums: dict[str, ClipCount] = {}
    for step in range(steps):
        (report,) = worker.advance(step, 1).steps
        for counts in report.clipping:
            for what, count in counts.items():
                sums[what] = sums.get(what, ClipCount()).plus(count)
    share = 1.0 - job.machine.hardware.chip.adc.percentile / 100.0
    return {what: count.rate / share for what, count in sums.items()}


NETWORKS = {
    "digits_cnn": (12, "dataset=digits", "train.epochs=3"),
    "digits_transformer": (12, "dataset=digits", "train.epochs=3"),
    "digits_resnet": (8, "dataset=digits", "train.epochs=3"),
    "fashion_mlp": (8, "dataset=fashion_small"),
    "fashion_cnn": (6, "dataset=fashion_small"),
    "fashion_transformer": (12, "dataset=fashion_small"),
    "cifar_resnet": (4, "dataset=npz", "train.epochs=4"),
}
QUICK = ("digits_cnn",)


@pytest.mark.parametrize(
    "model",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS],
)
def test_no_layer_of_a_shipped_network_clips_more_than_the_percentile_leaves(model, tmp_path):
    """From the first step on, for every role and layer."""
    steps, *changes = NETWORKS[model]
    if model == "cifar_resnet":
        changes.append(f"dataset.path={_coloured_pictures(tmp_path)}")
    clipped = _worst(steps, f"model={model}", *changes)
    assert {what: times for what, times in clipped.items() if times > 1.0} == {}


@pytest.mark.slow
def test_ranges_without_room_clip_more_than_the_percentile_leaves_on_some_layer():
    room = ("chip.adc.margin=0", "chip.adc.first_margin=0", "chip.adc.narrowing=0.5")
    assert max(_worst(12, "model=digits_cnn", "train.epochs=3", *room).values()) > 1.0


def _coloured_pictures(folder):
    """Fashion-MNIST in 32 x 32 pixels and in a colour for every sample, instead of CIFAR-10."""
    data = load_settings(["dataset=fashion_small"]).dataset.load()
    random = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 256), ("test", 16)):
        pictures = getattr(data, f"{part}_inputs")[:count].reshape(count, 1, 28, 28)
        colours = random.uniform(0.3, 1.0, (count, 3, 1, 1))
        arrays[f"x_{part}"] = np.pad(pictures, ((0, 0), (0, 0), (2, 2), (2, 2))) * colours
        arrays[f"y_{part}"] = getattr(data, f"{part}_labels")[:count]
    path = folder / "pictures.npz"
    np.savez(path, **arrays)
    return path
