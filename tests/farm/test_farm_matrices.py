"""Matrices that are updated as wholes: what is computed is what is planned, paid for and worn."""

import itertools
import json
import queue
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from repast_dist.farm.setup import beginning, chip_engine, make_setup
from repast_dist.farm.worker import ChipWorker
from repast_dist.ground.errors import RepastError
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
OP_NUMBERS = {what.name: what.number for what in OPS}
OF_MATRICES = ("write_matrix", "vmm_matrix", "multiply_matrix", "combine_matrix", "program_root",
               "solve_root")  # fmt: skip
COUNTED = ("crossbar_reads", "cells_read", "dac_conversions", "adc_conversions", "cell_writes",
           "digital_ops", "buffer_bytes", "inv_ops", "inv_adc_conversions")  # fmt: skip


def planned(*overrides):
    return planned_step(load_settings([*SMALL, *overrides]))


@pytest.mark.parametrize(
    ("method", "products"),
    [("muon", "arrays"), ("muon", "digital"), ("newton_muon", "digital"), ("shampoo", "arrays"),
     ("shampoo optimizer.roots=inversions optimizer.grafting=adam", "arrays"),
     ("shampoo optimizer.roots=inversions", "digital")],
)  # fmt: skip
def test_the_rows_of_a_run_are_those_of_its_plan(train, method, products):
    """Inversions by a scheme that takes one settling for every column of the identity, whatever the
    numbers.
    """
    options = (*f"optimizer={method}".split(), f"optimizer.products={products}", "farm.chips=2",
               "train.max_steps=2", "soi.interval=2", "optimizer.output_layer=matrix")  # fmt: skip
    if "inversions" in method:
        options += ("inversion=single", "inversion.on_divergence=use")
    run = train(*SMALL, *options)
    rows = [row for row in read_trace(run / "trace").to_pylist() if row["op"] in OF_MATRICES]
    plan = planned(*options)
    for step, due in enumerate((Due(True, True), Due(True, False))):
        table = matrix_rows(plan, None, due)
        expected = {
            (NAMES[int(op)], int(chip), int(layer)): place
            for place, (op, chip, layer) in enumerate(
                zip(table["op"], table["chip"], table["layer"], strict=True)
            )
        }
        done = [row for row in rows if row["step"] == step]
        assert {(row["op"], row["chip"], row["layer"]) for row in done} == set(expected)
        for row in done:
            # The first step sets the ranges of converters, which nothing else does.
            if step or row["op"] != "vmm_matrix":
                place = expected[row["op"], row["chip"], row["layer"]]
                for name in COUNTED:
                    assert row[name] == table[name][place], (row["op"], name)
    assert (products == "arrays") == any(row["op"] == "vmm_matrix" for row in rows)


def test_newton_muon_solves_for_its_matrices_alone(train):
    """Moments of inputs of two layers; what was solved travels to the owners of the matrices."""
    options = ("optimizer=newton_muon", "farm.chips=2", "train.max_steps=2")
    run, plan = train(*SMALL, *options), planned(*options)
    rows = [row for row in read_trace(run / "trace").to_pylist() if row["step"] == 1]
    layers = [plan.workload.layers[layer].name for layer in matrix_layers(plan)]
    assert layers == ["hidden", "middle"]
    assert {row["layer"] for row in rows if row["op"] == "solve_a"} == set(matrix_layers(plan))
    assert {row["layer"] for row in rows if row["op"] == "factor_a"} == set(matrix_layers(plan))
    assert not [row for row in rows if row["op"] in ("solve_g", "factor_g", "vmm_fisher")]
    table = step_ops(plan, None, 1, factors_due=True, inverses_due=True)
    for name in ("factor_a", "average_factor", "exchange_gradients", "exchange_solved", "update"):
        sent = [row for row in rows if row["op"] == name]
        where = table["op"] == OP_NUMBERS[name]
        assert len(sent) == where.sum() > 0, name
        for count in (*COUNTED, "link_bytes"):
            assert sum(row[count] for row in sent) == table[count][where].sum(), (name, count)


class Queues:
    """What one worker sends the others, without processes between them."""

    def __init__(self, me, queues):
        self.me, self.queues = me, queues

    def send(self, step, part, messages):
        for worker, arrays in messages.items():
            self.queues[self.me, worker].put((step, part, arrays))

    def receive(self, step, part):
        found = {}
        for sender, receiver in sorted(self.queues):
            if receiver == self.me:
                *what, found[sender] = self.queues[sender, receiver].get(timeout=60)
                assert what == [step, part]
        return found

    def close(self):
        pass


