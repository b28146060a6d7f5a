"""Layers that are spread over chips: micro-batches pass from chip to chip."""

import json
import math
import os
import signal

import numpy as np
import pytest
from conftest import final_arrays
from test_farm_faults import _when_steps, _worker_processes

from repast_dist.farm.checkpoint import latest_checkpoint
from repast_dist.farm.peers import NoPeers, decode, encode
from repast_dist.farm.setup import beginning, make_setup
from repast_dist.farm.stages import StageRunner, _as_made, _laid_out
from repast_dist.farm.worker import ChipWorker
from repast_dist.ground.errors import SettingsError
from repast_dist.planning.summary import summarise
from repast_dist.settings import load_settings
from repast_dist.studies.settings import training_job
from repast_dist.trace import read_trace, verify
from repast_dist.training.sampling import micro_batch_samples

SHORT = (
    "soi.block_size=24", "train.batch_size=32", "train.micro_batch_size=8", "train.max_steps=3",
    "train.epochs=1", "dataset.train_samples=96", "dataset.test_samples=32",
)  # fmt: skip
HERE = "farm.backend=inprocess"
SPREAD = "partition.layers=pipeline"


def _losses(run_dir):
    return [step["loss"] for step in json.loads((run_dir / "result.json").read_text())["steps"]]


@pytest.mark.slow
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
    for chips in (2, 3):
        spread = train(
            *SHORT, *settings, HERE, SPREAD, f"farm.chips={chips}", root=tmp_path / str(chips)
        )
        assert _losses(spread) == _losses(wanted)
        assert final_arrays(spread) == final_arrays(wanted)


def setup_of(*overrides):
    settings = load_settings([*SHORT, HERE, *overrides])
    return make_setup(training_job(settings), settings.dataset.load())


@pytest.mark.parametrize(("arrays", "stages"), [(8, 3), (10, 1)])
def test_layers_are_spread_where_a_chip_does_not_hold_them(train, tmp_path, arrays, stages):
    """Weights and transposes of the three layers take seven arrays, inputs one for each of them."""
    common = (
        *("model=digits_mlp", "optimizer=sgd", "farm.chips=3", "chip.tiles=1"),
        *("chip.banks_per_tile=1", f"chip.vmm.arrays_per_bank={arrays}"),
    )
    auto = (*common, "partition.layers=auto")
    assert len(setup_of(*auto).stages) == stages
    whole = train(*SHORT, *common, HERE, root=tmp_path / "whole")
    assert _losses(train(*SHORT, *auto, HERE, root=tmp_path / "auto")) == _losses(whole)


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


def test_single_layers_are_not_spread():
    one = "model.layers=[{kind: flatten}, {kind: dense, outputs: 10}]"
    with pytest.raises(SettingsError, match=r"partition\.layers=pipeline.*valid: replicate"):
        setup_of("model=digits_mlp", one, SPREAD)


@pytest.mark.parametrize("layout", ["C", "transposed", "cut"])
def test_what_is_handed_on_lies_in_memory_as_it_was_made(layout):
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


# Weights that are older than the newest --------------------------------------------------------


def mean_gradients(weights, inputs, labels):
    """The mean gradient of cross entropy in a network of dense layers with ReLU between, by hand.

    Parameters
    ----------
    weights : list of ndarray
        (in + 1, out) each, the bias last.
    inputs, labels : ndarray
        (N, in) and (N,).
    """
    rows, through = inputs.reshape(len(inputs), -1).astype(float), []
    for number, weight in enumerate(weights):
        through.append(np.hstack([rows, np.ones((len(rows), 1))]))
        rows = through[-1] @ weight
        if number < len(weights) - 1:
            rows = np.maximum(rows, 0.0)
    odds = np.exp(rows - rows.max(axis=1, keepdims=True))
    error = odds / odds.sum(axis=1, keepdims=True) - np.eye(rows.shape[1])[labels]
    found = []
    for number in reversed(range(len(weights))):
        found.insert(0, through[number].T @ error / len(inputs))
        error = (error @ weights[number][:-1].T) * (through[number][:, :-1] > 0)
    return found


