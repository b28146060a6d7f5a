"""Fused blocks in training: rows of the last batches in the arrays instead of their product."""

import json
import os
import signal

import numpy as np
import pytest
from conftest import final_arrays
from test_farm_faults import _when_steps, _worker_processes

from repast_dist.farm.peers import NoPeers
from repast_dist.farm.setup import beginning, make_setup
from repast_dist.farm.worker import ChipWorker
from repast_dist.ground.errors import SettingsError
from repast_dist.ops import OP_NAMES
from repast_dist.planning.ops import step_ops
from repast_dist.settings import load_settings
from repast_dist.studies.settings import training_job
from repast_dist.trace import read_solves, read_trace

# Four batches of 16 in arrays of 128, which leave out 0.5^4 = 0.06 of the average.
FUSED = (
    "model=digits_mlp", "soi.block_size=24", "soi.interval=2", "train.batch_size=16",
    "train.micro_batch_size=8", "optimizer.factor_decay=0.5", "soi.fused_left_out=0.1",
    "soi.fusion=on", "train.max_steps=5", "train.epochs=1",
    "model.layers=[{kind: flatten}, {kind: dense, name: hidden, outputs: 24}, {kind: relu}, "
    "{kind: dense, name: readout, outputs: 10}]",
)  # fmt: skip
HERE = "farm.backend=inprocess"
EFFECTS = (
    "device.wire.row_ohm=1.0", "device.wire.column_ohm=1.0", "device.opamp.gain=1000.0",
    "device.opamp.offset_v=0.001", "device.inv_cell.read_sigma=0.01",
)  # fmt: skip


def _losses(run_dir):
    return [step["loss"] for step in json.loads((run_dir / "result.json").read_text())["steps"]]


def _setup(*settings, chips=1):
    loaded = load_settings([*FUSED, *settings, f"farm.chips={chips}", HERE])
    return make_setup(training_job(loaded), loaded.dataset.load())


@pytest.mark.slow
@pytest.mark.parametrize(
    "effects",
    [(), EFFECTS, ("soi.factor_micro_batches=0.5",)],
    ids=["cells", "wires, gain, offsets, noise", "rows of one micro-batch of two"],
)
def test_fused_blocks_have_the_same_bits_on_any_number_of_chips(train, tmp_path, effects):
    one, two, three = (
        train(*FUSED, *effects, HERE, *chips, root=tmp_path / str(place))
        for place, chips in enumerate(
            [
                ("farm.chips=1",),
                ("farm.chips=2",),
                ("farm.chips=3", "partition.grad_worker_fraction=1", "soi.right_sides_at_once=9"),
            ]
        )
    )
    assert _losses(one) == _losses(two)
    assert final_arrays(one) == final_arrays(two)
    # Right-hand sides that are solved together share a scale, so the areas decide.
    shared = ("soi.right_sides_at_once=9", "farm.chips=1")
    alone = train(*FUSED, *effects, HERE, *shared, root=tmp_path / "alone")
    assert final_arrays(three) == final_arrays(alone)
    solves = read_solves(one).to_pylist()
    assert all(solve["converged"] for solve in solves)


@pytest.mark.slow
def test_effects_of_the_circuit_reach_fused_blocks(train, tmp_path):
    found = {
        effect: _losses(train(*FUSED, HERE, "farm.chips=1", "inversion=single",
                              "engine=float64", "engine.inverse=analog", effect,
                              root=tmp_path / str(place)))
        for place, effect in enumerate(("seed=0", *EFFECTS))
    }  # fmt: skip
    assert len({tuple(losses) for losses in found.values()}) == 1 + len(EFFECTS)


@pytest.mark.slow
def test_a_worker_goes_on_with_the_rows_that_another_held():
    """Between two writings of the blocks, so that what was programmed is not what comes next."""
    setup = _setup()
    whole = ChipWorker((0,), setup, NoPeers())
    whole.restore(0, beginning(setup).arrays)
    whole.advance(0, 3)
    state = whole.common_state() | whole.block_state()
    other = ChipWorker((0,), _setup(), NoPeers())
    other.restore(3, state)
    for worker in (whole, other):
        worker.advance(3, 3)
    found, wanted = (w.common_state() | w.block_state() for w in (other, whole))
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.kills_workers
def test_fused_blocks_on_ray_survive_a_killed_worker(train, tmp_path):
    alone = train(*FUSED, HERE, "farm.chips=1", root=tmp_path / "alone")

    def strike():
        os.kill(_worker_processes()[0].pid, signal.SIGKILL)

    thread = _when_steps(tmp_path / "ray", 3, strike)
    run_dir = train(*FUSED, "farm.chips=3", "farm.checkpoint_every=2", root=tmp_path / "ray")
    thread.join()
    result = json.loads((run_dir / "result.json").read_text())
    assert any(item["kind"] == "recovery" for item in result["events"])
    assert _losses(run_dir) == _losses(alone)
    assert final_arrays(run_dir) == final_arrays(alone)


BLOCK_OPS = ("average_factor", "program_block", "solve_g", "solve_a")
MEASURED = ("amplifier_s", "serial_settling_s")
"""How long circuits settle is assumed in a plan."""