@pytest.mark.parametrize("method", ["newton_muon", "shampoo", "shampoo optimizer.roots=inversions"])
def test_matrices_travel_between_workers_with_the_same_bits(method):
    def states(groups):
        chips = sum(len(group) for group in groups.values())
        asked = f"optimizer={method}".split()
        settings = load_settings([*SMALL, *asked, f"farm.chips={chips}"])
        setup = make_setup(training_job(settings), settings.dataset.load(), groups)
        queues = {pair: queue.Queue() for pair in itertools.permutations(groups, 2)}
        workers = [ChipWorker(chips, setup, Queues(me, queues)) for me, chips in groups.items()]
        for worker in workers:
            worker.restore(0, beginning(setup).arrays)
        with ThreadPoolExecutor(len(workers)) as pool:
            for done in [pool.submit(worker.advance, 0, 2) for worker in workers]:
                done.result()
        return [worker.common_state() for worker in workers]

    alone, *spread = states({0: (0,)}) + states({0: (0, 2), 1: (1,)})
    for state in spread:
        assert state.keys() == alone.keys()
        for name, values in alone.items():
            np.testing.assert_array_equal(state[name], values, err_msg=name)


@pytest.mark.parametrize("method", ["muon", "shampoo"])
def test_the_conversions_of_a_direction_are_those_that_are_planned(method):
    """The arrays count their conversions themselves; the plan knows shapes alone."""
    settings = load_settings([*SMALL, f"optimizer={method}"])
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


def test_roots_that_are_taken_rarely_are_paid_rarely():
    """Steps between two renewals average and multiply; the average step is their mean."""
    often, rarely = (
        planned("optimizer=shampoo", f"soi.interval={steps}", "partition.objective=lifetime")
        for steps in (1, 4)
    )
    whole, between = (
        matrix_rows(often, None, Due(True, inverses))["cell_writes"].sum()
        for inverses in (True, False)
    )
    assert 0 < between < whole / 5
    spared = summarise(often).cell_writes - summarise(rarely).cell_writes
    assert spared == pytest.approx(0.75 * (whole - between))
    assert cell_writes(rarely).activations < cell_writes(often).activations


def test_a_root_that_diverges_is_named(train):
    """Arrays do not take matrices whose eigenvalues are as far apart as those of one batch."""
    with pytest.raises(RepastError, match=r"layer hidden, round .* of root of .*optimizer.ridge"):
        train(*SMALL, "optimizer=shampoo", "optimizer.ridge=1e-6", "optimizer.rounds=40")


INVERSIONS = ("optimizer=shampoo", "optimizer.roots=inversions")


def test_inversions_wear_inverting_cells():
    """By hand: a matrix of 64, 12, 12 or 9 rows fits an array; three for each root, every second
    step; both matrices have a chip of their own.
    """
    options = (*INVERSIONS, "soi.interval=2", "farm.chips=2", "partition.objective=lifetime")
    plan = planned(*options)
    assert set(matrix_owners(plan)) == {0, 1}
    expected = 2 * 3 / 2 / plan.hardware.chip.inv_arrays
    assert cell_writes(plan).inverses == pytest.approx(expected)
    newton = planned("optimizer=shampoo", *options[2:])
    assert cell_writes(newton).inverses == 0
    assert cell_writes(plan).activations < cell_writes(newton).activations


def test_an_inversion_that_misses_its_target_is_paid_as_the_policy_says(train, tmp_path):
    """One round of conjugate gradients does not reach twelve bits: Cholesky's factors then give the
    same roots as the digital unit's, and are paid beside the arrays.
    """
    few = ("inversion.target_bits=12", "inversion.max_iterations=1", "engine=float64",
           "engine.inverse=analog", "train.max_steps=2", *INVERSIONS)  # fmt: skip
    digital = train(*SMALL, *INVERSIONS, "optimizer.products=digital", "engine=float64",
                    "train.max_steps=2", root=tmp_path / "digital")  # fmt: skip
    again = train(*SMALL, *few, root=tmp_path / "again")
    losses = [[row["loss"] for row in json.loads((run / "result.json").read_text())["steps"]]
              for run in (digital, again)]  # fmt: skip
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    used = train(*SMALL, *few, "inversion.on_divergence=use", root=tmp_path / "used")
    spent = [
        sum(row["digital_ops"] for row in read_trace(run / "trace").to_pylist()
            if row["op"] == "solve_root")
        for run in (again, used)
    ]  # fmt: skip
    assert spent[0] > spent[1] > 0
    with pytest.raises(RepastError, match=r"layer hidden, root of left 0: .* misses its target"):
        train(*SMALL, *few, "inversion.on_divergence=raise", root=tmp_path / "raised")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("optimizer.ridge=1e-9",), r"root of left: 3 inverses may be off by .*optimizer.poles"),
        (("chip.inv.arrays_per_bank=0",), r"no inverting arrays; valid: at least 1"),
    ],
)
def test_a_root_that_inversions_do_not_give_is_refused(train, settings, message):
    with pytest.raises(RepastError, match=message):
        train(*SMALL, *INVERSIONS, *settings)


def test_a_network_of_one_matrix_has_none_but_on_request():
    layers = "model.layers=[{kind: flatten}, {kind: dense, outputs: 10}]"
    assert matrix_layers(planned("optimizer=muon", layers)) == ()
    asked = planned("optimizer=muon", layers, "optimizer.output_layer=matrix")
    assert [asked.workload.layers[layer].in_features for layer in matrix_layers(asked)] == [64]
