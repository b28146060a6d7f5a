"""Matrices that are updated as wholes: what is computed is what is planned, paid for and worn."""

import numpy as np
import pytest

from repast_dist.farm.setup import chip_engine
from repast_dist.ops.op import OPS
from repast_dist.planning.matrix_ops import (
    free_arrays,
    matrix_layers,
    matrix_owners,
    matrix_rows,
)
from repast_dist.planning.ops import step_ops
from repast_dist.planning.summary import summarise
from repast_dist.planning.wear import cell_writes
from repast_dist.settings import load_settings
from repast_dist.studies.costing import planned_step
from repast_dist.studies.settings import training_job
from repast_dist.trace import read_trace
from repast_dist.training.matrices import EngineUnit
from repast_dist.training.optimizers.matrix_unit import Due

SMALL = (
    "model=digits_mlp", "farm.backend=inprocess", "workload=model", "train.epochs=1",
    "dataset.train_samples=64", "train.batch_size=16", "train.micro_batch_size=8",
    "model.layers=[{kind: flatten}, {kind: dense, name: hidden, outputs: 12}, {kind: relu}, "
    "{kind: dense, name: middle, outputs: 9}, {kind: relu}, {kind: dense, outputs: 10}]",
)  # fmt: skip
NAMES = {what.number: what.name for what in OPS}
OF_MATRICES = ("write_matrix", "vmm_matrix", "multiply_matrix", "combine_matrix")
COUNTED = ("crossbar_reads", "cells_read", "dac_conversions", "adc_conversions", "cell_writes",
           "digital_ops", "buffer_bytes")  # fmt: skip


def planned(*overrides):
    return planned_step(load_settings([*SMALL, *overrides]))


@pytest.mark.parametrize("products", ["arrays", "digital"])
def test_the_rows_of_a_run_are_those_of_its_plan(train, products):
    options = ("optimizer=muon", f"optimizer.products={products}", "farm.chips=2",
               "train.max_steps=2")  # fmt: skip
    run = train(*SMALL, *options)
    rows = [row for row in read_trace(run / "trace").to_pylist() if row["op"] in OF_MATRICES]
    plan = planned(*options)
    table = matrix_rows(plan, None, Due())
    expected = {
        (NAMES[int(op)], int(chip), int(layer)): place
        for place, (op, chip, layer) in enumerate(
            zip(table["op"], table["chip"], table["layer"], strict=True)
        )
    }
    second = [row for row in rows if row["step"] == 1]
    assert {(row["op"], row["chip"], row["layer"]) for row in second} == set(expected)
    for row in second:
        place = expected[row["op"], row["chip"], row["layer"]]
        for name in COUNTED:
            assert row[name] == table[name][place], (row["op"], name)
    # The first step sets the ranges of converters, which nothing else does.
    for row in (row for row in rows if row["step"] == 0 and row["op"] != "vmm_matrix"):
        place = expected[row["op"], row["chip"], row["layer"]]
        assert all(row[name] == table[name][place] for name in COUNTED)
    assert (products == "arrays") == any(row["op"] == "vmm_matrix" for row in rows)


def test_the_conversions_of_a_direction_are_those_that_are_planned():
    """The arrays count their conversions themselves; the plan knows shapes alone."""
    settings = load_settings([*SMALL, "optimizer=muon"])
    plan, job = planned_step(settings), training_job(settings)
    engine = chip_engine(job, 0)
    method, random = job.optimizer.matrices, np.random.default_rng(0)
    table = matrix_rows(plan, None, Due())
    for layer in matrix_layers(plan):
        shape = plan.workload.layers[layer]
        unit = EngineUnit("arrays", engine, 0, shape.name)
        size = shape.in_features, shape.out_features
        state = {name: np.zeros(one) for name, one in method.state_shapes(*size).items()}
        method.direction(unit, random.standard_normal(size), state, Due())
        counted = sum(count.conversions for count in engine.meter.take().values())
        driven = [NAMES[int(op)] == "vmm_matrix" for op in table["op"]]
        rows = (table["layer"] == layer) & np.array(driven)
        assert counted == table["adc_conversions"][rows].sum() > 0


def test_an_operand_wears_the_cells_without_weights():
    """By hand: arrays written in a step over those that hold no weights, of the busiest chip."""
    plan = planned("optimizer=muon", "farm.chips=2", "partition.objective=lifetime")
    sgd = planned("optimizer=sgd", "farm.chips=2", "partition.objective=lifetime")
    chip = plan.hardware.chip
    slices = plan.hardware.geometry.slices
    arrays = np.zeros(2)
    for layer, owner in zip(matrix_layers(plan), matrix_owners(plan), strict=True):
        shape = plan.workload.layers[layer]
        small = min(shape.in_features, shape.out_features)
        large = max(shape.in_features, shape.out_features)
        for rows, columns in ((large, small), (small, small)):
            tiles = -(-rows // chip.vmm.rows) * -(-columns * slices // chip.vmm.pairs)
            arrays[owner] += 5 * tiles
    more = cell_writes(plan).activations - cell_writes(sgd).activations
    assert more == pytest.approx(arrays.max() / free_arrays(plan, 0))


def test_more_chips_share_the_matrices_and_each_is_updated_once():
    one, four = (planned("optimizer=muon", f"farm.chips={chips}") for chips in (1, 4))
    assert set(matrix_owners(four)) != {0}
    for name in ("cell_writes", "adc_conversions", "digital_ops"):
        assert (
            matrix_rows(one, None, Due())[name].sum() == matrix_rows(four, None, Due())[name].sum()
        )
    # The rows of the chips one by one are those of all.
    parts = [len(matrix_rows(four, chip, Due())) for chip in range(4)]
    assert sum(parts) == len(matrix_rows(four, None, Due()))


def test_the_average_step_is_that_of_its_rows():
    """A summary stands for all chips with few rows; those of matrices are all there."""
    plan = planned("optimizer=muon", "farm.chips=4")
    table = step_ops(plan, None, 1, factors_due=True, inverses_due=True)
    assert summarise(plan).cell_writes == pytest.approx(table["cell_writes"].sum())


def test_goals_of_the_plan_decide_the_copies_of_operands():
    few, many = (
        matrix_rows(planned("optimizer=muon", f"partition.objective={goal}"), None, Due())
        for goal in ("lifetime", "time")
    )
    assert few["cell_writes"].sum() < many["cell_writes"].sum()
    assert few["serial_passes"].sum() > many["serial_passes"].sum()
    apart = planned("optimizer=muon", "partition.replicate_layers=false")
    assert matrix_rows(apart, None, Due())["cell_writes"].sum() == few["cell_writes"].sum()


def test_a_network_of_one_matrix_has_none_but_on_request():
    layers = "model.layers=[{kind: flatten}, {kind: dense, outputs: 10}]"
    assert matrix_layers(planned("optimizer=muon", layers)) == ()
    asked = planned("optimizer=muon", layers, "optimizer.output_layer=matrix")
    assert [asked.workload.layers[layer].in_features for layer in matrix_layers(asked)] == [64]