class Slots:
    """An independent simulation of the schedule: a clock that ticks in slots, stages that run a
    micro-batch forward and another one backward in each, and weights that a stage exchanges between
    the last micro-batch of a step and the first of the next.

    It finds for every step and stage the newest version of the weights whose gradients have all
    passed that stage before the step comes to it.
    """

    def __init__(self, stages, micro_batches, steps):
        count = micro_batches * steps
        self.versions = [[0] * stages for _ in range(steps)]
        done = [0] * stages
        for slot in range(count + 2 * stages):
            for stage in range(stages):
                entering = slot - stage
                if 0 <= entering < count and entering % micro_batches == 0:
                    self.versions[entering // micro_batches][stage] = done[stage] // micro_batches
            for stage in range(stages):
                if 0 <= slot - 2 * (stages - 1) + stage < count:
                    done[stage] += 1


@pytest.mark.parametrize(
    ("stages", "micro_batches", "delay"),
    [(1, 2, 0), (3, 4, 0), (3, 2, 0), (3, 1, 0), (2, 4, 0), (1, 2, 1), (3, 2, 2)],
)
def test_steps_compute_with_the_versions_that_the_schedule_leaves_them(
    train, tmp_path, stages, micro_batches, delay
):
    """Against plain gradient descent in NumPy with the versions that a clock of slots finds."""
    size, rate, steps = 32, 0.2, 9
    overrides = (
        *("model=digits_mlp", "engine=float64", "optimizer=sgd", "optimizer.momentum=0"),
        "optimizer.schedule=constant",
        *(f"optimizer.learning_rate={rate}", "optimizer.weight_decay=0", "train.epochs=3"),
        *(f"train.micro_batch_size={size // micro_batches}", f"train.max_steps={steps}"),
        *(f"partition.stages_in_flight={stages}", f"partition.update_delay={delay}"),
        "farm.chips=1",
    )
    run_dir = train(*SHORT, *overrides, HERE, root=tmp_path)
    setup = setup_of(*overrides)
    names = [item.name for item in setup.network.parameters]
    initial = setup.network.initial()
    versions = [[initial[name].astype(float) for name in names]]
    # Every layer is a stage of its own, if there are three.
    stage_of = [number * stages // len(names) for number in range(len(names))]
    table = Slots(stages, micro_batches, steps).versions
    for step in range(steps):
        used = [max(table[step][stage] - delay, 0) for stage in stage_of]
        samples = np.concatenate([
            micro_batch_samples(setup.job.seed, 96, setup.job.train, step, number)
            for number in range(micro_batches)
        ])  # fmt: skip
        inputs, labels = setup.data.batch(samples, setup.job.seed, step)
        old = [versions[version][layer] for layer, version in enumerate(used)]
        found = mean_gradients(old, inputs, labels)
        newest = zip(versions[-1], found, strict=True)
        versions.append([weight - rate * gradient for weight, gradient in newest])
    arrays = latest_checkpoint(run_dir / "checkpoints")[0].arrays
    for name, wanted in zip(names, versions[-1], strict=True):
        np.testing.assert_allclose(arrays[f"weights/{name}"], wanted, rtol=0, atol=2e-6)
    assert (table[-1][0] < steps - 1) == (stages > 1)
    assert table[-1][-1] == steps - 1


FLIGHT = ("partition.stages_in_flight=3", "partition.update_delay=1")
EVERYTHING = (
    *("model=digits_mlp", "soi.fusion=on", "optimizer.factor_decay=0.5"),
    *("soi.fused_left_out=0.3", "soi.interval=2", "soi.stale=1", "partition.overlap_exchange=true"),
    *FLIGHT, SPREAD,
    *("train.max_steps=8", "train.micro_batch_size=16", "dataset.train_samples=256"),
)  # fmt: skip


@pytest.mark.slow
def test_all_of_it_has_the_same_bits_on_any_number_of_chips_and_goes_on_where_it_was(tmp_path):
    """Fusion, staleness, pipeline and overlap at once; a worker goes on with another's state."""

    def worker(chips):
        setup = setup_of(*EVERYTHING, f"farm.chips={chips}")
        made = ChipWorker(tuple(range(chips)), setup, NoPeers())
        made.restore(0, beginning(setup).arrays)
        return made

    one, three, other = worker(1), worker(3), worker(2)
    one.advance(0, 4)
    three.advance(0, 8)
    other.restore(4, one.common_state() | one.block_state())
    for late in (one, other):
        late.advance(4, 4)
    states = [found.common_state() | found.block_state() for found in (one, three, other)]
    assert any(name.startswith("delayed/3/") for name in states[0])
    for state in states[1:]:
        assert state.keys() == states[0].keys()
        for name, value in states[0].items():
            np.testing.assert_array_equal(state[name], value, err_msg=name)


@pytest.mark.parametrize("chips", [1, 3])
@pytest.mark.parametrize(
    "flight", [FLIGHT[:1], FLIGHT[1:], FLIGHT], ids=["stages", "update", "both"]
)
def test_steps_that_begin_early_are_shorter_and_take_what_is_planned(
    train, tmp_path, chips, flight
):
    common = ("model=digits_cnn", "optimizer=sgd", "farm.chips=" + str(chips))
    seconds = []
    for name, more in (("alone", ()), ("flight", flight)):
        run_dir = train(*SHORT, *common, *more, HERE, root=tmp_path / name)
        assert verify(run_dir / "trace") == []
        steps = json.loads((run_dir / "result.json").read_text())["steps"]
        planned = summarise(setup_of(*common, *more).plan)
        assert planned.step_s == pytest.approx(sum(planned.segment_s.values()))
        assert planned.utilisation <= 1.0
        # The first step sets the ADC ranges with one micro-batch more.
        for step in steps[1:]:
            assert step["time_s"] == pytest.approx(planned.step_s)
        seconds.append(planned.step_s)
    assert seconds[1] < seconds[0]


@pytest.mark.parametrize("flight", [FLIGHT[:1], FLIGHT], ids=["stages", "both"])
def test_no_layer_is_reached_before_its_weights_are_there(train, tmp_path, flight):
    """The rows of a trace: an update ends before samples of the step that needs it come to a layer,
    and arrays are written while no sample is in the first of them.
    """
    overrides = ("model=digits_cnn", "optimizer=sgd", "train.max_steps=9", "farm.chips=2", *flight)
    run_dir = train(*SHORT, *overrides, "train.epochs=3", HERE, root=tmp_path)
    setup = setup_of(*overrides)
    rows = read_trace(run_dir / "trace").to_pylist()
    number = {layer.name: place for place, layer in enumerate(setup.network.workload.layers)}
    early = 0
    for step in range(4, 9):
        for layer, delay in setup.delays.items():
            reached = min(
                row["start_s"] for row in rows
                if (row["step"], row["op"], row["layer"]) == (step, "vmm_forward", number[layer])
            )  # fmt: skip
            updated = max(
                row["start_s"] + row["duration_s"] for row in rows
                if (row["step"], row["op"]) == (step - 1 - delay, "update")
            )  # fmt: skip
            assert updated <= reached * (1 + 1e-9)
        begun, update = (
            min(r["start_s"] for r in rows if (r["step"], r["op"]) == (step - 1, op))
            for op in ("write_weights", "update")
        )
        # What is written before the update begins is what the one before has left.
        early += begun < update
        first = number[next(iter(setup.delays))]
        of_first = [row for row in rows if row["layer"] == first]
        written = [r for r in of_first if (r["step"], r["op"]) == (step - 1, "write_weights")]
        entered = min(r["start_s"] for r in of_first if r["step"] == step)
        assert max(r["start_s"] + r["duration_s"] for r in written) <= entered * (1 + 1e-9)
    assert early > 0


def test_more_stages_than_layers_are_refused():
    with pytest.raises(SettingsError, match=r"stages_in_flight=4.*3 layers.*valid: at most 3"):
        setup_of("model=digits_mlp", "partition.stages_in_flight=4")
    with pytest.raises(SettingsError, match=r"stages_in_flight=2 with pipelining=False.*valid: 1"):
        setup_of("partition.stages_in_flight=2", "partition.pipelining=false")


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.kills_workers
def test_workers_hand_on_what_they_made_and_survive_a_kill_with_all_of_it_on(train, tmp_path):
    """Fusion, staleness, stages on three workers, and steps that begin early."""
    alone = train(*SHORT, *EVERYTHING, HERE, "farm.chips=1", root=tmp_path / "alone")
    two = train(*SHORT, *EVERYTHING, HERE, "farm.chips=2", root=tmp_path / "two")

    def strike():
        os.kill(_worker_processes()[0].pid, signal.SIGKILL)

    thread = _when_steps(tmp_path / "ray", 5, strike)
    three = train(
        *SHORT, *EVERYTHING, "farm.chips=3", "farm.checkpoint_every=2", root=tmp_path / "ray"
    )
    thread.join()
    events = json.loads((three / "result.json").read_text())["events"]
    assert any(item["kind"] == "recovery" for item in events)
    for run_dir in (two, three):
        assert _losses(run_dir) == _losses(alone)
        assert final_arrays(run_dir) == final_arrays(alone)