@pytest.mark.parametrize("interval", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_run_counts_what_its_plan_counts(train, interval):
    """One settling per right-hand side, so that nothing but times of settling is assumed."""
    settings = ("inversion=single", f"soi.interval={interval}", "farm.chips=2")
    run_dir = train(*FUSED, HERE, *settings)
    plan = _setup(*settings, chips=2).plan
    assert plan.shapes.fused.all()
    rows = read_trace(run_dir / "trace").to_pylist()
    for step in range(5):
        due = step % interval == 0
        table = step_ops(plan, None, step, factors_due=True, inverses_due=due)
        names = np.array(OP_NAMES)[table["op"]]
        # Calibration runs a micro-batch of the first step twice.
        compared = np.isin(names, BLOCK_OPS) if step == 0 else np.ones(len(names), bool)
        counted = [
            name
            for name, value in rows[0].items()
            if name in table.columns
            and not isinstance(value, str)
            and name not in (*MEASURED, "op", "step")
        ]
        assert {"cell_writes", "inv_ops", "adc_conversions", "link_bytes"} <= {*counted}

        planned = [
            (str(names[k]), *(float(table[name][k]) for name in counted))
            for k in compared.nonzero()[0]
        ]
        done = [
            (row["op"], *(float(row[name]) for name in counted))
            for row in rows
            if row["step"] == step and (step or row["op"] in BLOCK_OPS)
        ]
        planned.sort()
        done.sort()
        assert [row[0] for row in done] == [row[0] for row in planned]
        for one, other in zip(done, planned, strict=True):
            assert one[1:] == pytest.approx(other[1:], rel=1e-12)


@pytest.mark.slow
def test_no_product_is_formed_and_no_errors_are_written_for_fused_blocks(train, tmp_path):
    formed, fused = (
        {row["op"] for row in read_trace(
            train(*FUSED, HERE, f"soi.fusion={value}", root=tmp_path / value) / "trace"
        ).to_pylist()}
        for value in ("off", "on")
    )  # fmt: skip
    gone = {"factor_a", "factor_g", "write_errors", "average_factor"}
    assert formed - fused == gone
    setup = _setup()
    worker = ChipWorker((0,), setup, NoPeers())
    worker.restore(0, beginning(setup).arrays)
    report = worker.advance(0, 1).steps[0]
    converted = {what.partition(" ")[0] for meter in report.clipping for what in meter}
    assert "factor" not in converted
    assert "gradient" in converted


@pytest.mark.slow
def test_blocks_are_fused_where_it_is_cheaper_and_trained_as_planned(train, tmp_path):
    """Settlings take energy: only a block with few right-hand sides is fused."""
    settings = (
        "soi.fusion=auto", "optimizer.factor_decay=0", "soi.block_size=256", "inversion=fcg",
        "partition.objective=energy",
        "device.opamp.gbw_hz=1.0e10", "device.opamp.compensation=60",
    )  # fmt: skip
    plan = _setup(*settings).plan
    assert 0 < plan.shapes.fused.sum() < len(plan.shapes)
    for chips in (2, 3):
        other = _setup(*settings, chips=chips).plan
        assert other.shapes.fused.tolist() == plan.shapes.fused.tolist()
    one, two = (
        train(*FUSED, *settings, HERE, f"farm.chips={chips}", root=tmp_path / str(chips))
        for chips in (1, 2)
    )
    assert final_arrays(one) == final_arrays(two)
    forming = {
        (row["layer"], row["op"][-1].upper())
        for row in read_trace(one / "trace").to_pylist()
        if row["op"] in ("factor_a", "factor_g")
    }
    assert forming == {
        (block.layer, block.factor)
        for block, fused in zip(plan.blocks, plan.shapes.fused, strict=True)
        if not fused
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("optimizer.factor_decay=0.95",), "no block fits.*864 rows of 54 batches"),
        (("inversion=taylor",), "inversion.method=taylor needs formed blocks.*valid: off"),
    ],
)
def test_fusing_nothing_is_refused(settings, message):
    with pytest.raises(SettingsError, match=message):
        _setup("soi.fused_left_out=0.0628", *settings)


def test_a_method_whose_matrices_are_no_products_of_rows_is_not_fused(monkeypatch):
    from repast_dist.training.optimizers.kfac import Kfac

    monkeypatch.setattr(Kfac, "fusible", False)
    with pytest.raises(SettingsError, match="K-FAC are no products of rows"):
        _setup()
    assert not _setup("soi.fusion=auto").plan.shapes.fused.any()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_fused_blocks_train_like_formed_ones(train, tmp_path, seed):
    """Without rounding but that of circuits, losses are nearly those of formed blocks."""
    settings = (
        "train.batch_size=32", "train.micro_batch_size=32", "train.max_steps=24",
        "soi.block_size=256", "soi.interval=4", "engine=float64", "engine.inverse=analog",
        HERE, "farm.chips=1", f"seed={seed}",
    )  # fmt: skip
    formed, fused = (
        _losses(train(*FUSED, *settings, f"soi.fusion={value}", root=tmp_path / value))
        for value in ("off", "on")
    )
    assert fused != formed
    assert np.mean(formed[-6:]) < 0.3 * formed[0]
    assert abs(np.mean(fused[-6:]) - np.mean(formed[-6:])) < 0.05 * np.mean(formed[-6:])
