"""Layers that are spread over chips: micro-batches pass from chip to chip."""

import json
import math
import os
import signal

import numpy as np
import pytest
from conftest import final_arrays
from test_farm_faults import _when_steps, _worker_processes

from repast_dist.farm.setup import make_setup
from repast_dist.farm.stages import StageRunner
from repast_dist.ground.errors import SettingsError
from repast_dist.planning.summary import summarise
from repast_dist.settings import load_settings
from repast_dist.studies.settings import training_job
from repast_dist.trace import read_trace, verify

SHORT = (
    "soi.block_size=24", "train.batch_size=32", "train.micro_batch_size=8", "train.max_steps=3",
    "train.epochs=1", "dataset.train_samples=96", "dataset.test_samples=32",
)  # fmt: skip
HERE = "farm.backend=inprocess"
SPREAD = "partition.layers=pipeline"


def _losses(run_dir):
    return [step["loss"] for step in json.loads((run_dir / "result.json").read_text())["steps"]]


@pytest.mark.parametrize(
    "settings",
    [
        ("model=digits_mlp",),
        ("model=digits_cnn", "optimizer.fisher=exact", "train.max_steps=2"),
        ("model=digits_resnet", "engine=float64"),
        ("model=digits_transformer", "optimizer.fisher=empirical"),
        ("model=digits_mlp", "soi.fusion=on", "optimizer.factor_decay=0.5",
         "soi.fused_left_out=0.3", "soi.stale=1"),
        ("model=digits_cnn", "optimizer=sgd", "train.micro_batch_size=16"),
    ],
    ids=lambda settings: settings[0] + "-" + settings[-1],
)  # fmt: skip
def test_a_network_has_the_same_bits_whichever_chips_hold_its_layers(train, tmp_path, settings):
    wanted = train(*SHORT, *settings, HERE, "farm.chips=1", root=tmp_path / "whole")
    for chips in (2, 3, 4):
        spread = train(
            *SHORT, *settings, HERE, SPREAD, f"farm.chips={chips}", root=tmp_path / str(chips)
        )
        assert _losses(spread) == _losses(wanted)
        assert final_arrays(spread) == final_arrays(wanted)


def setup_of(*overrides):
    settings = load_settings([*SHORT, HERE, *overrides])
    return make_setup(training_job(settings), settings.dataset.load())


def test_what_chips_hand_on_is_as_large_as_what_is_priced(train, tmp_path, monkeypatch):
    """Numbers that leave a stage, against the bytes of the second step's rows."""
    sent = {}
    hand_on = StageRunner._hand_on

    def watched(runner, step, part, line):
        for (what, _, _), arrays in line._outgoing.items():
            if step == 1:
                sent[what] = sent.get(what, 0) + sum(values.size for values in arrays)
        hand_on(runner, step, part, line)

    monkeypatch.setattr(StageRunner, "_hand_on", watched)
    overrides = ("model=digits_resnet", "engine=float64", SPREAD, "farm.chips=3")
    run_dir = train(*SHORT, *overrides, "optimizer.fisher=sampled", HERE, root=tmp_path)
    assert verify(run_dir / "trace") == []
    value_bytes = setup_of(*overrides).plan.hardware.geometry.value_bytes
    rows = read_trace(run_dir / "trace").to_pylist()
    priced = {
        what: sum(r["link_bytes"] for r in rows if (r["step"], r["op"]) == (1, f"send_{what}"))
        for what in ("activations", "errors")
    }
    assert sent["errors"] == 2 * sent["activations"] > 0
    assert priced == {what: numbers * value_bytes for what, numbers in sent.items()}


def test_a_step_takes_as_long_as_planned(train, tmp_path):
    overrides = ("model=digits_cnn", "optimizer=sgd", SPREAD, "farm.chips=4")
    run_dir = train(*SHORT, *overrides, HERE, root=tmp_path)
    steps = json.loads((run_dir / "result.json").read_text())["steps"]
    plan = setup_of(*overrides).plan
    assert plan.allocation.stages == 4
    # The first step sets the ADC ranges with one micro-batch more.
    for step in steps[1:]:
        assert step["time_s"] == pytest.approx(summarise(plan).step_s)


def test_stages_begin_where_one_tensor_is_all_that_goes_on():
    """A residual block stays whole, and pooling goes with what it follows."""
    setup = setup_of("model=digits_resnet", SPREAD, "farm.chips=2")
    layers = setup.network.workload.layers
    assert len(setup.stages) == 2
    (_, cut), (_, end) = setup.stages
    assert end == len(layers)
    assert cut in setup.network.workload.cuts
    names = [item.name for part in setup.parts for item in part.parameters]
    assert names == [item.name for item in setup.network.parameters]
    before = [layer.name for layer in layers[:cut]]
    for prefix in {name.split(".")[0] for name in before if "." in name}:
        assert all(layer.name in before for layer in layers if layer.name.startswith(prefix))


def test_modules_of_pytorch_and_single_layers_are_not_spread():
    one = "model.layers=[{kind: flatten}, {kind: dense, outputs: 10}]"
    with pytest.raises(SettingsError, match=r"partition\.layers=pipeline.*valid: replicate"):
        setup_of("model=digits_mlp", one, SPREAD)


@pytest.mark.parametrize("layout", ["C", "transposed", "cut"])
def test_what_is_handed_on_lies_in_memory_as_it_was_made(layout):
    from repast_dist.farm.peers import decode, encode
    from repast_dist.farm.stages import _as_made, _laid_out

    values = np.random.default_rng(0).standard_normal((3, 4, 5, 2))
    values = {"C": values, "transposed": values.transpose(0, 3, 1, 2), "cut": values[:, ::2]}[
        layout
    ]
    buffers = encode(0, "slot", _laid_out(("activations", 1, 2), [values, 2 * values]))
    message = b"".join(bytes(part) for part in buffers)
    header = int.from_bytes(message[:8], "big")
    _, _, arrays = decode(header, np.frombuffer(message[16:], np.uint8))
    one, two = _as_made(arrays)["activations", 1, 2]
    np.testing.assert_array_equal(one, values)
    np.testing.assert_array_equal(two, 2 * values)
    assert np.argsort(one.strides).tolist() == np.argsort(values.strides).tolist()
    assert np.sum(one, axis=(0, 2)).tobytes() == np.sum(values, axis=(0, 2)).tobytes()
    assert math.prod(one.shape) == values.size


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_micro_batches_pass_from_worker_to_worker_and_survive_a_killed_one(train, tmp_path):
    common = (
        "model=digits_cnn",
        "engine=float64",
        "train.max_steps=6",
        "dataset.train_samples=256",
    )
    alone = train(*SHORT, *common, HERE, "farm.chips=1", root=tmp_path / "alone")

    def strike():
        os.kill(_worker_processes()[0].pid, signal.SIGKILL)

    thread = _when_steps(tmp_path / "ray", 3, strike)
    run_dir = train(
        *SHORT, *common, SPREAD, "farm.chips=2", "farm.checkpoint_every=2", root=tmp_path / "ray"
    )
    thread.join()
    events = json.loads((run_dir / "result.json").read_text())["events"]
    assert any(item["kind"] == "recovery" for item in events)
    assert _losses(run_dir) == _losses(alone)
    assert final_arrays(run_dir) == final_arrays(alone)
