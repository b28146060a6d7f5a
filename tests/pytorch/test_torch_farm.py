"""Modules and data of a user's own train on the farm like networks of the NumPy engine."""

import io
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import psutil
import pytest
from micro_batches import run_micro_batch

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from conftest import final_arrays  # noqa: E402
from rich.console import Console  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from repast_dist.cli import main  # noqa: E402
from repast_dist.farm.setup import make_setup  # noqa: E402
from repast_dist.farm.watcher import RUN_MARK  # noqa: E402
from repast_dist.ground import user_code  # noqa: E402
from repast_dist.ground.errors import DataError, RunDirectoryError, SettingsError  # noqa: E402
from repast_dist.settings import load_settings  # noqa: E402
from repast_dist.studies import resume_study  # noqa: E402
from repast_dist.studies import train as train_study  # noqa: E402
from repast_dist.studies.recorder import RunRecorder  # noqa: E402
from repast_dist.studies.settings import training_job  # noqa: E402
from repast_dist.torch import farm as torch_farm  # noqa: E402
from repast_dist.torch.draws import KeyedDropout  # noqa: E402
from repast_dist.trace import read_trace  # noqa: E402
from repast_dist.training.engines import make_engine  # noqa: E402

HERE = Path(__file__).parent
OWN = (
    "model.factory=my_lab:make_model", "dataset.factory=my_lab:make_data",
    "dataset.augmentation=my_lab:shift", "train.batch_size=48", "train.micro_batch_size=16",
    "train.max_steps=5", "soi.interval=2", "soi.block_size=40", "seed=3",
    "farm.checkpoint_every=2",
)  # fmt: skip
ALONE = ("farm.backend=inprocess", "farm.chips=1")
EXACT = ("engine=float64",)


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A folder with the user's modules, which are nowhere on Python's path."""
    monkeypatch.setattr(user_code, "_TAKEN", {})
    monkeypatch.setattr(user_code, "_OF_PLACE", {})
    folder = tmp_path / "lab"
    shutil.copytree(HERE / "lab", folder)
    monkeypatch.chdir(folder)
    return folder


def losses(run):
    result = json.loads((run / "result.json").read_text())
    return [step["loss"] for step in result["steps"]]


@pytest.mark.parametrize("chips", [2, 3])
def test_the_number_of_chips_changes_no_bit(train, lab, chips):
    one = train(*OWN, *ALONE)
    several = train(*OWN, "farm.backend=inprocess", f"farm.chips={chips}")
    assert final_arrays(several) == final_arrays(one)
    assert losses(several) == losses(one)
    assert np.ptp(losses(one)) > 0.01


@pytest.mark.parametrize("method", ["newton_muon", "shampoo"])
def test_matrices_of_modules_are_updated_as_wholes_on_any_number_of_chips(train, lab, method):
    options = (*OWN, *EXACT, f"optimizer={method}", "train.max_steps=3")
    one = train(*options, *ALONE)
    assert final_arrays(train(*options, "farm.backend=inprocess", "farm.chips=3")) == (
        final_arrays(one)
    )
    assert np.ptp(losses(one)) > 0.01


def test_modules_compute_with_older_weights_on_any_number_of_chips(train, lab):
    flight = ("partition.stages_in_flight=2", "partition.update_delay=1")
    newest = train(*OWN, *EXACT, *ALONE)
    one = train(*OWN, *EXACT, *ALONE, *flight)
    two = train(*OWN, *EXACT, "farm.backend=inprocess", "farm.chips=2", *flight)
    assert final_arrays(two) == final_arrays(one)
    assert losses(two) == losses(one)
    # Step 1 still computes with the first weights.
    same = [a == b for a, b in zip(losses(newest), losses(one), strict=True)]
    assert same == [True, False, False, False, False]


def worker_processes():
    """Processes of workers in the cluster of this test session."""
    found = []
    for process in psutil.process_iter(["name"]):
        try:
            if process.info["name"].startswith("ray::RayWorker") and (
                process.environ().get(RUN_MARK) == os.environ.get(RUN_MARK)
            ):
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.kills_workers
def test_workers_on_ray_get_the_code_and_lose_nothing_when_one_is_killed(train, lab, monkeypatch):
    one = train(*OWN, *ALONE)
    opened, recorded, killed = train_study.open_farm, RunRecorder.steps, []

    def without_files(*given):
        # What is on disk is not what workers get.
        shutil.rmtree(lab)
        return opened(*given)

    def kill_one(self, records, *others):
        recorded(self, records, *others)
        if not killed and records[-1].step >= 2:
            killed.append(worker_processes()[0].pid)
            os.kill(killed[0], signal.SIGKILL)

    monkeypatch.setattr(train_study, "open_farm", without_files)
    monkeypatch.setattr(RunRecorder, "steps", kill_one)
    several = train(*OWN, "farm.chips=2")
    assert killed
    events = json.loads((several / "result.json").read_text())["events"]
    assert [event["kind"] for event in events].count("recovery") == 1
    assert losses(several) == losses(one)
    assert final_arrays(several) == final_arrays(one)


class Stop(Exception):
    """Ends a run in the middle."""


def test_a_run_goes_on_from_its_checkpoint_and_not_with_other_code(train, lab, monkeypatch):
    whole = train(*OWN, *ALONE)
    recorded = RunRecorder.steps

    def until_four(self, records, *others):
        if records[-1].step >= 4:
            raise Stop
        recorded(self, records, *others)

    monkeypatch.setattr(RunRecorder, "steps", until_four)
    with pytest.raises(Stop):
        train(*OWN, *ALONE, root=lab.parent / "stopped")
    monkeypatch.setattr(RunRecorder, "steps", recorded)
    (run,) = (lab.parent / "stopped" / "train").iterdir()
    text = (lab / "my_lab_data.py").read_text()
    (lab / "my_lab_data.py").write_text(text + "\n# changed\n")
    with pytest.raises(RunDirectoryError, match="my_lab_data has changed since the run began"):
        resume_study(run, {}, Console(file=io.StringIO()))
    (lab / "my_lab_data.py").write_text(text)
    resume_study(run, {}, Console(file=io.StringIO()))
    assert losses(run) == losses(whole)
    assert final_arrays(run) == final_arrays(whole)


def test_plain_pytorch_loads_a_checkpoint(train, lab):
    run = train(*OWN, *ALONE)
    newest = sorted((run / "checkpoints").iterdir())[-1]
    plain = user_code.resolve("my_lab:make_model", "model.factory")()
    before = plain.state_dict()["conv1.weight"].clone()
    plain.load_state_dict(load_file(newest / "model.safetensors"))
    state = plain.state_dict()
    assert not torch.equal(state["conv1.weight"], before)
    assert state["conv1.weight"].dtype == torch.float32
    # Five steps of the mean over three micro-batches each, counted as five.
    assert int(state["norm.num_batches_tracked"]) == 5
    assert float(state["norm.running_var"].sub(1).abs().max()) > 0.01
    with np.load(newest / "arrays.npz") as stored:
        assert not [name for name in stored.files if name.startswith(("weights/", "state_dict/"))]


def test_running_means_are_those_of_micro_batches(lab):
    setup = setup_of("engine=float64", "train.batch_size=32")
    network, values = setup.network, setup.network.initial()
    state = {name: torch.from_numpy(value) for name, value in state_of(network, values).items()}
    loaded = network.load(values, make_engine(setup.job.engine, 3), 0)
    inputs, labels = setup.data.train_inputs[:16], setup.data.train_labels[:16]
    result = run_micro_batch(loaded, inputs, labels, np.arange(16), 0)
    plain = user_code.resolve("my_lab:make_model", "model.factory")().double()
    plain.load_state_dict(state)
    plain(torch.from_numpy(inputs).double())
    for name in ("running_mean", "running_var"):
        np.testing.assert_allclose(
            result.gradients[f"norm.{name}"][0] / 16, getattr(plain.norm, name).numpy(), rtol=1e-12
        )
    # A second run of the same begins with the same buffers.
    again = run_micro_batch(loaded, inputs, labels, np.arange(16), 0)
    for name, value in result.gradients.items():
        np.testing.assert_array_equal(again.gradients[name], value)


def state_of(network, values):
    prefix = "state_dict/"
    return {name.removeprefix(prefix): v for name, v in network.to_state(values).items()}


def setup_of(*others):
    settings = load_settings([*OWN, *ALONE, *others])
    return make_setup(training_job(settings), settings.dataset.load())


def gradients_of(loaded, data, samples, micro_batch):
    chosen = np.asarray(samples)
    result = run_micro_batch(
        loaded, data.train_inputs[chosen], data.train_labels[chosen], chosen, micro_batch
    )
    return result.gradients["head"]


def test_dropout_depends_on_step_and_sample_not_on_the_micro_batch(lab):
    # Batch norm mixes samples, so it is left in eval mode.
    (lab / "my_lab.py").open("a").write(
        "\n\ndef make_keyed():\n    model = make_model()\n    model.norm.eval()\n    return model\n"
    )
    setup = setup_of("engine=float64", "model.factory=my_lab:make_keyed")
    network, engine = setup.network, make_engine(setup.job.engine, 3)
    loaded = network.load(network.initial(), engine, 0)
    together = gradients_of(loaded, setup.data, [3, 5, 8, 13], 0)
    apart = sum(gradients_of(loaded, setup.data, part, 1) for part in ([13, 3], [5], [8]))
    np.testing.assert_allclose(apart, together, rtol=1e-9, atol=1e-12)
    later = gradients_of(network.load(network.initial(), engine, 1), setup.data, [3, 5, 8, 13], 0)
    assert not np.allclose(later, together)
    with pytest.raises(Exception, match="loaded anew"):
        gradients_of(loaded, setup.data, [3], 0)


@pytest.mark.parametrize(("drop", "shape", "channels"), [
    (F.dropout1d, (40, 6), 1), (F.dropout1d, (2, 20, 6), 2),
    (F.dropout2d, (2, 20, 3, 3), 2), (F.dropout3d, (40, 3, 3, 3), 1),
    (F.dropout3d, (2, 20, 3, 3, 3), 2),
])  # fmt: skip
def test_dropout_of_channels_takes_them_whole_as_pytorch_does(drop, shape, channels):
    x = torch.ones(shape)
    with KeyedDropout(0, 0, 0, np.arange(2)):
        ours = drop(x, 0.5)
        with pytest.raises(ValueError, match="between 0 and 1"):
            drop(x, 1.5)
    for found in (ours, drop(x, 0.5)):
        of_channel = found.flatten(channels)
        assert torch.equal(of_channel.amax(channels), of_channel.amin(channels))
        assert set(found.unique().tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("function", ["shift", "shift_by_global_streams"])
def test_augmentation_depends_on_step_and_sample_only(lab, function):
    data = setup_of(f"dataset.augmentation=my_lab:{function}").data
    state = torch.get_rng_state()
    first, _ = data.batch(np.array([3, 5, 8]), 3, 0)
    torch.rand(5)
    again, _ = data.batch(np.array([8, 3]), 3, 0)
    np.testing.assert_array_equal(again, first[[2, 0]])
    steps = [data.batch(np.arange(16), 3, step)[0] for step in range(4)]
    assert not np.array_equal(steps[0], steps[1])
    assert any(not np.array_equal(step, data.train_inputs[:16]) for step in steps)
    torch.set_rng_state(state)


NUMPY = (
    "dataset=digits", "train.batch_size=32", "train.micro_batch_size=16", "train.max_steps=4",
    "seed=3", "soi.block_size=40", "dataset.train_samples=96", "dataset.test_samples=64",
)  # fmt: skip
MODULE = ("model.factory=my_lab:digits_cnn", "model.arguments={seed: 3}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "tolerance"),
    [
        (("engine=float64",), 1e-9),
        (("engine=float64", "optimizer.fisher=exact"), 1e-9),
        (("engine=float64", "optimizer=adam"), 1e-9),
        (("chip=small",), 1e-6),
        (("chip=small", "optimizer.fisher=empirical"), 1e-6),
        (
            (
                "chip=repast",
                "engine=float64",
                "engine.inverse=analog",
                "soi.fusion=on",
                "optimizer.factor_decay=0.5",
                "soi.fused_left_out=0.3",
                "optimizer.kl_clip=0.001",
            ),
            1e-6,
        ),
    ],
)
def test_losses_and_costs_are_those_of_the_numpy_engine(train, lab, engine, tolerance):
    runs = [
        train(*NUMPY, *network, *engine, "farm.backend=inprocess", "farm.chips=2")
        for network in (("model=digits_cnn",), MODULE)
    ]
    theirs, ours = (json.loads((run / "result.json").read_text()) for run in runs)
    assert np.ptp(losses(runs[0])) > 0.01
    np.testing.assert_allclose(losses(runs[1]), losses(runs[0]), rtol=tolerance)
    for name in ("test_loss", "test_accuracy"):
        assert ours["epochs"][-1][name] == pytest.approx(theirs["epochs"][-1][name], rel=tolerance)
    assert ours["totals"]["energy_j"] == pytest.approx(theirs["totals"]["energy_j"], rel=1e-6)
    assert ours["totals"]["time_s"] == pytest.approx(theirs["totals"]["time_s"], rel=1e-6)
    # Factors and solves are spread over the chips in the same way.
    assert [block["chip"] for block in ours["blocks"]] == [
        block["chip"] for block in theirs["blocks"]
    ]
    assert {row["chip"] for row in read_trace(runs[1] / "trace").to_pylist()} == {0, 1}


@pytest.mark.slow
def test_a_text_with_a_tied_embedding_trains_on_tokens(train, lab):
    text = (
        "model.factory=my_lab:make_text_model", "dataset.factory=my_lab:make_text",
        "train.batch_size=32", "train.epochs=6", "optimizer.learning_rate=0.3",
    )  # fmt: skip
    run = train(*text, *EXACT, *ALONE)
    result = json.loads((run / "result.json").read_text())
    assert result["epochs"][-1]["test_loss"] < 0.8 * result["epochs"][0]["test_loss"]
    assert 0 < result["epochs"][-1]["test_accuracy"] <= 1
    rows = {row["name"]: row for row in result["layers"]}
    assert rows["head"]["preconditioned"]
    assert "embed.weight" not in rows
    assert rows["attention.self_attn.query"]["preconditioned"]
    state = load_file(sorted((run / "checkpoints").iterdir())[-1] / "model.safetensors")
    assert torch.equal(state["embed.weight"], state["head.weight"])
    several = train(*text, *EXACT, "farm.backend=inprocess", "farm.chips=3")
    assert final_arrays(several) == final_arrays(run)


@pytest.mark.slow
def test_the_shipped_text_comes_as_tokens(train, lab):
    text = (
        "model.factory=my_lab:make_text_model", "model.arguments={tokens: 73, width: 16}",
        "dataset=text", "dataset.tokens=16", "dataset.train_samples=96", "dataset.test_samples=32",
        "train.batch_size=32", "train.micro_batch_size=16", "train.epochs=2",
        "optimizer.damping=0.1", "chip=small",
    )  # fmt: skip
    run, exact = train(*text, *ALONE), train(*text, *ALONE, *EXACT)
    assert losses(run)[-1] < 0.95 * losses(run)[0]
    np.testing.assert_allclose(losses(run), losses(exact), rtol=0.02)
    several = train(*text, "farm.backend=inprocess", "farm.chips=2", "train.max_steps=2")
    assert losses(several) == losses(run)[:2]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_modules_are_not_put_there(train, lab):
    with pytest.raises(SettingsError, match=r"model\.device=cuda: PyTorch sees no GPU here"):
        train(*OWN, *EXACT, *ALONE, "model.device=cuda")


DEVICE_CASES = {
    "images": ((), EXACT, 1e-9),
    "images on arrays": ((), ("chip=small",), 1e-6),
    "tokens": (
        ("model.factory=my_lab:make_text_model", "dataset.factory=my_lab:make_text",
         "dataset.augmentation=null", "train.batch_size=32"),
        EXACT, 1e-9,
    ),
    "a loss of one's own": (
        ("model.loss=my_lab:smoothed", "model.likelihood=cross_entropy"), EXACT, 1e-9,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DEVICE_CASES)
def test_modules_on_another_device_agree_with_those_on_the_processor(train, lab, monkeypatch, case):
    more, engine, tolerance = DEVICE_CASES[case]
    here = train(*OWN, *more, *engine, *ALONE)
    if not torch.cuda.is_available():
        # The processor by another name goes all the ways of a device that is not the processor.
        stand_in = torch.device("cpu:0")
        monkeypatch.setattr(torch_farm, "accelerator", lambda name: stand_in)
    there = train(*OWN, *more, *engine, *ALONE, "model.device=cuda")
    assert np.ptp(losses(here)) > 0.01
    np.testing.assert_allclose(losses(there), losses(here), rtol=tolerance)


def test_a_loss_of_ones_own_trains_with_its_likelihood(train, lab):
    own = ("model.loss=my_lab:smoothed", "model.likelihood=cross_entropy")
    run = train(*OWN, *own, *EXACT, *ALONE)
    plain = train(*OWN, *EXACT, *ALONE)
    assert np.isfinite(losses(run)).all()
    assert "accuracy" in (run / "report.html").read_text().partition("</h1>")[2][:3000].lower()
    assert losses(run)[0] != losses(plain)[0]
    with pytest.raises(SettingsError, match=r"optimizer\.fisher=sampled.*model\.likelihood"):
        train(*OWN, own[0], *EXACT, *ALONE)
    empirical = train(*OWN, own[0], *EXACT, *ALONE, "optimizer.fisher=empirical")
    assert losses(empirical)[0] == losses(run)[0]


def test_classes_of_ones_own_run_on_the_arrays_of_the_farm(train, lab):
    own = ("model.factory=my_lab:make_scaled", *ALONE, "train.max_steps=1")
    digital, arrays = (
        json.loads((train(*OWN, *own, *more) / "result.json").read_text())
        for more in ((), ("model.classes=my_lab:CLASSES",))
    )
    assert [row["preconditioned"] for row in digital["layers"]] == [False]
    assert [row["preconditioned"] for row in arrays["layers"]] == [True]
    assert arrays["steps"][0]["loss"] == pytest.approx(digital["steps"][0]["loss"], rel=0.05)


BOTH = (
    "model.factory=my_lab:PictureAndTable", "dataset.factory=my_lab:make_both",
    "train.batch_size=48", "train.micro_batch_size=16", "train.max_steps=4", "soi.interval=2",
    "seed=3",
)  # fmt: skip


@pytest.mark.parametrize("form", ["pair", "mapping", "items"])
def test_samples_of_several_arrays_train_in_any_form(train, lab, form):
    one = train(*BOTH, *EXACT, *ALONE)
    other = train(
        *BOTH, *EXACT, f"dataset.arguments.form={form}", "farm.chips=2", "farm.backend=inprocess"
    )
    assert losses(other) == losses(one)
    assert final_arrays(other) == final_arrays(one)
    result = json.loads((one / "result.json").read_text())
    rows = {row["name"]: row["preconditioned"] for row in result["layers"]}
    assert rows == {"conv": True, "table": True, "classes": True, "number": True}
    assert 0 < result["epochs"][-1]["test_accuracy"] < 1


def test_the_first_loss_of_several_inputs_and_outputs_is_that_of_plain_pytorch(train, lab):
    own = (
        "dataset.arguments.form=two labels", "model.loss=my_lab:both_losses",
        "optimizer.fisher=empirical", "dataset.train_samples=48", "train.max_steps=1",
    )  # fmt: skip
    run = train(*BOTH, *own, *EXACT, *ALONE)
    make, loss = (
        user_code.resolve(f"my_lab:{name}", "model") for name in ("make_both", "both_losses")
    )
    (picture, table), labels = make("two labels")[0]
    module = setup_of(*BOTH[:2], *own, *EXACT, "dataset.augmentation=null").network._module

    def tensor(values):
        return torch.from_numpy(np.float32(values[:48])).double()

    plain = module(tensor(picture), tensor(table))
    given = {
        "classes": tensor(labels["classes"]).long(),
        "means": tensor(labels["means"])[:, None],
    }
    assert losses(run)[0] == pytest.approx(loss(plain, given).item(), rel=1e-9)


def test_several_arrays_are_augmented_and_checked(train, lab):
    data = setup_of(*BOTH[:2], "dataset.augmentation=my_lab:shift_both").data
    varied, _ = data.batch(np.arange(32), 3, 0)
    assert not np.array_equal(varied["0"], data.train_inputs["0"][:32])
    np.testing.assert_array_equal(varied["1"], data.train_inputs["1"][:32])
    for override, message in {
        "dataset.scaling=standard": r"standard of several arrays \(0 \(1, 8, 8\), 1 \(3,\)",
        "dataset.augmentation=my_lab:shift": r"dataset\.augmentation: my_lab:shift",
        "model.loss=squared_error": r"one array of inputs, factory has 0 \(1, 8, 8\), 1 \(3,\)",
        "dataset.arguments.form=two labels": r"cross_entropy takes one array of labels.*classes",
        "model.factory=my_lab:make_model": r"cannot be trained on 16 inputs of shape 0 \(1, 8, 8\)",
    }.items():
        with pytest.raises(SettingsError, match=message):
            train(*BOTH, *EXACT, *ALONE, override)
    with pytest.raises(SettingsError, match=r"takes samples of .* factory has 0 \(1, 8, 8\), 1"):
        train("model=digits_mlp", *BOTH[1:], *EXACT, *ALONE)


@pytest.mark.parametrize(
    ("model", "argument"), [("small_cnn", "channels_last"), ("SparseLookUp", "sparse")]
)
def test_the_way_numbers_lie_in_memory_changes_no_loss(train, lab, model, argument):
    one, other = (
        losses(train(f"model.factory=my_lab:{model}", f"model.arguments.{argument}={value}",
                     *OWN[1:], *EXACT, *ALONE))
        for value in ("false", "true")
    )  # fmt: skip
    np.testing.assert_allclose(one, other, rtol=1e-12)


def test_a_loss_of_chances_counts_the_likeliest_class(train, lab):
    plain = train("model.factory=my_lab:small_cnn", *OWN[1:], *EXACT, *ALONE)
    soft = train(
        "model.factory=my_lab:small_cnn", "dataset.factory=my_lab:make_soft_data",
        "model.loss=my_lab:soft_cross_entropy", "model.likelihood=cross_entropy",
        *OWN[2:], *EXACT, *ALONE,
    )  # fmt: skip
    np.testing.assert_allclose(losses(soft), losses(plain), rtol=1e-9)
    of = [json.loads((run / "result.json").read_text())["epochs"] for run in (soft, plain)]
    assert [item["test_accuracy"] for item in of[0]] == [item["test_accuracy"] for item in of[1]]


def test_a_gradient_that_is_not_finite_ends_the_run(train, lab):
    for optimizer in ("kfac", "sgd"):
        with pytest.raises(DataError, match=r"not finite"):
            train("model.factory=my_lab:InfiniteSlope", f"optimizer={optimizer}",
                  *OWN[1:], *EXACT, *ALONE)  # fmt: skip


def test_a_plan_of_a_module_needs_the_data_it_is_called_with(lab, tmp_path):
    words = [*OWN[:2], "workload=model", "study=plan", "farm.chips=2", f"run_root={tmp_path}"]
    assert main(words) == 0
    sweep = [*words[:3], "study=sweep", "study.axes={farm.chips: [1, 2]}", words[-1]]
    assert main([*sweep, "farm.backend=inprocess"]) == 0
    assert main([*words, "workload=lenet5"]) == 2
    assert main(["study=plan", "workload=model", "dataset=digits", words[-1]]) == 2


WRONG = {
    "model.classes=my_lab:make_model": r"model\.classes: .*valid: a mapping from classes",
    "model.factory=my_lab": r"model\.factory: 'my_lab'; valid: module:function",
    "model.factory=no_lab:make": r"no module 'no_lab' in .*valid: a module of the working",
    "model.factory=my_lab:nothing": r"my_lab has no 'nothing'; valid: Mixed, make_model",
    "model.factory=my_lab:NOT_A_FUNCTION": r"is 3; valid: a function or a class",
    "model.factory=my_lab:no_module": r"returned int; valid: a torch\.nn\.Module",
    "model.factory=my_lab:fails": r"ValueError: no weights found \(.*my_lab\.py, line \d+\)",
    "model.factory=my_lab:wants_another_size": r"trained on 16 inputs of shape \(1, 8,",
    "model.factory=my_lab:too_few_outputs": r"outputs of shape \(9,\) per sample.*10 classes",
    "model.factory=my_lab:Nothing": r"my_lab:Nothing returns str; valid: a tensor",
    "model.factory=my_lab:LateBuffer": r"LateBuffer: buffer mean is made .*valid: buffers that it",
    "model.factory=my_lab:pruned": r"my_lab:pruned: the module cannot be copied: .*valid: ",
    "model.loss=regression": r"model\.loss: regression does not fit .* labels are classes",
    "model.loss=hinge": r"model: loss: 'hinge'; valid: cross_entropy",
    "soi.factor_positions=0.5": r"soi\.factor_positions=0\.5: .*PyTorch module.*valid: 1, or soi",
    "optimizer.adapt_damping_every=2": (
        r"optimizer\.adapt_damping_every=2: .*PyTorch module.*valid: 0"
    ),
    "model.width=3": r"model\.width: unknown setting; .*factory",
    "dataset.factory=my_lab:no_module": r"dataset\.factory: my_lab:no_module: TypeError.*x_train",
    "dataset.augmentation=my_lab:make_text_model": r"dataset\.augmentation: .*TypeError",
    "dataset.scaling=unit": None,
}  # fmt: skip


@pytest.mark.parametrize("override", WRONG)
def test_what_is_wrong_is_named_with_what_is_valid(train, lab, override):
    message = WRONG[override]
    if message is None:
        train(*OWN, *EXACT, *ALONE, override, "train.max_steps=1")
        return
    with pytest.raises(SettingsError, match=message):
        train(*OWN, *EXACT, *ALONE, override)


def test_without_pytorch_the_extra_is_named(lab, monkeypatch):
    import importlib

    load = importlib.import_module

    def missing(name, *others):
        if name.startswith("repast_dist.torch"):
            raise ModuleNotFoundError("no", name="torch")
        return load(name, *others)

    settings = load_settings([*OWN, *ALONE])
    data = settings.dataset.load()
    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(SettingsError, match=r"torch is not installed; valid: pip install"):
        make_setup(training_job(settings), data)
