"""Micro-batches that share every product leave what one after the other leaves, to the bit."""

import dataclasses
import functools

import numpy as np
import pytest

from repast_dist.analog.kernels.chosen import using
from repast_dist.farm.clock import align
from repast_dist.farm.peers import NoPeers
from repast_dist.farm.setup import beginning, make_setup
from repast_dist.farm.stages import _batch, _samples
from repast_dist.farm.worker import ChipWorker
from repast_dist.ground.errors import DataError
from repast_dist.network.layers.activation import ActivationNode
from repast_dist.settings import load_settings
from repast_dist.studies.settings import training_job
from repast_dist.training import step as training_step
from repast_dist.training.losses import loss_value
from repast_dist.training.step import LoadedModel

STEPS = 2
SMALL = (
    "train.batch_size=16", "train.micro_batch_size=2", "train.max_steps=2", "train.epochs=1",
    "farm.backend=inprocess", "soi.interval=2", "soi.block_size=24",
)  # fmt: skip
CONV = (
    "model=digits_cnn",
    "model.layers=[{kind: conv, name: conv, outputs: 4, padding: 1}, {kind: relu}, "
    "{kind: max_pool}, {kind: flatten}, {kind: dense, name: readout, outputs: 10}]",
)
TOKENS = (
    "model=digits_transformer",
    "model.layers=[{kind: patches, size: 4}, {kind: dense, name: embed, outputs: 8}, "
    "{kind: positions}, {kind: residual, body: [{kind: norm}, {kind: attention, heads: 2}]}, "
    "{kind: global_pool}, {kind: dense, name: head, outputs: 10}]",
)


@dataclasses.dataclass(frozen=True)
class Left:
    """What two steps leave: losses, conversions and clipping, weights and blocks, rows."""

    losses: list
    conversions: list
    arrays: dict
    rows: object
    sizes: list


@functools.cache
def setup_of(*overrides):
    settings = load_settings([*SMALL, *overrides])
    return make_setup(training_job(settings), settings.dataset.load())


def left(monkeypatch, most, *overrides):
    """Train with so many micro-batches at once at most; None: as many as there are."""
    setup = setup_of(*overrides)
    worker, sizes = ChipWorker(setup.chips, setup, NoPeers()), []
    run = LoadedModel.run_micro_batches

    def watched(model, batches, *others):
        sizes.append(len(batches))
        return run(model, batches, *others)

    with monkeypatch.context() as patch:
        patch.setattr(LoadedModel, "run_micro_batches", watched)
        if most is not None:
            patch.setattr(LoadedModel, "at_once", lambda model, samples: most)
        worker.restore(0, beginning(setup).arrays)
        answer = worker.advance(0, STEPS)
    return Left(
        [sorted(step.outcomes) for step in answer.steps],
        [step.clipping for step in answer.steps],
        worker.common_state() | worker.block_state(),
        align([answer.costs], 0, 1.5)[0],
        sizes,
    )


def same(one, other):
    assert one.conversions == other.conversions
    assert one.losses == other.losses
    assert one.arrays.keys() == other.arrays.keys()
    for name, values in one.arrays.items():
        np.testing.assert_array_equal(values, other.arrays[name], err_msg=name)


READ = ("device.cell.read_sigma=0.005", "chip.adc.noise_lsb=0.3", "chip.adc.offset_lsb=0.1")


@pytest.mark.parametrize(
    ("overrides", "kernels", "most"),
    [
        pytest.param((*CONV, *READ), "auto", 8, marks=pytest.mark.slow),
        ((*CONV, *READ), "float32", 8),
        ((*CONV, "soi.factor_positions=0.5", "soi.factor_micro_batches=0.5"), "auto", 4),
        pytest.param(TOKENS, "auto", 8, marks=pytest.mark.slow),
        pytest.param(TOKENS, "float32", 8, marks=pytest.mark.slow),
        ((*TOKENS, "model.sharing=reduce", "chip.dac.noise_lsb=0.001"), "auto", 8),
    ],
    ids=["read noise", "float32", "some positions", "attention", "attention float32", "apart"],
)
def test_micro_batches_together_leave_the_bits_of_one_by_one(monkeypatch, overrides, kernels, most):
    with using(kernels):
        alone = left(monkeypatch, 1, *overrides)
        assert set(alone.sizes) == {1}
        for at_once in (3, None):
            found = left(monkeypatch, at_once, *overrides)
            same(found, alone)
            assert found.rows.equals(alone.rows)
            assert max(found.sizes) == min(at_once or most, most)


@pytest.mark.parametrize("engine", ["float64", "fixed"])
def test_digital_arithmetic_keeps_its_bits_too(monkeypatch, engine):
    for overrides in (CONV, TOKENS):
        overrides = (*overrides, f"engine={engine}")
        same(left(monkeypatch, None, *overrides), left(monkeypatch, 1, *overrides))


def test_any_number_of_chips_leaves_the_same(monkeypatch):
    one = left(monkeypatch, None, *CONV, "farm.chips=1")
    for chips in (2, 3, 8):
        many = left(monkeypatch, None, *CONV, f"farm.chips={chips}")
        same(many, one)
        alone = left(monkeypatch, 1, *CONV, f"farm.chips={chips}")
        assert many.rows.equals(alone.rows)
        assert max(many.sizes) == 8
    # Chips that differ in their cells share nothing with the others.
    apart = "+farm.chip_overrides.1.programming_sigma=0.02"
    found = left(monkeypatch, None, *CONV, "farm.chips=2", apart)
    same(found, left(monkeypatch, 1, *CONV, "farm.chips=2", apart))
    assert max(found.sizes) == 4


def test_layers_that_do_not_say_that_they_can_run_one_by_one(monkeypatch):
    whole = left(monkeypatch, None, *CONV)
    monkeypatch.setattr(ActivationNode, "together", False)
    apart = left(monkeypatch, None, *CONV)
    assert set(apart.sizes) == {1}
    same(apart, whole)


def test_the_chip_that_finds_something_wrong_is_named(monkeypatch):
    bad = 5

    def sometimes(loss, outputs, inputs, labels):
        value = loss_value(loss, outputs, inputs, labels)
        total = np.nan if np.array_equal(inputs, wrong) else value.total
        return dataclasses.replace(value, total=total)

    setup = setup_of(*CONV, "farm.chips=8")
    wrong = _batch(setup, 0, _samples(setup, 0, bad))[0]
    monkeypatch.setattr(training_step, "loss_value", sometimes)
    chip = setup.micro_batch_owner(bad)
    with pytest.raises(DataError, match=f"chip {chip}: step 0, micro-batch {bad}: the loss"):
        left(monkeypatch, None, *CONV, "farm.chips=8")
