"""How often a step writes a cell, by what it holds, and how long cells last."""

import numpy as np
import pytest

from repast_dist.network.tables import network_table
from repast_dist.ops import op
from repast_dist.planning import step_ops
from repast_dist.planning.summary import summarise
from repast_dist.planning.wear import CellWrites, Wear, cell_writes
from repast_dist.settings import load_settings


def plan_of(*overrides, network="lenet5", chips=1, batch=64, sides=("A", "G")):
    machine = load_settings(["chip=repast", *overrides]).machine
    return machine.plan(network_table(network), chips, batch, 8, sides)


def test_weights_that_stay_are_written_once_per_step():
    assert cell_writes(plan_of()).weights == 1.0


@pytest.mark.parametrize(("interval", "stale", "sets"), [(1, 0, 1), (4, 0, 1), (4, 2, 2)])
def test_inverting_cells_are_written_once_per_renewal_of_their_set(interval, stale, sets):
    plan = plan_of(f"soi.interval={interval}", f"soi.stale={stale}", "partition.objective=lifetime")
    assert plan.places.stays.all()
    writes = cell_writes(plan)
    assert writes.inverses == pytest.approx(1 / (interval * sets))
    assert writes.products == pytest.approx(1 / (interval * sets))


def test_blocks_that_take_turns_write_the_arrays_as_often_as_the_chip_holds_them():
    """Those that stay keep their arrays; all copies of the others are written into the rest."""
    plan = plan_of("chip=small")
    places, arrays = plan.places, plan.held_shapes.product_arrays
    assert not places.stays.all()
    rest = plan.allocation.budget.solvers - arrays[places.stays].sum()
    products = (arrays * places.copies)[~places.stays].sum() / rest
    assert products > 1
    assert cell_writes(plan).products == pytest.approx(products)


def test_activations_are_written_by_every_micro_batch():
    """A first-order step fills the arrays of inputs once per micro-batch where they hold all, and
    else as often as the inputs of a layer need.
    """
    for micro_batches in (1, 2):
        plan = plan_of(batch=8 * micro_batches, sides=())
        a = plan.allocation
        fillings = max(n / p for n, p in zip(a.activations, a.pool, strict=True) if n)
        assert fillings >= 1
        assert cell_writes(plan).activations == pytest.approx(micro_batches * fillings)


def test_cells_of_activations_are_written_at_least_as_often_as_the_op_table_writes_on_average():
    plan = plan_of("chip=small")
    table = step_ops(plan, None, 0, factors_due=True, inverses_due=True)
    g, a = plan.hardware.geometry, plan.allocation
    array_cells = g.rows * g.weight_columns * g.columns_per_weight
    average = np.zeros(len(plan.layers))
    for what in (op.WRITE_ACTIVATIONS, op.WRITE_MEANS, op.WRITE_ERRORS):
        rows = table.of(what)
        np.add.at(average, rows["layer"], rows["cell_writes"])
    average /= np.maximum(a.pool, 1) * array_cells
    writes = cell_writes(plan).activations
    assert average.max() <= writes
    # Arrays are not quite filled.
    assert writes < 3 * average.max()


def test_the_first_cells_to_wear_out_decide_the_lifetime():
    wear = Wear(CellWrites(weights=1.0, activations=8.0, inverses=0.1, products=0.0), 1e9, 0.02)
    assert wear.first == "activations"
    assert wear.lifetime_steps["weights"] == pytest.approx(1e9)
    assert wear.lifetime_steps["products"] == float("inf")
    assert wear.lifetime_s == pytest.approx(1e9 / 8 * 0.02)


def test_a_run_uses_up_the_share_of_the_endurance_that_its_writes_are():
    wear = Wear(CellWrites(weights=1.0, activations=8.0, inverses=0.1, products=0.0), 1e9, 0.02)
    record = wear.record(steps=1000, steps_per_epoch=50)
    assert set(record["cells"]) == {"weights", "activations", "inverses"}
    assert record["cells"]["activations"]["worn"] == pytest.approx(8e-6)
    assert record["cells"]["inverses"]["writes"] == pytest.approx(100)
    assert record["lifetime_epochs"] == pytest.approx(1e9 / 8 / 50)
    assert record["lifetime_s"] == wear.lifetime_s


def test_a_summary_carries_the_wear_of_its_plan():
    plan = plan_of(chips=2)
    summary = summarise(plan)
    assert summary.wear == Wear(cell_writes(plan), plan.hardware.costs.endurance, summary.step_s)


def test_attention_operands_are_written_for_every_sample():
    """The arrays of a sample's operands hold them twice, once transposed, and are all written by
    each of 16 samples.
    """
    plan = plan_of(network="bert_base", batch=16, sides=())
    a, layers = plan.allocation, plan.layers
    resident = np.flatnonzero(layers.written & a.resident)
    table = step_ops(plan, None, 0, factors_due=False, inverses_due=False).of(op.WRITE_OPERAND)
    cells = np.bincount(table["layer"], table["cell_writes"], len(layers))[resident]
    g = plan.hardware.geometry
    room = (a.weights * a.copies)[resident] * g.rows * g.weight_columns * g.columns_per_weight
    writes = cell_writes(plan).weights
    assert (cells / room).max(initial=0.0) <= writes
    assert writes > 1
